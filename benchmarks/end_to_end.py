"""Whole pre-trainings: which waits, loading or steps; and how they grow with processes.

    python benchmarks/end_to_end.py            # prints the tables; wants an idle machine
    python benchmarks/end_to_end.py --write    # and writes them to end_to_end.md
    python benchmarks/end_to_end.py --only growth --rounds 5

A training is the command that a user types, from JPEG files in the page cache to weights in a
folder. Each is run twice, over few images and over more, and the difference of both is what is
told: start-up, saving and the rest that is the same in both cancel out. Time is wall time. The peer
is lightly's masked autoencoder, trained as the release's script does: torchvision's transforms of
Pillow's images in a DataLoader, the loss read each step. That both compute the same of the same
weights and images is checked by `pretrain_step.py` and `data_loading.py`.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import peers
import side_by_side
import torch
from data_loading import MEAN, STD, Workload, reference_transform, write_photos
from side_by_side import OURS
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision.datasets.folder import pil_loader

from mae_bench.arguments import pretraining
from mae_bench.batches import MicroBatches, load
from mae_bench.execution import Execution
from mae_bench.mae import MaskedAutoencoder
from tasks.images import UnlabelledImages

PEER = "lightly, torchvision, DataLoader"
SAME = 1e-4
"""relative difference of the last losses of one training by several processes"""


@dataclass(frozen=True)
class Job:
    """A pre-training, over `few` epochs and over `many`."""

    backbone: str
    files: Workload
    batch: int
    few: int
    many: int
    decoder: tuple[int, int, int] = (128, 4, 4)
    """width, blocks, heads"""

    @property
    def images(self) -> int:
        """that are between both lengths"""
        return (self.many - self.few) * (self.files.images // self.batch) * self.batch

    def recipe(self) -> dict[str, Any]:
        width, depth, heads = self.decoder
        return {
            "image_size": self.files.image_size,
            "batch_size": self.batch,
            "decoder_dim": width,
            "decoder_depth": depth,
            "decoder_heads": heads,
            "precision": "fp32",
        }


PHOTOS = Workload("photos, 500 x 375", (500, 375), 224, images=64, passes=1)
SMALL = Workload("miniature images, 64 x 64", (64, 64), 32, images=1024, passes=1)
JOBS = (Job("vit_t", PHOTOS, 32, few=2, many=12), Job("vit_mini", SMALL, 128, few=1, many=9))


class Photos(Dataset):
    """The release's transform of the files of a folder."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths = sorted(folder.iterdir())
        self.transform = reference_transform(size, v1.ToTensor(), v1.Normalize(MEAN, STD))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(pil_loader(str(self.paths[index])))


def autoencoder(job: Job) -> MaskedAutoencoder:
    torch.manual_seed(0)
    width, depth, heads = job.decoder
    decoder = {"decoder_dim": width, "decoder_depth": depth, "decoder_heads": heads}
    return MaskedAutoencoder(job.backbone, job.files.image_size, norm_pix=True, **decoder)


def train_peer(job: Job, folder: Path, epochs: int, workers: int) -> None:
    """The peer's whole training, in this process and its loading processes."""
    mae = autoencoder(job)
    network = peers.Lightly(mae)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95))
    loader = DataLoader(
        Photos(folder, job.files.image_size),
        job.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    for _ in range(epochs):
        for images in loader:
            optimiser.zero_grad()
            loss = network(images, torch.rand(len(images), mae.num_patches))
            if not torch.isfinite(loss):
                raise SystemExit("the peer's loss is not finite")
            loss.backward()
            optimiser.step()
    torch.save(network.state_dict(), folder.parent / "peer.pth")


def ours(
    job: Job, folder: Path, epochs: int, workers: int, processes: int = 1, device: int | None = None
) -> list[str]:
    """The command of our training, whose run is `run` beside the folder of the images."""
    flags = {**job.recipe(), "epochs": epochs, "warmup_epochs": 0.5, "seed": 0}
    flags["device_batch"] = device or job.batch
    words = [word for name, value in flags.items() for word in (_flag(name), str(value))]
    command = ["mae-bench", "pretrain", "--backbone", job.backbone, "--data", str(folder)]
    command += ["--workers", str(workers), "--out", str(folder.parent), "--name", "run", *words]
    if processes > 1:
        command = ["torchrun", f"--nproc_per_node={processes}", "--no-python", *command]
    return command


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def run(command: Sequence[str], threads: int) -> None:
    """One whole process; stops the program with what it said if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def between(command: Callable[[int], list[str]], job: Job, folder: Path, threads: int) -> float:
    """Seconds that the longer training takes more than the shorter one."""
    spent = []
    for epochs in (job.few, job.many):
        shutil.rmtree(folder.parent / "run", ignore_errors=True)
        start = time.perf_counter()
        run(command(epochs), threads)
        spent.append(time.perf_counter() - start)
    return spent[1] - spent[0]


def alone(job: Job, folder: Path) -> tuple[float, float]:
    """Our milliseconds of an image: loaded by one process, and of a step, each with nothing else.

    Of the same recipe, on this process's one thread.
    """
    _, recipe = pretraining(job.backbone, {**job.recipe(), "device_batch": job.batch}, "mae")
    data = UnlabelledImages([folder], job.files.image_size)
    plan = MicroBatches(len(data), recipe, 0, 0, 1, job.few * len(data))
    batches = load(data, plan, Execution(workers=1), torch.device("cpu"))
    images = next(batches)["images"]
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["images"])
    loading = (time.perf_counter() - start) / max(count, 1)
    mae = autoencoder(job)
    optimiser = torch.optim.AdamW(mae.parameters(), lr=1e-4, fused=True)
    pixels = images.float().div(255).sub(0.5)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        optimiser.zero_grad()
        mae(pixels).loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return 1000 * loading, 1000 * statistics.median(seconds[1:]) / len(images)


def together(rounds: int) -> str:
    """Loading and steps of one training process with one loading process."""
    parts = ["### Loading and steps together", ""]
    parts.append(
        f"One thread trains, one process loads. {rounds} rounds. Alone: loading by one process "
        "and steps on images that are there, by mae-bench's parts."
    )
    parts += ["", "| training | images between | implementation | ms per image, median (min) "]
    parts[-1] += f"| times {OURS} (quartiles) | loading alone | steps alone |"
    parts.append("|---|---|---|---|---|---|---|")
    for number, job in enumerate(JOBS):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "images")
            folder.mkdir()
            write_photos(folder, job.files)
            loading, step = alone(job, folder)
            peer = partial(_peer_command, number, folder)
            commands = {PEER: peer, OURS: lambda n, f=folder, j=job: ours(j, f, n, 1)}
            spent = _rounds(
                {name: partial(between, each, job, folder, 1) for name, each in commands.items()},
                rounds,
            )
        for name, seconds in spent.items():
            each = [1000 * value / job.images for value in seconds]
            told = "1.00"
            cells = f"{side_by_side.figures(loading)} | {side_by_side.figures(step)}"
            if name != OURS:
                told = side_by_side.spread(side_by_side.paired(spent, name, OURS))
                cells = "| "
            title = f"{job.backbone}, {job.files.title}, batch {job.batch}"
            parts.append(
                f"| {title} | {job.images:,} | {name} | {side_by_side.figures(_median(each))} "
                f"({side_by_side.figures(min(each))}) | {told} | {cells} |"
            )
    return "\n".join(parts)


def _peer_command(number: int, folder: Path, epochs: int) -> list[str]:
    return [sys.executable, __file__, "--peer", json.dumps([number, str(folder), epochs])]


def growth(rounds: int) -> str:
    """One training by threads and by processes, which compute the same."""
    job = JOBS[0]
    ways = {
        "1 process, 1 thread": (1, 1),
        "1 process, 2 threads": (1, 2),
        "2 processes, 1 thread each": (2, 1),
    }
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        folder.mkdir()
        write_photos(folder, job.files)

        def measure(name: str) -> float:
            processes, threads = ways[name]
            command = partial(_grown, job, folder, processes)
            spent = between(command, job, folder, threads)
            record = json.loads((folder.parent / "run" / "record.json").read_text())
            losses[name] = record["metrics"]["loss"]
            return spent

        spent = _rounds({name: partial(measure, name) for name in ways}, rounds)
    first = next(iter(ways))
    apart = max(abs(loss / losses[first] - 1) for loss in losses.values())
    if apart > SAME:
        raise SystemExit(f"one training, several losses: {losses}")
    parts = [
        f"### Growth: {job.backbone}, {job.files.title}, batch {job.batch} in all",
        "",
        f"The last losses differ by {apart:.0e} at most. Each process loads its own images; "
        f"micro-batches of {job.batch // 2}. {rounds} rounds, {job.images:,} images.",
        "",
        "| by | images/s, median (most) | times as fast (quartiles) |",
        "|---|---|---|",
    ]
    for name, seconds in spent.items():
        told = "1.00"
        if name != first:
            told = side_by_side.spread(side_by_side.paired(spent, first, name))
        parts.append(
            f"| {name} | {job.images / _median(seconds):.1f} ({job.images / min(seconds):.1f}) "
            f"| {told} |"
        )
    return "\n".join(parts)


def _grown(job: Job, folder: Path, processes: int, epochs: int) -> list[str]:
    return ours(job, folder, epochs, 0, processes, job.batch // 2)


def _rounds(jobs: dict[str, Callable[[], float]], rounds: int) -> side_by_side.Spent:
    """What each job says in each round, in an order that rotates."""
    spent: side_by_side.Spent = {name: [] for name in jobs}
    names = list(jobs)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            spent[name].append(jobs[name]())
    return spent


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main() -> None:
    parser = side_by_side.parser(__doc__, 3, __file__)
    parser.add_argument("--only", choices=("together", "growth"), help="one table alone")
    parser.add_argument("--peer", help="of this script: a peer's training")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peer:
        number, folder, epochs = json.loads(arguments.peer)
        train_peer(JOBS[number], Path(folder), epochs, 1)
        return
    made = {"together": together, "growth": growth}
    chosen = [arguments.only] if arguments.only else list(made)
    tables = [made[name](arguments.rounds) for name in chosen]
    where = side_by_side.machine("timm", "lightly", "torchvision", what="wall time")
    tables = [f"{table}\n\n{where}" for table in tables]
    title = "Whole pre-trainings on a CPU"
    side_by_side.publish(__file__, title, [*tables, EXPLANATION], arguments.write, keep_tables=True)


EXPLANATION = (
    "Where a training takes no longer for an image than its steps alone, loading keeps nobody "
    "waiting. The ratios are medians over the rounds, of one round each."
)


if __name__ == "__main__":
    main()
