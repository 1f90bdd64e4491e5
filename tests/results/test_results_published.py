import pytest

from results import ResultsError, headline, published
from results.published import HEADLINES, _load, same_recipe

# Typed by hand from the MAE paper (arXiv 2111.06377, Tables 3, 6, 12 and 13) and from FINETUNE.md
# of facebookresearch/mae. Recipes of the first group are published, those of the second are not.
PAPER = {
    "imagenet1k/finetune@1": {"vit_b": 83.6, "vit_l": 85.9, "vit_h": 86.9},
    "imagenet1k/scratch@1": {"vit_b": 82.3, "vit_l": 82.6, "vit_h": 83.1},
    "imagenet1k/linear@1": {"vit_b": 68.0, "vit_l": 75.8, "vit_h": 76.6},
    "imagenet_a/finetune@1": {"vit_b": 35.9, "vit_l": 57.1, "vit_h": 68.2},
    "imagenet_r/finetune@1": {"vit_b": 48.3, "vit_l": 59.9, "vit_h": 64.4},
    "imagenet_sketch/finetune@1": {"vit_b": 34.5, "vit_l": 45.3, "vit_h": 49.6},
    "imagenet_a/scratch@1": {"vit_b": 27.2, "vit_l": 29.6, "vit_h": 33.1},
    "imagenet_r/scratch@1": {"vit_b": 49.4, "vit_l": 50.9, "vit_h": 50.3},
    "imagenet_sketch/scratch@1": {"vit_b": 35.6, "vit_l": 37.5, "vit_h": 38.0},
}
FIGURE_9 = {
    "0": 73.5,
    "0.5": 79.1,
    "1": 81.0,
    "2": 83.1,
    "4": 84.2,
    "6": 84.4,
    "12": 84.6,
    "18": 84.7,
    "24": 84.9,
}
RECIPE_UNKNOWN = {
    "inat2017/finetune@1": {"vit_b": 70.5, "vit_l": 75.7, "vit_h": 79.3},
    "inat2018/finetune@1": {"vit_b": 75.4, "vit_l": 80.1, "vit_h": 83.0},
    "inat2019/finetune@1": {"vit_b": 80.5, "vit_l": 83.4, "vit_h": 85.7},
    "places205/finetune@1": {"vit_b": 63.9, "vit_l": 65.8, "vit_h": 65.9},
    "places365/finetune@1": {"vit_b": 57.9, "vit_l": 59.4, "vit_h": 59.8},
    "imagenet1k/finetune-448@1": {"vit_h": 87.8},
    "inat2017/finetune-448@1": {"vit_h": 83.4},
    "inat2018/finetune-448@1": {"vit_h": 86.8},
    "inat2019/finetune-448@1": {"vit_h": 88.3},
    "places205/finetune-448@1": {"vit_h": 66.8},
    "places365/finetune-448@1": {"vit_h": 60.3},
    "imagenet_a/finetune-448@1": {"vit_h": 76.7},
    "imagenet_r/finetune-448@1": {"vit_h": 66.5},
    "imagenet_sketch/finetune-448@1": {"vit_h": 50.9},
    **{
        f"imagenet1k/partial-{blocks}@{version}": {"vit_l": value}
        for blocks, value in FIGURE_9.items()
        for version in (1, 2)
    },
}
REPOSITORY = {
    "imagenet1k/finetune@1": {"vit_b": 83.664, "vit_l": 85.952, "vit_h": 86.928},
    "imagenet1k/released@1": {"vit_b": 83.664, "vit_l": 85.952, "vit_h": 86.928},
    "imagenet1k/linear@1": {"vit_b": 67.8, "vit_l": 76.0, "vit_h": 77.2},
}


@pytest.mark.parametrize(
    ("source", "methods", "same", "expected"),
    [
        ("mae2021", ("MAE", "scratch"), True, PAPER),
        ("mae2021", ("MAE",), False, RECIPE_UNKNOWN),
        ("mae_repo", ("MAE",), True, REPOSITORY),
    ],
)
def test_headlines(source, methods, same, expected):
    found = {
        protocol: {
            row.backbone: row.value
            for backbone in ("vit_b", "vit_l", "vit_h")
            for row in headline(protocol, backbone)
            if (row.source, row.metric) == (source, "top1")
            and row.method in methods
            and same_recipe(protocol, row) == same
        }
        for protocol in HEADLINES
    }
    assert {protocol: values for protocol, values in found.items() if values} == expected


def test_headlines_hold_the_other_methods_of_table_3_and_no_ablation():
    rows = headline("imagenet1k/finetune@1", "vit_l")
    table3 = {row.method: row.value for row in rows if row.locator == "Table 3"}
    assert table3 == {"MoCo v3": 84.1, "BEiT": 85.2, "MAE": 85.9}
    assert {row.locator for row in rows} == {"Table 3", "FINETUNE.md Evaluation"}
    assert 84.9 in {row.value for row in published("imagenet1k", "finetune", "vit_l", "top1")}


def test_a_headline_has_one_value_per_place_method_and_metric():
    for protocol, places in HEADLINES.items():
        seen = set()
        for backbone in ("vit_s", "vit_b", "vit_l", "vit_h"):
            for row in headline(protocol, backbone):
                key = (row.backbone, row.method, row.metric, row.source, row.locator)
                assert key not in seen
                seen.add(key)
        assert {key[3:] for key in seen} == {(place.source, place.locator) for place in places}


def test_unknown_protocol_or_version_has_no_headline():
    assert headline("imagenet1k/finetune@2", "vit_b") == []
    assert headline("pretrain/mae@1", "vit_b") == []


def test_filters_and_recalled_rows():
    assert len(published(include_recalled=True)) == 516
    recalled = [row for row in published(include_recalled=True) if row.status == "recalled"]
    assert len(recalled) == 13
    assert len(published()) == 516 - 13
    assert all(row.status == "seen" for row in published())
    (row,) = published("imagenet_c", "finetune", "vit_h", "mce")
    assert (row.value, row.decimals, row.source) == (33.8, 1, "mae2021")
    assert row.citation == "MAE paper: arXiv 2111.06377, Table 13"


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("value", "nan", "line 2, value: .*finite"),
        ("value", "about 80", "line 2, value: .*number"),
        ("status", "guessed", "line 2, status: .*'seen' or 'recalled'"),
        ("source", "someone", "line 2: source 'someone' has no title"),
    ],
)
def test_a_bad_row_is_named(tmp_path, column, value, reason):
    row = dict.fromkeys(set(type(published()[0]).model_fields) - {"decimals"}, "x")
    row |= {"source": "mae2021", "value": "83.6", "status": "seen", column: value}
    path = tmp_path / "rows.csv"
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(ResultsError, match=reason):
        _load(path)
    path.with_name("other.csv").write_text("source,value\n")
    with pytest.raises(ResultsError, match=r"other.csv: columns are"):
        _load(path.with_name("other.csv"))
