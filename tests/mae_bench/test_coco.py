"""COCO through the commands: both protocols, resume, several faults of data and user."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_runs import assert_same_bits, flags, steps_logged, wait_for

import mae_bench
from mae_bench.cli import call
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE
from mae_bench.transfer import MODEL_FILE

ALONE = Execution(workers=0)
SMALL: dict[str, Any] = {
    "epochs": 1,
    "warmup_epochs": 0.5,
    "batch_size": 8,
    "device_batch": 4,
    "image_size": 64,
    "pyramid_channels": 8,
    "box_head_dim": 16,
    "rpn_batch": 16,
    "roi_batch": 8,
    "rpn_candidates": (20, 20),
    "proposals": 10,
}
NUM_STEPS = 4


def arguments(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    common = {"task": "coco", "data": root, "out": out, "execution": ALONE, "init": "scratch"}
    return common | SMALL | changes


@pytest.fixture
def root(coco_world: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(coco_world / "coco", tmp_path / "coco"))


@pytest.mark.parametrize("protocol", ["mask_rcnn-vitdet", "mask_rcnn-fpn"])
def test_both_protocols_from_mae_weights_to_the_report(
    coco_world, pretrained, tmp_path, protocol, capsys
):
    options = arguments(coco_world / "coco", tmp_path, protocol=protocol, name="one")
    options |= {"checkpoint": pretrained / BACKBONE_FILE, "init": None}
    record = mae_bench.transfer(**options)
    assert record.protocol == f"coco/{protocol}@1"
    assert record.init == "mae"
    assert record.data.miniature
    assert record.data.classes == 10
    assert {"ap_box", "ap_box_50", "ap_box_75", "ap_mask", "ap_mask_50"} <= set(record.metrics)
    said = capsys.readouterr().out
    assert "skipped 1 on purpose: class token" in said
    assert "starts at zero" in said
    kept = {file.name for file in (tmp_path / "one").iterdir()}
    assert {"predictions.json", "per_class.csv", "predictions.png", MODEL_FILE} <= kept
    (table,) = mae_bench.report(tmp_path)
    assert [column.title for column in table.columns if column.kind == "measured"] == [
        f"{'Mask R-CNN (ViTDet)' if 'vitdet' in protocol else 'Mask R-CNN (four-stage FPN)'} {what}"
        for what in ("box AP", "mask AP")
    ]
    text = (tmp_path / "report.md").read_text()
    assert "![one: ground truth and predictions](one/predictions.png)" in text
    assert mae_bench.transfer(**options) == record
    assert "nothing to do" in capsys.readouterr().out


def test_stopped_and_continued_to_the_same_bits(coco_world, tmp_path, fork):
    """Proposals, samples and jitter are drawn again as they were."""
    undisturbed = tmp_path / "undisturbed"
    mae_bench.transfer(**arguments(coco_world / "coco", undisturbed, name="run"))
    options = {
        k: v for k, v in arguments(coco_world / "coco", tmp_path).items() if k != "execution"
    }
    words = [str(number) for number in options.pop("rpn_candidates")]
    command = ["transfer", *flags(**options, name="run", workers=0, save_minutes=0)]
    command += ["--rpn-candidates", *words]
    process = fork(command)
    wait_for(lambda: steps_logged(tmp_path / "run") >= 1, "a step")
    process.kill(signal.SIGTERM)
    assert process.exit_code() == 143
    assert steps_logged(tmp_path / "run") < NUM_STEPS
    assert call(command) == 0
    assert_same_bits(tmp_path / "run", undisturbed / "run", MODEL_FILE)
    predictions = [folder / "run/predictions.json" for folder in (tmp_path, undisturbed)]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()


def test_a_diverging_run_ends_in_one_line(coco_world, tmp_path, capsys):
    options = arguments(coco_world / "coco", tmp_path, name="run", base_lr=1e30, warmup_epochs=0.0)
    del options["execution"]
    words = [str(number) for number in options.pop("rpn_candidates")]
    assert call(["transfer", *flags(**options, workers=0), "--rpn-candidates", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite at step" in line
    assert (tmp_path / "run/not_finite.txt").read_text()


def test_a_detectron2_run_that_diverges_does_too(coco_world, tmp_path):
    pytest.importorskip("detectron2")
    options = arguments(coco_world / "coco", tmp_path, base_lr=1e30, warmup_epochs=0.0)
    with pytest.raises(mae_bench.errors.RunError, match="not finite at step"):
        mae_bench.transfer(**options, engine="detectron2")


def test_unreadable_images_of_both_splits_are_counted(root, tmp_path):
    for split in ("train2017", "val2017"):
        file = sorted((root / split).iterdir())[0]
        file.write_bytes(file.read_bytes()[:300])
    record = mae_bench.transfer(**arguments(root, tmp_path / "runs", epochs=2))
    assert 1 <= record.skipped_images <= 2
    assert any(line.startswith("test: 1 image") for line in record.unreadable)


def test_own_annotations_of_any_number_of_classes(root, tmp_path):
    """--data TRAIN.json,VAL.json"""
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        content["categories"] = [{"id": 7, "name": "thing"}]
        for each in content["annotations"]:
            each["category_id"] = 7
        (root / f"{split}2017" / "own.json").write_text(json.dumps(content))
    source = f"{root / 'train2017/own.json'},{root / 'val2017/own.json'}"
    record = mae_bench.transfer(**arguments(Path("unused"), tmp_path / "runs") | {"data": source})
    assert record.data.classes == 1
    assert not record.data.standard


def test_checkpointed_activations_change_nothing(coco_world, tmp_path):
    for name, checkpoint in (("plain", False), ("again", True)):
        how = Execution(workers=0, checkpoint_activations=checkpoint)
        options = arguments(coco_world / "coco", tmp_path, name=name, drop_path=0.3)
        mae_bench.transfer(**options | {"execution": how})
    assert_same_bits(tmp_path / "plain", tmp_path / "again", MODEL_FILE)


def test_what_is_left_out_is_said(root, tmp_path, capsys):
    file = root / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 5, 5]]
    file.write_text(json.dumps(content))
    record = mae_bench.transfer(**arguments(root, tmp_path / "runs"))
    said = capsys.readouterr().out
    line = "train annotations left out for no polygon of three points: 1"
    assert f"note: {line}" in said
    assert [each for each in record.data_notes if each.startswith(line)]


def no_objects(root: Path) -> None:
    file = root / "annotations/instances_val2017.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))


def broken_json(root: Path) -> None:
    file = root / "annotations/instances_train2017.json"
    file.write_text(file.read_text()[:1000])


def no_val(root: Path) -> None:
    (root / "annotations/instances_val2017.json").unlink()


def an_image_is_missing(root: Path) -> None:
    sorted((root / "val2017").iterdir())[0].unlink()


def an_image_of_another_size(root: Path) -> None:
    for file in (root / "train2017").iterdir():
        Image.new("RGB", (31, 17)).save(file)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (broken_json, "instances_train2017.json"),
        (no_val, "instances_val2017.json"),
        (no_objects, "instances_val2017.json annotates nothing in any image"),
        (an_image_is_missing, "val2017"),
        (an_image_of_another_size, "31 wide and 17 high, expected"),
        (lambda root: shutil.rmtree(root / "train2017"), "train2017"),
    ],
)
def test_broken_data_is_one_line_and_exit_code_2(root, spoil, said, tmp_path, capsys):
    spoil(root)
    options = flags(task="coco", init="scratch", data=root, out=tmp_path / "runs", workers=0)
    assert call(["transfer", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "to start from random weights: --init scratch"),
        (["--protocol", "finetune"], "unknown protocol 'finetune'"),
        (["--protocol", "mask_rcnn-fnp"], "did you mean mask_rcnn-fpn"),
        (["--init", "scratch", "--checkpoint", "x.pth"], "leave out --checkpoint"),
        (["--init", "scratch", "--engine", "torch"], "--engine"),
        (["--init", "scratch", "--image-size", "100"], "image_size is 100; expected a multiple"),
        (["--init", "scratch", "--data", "/nowhere"], "/nowhere: no such folder"),
        (["--init", "scratch", "--data", "/nowhere/a.json,/nowhere/b.json"], "/nowhere/a.json"),
    ],
)
def test_bad_flags(words, said, tmp_path, capsys):
    out = ["--out", str(tmp_path / "runs")]
    assert call(["transfer", "--task", "coco", *out, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "runs").exists()


def test_help_shows_the_recipe_of_the_protocol(capsys):
    words = ["--task", "coco", "--backbone", "vit_l", "--protocol", "mask_rcnn-fpn", "--help"]
    with pytest.raises(SystemExit):
        call(["transfer", *words])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--drop-path" in shown
    assert "Li21" in shown
    assert "--engine" in shown
