"""Sharded runs of other tasks, methods and optimisers, and an end while images are waited for."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pairs import in_two_processes
from small_runs import SMALL, SMALL_MAE, assert_same_run, flags, log_of

import mae_bench
from mae_bench.execution import Execution
from mae_bench.run.files import BACKBONE_FILE
from mae_bench.transfer import MODEL_FILE
from tasks.images import UnlabelledImages

pytestmark = pytest.mark.slow

LINEAR = {**SMALL, "device_batch": 2, "protocol": "linear"}
BF16 = {**SMALL, "device_batch": 2, "protocol": "scratch", "precision": "bf16", "clip_grad": 0.1}
MOCO = {**SMALL, "method": "moco_v3", "feature_dim": 16, "mlp_dim": 32}
COCO = {
    "task": "coco", "init": "scratch", "epochs": 1, "warmup_epochs": 1.0, "batch_size": 8,
    "device_batch": 2, "image_size": 64, "pyramid_channels": 8, "box_head_dim": 16,
    "rpn_batch": 16, "roi_batch": 8, "proposals": 10,
}  # fmt: skip
ADE20K = {
    "task": "ade20k", "init": "scratch", "epochs": 1, "warmup_epochs": 1.0, "batch_size": 4,
    "image_size": 32, "stride": 21, "head_channels": 8, "aux_channels": 8, "dropout": 0.0,
}  # fmt: skip


class Runs:
    """The same runs by one process and by two sharded ones."""

    def __init__(self, out: Path) -> None:
        self.out, self.commands = out, list[list[str]]()

    def add(self, name: str, changes: dict[str, Any], of_one: int | None = None) -> None:
        """Do a run by one process, with the device batch `of_one`, and note it for two."""
        recompute = name == "bf16"
        command = "pretrain" if "method" in changes else "transfer"
        how = Execution(workers=0, checkpoint_activations=recompute)
        alone = changes if of_one is None else changes | {"device_batch": of_one}
        getattr(mae_bench, command)(out=self.out / "alone", name=name, execution=how, **alone)
        words = flags(out=self.out, name=name, workers=0, **changes)
        more = ["--checkpoint-activations"] if recompute else []
        self.commands.append([command, "--shard", *more, *words])

    def of_two(self, name: str) -> Path:
        return self.out / name

    def of_one(self, name: str) -> Path:
        return self.out / "alone" / name

    def assert_same(self, name: str, **tolerance: float) -> dict[str, float]:
        """Losses, and scores exactly; these."""
        ours, theirs = (
            [each["loss"] for each in log_of(folder)]
            for folder in (self.of_two(name), self.of_one(name))
        )
        assert ours == pytest.approx(theirs, **tolerance)
        one, other = (
            json.loads((folder / "record.json").read_text())
            for folder in (self.of_two(name), self.of_one(name))
        )
        assert one["environment"]["sharded"]
        assert one["deviations"] == other["deviations"] or name in ("moco", "ade20k")
        return {key: one["metrics"][key] - value for key, value in other["metrics"].items()}


@pytest.fixture(scope="module")
def runs(world, coco_world, ade20k_world, pretrained, tmp_path_factory) -> Runs:
    made = Runs(tmp_path_factory.mktemp("everywhere"))
    labelled = {"data": world / "imagenet1k"}
    made.add("linear", {**labelled, **LINEAR, "checkpoint": pretrained / BACKBONE_FILE})
    made.add("bf16", {**labelled, **BF16})
    made.add("moco", {"data": world / "unlabelled", **MOCO}, of_one=8)
    made.add("coco", {"data": coco_world / "coco", **COCO})
    made.add("ade20k", {"data": ade20k_world / "ade20k", "device_batch": 2, **ADE20K}, of_one=4)
    pair = in_two_processes(made.commands, made.out / "said")
    assert pair.codes == [[0] * 5] * 2, pair.said
    return made


def test_linear_probing_by_lars(runs):
    """Its trust ratios are of whole parameters; batch norm's statistics are the first process's."""
    runs.assert_same("linear", rel=1e-6)
    assert_same_run(runs.of_two("linear"), runs.of_one("linear"), MODEL_FILE)


def test_bf16_with_activations_computed_again(runs):
    """To a few times the last bit of bf16, where it falls the other way."""
    assert not any(runs.assert_same("bf16", rel=1e-4).values())


def test_momentum_encoder(runs):
    """MoCo v3's halves of a batch count as the whole one, and its average is sharded too."""
    runs.assert_same("moco", rel=1e-4)


def test_detection(runs):
    assert not any(runs.assert_same("coco", rel=1e-6).values())
    assert_same_run(runs.of_two("coco"), runs.of_one("coco"), MODEL_FILE)


def test_segmentation(runs):
    scores = runs.assert_same("ade20k", rel=1e-4)
    assert abs(scores["aacc"]) < 0.5


def test_a_signal_while_one_process_waits_for_images(world, tmp_path):
    """It says which steps are lost; nobody hangs."""
    place = tmp_path / "said"

    def hang(rank: int) -> None:
        (place / f"{rank}.pid").write_text(str(os.getpid()))
        load, calls = UnlabelledImages.__getitems__, []

        def stuck(self, keys):
            calls.append(keys)
            if rank and len(calls) == 7:  # the first micro-batch of the fourth step
                for number in (0, 1):
                    os.kill(int((place / f"{number}.pid").read_text()), signal.SIGTERM)
                time.sleep(100)
            return load(self, keys)

        UnlabelledImages.__getitems__ = stuck

    command = flags(name="run", out=tmp_path, data=world / "unlabelled", workers=0)
    command += [*flags(**{**SMALL_MAE, "device_batch": 2}), "--shard"]
    pair = in_two_processes([["pretrain", *command]], place, hang)
    assert pair.codes == [[143], [143]], pair.said
    line = pair.said[0].splitlines()[-1]
    assert "stopped by SIGTERM after step 3 of 6; a process waited for images" in line
    assert line.endswith("the same command continues after step 0")


def test_a_signal_to_one_process_has_all_of_them_save(world, tmp_path):
    def signalled(rank: int) -> None:
        load, calls = UnlabelledImages.__getitems__, []

        def load_and_signal(self, keys):
            calls.append(keys)
            if rank and len(calls) == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return load(self, keys)

        UnlabelledImages.__getitems__ = load_and_signal

    command = flags(name="run", out=tmp_path, data=world / "unlabelled", workers=0)
    command += [*flags(**{**SMALL_MAE, "device_batch": 2}), "--shard"]
    pair = in_two_processes([["pretrain", *command]], tmp_path / "said", signalled)
    assert pair.codes == [[143], [143]], pair.said
    assert "stopped by SIGTERM after step 4 of 6; state saved in" in pair.said[0]
    assert [file.name for file in (tmp_path / "run/state").iterdir()] == ["step-00000004.pt"]
