"""Annotation files against pycocotools, and every way in which they can be wrong."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_files import CATEGORIES, SQUARE, content, image, small, thing, write
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from tasks import miniature
from tasks.coco.datasets import ARCHIVES, CATEGORY_IDS, NUM_CLASSES, NUM_IMAGES, NUM_TRAIN_USED
from tasks.coco.files import image_folder
from tasks.coco.layout import read
from tasks.coco.notes import Notes
from tasks.coco.segmentation import pack, string_lengths, unpack
from tasks.errors import TaskError
from tasks.images.files import FileNames
from tasks.miniature import WorldSizes


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature twin of COCO."""
    sizes = WorldSizes.only(coco_train=40, coco_val=12)
    root = tmp_path_factory.mktemp("worlds") / "w"
    return miniature.make(root, sizes=sizes, workers=1) / "coco"


def refusal(source: Path | str) -> str:
    """The one line of the TaskError with which `source` is refused."""
    with pytest.raises(TaskError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(root: Path) -> list[list[int]]:
    """Labels of what is left of each training image."""
    train = read(root).train
    return [[each["label"] for each in train.annotations(i)] for i in range(len(train))]


# What is read


def test_facts() -> None:
    assert len(CATEGORY_IDS) == NUM_CLASSES == 80
    assert NUM_IMAGES["train"] - NUM_TRAIN_USED == 1021
    urls = [archive.url for archive in ARCHIVES.values()]
    assert urls[0] == "http://images.cocodataset.org/zips/train2017.zip"
    assert urls[2].endswith("/annotations/annotations_trainval2017.zip")


def test_own_data_are_told_by_ids_and_names_and_not_by_their_number_of_classes(mini: Path) -> None:
    data = read(mini)
    official = replace(data, category_ids=CATEGORY_IDS)
    assert data.own
    assert not official.own  # the names are twelve digits
    names = FileNames(["a.jpg"] * len(data.val))
    assert replace(official, val=replace(data.val, names=names)).own
    assert replace(official, category_ids=tuple(range(80))).own


@pytest.mark.parametrize("module", ["tasks.coco", "tasks.coco.datasets", "tasks.check"])
def test_light_modules_do_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_reads_what_pycocotools_reads(mini: Path, split: str) -> None:
    data = read(mini)
    truth = COCO(mini / f"annotations/instances_{split}2017.json")
    found = getattr(data, split)
    expected = sorted(truth.getImgIds())
    if split == "train":
        expected = [i for i in expected if truth.getAnnIds(i, iscrowd=False)]
        assert len(expected) < len(truth.getImgIds())
    assert found.image_ids.tolist() == expected
    assert data.category_ids == tuple(sorted(truth.getCatIds()))
    assert list(data.classes) == [each["name"] for each in truth.loadCats(data.category_ids)]
    for index, image_id in enumerate(expected):
        record = truth.imgs[image_id]
        assert found.names[index] == record["file_name"]
        assert found.path(index) == mini / f"{split}2017" / record["file_name"]
        assert found.sizes[index].tolist() == [record["height"], record["width"]]
        theirs, ours = truth.imgToAnns[image_id], found.annotations(index)
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            assert data.category_ids[our["label"]] == their["category_id"]
            assert our["bbox"].tolist() == their["bbox"]
            assert our["iscrowd"] == their["iscrowd"]
            if their["iscrowd"]:
                mask = mask_api.decode(our["segmentation"])
                np.testing.assert_array_equal(mask, truth.annToMask(their))
            else:
                polygons = [ring.ravel().tolist() for ring in our["segmentation"]]
                assert polygons == their["segmentation"]
    assert len(found.left_out) == 0
    assert found.num_annotations == len(truth.anns)


def test_selects_what_detectron2_selects(mini: Path, tmp_path: Path) -> None:
    """Also among things that are no use to either, and things that only it would train on."""
    build = pytest.importorskip("detectron2.data.build")
    from detectron2.data.datasets import load_coco_json

    annotations = [
        thing(1, 1, iscrowd=1, segmentation=HALF),
        thing(2, 2, bbox=[1, 1, 0, 0]),
        thing(4, 4, segmentation=[[1, 1, 2, 2]]),
        thing(5, 5, segmentation=[[1, 1, 2, 2, 3, 3, 4], *SQUARE]),
        thing(7, 7, segmentation=[[1, 1, 9, 1, 9, 1]]),
        thing(8, 8, segmentation=HALF, category_id=7),
    ]
    made = small(tmp_path, annotations, [image(number) for number in (8, 7, 6, 5, 4, 2, 1)])
    for root in (mini, made):
        data = read(root)
        file = root / "annotations/instances_train2017.json"
        theirs = load_coco_json(str(file), str(root / "train2017"), f"coco_{root}")
        theirs = build.filter_images_with_only_crowd_annotations(theirs)
        assert [each["image_id"] for each in theirs] == data.train.image_ids.tolist()
        assert [each["file_name"] for each in theirs] == [
            str(data.train.path(i)) for i in range(len(theirs))
        ]
        for index, record in enumerate(theirs):
            ours = [each["label"] for each in data.train.annotations(index)]
            if record["image_id"] not in (2, 7) or root == mini:
                assert [each["category_id"] for each in record["annotations"]] == ours


def test_the_selection_is_counted(mini: Path) -> None:
    data = read(mini)
    truth = COCO(mini / "annotations/instances_train2017.json")
    empty = [i for i in sorted(truth.getImgIds()) if not truth.getAnnIds(i)]
    assert data.counts["train images without annotation"] == len(empty)
    assert data.examples["train images without annotation"] == tuple(empty[:5])
    assert sum(data.counts.values()) + len(data.train) == 40
    assert len(data.val) == 12
    assert not data.standard
    assert data.name == "coco2017"
    shown = data.report_lines()[2]
    assert shown.startswith(f"train images without annotation: {len(empty)} ({empty[0]}, ")


def test_categories_are_ranked_by_id(tmp_path: Path) -> None:
    data = read(small(tmp_path, [thing(1, 1, category_id=7), thing(2, 2), thing(4, 1)]))
    assert (data.category_ids, data.classes) == ((3, 7), ("cat", "ball"))
    assert labels(tmp_path) == [[1, 0], [0]]


def test_images_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    small(tmp_path, [thing(1, 5), thing(2, 2), thing(3, 5)], [image(5), image(2)])
    train = read(tmp_path).train
    assert train.image_ids.tolist() == [2, 5]
    assert list(train.names) == ["0002.jpg", "0005.jpg"]
    assert [len(train.annotations(i)) for i in range(2)] == [1, 2]


def test_limit_spreads_over_the_images(mini: Path) -> None:
    data = read(mini)
    few = data.limited(3)
    rows = [0, len(data.train) // 3, 2 * len(data.train) // 3]
    assert few.train.image_ids.tolist() == data.train.image_ids[rows].tolist()
    assert [few.train.names[i] for i in range(3)] == [data.train.names[i] for i in rows]
    for i, row in enumerate(rows):
        ours, theirs = few.train.annotations(i), data.train.annotations(row)
        assert [each["label"] for each in ours] == [each["label"] for each in theirs]
    assert len(few.val) == 3
    assert few.fingerprint == data.fingerprint
    assert data.limited(None).train.image_ids.tolist() == data.train.image_ids.tolist()
    with pytest.raises(TaskError, match="limit is 0; expected at least 1"):
        data.limited(0)


def test_a_shortened_set_is_not_standard(mini: Path) -> None:
    data = copy.copy(read(mini))
    object.__setattr__(data, "standard", True)
    assert data.limited(1000).standard
    assert not data.limited(5).standard


def test_copies_share_and_pickles_keep(mini: Path) -> None:
    data = read(mini)
    assert copy.deepcopy(data) is data
    assert copy.deepcopy(data.train) is data.train
    again = pickle.loads(pickle.dumps(data.val))
    np.testing.assert_equal(again.annotations(3), data.val.annotations(3))


def test_the_fingerprint_follows_names_ids_sizes_classes_and_outlines(tmp_path: Path) -> None:
    versions = [
        small(tmp_path / "a"),
        small(tmp_path / "b"),
        small(tmp_path / "c", [thing(1, 1), thing(2, 2, category_id=7)]),
        small(tmp_path / "d", [thing(1, 1), thing(2, 2, segmentation=[SQUARE[0][:6]])]),
        small(tmp_path / "e", images=[image(1), image(2) | {"file_name": "x.jpg"}]),
        small(tmp_path / "f", images=[image(1), image(2, width=61)]),
    ]
    first, second, *others = [read(root).fingerprint for root in versions]
    assert first == second
    assert len(first) == 20
    assert len({first, *others}) == 5


# One's own data


@pytest.mark.parametrize(
    ("json_folder", "image_folder"),
    [
        ("labels", "labels"),
        ("labels", "labels/images"),
        ("labels", "train"),
        ("labels", "images/train"),
        ("labels", "images"),
    ],
)
def test_own_files_with_images_near_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, json_folder: str, image_folder: str
) -> None:
    small(tmp_path / "made")
    folder = tmp_path / "own" / json_folder
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        made = tmp_path / f"made/annotations/instances_{split}2017.json"
        shutil.copy(made, folder / f"instances_{split}.json")
        where = tmp_path / "own" / image_folder.replace("train", split)
        shutil.copytree(tmp_path / f"made/{split}2017", where, dirs_exist_ok=True)
    files = [folder / f"instances_{split}.json" for split in ("train", "val")]
    data = read(f"{files[0]},{files[1]}")
    assert data.train.root == tmp_path / "own" / image_folder
    assert data.name == "instances_train"
    assert not data.standard
    assert data.fingerprint == read(tmp_path / "made").fingerprint
    monkeypatch.chdir(folder)
    assert read("instances_train.json, ./instances_val.json").train.root == data.train.root


def test_a_full_path_leaves_no_choice_of_folder(tmp_path: Path) -> None:
    for name in ("own/train.json", "own/images/0001.jpg", "own/0001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    noted = []
    for name in ("0001.jpg", str(tmp_path / "own/0001.jpg")):
        notes = Notes()
        root = image_folder(tmp_path / "own/train.json", name, "train", notes)
        assert root / name == tmp_path / "own/0001.jpg"
        noted.append(list(notes.counts.values()))
    assert noted == [[2], []]


def test_images_that_are_nowhere(tmp_path: Path) -> None:
    small(tmp_path)
    shutil.rmtree(tmp_path / "train2017")
    files = [tmp_path / f"annotations/instances_{split}2017.json" for split in ("train", "val")]
    said = refusal(f"{files[0]},{files[1]}")
    assert f"{files[0]}: its first image 0001.jpg is in none of {tmp_path}/annotations, " in said
    assert (
        f"{tmp_path}/train2017, {tmp_path}/images/train2017, {tmp_path}/images, {tmp_path}; move"
        in said
    )


def test_names_in_subfolders(tmp_path: Path) -> None:
    small(tmp_path, images=[image(1) | {"file_name": "a/1.jpg"}, image(2) | {"file_name": "b.jpg"}])
    train = read(tmp_path).train
    assert all(train.path(i).is_file() for i in range(2))
    (tmp_path / "train2017/a/1.jpg").unlink()
    assert "1 of 2 images named in" in refusal(tmp_path)


# What is refused


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    root = small(tmp_path / "x")
    train = root / "annotations/instances_train2017.json"
    assert "nowhere does not exist; expected a folder with train2017" in refusal(
        tmp_path / "nowhere"
    )
    assert "is one file; expected a folder with" in refusal(train)
    assert "no.json does not exist; expected an annotation file" in refusal(f"{train},no.json")
    assert "is a folder; expected an annotation file" in refusal(f"{train},{root}")
    assert "names 3 files, and no comma in it parts two that are there; expected TRAIN" in refusal(
        f"{train},{train},{train}"
    )
    assert "expected TRAIN.json,VAL.json" in refusal(f"{train},")


@pytest.mark.parametrize("gone", ["train2017", "annotations/instances_val2017.json"])
def test_a_folder_that_is_not_complete(tmp_path: Path, gone: str) -> None:
    path = small(tmp_path) / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = refusal(tmp_path)
    assert f"{tmp_path} has no {gone}; expected train2017/*.jpg, val2017/*.jpg and" in said
    assert "get train2017.zip, val2017.zip, annotations_trainval2017.zip from images.coco" in said


def test_missing_images(tmp_path: Path) -> None:
    small(tmp_path, images=[image(number) for number in range(1, 8)])
    for number in (2, 3, 5, 7):
        (tmp_path / f"train2017/{number:04d}.jpg").unlink()
    said = refusal(tmp_path)
    assert "4 of 7 images named in" in said
    assert "are missing (0002.jpg, 0003.jpg, 0005.jpg, ...); unpack or copy the rest" in said


TWO = [image(1), image(2)]
GOOD = [thing(1, 1)]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ('{"images": [', "is not valid JSON (Expecting value: line 1 column 13"),
        ("", "is not valid JSON (Expecting value"),
        ("[" * 100_000, "is not valid JSON ("),
        ("[]", "holds a list; expected COCO's instances format, an object with images"),
        ({"annotations": []}, "has no list of images or categories (it has annotations)"),
        (content([], []), "has no images; expected"),
        (content(TWO, GOOD, []), "has no categories; expected"),
        (
            content(TWO, GOOD, [{"id": n, "name": f"{n}"} for n in range(10_001)]),
            "lists 10,001 categories; expected at most 10,000: leave out those without objects",
        ),
        (content(TWO, []), "annotates nothing in any image; expected some objects"),
        (content([*TWO, image(2)], GOOD), "1 ids in images are there more than once (2)"),
        (content(TWO, [*GOOD, *GOOD]), "1 ids in annotations are there more than once (1)"),
        (content(TWO, GOOD, CATEGORIES * 2), "2 ids in categories are there more than once (3, 7)"),
        (content(TWO, [thing(5, 9)]), "annotation 5 with image_id 9; remove them or add it"),
        (content(TWO, [thing(5, 0)]), "annotation 5 with image_id 0; remove them or add it"),
        (content(TWO, [thing(5, 1, category_id=4)]), "annotation 5 with category_id 4; remove"),
        (content(TWO, [thing(5, 1, category_id=None)]), "annotations[0] has no category_id; exp"),
        (
            content(TWO, [*GOOD, thing("b", 1)]),
            "annotations[1] has id 'b'; expected a whole number",
        ),
        (content(TWO, [thing(2**70, 1)]), "annotations[0] has id 1180591620717411303424; expected"),
        (content(TWO, [thing(True, 1)]), "annotations[0] has id True; expected a whole number"),
        (content(TWO, [7]), "annotations[0] is no object; expected COCO's instances format"),
        (content(TWO, GOOD, [{"id": 3}]), "categories[0] has no name; expected a text"),
        (
            content([image(1, width=-5)], GOOD),
            "images[0] has width -5; expected a number of pixels",
        ),
    ],
)
def test_files_that_are_useless(tmp_path: Path, what: object, said: str) -> None:
    small(tmp_path)
    file = write(tmp_path, "train", what if isinstance(what, str) else json.dumps(what))
    message = refusal(tmp_path)
    assert said in message
    assert str(file) in message


def test_different_categories(tmp_path: Path) -> None:
    small(tmp_path)
    write(tmp_path, "val", content([image(3)], [], [{"id": 3, "name": "dog"}]))
    said = refusal(tmp_path)
    assert "differ in 1 categories: id 3 is 'cat' in the first and 'dog' in the second" in said


# What is left out

ZEROS = {"size": [40, 60], "counts": [2400]}
HALF = {"size": [40, 60], "counts": [1200, 1200]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [1, 2, 3], "segmentation": []}, "no box of four numbers"),
        ({"bbox": [10, 10, 0, 5]}, "a box of no width or height"),
        ({"bbox": [10, 10, 5, -1]}, "a box of no width or height"),
        ({"bbox": [60, 10, 5, 5]}, "a box outside the image"),
        ({"bbox": [10, -9, 5, 9]}, "a box outside the image"),
        ({"segmentation": None}, "no segmentation"),
        ({"segmentation": []}, "no segmentation"),
        ({"segmentation": "square"}, "no polygon of three points"),
        ({"segmentation": SQUARE[0]}, "no polygon of three points"),
        ({"segmentation": [[1, 1, 9, 9]]}, "no polygon of three points"),
        ({"segmentation": [[1, 1, 9, 9, 1, 9, 4]]}, "no polygon of three points"),
        ({"segmentation": [[1, 1, 9, 9, 1, "x"]]}, "no polygon of three points"),
        ({"segmentation": [[1, 1, 9, 9, 1, float("inf")]]}, "no polygon of three points"),
        ({"segmentation": [[1, 1, 9, 9.3, 5, 5.15]]}, "a segmentation without area"),
        ({"segmentation": [[1, 1, 9, 1, 9, 1]]}, "a segmentation without area"),
        ({"segmentation": ZEROS}, "a segmentation without area"),
        ({"segmentation": HALF | {"size": [60, 40]}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": [1200, 1201]}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": [3600, -1200]}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": [1200.0, 1200.0]}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": [2**70]}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": "nonsense"}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": "\u00e4"}}, "malformed run lengths"),
        ({"segmentation": HALF | {"counts": ""}}, "malformed run lengths"),
        ({"segmentation": {"size": [40, 60]}}, "malformed run lengths"),
    ],
)
def test_faulty_annotations_are_left_out_and_named(
    tmp_path: Path, changes: dict, reason: str
) -> None:
    small(tmp_path, [thing(1, 1), thing(77, 1, **changes), thing(2, 2)])
    data = read(tmp_path)
    assert labels(tmp_path) == [[0], [0]]
    assert data.counts == {f"train annotations left out for {reason}": 1}
    assert data.examples == {f"train annotations left out for {reason}": (77,)}
    assert data.report_lines()[2:] == [f"train annotations left out for {reason}: 1 (77)"]
    assert data.train.left_out.tolist() == [77]


def test_crossing_outlines_whose_signed_area_cancels_are_kept(tmp_path: Path) -> None:
    bow_tie = [[0.0, 0.0, 10.0, 10.0, 10.0, 0.0, 0.0, 10.0]]
    crossing = thing(1, 1, segmentation=bow_tie, bbox=[0, 0, 10, 10])
    assert read(small(tmp_path, [crossing])).counts == {"train images without annotation": 1}


def test_a_polygon_of_two_points_is_dropped_from_others(tmp_path: Path) -> None:
    small(tmp_path, [thing(8, 1, segmentation=[*SQUARE, [1, 1, 2, 2], [3]]), thing(2, 2)])
    data = read(tmp_path)
    found = data.train.annotations(0)[0]["segmentation"]
    assert [ring.ravel().tolist() for ring in found] == SQUARE
    assert data.counts == {"train polygons with fewer than three points": 2}
    assert data.examples == {"train polygons with fewer than three points": (8,)}
    assert data.train.left_out.tolist() == []


def test_boxes_over_the_border_are_only_counted(tmp_path: Path) -> None:
    over = thing(1, 1, bbox=[50, 10, 12, 20], segmentation=[[50, 10, 62, 10, 62, 30, 50, 30]])
    box = [[40, 10, 60, 10, 60, 30, 40, 30]]
    rounding = thing(2, 2, bbox=[40.5, 10, 20, 20], segmentation=box)
    data = read(small(tmp_path, [over, rounding]))
    assert labels(tmp_path) == [[0], [0]]
    assert data.counts == {"train boxes partly outside the image (kept)": 1}


def test_images_stay_as_in_detectron2(tmp_path: Path) -> None:
    """There a thing with three points keeps its image, whatever its box; fewer do not."""
    crowd = thing(1, 1, iscrowd=1, segmentation=HALF, bbox=[30, 0, 30, 40])
    no_box = thing(2, 2, bbox=[1, 1, 0, 0])
    two_points = thing(4, 4, segmentation=[[1, 1, 2, 2]])
    things = [crowd, no_box, two_points, thing(7, 7)]
    small(tmp_path, things, [image(i) for i in (1, 2, 4, 6, 7)])
    data = read(tmp_path)
    assert data.train.image_ids.tolist() == [2, 7]
    assert labels(tmp_path) == [[], [0]]
    assert data.counts["train images without annotation"] == 1
    assert data.counts["train images with nothing usable but crowds"] == 2


def test_val_keeps_every_image(tmp_path: Path) -> None:
    small(tmp_path)
    faulty = thing(5, 3, bbox=[1, 1, 0, 0])
    other = thing(7, 3, bbox=[10, 10, 20, 20.5])
    write(tmp_path, "val", content([image(3), image(4)], [faulty, thing(6, 3), other]))
    data = read(tmp_path)
    assert data.val.image_ids.tolist() == [3, 4]
    assert data.val.left_out.tolist() == [5]
    assert data.counts == {"val annotations left out for a box of no width or height": 1}


# Run lengths


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_as_list_and_string(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2).tolist()
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    mask[: seed % 3 * height // 2] = 0
    mask[-1, -1] = 1
    compressed = mask_api.encode(np.asfortranarray(mask))["counts"]
    lengths = string_lengths(compressed.decode())
    assert lengths is not None
    for counts in (compressed.decode(), lengths.tolist()):
        packed, fault, dropped = pack({"size": [height, width], "counts": counts}, height, width)
        assert (packed, fault, dropped) == (compressed, "", 0)
        np.testing.assert_array_equal(mask_api.decode(unpack(packed, height, width)), mask)
    assert lengths.sum() == mask.size
