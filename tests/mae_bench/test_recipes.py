"""The pre-training recipe against numbers typed by hand, overrides and deviations."""

import pytest

import tasks
from mae_bench.errors import RunError
from mae_bench.recipes import PRETRAIN, changes, override, recipe, sourced
from results.protocol import ProtocolId
from tasks.errors import TaskError

# MAE (2111.06377) Tables 1 and 8; facebookresearch/mae, PRETRAIN.md and models_mae.py.
PUBLISHED = {
    "protocol": "pretrain/mae@1",
    "image_size": 224,
    "epochs": 800,
    "warmup_epochs": 40,
    "batch_size": 4096,
    "device_batch": 64,
    "optimizer": "adamw",
    "base_lr": 1.5e-4,
    "min_lr": 0,
    "weight_decay": 0.05,
    "betas": (0.9, 0.95),
    "layer_decay": 1,
    "clip_grad": None,
    "ema_decay": None,
    "mask_ratio": 0.75,
    "norm_pix": True,
    "decoder_dim": 512,
    "decoder_depth": 8,
    "decoder_heads": 16,
    "min_crop_area": 0.2,
}


@pytest.mark.parametrize("backbone", ["vit_t", "vit_s", "vit_b", "vit_l", "vit_h"])
def test_published_numbers(backbone):
    made = recipe(PRETRAIN, backbone, "mae").to_dict()
    assert made | PUBLISHED == made
    assert made["backbone"] == backbone


def test_learning_rate_scales_with_the_batch():
    base = recipe(PRETRAIN, "vit_b", "mae")
    assert base.lr == pytest.approx(2.4e-3, rel=1e-12)
    assert override(base, {"batch_size": 1024}).lr == pytest.approx(6e-4, rel=1e-12)


@pytest.mark.parametrize("backbone", ["vit_mini", "vit_b"])
@pytest.mark.parametrize(
    ("task", "protocol"),
    [(PRETRAIN, "mae"), ("imagenet1k", "finetune"), ("imagenet1k", "linear")],
)
def test_every_field_has_a_source(backbone, task, protocol):
    rows = sourced(task, backbone, protocol)
    assert all(source.strip() for _, source in rows.values())


def test_the_digest_names_the_numbers():
    base = recipe(PRETRAIN, "vit_b", "mae")
    assert base.digest() == recipe(PRETRAIN, "vit_b", "mae").digest()
    changed = override(base, {"mask_ratio": 0.6})
    assert changed.digest() != base.digest()
    assert override(changed, {"mask_ratio": 0.75}).digest() == base.digest()


def test_changes_are_data_and_words():
    base = recipe(PRETRAIN, "vit_b", "mae")
    assert changes(base, base) == []
    found = changes(base, override(base, {"epochs": 100, "betas": (0.9, 0.99)}))
    assert [(c.field, c.value, c.standard) for c in found] == [
        ("epochs", 100, 800),
        ("betas", [0.9, 0.99], [0.9, 0.95]),
    ]
    assert list(map(str, found)) == ["epochs 800 -> 100", "betas (0.9, 0.95) -> (0.9, 0.99)"]
    assert changes(base, override(base, {"precision": "fp32", "device_batch": 32})) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mask_ration": 0.5}, "did you mean mask_ratio"),
        ({"protocol": "x/y@1"}, "unknown recipe field"),
        ({"epochs": 0}, "recipe field epochs is 0; expected at least 1"),
        ({"epochs": "many"}, "recipe field epochs"),
        ({"base_lr": float("nan")}, "recipe field base_lr"),
        ({"device_batch": 100}, "a divisor of batch_size 4096"),
        ({"mask_ratio": 1.0}, "between 0 and 1"),
        ({"precision": "fp16"}, "recipe field precision"),
    ],
)
def test_bad_overrides_are_refused_in_one_line(given, said):
    with pytest.raises(RunError, match=said) as refused:
        override(recipe(PRETRAIN, "vit_b", "mae"), given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("task", "protocol", "given", "idle"),
    [
        (PRETRAIN, "mae", {"layer_decay": 0.7}, "layer_decay"),
        (PRETRAIN, "moco_v3", {"jitter_prob": 0.0, "hue_jitter": 0.2}, "hue_jitter"),
        (PRETRAIN, "moco_v3", {"blur_probs": (0.0, 0.0), "blur_sigma": (0.5, 1.0)}, "blur_sigma"),
        (PRETRAIN, "mae", {"warmup_epochs": 0.0, "warmup_start": 0.1}, "warmup_start"),
        ("imagenet1k", "linear", {"layer_decay": 0.7}, "layer_decay"),
        ("imagenet1k", "finetune", {"mixup": 0.0, "mix_switch_prob": 0.9}, "mix_switch_prob"),
        ("coco", "mask_rcnn-vitdet", {"min_lr": 1e-5}, "min_lr"),
        ("coco", "mask_rcnn-fpn", {"window_size": None, "global_blocks": (1, 2)}, "global_blocks"),
    ],
)
def test_a_number_without_effect_is_refused(task, protocol, given, idle):
    """Else a record and a table would tell of a change that was none."""
    base = recipe(task, "vit_b", protocol)
    with pytest.raises(RunError, match=f"recipe field {idle} is .* it has no effect: leave it out"):
        override(base, given)
    override(base, {name: value for name, value in given.items() if name != idle})


def test_unknown_task_shows_what_there_is():
    with pytest.raises(TaskError, match="did you mean imagenet1k"):
        recipe("imagenet", "vit_b", "finetune")


@pytest.mark.parametrize("task", tasks.known())
def test_ids_say_what_was_asked_for(task):
    for protocol in tasks.protocols(task):
        for asked in [protocol.replace("K", each) for each in ("0", "0.5", "2")]:
            parts = ProtocolId.read(recipe(task, "vit_b", asked).protocol)
            assert (parts.task, parts.asked) == (task, asked)
