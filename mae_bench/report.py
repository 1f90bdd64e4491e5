"""`mae-bench report`: the records of runs beside the published numbers. Imports no torch."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mae_bench.errors import RunError
from mae_bench.progress import console, say
from mae_bench.report_page import keep_up, page, put
from mae_bench.report_runs import FoundRuns, Wanted, find_runs, logs, pictures, tell_damage
from mae_bench.words import hand_in
from results import Record, Table, comparison_table, paper_tables, published
from results import formats as writers
from results.formats import FORMATS, SHOWN, WITHOUT_FIGURES, Content
from results.table import Tables
from results.text import one_line

if TYPE_CHECKING:
    from results.figures import Drawn

DEFAULT_FORMATS = ("md", "html")
FIGURES = "figures"
"""folder beside the report"""


def report(
    runs: str | Path = "runs",
    output: str | Path | None = None,
    *,
    table: Sequence[str] = (),
    compare: tuple[str, str] | None = None,
    costs: bool = False,
    intervals: bool = False,
    formats: Collection[str] = DEFAULT_FORMATS,
    watch: bool = False,
) -> Tables:
    """Print the tables of all records below `runs` and write them, with figures and pictures.

    `table` names tables of the MAE paper (1a to 1f, 2 to 7, 12, 13, partial, all) to show in its
    own layout; by default there is a table for each protocol. `compare` names two runs, folders of
    runs or patterns, and tests the difference of their scores. `costs` adds columns of what runs
    took, `intervals` those of the scores. Files are report.md and so on in `runs`, for other tables
    report-table-3.md or report-compare.md, or `output` with the ending of each format; an ending
    that it has is a format too. Figures go to the folder
    figures beside them. A broken record is named and left out. `watch` writes the HTML page again
    while runs are under way, until it is interrupted. Raises `RunError` or `results.ResultsError`
    for bad input.
    """
    hand_in()
    if costs and table:
        raise RunError("--costs adds to the tables of protocols, not to the paper's; leave it out")
    for name in table:
        paper_tables(name, [], published())  # a name that there is none of is said at once
    wanted = Wanted(table, compare, costs, intervals)
    named = Path(runs) / wanted.name if output is None else Path(output)
    if output is not None and named.is_dir():
        raise RunError(f"--output {output}: is a folder; expected the name of a file in it")
    files = output_files(named, [*formats, "html"] if watch else formats)
    if watch:
        keep_up(Path(runs), files, wanted)
    found = find_runs(runs)
    for each in found.skipped:
        say(f"left out {one_line(str(each.path))}: {each.reason}")
    if not found.records:
        shown = "; what follows is published alone" if table else ""
        say(f"no records in {runs} yet; `mae-bench transfer` and `pretrain` write them{shown}")
        if not table or compare:
            return Tables()
    tables = Tables(wanted.tables(found))
    print_tables(tables)
    write(found, tables, files)
    return tables


def show(records: Iterable[Record]) -> list[Table]:
    """Print the tables of some records."""
    hand_in()
    tables = comparison_table(records, published())
    print_tables(tables)
    return tables


def print_tables(tables: Iterable[Table]) -> None:
    for renderable in writers.write("terminal", Content(tuple(tables))):
        console.print(renderable, soft_wrap=False)


MEANT = {"markdown": "md", "latex": "tex", "htm": "html"}
"""other names of formats, for a hint"""


def output_files(chosen: Path, formats: Collection[str]) -> dict[str, Path]:
    """The file of each format that is asked for, or that `chosen` ends in; `RunError` if a format
    is none."""
    there_are = [name for name in FORMATS if name not in SHOWN]
    for name in formats:
        if name not in there_are:
            words = [MEANT.get(word, word) for word in name.lower().replace(",", " ").split()]
            meant = bool(words) and set(words) <= set(there_are)
            hint = f"did you mean --formats {' '.join(words)}? " if meant else ""
            raise RunError(f"unknown format {name!r}; {hint}there are {', '.join(there_are)}")
    ending = chosen.suffix.removeprefix(".")
    files: dict[str, Path] = {}
    for name in there_are:
        if name == ending or (name == "md" and ending and ending not in there_are):
            files[name] = chosen
        elif name in formats and ending in there_are:
            files[name] = chosen.with_suffix(f".{name}")
        elif name in formats:
            files[name] = chosen.with_name(f"{chosen.name}.{name}")
        if name in files and files[name].is_dir():
            raise RunError(f"{files[name]}: is a folder; choose another --output")
    return files


def write(found: FoundRuns, tables: Sequence[Table], files: dict[str, Path]) -> None:
    """Write the report in each format, and its figures."""
    from results.drawing import save  # matplotlib takes a second to import
    from results.figures import figures

    folder = next(iter(files.values())).parent
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Drawn] = []
    if not WITHOUT_FIGURES.issuperset(files):
        curves = logs(found.finished)
        tell_damage(curves)
        drawn = figures(found.records, published(), curves)
    shown = []
    for each in drawn:
        (folder / FIGURES).mkdir(exist_ok=True)
        put(folder / FIGURES / f"{each.key}.svg", each.svg)
        put(folder / FIGURES / f"{each.key}.png", save(each.figure, "png"))
        put(folder / FIGURES / f"{each.key}.pdf", save(each.figure, "pdf"))
        shown.append((each.title, f"{FIGURES}/{each.key}.png"))
    there = [*shown, *pictures(found, folder)]
    content = Content(tables, there, lambda: page(found, tables, drawn))
    for name, file in files.items():
        put(file, writers.write(name, content).encode())
        say(f"written to {file}")
    if drawn:
        count = "1 figure" if len(drawn) == 1 else f"{len(drawn)} figures"
        say(f"{count} as svg, png and pdf in {folder / FIGURES}")
