"""What pre-training leaves out of official data sets whose folders do not say it by their names."""

from pathlib import Path

import pytest
from small_worlds import draw

import tasks
from tasks.classification import layout
from tasks.errors import TaskError
from tasks.images import UnlabelledImages

NAMES = {
    "inat2017": ("train_val_images", "iNaturalist 2017, by val2017.json"),
    "inat2018": ("train_val2018", "iNaturalist 2018, by val2018.json"),
    "inat2019": ("train_val2019", "iNaturalist 2019, by val2019.json"),
    "places205": ("data/vision", "Places205, by val_places205.csv"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {f"{name}_{split}": n for name in NAMES for split, n in (("train", 40), ("val", 8))}
    return draw(tmp_path_factory.mktemp("world") / "w", ade20k_train=5, ade20k_val=3, **sizes)


def images(folder: Path) -> UnlabelledImages:
    return UnlabelledImages([folder], 32, leave_out=tasks.held_out(folder))


@pytest.mark.parametrize("name", NAMES)
def test_images_of_the_test_set_are_left_out(world: Path, name: str) -> None:
    """Of the data folder, and of the images' folder inside it; the lists are read by layout."""
    data = layout.read(name, world / name)
    inside, told = NAMES[name]
    for folder in (world / name, world / name / inside):
        found = images(folder)
        assert set(found.names(range(len(found)))) == {
            f"{data.train.root}/{each}" for each in data.train.names
        }
        assert f"left out: 8 files: test images of {told}" in found.notes()


def test_label_images_are_left_out(world: Path) -> None:
    found = images(world / "ade20k")
    assert len(found) == 5
    assert all("/images/training/" in name for name in found.names(range(5)))
    assert "left out: 5 files: label images of ADE20K" in found.notes()
    with pytest.raises(TaskError, match="label images of ADE20K; no image is left to train on"):
        images(world / "ade20k/ADEChallengeData2016/annotations")


def test_without_a_list_nothing_is_guessed(world: Path, tmp_path: Path) -> None:
    for name, (inside, _) in NAMES.items():
        (tmp_path / name / inside).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / inside).symlink_to(world / name / inside)
        with pytest.raises(TaskError, match=r"holds training and test images of .* tells which"):
            images(tmp_path / name)
