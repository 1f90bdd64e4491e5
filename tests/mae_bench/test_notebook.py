"""The notebook of the documentation, run as its reader runs it; and what notebooks show of ours."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import make
from rich.console import Console

import mae_bench
from mae_bench import calls, progress, provenance
from mae_bench.cli import call
from mae_bench.run.files import RECORD_FILE
from mae_bench.words import hand_in
from results import ResultsError, comparison_table, published, write_record
from results.record import Record
from results.table import Cell, Column, Note, Table, Tables

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs, one of another task, and a broken one."""
    records = [
        make(name="one", seed=0),
        make(
            name="two", seed=1, metrics={"top1": 84.0, "top5": 97.0}, intervals={"top1": (83, 85)}
        ),
        make(name="box", task="coco", protocol="coco/mask_rcnn-vitdet@1", metrics={"ap_box": 50.1}),
    ]
    for record in records:
        (tmp_path / record.name).mkdir()
        write_record(tmp_path / record.name, record)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / RECORD_FILE).write_text("{")
    return tmp_path


def test_records_are_a_data_frame(runs: Path, capsys) -> None:
    import pandas

    frame = mae_bench.records(runs)
    assert isinstance(frame, pandas.DataFrame)
    assert frame["name"].tolist() == ["box", "one", "two"]
    assert frame.loc[frame["name"] == "two", "top1_high"].item() == 85
    assert frame["ap_box"].notna().tolist() == [True, False, False]
    columns = frame.columns.tolist()
    assert columns.index("seed") < columns.index("top1") < columns.index("complete")
    assert frame["hours"].tolist() == [1.0] * 3
    assert str(frame["finished"].dt.tz) == "UTC"
    assert "left out" in capsys.readouterr().out
    assert mae_bench.records(runs / "one").shape[0] == 1


def test_no_records_and_no_folder(tmp_path: Path) -> None:
    assert mae_bench.records(tmp_path).empty
    with pytest.raises(ResultsError, match="no such folder"):
        mae_bench.records(tmp_path / "nowhere")


def test_without_pandas_it_says_what_to_install(runs: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ResultsError, match=r"pip install 'mae-bench\[notebook\]'"):
        mae_bench.records(runs)


def test_importing_imports_no_pandas() -> None:
    code = "import sys, mae_bench, mae_bench.records; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def table_of(records: list[Record]) -> Table:
    hand_in()
    (table,) = comparison_table(records, published())
    return table


def test_a_table_as_a_data_frame_has_whole_numbers() -> None:
    records = [
        make(name=f"r{seed}", seed=seed, metrics={"top1": 83.5 + seed / 3}) for seed in (0, 1)
    ]
    frame = table_of(records).to_pandas()
    row = frame[frame["backbone"] == "vit_b"].iloc[0]
    (ours,) = [name for name in frame if name.startswith("ours:") and name.endswith("(%)")]
    assert row[ours] == pytest.approx(83.5 + 1 / 6, abs=1e-12)
    assert row[f"{ours}, runs"] == 2
    assert row[f"{ours}, std"] == pytest.approx(0.2357, abs=1e-4)
    assert any(name.startswith("published, MAE paper") for name in frame)
    assert frame.attrs["title"] == table_of(records).title


def test_two_columns_of_one_heading_stay_two() -> None:
    columns = (Column("a", "x", "label"), Column("b", "x", "label"))
    frame = Table("t", columns, ((Cell("1"), Cell("2")),)).to_pandas()
    assert frame.columns.tolist() == ["x", "x [b]"]


def test_a_notebook_shows_tables_and_runs_no_markup_of_records() -> None:
    evil = "<script>alert(1)</script>"
    table = Table(
        f"a {evil}",
        (Column("label", "b", "label"), Column("ours", "top-1", "measured", "%", marks=("1",))),
        ((Cell(evil), Cell(83.534, n=1, best=True)),),
        (Note(f"note {evil}", "1"),),
    )
    page = Tables([table])._repr_html_()
    assert page == table._repr_html_()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    assert "<b>83.53 (n=1)</b>" in page
    assert "<th>ours: top-1 (%)<sup>1</sup></th>" in page
    assert isinstance(mae_bench.report.__wrapped__, object)


def test_the_package_lists_its_functions_and_has_types() -> None:
    assert {"pretrain", "transfer", "report", "records"} <= set(dir(mae_bench))
    for package in ("mae_bench", "backbones", "tasks", "results"):
        assert (Path(mae_bench.__file__).parents[1] / package / "py.typed").is_file()
    assert mae_bench.transfer.__name__ == "transfer"
    assert "checkpoint" in mae_bench.transfer.__doc__


@pytest.mark.parametrize("argv", [["x/ipykernel_launcher.py", "-f", "k.json"], [""], ["-c"]])
def test_a_record_says_the_call_where_no_command_was_typed(argv, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    told = []

    def work(task: str = "a", seed: int = 0, **overrides: object) -> None:
        told.append(provenance.command(1))
        if seed:
            calls.remembered("inner", work)()  # the outer call is what the user typed

    calls.remembered("transfer", work)("coco", seed=3, out=Path("/r"), epochs=1)
    assert told == ["mae_bench.transfer(task='coco', seed=3, out='/r', epochs=1)"] * 2
    assert calls.called.get() is None


def test_a_command_line_is_told_as_it_was(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/mae-bench", "transfer", "--seed", "1"])
    told = []
    calls.remembered("transfer", lambda **_: told.append(provenance.command(1)))(seed=1)
    assert told == ["mae-bench transfer --seed 1"]


def test_progress_in_a_notebook_is_a_bar(monkeypatch) -> None:
    """rich draws it by ipywidgets; without these it is a line now and then, as in a file."""
    monkeypatch.setattr(progress, "console", Console(force_jupyter=True))
    assert progress.in_notebook()
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert not progress.in_notebook()
    monkeypatch.setattr(progress, "console", Console(force_jupyter=False))
    assert not progress.in_notebook()


LISTS = {
    "runs list": ("name", "metrics"),
    "data list": ("name", "classes"),
    "weights list": ("name", "note"),
    "doctor": ("status", "what"),
}


@pytest.mark.parametrize("command", LISTS)
def test_json_of_what_is_listed(command: str, runs: Path, monkeypatch, capsys) -> None:
    where = ["--runs", str(runs)] if command == "runs list" else []
    with contextlib.suppress(SystemExit):  # where the doctor has found something
        call([*command.split(), "--json", *where])
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 3
    assert all(set(LISTS[command]) <= set(row) for row in rows)


def test_json_of_runs_has_what_is_broken_too(runs: Path, capsys) -> None:
    assert call(["runs", "list", "--json", "--runs", str(runs), "--task", "coco"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["state"], row["metrics"]) == ("box", "finished", {"ap_box": 50.1})
    assert call(["runs", "list", "--json", "--runs", str(runs)]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states["broken"] == "broken"


def test_json_of_a_checkpoint(pretrained: Path, capsys) -> None:
    assert call(["weights", "inspect", str(pretrained / "backbone.safetensors"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backbones"] == ["vit_mini"]


@pytest.mark.slow
def test_the_notebook_of_the_documentation(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [
        "".join(each["data"]["text/html"]) for each in shown if "text/html" in each.get("data", {})
    ]
    assert any("dataframe" in page for page in pages)
    assert any("<caption>" in page for page in pages)
    kinds = {kind for each in shown for kind in each.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" in kinds  # a progress bar
    said = "".join(each.get("text", "") for each in shown)
    assert "mae_bench.transfer(task='imagenet1k', protocol='linear', out='runs', execution=" in said
