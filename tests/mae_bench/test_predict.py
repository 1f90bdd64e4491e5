"""`mae-bench predict`: the same as the run's own evaluation says of the same images."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_again_dense import ADE20K, ALONE, COCO

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.predict import whole


def test_classes_are_those_of_the_runs_predictions(classifier, world, tmp_path, capsys):
    val = world / "imagenet1k" / "val"
    argv = ["predict", str(classifier), str(val), "--out", str(tmp_path / "new"), "--device", "cpu"]
    assert call(argv) == 0
    assert "predictions.json" in capsys.readouterr().out
    rows = {
        each["file"]: each for each in json.loads((tmp_path / "new/predictions.json").read_text())
    }
    names = (classifier / "classes.txt").read_text().splitlines()
    with (classifier / "predictions.csv").open() as stream:
        kept = list(csv.DictReader(stream))
    assert len(kept) == len(rows) == 24
    for row in kept:
        found = rows[str((world / "imagenet1k" / row["file"]).resolve())]
        assert [each["class"] for each in found["classes"]] == [
            names[int(row[f"class_{rank}"])] for rank in range(1, 6)
        ]
        shares = [float(row[f"probability_{rank}"]) for rank in range(1, 6)]
        assert [each["probability"] for each in found["classes"]] == pytest.approx(shares, abs=1e-5)
        assert (tmp_path / "new" / found["picture"]).stat().st_size > 1000


def test_objects_are_those_of_the_runs_predictions(coco_world: Path, tmp_path: Path) -> None:
    mae_bench.transfer(data=coco_world / "coco", out=tmp_path, **COCO)
    images = coco_world / "coco" / "val2017"
    rows = mae_bench.predict(tmp_path / "run", images, tmp_path / "new", ALONE)
    kept = json.loads((tmp_path / "run" / "predictions.json").read_text())
    content = json.loads((coco_world / "coco/annotations/instances_val2017.json").read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    for image in content["images"]:
        own = [each for each in kept if each["image_id"] == image["id"]]
        (row,) = [each for each in rows if Path(each["file"]).name == image["file_name"]]
        assert len(own) == len(row["objects"])
        for one, other in zip(row["objects"], own, strict=True):
            assert one["class"] == names[other["category_id"]]
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
            assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
            assert one["segmentation"]["size"] == other["segmentation"]["size"]


def test_label_maps_are_the_runs_predictions(ade20k_world: Path, tmp_path: Path) -> None:
    mae_bench.transfer(data=ade20k_world / "ade20k", out=tmp_path, **ADE20K)
    images = ade20k_world / "ade20k/ADEChallengeData2016/images/validation"
    rows = mae_bench.predict(tmp_path / "run", images, tmp_path / "new", ALONE)
    names = (tmp_path / "run" / "classes.txt").read_text().splitlines()
    assert len(rows) == 6
    for row in rows:
        labels = np.asarray(Image.open(tmp_path / "new" / row["labels"]))
        own = tmp_path / "run" / "predictions" / f"{Path(row['file']).stem}.png"
        assert (labels + 1 == np.asarray(Image.open(own))).all()
        for each in row["classes"]:
            assert each["class"] == names[each["value"]]
            assert each["share"] == pytest.approx((labels == each["value"]).mean())
        assert sum(each["share"] for each in row["classes"]) == pytest.approx(1)


def test_unreadable_images_are_named_and_the_others_predicted(classifier, world, tmp_path, capsys):
    good = next((world / "imagenet1k" / "val").rglob("*.JPEG"))
    shutil.copy(good, tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("no image")
    rows = mae_bench.predict(classifier, tmp_path, tmp_path / "new", ALONE)
    assert "classes" in rows[0]
    assert "is not an image" in rows[1]["unreadable"]
    assert "1 image: is not an image" in capsys.readouterr().out
    with pytest.raises(RunError, match="none of the images can be read"):
        mae_bench.predict(classifier, tmp_path / "b.jpg", tmp_path / "other", ALONE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "nowhere.jpg"], "nowhere.jpg: no such file; expected an image or a folder"),
        (["nowhere", "IMAGE"], "run nowhere: no such folder"),
        (["RUN", "EMPTY"], "holds no image"),
        (["RUN", "IMAGE", "--out", "FULL"], "is there already and not empty"),
        (["RUN"], "predict needs images"),
    ],
)
def test_bad_input_is_one_line(words, said, classifier, world, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    image = next((world / "imagenet1k" / "val").rglob("*.JPEG"))
    places = {"RUN": classifier, "IMAGE": image, "EMPTY": "empty", "FULL": "full"}
    assert call(["predict", *(str(places.get(word, word)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ")
    assert "Traceback" not in error
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "predictions").exists()


def test_images_whose_names_would_fall_together_keep_their_pictures(classifier, world, tmp_path):
    images = tmp_path / "images"
    (images / "a").mkdir(parents=True)
    source = next((world / "imagenet1k" / "val").rglob("*.[jJ]*"))
    names = ["a/x.png", "a__x.png", f"{'l' * 250}.png", os.fsdecode(b"\xff\n[red].png")]
    for name in names:
        shutil.copy(source, images / name)
    rows = mae_bench.predict(classifier, images, tmp_path / "new", ALONE)
    pictures = {each["picture"] for each in rows}
    assert len(pictures) == len(names)
    assert all((tmp_path / "new" / each).is_file() for each in pictures)


def test_what_stops_a_prediction_leaves_nothing_in_its_way(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "new") as place:
        (place / "x.predicted.png").write_text("")
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()
    new = tmp_path / "new"
    killed = new / ".killed.partial"
    killed.mkdir(parents=True)
    (killed / "x.predicted.png").write_text("")
    with whole(new) as place:
        assert not killed.exists()
        with whole(new) as other:  # leaves alone what is under way
            assert place.exists()
            (other / "predictions.json").write_text("")
        assert place.exists()
        (new / "predictions.json").unlink()
        (place / "predictions.json").write_text("")
    assert [file.name for file in new.iterdir()] == ["predictions.json"]
    (new / "predictions.json").unlink()
    with pytest.raises(RunError, match="new: is there already"), whole(new) as place:
        (place / "predictions.json").write_text("ours")
        (new / "predictions.json").write_text("of another process, which was faster")
    assert [file.name for file in new.iterdir()] == ["predictions.json"]
    assert "another" in (new / "predictions.json").read_text()
