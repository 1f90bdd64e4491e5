"""The HTML page: read by a parser, and used in a browser where there is one."""

import base64
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from made_records import START, pretrained
from page_parts import HOSTILE, Page, check_safe, of_three_methods, png, shown, whole
from PIL import Image

import results.formats.html
from results import (
    Cell,
    Column,
    Named,
    Note,
    RunScores,
    Skipped,
    Table,
    compare,
    comparison_table,
    paper_table,
    published,
    to_latex,
)
from results.drawing import INK, MUTED, OTHERS, PAPER, RULE, STYLES
from results.figures import figures
from results.formats.html import ShownRun, Unfinished, to_html
from results.formats.html.pictures import MAX_PICTURES, PICTURE_SIDE, encoded_pictures
from results.logs import Log
from results.text import one_line


@pytest.fixture
def records(make_record):
    return of_three_methods(make_record)


def test_an_empty_page():
    page = check_safe(to_html([], title="a <title>"))
    assert "a <title>" in page.text
    assert "0 finished runs in 0 configurations" in page.text


def test_a_whole_page(records):
    text = whole(records, made=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    page = check_safe(text)
    assert "6 finished runs in 4 configurations · made 2026-01-02 03:04 UTC" in page.text
    assert "83.60 ± 0.10 (n=3)" in page.text
    assert "85.80 [85.50, 86.10] (n=1)" in page.text
    assert "MAE paper: arXiv 2111.06377, Table 3." in page.text
    assert page.text.count("mean ± sample standard deviation") == 1  # once for all tables
    kinds = {each["class"].split()[0] for each in page.all("td") if "class" in each}
    assert {"measured", "published", "difference"} <= kinds
    assert {"viewport", "color-scheme"} <= {each.get("name") for each in page.all("meta")}
    assert page.all("html") == [{"lang": "en"}]
    assert "data-refresh" not in page.all("body")[0]
    assert len(page.all("svg")) == 2


def test_behind_a_row_is_its_recipe_environment_and_command(records):
    page = check_safe(whole(records))
    assert len(page.all("details")) == 4
    text = page.text
    for each in (
        "mae-bench transfer --task imagenet1k",
        "0.9, 0.999",
        "clip_grad none",
        "ema yes",
        "epochs 10 protocol: 100",
        "1,281,167 training, 50,000 validation",
        "torch 2.15.0",
        "timm 1.0.31",
        "812.5",
        "16 GiB",
        "1.0 h",
        "sha256 " + "ab" * 32,
        "not comparable",
        "top-1 83.60 ± 0.10 %",
    ):
        assert each in text, each


def test_rows_and_runs_link_to_each_other(records):
    """From each measured score to the configuration of its seeds and its labels, and back."""
    text = whole(records)
    page = check_safe(text)
    targets = {}
    for value in ("83.60", "85.80", "83.00", "81.00"):
        (href,) = re.findall(rf'<a href="#(c-\d+)">{re.escape(value)}</a>', text)
        targets[value] = href
    assert len(set(targets.values())) == 4
    for value, target in targets.items():
        block = text.partition(f'<details class="run" id="{target}">')[2].partition("</details>")[0]
        assert value in block
        (row,) = re.findall(r'href="#(r-\d+-\d+)"', block)
        line = text.partition(f'<tr id="{row}">')[2].partition("</tr>")[0]
        assert value in line
    assert page.all("details")[0]["id"] == "c-0"


def test_a_run_that_has_the_same_score_is_known_by_its_labels(make_record):
    records = [make_record(metrics={"top1": 80.0}, init=init) for init in ("mae", "dino")]
    text = whole(records)
    for init in ("mae", "dino"):
        row = next(part for part in text.split("<tr id=") if f"<bdi>{init}</bdi>" in part)
        (target,) = re.findall(r'<a href="#(c-\d+)">80.00</a>', row)
        block = text.partition(f'id="{target}">')[2].partition("</summary>")[0]
        assert f"<bdi>{init}</bdi>" in block


def linked(text: str, value: str) -> list[str]:
    """What stands behind each link of that text, in the order of the page."""
    targets = re.findall(rf'<a href="#(c-\d+)">{re.escape(value)}</a>', text)
    blocks = [text.partition(f'id="{target}">')[2].partition("</details>")[0] for target in targets]
    return [" ".join(re.sub("<[^>]*>", " ", block).split()) for block in blocks]


def test_equal_scores_link_to_their_own_runs(make_record):
    """Same score, backbone, weights and protocol: alone the runs tell the cells apart. A shortened
    recipe does not hide behind the clean one, nor other pre-training data behind these."""
    changes = [
        {},
        {"deviations": ["limited to 64 images"], "recipe_hash": "ba9876543210"},
        {"checkpoint": pretrained(0)},
        {"checkpoint": pretrained(0, data=Named(name="noise", fingerprint="00" * 8))},
    ]
    records = [make_record(metrics={"top1": 80.0}, **change) for change in changes]
    for tables in (
        comparison_table(records, published()),
        [paper_table("3", records, published())],
        [compare([RunScores(records[1])], [RunScores(records[3])])],
    ):
        blocks = linked(to_html(tables, runs=shown(records)), "80.00")
        rows = [
            cell.runs[0]
            for table in tables
            for row in table.rows
            for column, cell in zip(table.columns, row, strict=True)
            if column.kind == "measured" and cell.runs
        ]
        assert len(blocks) == len(rows) >= 2
        for block, record in zip(blocks, rows, strict=True):
            (number,) = [i for i, each in enumerate(records) if each is record]
            assert f" runs/{number} " in block
            assert ("limited to 64 images" in block) == (number == 1)


def test_a_table_without_its_runs_links_nowhere(make_record):
    """What cannot be known is not guessed."""
    records = [make_record(metrics={"top1": 80.0})]
    page = to_html(comparison_table(records, published()), runs=shown([make_record()]))
    assert linked(page, "80.00") == []


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(text, make_record):
    """In every field of a record that may hold any text, in tables and in names of files."""
    record = make_record()
    every = make_record(
        name=text,
        task=text,
        backbone=text,
        init=text,
        checkpoint=record.checkpoint.model_copy(update={"file": text}),
        data=record.data.model_copy(update={"name": text}),
        recipe={text: text, "list": [text, {text: text}]},
        deviations=[text],
        metrics={"top1": 80.0, text: 1.0},
        intervals={text: (0.0, 2.0)},
        environment=record.environment.model_copy(
            update=dict.fromkeys(("python", "torch", "device", "commit", "command"), text)
            | {"versions": {text: text}}
        ),
    )
    tables = comparison_table([every], published())
    column = Column("x", text, "published", text, text, ("1",))
    tables.append(Table(text, (column,), ((Cell(1.0, source=text),),), (Note(text, "1"),)))
    drawn = figures([every, make_record()], published(), [Log(text, text, False, (1, 2), (2, 1))])
    html = to_html(
        tables,
        drawn,
        [ShownRun(text, every, ((text, Path("/no/such")),))],
        text,
        unfinished=[Unfinished(text, text, text, text, text, 1.0, 2.0, 0.5, text)],
        skipped=[Skipped(Path(text.replace("\x00", "")), text)],
    )
    page = check_safe(html)
    assert one_line(text) in page.text
    assert all(c.isprintable() or c == "\n" for c in html)
    assert len(page.all("img")) == 0


def test_huge_text_is_cut(make_record):
    huge = "<x> " * 250_000
    record = make_record(
        init=huge,
        recipe={huge: huge, **{f"field {i}": huge for i in range(500)}},
        deviations=[huge] * 200,
    )
    html = whole([record])
    check_safe(html)
    assert len(html) < 1_000_000
    assert "and 150 more" in html


def test_many_configurations_are_bounded_and_counted(make_record, monkeypatch):
    for part in (results.formats.html.runs, results.formats.html.tables):
        monkeypatch.setattr(part, "MAX_CONFIGURATIONS", 2)
    monkeypatch.setattr(results.formats.html.runs, "MAX_RUNS", 3)
    records = [make_record(init=f"init {i}", metrics={"top1": 80.0 + i}) for i in range(4)]
    records += [make_record(init="init 0", seed=s, metrics={"top1": 80.0}) for s in range(1, 6)]
    page = check_safe(whole(records))
    assert len(page.all("details")) == 2
    assert "Shown are 2 of 4 configurations" in page.text
    assert "3 more runs are not listed." in page.text


def decoded(page: Page) -> list[Image.Image]:
    uris = [each["src"] for each in page.all("img")]
    return [Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in uris]


def test_pictures_are_in_the_page(make_record, tmp_path):
    file = png(tmp_path / "a.png")
    runs = shown([make_record()], pictures=(("ground truth and predictions", file),))
    page = check_safe(to_html([], [], runs))
    (picture,) = decoded(page)
    assert picture.size == (64, 48)
    assert picture.getpixel((30, 20)) == pytest.approx((200, 30, 60), abs=3)
    (image,) = page.all("img")
    assert image["alt"] == "ground truth and predictions of runs/0"
    assert "runs/0 , ground truth and predictions" in page.text  # the link behind the row


def test_the_miniature_world_is_shown_where_its_sheet_is(tmp_path):
    sheet = png(tmp_path / "contact_sheet.png")
    page = check_safe(to_html([], [], world=sheet))
    assert [picture.size for picture in decoded(page)] == [(64, 48)]
    assert "The miniature world" in page.text
    assert "The miniature world" not in check_safe(to_html([], [])).text


def test_large_pictures_are_made_smaller(make_record, tmp_path):
    file = png(tmp_path / "a.png", (2 * PICTURE_SIDE, 200))
    page = check_safe(to_html([], [], shown([make_record()], pictures=(("p", file),))))
    assert [picture.size for picture in decoded(page)] == [(PICTURE_SIDE, 100)]


def test_what_is_no_picture_is_left_out_and_counted(make_record, tmp_path, monkeypatch):
    monkeypatch.setattr(results.formats.html.pictures, "MAX_PICTURE_PIXELS", 10_000)
    (tmp_path / "no.png").write_bytes(b"<svg onload=alert(1)>")
    whole_file = png(tmp_path / "cut.png", (90, 90)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole_file[: len(whole_file) // 2])
    Image.new("RGB", (9, 9)).save(tmp_path / "gif.png", format="GIF")
    png(tmp_path / "wide.png", (101, 100))
    names = ("no.png", "cut.png", "gif.png", "wide.png", "missing.png")
    pictures = tuple((name, tmp_path / name) for name in names)
    page = check_safe(to_html([], [], shown([make_record()], pictures=pictures)))
    assert "5 pictures left out" in page.text
    assert page.all("img") == []


def test_many_pictures_are_bounded_and_counted(make_record, tmp_path):
    """Each run shows one before any shows two."""
    file = png(tmp_path / "a.png", (8, 8))
    pictures = (("first", file), ("second", file))
    records = [make_record(seed=seed) for seed in range(MAX_PICTURES - 1)]
    page = check_safe(to_html([], [], shown(records, pictures=pictures)))
    texts = [each["alt"].partition(" ")[0] for each in page.all("img")]
    assert texts.count("first") == MAX_PICTURES - 1
    assert texts.count("second") == 1
    assert f"{MAX_PICTURES - 2} pictures left out" in page.text


def test_figures_follow_the_page(records):
    """Ids of their own, no style, script or metadata, and colours that a dark page can change."""
    text = whole(records)
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        assert not re.findall(r"<(style|metadata|script|image)", plot)
        assert not re.findall(r"#[0-9a-f]{6}", plot)
        assert "var(--sans)" in plot
    colours = {INK, MUTED, RULE, PAPER, *(colour for colour, _ in (*STYLES.values(), *OTHERS))}
    light, dark = (
        (results.formats.html.TEMPLATES / "page.css").read_text().split("@media screen")[:2]
    )
    for colour in colours:
        assert f"--c-{colour[1:]}: {colour};" in light
        assert f"--c-{colour[1:]}: #" in dark


def test_runs_under_way():
    rows = [
        Unfinished(
            "long", "pretrain/mae@1", "vit_b", "scratch", "0", 200.0, 800.0, 0.43, "3 s ago"
        ),
        Unfinished("knn", "imagenet1k/knn@1", "vit_b", "mae", "0", 0.0, None, None, "9 s ago"),
    ]
    page = check_safe(to_html([], unfinished=rows, refresh=10))
    assert page.all("body")[0]["data-refresh"] == "10"
    (bar,) = page.all("progress")
    assert float(bar["value"]) == 0.25
    assert "25 % 200.00 of 800 0.43" in page.text
    assert "2 not finished" in page.text


def test_each_protocol_has_a_picture_before_another_seed_of_any(make_record, tmp_path):
    file = png(tmp_path / "a.png", (8, 8))
    many = [make_record(name=f"mae-{seed}", seed=seed) for seed in range(MAX_PICTURES)]
    old = START + timedelta(seconds=1)
    linear = make_record(name="probed", protocol="imagenet1k/linear@1", finished=old)
    beit = make_record(name="beit", init="beit", finished=old)
    runs = shown([*many, linear, beit], pictures=(("p", file),))
    found, left_out = encoded_pictures(runs)
    of_old = {f"runs/{MAX_PICTURES}", f"runs/{MAX_PICTURES + 1}"}
    assert of_old < {each["run"] for each in found}
    assert (len(found), left_out) == (MAX_PICTURES, 2)


def test_left_out_files_are_named():
    page = check_safe(to_html([], skipped=[Skipped(Path("a/record.json"), "not JSON")] * 60))
    assert page.text.count("a/record.json : not JSON") == 50
    assert "the first 50 of 60" in page.text


def test_importing_results_imports_no_page():
    code = "import results, sys; assert not {'jinja2', 'matplotlib', 'PIL'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_there_is_nothing_to_switch_has_no_switch(make_record):
    """One run on data without published numbers: nothing to filter, sort or hide."""
    data = make_record().data.model_copy(update={"miniature": True, "standard": False})
    page = whole([make_record(data=data)])
    assert 'class="tools"' not in page
    assert "sortable" not in page.split("<tbody>")[0].split("</style>")[1]
    two = whole([make_record(data=data), make_record(data=data, init="scratch")])
    assert 'class="tools"' in two
    assert "<fieldset>" not in two
    assert "<fieldset>" in whole([make_record()])


def test_no_words_about_terminals_and_no_arrow_that_breaks(make_record):
    records = [make_record(), make_record(init="dino", deviations=["epochs 100 -> 1"])]
    text = whole(records)
    assert "terminal" not in text
    assert "epochs 100\u00a0→\u00a01" in text
    assert "terminal" not in to_latex(comparison_table(records, published()), document=True)


def test_training_curves_are_last(records):
    page = whole(records)
    places = [page.index(f'id="{name}"') for name in ("tables", "training", "runs")]
    assert places == sorted(places)
