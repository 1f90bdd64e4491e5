import csv
import io

import pandas as pd
import pytest
from made_records import make

from results import Cell, Column, Note, Table, comparison_table, published, to_csv

RUNS = tuple(make(name=name) for name in ("=cmd(); a", "b", "c"))
TABLE = Table(
    "ImageNet-1k: fine-tuning",
    (
        Column("backbone", "backbone", "label"),
        Column("init", "weights", "label"),
        Column("ours", "top-1", "measured", "%"),
        Column("paper", "top-1", "published", "%", "MAE paper", ("1",)),
        Column("difference", "top-1", "difference", "points", "MAE paper"),
    ),
    (
        (
            Cell("vit_b"),
            Cell("mae", marks=("b",)),
            Cell(83.53456, std=0.102, n=3, marks=("a",), best=True, runs=RUNS),
            Cell(83.6, decimals=1, source="MAE paper, Table 3"),
            Cell(-0.06544, decimals=1),
        ),
        (Cell("vit_l"), Cell("dino"), Cell(85.9, n=1, interval=(85.5, 86.25)), Cell(), Cell()),
    ),
    (Note("About all."), Note("by its paper.", "1"), Note("short.", "a"), Note("weights.", "b")),
)
CSV = """\
table,row,backbone,weights,kind,column,unit,publisher,value,std,n,low,high,best,source,text
T,1,vit_b,mae,note,weights,,,,,,,,,,weights.
T,1,vit_b,mae,measured,top-1,%,,83.53456,0.102,3,,,yes,,
T,1,vit_b,mae,run,top-1,%,,,,,,,,,'=cmd(); a
T,1,vit_b,mae,run,top-1,%,,,,,,,,,b
T,1,vit_b,mae,run,top-1,%,,,,,,,,,c
T,1,vit_b,mae,note,top-1,%,,,,,,,,,short.
T,1,vit_b,mae,published,top-1,%,MAE paper,83.6,,,,,,"MAE paper, Table 3",
T,1,vit_b,mae,difference,top-1,points,MAE paper,-0.1,,,,,,,
T,2,vit_l,dino,measured,top-1,%,,85.9,,1,85.5,86.25,,,
T,,,,note,top-1,%,MAE paper,,,,,,,,by its paper.
T,,,,note,,,,,,,,,,,About all.
""".replace("T,", "ImageNet-1k: fine-tuning,")

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "\r\n=1+1",
    'a "quote", a comma\nand a line',
    "x,=1+1",
    "w" * 10_000,
]


def test_csv_is_exactly_this():
    assert to_csv([TABLE]) == CSV
    assert to_csv([]) == CSV.splitlines(keepends=True)[0].replace("backbone,weights,", "")
    assert to_csv([TABLE, TABLE]).count("\n") == 2 * (CSV.count("\n") - 1) + 1


def test_pandas_finds_every_number_again(make_record):
    runs = [make_record(seed=seed, metrics={"top1": 83.1 + seed / 3}) for seed in range(3)]
    (table,) = comparison_table(runs, published(), costs=True)
    frame = pd.read_csv(io.StringIO(to_csv([table])))
    numbers = frame[~frame.kind.isin(["note", "run"])]
    expected = [
        (column.kind, cell.value)
        for row in table.rows
        for column, cell in zip(table.columns, row, strict=True)
        if isinstance(cell.value, float)
    ]
    assert numbers.kind.tolist() == [kind for kind, _ in expected]
    exact = [value for kind, value in expected if kind != "difference"]
    assert numbers[numbers.kind != "difference"].value.tolist() == exact
    assert numbers[numbers.kind == "published"].source.notna().all()
    notes = frame[(frame.kind == "note") & frame.column.isna()].text.tolist()
    assert notes == [note.text for note in table.notes if not note.mark]
    ours = frame[(frame.kind == "run") & (frame.column == "top-1") & (frame.unit == "%")]
    assert ours.text.tolist() == ["run"] * 3
    assert set(ours.weights) == {"mae"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_a_formula_or_breaks_a_row(text):
    columns = (Column("a", text, "label"), Column("b", text, "measured"))
    rows = ((Cell(text, marks=("m",)), Cell(-1.5, n=1)),)
    table = Table(text, columns, rows, (Note(text), Note(text, "m")))
    lines = list(csv.reader(io.StringIO(to_csv([table])), strict=True))
    assert [len(line) for line in lines] == [15] * 4
    assert lines[2][7] == "-1.5"
    for line in lines:
        for place, cell in enumerate(line):
            assert place == 7 or not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            assert "\n" not in cell
            assert len(cell) < 2100
