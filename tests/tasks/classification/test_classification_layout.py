import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from tasks.classification.datasets import DATASETS
from tasks.classification.layout import read
from tasks.errors import TaskError
from tasks.images import UnreadableImage, decode
from tasks.images.fingerprint import DIGITS

# A dash sorts before a slash: whole paths sort differently than classes do.
CLASSES = ["n01", "n01-b", "n02"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 4), ("val", 2)):
        for c, name in enumerate(CLASSES):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(count + c):
                Image.new("RGB", (8, 8), (c, i, count)).save(folder / f"{i}.png")
    return tmp_path


def test_imagenet_facts() -> None:
    facts = DATASETS["imagenet1k"]
    assert (facts.num_classes, facts.num_train, facts.num_val) == (1000, 1_281_167, 50_000)


def test_reads_what_torchvision_reads(root: Path) -> None:
    data = read("imagenet1k", root)
    for split, mine in (("train", data.train), ("val", data.val)):
        oracle = ImageFolder(str(root / split))
        assert list(data.classes) == oracle.classes
        assert [(str(mine.path(i)), t) for i, t in enumerate(mine.targets)] == oracle.samples
    assert data.train.names[0] == "train/n01/0.png"
    assert not data.standard


def test_standard_means_the_official_counts(root: Path) -> None:
    data = read("imagenet1k", root)
    facts = data.facts
    object.__setattr__(
        data,
        "facts",
        type(facts)("x", "x", num_classes=3, num_train=15, num_val=9, layout="", obtain=""),
    )
    assert data.standard
    object.__setattr__(data, "val", data.val.limited(8))
    assert not data.standard


def test_limit_keeps_every_class_share(root: Path) -> None:
    train = read("imagenet1k", root).train
    assert len(train) == 15
    five = train.limited(5)
    assert five.targets.tolist() == [0, 0, 1, 2, 2]
    assert [five.names[i] for i in range(5)] == [train.names[i] for i in (0, 3, 6, 9, 12)]
    assert train.limited(None) is train
    assert train.limited(100) is train
    with pytest.raises(TaskError, match="limit is 0"):
        train.limited(0)


def test_fingerprint_tells_copies_apart(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = read("imagenet1k", root).fingerprint
    assert len(first) == DIGITS
    other = tmp_path_factory.mktemp("copy") / "data"
    shutil.copytree(root, other)
    assert read("imagenet1k", other).fingerprint == first
    (other / "val/n02/1.png").rename(other / "val/n02/9.png")
    renamed = read("imagenet1k", other).fingerprint
    (other / "val/n02/9.png").unlink()
    fewer = read("imagenet1k", other).fingerprint
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(other / "train/n01/0.png")
    resized = read("imagenet1k", other).fingerprint
    assert len({first, renamed, fewer, resized}) == 4


def test_is_shared_by_copies_of_a_model(root: Path) -> None:
    data = read("imagenet1k", root)
    assert copy.deepcopy({"data": data})["data"] is data


def test_a_class_may_lack_test_images(root: Path) -> None:
    shutil.rmtree(root / "val" / "n01-b")
    assert read("imagenet1k", root).val.targets.tolist() == [0, 0, 2, 2, 2, 2]


def one_line(root: Path, name: str = "imagenet1k") -> str:
    with pytest.raises(TaskError) as error:
        read(name, root)
    message = str(error.value)
    assert "\n" not in message
    assert str(root) in message
    return message


def test_missing_root(tmp_path: Path) -> None:
    message = one_line(tmp_path / "nowhere")
    assert "does not exist; expected train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; get" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split(root: Path, split: str) -> None:
    shutil.rmtree(root / split)
    assert f"has no {split}/; expected train/<wnid>" in one_line(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_classes(root: Path, split: str) -> None:
    shutil.rmtree(root / split)
    (root / split).mkdir()
    assert f"{root / split} has no class folders" in one_line(root)


def test_empty_class(root: Path) -> None:
    for file in (root / "val" / "n02").iterdir():
        file.unlink()
    assert read("imagenet1k", root).notes == ("1 classes without test images: n02",)
    for file in (root / "train" / "n02").iterdir():
        file.unlink()
    assert f"{root / 'train'}: 1 of 3 class folders hold no image: n02; add" in one_line(root)


def test_class_that_training_lacks(root: Path) -> None:
    shutil.copytree(root / "val" / "n01", root / "val" / "n09")
    message = one_line(root)
    assert f"{root / 'val'} has classes that {root / 'train'} lacks: n09;" in message


def test_a_link_that_leads_nowhere(root: Path) -> None:
    (root / "train/n01/0.png").unlink()
    (root / "train/n01/0.png").symlink_to(root / "gone.png")
    data = read("imagenet1k", root)
    with pytest.raises(UnreadableImage, match=r"n01/0.png cannot be read: No such file"):
        decode(data.train.path(0))


def test_flat_val(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8)).save(root / "val" / f"ILSVRC2012_val_0000000{i}.JPEG")
    message = one_line(root)
    assert "ILSVRC2012_val_00000000.JPEG, ILSVRC2012_val_00000001.JPEG and 1 more" in message
    assert "sort them into val/<class>/ (the official val archive is flat and unsorted)" in message


def test_classes_without_test_images_are_noted(root: Path) -> None:
    assert read("imagenet1k", root).notes == ()
    shutil.rmtree(root / "val" / "n01-b")
    assert read("imagenet1k", root).notes == ("1 classes without test images: n01-b",)


def test_ones_own_folders_go_by_the_name_of_theirs(root: Path) -> None:
    mine = root.parent / "my birds"
    shutil.copytree(root, mine)
    data = read("folder", mine)
    assert data.facts.name == "my birds"
    assert data.classes == tuple(CLASSES)
    assert data.fingerprint != read("imagenet1k", root).fingerprint  # EXIF tags turn one's own
    assert data.train.upright
    assert data.val.upright
    assert not data.standard
    (mine / "linked").symlink_to(mine)
    assert read("folder", mine / "linked").facts.name == "my birds"
    expected = (
        "does not exist; expected train/<class>/* and val/<class>/*, or <class>/* to be split"
    )
    assert expected in one_line(mine / "no", "folder")


def test_one_can_never_own_the_official_data() -> None:
    facts = DATASETS["folder"]
    assert (facts.num_classes, facts.num_train, facts.num_val) == (0, 0, 0)


def test_other_files_beside_the_classes_do_not_matter(root: Path) -> None:
    before = read("imagenet1k", root)
    (root / "val" / "labels.txt").write_text("x")
    (root / "train" / ".cache").mkdir()
    assert read("imagenet1k", root).fingerprint == before.fingerprint
