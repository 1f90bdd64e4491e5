from dataclasses import replace

import pytest

from results import Cell, Column, Note, ResultsError, Table
from results.labels import as_title

LABEL = Column("backbone", "backbone", "label")
OURS = Column("ours", "top-1", "measured", "%")
THEIRS = Column("theirs", "top-1", "published", "%", "MAE paper")
DIFFERENCE = Column("difference", "top-1", "difference", "points")
MEASURED = Cell(83.5, n=1)
PUBLISHED = Cell(83.6, decimals=1, source="MAE paper: arXiv 2111.06377, Table 3")


def table(column: Column, cell: Cell, notes: tuple[Note, ...] = ()) -> Table:
    return Table("t", (LABEL, column), ((Cell("vit_b"), cell),), notes)


def test_each_kind_of_number_fits_its_own_column():
    for column, cell in ((OURS, MEASURED), (THEIRS, PUBLISHED), (DIFFERENCE, Cell(-0.1))):
        assert table(column, cell).rows[0][1] is cell
        assert table(column, Cell()).rows[0][1].value is None


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        (OURS, PUBLISHED, "measured and published numbers never share a column"),
        (THEIRS, MEASURED, "measured and published numbers never share a column"),
        (DIFFERENCE, PUBLISHED, "measured and published numbers never share a column"),
        (OURS, Cell(83.5), "needs the count of its runs"),
        (OURS, Cell(83.5, std=0.0, n=1), "a spread needs at least two runs"),
        (OURS, Cell(float("nan"), n=1), "not a finite number"),
        (OURS, replace(MEASURED, interval=(84.0, 83.0)), "are no ends of an interval"),
        (OURS, replace(MEASURED, interval=(83.0, float("inf"))), "are no ends of an interval"),
        (OURS, Cell("83.5", n=1), "not a finite number"),
        (Column("x", "x", "label"), Cell(1.0), "a label is a text"),
        (OURS, replace(MEASURED, marks=("a",)), r"explains no mark \['a'\]"),
        (replace(OURS, marks=("1",)), MEASURED, r"explains no mark \['1'\]"),
    ],
)
def test_a_table_that_breaks_a_rule_cannot_be_made(column, cell, reason):
    with pytest.raises(ResultsError, match=reason):
        table(column, cell)


def test_shape_and_keys_are_checked():
    with pytest.raises(ResultsError, match="a row of 1 cells; expected 2"):
        Table("t", (LABEL, OURS), ((Cell("vit_b"),),))
    with pytest.raises(ResultsError, match="two columns of one key"):
        Table("t", (OURS, OURS), ())


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("images in class folders: fine-tuning", "Images in class folders: fine-tuning"),
        ("iNaturalist 2017: linear probing", "iNaturalist 2017: linear probing"),
        ("MoCo v3 pre-training", "MoCo v3 pre-training"),
        ("BEiT pre-training", "BEiT pre-training"),
        ("", ""),
    ],
)
def test_titles_begin_with_a_capital(text, title):
    assert as_title(text) == title
