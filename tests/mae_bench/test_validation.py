"""--eval-every: scores while a run trains, which change nothing of what is trained."""

import json

import pytest
from small_runs import SMALL, assert_same_bits, flags, steps_logged, wait_for

from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.pretrain import pretrain
from mae_bench.report_page import validated
from mae_bench.transfer import transfer

EVERY = Execution(workers=0, device="cpu", eval_every=1)
LONGER = SMALL | {"epochs": 4, "ema_decay": 0.9}


def run(world, out, name, how=EVERY, **changes):
    data = world / "imagenet1k"
    return transfer(
        protocol="scratch", data=data, out=out, name=name, execution=how, **LONGER | changes
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def both(world, tmp_path_factory):
    """Two runs, one of them scored after every epoch."""
    out = tmp_path_factory.mktemp("both")
    run(world, out, "plain", Execution(workers=0, device="cpu"))
    run(world, out, "looked")
    return out


def test_nothing_of_the_result_changes(both):
    assert_same_bits(both / "plain", both / "looked", "model.safetensors")
    records = [
        json.loads((both / each / "record.json").read_text()) for each in ("plain", "looked")
    ]
    assert records[0]["metrics"] == records[1]["metrics"]
    predicted = [(both / each / "predictions.csv").read_bytes() for each in ("plain", "looked")]
    assert predicted[0] == predicted[1]
    assert not (both / "plain" / "validation.jsonl").exists()


def test_every_epoch_but_the_last_is_scored_and_told(both):
    found = lines(both / "looked")
    assert [each["epoch"] for each in found] == [1, 2, 3]
    assert [each["step"] for each in found] == [6, 12, 18]
    assert all(0 <= each["top1"] <= 100 for each in found)
    assert "at epoch 3" in validated(both / "looked")
    events = list((both / "looked" / "tensorboard").glob("events*"))
    assert any(b"validation/top1" in file.read_bytes() for file in events)


def test_a_run_that_was_stopped_makes_up_for_what_is_missing(both, world, tmp_path, fork):
    words = ["transfer", *flags(protocol="scratch", data=world / "imagenet1k", out=tmp_path)]
    words += flags(name="stopped", workers=0, device="cpu", eval_every=1, **LONGER)
    process = fork(words)
    wait_for(lambda: steps_logged(tmp_path / "stopped") >= 8, "eight steps")
    process.kill(15)
    assert process.exit_code() == 143
    kept = tmp_path / "stopped" / "validation.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:-1]) + '{"step": 6, "ep')
    assert call(words) == 0
    assert_same_bits(both / "looked", tmp_path / "stopped", "model.safetensors")
    scored = {each["step"]: each for each in lines(both / "looked")}
    for each in lines(tmp_path / "stopped"):
        assert each == scored[each["step"]]


def test_it_is_refused_where_nothing_is_scored_or_trained(world, tmp_path):
    with pytest.raises(RunError, match="--eval-every: for transfers"):
        pretrain(data=world / "unlabelled", out=tmp_path, execution=EVERY, **SMALL)
    with pytest.raises(RunError, match="--eval-every: --protocol knn trains no backbone"):
        transfer(protocol="knn", init="scratch", data=world / "imagenet1k", execution=EVERY)
    with pytest.raises(RunError, match="eval_every is -1; expected a whole number"):
        Execution(eval_every=-1)
