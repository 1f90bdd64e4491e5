"""`data check` and `data list` for classification and robustness sets."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from classification_files import (
    picture,
    small_inat,
    small_places205,
    small_places365,
)

from mae_bench.cli import call
from tasks.classification.check import check
from tasks.classification.datasets import CORRUPTIONS, DATASETS, ROBUSTNESS, SEVERITIES

NAMES = [*DATASETS, *ROBUSTNESS]


def small_folders(root: Path) -> Path:
    for name in ("train/n00000001/a.jpg", "train/n00000002/b.jpg", "val/n00000001/c.jpg"):
        picture(root / name)
    return root


def small_r(root: Path) -> Path:
    picture(root / "n00000001/art_0.jpg")
    picture(root / "n00000007/toy_0.jpg")
    return root


def small_c(root: Path) -> Path:
    for group, names in CORRUPTIONS.items():
        for name in names:
            for severity in SEVERITIES:
                picture(root / group / name / str(severity) / "n00000001/1.JPEG")
    return root


MAKE = {
    "imagenet1k": small_folders,
    "inat2018": small_inat,
    "places205": small_places205,
    "places365": small_places365,
    "folder": small_folders,
    "imagenet_r": small_r,
    "imagenet_c": small_c,
}


def lines(name: str, root: Path, status: str) -> list[str]:
    found = check(name, root).findings
    return [f"{each.what} -> {each.fix}" for each in found if each.status == status]


@pytest.mark.parametrize(
    ("name", "counts", "decoded"),
    [
        (
            "imagenet1k",
            "not the official ImageNet-1K (ILSVRC 2012): classes 2 (official: 1,000), training "
            "images 2 (official: 1,281,167), test images 1 (official: 50,000)",
            "3 images, spread over both splits, decode",
        ),
        (
            "inat2018",
            "not the official iNaturalist 2018: classes 3 (official: 8,142), training images 5 "
            "(official: 437,513), test images 3 (official: 24,426)",
            "8 images, spread over both splits, decode",
        ),
        ("places205", "not the official Places205: classes 3 (official: 205)", "6 images, spread"),
        ("places365", "not the official Places365-Standard: classes 2 (off", "5 images, spread"),
        ("folder", "data: 2 classes, 2 training images, 1 test images", "3 images, spread over"),
        (
            "imagenet_r",
            "not the official ImageNet-R: classes 2 (official: 200), test images 2 (official: 30,0",
            "2 images decode",
        ),
        (
            "imagenet_c",
            "not the official ImageNet-C: classes 1 (official: 1,000), test images 75 (official: "
            "3,750,000)",
            "75 images, spread over all, decode",
        ),
    ],
)
def test_small_sets_are_fine_but_not_official(
    name: str, counts: str, decoded: str, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    result = check(name, MAKE[name](tmp_path / "data"), lambda *step: steps.append(step))
    assert result.ok
    assert result.data is not None
    said = [each.what for each in result.findings]
    assert any(line.startswith(counts) for line in said)
    assert said[-1].startswith(decoded)
    total = int(decoded.split()[0])
    assert steps == [(n, total) for n in range(1, total + 1)]


def test_the_official_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small_inat(tmp_path)
    official = dataclasses.replace(DATASETS["inat2018"], num_classes=3, num_train=5, num_val=3)
    monkeypatch.setitem(DATASETS, "inat2018", official)
    said = lines("inat2018", root, "ok")
    assert said[0] == "iNaturalist 2018: 3 classes, 5 training images, 3 test images -> "
    assert said[1] == "a class has 1 to 2 training images and 1 test images -> "
    (note,) = lines("inat2018", root, "note")
    assert note.startswith(f"{root}/categories.json: missing -> get categories.json.tar.gz from ")


def test_notes_of_the_reader_are_told(tmp_path: Path) -> None:
    said = lines("places205", small_places205(tmp_path), "note")
    assert "1 classes without test images: c/c/out side -> " in said


@pytest.mark.parametrize("name", NAMES)
def test_nothing_there(name: str, tmp_path: Path) -> None:
    """Each archive is named with where it is; what is one's own has none."""
    result = check(name, tmp_path / "no")
    assert not result.ok
    assert result.data is None
    said = lines(name, tmp_path / "no", "problem")
    facts = {**DATASETS, **ROBUSTNESS}[name]
    needed = [archive for archive in facts.archives if archive.needed]
    assert len(said) == max(len(needed), 1)
    for line, archive in zip(said, needed, strict=False):
        assert f": missing -> get {archive.name}" in line
        assert archive.md5 in line
        assert f"from {facts.origin} and " in line
        assert f" in {tmp_path}/no" in line


def test_one_archive_is_missing(tmp_path: Path) -> None:
    root = small_inat(tmp_path)
    (root / "val2018.json").unlink()
    assert lines("inat2018", root, "problem") == [
        f"{root}/val2018.json: missing -> get val2018.json.tar.gz (md5 "
        "f2ed8bfe3e9901cdefceb4e53cd3775d) from https://ml-inat-competition-datasets.s3."
        f"amazonaws.com/2018/ and unpack it in {root}"
    ]
    (root / "train_val2018/val2018.json").write_text("{")
    (said,) = lines("inat2018", root, "problem")
    assert "val2018.json is not valid JSON" in said


def test_a_missing_corruption(tmp_path: Path) -> None:
    root = small_c(tmp_path)
    (root / "weather/fog").rename(root / "weather/frog")
    (said,) = lines("imagenet_c", root, "problem")
    assert said.startswith(f"{root}/fog: missing -> get weather.tar (about 12.5 GB, md5 33ffea4d")


def test_images_are_missing(tmp_path: Path) -> None:
    root = small_places365(tmp_path)
    (root / "val_256/Places365_val_00000002.jpg").unlink()
    (said,) = lines("places365", root, "problem")
    assert "1 of 2 images named in" in said


def test_broken_images_are_counted(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / f"train/a/{number}.jpg")
        (tmp_path / f"train/a/{number}.jpg").write_bytes(b"")
    picture(tmp_path / "val/a/1.jpg")
    (said,) = lines("folder", tmp_path, "problem")
    assert "has one class, a, and top-1 of one class is 100 whatever the model does" in said
    picture(tmp_path / "train/b/1.jpg")
    (tmp_path / "train/b/1.jpg").write_bytes(b"")
    (said,) = lines("folder", tmp_path, "problem")
    assert said.startswith("9 of 9 training images cannot be read: 9 images: is empty (0 bytes)")


def test_classes_of_broken_images_alone_are_told(tmp_path: Path) -> None:
    """The scores of the others would be lower without a word."""
    for name in ("train/a/1", "train/a/2", "train/b/1", "train/b/2", "val/a/1", "val/b/1"):
        picture(tmp_path / f"{name}.jpg")
    (tmp_path / "train/b/1.jpg").write_text("<html>")
    (tmp_path / "val/a/1.jpg").write_bytes(b"")
    assert not lines("folder", tmp_path, "problem")
    notes = " ".join(lines("folder", tmp_path, "note"))
    assert "1 of 2 classes have no test image that can be read: a" in notes
    (tmp_path / "train/b/2.jpg").write_text("<html>")
    (said,) = lines("folder", tmp_path, "problem")
    assert said.startswith("1 of 2 classes have no training image that can be read: b")


def test_hidden_folders_are_told(tmp_path: Path) -> None:
    root = small_folders(tmp_path / "two")
    picture(root / "train/.n00000003/d.jpg")
    assert "train/: hidden folders passed over: .n00000003 -> " in lines("folder", root, "note")
    assert "train/: hidden folders passed over: .n00000003 -> " in lines("imagenet1k", root, "note")
    one = tmp_path / "one"
    for name in ("a/1", "a/2", "b/3", "b/4", ".c/1"):
        picture(one / f"{name}.jpg")
    for number, file in enumerate(sorted(one.glob("*/*.jpg"))):
        file.write_bytes(file.read_bytes() + bytes(number))  # no copies of each other
    assert "hidden folders passed over: .c -> " in lines("folder", one, "note")


def test_folders_that_are_no_wnids(tmp_path: Path) -> None:
    root = small_r(tmp_path)
    picture(root / "goldfish/1.jpg")
    (said,) = lines("imagenet_r", root, "problem")
    assert "has 1 folders that are no wnid: goldfish; expected n and eight digits" in said


# The commands


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = small_inat(tmp_path)
    assert call(["data", "check", "inat2018", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert "ok      8 images, spread over both splits, decode" in said
    assert "\nready\n" in said
    (root / "train_val2018/Aves/0/val2.jpg").unlink()
    with pytest.raises(SystemExit) as end:
        call(["data", "check", "inat2018", "--root", str(root)])
    assert end.value.code == 1
    assert capsys.readouterr().out.endswith("1 problem\n")


def test_own_folders_have_no_twin(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", "check", "folder", "--root", "mini"]) == 2
    assert (
        "the miniature world has no folder data; give --root DIR with train/<class>/"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            "check inat2020 --root x",
            "unknown data set 'inat2020'; did you mean inat2019 or inat201",
        ),
        ("check imagenet-a --root x", "unknown data set 'imagenet-a'; did you mean imagenet_a"),
        ("list coco", "data list does not take coco"),
        ("list --root x", "data list does not take --root x; data check would"),
    ],
)
def test_bad_usage(argv: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["data", *argv.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mae-bench: error: {said}")
    assert error.count("\n") == 1


def test_the_list_fits_80_columns_and_does_without_torch() -> None:
    code = (
        "import sys; from mae_bench.cli import call; code = call(['data', 'list'])\n"
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )
    shown = done.stdout.splitlines()
    assert max(len(line.rstrip()) for line in shown) <= 80
    assert "…" not in done.stdout
    rows = {words[0]: words[1:] for words in map(str.split, reversed(shown)) if words}
    assert rows["coco"] == ["80", "118,287", "5,000", "20"]
    assert rows["ade20k"] == ["150", "20,210", "2,000", "1"]
    assert rows["inat2017"] == ["5,089", "579,184", "95,986", "190"]
    assert rows["folder"] == ["any", "any", "any"]
    assert rows["imagenet_c"] == ["1,000", "-", "3,750,000", "50"]
    words = " ".join(done.stdout.split())
    for name, facts in {**DATASETS, **ROBUSTNESS}.items():
        assert f"{name} {facts.layout}" in words
