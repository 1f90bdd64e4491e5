"""Figures: their points against numbers read off the papers by hand, and what they leave out."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from io import BytesIO

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from results import Checkpoint, Cost, Named, ResultsError, comparison_table, published
from results.drawing import MAX_LINES, PAPER, STYLES, running_mean, save
from results.figures import (
    MAX_CURVES,
    figures,
    masking_curve,
    partial_curve,
    schedule_curve,
    size_curve,
    training_curves,
)
from results.figures.cost import cost_curve
from results.labels import words
from results.line_names import apart
from results.logs import Log

# MAE paper, Figures 5, 7 and 9 and Table 3, entered by hand.
RATIOS = (10, 20, 30, 40, 50, 60, 70, 75, 80, 90)
FIGURE_5 = {
    "fine-tuning": (83.2, 83.4, 83.4, 84.7, 84.9, 85.0, 84.9, 84.9, 84.5, 83.0),
    "linear probing": (54.6, 58.9, 61.7, 67.0, 69.9, 71.8, 73.2, 73.5, 71.8, 66.1),
}
EPOCHS = (100, 200, 400, 800, 1600)
FIGURE_7 = {
    "fine-tuning": (82.3, 83.3, 84.3, 84.9, 85.1),
    "linear probing": (57.3, 64.4, 69.7, 73.5, 75.1),
}
BLOCKS = (0, 0.5, 1, 2, 4, 6, 12, 18, 24)
FIGURE_9 = {
    "MAE, ViT-L · published": (73.5, 79.1, 81.0, 83.1, 84.2, 84.4, 84.6, 84.7, 84.9),
    "MoCo v3, ViT-L · published": (77.6, 79.9, 80.8, 81.6, 81.9, 83.2, 83.8, 84.1),
}
TABLE_3 = {
    "MAE · published": (83.6, 85.9, 86.9),
    "BEiT · published": (83.2, 85.2),
    "MoCo v3 · published": (83.2, 84.1),
    "DINO · published": (82.8,),
    "scratch · published": (82.3, 82.6, 83.1),
}

HOSTILE = [
    "$\\frac{1}{0}$ $",
    "_hidden",
    "<script>alert(1)</script>&amp;",
    "two\nlines\x00\x1b[31m",
    "\u202etxt.exe",
    "模型 \U0001f600",
    "x" * 5000,
]


def drawn(figure) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """title of a panel -> name of a line -> its points, as they are drawn."""
    return {
        axes.get_title(loc="left"): {
            container.get_label(): [
                tuple(map(float, point)) for point in container.lines[0].get_xydata()
            ]
            for container in axes.containers
        }
        for axes in figure.axes
    }


def line(figure, name, panel=0):
    (found,) = [c for c in figure.axes[panel].containers if c.get_label() == name]
    return found.lines[0]


@pytest.fixture
def pretrained(make_record):
    """pretrained(top1, **recipe): a pre-training run, and a fine-tuning of what it made."""

    def make(top1, protocol="imagenet1k/finetune@1", seed=0, data=None, **changes):
        recipe = {"epochs": 800, "mask_ratio": 0.75, "norm_pix": False} | changes
        digest = f"{abs(hash(tuple(recipe.items()))):016x}"
        more = {} if data is None else {"data": data}
        pre = make_record(
            kind="pretrain",
            protocol="pretrain/mae@1",
            task="pretrain",
            backbone="vit_l",
            init="scratch",
            checkpoint=None,
            recipe=recipe,
            recipe_hash=digest,
            deviations=[
                f"{key} {old} -> {recipe[key]}"
                for key, old in (("epochs", 800), ("mask_ratio", 0.75), ("norm_pix", True))
                if recipe.get(key) != old
            ]
            + [f"{key} was changed" for key in recipe if key == "decoder_depth"],
            metrics={"loss": 0.4},
            seed=seed,
            **more,
        )
        images = Named(name=pre.data.name, fingerprint=pre.data.fingerprint)
        weights = Checkpoint(
            file="b", sha256=f"{seed:x}" * 64, recipe_hash=digest, data=images, seed=seed
        )
        options = {"protocol": protocol, "backbone": "vit_l", "checkpoint": weights} | more
        return [pre, make_record(metrics={"top1": top1}, seed=seed, **options)]

    return make


@pytest.fixture
def miniature(make_record):
    data = make_record().data
    return data.model_copy(update={"miniature": True, "standard": False})


def test_masking_ratio_has_the_papers_points_and_ours(pretrained):
    records = [
        *pretrained(84.6, mask_ratio=0.4),
        *pretrained(84.9),
        *pretrained(85.1, seed=1),
        *pretrained(73.0, protocol="imagenet1k/linear@1"),
    ]
    panels = drawn(masking_curve(records, published()))
    assert list(panels) == ["ImageNet-1k: fine-tuning", "ImageNet-1k: linear probing"]
    for title, values in FIGURE_5.items():
        theirs = panels[f"ImageNet-1k: {title}"]["ViT-L, 800 ep · published"]
        assert theirs == list(zip(RATIOS, values, strict=True))
    ours = panels["ImageNet-1k: fine-tuning"]["ViT-L, 800 ep · ours"]
    assert ours == [(40.0, 84.6), (75.0, pytest.approx(85.0, abs=1e-9))]
    assert panels["ImageNet-1k: linear probing"]["ViT-L, 800 ep · ours"] == [(75.0, 73.0)]


def test_several_seeds_have_bars(pretrained):
    """Two scores 0.2 apart: a sample standard deviation of 0.2 / sqrt(2)."""
    records = [*pretrained(84.9), *pretrained(85.1, seed=1), *pretrained(84.6, mask_ratio=0.4)]
    figure = masking_curve(records, published())
    (ours,) = [c for c in figure.axes[0].containers if c.get_label().endswith("ours")]
    segments = [path for path in ours.lines[2][0].get_segments() if len(path)]
    (bar,) = segments
    assert bar[:, 0] == pytest.approx([75, 75])
    assert bar[:, 1] == pytest.approx([85 - 0.1 * 2**0.5, 85 + 0.1 * 2**0.5])


def test_schedule_has_the_papers_points_and_ours(pretrained):
    records = [*pretrained(82.5, epochs=100), *pretrained(84.8), *pretrained(84.0, mask_ratio=0.4)]
    figure = schedule_curve(records, published())
    (panel,) = drawn(figure).values()
    assert panel["ViT-L · published"] == list(zip(EPOCHS, FIGURE_7["fine-tuning"], strict=True))
    assert panel["ViT-L · ours"] == [(100.0, 82.5), (800.0, 84.8)]
    assert [c.get_label() for c in figure.axes[0].containers].count("ViT-L · ours") == 1


def test_partial_fine_tuning_has_the_papers_points_and_ours(make_record):
    records = [
        make_record(protocol=f"imagenet1k/partial-{k}@1", backbone="vit_b", metrics={"top1": y})
        for k, y in (("0", 67.0), ("0.5", 70.0), ("12", 83.0))
    ]
    (panel,) = drawn(partial_curve("imagenet1k", records, published())).values()
    assert panel["MAE, ViT-B · ours"] == [(0.0, 67.0), (0.5, 70.0), (12.0, 83.0)]
    for name, values in FIGURE_9.items():
        blocks = BLOCKS if len(values) == 9 else [k for k in BLOCKS if k != 0.5]
        assert panel[name] == list(zip(map(float, blocks), values, strict=True))


def test_model_size_has_the_papers_table_and_ours(make_record):
    records = [
        make_record(metrics={"top1": 83.5}),
        make_record(metrics={"top1": 85.8}, backbone="vit_l"),
        make_record(metrics={"top1": 82.0}, init="scratch", protocol="imagenet1k/scratch@1"),
    ]
    figure = size_curve("imagenet1k/finetune@1", records, published())
    (panel,) = drawn(figure).values()
    place = {t.get_text(): x for x, t in zip(*_ticks(figure.axes[0]), strict=True)}
    b, large, h = place["ViT-B"], place["ViT-L"], place["ViT-H"]
    assert b < large < h
    for name, values in TABLE_3.items():
        assert panel[name] == list(zip((b, large, h)[: len(values)], values, strict=True))
    assert panel["MAE · ours"] == [(b, 83.5), (large, 85.8)]
    assert panel["scratch · ours"] == [(b, 82.0)]


def _ticks(axes):
    return axes.get_xticks(), axes.get_xticklabels()


def test_ours_and_theirs_differ_without_colour(make_record):
    """Filled and solid, half-filled and dotted, hollow and dashed; one marker per method."""
    records = [
        make_record(metrics={"top1": 83.5}),
        make_record(metrics={"top1": 82.5}, init="dino", deviations=["epochs 100 -> 30"]),
    ]
    figure = size_curve("imagenet1k/finetune@1", records, published())
    ours, marked = line(figure, "MAE · ours"), line(figure, "DINO · ours")
    theirs = line(figure, "MAE · published")
    colour, marker = STYLES["mae"]
    assert to_hex(ours.get_markerfacecolor()) == to_hex(theirs.get_color()) == colour
    assert to_hex(theirs.get_markerfacecolor()) == PAPER
    assert ours.get_marker() == theirs.get_marker() == marker != marked.get_marker()
    assert (ours.get_fillstyle(), marked.get_fillstyle()) == ("full", "bottom")
    assert ours.get_linestyle() == "-"
    assert theirs.get_linestyle() == marked.get_linestyle() == "--"  # as matplotlib calls dashes
    assert theirs._dash_pattern != marked._dash_pattern
    key = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert key == ["ours", "ours, not comparable", "published"]
    markers = [marker for _, marker in STYLES.values()]
    assert len(set(markers)) == len(markers)


def test_an_unlike_pretraining_is_marked(pretrained):
    records = [
        *pretrained(82.5, epochs=100, decoder_depth=1),
        *pretrained(84.8, decoder_depth=1),
    ]
    figure = schedule_curve(records, published())
    assert line(figure, "ViT-L · ours").get_fillstyle() == "bottom"


def test_nothing_to_draw(make_record, pretrained, miniature):
    record = make_record(data=miniature, metrics={"top1": 50.0})
    assert figures([], published(), []) == []
    assert size_curve("imagenet1k/finetune@1", [], published()) is None
    assert size_curve("imagenet1k/finetune@1", [record], []) is None  # one point alone
    assert partial_curve("imagenet1k", [record], []) is None
    assert masking_curve([record], []) is None
    assert masking_curve(pretrained(84.9), []) is None
    assert schedule_curve([make_record()], published()) is None  # weights of unknown origin
    assert training_curves([]) is None


def test_the_miniature_world_stands_alone(pretrained, miniature, make_record):
    """Its figures have no published point, and say so in the title."""
    records = [
        *pretrained(50.0, data=miniature),
        *pretrained(45.0, mask_ratio=0.4, data=miniature),
        make_record(metrics={"top1": 83.5}),
    ]
    found = figures(records, published(), [])
    assert [each.key for each in found] == [
        "size-imagenet1k-finetune-v1",
        "miniature-masking-ratio",
    ]
    (panel,) = drawn(found[1].figure)
    assert panel == "ImageNet-1k: fine-tuning, miniature world"
    assert list(drawn(found[1].figure)[panel]) == ["ViT-L, 800 ep · ours"]
    with pytest.raises(ResultsError, match="never share a figure"):
        size_curve("imagenet1k/finetune@1", records, published())


def test_many_lines_are_bounded_and_counted(make_record):
    records = [
        make_record(init=f"method {i}", metrics={"top1": 80 + i / 10}) for i in range(MAX_LINES + 5)
    ]
    (axes,) = size_curve("imagenet1k/finetune@1", records, published()).axes
    ours = [c for c in axes.containers if c.get_label().endswith("ours")]
    assert len(ours) == MAX_LINES
    assert axes.get_xlabel() == "backbone (5 more lines of ours left out)"


def test_names_of_lines_do_not_overlap():
    wanted = [0.1, 0.1, 0.1, 0.5, 0.52, 0.98]
    places = apart(wanted, 0.06)
    assert np.diff(places).min() >= 0.06 - 1e-9
    assert places[-1] == pytest.approx(0.98)
    assert np.mean(places[3:5]) == pytest.approx(0.51)
    assert apart([0.2, 0.8], 0.06) == pytest.approx([0.2, 0.8])


def outermost(figure):
    """The pixels around a figure's picture, two deep: blank where nothing is cut."""
    with Image.open(BytesIO(save(figure, "png"))) as picture:
        pixels = np.asarray(picture.convert("L"))
    return np.concatenate([*pixels[:2], *pixels[-2:], *pixels.T[:2], *pixels.T[-2:]])


def test_no_text_is_cut(make_record, miniature, monkeypatch):
    """Long titles are whole, in several lines; wide names and long numbers are inside."""
    titles = {
        "tasks": {"folder": "images in class folders"},
        "protocols": {"folder": {"small": "fine-tuning, our recipe for few images"}},
    }
    monkeypatch.setattr("results.labels._words", [replace(words(), **titles)])
    shared = {"data": miniature, "task": "folder", "protocol": "folder/small@1"}
    records = [
        make_record(**shared, init="W" * 34, backbone=size, metrics={"top1": value})
        for size, value in (("vit_b", 80.0), ("vit_l", 80.0001))
    ]
    sizes = size_curve("folder/small@1", records, [])
    names = [log([2.31661, 2.31662], f"{'m' * 60}-seed{seed}", "folder/small@1") for seed in (0, 1)]
    losses = training_curves(names)
    ends = [text.get_text() for text in losses.axes[0].texts]
    assert [end[-6:] for end in ends] == ["-seed0", "-seed1"]
    whole = "Images in class folders: fine-tuning, our recipe for few images"
    for figure, title in ((sizes, f"{whole}, miniature world"), (losses, whole)):
        assert outermost(figure).min() == 255
        assert figure.axes[0].get_title(loc="left").replace("\n", " ") == title
        assert max(map(len, figure.axes[0].get_title(loc="left").split("\n"))) <= 60


@pytest.mark.parametrize("scores", [(100.0, 100.0), (99.0, 100.0), (0.0, 0.5)])
def test_an_axis_of_scores_ends_at_100_and_0(make_record, scores):
    records = [
        make_record(backbone=size, metrics={"top1": value})
        for size, value in zip(("vit_b", "vit_l"), scores, strict=True)
    ]
    (axes,) = size_curve("imagenet1k/finetune@1", records, []).axes
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert len(shown) > 2
    assert min(shown) >= 0
    assert max(shown) <= 100
    assert (axes.spines["left"].get_bounds() or (low, high))[1] <= 100
    assert low <= min(scores) <= max(scores) <= high


def log(losses, name="run", protocol="pretrain/mae@1", miniature=False):
    epochs = tuple(float(i) for i in range(1, len(losses) + 1))
    return Log(name, protocol, miniature, epochs, tuple(map(float, losses)))


def test_training_curve_is_the_log_and_its_running_mean():
    losses = np.random.default_rng(0).normal(size=100) + 5
    (axes,) = training_curves([log(losses)]).axes
    raw, smooth = axes.lines
    assert np.array_equal(raw.get_xdata(), np.arange(1, 101))
    assert np.array_equal(raw.get_ydata(), losses)
    width = 4
    expected = [losses[max(0, i - width // 2) : i + width // 2].mean() for i in range(len(losses))]
    assert smooth.get_ydata() == pytest.approx(expected, abs=1e-12)
    assert raw.get_alpha() < 0.5


def test_running_mean_keeps_a_constant():
    assert running_mean(np.full(7, 3.0), 3) == pytest.approx(np.full(7, 3.0))
    assert running_mean(np.array([1.0, 2.0]), 5) == pytest.approx([1.0, 1.5])


def test_training_curves_are_of_the_last_runs():
    logs = [log([3, 2, 1], name=f"run {i}") for i in range(MAX_CURVES + 3)]
    (axes,) = training_curves(logs).axes
    assert [text.get_text() for text in axes.texts] == [f"run {i}" for i in range(3, 11)]
    assert len(axes.lines) == 2 * MAX_CURVES


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names(text, make_record, miniature):
    """They are text: no formula, no markup, no control, and no part of a path."""
    records = [
        make_record(init=text, metrics={"top1": 1e308}),
        make_record(init=text, metrics={"top1": 80.0}, seed=1, backbone=text, task=text),
        make_record(init=text, protocol="imagenet1k/partial-2@1", task=text),
        make_record(init=text, protocol="imagenet1k/partial-4@1", task=text),
        make_record(init=text, metrics={"top1": 80.0}, backbone="vit_l"),
    ]
    found = figures(records, published(), [log([2, 1], text, text)])
    assert len(found) == 3
    for each in found:
        assert each.key == each.key.strip("./\\")
        assert set(each.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert len(each.key) <= 100
        tree = ElementTree.fromstring(each.svg)
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert "script" not in tags
        shown = "".join(tree.itertext())
        assert all(c.isprintable() or c.isspace() for c in shown)


def test_hostile_names_can_be_written_in_every_format(make_record):
    records = [make_record(init=text, metrics={"top1": 80.0}) for text in HOSTILE]
    figure = size_curve("imagenet1k/finetune@1", records, published())
    assert save(figure, "png").startswith(b"\x89PNG")
    assert save(figure, "pdf").startswith(b"%PDF")


def test_user_text_is_shown_literally(make_record):
    records = [make_record(init="$x_1$", metrics={"top1": 83.0})]
    svg = save(size_curve("imagenet1k/finetune@1", records, published()), "svg").decode()
    assert ">$x_1$ · ours<" in svg


def test_the_same_figure_gives_the_same_bytes(make_record):
    def once(kind):
        figure = size_curve("imagenet1k/finetune@1", [make_record()], published())
        return save(figure, kind)

    for kind in ("svg", "png", "pdf"):
        assert once(kind) == once(kind)


def test_no_state_of_matplotlib_is_left(make_record):
    before = dict(matplotlib.rcParams)
    save(size_curve("imagenet1k/finetune@1", [make_record()], published()), "png")
    assert dict(matplotlib.rcParams) == before
    code = (
        "import results, sys; assert 'matplotlib' not in sys.modules; "
        "from results.figures import figures; "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lines_of_other_pre_training_data_are_apart_and_named(make_record):
    """Same method, size, recipe and protocol: two lines, and no point is a mean over both."""

    def weights(name, digits):
        images = Named(name=name, fingerprint=digits * 8)
        return Checkpoint(file="b", sha256=digits * 32, recipe_hash="ab" * 6, data=images, seed=0)

    runs = [
        make_record(
            protocol=f"imagenet1k/partial-{blocks}@2",
            checkpoint=weights(name, digits),
            metrics={"top1": base + blocks},
        )
        for name, digits, base in (("photos", "aa", 70.0), ("noise", "bb", 60.0))
        for blocks in (1, 2, 4)
    ]
    (panel,) = drawn(partial_curve("imagenet1k", runs, [])).values()
    assert panel["MAE, ViT-B, photos · ours"] == [(1.0, 71.0), (2.0, 72.0), (4.0, 74.0)]
    assert panel["MAE, ViT-B, noise · ours"] == [(1.0, 61.0), (2.0, 62.0), (4.0, 64.0)]
    sizes = [
        make_record(backbone=size, checkpoint=weights(name, digits), metrics={"top1": top1})
        for name, digits, top1 in (("photos", "aa", 80.0), ("photos", "bb", 70.0))
        for size in ("vit_b", "vit_l")
    ]
    (panel,) = drawn(size_curve("imagenet1k/finetune@1", sizes, [])).values()
    assert sorted(panel) == ["MAE, aaaaaa · ours", "MAE, bbbbbb · ours"]
    assert {y for line in panel.values() for _, y in line} == {70.0, 80.0}


def test_lines_of_other_methods_and_settings_have_names_of_their_own(pretrained):
    """One figure, and what a line's points share stands in its name."""
    plain = [*pretrained(84.9), *pretrained(84.0, epochs=400)]
    blocks = [*pretrained(83.0, mask="block"), *pretrained(82.0, mask="block", epochs=400)]
    moco = [
        each.model_copy(update={"protocol": "pretrain/moco_v3@1"})
        if each.kind == "pretrain"
        else each.model_copy(update={"init": "moco_v3"})
        for each in (*pretrained(84.1, lr=1.0), *pretrained(83.1, lr=1.0, epochs=400))
    ]
    panels = drawn(schedule_curve([*plain, *blocks, *moco], published()))
    assert set(panels["ImageNet-1k: fine-tuning"]) == {
        "ViT-L · ours",
        "ViT-L, mask block · ours",
        "MoCo v3, ViT-L · ours",
        "ViT-L · published",
    }


@pytest.mark.parametrize("about", [{"classes": 3}, {"classes": 80, "own": True}])
def test_own_data_never_share_an_axis_with_published_numbers(make_record, about):
    """One's own classes of boxes with the task of COCO: a figure of their own, and a table."""
    data = make_record().data.model_copy(
        update={"name": "fruit.json", "standard": False, "fingerprint": "ee" * 8} | about
    )
    shared = {"task": "coco", "protocol": "coco/mask_rcnn-vitdet@1"}
    records = [
        make_record(**shared, metrics={"ap_box": 51.0}),
        *(
            make_record(**shared, data=data, backbone=size, metrics={"ap_box": value})
            for size, value in (("vit_b", 30.0), ("vit_l", 33.0))
        ),
    ]
    official, own = figures(records, published(), [])
    assert official.key == "size-coco-mask_rcnn-vitdet-v1"
    assert own.key == "own-eeeeeeee-size-coco-mask_rcnn-vitdet-v1"
    assert own.title.endswith(", own data fruit.json")
    for table in comparison_table(records, published()):
        theirs = {column.kind for column in table.columns} & {"published"}
        assert bool(theirs) != table.title.startswith("Own data")
    (lines,) = drawn(own.figure).values()
    assert lines == {"MAE · ours": [(3.0, 30.0), (4.0, 33.0)]}
    assert 30.0 not in {
        y for line in drawn(official.figure).values() for p in line.values() for _, y in p
    }


def test_quality_against_cost_is_ours_alone_and_of_one_device(make_record):
    """Two sizes on one device, a third on another; seconds, weights and FLOPs by hand."""

    def run(backbone, top1, hours, weights, device="GPU", processes=1, **more):
        record = make_record(backbone=backbone, metrics={"top1": top1}, **more)
        cost = Cost(
            seconds=3600.0 * hours,
            parameters=weights,
            forward_flops=20.0 * weights,
            latency_seconds=hours / 1000,
        )
        where = {"device": device, "processes": processes}
        environment = record.environment.model_copy(update=where)
        return record.model_copy(update={"cost": cost, "environment": environment})

    scratch = {"init": "scratch", "checkpoint": None, "protocol": "imagenet1k/scratch@1"}
    records = [
        run("vit_b", 83.6, 2.0, 86_000_000),
        run("vit_l", 85.9, 6.0, 304_000_000),
        run("vit_b", 82.3, 4.0, 86_000_000, **scratch),
        run("vit_h", 86.9, 9.0, 632_000_000, device="other"),
    ]
    figure, caption = cost_curve("imagenet1k/finetune@1", records)
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert titles == [
        "training, device-hours",
        "weights of the backbone, millions",
        "GFLOPs of an image, forward",
        "latency of an image, ms",
    ]
    panels = [
        {
            c.get_label(): [tuple(map(float, p)) for p in c.lines[0].get_xydata()]
            for c in a.containers
        }
        for a in figure.axes
    ]
    assert panels[0] == {"MAE · ours": [(2.0, 83.6), (6.0, 85.9)], "scratch · ours": [(4.0, 82.3)]}
    assert [x for x, _ in panels[1]["MAE · ours"]] == [86.0, 304.0, 632.0]
    assert [x for x, _ in panels[2]["MAE · ours"]] == pytest.approx([1.72, 6.08, 12.64])
    assert [x for x, _ in panels[3]["MAE · ours"]] == pytest.approx([2.0, 6.0])
    assert caption == " Times on 1 × GPU; without 1 on other devices."
    whole = figures(records, published(), [])
    assert "cost-imagenet1k-finetune-v1" in [each.key for each in whole]
    assert [bool(axes.get_title(loc="left")) for axes in figure.axes] == [True] + 3 * [False]
    same = [
        run("vit_b", 83.6, 0.1, 86_000_000),
        run("vit_b", 82.3, 0.2, 86_000_000, **scratch),
    ]
    one_backbone, _ = cost_curve("imagenet1k/finetune@1", same)
    (axes,) = one_backbone.axes  # all else is of the backbone, which is one
    assert axes.get_xlabel() == "training, device-minutes"
    assert [float(x) for c in axes.containers for x, _ in c.lines[0].get_xydata()] == [6.0, 12.0]
    nothing, _ = cost_curve("imagenet1k/finetune@1", [make_record()])
    assert nothing is None
