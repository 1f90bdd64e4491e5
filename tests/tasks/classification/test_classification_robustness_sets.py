"""ImageNet-A, -R, -Sketch and -C: test images whose folders are a model's classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from classification_files import picture
from small_worlds import draw
from torchvision.datasets import ImageFolder

from tasks.classification.datasets import CORRUPTIONS, ROBUSTNESS, SEVERITIES
from tasks.classification.layout import RobustnessImages, read_robustness
from tasks.errors import TaskError
from tasks.miniature.imagenet import CLASSES, wnid

# A model's classes need not be sorted.
WNIDS = ["n00000009", "n00000002", "n00000005"]
FIFTEEN = [name for names in CORRUPTIONS.values() for name in names]


def small_a(root: Path) -> Path:
    for name in ("n00000002/b.jpg", "n00000009/x.JPEG", "n00000002/a.png"):
        picture(root / name)
    (root / "README.txt").write_text("x")
    return root


def small_c(root: Path) -> Path:
    """Two images of two classes in every corruption and severity."""
    for corruption in FIFTEEN:
        for severity in SEVERITIES:
            for wnid_ in ("n00000009", "n00000005"):
                picture(root / corruption / str(severity) / wnid_ / "1.JPEG")
    return root


def refused(name: str, root: Path) -> str:
    with pytest.raises(TaskError) as error:
        read_robustness(name, root, WNIDS)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_official_counts() -> None:
    counts = {
        name: (each.num_classes, each.num_images, each.num_sets)
        for name, each in ROBUSTNESS.items()
    }
    assert counts == {
        "imagenet_a": (200, 7_500, 1),
        "imagenet_r": (200, 30_000, 1),
        "imagenet_sketch": (1000, 50_889, 1),
        "imagenet_c": (1000, 50_000, 75),
    }
    assert len(set(FIFTEEN)) == 15


def test_targets_are_indices_into_the_models_classes(tmp_path: Path) -> None:
    data = read_robustness("imagenet_a", small_a(tmp_path), WNIDS)
    split = data.splits["imagenet_a"]
    assert list(split.names) == ["n00000009/x.JPEG", "n00000002/a.png", "n00000002/b.jpg"]
    assert split.targets.tolist() == [0, 1, 1]
    assert data.class_indices.tolist() == [0, 1]
    assert data.notes == ()
    assert not data.standard
    assert len(data) == 3
    assert len(data.limited(2)) == 2
    assert data.limited(2).fingerprint == data.fingerprint


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    few = {"imagenet_a_val": 20, "imagenet_r_val": 20, "imagenet_sketch_val": 20}
    return draw(tmp_path_factory.mktemp("twins"), imagenet_c_val=2, **few)


@pytest.mark.parametrize(
    ("name", "inner", "num_classes"),
    [("imagenet_a", "", 5), ("imagenet_r", "", 5), ("imagenet_sketch", "sketch", 10)],
)
def test_reads_what_torchvision_reads(twins: Path, name: str, inner: str, num_classes: int) -> None:
    wnids = [wnid(label) for label in range(len(CLASSES))]
    data = read_robustness(name, twins / name, wnids)
    split = data.splits[name]
    oracle = ImageFolder(str(twins / name / inner))
    assert len(oracle.classes) == len(data.class_indices) == num_classes
    assert [(str(split.path(i)), wnids[t]) for i, t in enumerate(split.targets)] == [
        (path, oracle.classes[label]) for path, label in oracle.samples
    ]


def test_reads_the_miniature_imagenet_c(twins: Path) -> None:
    wnids = [wnid(label) for label in range(len(CLASSES))]
    data = read_robustness("imagenet_c", twins / "imagenet_c", wnids)
    assert list(data.splits) == [f"{name}/{level}" for name in FIFTEEN for level in SEVERITIES]
    assert len(data) == 150
    for key, split in data.splits.items():
        oracle = ImageFolder(str(twins / "imagenet_c" / key))
        assert [str(split.path(i)) for i in range(2)] == [path for path, _ in oracle.samples]


# ImageNet-C's folders


def same(first: RobustnessImages, second: RobustnessImages) -> bool:
    return first.fingerprint == second.fingerprint and len(first) == len(second)


def test_corruptions_in_the_folders_of_their_archives(tmp_path: Path) -> None:
    root = small_c(tmp_path / "imagenet-c")
    plain = read_robustness("imagenet_c", root, WNIDS)
    assert len(plain.splits) == 75
    assert all(split.targets.tolist() == [0, 2] for split in plain.splits.values())
    assert same(read_robustness("imagenet_c", tmp_path, WNIDS), plain)
    for group, names in CORRUPTIONS.items():
        (root / group).mkdir()
        for name in names:
            (root / name).rename(root / group / name)
    picture(root / "extra/spatter/1/n00000009/1.JPEG")
    assert same(read_robustness("imagenet_c", root, WNIDS), plain)
    shutil.copytree(root / "weather/fog", root / "fog")
    assert f"{root}/fog and {root}/weather/fog are both there; keep one" in refused(
        "imagenet_c", root
    )


def test_missing_corruptions_and_severities(tmp_path: Path) -> None:
    root = small_c(tmp_path)
    shutil.rmtree(root / "fog" / "3")
    assert "lacks 1 of 75 corruptions with severity: fog/3; expected" in refused("imagenet_c", root)
    shutil.rmtree(root / "snow")
    assert "lacks 6 of 75 corruptions with severity: snow/1, snow/2" in refused("imagenet_c", root)


def test_fewer_images_in_a_corruption_are_noted(tmp_path: Path) -> None:
    root = small_c(tmp_path)
    whole = read_robustness("imagenet_c", root, WNIDS)
    shutil.rmtree(root / "fog/3/n00000005")
    data = read_robustness("imagenet_c", root, WNIDS)
    assert data.notes == ("1 of 75 corruptions with severity have fewer images than 2: fog/3 (1)",)
    assert data.fingerprint != whole.fingerprint
    assert data.class_indices.tolist() == [0, 2]


def test_standard_asks_for_every_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_robustness("imagenet_c", small_c(tmp_path), WNIDS)
    facts = type(data.facts)("x", "x", 2, 2, "", "", "", num_sets=75)
    object.__setattr__(data, "facts", facts)
    assert data.standard
    object.__setattr__(data, "splits", data.splits | {"fog/3": data.splits["fog/3"].limited(1)})
    assert not data.standard


# The folder inside, and what is refused


@pytest.mark.parametrize(
    ("name", "inner"),
    [("imagenet_a", "imagenet-a"), ("imagenet_r", "imagenet-r"), ("imagenet_sketch", "sketch")],
)
def test_the_folder_around_the_archives_one(tmp_path: Path, name: str, inner: str) -> None:
    small_a(tmp_path / inner)
    split = read_robustness(name, tmp_path, WNIDS).splits[name]
    assert split.root == tmp_path / inner
    assert np.array_equal(split.targets, [0, 1, 1])


def test_refused(tmp_path: Path) -> None:
    said = refused("imagenet_a", tmp_path / "no")
    assert "no does not exist; expected <wnid>/*.jpg; get imagenet-a.tar from https://" in said
    assert "has no class folders; expected <wnid>/*.jpg; get" in refused("imagenet_a", tmp_path)
    root = small_a(tmp_path)
    picture(root / "n00000001/a.jpg")
    said = refused("imagenet_a", root)
    assert "has 1 folders that are none of the model's 3 classes: n00000001; expected" in said
    shutil.rmtree(root / "n00000001")
    picture(root / "loose.jpg")
    assert "holds images outside class folders: loose.jpg" in refused("imagenet_a", root)
    (root / "loose.jpg").unlink()
    (root / "n00000005").mkdir()
    assert "1 of 3 class folders hold no image: n00000005" in refused("imagenet_a", root)
