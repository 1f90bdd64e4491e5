"""The official layout, one's own, and everything that can be wrong with either."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ade20k_files import OWN, own, save_pair, small
from small_worlds import draw

from tasks.ade20k import layout
from tasks.ade20k.datasets import NUM_CLASSES, NUM_IMAGES, OBTAIN
from tasks.ade20k.layout import read
from tasks.errors import TaskError
from tasks.miniature.ade20k import CLASSES


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature twin of ADE20K."""
    return draw(tmp_path_factory.mktemp("world"), ade20k_train=6, ade20k_val=4) / "ade20k"


def refused(root: Path | str) -> str:
    with pytest.raises(TaskError) as caught:
        read(root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_miniature_twin(mini: Path) -> None:
    data = read(mini)
    assert data.classes == CLASSES
    assert (data.ignore_index, data.zero_is_unlabelled) == (255, True)
    assert (data.name, data.official, data.standard) == ("ade20k", True, False)
    assert (len(data.train), len(data.val)) == (6, 4)
    root = mini / "ADEChallengeData2016"
    assert data.train.path(1) == root / "images/training/ADE_train_00000002.jpg"
    assert data.val.label_path(3) == root / "annotations/validation/ADE_val_00000004.png"
    for split in (data.train, data.val):
        for index in range(len(split)):
            assert split.path(index).is_file()
            assert split.label_path(index).is_file()
            assert split.path(index).stem == split.label_path(index).stem
    inside = read(root)
    assert (inside.fingerprint, inside.train.names[0]) == (data.fingerprint, data.train.names[0])


def test_classes_go_by_number_without_the_official_list(tmp_path: Path) -> None:
    data = read(str(small(tmp_path)))
    assert len(data.classes) == NUM_CLASSES
    assert (data.classes[0], data.classes[149]) == ("class 1", "class 150")


def test_the_official_list_of_classes(tmp_path: Path) -> None:
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.15\t9\t1\t1\twall"]
    lines += ["2\t0.11\t9\t1\t1\tbuilding, edifice  ", "3\t0.08\t9\t1\t1\tsky\r"]
    file = small(tmp_path) / "objectInfo150.txt"
    file.write_text("\n".join(lines) + "\n")
    assert read(tmp_path).classes == ("wall", "building", "sky")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Idx\tName\n1\twall\n3\tsky\n", "line 3: expected class 2 as its number, ..., its name"),
        ("Idx\tName\n1 wall\n", "line 2: expected class 1"),
        ("Idx\tName\n1\t\n2\tsky\n", "line 2: expected class 1"),
        ("Idx\tName\n", "names 0 classes; expected 2 to 255"),
    ],
)
def test_a_broken_official_list(tmp_path: Path, text: str, said: str) -> None:
    file = small(tmp_path) / "objectInfo150.txt"
    file.write_text(text)
    assert refused(tmp_path).startswith(str(file))
    assert said in refused(tmp_path)


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (small(tmp_path) / "objectInfo150.txt").write_bytes(b"\xff\xfe\x00")
    assert "objectInfo150.txt is not text in UTF-8" in refused(tmp_path)


def test_standard_is_as_many_as_in_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NUM_IMAGES == {"train": 20_210, "val": 2_000}
    data = read(small(tmp_path, train=3, val=2))
    assert not data.standard
    monkeypatch.setattr(layout, "NUM_IMAGES", {"train": 3, "val": 2})
    assert data.standard
    assert not data.limited(2).standard
    own(tmp_path / "own", {"classes": [str(number) for number in range(150)]})
    monkeypatch.setattr(layout, "NUM_IMAGES", {"train": 2, "val": 1})
    assert not read(tmp_path / "own").standard
    assert read(tmp_path / "own").own  # 150 classes, but not those of ADE20K


# One's own data


def test_own_data(tmp_path: Path) -> None:
    data = read(own(tmp_path / "streets"))
    assert data.name == "streets"
    assert data.classes == ("road", "car", "tree")
    assert (data.ignore_index, data.zero_is_unlabelled, data.official) == (9, False, False)
    assert data.train.names[:] == ["images/train/a.jpg", "images/train/b.png"]
    assert data.train.label_names[:] == ["annotations/train/a.png", "annotations/train/b.png"]
    assert data.val.names[:] == ["images/val/c.jpg"]


def test_defaults_of_own_classes(tmp_path: Path) -> None:
    data = read(own(tmp_path, {"classes": ["a", "b"]}))
    assert (data.ignore_index, data.zero_is_unlabelled) == (255, False)


def test_the_official_folder_names_serve_own_data(tmp_path: Path) -> None:
    (small(tmp_path) / "classes.json").write_text('{"classes": ["a", "b", "c"]}')
    assert len(read(tmp_path).train) == 3


CLASSES_WRONG: list[tuple[Any, str]] = [
    ("{", "is no JSON (line 1: "),
    ([], "holds no object; expected {"),
    ({}, 'expected "classes" to list names by class index'),
    ({"classes": ["a", 3]}, 'expected "classes" to list names'),
    ({"classes": ["a", " "]}, 'expected "classes" to list names'),
    ({"classes": "ab"}, 'expected "classes" to list names'),
    ({"classes": []}, "names 0 classes; expected 2 to 255"),
    ({"classes": ["a"]}, "names 1 class; expected 2 to 255: the mIoU of a single class says"),
    ({"classes": ["a"]}, 'name the rest as one too, "background", and give it a value of its own'),
    ({"classes": ["a", "b\nc"]}, "the name of class 1, 'b\\nc', cannot be used; expected at most"),
    ({"classes": ["a", "\x1b[31mb"]}, "the name of class 1, '\\x1b[31mb', cannot be used"),
    ('{"classes": ["a", "\\ud800"]}', "the name of class 1, '\\ud800', cannot be used"),
    ({"classes": ["a", "b" * 201]}, "cannot be used; expected at most 200 printable characters"),
    ('{"classes": ["a", "b"], "classes": ["c", "d"]}', "gives 'classes' twice"),
    ('{"classes": ["a", "b"], "ignore_index": 1e999}', "ignore_index is inf; expected a whole"),
    ('{"classes": ["a", "b"], "ignore_index": NaN}', "ignore_index is nan; expected a whole"),
    ('{"classes": ["a", "b"], "ignore_index": ' + "9" * 5000 + "}", "holds what no list of"),
    ('{"classes": ' + "[" * 100_000, "holds what no list of classes does; expected {"),
    ('{"classes": ["a", "b"], "ignore_index": ' + "[" * 90 + "]" * 90 + "}", "is a list; expected"),
    ('{"a":' * 100_000, "holds what no list of classes does"),
    ('{"\\udfff": 1}', "has the unknown key '\\udfff'"),
    ("x" * (2**20 + 1), "has 1,048,577 bytes; expected at most 1,048,576"),
    (OWN | {"ignore_index": {"a": 1}}, "ignore_index is an object; expected a whole number"),
    ({"classes": [str(n) for n in range(256)]}, "names 256 classes; expected 2 to 255"),
    ({"classes": ["a", "b", "a"]}, "names 'a' twice"),
    (OWN | {"ignore_idx": 3}, "unknown key 'ignore_idx'; expected classes, ignore_index, zero"),
    (OWN | {"ignore_index": "9"}, "ignore_index is '9'; expected a whole number 0 to 255"),
    (OWN | {"ignore_index": True}, "ignore_index is True; expected"),
    (OWN | {"ignore_index": -1}, "ignore_index is -1; expected"),
    (OWN | {"ignore_index": 256}, "ignore_index is 256; expected"),
    (OWN | {"zero_is_unlabelled": 1}, "zero_is_unlabelled is 1; expected true or false"),
    (OWN | {"ignore_index": 0}, "ignore_index 0 is also the value of 'road'"),
    (OWN | {"ignore_index": 3, "zero_is_unlabelled": True}, "also the value of 'tree'"),
]


@pytest.mark.parametrize(("content", "said"), CLASSES_WRONG)
def test_own_classes_that_are_wrong(tmp_path: Path, content: Any, said: str) -> None:
    message = refused(own(tmp_path, content))
    assert message.startswith(str(tmp_path / "classes.json"))
    assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"0": "sky", "1": "sea"}, 'for what is there write {"classes": ["sky", "sea"]}'),
        ({"classes": {"1": "sea", "0": "sky"}}, 'write {"classes": ["sky", "sea"]}'),
        (
            {"sky": 1, "sea": 2},
            'write {"classes": ["sky", "sea"], "zero_is_unlabelled": true}',
        ),
        (
            {"classes": [{"id": 1, "name": "b"}, {"id": 0, "name": "a", "color": [1, 2, 3]}]},
            'write {"classes": ["a", "b"]}',
        ),
        ({"0": "sky", "7": "sea"}, "values must follow each other, from 0 or 1 on"),
    ],
)
def test_other_tools_lists_are_put_right(tmp_path: Path, content: Any, said: str) -> None:
    message = refused(own(tmp_path, content))
    assert message.startswith(str(tmp_path / "classes.json"))
    assert said in message


def test_the_proposal_is_taken(tmp_path: Path) -> None:
    message = refused(own(tmp_path, {"0": "Straße", "1": "sea", "2": "sky"}))
    own(tmp_path, message.partition("for what is there write ")[2])
    assert read(tmp_path).classes == ("Straße", "sea", "sky")


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """As Notepad writes it."""
    file = own(tmp_path) / "classes.json"
    plain = read(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b", ", b",\r\n"))
    assert read(tmp_path).rule == plain.rule
    file.write_text(json.dumps(OWN), encoding="utf-16")
    assert "is not text in UTF-8" in refused(tmp_path)


def test_classes_that_are_no_regular_file(tmp_path: Path) -> None:
    file = own(tmp_path) / "classes.json"
    file.unlink()
    os.mkfifo(file)
    assert f"{file} cannot be read: is a named pipe" in refused(tmp_path)
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "is a device" in refused(tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "gone.json")
    assert f"{file} cannot be read: No such file" in refused(tmp_path)
    file.unlink()
    os.mkfifo(tmp_path / "objectInfo150.txt")
    assert "objectInfo150.txt cannot be read: is a named pipe" in refused(tmp_path)


def test_classes_json_in_other_letters(tmp_path: Path) -> None:
    file = own(tmp_path) / "classes.json"
    file.rename(tmp_path / "Classes.JSON")
    assert "Classes.JSON: expected the name classes.json; rename it" in refused(tmp_path)


def test_as_many_classes_as_there_can_be(tmp_path: Path) -> None:
    data = read(own(tmp_path, {"classes": [str(number) for number in range(255)]}))
    assert len(data.classes) == 255


# What is on disk


def test_no_folder(tmp_path: Path) -> None:
    said = refused(tmp_path / "nowhere")
    assert said.startswith(f"data folder {tmp_path}/nowhere does not exist; expected images/{{")
    assert OBTAIN in said
    (tmp_path / "file").write_text("")
    assert "file is a file; expected" in refused(tmp_path / "file")


def test_missing_folders(tmp_path: Path) -> None:
    said = refused(tmp_path)
    assert "has no images/training or images/train; expected" in said
    assert OBTAIN in said
    small(tmp_path)
    (tmp_path / "annotations/validation").rename(tmp_path / "annotations/test")
    assert "has no annotations/validation or annotations/val" in refused(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"]}')
    assert "or train and val for these names" in refused(tmp_path)
    assert OBTAIN not in refused(tmp_path)


def test_a_split_in_two_folders(tmp_path: Path) -> None:
    save_pair(small(tmp_path), "train", "x")
    assert "has both images/training and images/train; keep one of them" in refused(tmp_path)


def test_images_in_folders_of_their_own(tmp_path: Path) -> None:
    """As in the full releases of ADE20K, which are other data."""
    training = small(tmp_path) / "images/training"
    training.rename(tmp_path / "a")
    training.mkdir()
    (tmp_path / "a").rename(training / "a")
    said = refused(tmp_path)
    assert "images/training holds no .jpg or .jpeg or .png file" in said
    assert "(and no folders below these)" in said
    assert "the full ADE20K releases are other data" in said


def test_images_without_label_images(tmp_path: Path) -> None:
    small(tmp_path, train=6)
    for number in range(2, 7):
        (tmp_path / f"annotations/training/tr_{number}.png").unlink()
    said = refused(tmp_path)
    assert "5 of 6 train images have no label image (images/training/tr_2.jpg, " in said
    assert "tr_4.jpg and 2 more); expected annotations/.../NAME.png" in said


def test_label_images_without_images(tmp_path: Path) -> None:
    (small(tmp_path) / "images/validation/va_1.jpg").unlink()
    said = refused(tmp_path)
    assert "1 of 2 val label images have no image (annotations/validation/va_1.png)" in said


def test_two_images_of_one_stem(tmp_path: Path) -> None:
    save_pair(small(tmp_path), "training", "tr_1", suffix="png")
    assert "images/training has both tr_1.jpg and tr_1.png; expected one" in refused(tmp_path)


def test_what_is_passed_over(tmp_path: Path) -> None:
    plain = read(small(tmp_path)).fingerprint
    for name in ("._tr_1.jpg", "Thumbs.db", "png", "notes.txt"):
        (tmp_path / "images/training" / name).write_bytes(b"")
    assert read(tmp_path).fingerprint == plain


def test_suffixes_in_either_case(tmp_path: Path) -> None:
    small(tmp_path)
    for kind, old, new in (("images", "jpg", "JPEG"), ("annotations", "png", "PNG")):
        path = tmp_path / kind / f"training/tr_1.{old}"
        path.rename(path.with_suffix(f".{new}"))
    assert read(tmp_path).train.names[0] == "images/training/tr_1.JPEG"


# What a split can do


def test_the_fingerprint(tmp_path: Path) -> None:
    before = read(small(tmp_path)).fingerprint
    assert len(before) == 20
    assert read(tmp_path).fingerprint == before
    label = tmp_path / "annotations/training/tr_1.png"
    data = bytearray(label.read_bytes())
    data[-1] ^= 1  # as many bytes as before
    label.write_bytes(data)
    changed = read(tmp_path).fingerprint
    save_pair(tmp_path, "validation", "va_9")
    more = read(tmp_path).fingerprint
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"]}')
    assert len({before, changed, more, read(tmp_path).fingerprint}) == 4


def test_limited(tmp_path: Path) -> None:
    data = read(small(tmp_path, train=5, val=2))
    few = data.limited(2)
    assert few.train.names[:] == ["images/training/tr_1.jpg", "images/training/tr_3.jpg"]
    assert few.train.label_path(1).stem == "tr_3"
    assert (len(few.val), few.fingerprint) == (2, data.fingerprint)
    assert data.limited(None).train is data.train
    assert data.train.limited(5) is data.train
    assert data.train.take(np.array([4, 0])).names[:] == [data.train.names[4], data.train.names[0]]
    with pytest.raises(TaskError, match="limit is 0; expected at least 1 image"):
        data.limited(0)


def test_copies_share_and_pickles_keep(tmp_path: Path) -> None:
    data = read(small(tmp_path))
    assert copy.deepcopy(data) is data
    assert copy.deepcopy(data.train) is data.train
    again = pickle.loads(pickle.dumps(data))
    assert again.train.names[:] == data.train.names[:]
    assert again.rule == data.rule


@pytest.mark.parametrize(
    "module", ["tasks.ade20k", "tasks.ade20k.datasets", "tasks.ade20k.classes"]
)
def test_light_modules_do_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reading_needs_neither_mmseg_nor_opencv() -> None:
    code = (
        "import tasks.ade20k.data, tasks.ade20k.check, sys; "
        "sys.exit(bool({'mmseg', 'mmcv', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
