"""Our runs in the paper's tables of pre-training settings, of hours and of rivals."""

import pytest
from paper_studies import line, notes, studies

from results import Checkpoint, Cost, Earlier, Named, paper_table, published
from results.origins import Pretrainings


@pytest.fixture
def study(make_record):
    return studies(make_record)


def test_ablations_are_placed_by_their_pre_training(study):
    runs = [*study("aa"), *study("bb", decoder_depth=1), *study("cc", decoder_dim=128)]
    depth = paper_table("1a", runs, published())
    kinds = [(column.kind, column.title) for column in depth.columns[1:]]
    assert kinds == [
        ("measured", "fine-tuning"),
        ("published", "fine-tuning"),
        ("measured", "linear probing"),
        ("published", "linear probing"),
        ("difference", "linear probing"),
    ]
    for blocks, there in {"1": True, "2": False, "4": False, "8": True, "12": False}.items():
        found = line(depth, blocks)
        assert found["measured", "fine-tuning"].value == (85.0 if there else None)
    # The linear protocol is the paper's; fine-tuning after un-normalised pixels is not.
    assert line(depth, "1")["difference", "linear probing"].value == pytest.approx(73.2 - 65.5)
    width = paper_table("1b", runs, published())
    assert [row[1].value for row in width.rows] == [85.0, None, 85.0, None, None]
    masks = paper_table("1f", runs, published())
    assert [row[2].value for row in masks.rows] == [85.0, None, None, None]
    target = paper_table("1d", [*runs, *study("dd", norm_pix=True)], published())
    assert [row[1].value for row in target.rows] == [85.0, 85.0, None, None]


def test_each_setting_that_can_be_chosen_lands_in_its_row(study):
    runs = [
        *study("aa"),
        *study("bb", encoder_mask_tokens=True),
        *study("cc", target="pca"),
        *study("dd", mask="block", mask_ratio=0.5),
        *study("ee", mask="block"),
        *study("ff", mask="grid"),
    ]
    measured = {
        name: [row[labels].value for row in paper_table(name, runs, published()).rows]
        for name, labels in (("1c", 1), ("1d", 1), ("1f", 2))
    }
    assert measured == {"1c": [85.0] * 2, "1d": [85.0, None, 85.0, None], "1f": [85.0] * 4}
    tokens = line(paper_table("2", runs, published()), "ViT-L", "with [M]", "8")
    assert tokens["measured", "fine-tuning"].value == 85.0


def test_settings_that_differ_from_the_papers_are_told(study):
    changed = study(
        "aa",
        "vit_b",
        ["epochs 800 -> 400", "norm_pix True -> False", "batch_size 4096 -> 1024"],
        standard=False,
        epochs=400,
        norm_pix=True,
        decoder_depth=2,
    )
    table = paper_table("1a", changed, published())
    cell = line(table, "2")["measured", "linear probing"]
    assert cell.marks == ("a", "b")
    assert notes(table, cell)[-1] == (
        "pre-trained otherwise than the paper: epochs 400 (paper: 800); norm_pix True (paper: "
        "False); batch_size 4096 -> 1024; backbone vit_b (paper: vit_l); pre-training data "
        "imagenet1k (1281167 images; paper: ImageNet-1k)."
    )
    assert "difference" not in {column.kind for column in table.columns}
    # In a table of methods the note is the same, and the gap to the paper is still shown.
    table = paper_table("3", changed, published())
    mae = line(table, "MAE")
    assert "epochs 400 (paper: 1600)" in notes(table, mae["measured", "ViT-B"])[-1]
    assert mae["difference", "ViT-B"].value == pytest.approx(85.0 - 83.6)


def test_without_its_record_a_pre_training_is_unknown(study):
    _, finetuned, linear = study("aa")
    table = paper_table("1a", [finetuned, linear], published())
    assert {column.kind for column in table.columns} == {"label", "published"}
    table = paper_table("3", [finetuned], published())
    cell = line(table, "MAE")["measured", "ViT-L"]
    assert notes(table, cell)[-1] == "pre-trained by recipe aaaaaaaaaaaa, whose record is missing."


def test_of_several_pre_trainings_by_one_recipe_the_least_official_is_told(study):
    official, _, linear = study("aa")
    other, _, _ = study("aa", standard=False)
    for order in ([official, other, linear], [other, official, linear]):
        table = paper_table("1a", order, published())
        cell = line(table, "8")["measured", "linear probing"]
        assert "pre-training data imagenet1k" in notes(table, cell)[-1]


def test_a_line_of_an_ablation_is_one_pre_training(study):
    """One study was probed alone and the other fine-tuned alone: they share no line."""
    pretrained, _, linear = study("aa")
    other, finetuned, _ = study("bb", epochs=400)
    table = paper_table("1a", [pretrained, linear, other, finetuned], published())
    found = [row for row in table.rows if row[0].value == "8"]
    assert [[row[1].value, row[3].value] for row in found] == [[85.0, None], [None, 73.2]]


def test_hours_of_pre_training(study):
    table = paper_table("2", study("aa"), published())
    found = line(table, "ViT-L", "without [M]", "8")
    cell = found["measured", "hours"]
    assert (cell.value, cell.n) == (1.0, 1)  # 3600 seconds
    assert notes(table, cell) == ["cost measured on 1 × cpu."]
    assert ("difference", "hours") not in found


def test_speed_ups_and_flops_are_ratios_of_our_own_runs(study):
    """Hours 42 and 15 on one device: 2.8 times; FLOPs 330 and 100: 3.3 times."""

    def took(records, seconds, flops, device="8 GPUs"):
        cost = Cost(seconds=seconds * 3600, flops_per_image=flops)
        where = records[0].environment.model_copy(update={"device": device})
        return records[0].model_copy(update={"cost": cost, "environment": where})

    slow = took(study("aa", encoder_mask_tokens=True), 42.0, 330.0)
    fast = took(study("bb"), 15.0, 100.0)
    table = paper_table("2", [slow, fast], published())
    cell = line(table, "ViT-L", "without [M]", "8")["measured", "speed-up"]
    assert (cell.value, cell.n) == (pytest.approx(2.8), 1)
    assert notes(table, cell) == ["speed-up on 1 × 8 GPUs, against run run."]
    assert line(table, "ViT-L", "with [M]", "8")["measured", "speed-up"].value is None
    assert not any(c.title == "speed-up" and c.kind == "difference" for c in table.columns)
    flops = paper_table("1c", [slow, fast], published())
    assert line(flops, "encoder with [M]")["measured", "FLOPs"].value == pytest.approx(3.3)
    assert line(flops, "encoder without [M]")["measured", "FLOPs"].value == 1.0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"device": "H200"},
            "no speed-up: hours on 1 × cpu in bf16 do not compare with those on 1",
        ),
        (
            {"precision": "fp32"},
            "no speed-up: hours on 1 × cpu in bf16 do not compare with those on 1 × cpu in fp32",
        ),
        (
            {"earlier": [Earlier(device="A100", processes=8, seconds=1800.0)]},
            "no speed-up: hours on 1 × cpu in bf16 do not compare with those on 8 × A100, then 1",
        ),
        ({"epochs": 400}, "no ratio: there is no complete pre-training on these images that"),
        (None, "no ratio: there is no complete pre-training on these images that differs in"),
    ],
)
def test_hours_that_do_not_compare_have_no_ratio(study, other, said):
    fast, *_ = study("bb", precision="bf16")
    runs = [fast]
    if other is not None:
        place = {k: v for k, v in other.items() if k in ("device", "earlier")}
        recipe = {"precision": "bf16"} | {k: v for k, v in other.items() if k not in place}
        slow, *_ = study("aa", encoder_mask_tokens=True, **recipe)
        where = slow.environment.model_copy(update=place)
        runs.append(slow.model_copy(update={"environment": where}))
    table = paper_table("2", runs, published())
    cell = line(table, "ViT-L", "without [M]", "8")["measured", "speed-up"]
    assert cell.value is None
    assert notes(table, cell)[-1].startswith(said)


def test_rivals_pre_trained_here_say_what_they_did_otherwise(study):
    pretrain, finetuned, _ = study("aa", "vit_b", ["epochs 300 -> 100"], standard=False)
    pretrain = pretrain.model_copy(update={"protocol": "pretrain/moco_v3@1"})
    table = paper_table("3", [pretrain, finetuned], published())
    cell = line(table, "MoCo v3")["measured", "ViT-B"]
    assert cell.value == 85.0  # although the run calls its weights mae
    assert notes(table, cell)[-1] == (
        "pre-trained otherwise than the paper: epochs 300 -> 100; pre-training data imagenet1k "
        "(1281167 images; paper: ImageNet-1k)."
    )


def test_a_classifier_from_scratch_is_a_supervised_pre_training(study, make_record):
    """Its record is a transfer's, and tells what was done otherwise."""
    pretrain, finetuned, _ = study("aa", "vit_b", ["epochs 300 -> 100"])
    scratch = pretrain.model_copy(
        update={"kind": "transfer", "task": "imagenet1k", "protocol": "imagenet1k/scratch@1"}
    )
    boxes = finetuned.model_copy(
        update={
            "init": "mine",
            "task": "coco",
            "protocol": "coco/mask_rcnn-fpn@1",
            "metrics": {"ap_box": 47.0},
        }
    )
    table = paper_table("4", [scratch, boxes], published())
    cell = line(table, "supervised")["measured", "box AP, ViT-B"]
    assert cell.value == 47.0
    assert notes(table, cell)[-1] == "pre-trained otherwise than the paper: epochs 300 -> 100."


def test_a_pre_training_that_began_from_other_weights_says_so(study, make_record):
    pretrain, finetuned, _ = study("aa", "vit_b", epochs=1600, norm_pix=True)
    begun = pretrain.model_copy(
        update={"checkpoint": Checkpoint(file="x.pth", sha256="ee" * 32), "init": "dino"}
    )
    file = finetuned.checkpoint.model_copy(update={"continued_from": begun.checkpoint})
    finetuned = finetuned.model_copy(update={"checkpoint": file})
    table = paper_table("3", [begun, finetuned], published())
    cell = line(table, "MAE")["measured", "ViT-B"]
    assert notes(table, cell)[-1] == (
        "pre-trained otherwise than the paper: begun from dino (x.pth)."
    )


@pytest.mark.parametrize("other", [False, True])
def test_what_predicted_tokens_is_found_by_its_tokenizer(study, other):
    """Weights name the tokenizer whose tokens they predicted: by it they find their pre-training,
    and not by another one."""
    tokens = Checkpoint(
        file="tokenizer.safetensors",
        sha256="e" * 64,
        recipe_hash="e" * 12,
        data=Named(name="images", fingerprint="f" * 20),
        seed=0,
    )
    pretrain, *transfers = study("d1", target="tokens", codebook=8192)
    pretrain = pretrain.model_copy(update={"tokenizer": tokens})
    used = tokens.model_copy(update={"recipe_hash": "a" * 12}) if other else tokens
    records = [
        each.model_copy(
            update={"checkpoint": each.checkpoint.model_copy(update={"tokenizer": used})}
        )
        for each in transfers
    ]
    found = Pretrainings([pretrain, *records])
    assert [found.of(each) for each in records] == [None if other else pretrain] * 2
