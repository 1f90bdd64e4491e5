import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from small_runs import SMALL_CLASSIFIER, SMALL_MAE, Forked

from mae_bench.pretrain import pretrain
from mae_bench.transfer import transfer


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Sums depend on the number of threads, and a forked process cannot use its parent's."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pretrained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short pre-training run; for reading only."""
    out = tmp_path_factory.mktemp("pretrained")
    pretrain(data=world / "unlabelled", out=out, name="pre", **SMALL_MAE)
    return out / "pre"


@pytest.fixture(scope="session")
def classifier(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training of a classifier; for reading only."""
    out = tmp_path_factory.mktemp("classifier")
    transfer(data=world / "imagenet1k", out=out, **SMALL_CLASSIFIER)
    return out / "run"


@pytest.fixture
def fork(tmp_path: Path):
    """fork(argv, before=...): run a command line in a forked process; see `Forked`."""
    started: list[Forked] = []

    def start(argv: Sequence[str], before: Callable[[], None] = lambda: None) -> Forked:
        started.append(Forked(argv, tmp_path / f"said-{len(started)}.txt", before))
        return started[-1]

    yield start
    for each in started:
        if each.process.is_alive():
            os.killpg(each.process.pid, signal.SIGKILL)
