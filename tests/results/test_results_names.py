"""What rows and lines of runs are called that differ in their pre-training."""

import pytest
from made_records import make, pretrained

from results import (
    Cost,
    Data,
    Named,
    Record,
    comparison_table,
    paper_table,
    published,
    to_csv,
    to_latex,
    to_markdown,
)
from results.drawing import told_in_short
from results.figures.cost import cost_curve
from results.figures.pretraining import schedule_curve
from results.figures.protocols import partial_curve, size_curve
from results.frames import records_frame, table_frame
from results.origins import Pretrainings, changed_settings

STANDARD = {
    "epochs": 800,
    "warmup_epochs": 40.0,
    "base_lr": 0.00015,
    "min_crop_area": 0.2,
    "mask_ratio": 0.75,
    "norm_pix": True,
    "decoder_dim": 512,
    "decoder_depth": 8,
    "mask": "random",
    "target": "pixels",
    "encoder_mask_tokens": False,
    "augmentation": "crop_random",
    "codebook": None,
}
MINIATURE = Data(
    name="mini",
    fingerprint="aaaa" * 4,
    train_images=10,
    val_images=5,
    classes=2,
    miniature=True,
    standard=False,
)


def study(number: int, /, *tasks: dict, data: Data | None = None, **settings: object) -> list:
    """A pre-training of ours that changes settings, and transfers from its weights."""
    digest = f"{number:02}" * 6
    shared = {"data": data} if data else {}
    before = make(
        name=f"pretrain-{number}",
        kind="pretrain",
        task="pretrain",
        protocol="pretrain/mae@1",
        init="scratch",
        checkpoint=None,
        recipe={**STANDARD, **settings},
        recipe_hash=digest,
        deviations=[f"{name} {STANDARD[name]} -> {to}" for name, to in settings.items()],
        metrics={"loss": 0.4},
        **shared,
    )
    named = Named(name=before.data.name, fingerprint=before.data.fingerprint)
    file = pretrained(0, f"{number:02}", recipe_hash=digest, data=named)
    after = [
        make(**{"name": f"t{number}", "checkpoint": file, **shared, **task})
        for task in (tasks or ({},))
    ]
    return [before, *after]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "mae"),
        ({"decoder_depth": 4}, "mae, decoder depth 4"),
        ({"decoder_dim": 256}, "mae, decoder width 256"),
        ({"norm_pix": False}, "mae, w/o norm"),
        ({"epochs": 1600}, "mae, 1600 epochs"),
        ({"epochs": 1}, "mae, 1 epoch"),
        ({"mask": "block", "mask_ratio": 0.5}, "mae, mask block, mask ratio 0.5"),
        ({"encoder_mask_tokens": True}, "mae, encoder mask tokens"),
        # A shorter training brings a warmup that is as short, and tokens bring what they need.
        ({"epochs": 20, "warmup_epochs": 1.0}, "mae, 20 epochs"),
        ({"epochs": 20, "warmup_epochs": 2.0}, "mae, warmup epochs 2.0, 20 epochs"),
        ({"target": "tokens", "codebook": 8192, "norm_pix": False}, "mae, target tokens"),
        (
            {"epochs": 400, "base_lr": 0.001, "norm_pix": False, "decoder_depth": 1},
            "mae, decoder depth 1, w/o norm, base lr 0.001, 400 epochs",
        ),
    ],
)
def test_a_row_says_what_its_pre_training_changed(settings, name):
    """The same in tables on photos and in the miniature world, alone and beside others."""
    for data in (None, MINIATURE):
        alone = study(1, data=data, **settings)
        other = study(2, data=data, decoder_depth=2)
        for runs in (alone, [*other, *alone]):
            table = comparison_table(runs, [])[0]
            names = {cell.value for row in table.rows for cell in row[1:2]}
            assert name in names
            assert len(names) == len(table.rows)
            assert name in table_frame(table)["weights"].tolist()
            assert f'"{name}"' in to_csv([table]) or f",{name}," in to_csv([table])
            assert name in to_latex([table])
            assert name in to_markdown([table])
            frame = records_frame(runs).set_index("name")
            assert frame.loc["t1", "weights"] == name


def test_a_warmup_that_is_no_number_is_told():
    """Records of strangers may hold anything."""
    (before, _) = study(1, epochs=20, warmup_epochs="long")
    assert changed_settings(before) == ["warmup epochs long", "20 epochs"]


def test_without_the_record_of_the_pre_training_a_name_is_the_label():
    _, run = study(1, decoder_depth=4)
    assert changed_settings(run, Pretrainings([run])) == []


def test_weights_of_one_name_never_share_a_row():
    """Neither tells of a change, but they were pre-trained on other images, and only one probed."""
    tune = {"metrics": {"top1": 50.0}}
    probe = {"protocol": "imagenet1k/linear@1", "metrics": {"top1": 20.0}}
    other = MINIATURE.model_copy(update={"fingerprint": "bbbb" * 4})
    tuned, probed = study(1, tune, data=MINIATURE), study(2, probe, data=MINIATURE)
    probed[0] = probed[0].model_copy(update={"data": other})
    named = Named(name="mini", fingerprint=other.fingerprint)
    file = probed[1].checkpoint.model_copy(update={"data": named})
    probed[1] = probed[1].model_copy(update={"checkpoint": file})
    table = comparison_table([*tuned, *probed], [])[0]
    rows = [[cell.value for cell in row] for row in table.rows]
    assert rows == [["vit_b", "mae", 50.0, None], ["vit_b", "mae", None, 20.0]]


def test_lines_of_ours_in_a_table_of_the_paper_are_told_apart():
    """The line with the paper's numbers keeps its label; further ones say what the paper's
    pre-training did not do."""
    large = {"backbone": "vit_l"}
    runs = []
    for number, epochs in enumerate((800, 1600, 400)):
        pair = study(number, large, norm_pix=False, decoder_depth=4, epochs=epochs)
        runs += [pair[0].model_copy(update=large), pair[1]]
    table = paper_table("1a", runs, published())
    assert [row[0].value for row in table.rows] == [
        *("1", "2", "4", "4, 1600 epochs", "4, 400 epochs", "8", "12")
    ]


def named_lines(figure) -> set[str]:
    return {line.get_label() for axes in figure.axes for line in axes.containers}


def priced(run: Record, hours: float) -> Record:
    return run.model_copy(update={"cost": Cost(seconds=3600 * hours, parameters=86_000_000)})


def test_lines_of_figures_say_it_too():
    runs, parts = [], []
    for number, settings in enumerate(({}, {"decoder_depth": 4}, {"norm_pix": False})):
        sizes = [{"metrics": {"top1": 80.0}}, {"metrics": {"top1": 82.0}, "backbone": "vit_l"}]
        runs += [priced(run, 1 + number) for run in study(number, *sizes, **settings)]
        blocks = [{"protocol": f"imagenet1k/partial-{count}@1"} for count in (1, 2)]
        parts += study(number, *blocks, **settings)
    wanted = {"MAE", "MAE, decoder depth 4", "MAE, w/o norm"}
    figure, _ = cost_curve("imagenet1k/finetune@1", runs)
    assert named_lines(figure) == {f"{name} · ours" for name in wanted}
    assert len(figure.axes) == 1  # a panel of weights that are all the same would tell nothing
    assert named_lines(size_curve("imagenet1k/finetune@1", runs, [])) == {
        f"{name} · ours" for name in wanted
    }
    assert named_lines(partial_curve("imagenet1k", parts, [])) == {
        "MAE, ViT-B · ours",
        "MAE, ViT-B, decoder depth 4 · ours",
        "MAE, ViT-B, w/o norm · ours",
    }


def test_schedules_with_a_warmup_of_the_same_part_are_one_line():
    short = study(1, {"metrics": {"top1": 50.0}}, epochs=20, warmup_epochs=1.0)
    whole = study(2, {"metrics": {"top1": 80.0}})
    figure = schedule_curve([*short, *whole], [])
    (line,) = figure.axes[0].containers
    assert list(line[0].get_xdata()) == [20.0, 800.0]
    assert line[0].get_fillstyle() == "full"
    own = study(3, {"metrics": {"top1": 60.0}}, epochs=30, warmup_epochs=20.0)
    figure = schedule_curve([*short, *whole, *own], [])
    assert list(figure.axes[0].containers[0][0].get_xdata()) == [20.0, 800.0]


def test_long_names_of_runs_are_told_by_what_differs():
    begin = "pretrain-vit_mini-epochs-3-mask"
    long = [f"{begin}-grid-seed0", f"{begin}-block-mask_ratio-0.5-seed0"]
    assert told_in_short(long) == ["…-grid-seed0", "…-block-mask_ratio-0.5-seed0"]
    assert told_in_short(["mae-seed0", "mae-seed1"]) == ["mae-seed0", "mae-seed1"]
    assert told_in_short(long[1:]) == ["pretrain-vit_min…k_ratio-0.5-seed0"]


def test_latex_holds_a_long_name_whole():
    """Its end often is what tells it from the next."""
    runs = study(1, augmentation="crop_random_jitter", mask="block", mask_ratio=0.5, epochs=3)
    assert "mask ratio 0.5, 3 epochs" in to_latex(comparison_table(runs, []))
