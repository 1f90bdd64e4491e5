"""BEiT, the tokenizer, and MAE with its tokens by two processes: as by one, sharded or not."""

from pathlib import Path

import pytest
from pairs import Pair, in_two_processes
from small_runs import SMALL, SMALL_MAE, assert_same_run, flags

from mae_bench.execution import Execution
from mae_bench.pretrain import pretrain
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE, TOKENIZER_FILE

FEW = {**SMALL, "device_batch": 2, "codebook": 16}
METHODS = {
    "tokenizer": {**FEW, "width": 4, "narrow": 8, "base_lr": 0.1},
    "beit": {**FEW, "drop_path": 0.2, "clip_grad": 0.05},
    "mae": {**SMALL_MAE, "device_batch": 2, "codebook": 16, "target": "tokens"},
}
FILES = {"tokenizer": TOKENIZER_FILE, "beit": BACKBONE_FILE, "mae": MAE_FILE}


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> Path:
    """The folder of the three runs, each by one process."""
    out = tmp_path_factory.mktemp("alone")
    for method, changes in METHODS.items():
        more = {} if method == "tokenizer" else {"tokenizer": out / "tokenizer"}
        how = Execution(workers=0)
        pretrain(
            data=world / "unlabelled", out=out, name=method, method=method, execution=how,
            **more, **changes,
        )  # fmt: skip
    return out


def by_two(world: Path, alone: Path, out: Path, *more: str) -> Pair:
    """The same by two processes, with the tokenizer of one."""
    commands = []
    for method, changes in METHODS.items():
        options = {"name": method, "method": method, "data": world / "unlabelled", "out": out}
        if method != "tokenizer":
            options["tokenizer"] = alone / "tokenizer"
        commands.append(["pretrain", *flags(workers=0, **options, **changes), *more])
    return in_two_processes(commands, out / "said")


@pytest.mark.parametrize("more", [(), pytest.param(("--shard",), marks=pytest.mark.slow)])
def test_methods_with_tokens_are_those_of_one_process(world, alone, tmp_path, more):
    pair = by_two(world, alone, tmp_path, *more)
    assert pair.codes == [[0, 0, 0]] * 2, pair.said
    for method, file in FILES.items():
        # Its rate is 3e-3, and AdamW makes steps of that of gradients that are almost nothing.
        atol = 1e-4 if method == "tokenizer" else 1e-6
        assert_same_run(tmp_path / method, alone / method, file, atol)
