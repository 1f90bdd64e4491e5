"""`mae-bench report`: the records of runs beside the published numbers. Imports no torch."""

import os
from collections.abc import Iterable
from pathlib import Path

from mae_bench.errors import RunError
from mae_bench.progress import console, say
from mae_bench.run_files import atomic
from results import (
    Record,
    Table,
    comparison_table,
    published,
    read_records,
    record_folders,
    to_markdown,
    to_markdown_pictures,
    to_terminal,
)

PICTURES = {
    "reconstructions.png": "reconstructions",
    "predictions.png": "ground truth and predictions",
}
"""file in a run folder -> what it shows"""


def report(runs: str | Path = "runs", output: str | Path | None = None) -> list[Table]:
    """Print the tables of all records below `runs` and write them as Markdown.

    Markdown goes to `output`, by default report.md in `runs`, with the runs' pictures. A broken
    record is named and left out. Raises `results.ResultsError` if `runs` is no folder, `RunError`
    if `output` is one.
    """
    file = Path(output) if output is not None else Path(runs) / "report.md"
    if file.is_dir():
        raise RunError(f"--output {file}: is a folder; expected the name of a Markdown file in it")
    records, skipped = read_records(runs)
    for each in skipped:
        say(f"left out {each.path}: {each.reason}")
    if not records:
        say(f"no records in {runs} yet; `mae-bench transfer` and `pretrain` write them")
        return []
    tables = show(records)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as stream:
        text = to_markdown(tables) + to_markdown_pictures(pictures(Path(runs), file.parent))
        stream.write(text.encode())
    say(f"written to {file}")
    return tables


def show(records: Iterable[Record]) -> list[Table]:
    """Print the tables of some records."""
    tables = comparison_table(records, published())
    for renderable in to_terminal(tables):
        console.print(renderable, soft_wrap=False)
    return tables


def pictures(runs: Path, beside: Path) -> list[tuple[str, str]]:
    """Titles of the pictures of finished runs, and their paths as seen from a folder."""
    found = []
    for folder in record_folders(runs):
        name = folder.relative_to(runs).as_posix()
        for file, what in PICTURES.items():
            if (folder / file).is_file():
                path = Path(os.path.relpath(folder / file, beside)).as_posix()
                found.append((f"{name}: {what}", path))
    return found
