"""Every format names the runs behind a number."""

import csv
import io

from made_records import make, pretrained
from rich.console import Console

from results import (
    comparison_table,
    paper_table,
    published,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)
from results.behind import MOST_NAMES, MOST_ROWS, runs_note

TOLD = "runs: vit_b mae [a]: a-run, b-run; vit_l mae [a]: c."


def tables():
    records = [make(name="b-run", seed=1), make(name="a-run"), make(name="c", backbone="vit_l")]
    return comparison_table(records, published())


def text_of(renderables) -> str:
    console = Console(width=400, file=io.StringIO(), color_system=None)
    for each in renderables:
        console.print(each)
    return console.file.getvalue()


def test_every_format_names_the_runs():
    found = tables()
    assert f"- {TOLD}".replace("[", r"\[").replace("]", r"\]") in to_markdown(found)
    assert TOLD in text_of(to_terminal(found))
    latex = r"vit\_b mae {[}a{]}: a-{}run, b-{}run; vit\_l mae {[}a{]}: c.\par"
    assert latex in to_latex(found)
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    behind = [row["text"] for row in rows if row["kind"] == "run" and row["unit"] == "%"]
    assert behind == ["a-run", "b-run", "c"]


def test_a_number_has_a_source_or_runs():
    rows = list(csv.DictReader(io.StringIO(to_csv(tables()))))
    theirs = [row for row in rows if row["kind"] == "published"]
    assert theirs
    assert all(row["source"] for row in theirs)
    ours = [row for row in rows if row["kind"] in ("measured", "difference")]
    assert {row["kind"] for row in ours} == {"measured", "difference"}
    places = ("row", "column", "unit", "publisher")
    named = {tuple(map(row.get, places)) for row in rows if row["kind"] == "run"}
    assert all(tuple(map(row.get, places)) in named and not row["source"] for row in ours)
    assert not any(tuple(map(row.get, places)) in named for row in theirs)


def test_columns_of_other_runs_are_told_apart():
    """A miniature row has a run of its own for each protocol."""
    data = make().data.model_copy(update={"miniature": True, "standard": False})
    runs = [
        make(name=name, data=data, protocol=f"imagenet1k/{name}@1") for name in ("linear", "knn")
    ]
    (table,) = comparison_table(runs, [])
    assert runs_note(table) == (
        "runs: vit_b mae [a]: linear probing top-1 linear / k-nearest neighbours top-1 knn."
    )


def test_a_label_that_is_empty_leaves_no_gap():
    """Of a method that the paper lacks no pre-training data is known."""
    table = paper_table("3", [make(name="one", init="mine", metrics={"top1": 84.4})], published())
    assert runs_note(table).startswith("runs: mine: one")


def test_only_the_runs_that_have_the_score_stand_behind_it():
    runs = [make(name="with"), make(name="without", seed=1, metrics={"top5": 96.0})]
    (table,) = comparison_table(runs, published())
    assert "mae [a]: with." in runs_note(table)


def test_very_many_runs_and_rows_are_counted():
    seeds = [make(name=f"r{seed:03}", seed=seed) for seed in range(MOST_NAMES + 5)]
    (table,) = comparison_table(seeds, published())
    assert runs_note(table).endswith("r019 and 5 more.")
    apart = [make(name=f"r{i}", checkpoint=pretrained(0, f"{i}{i}")) for i in range(3)]
    assert "r2" in runs_note(comparison_table(apart, [])[0])
    many = [make(name=f"r{i}", recipe_hash=f"{i:012x}") for i in range(MOST_ROWS + 7)]
    (table,) = comparison_table(many, [])
    assert "; and 7 more rows, whose runs the CSV and the page name." in runs_note(table)
    assert to_csv([table]).count(",r") >= MOST_ROWS + 7
