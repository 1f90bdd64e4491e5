"""Sharded runs of two processes: what one process computes, stopped and gone on with in any way."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from pairs import Pair, in_two_processes
from small_runs import SMALL, SMALL_MAE, assert_same_bits, assert_same_run, flags, steps_logged
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from toy import Toy, toy_recipe

import mae_bench
from backbones.vit import Block
from mae_bench.cli import call
from mae_bench.errors import RunError, reason
from mae_bench.execution import Execution
from mae_bench.optim import clip, parameter_groups
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE
from mae_bench.sharding import Networks, parts, refuse_unshardable, units, whole
from mae_bench.suite.choosing import chosen_spec
from mae_bench.suite.expansion import expand
from mae_bench.transfer import MODEL_FILE

ALONE = Execution(workers=0)
MAE = {**SMALL_MAE, "device_batch": 2, "clip_grad": 0.05}
"""two micro-batches of each process to a step, whose gradients are clipped"""
FINETUNE = {
    **SMALL, "device_batch": 2, "mixup": 0.8, "ema_decay": 0.5, "layer_decay": 0.6,
    "clip_grad": 0.05, "drop_path": 0.2,
}  # fmt: skip
SCORED = {"eval_every": 1}


class Broken(Exception):
    """Breaks a run off."""


def break_off(monkeypatch: pytest.MonkeyPatch, run: Path, step: int) -> None:
    """Have the runs of this process end before they change the weights in a step."""
    loop = sys.modules["mae_bench.train"]

    def stop(*arguments):
        if steps_logged(run) == step - 1:
            raise Broken
        clip(*arguments)

    monkeypatch.setattr(loop, "clip", stop)


def killed_in_the_third_save(rank: int) -> None:
    """Process 0 writes the half of a state, and is killed."""
    save, calls = torch.save, []

    def save_two(state, stream):
        calls.append(1)
        if len(calls) == 3:
            stream.write(b"PK\3\4 half")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, stream)

    torch.save = save_two


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def killed(out, world) -> Pair:
    """A sharded run that is killed in the middle of a save; "again" is a copy of its folder."""
    command = flags(name="run", out=out, data=world / "unlabelled", workers=0, **MAE)
    command += ["--save-minutes", "0", "--shard"]
    pair = in_two_processes([["pretrain", *command]], out / "killed", killed_in_the_third_save)
    shutil.copytree(out / "run", out / "again")
    return pair


@pytest.fixture(scope="module")
def started(out, world) -> Path:
    """A run of one process, broken off in its fourth step; the folder of a copy of it."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        break_off(patch, out / "begun", 4)
        often = Execution(workers=0, save_minutes=0)
        mae_bench.pretrain(data=world / "unlabelled", out=out, name="begun", execution=often, **MAE)
    shutil.copytree(out / "begun", out / "joined")
    return out / "joined"


@pytest.fixture(scope="module")
def together(out, world, pretrained, killed, started) -> Pair:
    """The runs of two processes."""
    where = {"out": out, "workers": 0}
    images = {**where, "data": world / "unlabelled"}
    labelled = {**where, "data": world / "imagenet1k", "checkpoint": pretrained / BACKBONE_FILE}
    commands = [
        ["pretrain", *flags(name="mae", **images, **MAE)],
        ["pretrain", *flags(name="run", **images, **MAE)],
        ["pretrain", *flags(name="joined", **images, **MAE)],
        ["transfer", *flags(name="finetune", **labelled, **SCORED, **FINETUNE)],
    ]
    return in_two_processes([[*each, "--shard"] for each in commands], out / "together")


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> Path:
    """The folder of the same pre-training by one process."""
    out = tmp_path_factory.mktemp("alone")
    mae_bench.pretrain(data=world / "unlabelled", out=out, name="mae", execution=ALONE, **MAE)
    return out / "mae"


def test_a_pretraining_is_that_of_one_process(together, out, alone):
    """Losses and weights to 1e-6; of `Environment` alone that it was sharded."""
    assert together.codes[0][0] == together.codes[1][0] == 0
    assert_same_run(out / "mae", alone, MAE_FILE)
    assert_same_run(out / "mae", alone, BACKBONE_FILE)
    ours, theirs = (json.loads((each / "run.json").read_text()) for each in (out / "mae", alone))
    assert ours == theirs
    record = json.loads((out / "mae/record.json").read_text())
    assert record["environment"]["processes"] == 2
    assert record["environment"]["sharded"] is True
    assert re.search(r"sharded: [1-9][0-9,]+ parameters in 2 processes", together.said[0])
    assert not together.said[1]


def test_a_transfer_is_that_of_one_process(together, out, world, pretrained, tmp_path):
    """Layer decay, mixing, stochastic depth, averaging and the scores in the middle too."""
    how = Execution(workers=0, **SCORED)
    record = mae_bench.transfer(
        data=world / "imagenet1k", checkpoint=pretrained / BACKBONE_FILE, out=tmp_path,
        name="finetune", execution=how, **FINETUNE,
    )  # fmt: skip
    assert together.codes[0][3] == together.codes[1][3] == 0
    assert_same_run(out / "finetune", tmp_path / "finetune", MODEL_FILE)
    assert json.loads((out / "finetune/record.json").read_text())["metrics"] == record.metrics
    looks = [
        (folder / "finetune/validation.jsonl").read_text().splitlines()
        for folder in (out, tmp_path)
    ]
    assert looks[0] == looks[1]
    assert looks[0]


def test_a_kill_while_saving_loses_nothing(killed, together, out):
    """The same command ends with the same bits."""
    assert killed.exit_codes[0] == -signal.SIGKILL
    assert steps_logged(out / "again") == 3
    assert [file.name for file in sorted((out / "again/state").glob("*.pt"))] == [
        "step-00000001.pt", "step-00000002.pt",
    ]  # fmt: skip
    assert together.codes[0][1] == together.codes[1][1] == 0
    assert "going on after step 2" in together.said[0]
    assert_same_bits(out / "run", out / "mae", MAE_FILE)
    assert not list((out / "run").rglob("*.partial"))


def test_one_process_goes_on_with_a_sharded_run(killed, out, world, alone):
    mae_bench.pretrain(data=world / "unlabelled", out=out, name="again", execution=ALONE, **MAE)
    assert_same_run(out / "again", alone, MAE_FILE)


def test_two_go_on_with_a_run_of_one(together, out, alone):
    assert "going on after step 3" in together.said[0]
    assert together.codes[0][2] == together.codes[1][2] == 0
    assert_same_run(out / "joined", alone, MAE_FILE)


class Blocks(Toy):
    """The toy with transformer blocks."""

    def __init__(self) -> None:
        super().__init__(toy_recipe())
        self.blocks = nn.ModuleList(Block(12, 2) for _ in range(2))


def look_inside(rank: int) -> None:
    """Asserts about a sharded network, in each of two processes."""
    device = Accelerator(cpu=True).device
    torch.manual_seed(rank)  # the first one's weights count
    task = Blocks()
    trained = Networks(task, device, sharded=True)
    trained.shard()
    network = trained.trained
    assert network.train_data is task.train_data
    held = sum(each.to_local().numel() for each in network.parameters())
    total = sum(each.numel() for each in task.parameters())
    assert abs(held - total / 2) < 20
    torch.manual_seed(0)
    for name, value in Blocks().named_parameters():
        assert torch.equal(network.get_parameter(name).full_tensor(), value)
    groups = [parameter_groups(each, each.recipe) for each in (network, task)]
    for ours, theirs in zip(*groups, strict=True):
        assert [each.shape for each in ours.pop("params")] == [
            each.shape for each in theirs.pop("params")
        ]
        assert ours == theirs
    for each in network.parameters():
        generator = torch.Generator().manual_seed(each.numel())
        gradient = torch.randn(each.shape, dtype=each.dtype, generator=generator)
        each.grad = parts({"x": gradient}, nn.ParameterDict({"x": each}))["x"]
    gradients = [each.grad.full_tensor() for each in network.parameters()]
    norm = get_total_norm(gradients)
    clip(network, 0.5)
    for each, before in zip(network.parameters(), gradients, strict=True):
        assert isinstance(each.grad, DTensor)
        torch.testing.assert_close(each.grad.full_tensor(), before * 0.5 / norm)
    task.register_buffer("rank", torch.tensor(float(rank)), persistent=False)
    assert trained.finished() is task
    assert task.rank == 0, "statistics of batch norm are the first process's"
    state = whole(network.state_dict())
    assert all((value is None) == (rank > 0) for value in state.values())


def test_each_process_holds_half_and_gradients_are_clipped_by_their_global_norm(tmp_path):
    pair = in_two_processes([], tmp_path / "said", look_inside)
    assert pair.exit_codes == [0, 0], pair.said


def test_blocks_of_a_backbone_from_outside_are_gathered_one_by_one(tmp_path):
    """And one that computes with their parts is told so in a line."""

    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5)) for _ in range(2))

    class Around(Toy):
        whole = True

        def __init__(self) -> None:
            super().__init__(toy_recipe())
            self.backbone = Outside().double()

        def forward(self, batch):
            first, second = self.backbone.blocks
            x = second(first(batch["x"]) if self.whole else first[0](batch["x"]))
            return super().forward({**batch, "x": x})

    task = Around()
    assert list(units(task)) == [[block] for block in task.backbone.blocks]

    def compute(rank: int) -> None:
        networks = Networks(task, Accelerator(cpu=True).device, sharded=True)
        networks.shard()
        batch = task.train_data.__getitems__([(0, 0), (0, 1)])
        expected = task(batch)["loss"]
        assert torch.equal(networks.trained(batch)["loss"], expected)
        networks.trained.whole = False
        with pytest.raises(RuntimeError) as caught:
            networks.trained(batch)
        assert "so it cannot be sharded; leave --shard out" in reason(caught.value)

    assert in_two_processes([], tmp_path / "said", compute).exit_codes == [0, 0]


def test_what_shares_a_parameter_is_gathered_layer_by_layer():
    block, other = Block(12, 2), Block(12, 2)
    assert list(units(nn.ModuleList([block, other]))) == [[block], [other]]
    other.norm1.weight = block.norm1.weight
    first, _ = units(nn.ModuleList([block, other]))
    assert first == [block.attn.qkv, block.attn.proj, block.norm2, block.mlp.fc1, block.mlp.fc2]


@pytest.mark.parametrize("command", ["pretrain", "transfer"])
def test_one_process_has_nothing_to_shard(command, world, pretrained, tmp_path, capsys):
    data = {"pretrain": "unlabelled", "transfer": "imagenet1k"}[command]
    more = [] if command == "pretrain" else ["--checkpoint", str(pretrained)]
    argv = [command, "--shard", *more, *flags(data=world / data, out=tmp_path / "runs")]
    assert call(argv) == 2
    line = capsys.readouterr().err.splitlines()
    assert len(line) == 1
    assert (
        "--shard splits a network among several processes, and there is one; start them" in line[0]
    )
    assert not (tmp_path / "runs").exists()


def test_a_probe_has_nothing_to_shard(world, pretrained, capsys):
    argv = ["transfer", "--shard", *flags(data=world / "imagenet1k", checkpoint=pretrained)]
    assert call([*argv, "--protocol", "knn"]) == 2
    assert "--shard: --protocol knn trains no backbone; leave it out" in capsys.readouterr().err


def test_what_would_be_lost_is_refused():
    task = Toy(toy_recipe())
    refuse_unshardable(task)
    task.head.weight.register_hook(lambda gradient: 2 * gradient)
    with pytest.raises(RunError, match=r"parameter head\.weight has a hook on its grad"):
        refuse_unshardable(task)
    task = Toy(toy_recipe())
    task.factor = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(RunError, match="parameter factor is a single number"):
        refuse_unshardable(task)


@pytest.mark.parametrize("command", ["suite", "plan"])
def test_a_suite_has_nothing_to_shard(command, tmp_path, capsys):
    assert call([command, "quickstart", "--shard", "--out", str(tmp_path / "runs")]) == 2
    assert "error: --shard: " in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_runs_of_a_cluster_are_sharded_where_they_train(tmp_path):
    spec, _ = chosen_spec(
        init=["scratch"], pretrain=["mae"], tasks=["imagenet1k"], protocols=["finetune", "knn"]
    )
    how = Execution(shard=True)
    words = [run.words(tmp_path, {}, how) for run in expand(spec).runs]
    trains = [each for each in words if "knn" not in each]
    assert {each[0] for each in trains} == {"pretrain", "transfer"}
    assert all("--shard" in each for each in trains)
    assert not [each for each in words if "knn" in each and "--shard" in each]
