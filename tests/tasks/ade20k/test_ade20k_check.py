"""`check`: what is wrong with a segmentation data set on disk."""

from pathlib import Path

import numpy as np
import pytest
from ade20k_files import own, save_label, small, stripes, with_names
from PIL import Image
from small_worlds import draw

from tasks.ade20k import check as module
from tasks.ade20k.check import check
from tasks.ade20k.datasets import SHA1, URL


def problems(root: Path | str) -> list[str]:
    """What is wrong, with the fix."""
    findings = check(root).findings
    return [f"{each.what} -> {each.fix}" for each in findings if each.status == "problem"]


def notes(root: Path) -> list[str]:
    return [each.what for each in check(root).findings if each.status == "note"]


def test_a_small_set_is_fine_but_not_official(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = check(with_names(small(tmp_path)), on_progress=lambda *step: steps.append(step))
    assert result.ok
    assert result.data is not None
    assert steps == [(done, 10) for done in range(1, 11)]
    assert [each.status for each in result.findings] == ["note", "ok", "note", "ok"]
    official, counted, absent, sample = (each.what for each in result.findings)
    assert official == (
        "not the official ADE20K: training images 3 (official: 20,210), "
        "test images 2 (official: 2,000)"
    )
    assert counted == (
        "all 5 label images are counted: of 150 classes 2 in train and 2 in val, 33.3% of the "
        "pixels unlabelled"
    )
    assert absent == (
        "148 of 150 classes occur in no label image: thing 3 (3), thing 4 (4), thing 5 (5), "
        "thing 6 (6), thing 7 (7) and 143 more; they count nowhere"
    )
    assert sample == "5 images, spread over both splits, decode"


def test_the_official_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_IMAGES", {"train": 3, "val": 2})
    first = check(small(tmp_path)).findings[0]
    assert first.status == "ok"
    assert first.what == "ADE20K: 3 training images, 2 test images, 150 classes"


def test_the_miniature_twin(tmp_path: Path) -> None:
    result = check(draw(tmp_path / "w", ade20k_train=4, ade20k_val=2) / "ade20k")
    assert result.ok
    assert "classes 16 (official: 150)" in result.findings[0].what


def test_own_data(tmp_path: Path) -> None:
    result = check(own(tmp_path))
    assert [each.status for each in result.findings] == ["ok", "ok", "note", "ok"]
    assert result.findings[0].what == (
        f"{tmp_path}: 2 training images, 1 test images, 3 classes; "
        "values: 0 to 2 for the 3 classes, 9 for pixels to ignore"
    )
    assert result.findings[2].what == (
        "1 of 3 classes occur in the train split alone: tree (2); no test image has them"
    )


def test_nothing_there(tmp_path: Path) -> None:
    result = check(tmp_path / "nowhere")
    assert result.data is None
    (said,) = problems(tmp_path / "nowhere")
    assert "nowhere does not exist; expected images/{training,validation}/*.jpg" in said
    assert URL in said
    assert SHA1 in said


def test_pairs_that_are_not_whole(tmp_path: Path) -> None:
    (small(tmp_path) / "annotations/training/tr_2.png").unlink()
    (said,) = problems(tmp_path)
    assert "1 of 3 train images have no label image (images/training/tr_2.jpg)" in said


def test_files_that_are_not_right(tmp_path: Path) -> None:
    """All label images are looked at, whatever the sample of the images."""
    with_names(small(tmp_path, train=5))
    labels = tmp_path / "annotations/training"
    (tmp_path / "images/training/tr_1.jpg").write_bytes(b"")
    save_label(labels / "tr_2.png", stripes((1, 151)))
    save_label(labels / "tr_3.png", stripes((1, 2), 60, 40))
    Image.new("RGB", (60, 40)).save(labels / "tr_4.png")
    said = problems(tmp_path)
    assert len(said) == 3
    assert "tr_4.png, which is an image of mode RGB" in said[0]
    assert "151 (1 label images, 8.3 % of the pixels, as annotations/training/tr_2.png)" in said[1]
    assert "tr_3.png, 40 wide and 60 high, whose image is 60 wide and 40 high" in said[2]
    noted = check(tmp_path, samples=1).notes()
    assert noted[-1].startswith(
        "1 of 5 training images cannot be read: 1 image: is empty (0 bytes)"
    )


def test_many_faults_are_counted(tmp_path: Path) -> None:
    for path in (with_names(small(tmp_path, train=8)) / "images/training").iterdir():
        path.write_bytes(b"")
    (said,) = problems(tmp_path)
    assert said.startswith("8 of 8 training images cannot be read: 8 images: is empty (0 bytes)")


def test_more_headers_than_may_be_bad(tmp_path: Path) -> None:
    """All are looked at, whatever the sample."""
    folder = with_names(small(tmp_path, train=8)) / "images/training"
    for number in (2, 3):
        (folder / f"tr_{number}.jpg").write_bytes(b"")
    assert check(tmp_path, samples=2, max_bad_images=2).ok
    assert not check(tmp_path, samples=2, max_bad_images=1).ok


def test_a_sample_is_spread_over_the_splits(tmp_path: Path) -> None:
    broken = with_names(small(tmp_path, train=8, val=1)) / "images/training/tr_5.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "u1")
    Image.fromarray(noise).save(broken, quality=99)
    broken.write_bytes(broken.read_bytes()[:-1000])
    assert check(tmp_path, samples=2).findings[-1].what.startswith("2 images, spread over")
    said = check(tmp_path, samples=4).notes()[-1]  # the first and the fifth
    assert said.startswith("1 of 2 training images looked at cannot be read: 1 image: ")


def test_what_is_passed_over_is_named(tmp_path: Path) -> None:
    """Pairs in other formats would else be missing without a word."""
    own(tmp_path)
    for name in ("images/train/x.tif", "annotations/train/x.tif", "images/val/.DS_Store"):
        (tmp_path / name).write_bytes(b"")
    assert (
        "3 files or folders are passed over for their names: annotations/train/x.tif, "
        "images/train/x.tif, images/val/.DS_Store"
    ) in notes(tmp_path)
