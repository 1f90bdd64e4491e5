"""`mae-bench report`: what it writes where, and the page that follows runs under way."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from made_records import make
from PIL import Image
from small_runs import PATIENCE

import mae_bench
from mae_bench.cli import call
from mae_bench.errors import RunError
from mae_bench.report import output_files
from mae_bench.report_page import REFRESH_SECONDS, keep_up
from mae_bench.report_runs import Wanted, find_runs
from results import PAPER_TABLES, Cost, Record, ResultsError, write_record


def record(name: str, **changes) -> Record:
    """A comparable fine-tuning of ViT-B from MAE weights."""
    cost = Cost(seconds=7200.0, images_per_second=812.5, peak_memory_bytes=2**34)
    intervals = {"top1": (83.2, 83.8)}
    return make(name=name, **{"cost": cost, "intervals": intervals, **changes})


@pytest.fixture
def runs(tmp_path) -> Path:
    """Three finished runs, one with a log and a picture."""
    root = tmp_path / "runs"
    write_record(root / "one", record("one"))
    write_record(root / "two", record("two", seed=1, metrics={"top1": 83.7}))
    write_record(root / "group" / "large", record("large", backbone="vit_l"))
    log(root / "one", 5)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(root / "one" / "predictions.png")
    return root


def log(folder: Path, steps: int) -> None:
    lines = [{"step": i, "epoch": i / 10, "loss": 1 / i, "lr": 0.1} for i in range(1, steps + 1)]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def begin(root: Path, name: str, steps: int, epochs: object = 2) -> Path:
    """The folder of a run that is not finished."""
    folder = root / name
    folder.mkdir(parents=True)
    recipe = {"protocol": "pretrain/mae@1", "backbone": "vit_s", "epochs": epochs, "batch_size": 8}
    data = {"train_images": 80, "miniature": False, "standard": False}
    identity = {"task": "pretrain", "recipe": recipe, "seed": 7, "init": "scratch", "data": data}
    (folder / "run.json").write_text(json.dumps(identity))
    if steps:
        log(folder, steps)
    return folder


def test_markdown_page_figures_and_pictures(runs, capsys):
    (table,) = mae_bench.report(runs)
    markdown = (runs / "report.md").read_text()
    assert "| vit_b    | mae <sup>a</sup> |" in markdown
    for path in re.findall(r"\]\(([^)]*)\)", markdown):
        assert (runs / path).is_file(), path
    assert "![one: ground truth and predictions](one/predictions.png)" in markdown
    figures = {file.name for file in (runs / "figures").iterdir()}
    keys = ("size-imagenet1k-finetune-v1", "training-imagenet1k-finetune-v1")
    assert figures == {f"{key}.{kind}" for key in keys for kind in ("svg", "png", "pdf")}
    page = (runs / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count("data:image/jpeg;base64,") == 1
    assert page.count("<svg") == 2
    assert "3 finished runs in 2 configurations" in page
    assert "group/large" in page
    assert "data-refresh" not in page
    said = capsys.readouterr().out
    assert table.title in " ".join(said.split())
    assert f"written to {runs}/report.html" in said.replace("\n", "")


def test_every_format(runs, tmp_path):
    out = tmp_path / "new" / "thesis.tex"
    mae_bench.report(runs, out, formats=("md", "html", "tex", "csv"))
    names = {file.name for file in out.parent.iterdir()}
    assert names == {"thesis.md", "thesis.html", "thesis.tex", "thesis.csv", "figures"}
    assert r"\begin{tabular}" in out.read_text()
    assert (out.parent / "thesis.csv").read_text().startswith("table,")
    assert "](../runs/one/predictions.png)" in (out.parent / "thesis.md").read_text()
    assert not (runs / "report.md").exists()


def test_tables_for_other_programs_need_no_figures(runs, tmp_path):
    mae_bench.report(runs, tmp_path / "a" / "x.csv", formats=())
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["x.csv"]


@pytest.mark.parametrize(
    ("output", "formats", "expected"),
    [
        ("runs/report", ("md", "html"), {"md": "runs/report.md", "html": "runs/report.html"}),
        ("runs/report", ("csv",), {"csv": "runs/report.csv"}),
        ("a/b.md", ("md",), {"md": "a/b.md"}),
        ("b.html", ("md", "html"), {"html": "b.html", "md": "b.md"}),
        ("b.tex", ("md",), {"tex": "b.tex", "md": "b.md"}),
        ("b", ("md", "html"), {"md": "b.md", "html": "b.html"}),
        ("b.txt", ("md", "html"), {"md": "b.txt", "html": "b.txt.html"}),
    ],
)
def test_names_of_files(output, formats, expected):
    files = output_files(Path(output), formats)
    assert {name: str(file) for name, file in files.items()} == expected


def test_bad_input(runs, tmp_path):
    with pytest.raises(RunError, match="unknown format 'docx'; there are md, html, tex, csv"):
        mae_bench.report(runs, formats=("docx",))
    with pytest.raises(RunError, match=r"did you mean --formats html md tex\? there are md,"):
        mae_bench.report(runs, formats=("html,markdown,LaTeX",))
    with pytest.raises(RunError, match="is a folder; expected the name of a file"):
        mae_bench.report(runs, tmp_path)
    with pytest.raises(ResultsError, match="unknown table '8'"):
        mae_bench.report(runs, table=("3", "8"))
    with pytest.raises(RunError, match="--costs adds to the tables of protocols"):
        mae_bench.report(runs, table=("3",), costs=True)
    with pytest.raises(RunError, match="no such folder of runs"):
        mae_bench.report(tmp_path / "none", watch=True)
    assert {file.name for file in runs.iterdir()} == {"one", "two", "group"}


def test_a_broken_record_is_named_and_left_out(runs, capsys):
    (runs / "three").mkdir()
    (runs / "three" / "record.json").write_text('{"schema_version": 99}')
    (table,) = mae_bench.report(runs, formats=("html",))
    said = capsys.readouterr().out.replace("\n", "")
    assert f"left out {runs}/three/record.json: schema_version is 99" in said
    page = (runs / "report.html").read_text()
    assert "three/record.json</code>: schema_version is 99" in page
    assert "3 finished runs" in page
    assert len(table.rows) > 2


def test_no_runs_yet(tmp_path, capsys):
    assert mae_bench.report(tmp_path) == []
    assert "no records in" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_papers_tables_need_no_runs(tmp_path, capsys):
    tables = mae_bench.report(tmp_path, table=["all"])
    assert len(tables) == len(PAPER_TABLES)
    said = capsys.readouterr().out
    assert "no records in" in said
    assert "what follows is published alone" in " ".join(said.split())
    assert "Table 7" in said
    assert "Table 13" in (tmp_path / "report-table-all.md").read_text()


def test_tables_of_the_paper_and_extra_columns(runs):
    (table,) = mae_bench.report(runs, table=("3",), formats=("csv",))
    assert table.title.startswith("MAE paper, Table 3")
    (plain,) = mae_bench.report(runs, formats=("csv",))
    assert ",83.2,83.8," not in (runs / "report.csv").read_text()
    (more,) = mae_bench.report(runs, costs=True, intervals=True, formats=("csv",))
    assert len(more.columns) == len(plain.columns) + 3
    assert ",83.2,83.8," in (runs / "report.csv").read_text()


def test_two_sets_of_runs(runs):
    for seed in (0, 1):
        changes = {"seed": seed, "init": "dino", "metrics": {"top1": 82.8 + seed / 10}}
        write_record(runs / "dino" / str(seed), record("d", **changes))
    first, *rest = mae_bench.report(runs, compare=("[ot][nw][eo]", "dino"), formats=("csv",))
    (cells,) = first.rows
    by_key = {column.key: cell.value for column, cell in zip(first.columns, cells, strict=True)}
    assert by_key["difference"] == pytest.approx(83.6 - 82.85)
    assert by_key["test"] == "over seeds"
    assert len(rest) == 1
    assert {file.stem for file in runs.glob("report*")} == {"report-compare"}
    with pytest.raises(RunError, match=r"--compare on: no finished run has that name; did you mea"):
        mae_bench.report(runs, compare=("on", "dino"))
    with pytest.raises(RunError, match="run dino/0 is in both sets"):
        mae_bench.report(runs, compare=("dino/0", "dino/"))


def test_the_command(runs, capsys):
    argv = ["report", "--runs", str(runs), "--table", "3", "4", "--formats", "csv"]
    assert call(argv) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "MAE paper, Table 3" in said
    assert "MAE paper, Table 4" in said
    assert (runs / "report-table-3-4.csv").is_file()
    assert not (runs / "report.csv").exists()
    assert call(["report", "--runs", str(runs), "--table", "3b"]) == 2
    assert "unknown table '3b'; did you mean" in capsys.readouterr().err


# --- while runs are under way ---------------------------------------------------------------


class Watch:
    """Looks at the page whenever the watch waits, and changes things; ends it after the last."""

    def __init__(self, page: Path, *steps) -> None:
        self.page, self.steps = page, list(steps)
        self.pages: list[str] = []
        self.times: list[int] = []

    def __call__(self, seconds: float) -> None:
        assert seconds >= REFRESH_SECONDS
        self.pages.append(self.page.read_text())
        self.times.append(self.page.stat().st_mtime_ns)
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def test_the_page_follows_a_run(runs, capsys):
    folder = begin(runs, "long", 5)
    changes = {"protocol": "pretrain/mae@1", "task": "pretrain", "metrics": {"loss": 0.1}}
    made = record("long", kind="pretrain", intervals={}, **changes)
    watch = Watch(
        runs / "report.html",
        lambda: None,
        lambda: log(folder, 15),
        lambda: write_record(folder, made),
    )
    files = output_files(runs / "report", ("html",))
    keep_up(runs, files, Wanted(), watch)
    first, same, later, done = watch.pages
    assert f'data-refresh="{REFRESH_SECONDS}"' in first
    assert "3 finished runs in 2 configurations, 1 not finished" in first
    assert "25 %" in first
    assert "0.50 of 2" in first
    assert same == first
    assert watch.times[0] == watch.times[1] < watch.times[2]  # nothing new, nothing written
    assert "75 %" in later
    assert "4 finished runs" in done
    assert "Under way" not in done
    assert "1 not finished" in capsys.readouterr().out


def test_odd_runs_under_way_are_shown_too(runs):
    """No step yet, no epochs in the recipe, and a run.json that says nothing."""
    begin(runs, "fresh", 0)
    begin(runs, "odd", 3, epochs="many")
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text("[]")
    watch = Watch(runs / "report.html")
    keep_up(runs, output_files(runs / "report", ("html",)), Wanted(), watch)
    (page,) = watch.pages
    assert "3 finished runs in 2 configurations, 2 not finished" in page
    assert "broken/run.json</code>: names no recipe" in page
    assert "0.00 of 2" in page


def test_a_stranger_in_the_folder_stops_nothing(runs):
    """A run that is deleted while the page is made."""
    folder = begin(runs, "short", 5)

    def delete():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    watch = Watch(runs / "report.html", delete)
    keep_up(runs, output_files(runs / "report", ("html",)), Wanted(), watch)
    assert "1 not finished" in watch.pages[0]
    assert "not finished" not in watch.pages[1]


def test_ctrl_c_ends_watching_with_a_whole_report(runs, fork):
    """The last page does not refresh; all formats are there; exit code 0."""
    begin(runs, "long", 5)
    watching = fork(["report", "--runs", str(runs), "--watch"])
    page, until = runs / "report.html", time.monotonic() + PATIENCE
    while not page.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert "data-refresh" in page.read_text()
    watching.kill(signal.SIGINT)
    assert watching.exit_code() == 0
    assert "data-refresh" not in page.read_text()
    assert (runs / "report.md").is_file()
    assert "stopped watching" in watching.said()
    assert find_runs(runs).unfinished[0].name == "long"
