"""Our runs beside published numbers: which rows, which columns, which differences."""

import math
from datetime import timedelta

import pytest
from made_records import OFFICIAL, make, pretrained
from table_parts import FOLDER, MINIATURE, column, note

from results import Named, comparison_table, configurations, published
from results.formats.html import ShownRun, to_html


def test_seeds_are_averaged_with_the_sample_deviation(make_record):
    scores = {0: 83.0, 1: 83.5, 2: 84.3}
    runs = [make_record(seed=seed, metrics={"top1": top1}) for seed, top1 in scores.items()]
    (found,) = configurations(runs)
    cell = found.cell("top1", 2)
    # By hand: mean 250.8 / 3; squares of -0.6, -0.1 and 0.7 sum to 0.86, over n - 1 = 2.
    assert cell.value == pytest.approx(83.6, abs=1e-12)
    assert cell.std == pytest.approx(math.sqrt(0.43), abs=1e-12)
    assert cell.n == 3
    single = configurations(runs[:1])[0].cell("top1", 2)
    assert (single.value, single.std, single.n) == (83.0, None, 1)
    assert found.cell("top5", 2).value is None


@pytest.mark.parametrize("miniature", [False, True])
def test_a_pretraining_has_no_weights_but_something_that_it_began_from(make_record, miniature):
    data = OFFICIAL.model_copy(update={"miniature": miniature, "standard": not miniature})
    shared = {"kind": "pretrain", "task": "pretrain", "protocol": "pretrain/mae@1", "data": data}
    records = [
        make_record(**shared, init="scratch", checkpoint=None, metrics={"loss": 0.4}),
        make_record(**shared, init="mae", metrics={"loss": 0.3}),
    ]
    (table,) = comparison_table(records, [])
    assert [column.title for column in table.columns[:2]] == ["backbone", "begun from"]
    assert {row[1].value for row in table.rows} == {"random weights", "mae"}
    text = to_html([table], runs=[ShownRun(r.name, r) for r in records])
    assert "<bdi>from random weights</bdi>" in text
    assert "<bdi>from mae</bdi>" in text
    transfer = make_record(init="scratch", checkpoint=None, protocol="imagenet1k/scratch@1")
    (table,) = comparison_table([transfer], [])
    assert (table.columns[1].title, table.rows[0][1].value) == ("weights", "scratch")


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "imagenet1k/finetune@2"},
        {"backbone": "vit_l"},
        {"init": "beit"},
        {"checkpoint": None},
        {"recipe_hash": "ffffffffffff"},
        {"data": FOLDER},
        {"deviations": ["limited to 64 images"]},
        {"complete": False},
    ],
)
def test_anything_but_the_seed_makes_another_configuration(make_record, change):
    assert len(configurations([make_record(), make_record(seed=1)])) == 1
    assert len(configurations([make_record(), make_record(seed=1, **change)])) == 2


def test_a_repeated_seed_counts_once(make_record):
    first = make_record(name="early", metrics={"top1": 80.0})
    again = make_record(
        name="late", metrics={"top1": 81.0}, finished=first.finished + timedelta(hours=1)
    )
    (found,) = configurations([again, first])
    assert (found.records, found.repeats) == ((again,), (first,))
    (table,) = comparison_table([again, first], [])
    (cell,) = column(table, "top1 ours")
    assert (cell.value, cell.n) == (81.0, 1)
    assert note(table, cell.marks[0]) == (
        "the same seed (equal pre-trainings are one) ran more than once; the latest run counts,"
        " without early."
    )


def test_comparable_runs_get_a_difference_to_the_paper(make_record):
    (table,) = comparison_table([make_record(metrics={"top1": 83.44, "top5": 96.0})], published())
    assert table.title == "ImageNet-1k: fine-tuning (protocol imagenet1k/finetune@1)"
    kinds = [(column.kind, column.source) for column in table.columns]
    assert kinds == [
        ("label", ""),
        ("label", ""),
        ("measured", ""),
        ("published", "MAE paper"),
        ("published", "mae repo"),
        ("difference", "MAE paper"),
    ]
    ours, paper, repo, difference = table.rows[0][2:]
    assert (ours.value, paper.value, repo.value) == (83.44, 83.6, 83.664)
    assert difference.value == pytest.approx(-0.16, abs=1e-12)
    assert difference.decimals == 1  # no finer than the paper prints
    # The methods of Table 3 that nobody ran here follow, without a measured number.
    assert [row[1].value for row in table.rows[1:]] == ["DINO", "MoCo v3", "BEiT"]
    assert [cell.value for cell in column(table, "top1 ours")[1:]] == [None] * 3


@pytest.mark.parametrize(("init", "printed"), [("moco_v3", 83.2), ("mine", None)])
def test_other_methods_are_compared_with_the_papers_mae(make_record, init, printed):
    """83.5 against its 83.6: another method's own number was scored by another recipe."""
    (table,) = comparison_table([make_record(init=init)], published())
    paper, difference = table.rows[0][3], table.rows[0][5]
    assert paper.value == printed
    assert difference.value == pytest.approx(-0.1)
    if printed:
        assert "scored with a recipe that may differ" in note(table, paper.marks[0])


def test_what_others_scored_by_another_protocol_is_not_subtracted(make_record):
    knn = make_record(init="mine", protocol="imagenet1k/knn@1", metrics={"top1": 70.0})
    (table,) = comparison_table([knn], published())
    assert column(table, "top1 difference")[0].value is None


def test_fine_tuning_and_scratch_share_a_table_with_the_gain(make_record):
    """Means 83.6 (two seeds) and 82.4 (two seeds): a gain of 1.2, by hand."""
    untrained = {"init": "scratch", "checkpoint": None, "protocol": "imagenet1k/scratch@1"}
    runs = [
        *(make_record(seed=s, metrics={"top1": v}) for s, v in enumerate((83.5, 83.7))),
        *(
            make_record(name=f"plain-{s}", seed=s, metrics={"top1": v}, **untrained)
            for s, v in enumerate((82.3, 82.5))
        ),
        make_record(backbone="vit_l", metrics={"top1": 85.0}),
    ]
    (table,) = comparison_table(runs, published())
    assert table.title == (
        "ImageNet-1k: fine-tuning and training from scratch (protocols imagenet1k/finetune@1 and"
        " imagenet1k/scratch@1)"
    )
    rows = {(row[0].value, row[1].value): row for row in table.rows}
    keys = [each.key for each in table.columns]
    gain = rows["vit_b", "mae"][keys.index("top1 ours gain")]
    assert gain.value == pytest.approx(1.2)
    assert [note(table, mark) for mark in gain.marks] == [
        "random weights: plain-0, plain-1, imagenet1k/scratch@1."
    ]
    assert rows["vit_b", "scratch"][keys.index("top1 ours gain")].value is None
    assert rows["vit_l", "mae"][keys.index("top1 ours gain")].value is None
    # To the paper's training from scratch, of 82.3.
    difference = rows["vit_b", "scratch"][keys.index("top1 difference")]
    assert difference.value == pytest.approx(0.1)


def test_a_gain_within_the_noise_of_seeds_says_so(make_record):
    """Spreads of 2 points over two seeds each: no one can tell a point."""
    untrained = {"init": "scratch", "checkpoint": None, "protocol": "imagenet1k/scratch@1"}
    runs = [
        *(make_record(seed=s, metrics={"top1": v}) for s, v in enumerate((81.0, 85.0))),
        *(make_record(seed=s, metrics={"top1": v}, **untrained) for s, v in ((0, 80.0), (1, 84.0))),
    ]
    (table,) = comparison_table(runs, [])
    (gain,) = [c for c in column(table, "top1 ours gain") if c.value is not None]
    assert gain.value == pytest.approx(1.0)
    assert note(table, gain.marks[-1]).startswith("not significant: Welch's 95 % interval")


def test_incomplete_runs_and_those_on_other_data_gain_nothing(make_record):
    untrained = {"init": "scratch", "checkpoint": None, "protocol": "imagenet1k/scratch@1"}
    other = OFFICIAL.model_copy(update={"fingerprint": "cd" * 8})
    for change in ({"complete": False}, {"data": other}, {"backbone": "vit_l"}):
        (table,) = comparison_table([make_record(), make_record(**untrained, **change)], [])
        assert not [each for each in table.columns if each.key.endswith("gain")]


def test_own_data_stand_in_one_table_without_published_numbers(make_record):
    data = FOLDER.model_copy(update={"name": "my_photos"})
    other = data.model_copy(update={"name": "others", "fingerprint": "cc" * 8})
    own = {"task": "folder", "data": data, "backbone": "vit_b"}
    runs = [
        make_record(**own, protocol="folder/finetune@1", metrics={"top1": 90.0}),
        make_record(**own, protocol="folder/knn@1", metrics={"top1": 70.0}),
        make_record(
            **own,
            protocol="folder/scratch@1",
            init="scratch",
            checkpoint=None,
            metrics={"top1": 60.0},
        ),
        make_record(data=other, deviations=["epochs 100 -> 10"], metrics={"top1": 50.0}),
        make_record(),
    ]
    official, elsewhere, mine = comparison_table(runs, published())
    assert official.title.startswith("ImageNet-1k: fine-tuning")
    assert len(official.rows) == 4
    assert elsewhere.title == "Own data others: ImageNet-1k"
    assert {each.kind for each in elsewhere.columns} == {"label", "measured"}
    assert note(elsewhere, elsewhere.rows[0][2].marks[0]) == (
        "differs from the protocol: epochs 100 -> 10."
    )
    assert mine.title == "Own data my_photos: images in class folders"
    assert [row[2].value for row in mine.rows] == [90.0, 60.0]
    gains = [row[3].value for row in mine.rows]
    assert gains == [pytest.approx(30.0), None]
    text = " ".join(each.text for each in mine.notes)
    assert "2000 training and 500 validation images of 8 classes" in text
    assert "not comparable" not in text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"deviations": ["epochs 100 -> 1", "limited to 64 images"]},
            "not comparable: epochs 100 -> 1; limited to 64 images.",
        ),
        ({"complete": False}, "not comparable: the run is incomplete."),
        (
            {"data": FOLDER.model_copy(update={"classes": 1000})},
            "not comparable: data photos (2000 training and 500 validation images)"
            " is not the official set.",
        ),
    ],
)
def test_other_runs_are_marked_and_say_why(make_record, change, reason):
    (table,) = comparison_table([make_record(**change)], published())
    ours, paper, difference = (table.rows[0][index] for index in (2, 3, 5))
    assert note(table, ours.marks[0]) == reason
    assert paper.value == 83.6
    assert difference.value is None


def test_unlike_protocols_and_miniature_runs_get_tables_of_their_own(make_record):
    runs = [
        make_record(),
        make_record(protocol="imagenet1k/linear@1", metrics={"top1": 68.0}),
        make_record(data=MINIATURE, deviations=["epochs 100 -> 2"], metrics={"top1": 30.0}),
        make_record(kind="pretrain", protocol="pretrain/mae@1", metrics={"loss": 0.25}),
    ]
    tables = comparison_table(runs, published())
    assert [table.title for table in tables] == [
        "ImageNet-1k: fine-tuning (protocol imagenet1k/finetune@1)",
        "ImageNet-1k: linear probing (protocol imagenet1k/linear@1)",
        "Masked autoencoder pre-training (protocol pretrain/mae@1)",
        "Miniature world: ImageNet-1k",
    ]
    miniature = tables[-1]
    assert [column.kind for column in miniature.columns] == ["label", "label", "measured"]
    assert [row[2].value for row in miniature.rows] == [30.0]
    assert column(tables[2], "loss ours")[0].value == 0.25
    assert comparison_table([], published()) == []


def test_miniature_table_has_weights_down_and_protocols_across(make_record):
    linear, scratch = "imagenet1k/linear@1", "imagenet1k/scratch@1"
    untrained = {"init": "scratch", "checkpoint": None, "protocol": scratch, "data": MINIATURE}
    runs = [
        make_record(data=MINIATURE, metrics={"top1": 60.0}),
        make_record(data=MINIATURE, protocol=linear, metrics={"top1": 40.0}, recipe_hash="f" * 12),
        make_record(**untrained, metrics={"top1": 50.0}),
        make_record(**untrained, metrics={"top1": 52.0}, deviations=["epochs 1 -> 9"]),
    ]
    (table,) = comparison_table(runs, published())
    assert [column.title for column in table.columns[2:]] == [
        "fine-tuning top-1",
        "gain in fine-tuning top-1",
        "linear probing top-1",
    ]
    cells = [[cell.value for cell in row] for row in table.rows]
    assert [row[1:] for row in cells] == [
        ["mae", 60.0, 10.0, 40.0],
        ["scratch", 50.0, None, None],
        ["scratch", 52.0, None, None],
    ]
    assert len(table.rows[0][1].marks) == 1  # the weights; each protocol has a recipe of its own
    assert [note(table, mark) for mark in table.rows[2][2].marks] == [
        "differs from the protocol: epochs 1 -> 9.",
        "training from scratch: imagenet1k/scratch@1.",
    ]
    assert any(each.text.startswith("Small images drawn") for each in table.notes)


def test_seeds_may_start_at_pre_training(make_record):
    """Checkpoints of one recipe of ours on the same images are repetitions; strangers' files
    are not."""
    ours = [pretrained(seed=0), pretrained(seed=1)]
    runs = [
        make_record(checkpoint=each, seed=seed, metrics={"top1": 80.0 + seed})
        for seed, each in enumerate(ours)
    ]
    (table,) = comparison_table(runs, [])
    ((_, label, score),) = table.rows
    assert (score.value, score.n) == (80.5, 2)
    assert score.std == pytest.approx(0.5**0.5, rel=1e-12)
    assert note(table, label.marks[0]) == (
        "2 weights, pre-trained with a seed each by recipe 0123456789ab, on photos, fingerprint"
        " fedcba987654."
    )
    apart = [
        record.model_copy(
            update={"checkpoint": record.checkpoint.model_copy(update={"recipe_hash": None})}
        )
        for record in runs
    ]
    (table,) = comparison_table(apart, [])
    assert [row[2].n for row in table.rows] == [1, 1]


def test_partial_fine_tuning_is_one_table(make_record):
    scores = {"12": 84.0, "0": 73.0, "0.5": 78.0, "2": 83.0}
    runs = [
        make_record(protocol=f"imagenet1k/partial-{k}@1", backbone="vit_l", metrics={"top1": v})
        for k, v in scores.items()
    ]
    runs.append(make_record(protocol="imagenet1k/partial-2@1", backbone="vit_l", init="dino"))
    (table,) = comparison_table(runs, published())
    assert table.title == "ImageNet-1k: partial fine-tuning (protocol imagenet1k/partial-K@1)"
    assert [(column.kind, column.title) for column in table.columns[:4]] == [
        ("label", "backbone"),
        ("label", "weights"),
        ("label", "trained blocks"),
        ("measured", "top-1"),
    ]
    rows = [[cell.value for cell in row[1:5]] for row in table.rows]
    assert rows == [
        ["dino", "2", 83.5, None],
        ["mae", "0", 73.0, 73.5],
        ["mae", "0.5", 78.0, 79.1],  # printed elsewhere than the others, in the same column
        ["mae", "2", 83.0, 83.1],
        ["mae", "12", 84.0, 84.6],
        ["MoCo v3", "0", None, 77.6],
        ["MoCo v3", "2", None, 80.8],
        ["MoCo v3", "12", None, 83.2],
    ]
    assert [note(table, mark) for mark in table.columns[4].marks] == [
        "MAE paper: arXiv 2111.06377, Figure 9.",
        "MAE paper: arXiv 2111.06377, Section 4.3 text.",
    ]
    # Unlike versions are unlike protocols, and another task is another table.
    other = [make_record(protocol=f"{name}/partial-1@{v}") for name, v in (("folder", 1), ("x", 2))]
    assert len(comparison_table([*runs, *other], published())) == 3


def test_miniature_partial_fine_tuning_is_a_table_of_its_own(make_record):
    runs = [
        make_record(protocol=f"imagenet1k/partial-{k}@1", data=MINIATURE, metrics={"top1": v})
        for k, v in (("1", 50.0), ("0", 30.0))
    ]
    runs.append(make_record(data=MINIATURE, metrics={"top1": 60.0}))
    plain, curve = comparison_table(runs, published())
    assert plain.title == "Miniature world: ImageNet-1k"
    assert [row[2].value for row in plain.rows] == [60.0]
    assert curve.title == "Miniature world: ImageNet-1k, partial fine-tuning"
    assert {column.kind for column in curve.columns} == {"label", "measured"}
    assert [[cell.value for cell in row] for row in curve.rows] == [
        ["vit_b", "mae", "0", 30.0],
        ["vit_b", "mae", "1", 50.0],
    ]
    assert curve.notes[0].text.startswith("Small images drawn")


def test_absurd_records_are_fatal_to_no_table(make_record):
    run = make_record()
    many = run.environment.model_copy(update={"processes": 10**400})
    cost = run.cost.model_copy(update={"seconds": 1e308, "peak_memory_bytes": 10**400})
    runs = [
        make_record(metrics={"top1": 1e308}, environment=many),
        make_record(metrics={"top1": -1e308}, seed=1, cost=cost),
        make_record(metrics={"top1": 83.0}, seed=2),
    ]
    (table,) = comparison_table(runs, published(), costs=True, intervals=True)
    cell = column(table, "top1 ours")[0]
    assert (cell.value, cell.n, cell.interval) == (83.0, 1, None)
    assert "a score beyond 1e+09 is left out." in [note(table, mark) for mark in cell.marks]
    metrics = {f"metric {index}": 1.0 for index in range(1000)}
    (table,) = comparison_table([make_record(metrics=metrics)], published())
    assert len(table.columns) < 20


def test_two_pre_trainings_by_one_recipe_are_two_seeds(make_record):
    """Though both were fine-tuned with the same seed; a repetition of one of them is none."""
    files = [pretrained(seed=0), pretrained(seed=1)]
    scores = zip(files, (83.0, 85.0), strict=True)
    runs = [make_record(checkpoint=file, metrics={"top1": top1}) for file, top1 in scores]
    (found,) = configurations([*runs, runs[0].model_copy(update={"name": "again"})])
    assert (len(found.records), len(found.repeats)) == (2, 1)
    cell = found.cell("top1", 2)
    assert (cell.value, cell.n, cell.std) == (84, 2, pytest.approx(2**0.5))


def test_pre_trainings_of_other_settings_do_not_look_alike():
    """In the table of pre-trainings, and where transfers begin from them."""
    data = make().data
    common = {"kind": "pretrain", "task": "pretrain", "protocol": "pretrain/mae@1"}
    common |= {"init": "scratch", "checkpoint": None, "metrics": {"loss": 0.4}}
    settings = [{}, {"mask": "block"}, {"target": "pca", "augmentation": "none"}]
    before, after = [], []
    for number, recipe in enumerate(settings):
        digest = f"{number}" * 12
        before.append(make(name=f"p{number}", recipe_hash=digest, recipe=recipe, **common))
        named = Named(name=data.name, fingerprint=data.fingerprint)
        file = pretrained(0, f"{number}a", recipe_hash=digest, data=named)
        after.append(make(name=f"t{number}", checkpoint=file))
    own = data.model_copy(update={"own": True, "standard": False})
    apart = [each.model_copy(update={"data": own}) for each in after]
    tables = [*comparison_table([*before, *after], []), *comparison_table([*before, *apart], [])]
    assert len(tables) == 4
    for table in tables:
        weights = [str(row[1].value).partition(", ")[2] for row in table.rows]
        assert sorted(weights) == ["", "mask block", "target pca, augmentation none"]
