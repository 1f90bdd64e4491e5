"""The official layouts, read with the libraries and rules that read the originals."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from tasks import miniature
from tasks.miniature import WorldSizes, ade20k, coco, inaturalist
from tasks.miniature.outlines import area, polygons, run_lengths, simplify
from tasks.miniature.places import category_folder
from tasks.miniature.scene import draw_landscape, object_coordinates
from tasks.miniature.shapes import OUTLINES, SHAPES
from tasks.miniature.stuff import PLACES, STUFF, pixel_grid

COUNTS = {"coco": (60, 20), "ade20k": (12, 6), "places205": (24, 8), "places365": (24, 8)} | {
    f"inat{year}": (40, 30) for year in (2017, 2018, 2019)
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {}
    for name, counts in COUNTS.items():
        sizes[f"{name}_train"], sizes[f"{name}_val"] = counts
    path = tmp_path_factory.mktemp("worlds") / "w"
    return miniature.make(path, sizes=WorldSizes.only(**sizes), workers=1)


def scenes(count: int) -> list:
    return [
        draw_landscape(np.random.default_rng([7, k]), 112, 144, max_things=7, crowd=k % 4 == 0)
        for k in range(count)
    ]


# COCO


@pytest.fixture(scope="module", params=["train", "val"])
def coco_split(root: Path, request: pytest.FixtureRequest):
    from pycocotools.coco import COCO

    return request.param, COCO(root / f"coco/annotations/instances_{request.param}2017.json")


def test_coco_files_are_those_in_the_json(root: Path, coco_split) -> None:
    split, truth = coco_split
    images = truth.loadImgs(truth.getImgIds())
    files = {path.name for path in (root / f"coco/{split}2017").iterdir()}
    assert {image["file_name"] for image in images} == files
    assert len(images) == COUNTS["coco"][split == "val"]
    for image in images:
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        with Image.open(root / f"coco/{split}2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
    assert len({(image["width"], image["height"]) for image in images}) > 3


def test_coco_categories_have_gaps(coco_split) -> None:
    _, truth = coco_split
    ids = truth.getCatIds()
    assert len(ids) == 10
    assert ids != list(range(1, 11))
    assert max(ids) <= 90
    assert [each["name"] for each in truth.loadCats(ids)] == list(SHAPES)


def test_coco_ids_are_unique_across_splits(root: Path) -> None:
    ids: dict[str, list[int]] = {"images": [], "annotations": []}
    for split in ("train", "val"):
        content = json.loads((root / f"coco/annotations/instances_{split}2017.json").read_text())
        for kind, known in ids.items():
            known += [each["id"] for each in content[kind]]
    for known in ids.values():
        assert len(known) == len(set(known))


def test_coco_areas_and_boxes_agree_with_the_decoded_masks(coco_split) -> None:
    from pycocotools import mask as coco_mask

    _, truth = coco_split
    annotations = truth.loadAnns(truth.getAnnIds())
    assert len(annotations) > 30
    for annotation in annotations:
        rle = truth.annToRLE(annotation)
        # Polygons are cut at pixels by pycocotools, with an error along the outline.
        is_crowd = annotation["iscrowd"]
        assert float(coco_mask.area(rle)) == pytest.approx(
            annotation["area"], rel=0 if is_crowd else 0.12, abs=0 if is_crowd else 3
        )
        np.testing.assert_allclose(
            coco_mask.toBbox(rle), annotation["bbox"], atol=0 if is_crowd else 2
        )


def test_coco_has_crowds_and_images_without_annotations(root: Path) -> None:
    content = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    crowds = [each for each in content["annotations"] if each["iscrowd"]]
    assert crowds
    assert all(isinstance(each["segmentation"]["counts"], list) for each in crowds)
    annotated = {each["image_id"] for each in content["annotations"]}
    empty = [image for image in content["images"] if image["id"] not in annotated]
    assert 0 < len(empty) < 15


def test_coco_polygons_match_the_drawn_masks() -> None:
    from pycocotools import mask as coco_mask

    whole, hidden, holes = [], [], 0
    for scene in scenes(60):
        height, width = scene.stuff.shape
        annotations = [each for each in coco.annotate(scene) if not each["iscrowd"]]
        drawn = [
            (thing, visible)
            for thing, visible in zip(scene.things, scene.visible, strict=True)
            if thing.shape in SHAPES
            and not thing.in_crowd
            and visible.sum() >= coco.MIN_VISIBLE * np.pi * thing.radius**2
        ]
        assert len(annotations) == len(drawn)
        for annotation, (thing, visible) in zip(annotations, drawn, strict=True):
            assert annotation["category_id"] == coco.CATEGORY_IDS[thing.shape]
            rles = coco_mask.frPyObjects(annotation["segmentation"], height, width)
            mask = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
            seen = visible > 0.5
            overlap = (mask & seen).sum() / (mask | seen).sum()
            y, x = pixel_grid(height, width)
            full = OUTLINES[thing.shape](*object_coordinates(thing, y, x)) < 0
            (whole if seen.sum() > 0.98 * full.sum() else hidden).append(overlap)
            if thing.shape == "ring" and overlap > 0.9:
                holes += not mask[int(thing.centre[0]), int(thing.centre[1])]
    assert len(whole) > 80
    assert min(whole) > 0.9
    assert np.mean(whole) > 0.97
    assert len(hidden) > 20
    assert min(hidden) > 0.75
    assert holes > 5


def test_coco_crowd_covers_the_crowd() -> None:
    from pycocotools import mask as coco_mask

    found = 0
    for scene in scenes(20):
        for annotation in coco.annotate(scene):
            if annotation["iscrowd"]:
                height, width = scene.stuff.shape
                rle = coco_mask.frPyObjects(annotation["segmentation"], height, width)
                members = [
                    visible > 0.5
                    for thing, visible in zip(scene.things, scene.visible, strict=True)
                    if thing.in_crowd
                ]
                assert len(members) >= 9
                assert np.array_equal(coco_mask.decode(rle), np.any(members, axis=0))
                found += 1
    assert found == 5


@pytest.mark.parametrize("corner", [0, 1])
def test_run_lengths_agree_with_pycocotools(corner: int) -> None:
    from pycocotools import mask as coco_mask

    mask = np.random.default_rng(0).random((7, 5)) < 0.5
    mask[0, 0] = mask[-1, -1] = corner
    rle = coco_mask.frPyObjects(run_lengths(mask), 7, 5)
    assert np.array_equal(coco_mask.decode(rle).astype(bool), mask)


def test_polygon_of_a_square_with_a_square_hole() -> None:
    mask = np.zeros((12, 12))
    mask[2:10, 3:11] = 1
    mask[5:7, 5:8] = 0
    (ring,) = polygons(mask)
    # Corners are cut by half a pixel each way: 8 x 8 - 4/8, and the hole 2 x 3 - 4/8.
    assert area(ring) == pytest.approx(63.5 - 5.5, abs=0.05)
    assert ring.min(axis=0).tolist() == [3, 2]
    assert ring.max(axis=0).tolist() == [11, 10]


def test_simplify_keeps_within_its_tolerance() -> None:
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = 20 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    kept = simplify(circle, tolerance=0.2)
    assert 12 < len(kept) < 40
    # A chord that is at most 0.2 off leaves at least this radius everywhere.
    middles = (kept + np.roll(kept, -1, axis=0)) / 2
    assert np.linalg.norm(middles, axis=1).min() >= 19.79


# ADE20K


def test_ade20k_files(root: Path) -> None:
    base = root / "ade20k/ADEChallengeData2016"
    for folder, split, count in (("training", "train", 12), ("validation", "val", 6)):
        names = [f"ADE_{split}_{k:08d}" for k in range(1, count + 1)]
        assert sorted(path.name for path in (base / "images" / folder).iterdir()) == [
            f"{name}.jpg" for name in names
        ]
        assert sorted(path.name for path in (base / "annotations" / folder).iterdir()) == [
            f"{name}.png" for name in names
        ]
        for name in names:
            with (
                Image.open(base / "images" / folder / f"{name}.jpg") as image,
                Image.open(base / "annotations" / folder / f"{name}.png") as labels,
            ):
                assert image.size == labels.size
                assert labels.mode == "L"
                assert np.asarray(labels).max() <= 16


def test_ade20k_labels_agree_with_what_was_drawn() -> None:
    unlabelled = 0
    for scene in scenes(30):
        labels = ade20k.label_map(scene)
        assert labels.dtype == np.uint8
        bare = np.ones(labels.shape, bool)
        for thing, visible in zip(scene.things, scene.visible, strict=True):
            expected = 7 + list(SHAPES).index(thing.shape) if thing.shape in SHAPES else 0
            assert (labels[visible > 0.5] == expected).all()
            unlabelled += (labels == 0).any()
            bare &= visible == 0
        assert np.array_equal(labels[bare], scene.stuff[bare] + 1)
    assert unlabelled > 5


def test_ade20k_class_list(root: Path) -> None:
    base = root / "ade20k/ADEChallengeData2016"
    table = pandas.read_csv(base / "objectInfo150.txt", sep="\t")
    assert list(table) == ["Idx", "Ratio", "Train", "Val", "Stuff", "Name"]
    assert table["Idx"].tolist() == list(range(1, 17))
    assert table["Name"].tolist() == [*STUFF, *SHAPES]
    assert table["Stuff"].tolist() == [1] * 6 + [0] * 10
    counts = {}
    pixels = np.zeros(17)
    for folder, column in (("training", "Train"), ("validation", "Val")):
        maps = [np.asarray(Image.open(p)) for p in (base / "annotations" / folder).iterdir()]
        counts[column] = [sum((each == k).any() for each in maps) for k in range(1, 17)]
        pixels += sum(np.bincount(each.ravel(), minlength=17) for each in maps)
    assert table["Train"].tolist() == counts["Train"]
    assert table["Val"].tolist() == counts["Val"]
    np.testing.assert_allclose(table["Ratio"], (pixels / pixels.sum())[1:], atol=6e-5)
    lines = (base / "sceneCategories.txt").read_text().splitlines()
    assert len(lines) == 18
    assert all(line.split()[1] in PLACES for line in lines)


# iNaturalist


@pytest.mark.parametrize(("year", "num_classes"), [(2017, 20), (2018, 30), (2019, 10)])
def test_inaturalist(root: Path, year: int, num_classes: int) -> None:
    base = root / f"inat{year}"
    ids, files = [], []
    for split, count in (("train", 40), ("val", 30)):
        content = json.loads((base / f"{split}{year}.json").read_text())
        categories = {each["id"]: each for each in content["categories"]}
        assert list(categories) == list(range(num_classes))
        images = {each["id"]: each for each in content["images"]}
        labels = [each["category_id"] for each in content["annotations"]]
        assert len(labels) == len(images) == count
        shares = Counter(labels)
        assert max(shares.values()) - min(shares.values()) <= 1
        for annotation in content["annotations"]:
            category = categories[annotation["category_id"]]
            path = Path(images[annotation["image_id"]]["file_name"])
            assert path.parts[0] == ("train_val_images" if year == 2017 else f"train_val{year}")
            assert path.parts[1:3] == (category["supercategory"], category["name"])
            assert (base / path).is_file()
        ids += list(images)
        files += [each["file_name"] for each in content["images"]]
    assert len(set(ids)) == len(ids)
    on_disk = {str(path.relative_to(base)) for path in base.rglob("*.jpg")}
    assert on_disk == set(files)
    assert len(files) == 70
    if year == 2017:
        assert not (base / "categories.json").exists()
        assert categories[0]["name"] == "Discus simplex"
    else:
        assert categories[3]["name"] == "3"
        full = json.loads((base / "categories.json").read_text())
        assert [each["id"] for each in full] == list(range(num_classes))
        expected = [inaturalist.species_name(*each) for each in inaturalist.species(year)]
        assert [each["name"] for each in full] == expected


# Places


def test_places205(root: Path) -> None:
    base = root / "places205"
    images = base / "data/vision/torralba/deeplearning/images256"
    listed = []
    for split, each in (("train", 3), ("val", 1)):
        text = (base / "trainvalsplit_places205" / f"{split}_places205.csv").read_text()
        rows = [line.split(" ") for line in text.splitlines()]
        assert Counter(int(label) for _, label in rows) == dict.fromkeys(range(8), each)
        for name, label in rows:
            assert (images / name).is_file()
            assert name.startswith(f"{category_folder(int(label))}/")
        listed += [name for name, _ in rows]
    assert {str(path.relative_to(images)) for path in images.rglob("*.jpg")} == set(listed)


def test_places365_is_read_by_torchvision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader knows the names of the official files; only their checksums are waived."""
    from torchvision.datasets import Places365, places365

    monkeypatch.setattr(places365, "check_integrity", lambda file, md5=None: Path(file).is_file())
    for split, count in (("train-standard", 24), ("val", 8)):
        data = Places365(root / "places365", split=split, small=True, download=False)
        assert len(data) == count
        assert len(data.classes) == 8
        assert data.classes[:2] == ["/b/barn", "/b/beach"]
        assert "/d/desert/sand" in data.classes
        for path, label in data.imgs:
            assert Path(path).is_file()
            if split != "val":
                assert f"{data.classes[label]}/" in path
        image, _ = data[0]
        assert image.size == (64, 64)
