import io
import re

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from results import Cell, Column, Note, Table, comparison_table, published, to_markdown, to_terminal
from results.formats.texts import cell_text

MEASURED = Column("ours", "top-1", "measured", "%")
PUBLISHED = Column("paper", "top-1", "published", "%", "MAE paper", ("1",))
DIFFERENCE = Column("difference", "top-1", "difference", "points", "MAE paper")
TABLE = Table(
    "ImageNet-1k: fine-tuning",
    (Column("backbone", "backbone", "label"), MEASURED, PUBLISHED, DIFFERENCE),
    (
        (
            Cell("vit_b"),
            Cell(83.534, std=0.102, n=3, marks=("a",)),
            Cell(83.6, decimals=1, source="MAE paper, Table 3"),
            Cell(-0.066, decimals=1),
        ),
        (Cell("vit_l"), Cell(85.9, n=1), Cell(), Cell()),
    ),
    (Note("About all."), Note("MAE paper, Table 3.", "1"), Note("epochs 100 -> 1.", "a")),
)

MARKDOWN = """\
### ImageNet-1k: fine-tuning

| backbone |                 ours: top-1 (%) | published, MAE paper: top-1 (%) <sup>1</sup> \
| difference, to MAE paper: top-1 (points) |
| -------- | ------------------------------: | -------------------------------------------: \
| ---------------------------------------: |
| vit_b    | 83.53 ± 0.10 (n=3) <sup>a</sup> |                                         83.6 \
|                                     -0.1 |
| vit_l    |                     85.90 (n=1) |                                            – \
|                                        – |

- About all.
- <sup>1</sup> MAE paper, Table 3.
- <sup>a</sup> epochs 100 -> 1.
"""

TERMINAL = """\
ImageNet-1k: fine-tuning
                                    published    difference
                            ours    MAE paper  to MAE paper
backbone                 top-1 %  top-1 % [1]  top-1 points
───────────────────────────────────────────────────────────
vit_b     83.53 ± 0.10 (n=3) [a]         83.6          -0.1
vit_l                85.90 (n=1)            –             –

·   About all.
[1] MAE paper, Table 3.
[a] epochs 100 -> 1.
"""

HOSTILE = [
    "a | b",
    "a \\| b",
    "back\\slash",
    "two\nlines\r\nand\ttabs",
    "*bold* _it_ __init__ ~~gone~~ `code`",
    "[link](http://example.org) ![x](y)",
    "<script>alert(1)</script> &copy; $x$",
    "\x1b[31mred\x1b[0m",
]


def printed(table: Table, width: int) -> list[str]:
    stream = io.StringIO()
    console = Console(width=width, file=stream, force_terminal=False)
    for renderable in to_terminal([table]):
        console.print(renderable)
    return stream.getvalue().splitlines()


def literal(text: str) -> str:
    """What a reader should see of a user's text: control characters and breaks as spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def test_markdown_is_exactly_this():
    assert to_markdown([TABLE]) == MARKDOWN
    assert to_markdown([TABLE, TABLE]) == f"{MARKDOWN}\n{MARKDOWN}"
    assert to_markdown([]) == ""


@pytest.mark.parametrize("text", [*HOSTILE, "> quote", "- item", "1. first", "# heading", "+ x"])
def test_user_text_shows_literally_in_markdown(text):
    """markdown-it, which we did not write, must see one row of two cells and one plain note."""
    columns = (Column("a", text, "label"), Column("b", "b", "label"))
    table = Table(text, columns, ((Cell(text), Cell("end")),), (Note(text),))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(to_markdown([table]))
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children or ()}
    assert kinds <= {"text", "text_special"}
    shown = ["".join(child.content for child in token.children or ()) for token in inline]
    seen = literal(text)
    assert shown == [seen, seen, "b", seen, "end", seen]


@pytest.mark.parametrize(
    ("column", "cell", "text"),
    [
        (MEASURED, Cell(83.5, n=1), "83.50 (n=1)"),
        (MEASURED, Cell(83.5, std=0.004, n=2), "83.50 ± 0.00 (n=2)"),
        (MEASURED, Cell(0.23129, decimals=4, n=1), "0.2313 (n=1)"),
        (PUBLISHED, Cell(83.6, decimals=1, source="x"), "83.6"),
        (DIFFERENCE, Cell(0.26, decimals=1), "+0.3"),
        (DIFFERENCE, Cell(-0.04, decimals=1), "0.0"),
        (DIFFERENCE, Cell(), "–"),
        (MEASURED, Cell(83.5, n=1, interval=(83.17, 83.834)), "83.50 [83.17, 83.83] (n=1)"),
        (DIFFERENCE, Cell(0.2, 1, interval=(-0.04, 0.41)), "+0.2 [0.0, +0.4]"),
    ],
)
def test_numbers(column, cell, text):
    assert cell_text(column, cell) == text


def test_terminal_names_ours_and_theirs_without_colour():
    assert "\n".join(line.rstrip() for line in printed(TABLE, 80)) == TERMINAL


def test_the_best_is_bold_in_markdown_and_underlined_in_a_terminal():
    best = Table("t", (MEASURED,), ((Cell(83.5, n=1, best=True, marks=("a",)),),), TABLE.notes[2:])
    assert "| **83.50 (n=1)** <sup>a</sup> |" in to_markdown([best])
    tokens = MarkdownIt("commonmark").enable("table").parse(to_markdown([best]))
    inline = [child.type for token in tokens for child in token.children or ()]
    assert inline.count("strong_open") == inline.count("strong_close") == 1
    stream = io.StringIO()
    console = Console(width=80, file=stream, force_terminal=True, color_system="standard")
    console.print(to_terminal([best])[0])
    (line,) = [line for line in stream.getvalue().splitlines() if "83.50" in line]
    assert "\x1b[1;4m83.50 (n=1)\x1b[0m" in line
    assert "\x1b[1m [a]\x1b[0m" in line


def test_endless_texts_are_cut_off():
    long = "x" * 100_000
    table = Table(long, (Column("a", long, "label"),), ((Cell(long),),), (Note(long),))
    assert len(to_markdown([table])) < 10_000
    assert sum(map(len, printed(table, 120))) < 10_000


@pytest.mark.parametrize("width", [80, 120])
def test_a_full_comparison_fits_the_terminal(make_record, width):
    runs = [make_record(seed=seed, metrics={"top1": 83.5 + seed / 10}) for seed in range(3)]
    (table,) = comparison_table(runs, published())
    lines = printed(table, width)
    assert max(map(len, lines)) <= width
    (ours,) = [line for line in lines if line.startswith("vit_b     mae")]
    assert " ".join(ours.split()) == "vit_b mae [a] 83.60 ± 0.10 (n=3) 83.6 [3] 83.66 [4] 0.0 [≈]"


@pytest.mark.parametrize("text", [*HOSTILE, "[red]styled[/red]", "[/]"])
def test_user_text_reaches_the_terminal_literally(text):
    table = Table(text, (Column("a", "a", "label"),), ((Cell(text),),), (Note(text),))
    lines = [line.strip() for line in printed(table, 120)]
    seen = literal(text)
    assert lines.count(seen) == 2
    assert f"· {seen}" in lines


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_wide_table_keeps_its_labels_and_every_number(width):
    titles = [f"protocol number {i} top-1" for i in range(9)]
    columns = [Column(t, t, "measured", "%") for t in titles]
    labels = (Column("backbone", "backbone", "label"), Column("init", "weights", "label"))
    numbers = tuple(Cell(10.25 + i, n=3, std=0.5) for i in range(9))
    row = (Cell("vit_mini"), Cell("scratch"), *numbers)
    lines = printed(Table("Wide", (*labels, *columns), (row,)), width)
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if "vit_mini" in line]
    assert all("scratch" in line for line in rows)
    found = [part for line in rows for part in re.findall(r"[\d.]+ ± 0\.50 \(n=3\)", line)]
    assert found == [f"{10.25 + i:.2f} ± 0.50 (n=3)" for i in range(9)]
    assert (len(rows) == 1) == (width == 200)


def test_only_the_first_labels_are_repeated():
    """The verdict of a comparison is a label too, and stands behind the numbers."""
    columns = (
        Column("metric", "metric", "label"),
        Column("a", "a" * 30, "measured"),
        Column("b", "b" * 30, "measured"),
        Column("verdict", "verdict", "label"),
    )
    row = (
        Cell("top-1 %"),
        Cell(1.0, n=1),
        Cell(2.0, n=1),
        Cell("finetune-with-a-long-name better"),
    )
    lines = printed(Table("t", columns, (row,)), 50)
    found = [line for line in lines if "top-1" in line]
    assert [" ".join(line.split()) for line in found] == [
        "top-1 % 1.00 (n=1) 2.00 (n=1)",
        "top-1 % finetune-with-a-long-name better",
    ]


def test_a_label_without_a_space_is_folded_and_not_cut():
    label = "x" * 100
    table = Table("t", (Column("a", "a", "label"), MEASURED), ((Cell(label), Cell(1.0, n=1)),))
    assert "".join(printed(table, 60)).count("x") == 100
