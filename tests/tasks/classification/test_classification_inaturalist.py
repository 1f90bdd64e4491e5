"""iNaturalist's JSON files: classes from category ids, and what is refused or noted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from classification_files import categories, inat, picture, small_inat, write
from small_worlds import draw

from tasks.classification.datasets import DATASETS
from tasks.classification.layout import read
from tasks.errors import TaskError
from tasks.images.fingerprint import DIGITS
from tasks.miniature import inaturalist


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return small_inat(tmp_path / "inat")


def refused(root: Path) -> str:
    """The one line that says why."""
    with pytest.raises(TaskError) as error:
        read("inat2018", root)
    message = str(error.value)
    assert "\n" not in message
    return message


def change(root: Path, split: str, edit: Callable[[Any], Any]) -> None:
    content = json.loads((root / f"{split}2018.json").read_text())
    write(root, split, edit(content) or content)


# Official sets and miniature ones


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("inat2017", (5_089, 579_184, 95_986)),
        ("inat2018", (8_142, 437_513, 24_426)),
        ("inat2019", (1_010, 265_213, 3_030)),
    ],
)
def test_official_counts(name: str, counts: tuple[int, int, int]) -> None:
    facts = DATASETS[name]
    assert (facts.num_classes, facts.num_train, facts.num_val) == counts


def test_the_division_of_2019_adds_up_to_the_official_total() -> None:
    facts = DATASETS["inat2019"]
    assert facts.num_train + facts.num_val == 268_243
    assert facts.num_val == 3 * facts.num_classes


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {f"inat{year}_{split}": 30 for year in (2017, 2018, 2019) for split in ("train", "val")}
    return draw(tmp_path_factory.mktemp("twins"), **sizes)


@pytest.mark.parametrize("year", [2017, 2018, 2019])
def test_reads_what_pandas_joins(twins: Path, year: int) -> None:
    root = twins / f"inat{year}"
    data = read(f"inat{year}", root)
    species = inaturalist.species(year)
    assert data.classes == tuple(inaturalist.species_name(*each) for each in species)
    for split, mine in (("train", data.train), ("val", data.val)):
        content = json.loads((root / f"{split}{year}.json").read_text())
        images, annotations = (pandas.DataFrame(content[k]) for k in ("images", "annotations"))
        joined = images.merge(annotations, left_on="id", right_on="image_id")
        joined = joined.sort_values(["category_id", "file_name"])
        assert list(mine.names) == joined["file_name"].tolist()
        assert mine.targets.tolist() == joined["category_id"].tolist()
        assert all(mine.path(row).is_file() for row in range(len(mine)))
    assert data.notes == ()
    assert not data.standard


# Classes


def test_classes_follow_category_ids_and_not_folders(tmp_path: Path) -> None:
    """As text, 10 sorts before 9."""
    write(tmp_path, "train", inat(tmp_path, "train", [10, 9, 7], ids=(10, 7, 9)))
    write(tmp_path, "val", inat(tmp_path, "val", [9, 10, 7], ids=(10, 7, 9)))
    data = read("inat2018", tmp_path)
    assert data.classes == ("Genus 7", "Genus 9", "Genus 10")
    assert list(data.train.names) == [
        f"train_val2018/Aves/{name}.jpg" for name in ("7/train2", "9/train1", "10/train0")
    ]
    assert data.train.targets.tolist() == data.val.targets.tolist() == [0, 1, 2]
    assert data.notes == (
        "category ids are not 0 to 2: class indices are their ranks, from 0 for 7 to 2 for 10",
    )


def test_a_category_file_has_the_names(root: Path) -> None:
    first = read("inat2018", root)
    assert first.classes == ("Genus 0", "Genus 1", "Genus 2")
    full = [{"id": n, "name": name} for n, name in ((2, "Corvus"), (0, "Apus"), (1, "Bubo"))]
    (root / "categories.json").write_text(json.dumps(full))
    data = read("inat2018", root)
    assert data.classes == ("Apus", "Bubo", "Corvus")
    assert data.fingerprint != first.fingerprint
    (root / "categories.json").write_text(json.dumps(full[1:]))
    assert "has 2 categories, others than the 3 of the annotations" in refused(root)
    (root / "categories.json").write_text("{}")
    assert "categories.json is no list of categories" in refused(root)


def test_names_that_are_no_text(root: Path) -> None:
    (root / "categories.json").write_text(
        '[{"id": 0, "name": "\\ud800"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c"}]'
    )
    assert read("inat2018", root).classes == ("?", "b", "c")


def test_annotations_where_the_archive_puts_them(root: Path) -> None:
    first = read("inat2018", root)
    for split in ("train", "val"):
        (root / f"{split}2018.json").rename(root / f"train_val2018/{split}2018.json")
    assert read("inat2018", root).fingerprint == first.fingerprint


def test_the_fingerprint_tells_labels_and_files_apart(root: Path) -> None:
    prints = [read("inat2018", root).fingerprint]

    def swap(content: Any) -> None:
        content["annotations"][0]["category_id"] = 0
        content["annotations"][1]["category_id"] = 2

    change(root, "val", lambda c: c["annotations"].reverse())
    assert read("inat2018", root).fingerprint == prints[0]
    change(root, "train", swap)
    prints.append(read("inat2018", root).fingerprint)
    (root / "train_val2018/Aves/0/val2.jpg").write_bytes(b"another size")
    prints.append(read("inat2018", root).fingerprint)
    assert len(set(prints)) == 3
    assert all(len(each) == DIGITS for each in prints)


# Noted


def test_what_is_kept_is_noted(root: Path) -> None:
    def edit(content: Any) -> None:
        content["annotations"].append({"id": 50, "image_id": 100, "category_id": 2})
        content["annotations"][1]["id"] = 0
        content["images"].append({"id": 150, "file_name": content["images"][0]["file_name"]})
        content["annotations"].append({"id": 51, "image_id": 150, "category_id": 2})

    change(root, "train", edit)
    write(root, "val", inat(root, "val", [1, 1]))
    change(
        root, "val", lambda c: c["images"][0].update(file_name="train_val2018/Aves/1/train2.jpg")
    )
    data = read("inat2018", root)
    assert len(data.train) == 6
    assert data.notes == (
        "train2018.json has 1 annotations that repeat others",
        "train2018.json has 1 ids of several annotations: 0",
        "train2018.json names 1 images more than once, and so they count: "
        "train_val2018/Aves/2/train0.jpg",
        "1 images are in both splits: train_val2018/Aves/1/train2.jpg",
        "2 classes without test images: Genus 0, Genus 2",
    )
    assert data.limited(2).notes == data.notes


# Refused


def test_nothing_there(tmp_path: Path) -> None:
    said = refused(tmp_path / "no")
    assert "no does not exist; expected {train,val}2018.json and train_val2018/<super" in said
    (tmp_path / "file").write_text("")
    assert "file is a file; expected" in refused(tmp_path / "file")


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_annotations(root: Path, split: str) -> None:
    (root / f"{split}2018.json").unlink()
    assert f"data folder {root} has no {split}2018.json; expected" in refused(root)


def test_truncated(root: Path) -> None:
    text = (root / "val2018.json").read_text()
    (root / "val2018.json").write_text(text[: len(text) // 2])
    assert "val2018.json is not valid JSON (" in refused(root)
    assert "line 1 column" in refused(root)


def test_missing_images_are_counted(root: Path) -> None:
    for name in ("2/train0", "0/train1", "0/train3", "2/train4"):
        (root / f"train_val2018/Aves/{name}.jpg").unlink()
    said = refused(root)
    assert f"4 of 5 images named in {root}/train2018.json are not in {root}: " in said
    assert "train_val2018/Aves/2/train0.jpg, " in said
    assert " and 1 more; a part of the images makes another score" in said
    shutil.rmtree(root / "train_val2018/Aves")
    assert "5 of 5 images named in" in refused(root)


def no_images(content: Any) -> None:
    content["images"] = []


def only_images(content: Any) -> Any:
    return {"info": {}, "images": content["images"]}


def add(table: str, **row: Any) -> Callable[[Any], None]:
    return lambda content: content[table].append(row)


def put(table: str, row: int, **values: Any) -> Callable[[Any], None]:
    return lambda content: content[table][row].update(values)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda content: [1], "train2018.json holds a list; expected iNaturalist's format"),
        (only_images, "has no annotations and no categories; expected iNaturalist's format"),
        (no_images, "has no images; expected iNaturalist's format"),
        (put("images", 1, id="7"), "images[1] has id '7'; expected a whole number"),
        (put("images", 1, file_name=7), "images[1] has file_name 7; expected a text"),
        (put("images", 1, id=100), "1 ids in images are there more than once (100)"),
        (put("categories", 1, id=0), "1 ids in categories are there more than once (0)"),
        (put("annotations", 0, category_id=9), "1 annotations have a category_id that is not in"),
        (put("annotations", 0, image_id=9), "1 annotations have a image_id that is not in images"),
        (put("annotations", 0, category_id=True), "annotations[0] has category_id True; expected"),
        (add("images", id=1, file_name="x.jpg"), "1 images have no annotation: x.jpg; expected"),
        (
            add("annotations", id=9, image_id=101, category_id=1),
            "images[1]: train_val2018/Aves/0/train1.jpg has annotations of the categories 0 and 1",
        ),
        (
            put("images", 1, file_name="train_val2018/Aves/2/train0.jpg"),
            "images[0] and a later one: train_val2018/Aves/2/train0.jpg has the labels 2 and 0",
        ),
        (put("images", 1, file_name="/etc/x.jpg"), "images[1]: '/etc/x.jpg' is no path below"),
        (put("images", 2, file_name="a/../../x"), "images[2]: 'a/../../x' is no path below"),
        (put("images", 2, file_name="a\ud800/x"), "images[2]: 'a\\ud800/x' is no path below"),
        (put("categories", 1, name="Corvus"), "differ in 1 categories: id 1 is 'Corvus' in the"),
        (
            lambda content: content.update(categories=categories(0, 1, 2, 3)),
            "differ in 1 categories: id 3 is 'Genus 3' in the first and None in the second",
        ),
    ],
)
def test_refused(root: Path, edit: Callable[[Any], Any], said: str) -> None:
    change(root, "train", edit)
    message = refused(root)
    assert said in message
    assert str(root) in message


def test_a_class_without_training_images(root: Path) -> None:
    for split in ("train", "val"):
        change(root, split, lambda c: c.update(categories=categories(0, 1, 2, 3, 4)))
    assert "2 of 5 classes have no training images: Genus 3, Genus 4" in refused(root)


def test_names_may_have_dots_and_blanks(root: Path) -> None:
    names = ["p/a b/x..y.jpg", "p/..z.jpg", "p/ä/é.jpg"]
    for row, name in enumerate(names):
        picture(root / name)
        change(root, "train", put("images", row, file_name=name))
    assert set(names) < set(read("inat2018", root).train.names)
