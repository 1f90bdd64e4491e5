"""How long `mae-bench report` takes to read thousands of records and to make its tables.

    python benchmarks/report_speed.py            # prints the table
    python benchmarks/report_speed.py --write    # and writes it to benchmarks/report_speed.md

Records are drawn and written into run folders as runs write them, with a folder of predictions in
each tenth: of several tasks, protocols, backbones, weights and seeds, or of one protocol with a
recipe of its own each, which makes one table of as many rows. One process with one thread; the
files come from the page cache; the time is CPU time, so that other work on the machine does not
count, and wall-clock time beside it.
"""

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydantic

from mae_bench.report_runs import find_runs
from results import (
    Checkpoint,
    Cost,
    Data,
    Environment,
    Record,
    comparison_table,
    published,
    to_markdown,
    write_record,
)
from results.protocol import ProtocolId

COUNTS = (100, 1000, 10_000)
LIMIT_SECONDS = 10.0
"""CPU seconds that the largest count may take in all"""
METRICS = {
    "imagenet1k": ("top1", "top5", "per_class"),
    "coco": ("ap_box", "ap_box_50", "ap_box_75", "ap_mask", "ap_mask_50", "ap_mask_75"),
    "ade20k": ("miou", "macc", "aacc"),
}
PROTOCOLS = (
    "imagenet1k/finetune@1",
    "imagenet1k/linear@1",
    *(f"imagenet1k/partial-{blocks}@2" for blocks in (0, 1, 2, 4, 6)),
    "coco/mask_rcnn-vitdet@1",
    "coco/mask_rcnn-fpn@1",
    "ade20k/upernet-512-160k@1",
)
BACKBONES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")
INITS = ("mae", "moco_v3", "beit", "dino", "supervised", "mine")
SEEDS = 5
PREDICTIONS = 50
"""files of predictions of each tenth run"""
START = datetime(2026, 1, 1, tzinfo=UTC)


def draw_records(count: int, alike: bool) -> Iterator[Record]:
    """Runs of every protocol, backbone and init with five seeds, again and again with new recipes,
    every fifth of them on miniature data and every seventh shortened.

    Unless `alike`: then runs of the first protocol, with a recipe of its own each.
    """
    rng = np.random.default_rng(0)
    plan = list(itertools.product(PROTOCOLS, BACKBONES, INITS, range(SEEDS)))
    for number in range(count):
        again, place = divmod(number, len(plan)) if alike else (number, 0)
        protocol, backbone, init, seed = plan[place]
        task, miniature = ProtocolId.read(protocol).task, alike and (number // SEEDS) % 5 == 0
        shortened = not alike or (number // SEEDS) % 7 == 0
        recipe = {f"field_{field}": float(field) for field in range(40)} | {"epochs": 100 + again}
        values = {name: float(rng.normal(50, 5)) for name in METRICS[task]}
        yield Record(
            name=f"{protocol.replace('/', '-')}-{backbone}-{init}-{again}-seed{seed}",
            kind="transfer",
            protocol=protocol,
            task=task,
            backbone=backbone,
            init=init,
            checkpoint=Checkpoint(file=f"{init}.pth", sha256="ab" * 32),
            data=Data(
                name=task,
                fingerprint="0123456789abcdef",
                train_images=100_000,
                val_images=5000,
                classes=100,
                miniature=miniature,
                standard=not miniature,
            ),
            recipe=recipe,
            recipe_hash=f"{again:012x}",
            deviations=[f"epochs 100 -> {100 + again}"] if shortened else [],
            seed=seed,
            metrics=values,
            intervals={name: (value - 0.3, value + 0.3) for name, value in values.items()},
            cost=Cost(seconds=3600.0, images_per_second=800.0, peak_memory_bytes=10**10),
            environment=Environment(
                python="3.11.9",
                torch="2.15.0",
                versions={f"library{each}": "1.2.3" for each in range(9)},
                device="a GPU",
                processes=8,
                commit="0123456789abcdef0123456789abcdef01234567",
                command="mae-bench transfer --task imagenet1k",
            ),
            started=START,
            finished=START + timedelta(minutes=number),
            complete=True,
            skipped_images=0,
        )


def write_runs(root: Path, count: int, alike: bool) -> None:
    """A run folder for each record."""
    for number, record in enumerate(draw_records(count, alike)):
        folder = root / f"{number:05}"
        write_record(folder, record)
        (folder / "run.json").write_text("{}")
        (folder / "tensorboard").mkdir()
        if number % 10 == 0:
            (folder / "predictions").mkdir()
            for image in range(PREDICTIONS):
                (folder / "predictions" / f"{image}.png").touch()


def timed(
    spent: dict[str, list[tuple[float, float]]], step: str, work: Callable, *arguments: Any
) -> Any:
    """What `work` returns; its CPU and wall-clock seconds are added to `spent`."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work(*arguments)
    took = time.process_time() - cpu, time.perf_counter() - wall
    spent.setdefault(step, []).append(took)
    return found


def measure(root: Path, count: int, rounds: int) -> tuple[int, list[tuple[str, float, float]]]:
    """Rows of the tables; (step, CPU seconds, wall-clock seconds), medians over the rounds."""
    spent: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        found = timed(spent, "read and check the records", find_runs, root)
        records = found.records
        if len(records) != count or found.skipped:
            raise SystemExit(f"read {len(records)} of {count} records, {len(found.skipped)} not")
        tables = timed(spent, "make the tables", comparison_table, records, published())
        if not timed(spent, "write them as Markdown", to_markdown, tables):
            raise SystemExit("the report is empty")
    steps = []
    for step, times in spent.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        steps.append((step, cpu, wall))
    return sum(len(table.rows) for table in tables), steps


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, one thread; Python "
        f"{platform.python_version()}, pydantic {pydantic.VERSION}. Load average "
        f"{os.getloadavg()[1]:.1f} on {os.cpu_count()} processors."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default 3)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/report_speed.md too")
    arguments = parser.parse_args()
    lines = [
        f"Medians of {arguments.rounds} rounds.",
        "",
        "| records | rows of tables | step | CPU s | wall-clock s |",
        "|---|---|---|---|---|",
    ]
    slowest = 0.0
    for count, alike in [*((count, True) for count in COUNTS), (COUNTS[-1], False)]:
        with tempfile.TemporaryDirectory() as folder:
            write_runs(Path(folder), count, alike)
            rows, steps = measure(Path(folder), count, arguments.rounds)
        total = sum(cpu for _, cpu, _ in steps)
        slowest = max(slowest, total)
        steps.append(("in all", total, sum(wall for *_, wall in steps)))
        lines += [
            f"| {count} | {rows} | {step} | {cpu:.2f} | {wall:.2f} |" for step, cpu, wall in steps
        ]
    text = "\n".join([*lines, "", machine()]) + "\n"
    print(text)
    if slowest > LIMIT_SECONDS:
        raise SystemExit(f"{COUNTS[-1]} records took {slowest:.1f} s; expected {LIMIT_SECONDS} s")
    if arguments.write:
        title = "# A report of many records\n\n`python benchmarks/report_speed.py`\n\n"
        Path(__file__).with_suffix(".md").write_text(title + text)


if __name__ == "__main__":
    main()
