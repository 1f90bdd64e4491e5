"""Two processes under torchrun compute what one does, and only the first of them speaks."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from small_runs import SMALL, SMALL_MAE, assert_same_run, flags, log_of

import mae_bench
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.transfer import MODEL_FILE

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ALONE = Execution(workers=0)
PRETRAIN = {**SMALL_MAE, "device_batch": 2}
MOCO = {**SMALL, "feature_dim": 16, "mlp_dim": 32}
COCO = {
    **SMALL,
    "epochs": 1,
    "image_size": 64,
    "device_batch": 2,
    "pyramid_channels": 8,
    "box_head_dim": 16,
    "rpn_batch": 16,
    "roi_batch": 8,
    "proposals": 10,
}
ADE20K = {
    "epochs": 2,
    "warmup_epochs": 1.0,
    "batch_size": 4,
    "image_size": 32,
    "stride": 21,
    "head_channels": 8,
    "aux_channels": 8,
    "dropout": 0.0,
}
TRANSFER = {**SMALL, "device_batch": 2, "mixup": 0.8, "ema_decay": 0.5}


@dataclass
class Together:
    """What the two processes left."""

    out: Path
    codes: list[list[int]]
    """per process"""
    said: list[list[str]]
    """lines on standard output, per process"""
    complained: list[list[str]]
    """lines on standard error, per process"""


@pytest.fixture(scope="module")
def together(world, coco_world, ade20k_world, pretrained, tmp_path_factory) -> Together:
    out = tmp_path_factory.mktemp("together")
    spoilt = out / "spoilt"
    spoilt.mkdir()
    for index in range(8):
        Image.new("RGB", (40, 40), (30 * index, 0, 0)).save(spoilt / f"{index}.png")
    (spoilt / "0.png").write_bytes(b"no image")
    folder = {"out": out, "workers": 0}
    images = {**folder, "data": world / "unlabelled"}
    labelled = {**folder, "data": world / "imagenet1k", "checkpoint": pretrained / BACKBONE_FILE}
    detection = {**folder, "data": coco_world / "coco", "init": "scratch"}
    pixels = {**folder, "data": ade20k_world / "ade20k", "init": "scratch"}
    linear = {**TRANSFER, "mixup": 0.0}
    diverging = {**PRETRAIN, "base_lr": 1e30, "warmup_epochs": 0.0}
    bad = {**images, "data": spoilt, "max_bad_images": 0}
    commands = [
        ["pretrain", *flags(name="pre", **images, **PRETRAIN)],
        ["transfer", *flags(name="finetune", **labelled, **TRANSFER)],
        ["transfer", *flags(name="linear", protocol="linear", **labelled, **linear)],
        ["transfer", *flags(name="coco", task="coco", **detection, **COCO)],
        ["transfer", *flags(name="ade20k", task="ade20k", device_batch=2, **pixels, **ADE20K)],
        ["pretrain", *flags(name="moco", method="moco_v3", **images, **MOCO)],
        ["pretrain", *flags(name="finetune", **images, **PRETRAIN)],
        ["pretrain", *flags(name="diverging", **images, **diverging)],
        [
            "pretrain",
            *flags(name="bad", **bad, **PRETRAIN),
        ],
        ["pretrain", *flags(name="last", **images, **PRETRAIN)],
    ]
    (out / "commands.json").write_text(json.dumps(commands))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    logs = ["--standalone", "--redirects=3", f"--log-dir={out / 'logs'}"]
    script = [str(HERE / "two_processes.py"), str(out / "commands.json"), str(out)]
    path = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    subprocess.run([*torchrun, *logs, *script], env=environment, check=True, timeout=300)
    (attempt,) = (out / "logs").glob("*/attempt_0")
    texts = [
        [(attempt / rank / f"{stream}.log").read_text().splitlines() for rank in "01"]
        for stream in ("stdout", "stderr")
    ]
    codes = [json.loads((out / f"codes-{rank}.json").read_text()) for rank in "01"]
    return Together(out, codes, *texts)


def test_pretraining_is_that_of_one_process(together, world, tmp_path):
    mae_bench.pretrain(
        data=world / "unlabelled", out=tmp_path, name="pre", execution=ALONE, **PRETRAIN
    )
    assert [codes[0] for codes in together.codes] == [0, 0]
    assert_same_run(together.out / "pre", tmp_path / "pre", MAE_FILE)


@pytest.mark.parametrize(("number", "protocol"), [(1, "finetune"), (2, "linear")])
def test_transfer_is_that_of_one_process(together, world, pretrained, tmp_path, number, protocol):
    changes = {**TRANSFER, "mixup": 0.8 if protocol == "finetune" else 0.0}
    alone = mae_bench.transfer(
        data=world / "imagenet1k", checkpoint=pretrained / BACKBONE_FILE, protocol=protocol,
        out=tmp_path, name=protocol, execution=ALONE, **changes,
    )  # fmt: skip
    assert [codes[number] for codes in together.codes] == [0, 0]
    assert_same_run(together.out / protocol, tmp_path / protocol, MODEL_FILE)
    record = json.loads((together.out / protocol / "record.json").read_text())
    assert record["environment"]["processes"] == 2
    assert record["recipe_hash"] == alone.recipe_hash
    if protocol == "finetune":
        assert record["metrics"] == alone.metrics


def test_detection_is_that_of_one_process(together, coco_world, tmp_path):
    """Losses, weights and every saved prediction; each image is predicted once."""
    alone = mae_bench.transfer(
        task="coco", data=coco_world / "coco", init="scratch", out=tmp_path, name="coco",
        execution=ALONE, **COCO,
    )  # fmt: skip
    assert [codes[3] for codes in together.codes] == [0, 0]
    assert_same_run(together.out / "coco", tmp_path / "coco", MODEL_FILE)
    record = json.loads((together.out / "coco" / "record.json").read_text())
    assert record["metrics"] == pytest.approx(alone.metrics, abs=1e-3)
    ours, theirs = (
        json.loads((folder / "coco/predictions.json").read_text())
        for folder in (together.out, tmp_path)
    )
    assert [each["image_id"] for each in ours] == [each["image_id"] for each in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_segmentation_is_that_of_one_process_with_the_whole_batch(together, ade20k_world, tmp_path):
    """Its batch norm is synchronised, so two halves of a batch count as the whole one."""
    alone = mae_bench.transfer(
        task="ade20k", data=ade20k_world / "ade20k", init="scratch", out=tmp_path, name="ade20k",
        execution=ALONE, device_batch=4, **ADE20K,
    )  # fmt: skip
    assert [codes[4] for codes in together.codes] == [0, 0]
    ours, theirs = (log_of(folder / "ade20k") for folder in (together.out, tmp_path))
    assert [each["loss"] for each in ours] == pytest.approx(
        [each["loss"] for each in theirs], rel=1e-4
    )
    record = json.loads((together.out / "ade20k" / "record.json").read_text())
    assert record["metrics"]["aacc"] == pytest.approx(alone.metrics["aacc"], abs=0.5)
    assert not [each for each in record["deviations"] if "batch norm" in each]


def test_negatives_and_batch_norm_are_those_of_both_processes(together, world, tmp_path):
    """MoCo v3: two halves of a batch count as the whole one."""
    alone = mae_bench.pretrain(
        method="moco_v3", data=world / "unlabelled", out=tmp_path, name="moco",
        execution=ALONE, **{**MOCO, "device_batch": 8},
    )  # fmt: skip
    assert [codes[5] for codes in together.codes] == [0, 0]
    ours, theirs = (log_of(folder / "moco") for folder in (together.out, tmp_path))
    assert [each["loss"] for each in ours] == pytest.approx(
        [each["loss"] for each in theirs], rel=1e-4
    )
    record = json.loads((together.out / "moco" / "record.json").read_text())
    for each in (record["deviations"], alone.deviations):
        assert not [line for line in each if "negatives" in line]


def test_an_error_of_all_is_told_once(together):
    assert [codes[6:9] for codes in together.codes] == [[2, 2, 2], [2, 2, 2]]
    first, second = together.complained
    refused, diverged, bad = first[:3]
    assert "finetune: holds a different run" in refused
    assert "loss is not finite at step 2 of 6 (lr " in diverged
    assert "last good state" not in diverged
    assert "1 image files are unreadable, more than the limit of 0" in bad
    assert "0.png" in bad
    assert not [line for line in second if "different run" in line or "finite" in line]
    names = (together.out / "diverging/not_finite.txt").read_text().splitlines()
    assert len(names) == SMALL["batch_size"], "the images of both processes"


def test_an_error_of_one_is_told_by_it_and_the_other_says_what_it_lost(together):
    assert [codes[9] for codes in together.codes] == [2, 2]
    first, second = together.complained
    assert second[-1] == "mae-bench: error: the second process has no disk"
    assert first[-1].startswith("mae-bench: error: lost another process of this run (")


def test_only_the_first_process_speaks(together):
    """Not one line of a traceback or a warning from either."""
    first, second = together.complained
    assert not together.said[1]
    assert len(second) == 1
    assert len(first) == 4
    said = "\n".join(together.said[0])
    assert said.count("to repeat  torchrun --nproc_per_node=2 two_processes.py") == 4
    assert said.count("to repeat        torchrun --nproc_per_node=2 two_processes.py") == 2
    assert said.count("training pretrain/mae@1") == 4
