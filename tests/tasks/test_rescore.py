"""Saved predictions of COCO and ADE20K scored again, and predictions of strangers refused."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ade20k_files import OWN, own
from coco_world import few_images
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tasks.ade20k import evaluation as ade20k
from tasks.ade20k import layout as ade20k_layout
from tasks.coco import evaluation as coco
from tasks.coco import layout as coco_layout
from tasks.errors import TaskError

# COCO


@pytest.fixture(scope="module")
def detected(coco_world: Path, tmp_path_factory: pytest.TempPathFactory) -> coco_layout.CocoData:
    return coco_layout.read(few_images(coco_world, tmp_path_factory.mktemp("four") / "coco", 4))


def detections(data: coco_layout.CocoData) -> list[dict[str, Any]]:
    """The truth with boxes a little off, some masks without their upper half, one class wrong."""
    rng, results = np.random.default_rng(0), []
    for index, image_id in enumerate(data.val.image_ids.tolist()):
        height, width = data.val.sizes[index].tolist()
        for number, each in enumerate(data.val.annotations(index)):
            rings = [ring.ravel().tolist() for ring in each["segmentation"]]
            mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width)))
            if number % 2:
                mask[: height // 2] = 0
            packed = coco_mask.encode(np.asfortranarray(mask))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": data.category_ids[0 if number == 3 else each["label"]],
                    "bbox": (each["bbox"] + rng.normal(0, 2, 4)).tolist(),
                    "score": float(rng.uniform(0.1, 1)),
                    "segmentation": {
                        "size": packed["size"],
                        "counts": packed["counts"].decode(),
                    },
                }
            )
    return results


def by_pycocotools(truth: Path, results: list[dict[str, Any]], kind: str) -> list[float]:
    """Its six first figures in percent; the area of a result is its mask's where masks count."""
    if kind == "segm":
        results = [{k: v for k, v in each.items() if k != "bbox"} for each in results]
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(truth))
        evaluation = COCOeval(index, index.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [100 * figure for figure in evaluation.stats[:6] if figure > -1]


def test_detections_score_as_by_pycocotools(detected, tmp_path):
    results = detections(detected)
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(results))
    found = coco.rescore(file, detected).metrics
    truth = detected.val.json_file
    for name, kind in (("ap_box", "bbox"), ("ap_mask", "segm")):
        ours = [value for metric, value in found.items() if metric.startswith(name)]
        assert ours == pytest.approx(by_pycocotools(truth, results, kind), abs=1e-9)
        assert 5 < ours[0] < 99


def test_no_detections_score_zero(detected, tmp_path):
    (tmp_path / "predictions.json").write_text("[]")
    assert coco.rescore(tmp_path / "predictions.json", detected).metrics["ap_box"] == 0


def test_a_mask_may_be_empty(detected, tmp_path):
    """As one is whose pixels are all below a half."""
    height, width = detected.val.sizes[0].tolist()
    empty = coco_mask.encode(np.zeros((height, width), np.uint8, order="F"))
    mask = {"size": [height, width], "counts": empty["counts"].decode()}
    first = detections(detected)[0] | {"segmentation": mask}
    (tmp_path / "predictions.json").write_text(json.dumps([first]))
    found = coco.rescore(tmp_path / "predictions.json", detected).metrics
    assert found["ap_mask"] == 0
    assert found["ap_box"] > 0


SPOILT: list[tuple[Any, str]] = [
    ({"more": 1}, "not the keys image_id, category_id"),
    ({"image_id": 10**9}, "image_id is that of no test image"),
    ({"image_id": True}, "image_id is that of no test image"),
    ({"image_id": [1]}, "image_id is that of no test image"),
    ({"category_id": 10**9}, "category_id is that of no class"),
    ({"category_id": {}}, "category_id is that of no class"),
    ({"bbox": [1, 2, 3]}, "bbox is not four numbers"),
    ({"bbox": [1, 2, 3, float("nan")]}, "bbox is not four numbers"),
    ({"bbox": [1, 2, 3, 1e308]}, "bbox is not four numbers"),
    ({"bbox": [1, 2, 3, 10**400]}, "bbox is not four numbers"),
    ({"score": "1"}, "score is no number"),
    ({"score": float("inf")}, "score is no number"),
    ({"segmentation": [[1, 1, 5, 5, 1, 5]]}, "segmentation is not run lengths"),
    ({"segmentation": {"size": [1, 1], "counts": "1"}}, "segmentation does not fill the image"),
]
COUNTS = ["0" * 9, "o" * 10**4, "\u00e9", "", "PPPP1"]


def refusal(results: Any, data: coco_layout.CocoData, file: Path) -> str:
    file.write_text(results if isinstance(results, str) else json.dumps(results))
    with pytest.raises(TaskError) as caught:
        coco.rescore(file, data)
    return str(caught.value)


@pytest.mark.parametrize(("change", "said"), SPOILT)
def test_results_that_pycocotools_would_choke_on(detected, tmp_path, change, said):
    one, other, third = detections(detected)[:3]
    file = tmp_path / "predictions.json"
    line = refusal([one, other | change, third], detected, file)
    assert line.startswith(f"{file}, result 2: ")
    assert said in line


@pytest.mark.parametrize("counts", COUNTS)
def test_run_lengths_that_pycocotools_would_follow_out_of_bounds(detected, tmp_path, counts):
    first = detections(detected)[0]
    first["segmentation"]["counts"] = counts
    line = refusal([first], detected, tmp_path / "predictions.json")
    assert "result 1: its segmentation does not fill the image" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no JSON"),
        ("{}", "no list"),
        ("[7]", "result 1: not the keys"),
        ("[{}]", "result 1: not the keys"),
        ("[" * 10**5, "no JSON"),
        ("[" + "9" * 5000 + "]", "no JSON"),
        ('[{"image_id": 1}', "no JSON"),
    ],
)
def test_what_is_no_list_of_results(detected, tmp_path, content, said):
    line = refusal(content, detected, tmp_path / "predictions.json")
    assert said in line
    assert line.endswith("expected a list of results as COCO defines it")


def test_no_file_of_results(detected, tmp_path):
    with pytest.raises(TaskError, match=r"nothing.json: No such file .*; expected a run's"):
        coco.rescore(tmp_path / "nothing.json", detected)


# ADE20K

LABELS = {"a": [[0, 0, 1], [2, 9, 1]], "b": [[1, 1], [2, 2]], "c": [[0, 9]]}
PREDICTED = {"a": [[0, 1, 1], [2, 0, 1]], "b": [[1, 1], [0, 2]], "c": [[2, 0]]}


@pytest.fixture(params=[False, True], ids=["from_0", "from_1"])
def segmented(request, tmp_path) -> tuple[ade20k_layout.SegmentationData, Path]:
    """Three small test images whose classes begin at 0 or at 1, and predictions of them."""
    first = int(request.param)
    root = own(tmp_path / "data", OWN | {"zero_is_unlabelled": request.param})
    for file in [*(root / "images/val").iterdir(), *(root / "annotations/val").iterdir()]:
        file.unlink()
    folder = tmp_path / "predictions"
    folder.mkdir()
    for stem, labels in LABELS.items():
        values = np.array(labels, dtype=np.uint8)
        values[values != 9] += first
        Image.fromarray(values).save(root / f"annotations/val/{stem}.png")
        Image.new("RGB", values.shape[::-1]).save(root / f"images/val/{stem}.png")
        save(folder / f"{stem}.png", np.array(PREDICTED[stem]) + first)
    return ade20k_layout.read(root), folder


def save(file: Path, values: Any) -> None:
    Image.fromarray(np.array(values, dtype=np.uint8)).save(file)


def test_predictions_score_as_counted_by_hand(segmented):
    """Class by class over the ten labelled pixels: intersections 1, 4, 2; unions 4, 5, 4."""
    data, folder = segmented
    found = ade20k.rescore(folder, data)
    assert found.unreadable == []
    assert found.metrics == pytest.approx(
        {
            "miou": 100 * (1 / 4 + 4 / 5 + 2 / 4) / 3,
            "macc": 100 * (1 / 3 + 4 / 4 + 2 / 3) / 3,
            "aacc": 100 * 7 / 10,
        }
    )


def test_images_without_prediction_are_left_out_and_named(segmented):
    data, folder = segmented
    (folder / "a.png").unlink()
    found = ade20k.rescore(folder, data)
    assert [each.name for each in found.unreadable] == ["images/val/a.png"]
    assert found.metrics["aacc"] == pytest.approx(100 * 3 / 5)


def test_what_a_run_keeps_scores_the_same(segmented, tmp_path):
    """Through the files of `finish`."""
    data, folder = segmented
    rows = [(i, ade20k.png(np.array(PREDICTED[stem], np.uint8))) for i, stem in enumerate("abc")]
    areas = torch.zeros(4, 3, dtype=torch.float64)
    for stem in "abc":
        label = torch.tensor(LABELS[stem], dtype=torch.uint8)
        label[label == 9] = 255
        areas += ade20k.areas(torch.tensor(PREDICTED[stem], dtype=torch.uint8), label, 3)
    (tmp_path / "run").mkdir()
    scored = ade20k.finish([ade20k.ImageResult(areas, dict(rows))], data, tmp_path / "run")
    kept = tmp_path / "run/predictions"
    assert ade20k.rescore(kept, data).metrics == scored.metrics
    assert ade20k.rescore(folder, data).metrics == scored.metrics


def spoil_size(folder: Path) -> None:
    save(folder / "b.png", [[1, 1, 1]])


def spoil_values(folder: Path) -> None:
    save(folder / "b.png", [[1, 1], [7, 2]])


def spoil_png(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:45])


def spoil_format(folder: Path) -> None:
    Image.new("L", (2, 2)).save(folder / "b.png", "GIF")


def spoil_mode(folder: Path) -> None:
    Image.new("RGB", (2, 2)).save(folder / "b.png")


def bomb(folder: Path) -> None:
    """A small file of a fifth of a gigapixel."""
    Image.new("1", (20_000, 20_000)).save(folder / "b.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_size, "b.png is 3 wide and 1 high; expected 2 and 2, as its label image is"),
        (spoil_values, "to 7; expected classes, "),
        (spoil_png, "b.png cannot be decoded"),
        (spoil_format, "b.png is a GIF file"),
        (spoil_mode, "b.png is an image of mode RGB"),
        (bomb, "b.png cannot be decoded"),
        (lambda folder: save(folder / "d.png", [[1]]), "d.png is of no test image"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "holds no .png"),
        (lambda folder: folder.rename(folder.parent / "away"), "no such folder; expected a run's"),
    ],
)
def test_predictions_of_strangers(segmented, spoil, said):
    data, folder = segmented
    spoil(folder)
    with pytest.raises(TaskError) as caught:
        ade20k.rescore(folder, data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
