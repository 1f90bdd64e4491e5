"""Features: those of timm and torchvision; and their files, which are exactly right or refused."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from probe_files import SIDE, TINY, copied, images, small, tiny_vit
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from backbones.vit import ViT
from tasks.classification import features, layout
from tasks.classification.features import Extraction, Features, Processes, obtain
from tasks.classification.probe_recipes import ProbeRecipe
from tasks.errors import TaskError
from tasks.task import Scoring

CPU = torch.device("cpu")


def take(
    root: Path,
    folder: Path | None,
    said: list[str] | None = None,
    *,
    vit: ViT | None = None,
    recipe: ProbeRecipe | None = None,
    part: str = "val",
    limit: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Features of a split of ImageNet's folders in `root`, kept in `folder`."""
    say = [].append if said is None else said.append
    how = Extraction(Processes(), CPU, Scoring(batch_size=7, workers=0, features=folder, say=say))
    data = layout.read("imagenet1k", root).limited(limit)
    found = obtain(vit or tiny_vit(), recipe or small("knn"), data, part, how, on_progress)
    assert found is not None
    return found


def same(one: Features, other: Features) -> bool:
    names = ("values", "targets", "index")
    equal = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    return equal and one.unreadable == other.unreadable


def timm_twin(vit: ViT) -> VisionTransformer:
    twin = VisionTransformer(
        img_size=SIDE,
        patch_size=TINY.patch_size,
        embed_dim=TINY.embed_dim,
        depth=TINY.depth,
        num_heads=TINY.num_heads,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    twin.load_state_dict(vit.state_dict())
    return twin


@pytest.mark.parametrize("pooling", ["cls", "patches"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_features_are_those_of_timm_and_torchvision(world: Path, pooling: str, part: str) -> None:
    """DINO's transform, after the final norm, with the backbone's own colours taken out."""
    vit = tiny_vit()
    vit.pixel_mean, vit.pixel_std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    found = take(
        world / "imagenet1k", None, vit=vit, recipe=small("knn", pooling=pooling), part=part
    )
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [
        transforms.Resize(int(SIDE * 256 / 224), bicubic),
        transforms.CenterCrop(SIDE),
        transforms.ToTensor(),
        transforms.Normalize(vit.pixel_mean, vit.pixel_std),
    ]
    theirs = ImageFolder(world / "imagenet1k" / part, transforms.Compose(steps))
    with torch.no_grad():
        tokens = timm_twin(vit).forward_features(torch.stack([image for image, _ in theirs]))
    expected = tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(dim=1)
    assert expected.std() > 0.05
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-4)
    assert found.targets.tolist() == theirs.targets
    assert found.index.tolist() == list(range(len(theirs)))
    assert found.values.dtype == torch.float32


def test_bf16_is_another_arithmetic_and_another_file(world: Path, tmp_path: Path) -> None:
    root = world / "imagenet1k"
    exact = take(root, tmp_path)
    rounded = take(root, tmp_path, recipe=small("knn", precision="bf16"))
    assert rounded.values.dtype == torch.float32
    assert not torch.equal(exact.values, rounded.values)
    torch.testing.assert_close(exact.values, rounded.values, rtol=0.1, atol=0.1)


def test_a_second_probe_reads_the_same_bits(world: Path, tmp_path: Path, monkeypatch) -> None:
    """Another protocol's recipe asks for the same features; nothing goes through the backbone."""
    done: list[int] = []
    first = take(world / "imagenet1k", tmp_path, part="train", on_progress=done.append)
    assert done == [7, 14, 21, 28, 35, 42, 48]
    monkeypatch.setattr(features, "extract", None)
    said: list[str] = []
    again = take(
        world / "imagenet1k",
        tmp_path,
        said,
        recipe=small("logistic"),
        part="train",
        on_progress=done.append,
    )
    assert same(first, again)
    assert done[-1] == 48
    (file,) = tmp_path.glob("*.safetensors")
    assert said == [f"features of 48 train images: {file}"]


def test_the_file_is_readable_as_any_other_here(world: Path, tmp_path: Path) -> None:
    take(world / "imagenet1k", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    (tmp_path / "usual").touch()
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert not list(tmp_path.glob(".*"))


def touch(root: Path) -> None:
    file = images(root, "val")[1]
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def grow(root: Path) -> None:
    file = images(root, "val")[1]
    stat = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_an_image_of_another_size_makes_other_data(world: Path, tmp_path: Path) -> None:
    root = copied(world, tmp_path)
    folder, said = tmp_path / "features", []
    take(root, folder)
    grow(root)
    take(root, folder, said)
    assert said == []
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_a_changed_image_makes_its_features_stale(world: Path, tmp_path: Path) -> None:
    root = copied(world, tmp_path)
    folder, said = tmp_path / "features", []
    take(root, folder)
    take(root, folder, said)
    touch(root)
    take(root, folder, said)
    take(root, folder, said)
    (file,) = folder.glob("*.safetensors")
    read, refused, again = said
    assert read == again == f"features of 24 val images: {file}"
    assert refused.startswith(f"{file}: files differs (")
    assert refused.endswith("here); extracting again")


def test_features_of_an_older_version_are_stale(world: Path, tmp_path: Path, monkeypatch) -> None:
    take(world / "imagenet1k", tmp_path)
    monkeypatch.setattr(features, "VERSION", features.VERSION + 1)
    said: list[str] = []
    take(world / "imagenet1k", tmp_path, said)
    (file,) = tmp_path.glob("*.safetensors")
    assert said == [f"{file}: version differs (1 there, 2 here); extracting again"]


def other_colours() -> ViT:
    vit = tiny_vit()
    vit.pixel_mean = (0.5, 0.5, 0.5)
    return vit


@pytest.mark.parametrize(
    "changes",
    [
        {"vit": tiny_vit(seed=1)},
        {"vit": other_colours()},
        {"recipe": small("knn", pooling="patches")},
        {"recipe": small("knn", precision="bf16")},
        {"recipe": small("knn", crop_ratio=1.0)},
        {"recipe": small("knn", backbone="vit_l")},
        {"part": "train"},
        {"limit": 10},
    ],
    ids=["weights", "colours", "pooling", "precision", "crop", "backbone", "split", "limit"],
)
def test_other_features_have_a_file_of_their_own(world: Path, tmp_path: Path, changes) -> None:
    """And one that lies under another's name is refused."""
    root, said = world / "imagenet1k", []
    usual = take(root, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    take(root, tmp_path, said, **changes)
    assert not said
    (other,) = set(tmp_path.glob("*.safetensors")) - {file}
    other.replace(file)
    assert same(take(root, tmp_path, said), usual)
    assert " differs (" in said[0]
    assert said[0].endswith("; extracting again")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def replace_by_weights(file: Path) -> None:
    save_file({"values": torch.zeros(3)}, file, {"format": "pt"})


def drop_a_tensor(file: Path) -> None:
    with features.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    del tensors["index"]
    save_file(tensors, file, metadata)


def rewrite(
    file: Path, unreadable: str = "[]", **changes: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with features.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors |= {name: change(tensors[name]) for name, change in changes.items()}
    save_file(tensors, file, metadata | {"unreadable": unreadable})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda file: rewrite(file, targets=lambda t: t.roll(1)), "its classes are not those of"),
        (lambda file: rewrite(file, targets=lambda t: t + 100), "its classes are not those of"),
        (lambda file: rewrite(file, index=lambda t: t.flip(0)), "its images are not in the order"),
        (lambda file: rewrite(file, index=lambda t: t + 9), "its images are not in the order"),
        (lambda file: rewrite(file, index=lambda t: t - 9), "its images are not in the order"),
        (
            lambda file: rewrite(file, values=lambda t: t[:, 1:].clone()),
            "its tensors have the shap",
        ),
        (lambda file: rewrite(file, values=lambda t: t.half()), "its tensors are of the kinds"),
        (lambda file: rewrite(file, values=lambda t: t / 0), "holds features that are not finite"),
        (lambda file: rewrite(file, '[["val/x.JPEG", "no"]]'), "has 24 of 24 images and names 1"),
        (lambda file: rewrite(file, "{"), "its metadata do not list what was unreadable"),
        (lambda file: rewrite(file, "[1]"), "its metadata do not list what was unreadable"),
        (lambda file: rewrite(file, "[" * 99999), "its metadata do not list what was unreadable"),
        (cut, "truncated or no safetensors"),
        (empty, "truncated or no safetensors"),
        (drop_a_tensor, "truncated or no safetensors"),
        (replace_by_weights, "holds no features of ours"),
    ],
)
def test_a_spoilt_file_is_refused(world: Path, tmp_path: Path, spoil, reason: str) -> None:
    usual = take(world / "imagenet1k", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    spoil(file)
    said: list[str] = []
    assert same(take(world / "imagenet1k", tmp_path, said), usual)
    (line,) = said
    assert line.startswith(f"{file}: {reason}")
    assert line.endswith("; extracting again")
    assert "\n" not in line
    assert same(take(world / "imagenet1k", tmp_path, said), usual)
    assert said[1] == f"features of 24 val images: {file}"


def test_a_folder_in_place_of_the_file_is_said(world: Path, tmp_path: Path) -> None:
    usual = take(world / "imagenet1k", tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    file.mkdir()
    said: list[str] = []
    assert same(take(world / "imagenet1k", tmp_path, said), usual)
    assert said[0] == f"{file}: is no regular file; extracting again"
    assert "not kept, the next probe extracts again" in said[1]


def test_unreadable_images_are_left_out_and_named(world: Path, tmp_path: Path) -> None:
    """The features of the others stay in step with their classes, in the file too."""
    root = copied(world, tmp_path)
    usual = take(root, None)
    spoilt = [images(root, "val")[i] for i in (0, 5)]
    for file in spoilt:
        file.write_bytes(file.read_bytes()[:100])
    kept = [i for i in range(24) if i not in (0, 5)]
    for _ in range(2):
        found = take(root, tmp_path / "features")
        assert [each.name for each in found.unreadable] == [
            file.relative_to(root).as_posix() for file in spoilt
        ]
        assert found.index.tolist() == kept
        assert torch.equal(found.targets, usual.targets[kept])
        torch.testing.assert_close(found.values, usual.values[kept], rtol=1e-5, atol=1e-6)


def test_no_image_decodes(world: Path, tmp_path: Path) -> None:
    root = copied(world, tmp_path)
    for file in images(root, "val"):
        file.write_bytes(b"no image")
    with pytest.raises(TaskError, match="none of the 24 test images can be read: 24 images"):
        take(root, tmp_path / "features")
    assert not list((tmp_path / "features").glob("*.safetensors"))


def test_features_that_are_not_finite(world: Path, tmp_path: Path) -> None:
    vit = tiny_vit()
    vit.norm.weight.data[3] = float("inf")
    with pytest.raises(TaskError, match=r"features of vit_b are not finite; check the checkpoint"):
        take(world / "imagenet1k", tmp_path, vit=vit)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_full_disk_costs_the_file_alone(world: Path, tmp_path: Path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    usual = take(world / "imagenet1k", None)
    monkeypatch.setattr(features, "save_file", fail)
    said: list[str] = []
    assert same(take(world / "imagenet1k", tmp_path, said), usual)
    (line,) = said
    assert "not kept, the next probe extracts again (No space left on device)" in line
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("fault", "said_of_it"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (NotImplementedError(), "no l"),
    ],
)
def test_a_lock_that_cannot_be_had_ends_no_probe(
    world: Path, tmp_path: Path, monkeypatch, fault, said_of_it
) -> None:
    """As of another user's in a folder that several share, or on a file system without locks."""

    def acquire(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(features.FileLock, "acquire", acquire)
    said: list[str] = []
    found = take(world / "imagenet1k", tmp_path, said)
    assert same(take(world / "imagenet1k", tmp_path, said), found)
    assert said_of_it in said[0]
    assert "going on without" in said[0]
    assert said[-1].startswith("features of")


def wait_for(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < end, f"waited in vain for {file}"
        time.sleep(0.005)


def take_in_process(rank: int, root: str, place: str) -> None:
    """The first process goes on only when the second one waits for it."""
    torch.set_num_threads(1)
    folder, begun, waiting = (Path(place, name) for name in ("features", "begun", "waiting"))
    said: list[str] = []

    def hold_up(done: int) -> None:
        begun.touch()
        wait_for(waiting)

    def note(line: str) -> None:
        said.append(line)
        waiting.touch()

    if rank == 1:
        wait_for(begun)
    data = layout.read("imagenet1k", Path(root))
    how = Extraction(Processes(), CPU, Scoring(batch_size=7, workers=0, features=folder, say=note))
    found = obtain(tiny_vit(), small("knn"), data, "val", how, hold_up)
    assert found is not None
    torch.save((found.values, said), Path(place, f"{rank}.pt"))


def test_two_probes_at_once_extract_once(world: Path, tmp_path: Path) -> None:
    # Forked, as loader workers are: fresh interpreters would spend ten seconds on imports.
    arguments = (str(world / "imagenet1k"), str(tmp_path))
    mp.start_processes(take_in_process, arguments, nprocs=2, start_method="fork")
    (one, said), (other, also_said) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(one, other)
    assert torch.equal(one, take(world / "imagenet1k", None).values)
    (file,) = (tmp_path / "features").glob("*.safetensors")
    assert not said
    assert also_said == [
        f"{file}: waiting for another process that works on it",
        f"features of 24 val images: {file}",
    ]
