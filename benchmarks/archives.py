"""Training batches out of archives next to the same files in folders.

    python benchmarks/archives.py            # prints the table
    python benchmarks/archives.py --write    # and writes it to benchmarks/archives.md

Every pipeline is `UnlabelledImages` in one process with one thread, from the page cache. Batches
are compared to the bit before anything is timed; then the pipelines take turns, a round each, and
each round of an archive is divided by the round of the folder beside it. Times are CPU time, so
that other work on the machine disturbs all of them alike.
"""

import argparse
import os
import platform
import statistics
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from data_loading import photo

from tasks.images import UnlabelledImages

IMAGES, COPIES = 40, 25
"""photos, and files of each of them: so many names that finding one costs what it does"""
ROUNDS = 31
BATCH = 40


def make(place: Path) -> dict[str, Path]:
    """The same files in a folder and in archives."""
    rng = np.random.default_rng(0)
    folder = place / "folder"
    folder.mkdir()
    for number in range(IMAGES):
        image = photo(rng, *((500, 375) if number % 3 else (375, 500)))
        for copy in range(COPIES):
            image.save(folder / f"ILSVRC2012_{copy:03d}_{number:05d}.jpg", quality=90)
    found = {"folder": folder, "tar": place / "a.tar"}
    files = sorted(folder.iterdir())
    with tarfile.open(found["tar"], "w") as tar:
        for file in files:
            tar.add(file, f"a/{file.name}")
    for name, method in (("zip, stored", zipfile.ZIP_STORED), ("zip, deflated", 8)):
        found[name] = place / f"{method}.zip"
        with zipfile.ZipFile(found[name], "w", method) as archive:
            for file in files:
                archive.write(file, f"a/{file.name}")
    return found


def seconds(images: UnlabelledImages, round_: int) -> float:
    keys = [(round_, (round_ * BATCH + row) % len(images)) for row in range(BATCH)]
    start = time.process_time()
    images.__getitems__(keys)
    return time.process_time() - start


def table() -> str:
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary
        pipelines = {name: UnlabelledImages([p], 224) for name, p in make(Path(temporary)).items()}
        first = pipelines["folder"]
        expected = first.__getitems__([(1, row) for row in range(BATCH)])["images"]
        for name, images in pipelines.items():
            same = images.__getitems__([(1, row) for row in range(BATCH)])["images"]
            if images.fingerprint != first.fingerprint or not torch.equal(same, expected):
                raise SystemExit(f"{name}: other images than the folder's")
        times: dict[str, list[float]] = {name: [] for name in pipelines}
        for round_ in range(ROUNDS):
            order = list(pipelines) if round_ % 2 else list(pipelines)[::-1]
            for name in order:
                times[name].append(seconds(pipelines[name], round_))
    lines = [
        f"{IMAGES * COPIES} JPEG files, 500 x 375 to 224 x 224; {ROUNDS} rounds of {BATCH} images; "
        f"Python {platform.python_version()}. Batches and fingerprints are equal.",
        "",
        "| read from | ms per image, median (min) | throughput by the folder's (quartiles) |",
        "|---|---|---|",
    ]
    for name, own in times.items():
        ratios = [b / a for a, b in zip(own, times["folder"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        each = 1000 / BATCH
        ratio = "1.00" if name == "folder" else f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {name} | {each * statistics.median(own):.3f} ({each * min(own):.3f}) | {ratio} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write benchmarks/archives.md")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    found = table()
    print(found)
    if write:
        text = f"# Training batches out of archives\n\n`python benchmarks/archives.py`\n\n{found}\n"
        Path(__file__).with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
