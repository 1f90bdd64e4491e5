"""Nearest neighbours at ImageNet's size, next to scikit-learn and faiss: time, memory and growth.

    python benchmarks/neighbours.py            # prints the tables
    python benchmarks/neighbours.py --write    # and writes them to neighbours.md
    python benchmarks/neighbours.py --queries 8192 --rounds 5

Features of 768 channels are drawn around a thousand centres: 1,281,167 of training images, or a
part of them, and some test images. Everybody finds the most similar training images, by cosine, in
float32 and with one thread; neighbours and the accuracy of their votes are compared before a time
is printed. Memory is what a search takes beside the features, at its peak (Linux alone tells it).
"""

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import side_by_side
import torch
from side_by_side import OURS
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn.functional import normalize

from tasks.classification import knn, probe_recipes

TRAINING, TEST = 1_281_167, 50_000
CHANNELS, CLASSES = 768, 1000
SPREAD = 5.0
"""standard deviation of a channel around its centre's, which is drawn with 1"""
SHARES = (32, 16, 8)
"""the training images are divided by"""
QUERIES = 2048
SAME_NEIGHBOURS = 0.999
"""share of the neighbours; rounding exchanges the last of them"""
SAME_VOTES = 0.1
"""points of accuracy"""
PEERS = ("scikit-learn", "faiss")

Found = tuple[Tensor, Tensor]
"""similarities and rows of the training images, (queries, neighbours)"""


def draw(count: int, seed: int, centres: np.ndarray) -> tuple[Tensor, Tensor]:
    """Features (N, C), float32, drawn in parts, and their classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    values = torch.empty(count, CHANNELS)
    for start in range(0, count, 2**14):
        part = labels[start : start + 2**14]
        noise = rng.standard_normal((len(part), CHANNELS), dtype=np.float32)
        values[start : start + 2**14] = torch.from_numpy(SPREAD * noise + centres[part])
    return values, torch.from_numpy(labels)


def with_sklearn(queries: Tensor, bank: Tensor, k: int) -> Found:
    index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine")
    distances, rows = index.fit(bank.numpy()).kneighbors(queries.numpy())
    return 1 - torch.from_numpy(distances), torch.from_numpy(rows)


def with_faiss(queries: Tensor, bank: Tensor, k: int) -> Found:
    """Inner products of unit vectors, the bank added in parts, which need no second copy."""
    index = faiss.IndexFlatIP(bank.shape[1])
    for part in bank.split(knn.BANK_ROWS):
        index.add(normalize(part, dim=1).numpy())
    values, rows = index.search(normalize(queries, dim=1).numpy(), k)
    return torch.from_numpy(values), torch.from_numpy(rows)


CONTENDERS: dict[str, Callable[[Tensor, Tensor, int], Found]] = {
    PEERS[0]: with_sklearn,
    PEERS[1]: with_faiss,
    OURS: knn.nearest,
}


def accuracy(rows: Tensor, labels: Tensor, targets: Tensor) -> float:
    """Percent of the test images whose neighbours' majority has their class."""
    votes = knn.votes(torch.ones(rows.shape), labels[rows], CLASSES, None)
    return 100 * (votes.argmax(dim=1) == targets).double().mean().item()


def check(found: dict[str, Found], labels: Tensor, targets: Tensor) -> str:
    """How far neighbours and accuracy differ; stops the program if it is too much."""
    own = found[OURS]
    score = accuracy(own[1], labels, targets)
    shares = []
    for name in PEERS:
        rows = found[name][1]
        pairs = zip(own[1], rows, strict=True)
        shares.append(statistics.fmean(float(torch.isin(a, b).float().mean()) for a, b in pairs))
        apart = abs(accuracy(rows, labels, targets) - score)
        if shares[-1] < SAME_NEIGHBOURS or apart > SAME_VOTES:
            raise SystemExit(f"{name}: {shares[-1]:.2%} are our neighbours, accuracy {apart} off")
    return (
        f"{min(shares):.3%} of the neighbours are the peers', and the accuracy of {score:.1f} "
        f"percent too"
    )


def memory(key: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at its peak since `forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def forget_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


class Search:
    """One contender's search, with what it found and what memory it took."""

    def __init__(self, name: str, queries: Tensor, bank: Tensor, k: int) -> None:
        self.run = partial(CONTENDERS[name], queries, bank, k)
        self.taken: list[float] = []

    def __call__(self) -> None:
        before = memory("VmRSS")
        self.found = self.run()
        self.taken.append(memory("VmHWM") - before)


class Bench:
    def __init__(self, count: int, queries: int) -> None:
        centres = np.random.default_rng(0).standard_normal((CLASSES, CHANNELS), dtype=np.float32)
        self.values, self.labels = draw(count, 1, centres)
        self.queries, self.targets = draw(queries, 2, centres)
        self.k: int = probe_recipes.knn()["neighbours"][0][-1]

    def measure(self, count: int, names: tuple[str, ...], rounds: int) -> str:
        """Rows of a Markdown table: a contender each, with the first `count` training images."""
        bank, labels = self.values[:count], self.labels[:count]
        jobs = {name: Search(name, self.queries, bank, self.k) for name in names}
        spent = side_by_side.take_turns(jobs, rounds, time.process_time, 0, forget_peak)
        said = "not compared"
        if len(names) > 1:
            said = check({name: job.found for name, job in jobs.items()}, labels, self.targets)
        lines = []
        for name, job in jobs.items():
            each = 1000 * statistics.median(spent[name]) / len(self.queries)
            told = (
                "1.00"
                if name == OURS
                else side_by_side.spread(side_by_side.paired(spent, name, OURS))
            )
            lines.append(
                f"| {count:,} | {name} | {side_by_side.figures(each)} | {max(job.taken):.0f} "
                f"| {told} |"
            )
        self.said = said
        return "\n".join(lines)


def growth(training: int, queries: int, rounds: int, shares: tuple[int, ...]) -> str:
    bench = Bench(training, queries)
    lines, said = [], []
    for share in shares:
        lines.append(bench.measure(training // share, (*PEERS, OURS), rounds))
        said.append(bench.said)
    lines.append(bench.measure(training, (OURS,), 1))
    mib = training * CHANNELS * 4 / 2**20
    return "\n".join(
        [
            f"### {bench.k} neighbours of {queries:,} test images",
            "",
            f"Of {shares[-1]} parts one: {said[-1]}. Rounds: {rounds}; of all training images, "
            f"whose features are {mib:,.0f} MiB, one, by mae-bench alone.",
            "",
            "| training images | implementation | CPU ms per test image | MiB beside the features "
            f"| times {OURS} (quartiles) |",
            "|---|---|---|---|---|",
            *lines,
        ]
    )


def main() -> None:
    parser = side_by_side.parser(__doc__, 2, __file__)
    parser.add_argument("--training", type=int, default=TRAINING, help=f"default {TRAINING}")
    parser.add_argument("--queries", type=int, default=QUERIES, help=f"default {QUERIES}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    table = growth(arguments.training, arguments.queries, arguments.rounds, SHARES)
    machine = side_by_side.machine("scikit-learn", "faiss-cpu", "numpy")
    title = "Nearest neighbours at ImageNet's size"
    side_by_side.publish(__file__, title, [table, machine, EXPLANATION], arguments.write)


EXPLANATION = (
    f"Exact search compares every test image with every training image, so that the {TEST:,} test "
    "images of ImageNet take as many times the milliseconds of one. The last column is the median "
    "over the rounds of (implementation / mae-bench) in the same round."
)


if __name__ == "__main__":
    main()
