"""ADE20K through the commands: from MAE weights to the report, resume, faults of data and user."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
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
    "image_size": 32,
    "stride": 21,
    "head_channels": 8,
    "aux_channels": 8,
}
NUM_STEPS = 3


@pytest.fixture
def segmentation(ade20k_world: Path) -> Path:
    """The root of a few images in ADE20K's layout; for reading only."""
    return ade20k_world / "ade20k"


def arguments(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    common = {"task": "ade20k", "data": root, "out": out, "execution": ALONE, "init": "scratch"}
    return common | SMALL | changes


@pytest.fixture
def root(segmentation: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(segmentation, tmp_path / "ade20k")) / "ADEChallengeData2016"


def test_from_mae_weights_to_the_report(segmentation, pretrained, tmp_path, capsys, recwarn):
    options = arguments(segmentation, tmp_path, name="one")
    options |= {"checkpoint": pretrained / BACKBONE_FILE, "init": None}
    record = mae_bench.transfer(**options)
    assert record.protocol == "ade20k/upernet-512-160k@1"
    assert record.init == "mae"
    assert record.data.miniature
    assert {"miou", "macc", "aacc"} <= set(record.metrics)
    assert "starts at zero" in capsys.readouterr().out
    kept = {file.name for file in (tmp_path / "one").iterdir()}
    assert {"per_class.csv", "predictions.png", MODEL_FILE} <= kept
    (table,) = mae_bench.report(tmp_path)
    assert [c.title for c in table.columns if c.kind == "measured"] == ["UperNet mIoU"]
    assert "](one/predictions.png)" in (tmp_path / "report.md").read_text()
    assert mae_bench.transfer(**options) == record
    assert "nothing to do" in capsys.readouterr().out
    assert not [w for w in recwarn if "mm" in str(w.filename)]


def test_stopped_and_continued_to_the_same_bits(segmentation, tmp_path, fork):
    undisturbed = tmp_path / "undisturbed"
    mae_bench.transfer(**arguments(segmentation, undisturbed, name="run"))
    options = arguments(segmentation, tmp_path)
    del options["execution"]
    command = ["transfer", *flags(**options, name="run", workers=0, save_minutes=0)]
    process = fork(command)
    wait_for(lambda: steps_logged(tmp_path / "run") >= 1, "a step")
    process.kill(signal.SIGTERM)
    assert process.exit_code() == 143
    assert steps_logged(tmp_path / "run") < NUM_STEPS
    assert call(command) == 0
    assert_same_bits(tmp_path / "run", undisturbed / "run", MODEL_FILE)


def test_a_diverging_run_ends_in_one_line(segmentation, tmp_path, capsys):
    options = arguments(segmentation, tmp_path, name="run", base_lr=1e30, warmup_epochs=0.0)
    del options["execution"]
    assert call(["transfer", *flags(**options, workers=0)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite at step" in line


def truncated_image(root: Path) -> None:
    file = sorted((root / "images/training").iterdir())[0]
    file.write_bytes(file.read_bytes()[:300])


def label_of_another_size(root: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.uint8)).save(
        sorted((root / "annotations/training").iterdir())[0]
    )


def colour_label(root: Path) -> None:
    file = sorted((root / "annotations/training").iterdir())[0]
    with Image.open(file) as image:
        image.convert("RGB").save(file)


def test_an_unreadable_image_is_counted_and_named(root, tmp_path, capsys):
    truncated_image(root)
    record = mae_bench.transfer(**arguments(root, tmp_path / "runs", epochs=2))
    assert record.skipped_images == 1
    said = capsys.readouterr().out
    assert "left out an unreadable image, 1 of at most 50" in said


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (label_of_another_size, "9 wide and 9 high"),
        (colour_label, "1 of 24 train label images cannot be used"),
    ],
)
def test_a_label_that_does_not_count_is_refused_before_training(
    root, spoil, said, tmp_path, capsys
):
    spoil(root)
    options = flags(task="ade20k", init="scratch", data=root, out=tmp_path / "runs", workers=0)
    assert call(["transfer", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "ADE_train_00000001" in line
    assert not (tmp_path / "runs").exists()


def a_missing_label(root: Path) -> None:
    sorted((root / "annotations/training").iterdir())[0].unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (a_missing_label, "ADE_train_00000001.jpg"),
        (lambda root: shutil.rmtree(root / "images/validation"), "images/"),
        (lambda root: (root / "classes.json").write_text("{"), "classes.json"),
    ],
)
def test_broken_data_is_one_line_and_exit_code_2(root, spoil, said, tmp_path, capsys):
    spoil(root)
    options = flags(task="ade20k", init="scratch", data=root, out=tmp_path / "runs", workers=0)
    assert call(["transfer", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "to start from random weights: --init scratch"),
        (["--protocol", "upernet"], "did you mean upernet-512"),
        (["--init", "scratch", "--image-size", "100"], "image_size is 100"),
        (["--init", "scratch", "--device-batch", "1"], "device_batch is 1; batch norm needs 2"),
        (["--init", "scratch", "--taps", "0", "1", "1", "2"], "expected the last block, 3, among"),
        (["--init", "scratch", "--data", "/nowhere"], "/nowhere: no such folder"),
    ],
)
def test_bad_flags(words, said, tmp_path, capsys):
    out = ["--out", str(tmp_path / "runs")]
    assert call(["transfer", "--task", "ade20k", *out, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "runs").exists()


def test_batch_norm_over_fewer_images_is_a_deviation(segmentation, tmp_path):
    """Two micro-batches of four are not a batch of eight to a batch norm."""
    record = mae_bench.transfer(**arguments(segmentation, tmp_path))
    assert "batch norm over 4 images instead of 8" in record.deviations
    whole = mae_bench.transfer(**arguments(segmentation, tmp_path, device_batch=8, name="whole"))
    assert not [each for each in whole.deviations if "batch norm" in each]


def test_thin_images_and_foreign_names_reach_the_record(root, tmp_path):
    """A picture is drawn of a 1 x 700 image, and a table written of names beyond ASCII."""
    names = [f"r\u00f3ad {i}" for i in range(150)]
    rule = {"classes": names, "ignore_index": 255, "zero_is_unlabelled": True}
    (root / "classes.json").write_text(json.dumps(rule))
    image = sorted((root / "images/validation").iterdir())[0]
    Image.new("RGB", (700, 1)).save(image)
    label = root / "annotations/validation" / f"{image.stem}.png"
    Image.fromarray(np.ones((1, 700), np.uint8)).save(label)
    record = mae_bench.transfer(**arguments(root, tmp_path / "runs", name="run"))
    assert record.data.classes == 150
    table = (tmp_path / "runs/run/per_class.csv").read_text(encoding="utf-8")
    assert "r\u00f3ad 149" in table
