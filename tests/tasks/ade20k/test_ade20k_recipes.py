"""The protocols' numbers, typed by hand from their sources, and the steps they make."""

import dataclasses
import subprocess
import sys

import pytest

from backbones import BackboneError
from mae_bench.batches import MicroBatches
from tasks.ade20k.recipes import PROTOCOLS, recipe, sourced
from tasks.errors import TaskError

STEPS = {"upernet-512-160k": 160_000, "upernet-512-100ep": 126_312}
SIZES = ("vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_numbers_of_implus_and_mmseg(protocol):
    """configs/mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py and what it inherits."""
    found = recipe("ade20k", "vit_b", protocol)
    assert found.lr == pytest.approx(1e-4)
    assert (found.layer_decay, found.drop_path, found.weight_decay) == (0.65, 0.1, 0.05)
    assert (found.batch_size, found.image_size, found.stride) == (16, 512, 341)
    assert (found.schedule, found.min_lr, found.warmup_start) == ("poly", 0.0, 1e-6)
    assert found.taps == (3, 5, 7, 11)
    assert (found.head_channels, found.aux_channels, found.aux_weight) == (768, 256, 0.4)
    assert (found.scale, found.ratio_range) == ((2048, 512), (0.5, 2.0))
    assert (found.max_class_share, found.flip_prob, found.photometric) == (0.75, 0.5, True)
    assert (found.test_scales, found.test_flip) == ((1.0,), False)
    dense = found.backbone_options()["dense"]
    assert (dense.relative_position, dense.class_token) == ("per_block", True)
    assert (dense.window_size, dense.resize_position) == (None, "load")


def test_sizes_above():
    large, huge = (recipe("ade20k", name, "upernet-512-160k") for name in ("vit_l", "vit_h"))
    assert (large.taps, large.head_channels, large.drop_path) == ((7, 11, 15, 23), 1024, 0.2)
    assert (huge.taps[-1], huge.head_channels, huge.patch_size) == (31, 1280, 16)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_steps(protocol):
    """160,000 whatever the data; 100 epochs of 20,210 images in whole batches of 16."""
    found = recipe("ade20k", "vit_b", protocol)
    for images in (20_210, 5_000):
        plan = MicroBatches(images, found, 0, 0, 1, found.epoch_images)
        assert plan.num_steps == STEPS[protocol]
        assert found.warmup_epochs * plan.epoch_steps == pytest.approx(1500)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("backbone", SIZES)
def test_every_number_has_a_source(protocol, backbone):
    rows = sourced("ade20k", backbone, protocol)
    assert all(source for _, source in rows.values())
    assert rows["protocol"][0] == f"ade20k/{protocol}@1"
    if backbone in ("vit_s", "vit_t"):
        assert rows["base_lr"][1] == "ours: ViT-B's value; none is published"
    if backbone in ("vit_l", "vit_h"):
        assert all(rows[name][1].startswith("ours") for name in ("base_lr", "layer_decay"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 500}, "image_size is 500; expected a multiple of 32, two patches"),
        ({"taps": (2, 5)}, "taps is .*; expected 4 blocks of 0 to 11"),
        ({"taps": (3, 5, 7, 12)}, "blocks of 0 to 11"),
        ({"aux_tap": 4}, "aux_tap is 4; expected at least 0 and at most 3"),
        ({"scale": (512, 2048)}, "scale is .*; expected .longest, shortest. side"),
        ({"ratio_range": (2.0, 0.5)}, "ratio_range is .*; expected above 0, rising"),
        ({"stride": 513}, "stride is 513; expected 1 to image_size"),
        ({"stride": 0}, "stride is 0"),
        ({"test_scales": ()}, "test_scales is .*; expected one or more, each above 0"),
        ({"pool_scales": (0, 1)}, "pool_scales is .*; expected at least 1"),
        ({"max_class_share": 0.0}, "max_class_share is 0.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"epoch_images": 0}, "epoch_images is 0"),
    ],
)
def test_bad_values_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(recipe("ade20k", "vit_b", "upernet-512-160k"), **changes)


def test_unknown_names_have_near_matches():
    with pytest.raises(TaskError, match="did you mean upernet-512-160k"):
        recipe("ade20k", "vit_b", "upernet_512_160k")
    with pytest.raises(BackboneError, match="there are"):
        recipe("ade20k", "resnet50", "upernet-512-160k")


def test_a_backbone_of_a_published_size_takes_its_numbers():
    name, protocol = "timm:vit_large_patch16_224", "upernet-512-160k"
    made = dataclasses.replace(recipe("ade20k", name, protocol), backbone="vit_l")
    assert made == recipe("ade20k", "vit_l", protocol)


def test_recipes_import_neither_torch_nor_mmseg():
    code = "import tasks.ade20k.recipes, sys; sys.exit(bool({'torch', 'mmseg'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
