"""The tables of the MAE paper with runs of ours beside its numbers.

A run stands beside a number whose protocol is the run's by `HEADLINES`, and in a table of
pre-training settings in the row of its own pre-training.
"""

import difflib
from collections.abc import Iterable

from results.errors import ResultsError
from results.paper.filling import Filling
from results.paper.miniature import in_miniature
from results.paper.places import Places
from results.paper.tables import PAPER_TABLES
from results.published import Published
from results.record import Record
from results.table import Table


def paper_table(
    name: str,
    records: Iterable[Record],
    published: Iterable[Published],
    *,
    intervals: bool = False,
) -> Table:
    """One table of the MAE paper, by its key in PAPER_TABLES, with our runs beside its numbers.

    Measured columns are there where a run of ours fits, difference columns where one is
    comparable. Several configurations that fit one place take a line each. Miniature runs are
    left out, with a note. Raises ResultsError for an unknown name.
    """
    if name not in PAPER_TABLES:
        near = difflib.get_close_matches(name, PAPER_TABLES, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ResultsError(
            f"unknown table {name!r}; {hint}there are {', '.join(PAPER_TABLES)} and all"
        )
    records = list(records)
    photos = [record for record in records if not record.data.miniature]
    places = Places(PAPER_TABLES[name], f"Table {name}", photos, published)
    return Filling(places, intervals, len(records) - len(photos)).table()


def paper_tables(
    name: str,
    records: Iterable[Record],
    published: Iterable[Published],
    *,
    intervals: bool = False,
) -> list[Table]:
    """The table of that name, or every one for "all".

    Runs of the miniature world follow in tables of the same layout, without the paper's numbers.
    """
    names = list(PAPER_TABLES) if name == "all" else [name]
    records, published = list(records), list(published)
    drawn = [record for record in records if record.data.miniature]
    tables = []
    for each in names:
        tables.append(paper_table(each, records, published, intervals=intervals))
        if drawn:
            places = Places(in_miniature(PAPER_TABLES[each], drawn), "", drawn, [])
            table = Filling(places, intervals).table()
            tables += [table] if any(c.kind == "measured" for c in table.columns) else []
    return tables
