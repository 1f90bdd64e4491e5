"""Annotation files whose fields contradict each other, each with the cause that made it so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_files import content, image, thing, write
from PIL import Image
from pycocotools import mask as mask_api
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from tasks.coco import mask_rcnn
from tasks.coco.data import decode_known
from tasks.coco.evaluation import ground_truth
from tasks.coco.layout import CocoData, read
from tasks.errors import TaskError

W, H = 400, 300
Change = Callable[[dict[str, Any]], Any]


def ellipse(x: float, y: float, w: float, h: float) -> list[list[float]]:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([x + w / 2 * (1 + np.cos(turn)), y + h / 2 * (1 + np.sin(turn))], axis=1)
    return [ring.ravel().tolist()]


def things(count: int = 12, seed: int = 0, outlines: bool = True) -> list[dict[str, Any]]:
    """Ellipses of any place and size in image 1 and 2, with their boxes and areas."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        w, h = rng.integers(20, 90, 2).tolist()
        x, y = rng.integers(0, W - w), rng.integers(0, H - h)
        box = [int(x), int(y), w, h]
        outline = ellipse(*box) if outlines else None
        own = {"bbox": box, "segmentation": outline, "area": w * h * (0.78 if outlines else 1)}
        made.append(thing(number + 1, 1 + number % 2, **own))
    return made


def build(root: Path, train: list, val: list | None = None, **sizes: int) -> str:
    """Both files, with images; what `read` takes."""
    size = {"width": W, "height": H} | sizes
    for split, rows in (("train", train), ("val", things() if val is None else val)):
        write(root, split, content([image(1, **size), image(2, **size)], rows))
    return str(root)


def said(root: Path, train: list, val: list | None = None) -> str:
    with pytest.raises(TaskError) as error:
        read(build(root, train, val))
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(change: Change, **how: Any) -> list[dict[str, Any]]:
    made = things(**how)
    for each in made:
        each.update(change(each))
    return made


def corners(each: dict[str, Any]) -> dict[str, Any]:
    x, y, w, h = each["bbox"]
    return {"bbox": [x, y, x + w, y + h]}


def scaled(each: dict[str, Any], by: tuple[float, float]) -> list[float]:
    return [value * by[i % 2] for i, value in enumerate(each["bbox"])]


def centre(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x + w / 2, y + h / 2, w, h]


def rings(each: dict[str, Any], by: tuple[float, float]) -> list[list[float]]:
    return [[v * by[i % 2] for i, v in enumerate(ring)] for ring in each["segmentation"]]


def test_run_lengths_by_rows_without_boxes(tmp_path: Path) -> None:
    """As the same ones by columns, which are whole, are not."""

    def by_columns(each: dict[str, Any]) -> dict[str, Any]:
        rle = mask_api.merge(mask_api.frPyObjects(each["segmentation"], H, W))
        return {"segmentation": {"size": [H, W], "counts": rle["counts"].decode()}}

    def unboxed(change: Change) -> list[dict[str, Any]]:
        return [{k: v for k, v in each.items() if k != "bbox"} for each in changed(change)]

    message = said(tmp_path / "rows", unboxed(by_rows))
    assert "12 of 12 run lengths are scattered" in message
    assert "they look like rows; COCO's go down the columns" in message.replace(
        "the run lengths", "they"
    )
    read(build(tmp_path / "columns", unboxed(by_columns)))


def test_objects_that_a_file_has_twice_are_noted(tmp_path: Path) -> None:
    """Exact detections of such a test file score half of all."""
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "ball"}]
    once = [thing(1, 1), thing(2, 1, category_id=7)]
    write(tmp_path, "train", content([image(1)], once, categories))
    again = [thing(1, 3), thing(2, 3), thing(3, 3, category_id=7), thing(9, 3)]
    crowds = [thing(4, 3, iscrowd=1), thing(5, 3, iscrowd=1)]
    write(tmp_path, "val", content([image(3)], again + crowds, categories))
    found = {what: some for what, some in read(tmp_path).examples.items() if "repeat" in what}
    (what,) = found
    assert found[what] == (2, 9)
    assert what.startswith("val annotations that repeat another's image, class, box and outline")
    assert read(tmp_path).counts[what] == 2


def test_files_and_classes_that_are_in_one_place_alone_are_noted(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "ball"}]
    twice = [image(1), image(2) | {"file_name": image(1)["file_name"]}]
    write(tmp_path, "train", content(twice, [thing(1, 1), thing(2, 2)], categories))
    val = [thing(1, 3), thing(2, 3, category_id=7)]
    write(tmp_path, "val", content([image(3)], val, categories))
    examples = read(tmp_path).examples
    (double,) = (some for what, some in examples.items() if "that several images name" in what)
    (untrained,) = (some for what, some in examples.items() if "no train object has" in what)
    assert (double, untrained) == (("0001.jpg",), ("ball",))


def test_photographs_of_both_splits_by_other_names(tmp_path: Path) -> None:
    root = Path(build(tmp_path, things(), things()))
    assert not [what for what in read(root).counts if "training images" in what]
    files = [sorted((root / f"{split}2017").iterdir())[0] for split in ("train", "val")]
    files[1].write_bytes(files[0].read_bytes())
    found = {what: some for what, some in read(root).examples.items() if "training images" in what}
    assert list(found.values()) == [(files[1].name,)]
    assert "by their bytes, of 2 looked at" in next(iter(found))


def test_a_test_file_of_little_use_is_refused(tmp_path: Path) -> None:
    nothing = {"bbox": [0, 0, 0, 0], "segmentation": []}
    val = things()
    for each in val[:6]:
        each.update(nothing)
    assert read(build(tmp_path, things(), val)).val.objects.sum() == 6
    val[6].update(nothing)
    message = said(tmp_path, things(), val)
    assert "7 of 12 objects are of no use (7 with no box of four numbers)" in message


def by_rows(each: dict[str, Any]) -> dict[str, Any]:
    """Run lengths along the rows, under a box that is right."""
    mask = mask_api.decode(mask_api.merge(mask_api.frPyObjects(each["segmentation"], H, W)))
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return {"segmentation": {"size": [H, W], "counts": counts}}


ONE, HUNDRED, THOUSAND = ((s / W, s / H) for s in (1, 100, 1000))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (corners, "they look like corners x1, y1, x2, y2"),
        (lambda e: {"bbox": centre(e["bbox"])}, "they look like centre x, centre y"),
        (lambda e: {"bbox": [e["bbox"][i] for i in (1, 0, 3, 2)]}, "look like y, x, height, width"),
        (lambda e: {"bbox": scaled(e, ONE)}, "they look normalised to 1;"),
        (lambda e: {"bbox": centre(scaled(e, ONE))}, "to 1 and to be centre x, centre y"),
        (lambda e: {"bbox": scaled(e, HUNDRED)}, "they look normalised to 100;"),
        (lambda e: {"bbox": scaled(e, THOUSAND)}, "they look normalised to 1000;"),
        (lambda e: {"bbox": scaled(e, (0.5, 0.5))}, "they are 0.5 times as large; was another"),
        (lambda e: {"segmentation": rings(e, ONE)}, "outlines, for example annotation 1"),
        (lambda e: {"segmentation": rings(e, HUNDRED)}, "outlines look normalised to 100"),
        (lambda e: {"segmentation": rings(e, (4, 4))}, "outlines lie outside their image"),
        (lambda e: {"bbox": [5, 5, 9, 9]}, "boxes do not fit their outlines, for example"),
        (by_rows, "the run lengths look like rows; COCO's go down the columns"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_that_means_something_else_is_refused(
    tmp_path: Path, change: Change, cause: str, split: str
) -> None:
    made = changed(change)
    message = said(tmp_path, made) if split == "train" else said(tmp_path, things(), made)
    assert cause in message
    assert f"instances_{split}2017.json" in message


@pytest.mark.parametrize(
    ("outline", "kind"),
    [
        ([1, 1, 9, 1, 9, 9], "one flat polygon"),
        ([[1, 1], [9, 1], [9, 9]], "pairs of points"),
        ([[[1, 1], [9, 1], [9, 9]]], "polygons of pairs"),
        ([{"size": [H, W], "counts": "a"}], "run lengths inside a list"),
        ([{"x": 1, "y": 1}], "objects with x, y"),
        ([["1", "1", "9", "1", "9", "9"]], "polygons of texts"),
        ("[[1, 1, 9, 1, 9, 9]]", "a text"),
        ({"size": [W, H], "counts": [W * H]}, "run lengths with size [width, height]"),
        ({"size": [10, 10], "counts": [50, 50]}, "run lengths of another size ([10, 10])"),
        ({"size": [H, W], "counts": [5, 5]}, "run lengths that do not fill the image"),
        ({"size": [H, W]}, "an object without counts"),
    ],
)
def test_outlines_of_another_kind_are_named(tmp_path: Path, outline: Any, kind: str) -> None:
    message = said(tmp_path, changed(lambda _: {"segmentation": outline}))
    assert f"12 of 12 segmentations look like {kind}" in message


def test_boxes_alone_of_other_meanings(tmp_path: Path) -> None:
    alone: Any = {"outlines": False, "count": 40}
    assert "look like corners" in said(tmp_path, changed(corners, **alone))
    made = changed(lambda e: {"bbox": scaled(e, ONE)}, **alone)
    assert "look normalised to 1;" in said(tmp_path, made)
    made = changed(lambda e: {"bbox": scaled(e, (3, 3))}, **alone)
    assert "boxes lie outside their image" in said(tmp_path, made)
    assert not read(build(tmp_path, things(**alone), things(**alone))).counts


def test_boxes_alone_by_their_centre(tmp_path: Path) -> None:
    made = changed(lambda e: {"bbox": centre(e["bbox"])}, outlines=False, count=60)
    assert "they look like centre x, centre y" in said(tmp_path, made)


@pytest.mark.parametrize("outlines", [True, False])
def test_percentages_of_large_images(tmp_path: Path, outlines: bool) -> None:
    """Boxes and outlines agree with each other; both are in percent (Label Studio)."""

    def percent(each: dict[str, Any]) -> dict[str, Any]:
        own = {"segmentation": rings(each, HUNDRED)} if outlines else {}
        return own | {"bbox": scaled(each, HUNDRED)}

    made = changed(percent, count=60, outlines=outlines)
    message = said(tmp_path, made)
    assert "60 of 60" in message
    assert "they look normalised to 100;" in message


def test_things_of_half_the_resolution_are_noted(tmp_path: Path) -> None:
    half = (0.5, 0.5)
    made = changed(lambda e: {"segmentation": rings(e, half), "bbox": scaled(e, half)}, count=60)
    (line,) = read(build(tmp_path, made)).counts
    assert "all in the upper left of their images" in line


def test_a_few_at_odds_are_counted_and_kept(tmp_path: Path) -> None:
    made = things(20)
    for each in made[:4]:
        each.update(corners(each))
    counts = read(build(tmp_path, made)).counts
    (line,) = [line for line in counts if "do not fit" in line]
    assert counts[line] == 4
    assert "corners" in line


def test_right_files_are_not_suspected(tmp_path: Path) -> None:
    for seed in range(5):
        data = read(build(tmp_path, things(30, seed), things(30, seed + 50)))
        assert not data.counts
        assert data.masks


@pytest.mark.parametrize("value", ["0", "false", False, 0.0, None])
def test_spellings_of_no_crowd(tmp_path: Path, value: Any) -> None:
    made = changed(lambda _: {"iscrowd": value})
    assert read(build(tmp_path, made)).train.objects.sum() == 12


@pytest.mark.parametrize("value", ["1", "True", True, 1.0])
def test_spellings_of_a_crowd(tmp_path: Path, value: Any) -> None:
    made = things()
    made[0]["iscrowd"] = value
    data = read(build(tmp_path, made))
    assert data.train.objects.sum() == 11
    assert "11 objects, 1 crowds" in data.census[0]


@pytest.mark.parametrize("value", ["no", 2, -1, 0.5, [], {}, ""])
def test_other_crowds_are_refused(tmp_path: Path, value: Any) -> None:
    made = changed(lambda _: {"iscrowd": value})
    assert "expected 0 for an object or 1 for a crowd" in said(tmp_path, made)


def test_all_crowds_are_refused(tmp_path: Path) -> None:
    made = changed(lambda _: {"iscrowd": 1})
    assert "all 12 annotations are crowds" in said(tmp_path, made)


@pytest.mark.parametrize("area", [None, -1, 0, "9", float("nan"), 10**400, 1e9, [1]])
def test_impossible_areas_are_those_of_the_outlines(tmp_path: Path, area: Any) -> None:
    val = changed(lambda _: {"area": area})
    data = read(build(tmp_path, things(), val))
    truth = ground_truth(data)
    for mine, own in zip(truth.dataset["annotations"], order(val), strict=True):
        rle = mask_api.merge(mask_api.frPyObjects(own["segmentation"], H, W))
        assert mine["area"] == mask_api.area(rle)
    assert sum(count for line, count in data.counts.items() if "possible area" in line) == 12


def order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda each: each["image_id"])


def test_areas_at_odds_are_kept_and_said(tmp_path: Path) -> None:
    data = read(build(tmp_path, things(), changed(lambda _: {"area": 1.0})))
    assert any(line.startswith("val areas at odds") for line in data.counts)
    assert {each["area"] for each in data.val.annotations(0)} == {1.0}


def test_boxes_are_taken_from_outlines(tmp_path: Path) -> None:
    for missing in (None, [], [0, 0, 0, 0], "x", [1, 2, 3, "4"]):
        data = read(build(tmp_path, changed(lambda _, m=missing: {"bbox": m})))
        found = np.concatenate([[e["bbox"] for e in data.train.annotations(i)] for i in (0, 1)])
        np.testing.assert_allclose(found, [e["bbox"] for e in order(things())], atol=1e-6)
        assert data.counts[next(iter(data.counts))] == 12


def test_boxes_alone_and_mixtures(tmp_path: Path) -> None:
    data = read(build(tmp_path, things(outlines=False), things()))
    assert not data.masks
    assert data.report_lines()[0].startswith("boxes alone")
    assert data.val.annotations(0)[0]["segmentation"] is None
    mixed = [*things(6), *[e | {"id": e["id"] + 50} for e in things(9, outlines=False)]]
    assert "9 of 15 objects have a box but no outline" in said(tmp_path, mixed)


def test_outlines_of_crowds_alone_are_no_outlines(tmp_path: Path) -> None:
    made = things(outlines=False)
    crowd = thing(50, 1, iscrowd=1, bbox=[0, 0, 9, 9], area=81, segmentation=[[0, 0, 9, 0, 9, 9]])
    data = read(build(tmp_path, [*made, crowd], [*made, crowd]))
    assert not data.masks
    assert data.train.objects.sum() == 12


def test_one_file_as_both_is_noted(tmp_path: Path) -> None:
    build(tmp_path, things())
    file = tmp_path / "annotations/instances_train2017.json"
    counts = read(f"{file},{file}").counts
    (line,) = counts
    assert line.startswith("test images that are training images too")
    assert counts[line] == 2


def test_paths_with_commas(tmp_path: Path) -> None:
    folder = tmp_path / "a, b,c"
    build(folder, things())
    files = [folder / f"annotations/instances_{split}2017.json" for split in ("train", "val")]
    assert read(f"{files[0]},{files[1]}").train.json_file == files[0]


def test_other_layouts_and_spellings(tmp_path: Path) -> None:
    """A folder of Roboflow's, names from Windows, ids as text, and LVIS's coco_url."""
    rows = [each | {"image_id": str(each["image_id"])} for each in things()]
    for split in ("train", "valid"):
        (tmp_path / split / "x").mkdir(parents=True)
        pictures = []
        for number in (1, 2):
            Image.new("RGB", (W, H)).save(tmp_path / split / f"x/{number}.jpg")
            entry = image(number, W, H) | {"file_name": f"x\\{number}.jpg"}
            if split == "valid":
                del entry["file_name"]
                entry["coco_url"] = f"http://host/x/{number}.jpg"
            pictures.append(entry)
        text = json.dumps(content(pictures, rows))
        (tmp_path / split / "_annotations.coco.json").write_text("\ufeff" + text)
    data = read(tmp_path)
    assert list(data.train.names) == list(data.val.names) == ["x/1.jpg", "x/2.jpg"]
    assert data.name == tmp_path.name
    said = " ".join(data.counts)
    for words in (
        "between folders (read as /)",
        "taken from coco_url",
        "image_id is no whole number",
    ):
        assert words in said


def test_names_in_another_case_are_pointed_out(tmp_path: Path) -> None:
    build(tmp_path, things())
    (tmp_path / "train2017/0001.jpg").rename(tmp_path / "train2017/0001.JPG")
    with pytest.raises(TaskError, match=r"there is 0001\.JPG: upper and lower case differ"):
        read(tmp_path)


def test_ignore_means_nothing_to_pycocotools(tmp_path: Path) -> None:
    data = read(build(tmp_path, changed(lambda _: {"ignore": 1})))
    assert data.train.objects.sum() == 12
    assert any('with "ignore"' in line for line in data.counts)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("width", 2_147_483_647, "expected a number of pixels, at most"),
        ("width", "wide", "expected a whole number"),
        ("height", 10**400, "expected a whole number"),
        ("file_name", "../../etc/passwd", "leads out of the image folder"),
        ("file_name", "\ud800.jpg", "a name that the file system can take"),
        ("file_name", "a" * 5000, "a name that the file system can take"),
        ("id", 1.5, "expected a whole number"),
        ("id", 2**63, "id 9223372036854775808; expected a whole number of 64 bits"),
    ],
)
def test_hostile_images(tmp_path: Path, key: str, value: Any, expected: str) -> None:
    build(tmp_path, things())
    file = tmp_path / "annotations/instances_train2017.json"
    whole = json.loads(file.read_text())
    whole["images"][0][key] = value
    file.write_text(json.dumps(whole))
    with pytest.raises(TaskError, match=expected):
        read(tmp_path)


@pytest.mark.parametrize("key", ["bbox", "segmentation", "area", "iscrowd", "category_id", "id"])
@pytest.mark.parametrize(
    "value", [None, True, "", "x", [], {}, [[]], [[[]]], -1, 1e308, 10**300, {"counts": []}]
)
def test_any_value_of_any_field_is_read_or_refused_in_one_line(
    tmp_path: Path, key: str, value: Any
) -> None:
    made = things()
    made[0][key] = value
    try:
        assert isinstance(read(build(tmp_path, made)), CocoData)
    except TaskError as error:
        assert "\n" not in str(error)  # noqa: PT017 either is right


def test_outlines_that_would_take_for_ever_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = things()
    long, tangled = rng.uniform(0, 300, 2_000_000), rng.uniform(0, 300, 2000)
    made[0]["segmentation"], made[1]["segmentation"] = [long.tolist()], [tangled.tolist()]
    data = read(build(tmp_path, made))
    assert data.counts["train annotations left out for an outline too long to fill"] == 2


def test_too_many_objects_in_an_image_are_refused(tmp_path: Path) -> None:
    made = [thing(number, 1) for number in range(6000)]
    assert "0001.jpg has 6,000 annotations; expected at most 5,000" in said(tmp_path, made)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("meant", ["turned", "stored"])
def test_photographs_are_turned_as_their_annotations_mean(
    tmp_path: Path, turn: int, meant: str
) -> None:
    """Pillow's own exif_transpose says how a turned one looks; tags 2 to 4 always apply."""
    from PIL import ImageOps

    pixels = np.random.default_rng(turn).integers(0, 255, (H, W, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = turn
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(tmp_path / "x.png"))
    size = shown.size if meant == "turned" else (W, H)
    build(tmp_path, [thing(1, 1)], [thing(1, 1)], width=size[0], height=size[1])
    (tmp_path / "x.png").rename(tmp_path / "train2017/0001.jpg")
    data = read(tmp_path)
    expected = np.asarray(shown) if meant == "turned" or turn < 5 else pixels
    np.testing.assert_array_equal(decode_known(data.train, 0), expected)


def test_matching_by_pieces_equals_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    for low in (True, False):
        corner = 90 * torch.rand(700, 2, generator=generator).round(decimals=1)
        boxes = torch.cat([corner, corner + 5 + 20 * torch.rand(700, 2, generator=generator)], 1)
        objects = torch.cat([boxes[:40], boxes[:5]])  # with ties
        theirs = Matcher(0.7, 0.3, allow_low_quality_matches=low)(box_iou(objects, boxes))
        for pairs in (1, 2000, 2**22):
            monkeypatch.setattr(mask_rcnn, "PAIRS", pairs)
            ours = mask_rcnn.PairMatcher(0.7, 0.3, allow_low_quality_matches=low)((objects, boxes))
            assert torch.equal(ours, theirs)
