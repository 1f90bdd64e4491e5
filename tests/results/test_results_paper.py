"""The paper's tables against values typed by hand from it (arXiv 2111.06377v2)."""

import pytest
from paper_studies import line, notes, studies, values

from results import (
    PAPER_TABLES,
    Checkpoint,
    Data,
    Named,
    ResultsError,
    comparison_table,
    paper_table,
    paper_tables,
    published,
    to_csv,
    to_latex,
    to_markdown,
)


@pytest.fixture
def study(make_record):
    return studies(make_record)


N = None


PRINTED = {
    "1a": [
        ["1", 84.8, 65.5],
        ["2", 84.9, 70.0],
        ["4", 84.9, 71.9],
        ["8", 84.9, 73.5],
        ["12", 84.4, 73.3],
    ],
    "1b": [
        ["128", 84.9, 69.1],
        ["256", 84.8, 71.3],
        ["512", 84.9, 73.5],
        ["768", 84.4, 73.1],
        ["1024", 84.3, 73.1],
    ],
    "1c": [["encoder with [M]", 84.2, 59.6, 3.3], ["encoder without [M]", 84.9, 73.5, 1.0]],
    "1d": [
        ["pixel (without norm)", 84.9, 73.5],
        ["pixel (with norm)", 85.4, 73.9],
        ["PCA", 84.6, 72.3],
        ["dVAE token", 85.3, 71.6],
    ],
    "1e": [
        ["none", 84.0, 65.7],
        ["crop, fixed size", 84.7, 73.1],
        ["crop, random size", 84.9, 73.5],
        ["crop + color jitter", 84.3, 71.9],
    ],
    "1f": [
        ["random", "75", 84.9, 73.5],
        ["block", "50", 83.9, 72.3],
        ["block", "75", 82.8, 63.9],
        ["grid", "75", 84.0, 66.0],
    ],
    "2": [
        ["ViT-L", "with [M]", "8", 84.2, 42.4, N],
        ["ViT-L", "without [M]", "8", 84.9, 15.4, 2.8],
        ["ViT-L", "without [M]", "1", 84.8, 11.6, 3.7],
        ["ViT-H", "with [M]", "8", N, 119.6, N],
        ["ViT-H", "without [M]", "8", 85.8, 34.5, 3.5],
        ["ViT-H", "without [M]", "1", 85.9, 29.3, 4.1],
    ],
    "3": [
        ["scratch", "–", 82.3, 82.6, 83.1, N],
        ["DINO", "IN1K", 82.8, N, N, N],
        ["MoCo v3", "IN1K", 83.2, 84.1, N, N],
        ["BEiT", "IN1K + DALLE", 83.2, 85.2, N, N],
        ["MAE", "IN1K", 83.6, 85.9, 86.9, 87.8],
    ],
    "4": [
        ["supervised", "IN1K with labels", 47.9, 49.3, 42.9, 43.9],
        ["MoCo v3", "IN1K", 47.9, 49.3, 42.7, 44.0],
        ["BEiT", "IN1K + DALLE", 49.8, 53.3, 44.4, 47.1],
        ["MAE", "IN1K", 50.3, 53.3, 44.9, 47.2],
    ],
    "5": [
        ["supervised", "IN1K with labels", 47.4, 49.9],
        ["MoCo v3", "IN1K", 47.3, 49.1],
        ["BEiT", "IN1K + DALLE", 47.1, 53.3],
        ["MAE", "IN1K", 48.1, 53.6],
    ],
    "6": [
        ["iNat 2017", "MAE", 70.5, 75.7, 79.3, 83.4, N],
        ["iNat 2017", "prev best", N, N, N, N, 75.4],
        ["iNat 2018", "MAE", 75.4, 80.1, 83.0, 86.8, N],
        ["iNat 2018", "prev best", N, N, N, N, 81.2],
        ["iNat 2019", "MAE", 80.5, 83.4, 85.7, 88.3, N],
        ["iNat 2019", "prev best", N, N, N, N, 84.1],
        ["Places205", "MAE", 63.9, 65.8, 65.9, 66.8, N],
        ["Places205", "prev best", N, N, N, N, 66.0],
        ["Places365", "MAE", 57.9, 59.4, 59.8, 60.3, N],
        ["Places365", "prev best", N, N, N, N, 58.0],
    ],
    "7": [
        ["pixel (without norm)", 83.3, 85.1, 86.2, 49.5, 52.8, 48.0, 51.8],
        ["pixel (with norm)", 83.6, 85.9, 86.9, 50.3, 53.3, 48.1, 53.6],
        ["dVAE token", 83.6, 85.7, 86.9, 50.3, 53.2, 48.1, 53.4],
        ["Δ", 0.0, -0.2, 0.0, 0.0, -0.1, 0.0, -0.2],
    ],
    "12": [
        ["iGPT", "iGPT-L", "1362M", 69.0],
        ["iGPT", "iGPT-XL", "6801M", 72.0],
        ["BEiT", "ViT-L", "304M", 52.1],
        ["MAE", "ViT-B", "86M", 68.0],
        ["MAE", "ViT-L", "304M", 75.8],
        ["MAE", "ViT-H", "632M", 76.6],
    ],
    "13": [
        ["IN-Corruption (mCE, lower is better)", "MAE", 51.7, 41.8, 33.8, 36.8, N],
        ["IN-Adversarial", "MAE", 35.9, 57.1, 68.2, 76.7, N],
        ["IN-Rendition", "MAE", 48.3, 59.9, 64.4, 66.5, N],
        ["IN-Sketch", "MAE", 34.5, 45.3, 49.6, 50.9, N],
        ["IN-Corruption (mCE, lower is better)", "prev best", N, N, N, N, 42.5],
        ["IN-Adversarial", "prev best", N, N, N, N, 35.8],
        ["IN-Rendition", "prev best", N, N, N, N, 48.7],
        ["IN-Sketch", "prev best", N, N, N, N, 36.0],
        ["IN-Corruption (mCE, lower is better)", "scratch", 45.8, 42.3, 41.3, N, N],
        ["IN-Adversarial", "scratch", 27.2, 29.6, 33.1, N, N],
        ["IN-Rendition", "scratch", 49.4, 50.9, 50.3, N, N],
        ["IN-Sketch", "scratch", 35.6, 37.5, 38.0, N, N],
    ],
    "partial": [
        ["MAE", "0", 73.5],
        ["MAE", "0.5", 79.1],
        ["MAE", "1", 81.0],
        ["MAE", "2", 83.1],
        ["MAE", "4", 84.2],
        ["MAE", "6", 84.4],
        ["MAE", "12", 84.6],
        ["MAE", "18", 84.7],
        ["MAE", "24", 84.9],
        ["MoCo v3", "0", 77.6],
        ["MoCo v3", "1", 79.9],
        ["MoCo v3", "2", 80.8],
        ["MoCo v3", "4", 81.6],
        ["MoCo v3", "6", 81.9],
        ["MoCo v3", "12", 83.2],
        ["MoCo v3", "18", 83.8],
        ["MoCo v3", "24", 84.1],
    ],
}


BEST = {
    "1a": [84.9, 84.9, 84.9, 73.5],
    "1d": [85.4, 73.9],
    "3": [83.6, 85.9, 86.9],
    "4": [50.3, 53.3, 53.3, 44.9, 47.2],
    "5": [48.1, 53.6],
}


MINIATURE = Data(
    name="miniature",
    fingerprint="aa" * 8,
    train_images=20,
    val_images=10,
    classes=8,
    miniature=True,
    standard=False,
)


@pytest.mark.parametrize("name", PRINTED)
def test_the_papers_numbers_cell_by_cell(name):
    table = paper_table(name, [], published())
    assert values(table, "label", "published") == PRINTED[name]
    assert {column.kind for column in table.columns} == {"label", "published"}
    assert any(note.text == "no run of ours stands in this table yet." for note in table.notes)


def test_tables_of_settings_name_the_backbone():
    for name in ("1a", "1b", "1c", "1d", "1e", "1f"):
        title = paper_table(name, [], published()).title
        assert title.startswith(f"MAE paper, Table {name}: ")
        assert title.endswith(", ViT-L/16 on ImageNet-1k")


def test_every_table_is_checked_and_no_number_of_the_paper_is_printed_twice():
    assert set(PRINTED) == set(PAPER_TABLES)
    rows = [row for row in published() if row.source == "mae2021"]
    for name in PRINTED:
        locators = {f"Table {name}", f"Table {name} (bottom)"}
        if name == "partial":
            locators = {"Figure 9", "Section 4.3 text"}
        filed = sorted(row.value for row in rows if row.locator in locators)
        (numbers,) = [values(paper_table(name, [], rows), "published")]
        if name == "7":
            numbers.pop()  # differences of the numbers above
        assert sorted(v for row in numbers for v in row if v is not None) == filed


@pytest.mark.parametrize("name", BEST)
def test_the_best_of_a_column_is_marked(name):
    table = paper_table(name, [], published())
    by_column = zip(*table.rows, strict=True)
    assert [cell.value for cells in by_column for cell in cells if cell.best] == BEST[name]


def test_all_is_every_table_and_an_unknown_name_is_refused():
    titles = [table.title for table in paper_tables("all", [], published())]
    assert titles == [spec.title for spec in PAPER_TABLES.values()]
    assert [t.title for t in paper_tables("3", [], published())] == [PAPER_TABLES["3"].title]
    with pytest.raises(
        ResultsError, match=r"'partail'; did you mean partial\? there are 1a, .* all"
    ):
        paper_tables("partail", [], published())


def test_recalled_numbers_are_marked_and_not_subtracted(make_record):
    rows = [row.model_copy(update={"status": "recalled"}) for row in published()]
    table = paper_table("3", [make_record()], rows)
    mae = line(table, "MAE")
    assert "recalled, not confirmed" in notes(table, mae["published", "ViT-B"])[0]
    assert "difference" not in {column.kind for column in table.columns}


def test_two_numbers_for_one_place_are_refused():
    (row,) = [r for r in published(backbone="vit_h_448") if r.task == "imagenet1k"]
    with pytest.raises(ResultsError, match=r"published.csv has 2 numbers for .*expected one"):
        paper_table("3", [], [row, row])


def test_runs_stand_beside_the_papers_methods(make_record):
    runs = [
        *(make_record(seed=seed, metrics={"top1": 83.4 + seed / 10}) for seed in range(3)),
        make_record(init="moco_v3", metrics={"top1": 83.0}),
        make_record(init="scratch", protocol="imagenet1k/scratch@1", checkpoint=None),
        make_record(backbone="vit_h", protocol="imagenet1k/finetune-448@1"),
        make_record(backbone="vit_l", deviations=["epochs 50 -> 1"], metrics={"top1": 60.0}),
        make_record(init="Mine", metrics={"top1": 84.4}),
    ]
    table = paper_table("3", runs, published())
    assert [(c.kind, c.title) for c in table.columns[2:]] == [
        ("measured", "ViT-B"),
        ("published", "ViT-B"),
        ("difference", "ViT-B"),
        ("measured", "ViT-L"),
        ("published", "ViT-L"),
        ("published", "ViT-H"),
        ("measured", "ViT-H, 448 pixels"),
        ("published", "ViT-H, 448 pixels"),
    ]
    mae = line(table, "MAE")
    ours = mae["measured", "ViT-B"]
    assert (ours.value, ours.n) == (pytest.approx(83.5), 3)
    assert mae["difference", "ViT-B"].value == pytest.approx(-0.1)
    moco = line(table, "MoCo v3")
    assert moco["measured", "ViT-B"].value == 83.0
    assert moco["difference", "ViT-B"].value is None
    assert notes(table, moco["published", "ViT-B"])[-1].startswith("scored with a recipe that may")
    assert line(table, "scratch")["difference", "ViT-B"].value == pytest.approx(83.5 - 82.3)
    assert "not comparable: epochs 50 -> 1." in notes(table, mae["measured", "ViT-L"])
    assert mae["measured", "ViT-H, 448 pixels"].value == 83.5
    # A method that the paper lacks takes a row of its own, after the paper's, and may be the best.
    assert [cell.value for cell in table.rows[-1][:3]] == ["Mine", "", 84.4]
    assert [row[2].best for row in table.rows] == [False] * 5 + [True]


def test_unlike_protocols_for_one_column_of_the_paper_are_kept_apart(make_record):
    shared = {"task": "ade20k", "metrics": {"miou": 48.0}}
    runs = [
        make_record(protocol="ade20k/upernet-512-160k@1", **shared),
        make_record(protocol="ade20k/upernet-512-100ep@1", **shared),
    ]
    table = paper_table("5", runs, published())
    titles = [column.title for column in table.columns if column.kind == "measured"]
    assert titles == ["ViT-B, UperNet", "ViT-B, UperNet (100 epochs)"]
    coco = make_record(
        task="coco", protocol="coco/mask_rcnn-vitdet@1", metrics={"ap_box": 51.0, "ap_mask": 45.0}
    )
    assert values(paper_table("4", [coco], published()), "measured") == [[]] * 4


def test_data_sets_down_and_methods_of_ours(make_record):
    runs = [
        make_record(task="inat2018", protocol="inat2018/finetune@1", metrics={"top1": 75.0}),
        make_record(
            task="inat2018", protocol="inat2018/finetune-448@1", init="dino", backbone="vit_h"
        ),
    ]
    table = paper_table("6", runs, published())
    assert line(table, "iNat 2018", "MAE")["measured", "ViT-B"].value == 75.0
    assert line(table, "iNat 2018", "dino")["measured", "ViT-H, 448 pixels"].value == 83.5
    assert [row[0].value for row in table.rows].count("iNat 2018") == 3
    best = [row for row in table.rows if row[1].value == "prev best"]
    assert len(best) == 5  # rows of their own, which no run of ours extends
    robust = make_record(task="imagenet_c", protocol="imagenet_c/finetune@1", metrics={"mce": 50.0})
    table = paper_table("13", [robust], published())
    found = line(table, "IN-Corruption (mCE, lower is better)", "MAE")
    assert found["measured", "ViT-B"].value == 50.0
    assert found["difference", "ViT-B"].value == pytest.approx(-1.7)


def test_two_configurations_of_one_place_take_a_line_each(make_record):
    other = Checkpoint(file="other.pth", sha256="cd" * 32)
    runs = [make_record(), make_record(checkpoint=other, metrics={"top1": 82.0})]
    table = paper_table("3", runs, published())
    mae = [row for row in table.rows if row[0].value == "MAE"]
    assert [row[2].value for row in mae] == [83.5, 82.0]
    assert [row[3].value for row in mae] == [83.6, None]  # printed once
    assert [row[4].value for row in mae] == [pytest.approx(-0.1), pytest.approx(-1.6)]
    assert ["other.pth" in notes(table, row[2])[0] for row in mae] == [False, True]


def test_partial_fine_tuning(make_record):
    runs = [
        make_record(protocol=f"imagenet1k/partial-{k}@2", backbone="vit_l", metrics={"top1": v})
        for k, v in (("0", 73.0), ("0.5", 78.0), ("24", 84.0))
    ]
    runs.append(make_record(protocol="imagenet1k/partial-2@2", backbone="vit_l", init="dino"))
    table = paper_table("partial", runs, published())
    assert line(table, "MAE", "0.5")["measured", "top-1"].value == 78.0
    assert line(table, "MAE", "24")["measured", "top-1"].value == 84.0
    assert [cell.value for cell in table.rows[-1][:3]] == ["dino", "2", 83.5]


def test_versions_of_a_protocol_have_columns_apart(make_record):
    """Those of version 1 erased parts of the training images, and still report."""
    runs = [
        make_record(
            protocol=f"imagenet1k/partial-1@{version}",
            backbone="vit_l",
            metrics={"top1": 78.0 + version},
        )
        for version in (1, 2)
    ]
    row = line(paper_table("partial", runs, published()), "MAE", "1")
    assert row["measured", "top-1"].value == 80.0
    assert row["measured", "top-1, version 1"].value == 79.0
    old = line(paper_table("partial", runs[:1], published()), "MAE", "1")
    assert old["measured", "top-1, version 1"].value == 79.0
    assert ("measured", "top-1") not in old


def test_miniature_runs_never_stand_beside_the_papers_numbers(make_record):
    run = make_record(data=MINIATURE, metrics={"top1": 30.0})
    tables = paper_tables("all", [run], published())
    apart = [table for table in tables if table.title.startswith("Miniature world in the layout")]
    assert [table.title.partition("Table ")[2][:1] for table in apart] == ["3"]
    for table in tables:
        kinds = {column.kind for column in table.columns}
        assert kinds == {"label", "measured" if table in apart else "published"}
        if table not in apart:
            assert "runs on the miniature world are left out: 1." in [n.text for n in table.notes]


def test_the_miniature_world_in_the_papers_layout(make_record):
    """Settings are placed by what a run changed: the miniature decoder is 2 blocks of width 64."""
    recipe = {"epochs": 10, "decoder_depth": 2, "decoder_dim": 64, "mask_ratio": 0.75}
    recipe |= {"norm_pix": False, "min_crop_area": 0.5, "mask": "random"}
    runs = []
    for digit, changed in enumerate(({}, {"decoder_depth": 1}, {"mask": "grid"})):
        hash_ = f"{digit}{digit}" * 6
        runs.append(
            make_record(
                kind="pretrain",
                task="pretrain",
                protocol="pretrain/mae@1",
                init="scratch",
                checkpoint=None,
                backbone="vit_mini",
                data=MINIATURE,
                recipe=recipe | changed,
                recipe_hash=hash_,
                deviations=[f"{k} {recipe[k]} -> {v}" for k, v in changed.items()],
                metrics={"loss": 0.5},
            )
        )
        images = Named(name="miniature", fingerprint=MINIATURE.fingerprint)
        file = Checkpoint(file="b", sha256=hash_[:2] * 32, recipe_hash=hash_, data=images, seed=0)
        shared = {"backbone": "vit_mini", "data": MINIATURE, "checkpoint": file}
        runs.append(make_record(**shared, metrics={"top1": 40.0 + digit}))
    untrained = {"init": "scratch", "checkpoint": None, "protocol": "imagenet1k/scratch@1"}
    mini = {"backbone": "vit_mini", "data": MINIATURE}
    runs.append(make_record(**mini, **untrained, metrics={"top1": 20.0}))
    found = {
        name: paper_tables(name, runs, published())[-1] for name in ("1a", "1f", "2", "3", "12")
    }
    assert found["1a"].title == (
        "Miniature world in the layout of MAE paper, Table 1a: decoder depth on ImageNet-1k"
    )
    depths = {row[0].value: row[1].value for row in found["1a"].rows}
    assert depths == {"1": 41.0, "2": 40.0, "4": None, "8": None, "12": None}
    assert [row[2].value for row in found["1f"].rows] == [40.0, None, None, 42.0]
    methods = [(row[0].value, row[2].value) for row in found["3"].rows]
    # MAE's three pre-trainings take a line each, and are told apart.
    assert methods[0] == ("scratch", 20.0)
    ours = {name: value for name, value in methods if str(name).startswith("MAE")}
    assert ours == {"MAE": 40.0, "MAE, decoder depth 1": 41.0, "MAE, mask grid": 42.0}
    assert [column.title for column in found["3"].columns][2:] == ["vit_mini"]
    assert found["2"].rows[-1][0].value == "vit_mini"
    assert found["12"].title.startswith("MAE paper")  # no run was probed
    texts = [each.text for each in found["3"].notes]
    assert "Small images drawn by mae-bench itself: not comparable with any published number." in (
        texts
    )


def test_intervals_on_request(make_record):
    run = make_record(intervals={"top1": (83.2, 83.8)})
    assert line(paper_table("3", [run], published()), "MAE")["measured", "ViT-B"].interval is None
    table = paper_table("3", [run], published(), intervals=True)
    assert line(table, "MAE")["measured", "ViT-B"].interval == (83.2, 83.8)
    assert any(note.text.startswith("[low, high]: 95 %") for note in table.notes)


def test_hostile_records_spoil_no_table(make_record, study):
    evil = "\x1b[31m<script>alert(1)</script> | \\end{table} $x$ =cmd() \u202e **b** " + "w" * 9000
    pretrain, finetuned, _ = study("aa", deviations=[evil], epochs=evil)
    runs = [
        pretrain,
        finetuned,
        make_record(init=evil, metrics={"top1": 1e308}, deviations=[evil]),
        make_record(init=evil, metrics={"top1": -1e308}, seed=1, deviations=[evil]),
        make_record(backbone=evil, init="prev best", metrics={evil: 1.0}),
    ]
    tables = paper_tables("all", runs, published()) + comparison_table(
        runs, published(), costs=True, intervals=True
    )
    for render in (to_markdown, to_latex, to_csv):
        text = render(tables)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "w" * 3000 not in text
