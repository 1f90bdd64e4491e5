"""`check` and the command around it: what is wrong with a data set on disk, and exit codes."""

from pathlib import Path

import pytest
from coco_files import content, image, small, thing, write
from PIL import Image

from mae_bench.cli import call
from mae_bench.data import task_root
from mae_bench.errors import RunError
from tasks.coco import check as module
from tasks.coco.check import check


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small(tmp_path)


def problems(root: Path | str) -> list[str]:
    """What is wrong, with the fix."""
    findings = check(root).findings
    return [f"{each.what} -> {each.fix}" for each in findings if each.status == "problem"]


def test_a_small_set_is_fine_but_not_official(root: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = check(root, on_progress=lambda *step: steps.append(step))
    assert result.ok
    assert result.data is not None
    assert steps == [(1, 3), (2, 3), (3, 3)]
    statuses = [each.status for each in result.findings]
    assert statuses == ["ok", "ok", "ok", "note", "note", "note", "ok"]
    said = result.findings[3].what
    assert said.startswith("not the official COCO 2017: training images 2 (official: 118,287), ")
    assert "test images 1 (official: 5,000)" in said
    census = "train: 2 images, 2 objects, 0 crowds; a class occurs nowhere: 'ball'"
    assert result.findings[4].what == census
    assert result.findings[6].what == "3 images, spread over both splits, decode"


def test_the_official_counts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_IMAGES", {"train": 3, "val": 1})
    monkeypatch.setattr(module, "NUM_TRAIN_USED", 2)
    monkeypatch.setattr(module, "NUM_ANNOTATIONS", {"train": 2, "val": 1})
    monkeypatch.setattr(module, "NUM_CLASSES", 2)
    write(root, "train", content([image(1), image(2), image(4)], [thing(1, 1), thing(2, 2)]))
    other_ids = check(root).findings[3]
    assert (other_ids.status, other_ids.what) == (
        "note",
        "not the official COCO 2017: category ids",
    )
    monkeypatch.setattr(module, "CATEGORY_IDS", (3, 7))
    findings = check(root).findings
    assert findings[3].status == "ok"
    assert findings[3].what == "COCO 2017: 2 training images with objects, 1 test images, 2 classes"
    assert findings[6].what.startswith("train images without annotation: 1 (4); --background-im")
    assert findings[6].status == "note"


def test_nothing_there(tmp_path: Path) -> None:
    said = problems(tmp_path / "nowhere")
    assert len(said) == 3
    assert "nowhere/train2017/*.jpg: missing -> get train2017.zip (19.3 GB, md5 cced6f7f" in said[0]
    assert "from http://images.cocodataset.org/zips/val2017.zip and unpack it in" in said[1]
    assert "instances_train2017.json and " in said[2]


def test_one_file_is_missing(root: Path) -> None:
    (root / "annotations/instances_val2017.json").unlink()
    assert len(problems(root)) == 1
    assert problems(root)[0].startswith(
        f"{root}/annotations/instances_val2017.json: missing -> get"
    )


def test_images_are_missing(root: Path) -> None:
    (root / "train2017/0002.jpg").unlink()
    assert "1 of 2 images named in" in problems(root)[0]


def test_what_is_left_out_is_noted(root: Path) -> None:
    write(
        root,
        "train",
        content([image(1)], [thing(1, 1), thing(2, 1), thing(5, 1, bbox=[1, 1, 0, 2])]),
    )
    result = check(root)
    assert result.ok
    notes = [each.what for each in result.findings if each.status == "note"]
    assert "train annotations left out for a box of no width or height: 1 (5)" in notes


def test_images_that_are_not_right(root: Path) -> None:
    numbers = [1, 2, 4, 5]
    small(root, [thing(n, n) for n in numbers], [image(n) for n in numbers])
    (root / "train2017/0001.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(root / "train2017/0002.jpg")
    (said,) = [e.what for e in check(root).findings if "cannot be read" in e.what]
    assert said.startswith("2 of 4 training images cannot be read: 1 image: is ")
    assert "is empty (0 bytes); expected an image (0001.jpg)" in said
    assert "is 9 wide and 9 high; expected 60 and 40" in said


def test_many_broken_images_are_counted(tmp_path: Path) -> None:
    numbers = list(range(1, 9))
    small(tmp_path, [thing(n, n) for n in numbers], [image(n) for n in numbers])
    for number in numbers:
        (tmp_path / f"train2017/{number:04d}.jpg").write_bytes(b"")
    (said,) = problems(tmp_path)
    assert said.startswith("8 of 8 training images cannot be read: 8 images: is empty (0 bytes)")


def test_a_sample_is_spread_over_the_splits(tmp_path: Path) -> None:
    numbers = list(range(1, 9))
    small(tmp_path, [thing(n, n) for n in numbers], [image(n) for n in numbers])
    (tmp_path / "train2017/0005.jpg").write_bytes(b"")
    assert check(tmp_path, samples=2).findings[-1].what.startswith("2 images, spread over both")
    said = check(tmp_path, samples=4).notes()[-1]  # the first and the fifth
    assert said.startswith("1 of 2 training images looked at cannot be read: 1 image: is empty")


def test_applied_exif_rotations_are_noted(root: Path) -> None:
    path = root / "train2017/0001.jpg"
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x112] = 3
        picture.save(path, exif=exif)
    result = check(root)
    assert result.ok
    notes = [each.what for each in result.findings if each.status == "note"]
    assert "train images turned by their EXIF tag, of 2 looked at: 1 (0001.jpg)" in notes


# The command


def own_files(root: Path) -> str:
    return ",".join(f"{root}/annotations/instances_{split}2017.json" for split in ("train", "val"))


def test_the_command(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (str(root), own_files(root)):
        assert call(["data", "check", "coco", "--root", place]) == 0
        said = capsys.readouterr().out
        assert "ok      3 images, spread over both splits, decode" in said
        assert "\nready\n" in said
    assert (
        "instances_val2017.json: 2 training images with objects, 1 test images, 2 classes" in said
    )
    (root / "val2017/0003.jpg").unlink()
    with pytest.raises(SystemExit) as end:
        call(["data", "check", "coco", "--root", str(root)])
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert f"PROBLEM {root}/val2017/*.jpg: missing  ->  get val2017.zip (0.8 GB" in said
    assert said.endswith("1 problem\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("check", "data check lacks NAME, --root (see mae-bench data check --help)"),
        ("check coco", "data check lacks --root (see mae-bench data check --help)"),
        (
            "check cocoo --root x",
            "unknown data set 'cocoo'; did you mean coco? there are imagenet1k",
        ),
        ("check coco --root x --out y", "data check does not take --out y; data make would"),
        ("make coco", "data make does not take coco"),
        ("make --root x", "data make does not take --root x; data check would"),
    ],
)
def test_bad_usage(argv: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", *argv.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mae-bench: error: {said}")
    assert error.count("\n") == 1


def test_a_file_that_is_not_there_is_a_finding(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (f"{own_files(root)}x.json", f"{root}/no.json"):
        with pytest.raises(SystemExit) as end:
            call(["data", "check", "coco", "--root", place])
        assert end.value.code == 1
        assert "json does not exist; expected" in capsys.readouterr().out


def test_two_files_pass_as_the_data_of_coco_alone(root: Path, tmp_path: Path) -> None:
    assert str(task_root("coco", own_files(root))) == own_files(root)
    assert str(task_root("coco", "no/train.json,no/val.json")) == "no/train.json,no/val.json"
    assert task_root("coco", root) == root
    with pytest.raises(RunError, match="no such folder; expected the coco data set, or mini"):
        task_root("coco", tmp_path / "nowhere")
    with pytest.raises(RunError, match="no such folder; expected the imagenet1k data set"):
        task_root("imagenet1k", own_files(root))
