"""The formats of a report: each by its name, and another one by one line."""

import io
import json
import sys
from types import ModuleType

import pytest
from made_records import make
from rich.console import Console

import mae_bench
from results import comparison_table, published, write_record
from results.formats import FORMATS, SHOWN, Content, write


@pytest.fixture
def tables():
    runs = [make(name=f"run-{seed}", seed=seed, metrics={"top1": 83.1 + seed}) for seed in (0, 1)]
    return comparison_table(runs, published())


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "html"])
def test_every_format_holds_the_numbers_and_their_runs(name, tables):
    text = write(name, Content(tables, [("a picture", "p.png")]))
    if name in SHOWN:
        console = Console(width=200, file=io.StringIO())
        console.print(*text)
        text = console.file.getvalue()
    for part in ("83.6", "run", "MAE paper"):
        assert part in text


def test_the_page_is_made_when_it_is_asked_for(tables):
    assert write("html", Content(tables, page=lambda: "<page>")) == "<page>"


def test_json_has_whole_numbers_with_their_runs_and_sources(tables):
    found = json.loads(write("json", Content(tables)))
    (table,) = found["tables"]
    kinds = [column["kind"] for column in table["columns"]]
    first = dict(zip(kinds, table["rows"][0], strict=False))
    assert first["measured"]["value"] == pytest.approx(83.6, abs=1e-12)
    assert first["measured"]["std"] == pytest.approx(0.5**0.5)
    assert first["measured"]["runs"] == ["run-0", "run-1"]
    assert first["published"]["source"].startswith("mae repo: ")
    for row in table["rows"]:
        for kind, cell in zip(kinds, row, strict=True):
            if isinstance(cell["value"], float):
                assert ("source" in cell) == (kind == "published")
                assert ("runs" in cell) == (kind in ("measured", "difference"))
    marks = {note["mark"] for note in table["notes"]}
    assert {
        mark for row in table["rows"] for cell in row for mark in cell.get("marks", [])
    } <= marks


def test_another_format_is_one_file_and_one_line(tmp_path, monkeypatch):
    module = ModuleType("toy_format")
    module.write = lambda content: f"{len(content.tables)} tables\n"
    monkeypatch.setitem(sys.modules, "toy_format", module)
    monkeypatch.setitem(FORMATS, "toy", "toy_format")
    write_record(tmp_path / "one", make())
    mae_bench.report(tmp_path, formats=("toy", "json"))
    assert (tmp_path / "report.toy").read_text() == "1 tables\n"
    assert json.loads((tmp_path / "report.json").read_text())["version"] == 1
