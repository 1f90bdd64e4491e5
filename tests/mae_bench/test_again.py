"""A training is never lost: scored again, after a stop, a failed score, on other test images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mae_bench
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from results import Record, parse_record
from tasks import TaskError
from tasks.classification.task import Classification
from tasks.task import Scored

SERIAL = Execution(workers=0, device="cpu", save_minutes=0)
RECIPE = {
    "epochs": 1, "warmup_epochs": 0, "batch_size": 6, "device_batch": 6, "image_size": 32,
}  # fmt: skip


def images(root: Path, split: str, per_class: int, shift: int = 0) -> None:
    """Two classes: red and blue, with a little noise."""
    for label, name in enumerate(("blue", "red")):
        (root / split / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            rng = np.random.default_rng([label, number + shift, len(split)])
            pixels = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            pixels[..., 0 if label else 2] += 180
            Image.fromarray(pixels).save(root / split / name / f"{number}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images(tmp_path / "data", "train", 6)
    images(tmp_path / "data", "val", 4)
    return tmp_path / "data"


def train(data: Path, out: Path) -> Record:
    return mae_bench.transfer(
        "folder", "vit_mini", "scratch", data=data, out=out, name="run", execution=SERIAL, **RECIPE
    )


def again(out: Path, **how) -> Record | None:
    return mae_bench.evaluate(out / "run", execution=SERIAL, **how)


@pytest.fixture
def unscored(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs, of which the one called run is trained, but its scoring has failed."""
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "evaluate", lambda self, how: Scored({}))
        with pytest.raises(RunError, match="no score is defined on these test images"):
            train(data, tmp_path / "runs")
    assert not (tmp_path / "runs/run/record.json").exists()
    assert (tmp_path / "runs/run/model.safetensors").exists()
    return tmp_path / "runs"


def test_a_failed_score_is_made_up_for_in_the_run_s_own_folder(data, unscored, tmp_path):
    """As the same command does, and with the score of a run that was not disturbed."""
    usual = train(data, tmp_path / "undisturbed")
    made = again(unscored)
    assert made is not None
    assert made.metrics == usual.metrics
    assert made.deviations == usual.deviations
    assert made.complete
    assert parse_record((unscored / "run/record.json").read_bytes()) == made
    assert made.environment.earlier == []


def test_a_score_elsewhere_tells_where_the_training_was(data, unscored, monkeypatch):
    """The hours are the training's, the device is that of who scores."""
    monkeypatch.setattr("mae_bench.provenance.device_name", lambda device: "another")
    made = again(unscored)
    assert made is not None
    (before,) = made.environment.earlier
    assert made.environment.device == "another" != before.device
    assert made.cost.seconds == before.seconds


def test_the_same_command_goes_on_with_another_test_set(data, unscored, capsys):
    images(data, "val", 4, shift=100)
    log = (unscored / "run/log.jsonl").read_bytes()
    record = train(data, unscored)
    assert "the test set is another one than when training began" in capsys.readouterr().out
    assert any("the test set is another one" in line for line in record.deviations)
    assert (unscored / "run/log.jsonl").read_bytes() == log


def test_other_training_images_make_another_run(data, unscored):
    images(data, "train", 6, shift=100)
    with pytest.raises(RunError, match="holds a different run"):
        train(data, unscored)


def test_a_finished_run_on_other_test_images_is_a_run_beside_it(data, tmp_path):
    out = tmp_path / "runs"
    first = train(data, out)
    same = again(out)
    assert same is not None
    assert same.metrics == first.metrics
    assert same.deviations == [*first.deviations, "the weights of run, scored again"]
    images(data, "val", 3, shift=50)
    (data / "val/red/3.png").unlink()
    with pytest.raises(RunError, match=r"was scored on another test set .* mae-bench evaluate"):
        train(data, out)
    other = again(out, data=data)
    assert other is not None
    assert other.data.val_images == 7
    assert "scored on 7 test images of data" in other.deviations[-1]
    assert parse_record((out / "run/record.json").read_bytes()) == first


def test_an_interrupted_run_is_scored_as_far_as_it_came(data, unscored):
    file = sorted((unscored / "run/state").glob("step-*.pt"))[-1]
    state = torch.load(file, weights_only=True)
    assert state["step"] == 2
    torch.save({**state, "step": 1}, file)
    found = again(unscored)
    assert found is not None
    assert not found.complete
    assert found.deviations[-1] == "training interrupted after step 1 of 2"
    assert not (unscored / "run/record.json").exists()


@pytest.mark.parametrize("below", ["", "val"])
def test_a_test_folder_alone(data, tmp_path, below):
    """Scores as the whole; a class less is said, a class more is refused."""
    first = train(data, tmp_path / "runs")
    alone = shutil.copytree(data / "val", tmp_path / "alone" / below, dirs_exist_ok=True)
    found = again(tmp_path / "runs", data=tmp_path / "alone", name="alone")
    assert found is not None
    assert found.metrics == first.metrics
    assert (found.data.train_images, found.data.val_images) == (0, 8)
    (alone / "green").mkdir()
    with pytest.raises(TaskError, match="has classes that were not learnt: green"):
        again(tmp_path / "runs", data=tmp_path / "alone")


def test_other_classes_are_refused(data, tmp_path):
    train(data, tmp_path / "runs")
    for split in ("train", "val"):
        (data / split / "red").rename(data / split / "green")
    with pytest.raises(RunError, match="first that differs being 'red' there and 'green' here"):
        again(tmp_path / "runs", data=data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "damaged .expected a JSON object.; expected the folder of a run"),
        ("{", "damaged"),
        ('{"task": "pretrain"}', "expected the run of a downstream task"),
        (
            "[" * 100_000,
            r"damaged \(nested deeper than any file of mae-bench\); expected",
        ),
    ],
)
def test_a_folder_of_a_stranger_gives_one_line(tmp_path, content, said):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(content)
    with pytest.raises(RunError, match=said):
        again(tmp_path)


def test_the_run_s_own_task_may_be_named_and_no_other(data, tmp_path):
    train(data, tmp_path / "runs")
    assert again(tmp_path / "runs", on="folder") is not None
    with pytest.raises(RunError, match="is of folder, and is not scored on coco"):
        again(tmp_path / "runs", on="coco")


def test_nothing_trained_yet(data, unscored):
    for file in (unscored / "run/state").iterdir():
        file.write_bytes(b"no state")
    with pytest.raises(RunError, match="neither a record nor a readable state"):
        again(unscored)
    assert json.loads((unscored / "run/run.json").read_text())["source"] == str(data)
