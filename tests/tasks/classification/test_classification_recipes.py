import dataclasses
import subprocess
import sys

import pytest

from backbones import BackboneError
from tasks.classification.datasets import DATASETS
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.recipes import (
    FINETUNE_EPOCHS,
    curve,
    protocol_id,
    recipe,
    sources,
)
from tasks.errors import TaskError

PARTIALS = ["partial:0", "partial:0.5", "partial:4"]
PROTOCOLS = ["finetune", "finetune-448", "linear", *PARTIALS, "scratch"]
BACKBONES = ["vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h"]

# Typed from the MAE paper's Tables 9 to 11 and the release's FINETUNE.md, not from recipes.py.
FINETUNE = {
    "batch_size": 1024,
    "warmup_epochs": 5,
    "optimizer": "adamw",
    "betas": (0.9, 0.999),
    "weight_decay": 0.05,
    "min_lr": 1e-6,
    "clip_grad": None,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mix_switch_prob": 0.5,
    "label_smoothing": 0.1,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erase_prob": 0.25,
    "min_crop_area": 0.08,
    "oversize_crop": "redraw",
    "pooling": "patches",
    "head_batch_norm": False,
    "head_init_std": 2e-5,
    "trained_blocks": None,
    "ema_decay": None,
    "image_size": 224,
}
# backbone: base lr, peak lr, layer decay, drop path, epochs, images per device
FINETUNE_SIZES = {
    "vit_b": (5e-4, 2e-3, 0.65, 0.1, 100, 32),
    "vit_l": (1e-3, 4e-3, 0.75, 0.2, 50, 32),
    "vit_h": (1e-3, 4e-3, 0.75, 0.3, 50, 16),
}
LINEAR = {
    "batch_size": 16384,
    "device_batch": 512,
    "epochs": 90,
    "warmup_epochs": 10,
    "optimizer": "lars",
    "base_lr": 0.1,
    "weight_decay": 0.0,
    "min_lr": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "label_smoothing": 0.0,
    "rand_augment": None,
    "erase_prob": 0.0,
    "drop_path": 0.0,
    "min_crop_area": 0.08,
    "oversize_crop": "clip",
    "pooling": "cls",
    "head_batch_norm": True,
    "head_init_std": 0.01,
    "trained_blocks": 0.0,
    "ema_decay": None,
    "image_size": 224,
}
SCRATCH = {
    "batch_size": 4096,
    "warmup_epochs": 20,
    "optimizer": "adamw",
    "base_lr": 1e-4,
    "betas": (0.9, 0.95),
    "weight_decay": 0.3,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erase_prob": 0.0,
    "layer_decay": 1.0,
    "ema_decay": 0.9999,
    "trained_blocks": None,
    "image_size": 224,
}
SCRATCH_SIZES = {"vit_b": (300, 0.1), "vit_l": (200, 0.2), "vit_h": (200, 0.2)}


def assert_holds(made: ClassificationRecipe, expected: dict) -> None:
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize("backbone", FINETUNE_SIZES)
def test_finetune_is_the_released_recipe(backbone: str) -> None:
    made = recipe("imagenet1k", backbone, "finetune")
    assert_holds(made, FINETUNE)
    base_lr, lr, layer_decay, drop_path, epochs, device_batch = FINETUNE_SIZES[backbone]
    assert (made.base_lr, made.layer_decay, made.drop_path) == (base_lr, layer_decay, drop_path)
    assert (made.epochs, made.device_batch) == (epochs, device_batch)
    assert made.lr == pytest.approx(lr, rel=1e-12)


@pytest.mark.parametrize("backbone", ["vit_b", "vit_l", "vit_h"])
def test_linear_is_table_10(backbone: str) -> None:
    made = recipe("imagenet1k", backbone, "linear")
    assert_holds(made, LINEAR)
    assert made.betas[0] == 0.9  # LARS's momentum
    assert made.lr == pytest.approx(6.4, rel=1e-12)


@pytest.mark.parametrize("backbone", SCRATCH_SIZES)
def test_scratch_is_table_11(backbone: str) -> None:
    made = recipe("imagenet1k", backbone, "scratch")
    assert_holds(made, SCRATCH)
    assert (made.epochs, made.drop_path) == SCRATCH_SIZES[backbone]


@pytest.mark.parametrize("backbone", FINETUNE_SIZES)
def test_448_is_the_released_recipe_on_larger_images(backbone: str) -> None:
    made, released = (recipe("imagenet1k", backbone, p) for p in ("finetune-448", "finetune"))
    assert (made.image_size, made.crop_ratio, made.device_batch) == (448, 1.0, 8)
    same = {name: getattr(released, name) for name in ("protocol", "image_size", "device_batch")}
    assert dataclasses.replace(made, **same) == released


# Typed from MAE's Table 9: backbone: drop path, epochs.
TABLE_9 = {"vit_b": (0.1, 100), "vit_l": (0.1, 50), "vit_h": (0.2, 50)}


@pytest.mark.parametrize("backbone", TABLE_9)
@pytest.mark.parametrize("blocks", ["0", "0.5", "1", "12"])
def test_partial_is_table_9(backbone: str, blocks: str) -> None:
    made = recipe("imagenet1k", backbone, f"partial:{blocks}")
    assert_holds(made, FINETUNE | {"trained_blocks": float(blocks), "erase_prob": 0.0})
    assert (made.base_lr, made.layer_decay) == (1e-3, 0.75)
    drop_path, epochs = TABLE_9[backbone]
    assert (made.drop_path, made.epochs) == (0.0 if blocks == "0" else drop_path, epochs)
    told = sources("imagenet1k", backbone, f"partial:{blocks}")
    assert told["layer_decay"] == "MAE Table 9"
    assert "tunes them over 50, 100 and 200" in told["epochs"]


@pytest.mark.parametrize(
    ("backbone", "counts"),
    [
        ("vit_mini", "0 0.5 1 2 4"),
        ("vit_b", "0 0.5 1 2 4 6 12"),
        ("vit_l", "0 0.5 1 2 4 6 12 18 24"),
        ("vit_h", "0 0.5 1 2 4 6 12 18 24 30 32"),
    ],
)
def test_the_curve_has_the_points_of_figure_9(backbone: str, counts: str) -> None:
    assert curve(backbone) == [f"partial:{count}" for count in counts.split()]


@pytest.mark.parametrize("blocks", ["", ":", ":13", ":-1", ":1.5", ":nan", ":inf", ":two", "-2"])
def test_bad_block_counts(blocks: str) -> None:
    with pytest.raises(TaskError, match=r"a whole number up to 12 for vit_b; or partial:all"):
        recipe("imagenet1k", "vit_b", f"partial{blocks}")


@pytest.mark.parametrize("task", FINETUNE_EPOCHS)
def test_other_data_sets_train_for_imagenets_steps(task: str) -> None:
    for backbone, epochs in FINETUNE_EPOCHS[task].items():
        usual = recipe("imagenet1k", backbone, "finetune").epochs
        steps = usual * DATASETS["imagenet1k"].num_train / DATASETS[task].num_train
        assert epochs == min(300, round(steps / 10) * 10)
        made = recipe(task, backbone, "finetune")
        same = {"protocol": "imagenet1k/finetune@1", "epochs": usual}
        assert dataclasses.replace(made, **same) == recipe("imagenet1k", backbone, "finetune")
        assert all(
            source.startswith("ours") for source in sources(task, backbone, "finetune").values()
        )


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("backbone", ["vit_t", "vit_s"])
def test_small_sizes_take_vit_b_values_and_say_so(backbone: str, protocol: str) -> None:
    made = recipe("imagenet1k", backbone, protocol)
    assert dataclasses.replace(made, backbone="vit_b") == recipe("imagenet1k", "vit_b", protocol)
    told = sources("imagenet1k", backbone, protocol)
    assert told["base_lr"] == "ours: ViT-B's value; none is published"
    assert all(source.startswith("ours") for source in told.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_miniature_recipe_is_a_small_one(protocol: str) -> None:
    made = recipe("imagenet1k", "vit_mini", protocol)
    assert made.image_size == (64 if protocol == "finetune-448" else 32)
    assert made.batch_size * made.epochs < 16384
    told = sources("imagenet1k", "vit_mini", protocol)
    assert told["epochs"] == told["base_lr"] == "ours: tuned on the miniature world"
    assert all(source.startswith("ours") for source in told.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_field_has_a_source(backbone: str, protocol: str) -> None:
    made = recipe("imagenet1k", backbone, protocol)
    version = 2 if protocol.startswith("partial") else 1
    assert made.protocol == f"imagenet1k/{protocol.replace(':', '-')}@{version}"
    assert made.protocol == protocol_id("imagenet1k", protocol)
    assert made.backbone == backbone
    told = sources("imagenet1k", backbone, protocol)
    assert all(
        source.split(":")[0].split()[0] in ("mae", "MAE", "timm", "ours", "mmpretrain")
        for source in told.values()
    )


def test_sources_of_the_contested_numbers() -> None:
    told = sources("imagenet1k", "vit_b", "finetune")
    assert told["base_lr"] == told["layer_decay"] == told["drop_path"] == "mae FINETUNE.md"
    assert sources("imagenet1k", "vit_l", "scratch")["ema_decay"] == "MAE Table 11"
    assert sources("imagenet1k", "vit_l", "linear")["base_lr"] == "MAE Table 10"


@pytest.mark.parametrize(
    ("image_size", "test_crop_ratio", "expected"),
    [(32, None, 0.875), (224, None, 0.875), (225, None, 1.0), (448, None, 1.0), (448, 0.9, 0.9)],
)
def test_crop_ratio(image_size: int, test_crop_ratio: float | None, expected: float) -> None:
    made = recipe("imagenet1k", "vit_b", "finetune")
    made = dataclasses.replace(made, image_size=image_size, test_crop_ratio=test_crop_ratio)
    assert made.crop_ratio == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("imagenet1k", "vit_bb", "finetune"), "'vit_bb'; did you mean vit_b"),
        (("imagenet1k", "resnet50", "finetune"), "there are vit_mini, vit_t, vit_s, vit_b"),
        (("imagenet1k", "vit_b", "finetuned"), "'finetuned'; did you mean finetune"),
        (("imagenet1k", "vit_b", "knn5"), "there are finetune, finetune-448, linear, partial:K"),
        (("imagenet", "vit_b", "linear"), "'imagenet'; did you mean imagenet1k?"),
    ],
)
def test_unknown_names(asked: tuple[str, str, str], told: str) -> None:
    with pytest.raises((TaskError, BackboneError), match="unknown") as error:
        recipe(*asked)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("drop_path", 1.0),
        ("drop_path", -0.1),
        ("mixup", -0.5),
        ("cutmix", float("nan")),
        ("mix_switch_prob", 1.5),
        ("label_smoothing", 1.0),
        ("erase_prob", 2.0),
        ("flip_prob", -1.0),
        ("min_crop_area", 0.0),
        ("pooling", "mean"),
        ("oversize_crop", "pad"),
        ("head_init_std", 0.0),
        ("rand_augment", "rand-m9-what1"),
        ("rand_augment", "randm9"),
        ("ema_decay", 1.0),
        ("test_crop_ratio", 1.2),
        ("epochs", 0),
        ("device_batch", 1),
    ],
)
def test_bad_values_name_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"recipe field {field} is"):
        dataclasses.replace(recipe("imagenet1k", "vit_b", "finetune"), **{field: value})


def test_a_frozen_backbone_has_no_stochastic_depth() -> None:
    with pytest.raises(ValueError, match=r"drop_path is 0\.1; expected 0 with a frozen backbone"):
        dataclasses.replace(recipe("imagenet1k", "vit_b", "linear"), drop_path=0.1)


def test_batch_norm_needs_two_images() -> None:
    with pytest.raises(ValueError, match="device_batch is 1; expected 2 or more"):
        dataclasses.replace(recipe("imagenet1k", "vit_b", "linear"), device_batch=1)


def test_recipes_do_not_import_torch() -> None:
    code = (
        "import sys, tasks.classification.recipes; assert not {'torch', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_backbone_of_a_published_size_takes_its_numbers() -> None:
    """Of timm's or one's own; any other takes ViT-B's, and says so."""
    name = "timm:vit_large_patch32_224"
    made = recipe("imagenet1k", name, "finetune")
    assert dataclasses.replace(made, backbone="vit_l") == recipe("imagenet1k", "vit_l", "finetune")
    assert sources("imagenet1k", name, "finetune")["layer_decay"].startswith("ours: ViT-L's value")
    told = sources("imagenet1k", "timm:vit_small_patch16_224", "finetune")
    assert told["layer_decay"].startswith("ours: ViT-B's value")


def test_the_miniature_of_another_data_set_is_shorter() -> None:
    made = [recipe(task, "vit_mini", "finetune") for task in ("imagenet1k", "inat2018")]
    assert [each.epochs for each in made] == [40, 20]
    assert sources("inat2018", "vit_mini", "finetune")["epochs"].startswith("ours: half of")


def test_sources_say_what_they_do_not_say():
    """MAE A.1, Table 9; FINETUNE.md (224 pixels alone); mmpretrain's 448-pixel config."""
    for protocol in ("partial:2", "scratch"):
        assert (
            "MAE A.1 takes the class token" in sources("imagenet1k", "vit_l", protocol)["pooling"]
        )
    for backbone in ("vit_b", "vit_l"):
        told = sources("imagenet1k", backbone, "finetune-448")
        for name in ("base_lr", "layer_decay", "drop_path", "epochs"):
            assert told[name].endswith("at 448, where none is published, ours")
    assert "if its batch is 1024" in sources("imagenet1k", "vit_h", "finetune-448")["base_lr"]
