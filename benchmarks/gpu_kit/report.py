"""The report: Markdown of the books of all parts. Imports no torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gpu_kit.book import Found, read
from gpu_kit.parts import PARTS

REHEARSAL = (
    "**REHEARSAL on a CPU with tiny sizes. No number here says anything; this file is no result "
    "and is not to be committed.**"
)
GOALS = {
    "tests that need a GPU, passed": "all",
    "kernels within their tolerance": "all",
    "MAE ViT-L, bf16: share of the measured rate of matrix products": "55 %",
    "MAE ViT-L against the release's arrangement": "2 times",
    "loader of this machine's cores against a ViT-L step": "1 time",
}
"""in the words of the parts; what they do not name was not measured"""


class Ended(Protocol):
    name: str
    seconds: float
    said: str


def write_report(out: Path, outcomes: Sequence[Ended], rehearse: bool) -> Path:
    """Report.md, or rehearsal.md; the file appears whole."""
    file = out / ("rehearsal.md" if rehearse else "report.md")
    books = {name: read(out / f"{name}.jsonl") for name in PARTS}
    partial = file.with_suffix(".partial")
    partial.write_text("\n\n".join(sections(outcomes, books, rehearse)) + "\n")
    partial.replace(file)
    return file


def sections(outcomes: Sequence[Ended], books: dict[str, Found], rehearse: bool) -> Iterable[str]:
    yield "# GPU kit"
    if rehearse:
        yield REHEARSAL
    yield "`python benchmarks/gpu.py`" + " --rehearse" * rehearse
    yield books["machine"].facts.get("machine", "What the machine is, is not known.")
    yield "## Goals\n\n" + markdown(goals(books.values(), rehearse))
    yield "## Parts\n\n" + markdown(
        {"part": PARTS[each.name].title, "seconds": f"{each.seconds:.0f}", "outcome": each.said}
        for each in outcomes
    )
    for heading, kind in (("Missing here", "missing"), ("Failed", "failed")):
        lines = {
            f"- {PARTS[name].title}: {each['what']}: {each['why']}": None
            for name, found in books.items()
            for each in getattr(found, kind)
        }
        if lines:
            yield f"## {heading}\n\n" + "\n".join(lines)
    mark = "REHEARSAL: " * rehearse
    for name, found in books.items():
        if found.rows or found.notes:
            yield f"## {mark}{PARTS[name].title}"
        for title, rows in found.rows.items():
            yield f"### {mark}{title}\n\n" + markdown(rows)
        if found.notes:
            yield "\n".join(f"- {note}" for note in found.notes)


def goals(books: Iterable[Found], rehearse: bool) -> list[dict[str, Any]]:
    """All goals, each with whether it is reached; a rehearsal reaches none."""
    found = {each["name"]: each for book in books for each in book.goals}
    rows = []
    for name, least in GOALS.items():
        value = found[name]["value"] if name in found else None
        measured, verdict = "", "not measured"
        if value is not None:
            measured = f"{value:.3g} {found[name]['unit']}"
            verdict = "reached" if value >= found[name]["least"] else "not reached"
        if rehearse:
            verdict = "rehearsal"
        rows.append({"goal": name, "at least": least, "measured": measured, "": verdict})
    return rows


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """A table whose columns are all that any row has, in the order of their coming."""
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else ""
    text = text or (f"{value:,.0f}" if isinstance(value, int | float) else str(value))
    return text.replace("|", "\\|").replace("\n", " ")
