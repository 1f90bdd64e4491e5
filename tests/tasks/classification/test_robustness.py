"""ImageNet-A, -R, -Sketch and -C: which classes may be answered, how images are cut, the mCE."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor
from torchvision import transforms

from backbones.sizes import Size
from backbones.vit import ViT
from tasks.classification.classifier import Classifier
from tasks.classification.datasets import CORRUPTIONS
from tasks.classification.recipes import recipe
from tasks.classification.robustness import (
    ALEXNET_ERRORS,
    Robustness,
    corruption_scores,
    keys,
    mce,
    rescore_views,
)
from tasks.errors import TaskError
from tasks.task import Scoring

WNIDS = [f"n{i:08d}" for i in range(1, 9)]
SIDE = 32
LIKELY = 3
"""the class that `Colours` prefers to all others"""


class Colours(Classifier):
    """Answers by an image's mean red: class 0 to 7 for 16, 48, ... 240; but class 3 before all.

    Its second answer is the right one for the images that `write` makes.
    """

    def __init__(self) -> None:
        base = recipe("imagenet1k", "vit_b", "finetune")
        small = dataclasses.replace(base, image_size=SIDE, precision="fp32")
        super().__init__(small, ViT("tiny", Size(16, 1, 2, 16), SIDE), len(WNIDS))
        self.seen: list[Tensor] = []

    def predict(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        red = images[:, 0].float().mean(dim=(1, 2))
        centres = 16.0 + 32 * torch.arange(len(WNIDS))
        logits = -(red[:, None] - centres).abs() / 32
        logits[:, LIKELY] += 20
        return logits


class Fair(Colours):
    """The same without a preference: right about every image whose red is its class's."""

    def predict(self, images: Tensor) -> Tensor:
        logits = super().predict(images)
        logits[:, LIKELY] -= 20
        return logits


def write(file: Path, label: int, size: tuple[int, int] = (40, 40)) -> None:
    """An image that is the colour of class `label`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (16 + 32 * label, 0, 0)).save(file)


def corrupted(root: Path, wrong: dict[str, int], count: int = 3, size: int = SIDE) -> None:
    """ImageNet-C with `count` images of classes 0 and 5 each; in "<corruption>/<severity>" the
    first so many of class 0 look like class 7."""
    for key in keys():
        for i in range(count):
            shown = 7 if i < wrong.get(key, 0) else 0
            write(root / key / WNIDS[0] / f"{i}.png", shown, (size, size))
            write(root / key / WNIDS[5] / f"{i}.png", 5, (size, size))


def evaluate(model: Classifier, name: str, root: Path, **how: object):
    limit = how.pop("limit", None)
    return Robustness(model, WNIDS, name, root, limit).evaluate(Scoring(workers=0, **how))


def test_corruptions_are_those_of_the_data() -> None:
    assert [c for group in CORRUPTIONS.values() for c in group] == list(ALEXNET_ERRORS)
    assert len(ALEXNET_ERRORS) == 15


def test_mce_by_hand() -> None:
    """As bad as AlexNet is 100; half as bad everywhere is 50; one kind of error counts alone."""
    alexnet = np.array(list(ALEXNET_ERRORS.values()))
    errors = np.tile(alexnet[:, None], 5)
    assert mce(errors) == pytest.approx(1)
    assert mce(errors / 2) == pytest.approx(0.5)
    errors[:] = 0
    errors[10, 2] = 0.25  # brightness
    assert mce(errors) == pytest.approx(0.25 / 5 / 0.564592 / 15)


def test_mce_in_the_words_of_its_paper() -> None:
    """Sums over severities, one over the other, then the mean; sums of AlexNet from its means."""
    errors = np.random.default_rng(0).random((15, 5))
    of_each = []
    for row, alexnet in zip(errors, ALEXNET_ERRORS.values(), strict=True):
        of_each.append(sum(row) / (5 * alexnet))
    assert mce(errors) == pytest.approx(sum(of_each) / 15)


def test_imagenet_c_by_hand(tmp_path: Path) -> None:
    """Of six images in each view one is wrong in snow/2 and two are in pixelate/5."""
    corrupted(tmp_path, {"snow/2": 1, "pixelate/5": 2})
    out = tmp_path / "out"
    out.mkdir()
    done: list[int] = []
    found = evaluate(Fair(), "imagenet_c", tmp_path, folder=out, on_progress=done.append)
    assert found.metrics["top1"] == pytest.approx(100 * (1 - 3 / 6 / 75))
    expected = 100 * (1 / 6 / 5 / 0.866816 + 2 / 6 / 5 / 0.717840) / 15
    assert found.metrics["mce"] == pytest.approx(expected)
    assert done[-1] == 6 * 75
    table = pd.read_csv(out / "per_corruption.csv", index_col="corruption")
    assert list(table.index) == [*ALEXNET_ERRORS, "mean"]
    assert table.severity_2["snow"] == pytest.approx(100 / 6)
    assert table.error["pixelate"] == pytest.approx(100 / 15)
    assert table.corruption_error["mean"] == pytest.approx(found.metrics["mce"])
    others = table.drop(index=["snow", "pixelate", "mean"]).filter(regex="severity")
    assert (others.to_numpy() == 0).all()
    rows = pd.read_csv(out / "predictions.csv")
    assert len(rows) == 6 * 75
    wrong = rows[rows.target != rows.class_1].file.tolist()
    assert wrong == [f"snow/2/{WNIDS[0]}/0.png"] + [
        f"pixelate/5/{WNIDS[0]}/{i}.png" for i in (0, 1)
    ]
    assert rescore_views(out / "predictions.csv") == found


def test_intervals_of_imagenet_c_by_brute_force() -> None:
    """An image is drawn with all its views: as files apart they would look far surer."""
    rng, count = np.random.default_rng(0), 150
    ease = rng.beta(1, 1, count)
    hits = rng.random((75, count)) < ease
    found, _ = corruption_scores(
        [(key, [str(i) for i in range(count)]) for key in keys()], hits.ravel()
    )
    top1, errors = [], []
    alexnet = np.array(list(ALEXNET_ERRORS.values()))
    for _ in range(2000):
        drawn = hits[:, rng.integers(count, size=count)]
        misses = 1 - drawn.reshape(15, 5, count).mean(axis=(1, 2))
        top1.append(100 * drawn.mean())
        errors.append(100 * np.mean(misses / alexnet))
    # Ends scatter by 0.06 standard deviations each; five times that for the two of them.
    for name, figures in (("top1", top1), ("mce", errors)):
        spread = np.std(figures)
        ends = np.percentile(figures, [2.5, 97.5])
        assert found.intervals[name] == pytest.approx(tuple(ends), abs=0.42 * spread)
        assert found.intervals[name][0] < found.metrics[name] < found.intervals[name][1]
    of_files = 100 * np.sqrt(hits.mean() * (1 - hits.mean()) / hits.size)
    assert np.std(top1) > 4 * of_files


def test_an_unreadable_view_is_named_and_leaves_no_interval(tmp_path: Path) -> None:
    corrupted(tmp_path, {"fog/1": 1})
    name = f"fog/1/{WNIDS[5]}/2.png"
    (tmp_path / name).write_bytes(b"no image")
    found = evaluate(Fair(), "imagenet_c", tmp_path)
    assert [each.name for each in found.unreadable] == [name]
    assert found.intervals == {}
    assert found.metrics["top1"] == pytest.approx(100 * (1 - 1 / 5 / 75))
    for file in (tmp_path / "fog/1").rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(TaskError, match="no image of fog/1 could be scored"):
        evaluate(Fair(), "imagenet_c", tmp_path)


def test_limit_takes_the_same_images_of_each_view(tmp_path: Path) -> None:
    corrupted(tmp_path, {})
    model = Fair()
    measured = Robustness(model, WNIDS, "imagenet_c", tmp_path, limit=2)
    assert measured.evaluate(Scoring(workers=0)).intervals.keys() == {"top1", "mce"}
    facts = measured.data_facts()
    whole = Robustness(model, WNIDS, "imagenet_c", tmp_path).data_facts()
    assert facts == whole | {"val_images": 150}
    assert whole["val_images"] == 450
    assert (whole["train_images"], whole["classes"], whole["standard"]) == (0, 2, False)


def pixels(model: Colours) -> Tensor:
    return torch.cat(model.seen)


def noise(file: Path, side: int) -> Image.Image:
    file.parent.mkdir(parents=True, exist_ok=True)
    grid = np.random.default_rng(side).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(grid).resize((side, side + 9), Image.Resampling.BICUBIC)
    image.save(file)
    return image


@pytest.mark.parametrize(("side", "scaled"), [(SIDE, SIDE), (48, SIDE)])
def test_images_of_imagenet_c_are_not_cropped_again(tmp_path: Path, side: int, scaled: int) -> None:
    """They are 224 pixels wide: to the bit what a network of that input size is given."""
    for key in keys():
        place = tmp_path / key / WNIDS[0] / "0.png"
        place.parent.mkdir(parents=True)
        noise(tmp_path / "any.png", side).crop((0, 0, side, side)).save(place)
    model = Fair()
    evaluate(model, "imagenet_c", tmp_path)
    cut = noise(tmp_path / "any.png", side).crop((0, 0, side, side))
    resize = transforms.Resize(scaled, transforms.InterpolationMode.BICUBIC)
    expected = transforms.Compose([resize, transforms.PILToTensor()])(cut)
    assert pixels(model).shape == (75, 3, SIDE, SIDE)
    assert (pixels(model) == expected).all()


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r", "imagenet_sketch", "imagenet1k"])
def test_the_others_are_cut_as_in_the_test_on_imagenet(tmp_path: Path, name: str) -> None:
    image = noise(tmp_path / FOLDERS[name] / WNIDS[2] / "a.png", 60)
    model = Fair()
    evaluate(model, name, tmp_path)
    shrink = transforms.Resize(36, transforms.InterpolationMode.BICUBIC)  # 32 / 0.875
    cut = transforms.Compose([shrink, transforms.CenterCrop(SIDE), transforms.PILToTensor()])
    assert torch.equal(pixels(model)[0], cut(image))


FOLDERS = {
    "imagenet_a": "imagenet-a",
    "imagenet_r": "imagenet-r",
    "imagenet_sketch": "sketch",
    "imagenet1k": "val",
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("inner", [True, False])
def test_which_classes_may_be_answered(tmp_path: Path, name: str, inner: bool) -> None:
    """The model's favourite is not in the data: out of the question only for ImageNet-A and -R."""
    folder = tmp_path / FOLDERS[name] if inner else tmp_path
    for label in (0, 1, 4, 5, 6, 7):
        for i in range(2):
            write(folder / WNIDS[label] / f"{i}.png", label)
    write(folder / WNIDS[6] / "2.png", 0)  # looks like another class
    out = tmp_path.parent / f"{tmp_path.name}-out"
    out.mkdir()
    found = evaluate(Colours(), name, tmp_path, folder=out, save_logits=True)
    if name in ("imagenet_a", "imagenet_r"):
        assert found.metrics["top1"] == pytest.approx(100 * 12 / 13)
        assert found.metrics["per_class"] == pytest.approx(100 * (5 + 2 / 3) / 6)
        assert list(pd.read_csv(out / "per_class.csv")["index"]) == [0, 1, 4, 5, 6, 7]
    else:
        assert found.metrics["top1"] == 0
        assert found.metrics["top5"] == pytest.approx(100 * 12 / 13)
        assert (pd.read_csv(out / "predictions.csv").class_1 == LIKELY).all()
        assert len(pd.read_csv(out / "per_class.csv")) == 8
    assert (out / "classes.txt").read_text().split() == WNIDS
    assert (out / "logits.safetensors").exists()


def test_a_set_with_five_classes_has_no_top5(tmp_path: Path) -> None:
    for label in (0, 1, 2, 4, 5):
        write(tmp_path / WNIDS[label] / "0.png", label)
    assert evaluate(Colours(), "imagenet_a", tmp_path).metrics.keys() == {"top1", "per_class"}
    assert "top5" in evaluate(Colours(), "imagenet_sketch", tmp_path).metrics


def test_the_classes_of_a_limited_set_are_all_of_its_classes(tmp_path: Path) -> None:
    for label in (0, 1, 2, LIKELY):
        write(tmp_path / WNIDS[label] / "0.png", label)
    found = evaluate(Colours(), "imagenet_a", tmp_path, limit=2)
    assert found.metrics["top1"] == 0  # class 3 is in the set, though none of its images is taken


def test_a_class_that_the_model_lacks(tmp_path: Path) -> None:
    write(tmp_path / "n99999999" / "0.png", 0)
    for name in FOLDERS:
        with pytest.raises(TaskError, match="none of the model's 8 classes: n99999999"):
            Robustness(Fair(), WNIDS, name, tmp_path)


@pytest.mark.parametrize("name", [*FOLDERS, "imagenet_c"])
def test_a_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=r"data folder .*none does not exist; expected"):
        Robustness(Fair(), WNIDS, name, tmp_path / "none")


def score_in_process(rank: int, root: str, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    found = evaluate(Fair(), "imagenet_c", Path(root), folder=Path(out), batch_size=2)
    Path(f"{out}-{rank}").write_text(repr(found))
    dist.destroy_process_group()


def test_two_processes_score_each_view_once(tmp_path: Path) -> None:
    corrupted(tmp_path / "data", {"frost/4": 2, "contrast/1": 1})
    (tmp_path / f"data/zoom_blur/3/{WNIDS[0]}/1.png").write_bytes(b"no image")
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    expected = evaluate(Fair(), "imagenet_c", tmp_path / "data", folder=alone, batch_size=2)
    assert len(expected.unreadable) == 1
    arguments = (str(tmp_path / "data"), str(tmp_path / "store"), str(together))
    mp.start_processes(score_in_process, arguments, nprocs=2, start_method="fork")
    for rank in (0, 1):
        assert Path(f"{together}-{rank}").read_text() == repr(expected)
    names = sorted(file.name for file in alone.iterdir())
    assert names == ["classes.txt", "per_class.csv", "per_corruption.csv", "predictions.csv"]
    for name in names:
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["snow/1/n1/a.JPEG,0,0,1"],
            "no image of gaussian_noise/1, .* and 70 more could be scored",
        ),
        (["a.JPEG,0,0,1"], "a.JPEG is not <corruption>/<severity>/<wnid>/<file>"),
    ],
)
def test_no_table_of_imagenet_c(tmp_path: Path, lines: Sequence[str], told: str) -> None:
    file = tmp_path / "predictions.csv"
    file.write_text("\n".join(["file,target,class_1,probability_1", *lines]))
    with pytest.raises(TaskError, match=told):
        rescore_views(file)
