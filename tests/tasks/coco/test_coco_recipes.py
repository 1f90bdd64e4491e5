"""The two protocols' numbers, typed by hand from their sources, and the steps they make."""

import dataclasses

import pytest

import tasks
from backbones import BackboneError
from backbones.sizes import SIZES
from mae_bench.batches import MicroBatches
from mae_bench.errors import RunError
from mae_bench.recipes import recipe as of_command
from tasks.coco.recipes import PROTOCOLS, WARMUP, recipe, sourced
from tasks.errors import TaskError

# detectron2, projects/ViTDet/configs/COCO/mask_rcnn_vitdet_{b,l}_100ep.py and _h_75ep.py.
VITDET = {
    "vit_b": {"drop_path": 0.1, "layer_decay": 0.7, "global_blocks": (2, 5, 8, 11)},
    "vit_l": {"drop_path": 0.4, "layer_decay": 0.8, "global_blocks": (5, 11, 17, 23)},
    "vit_h": {"drop_path": 0.5, "layer_decay": 0.9, "global_blocks": (7, 15, 23, 31)},
}
SCHEDULE = {
    "vit_b": (184_375, 163_889, 177_546, 250.0),
    "vit_l": (184_375, 163_889, 177_546, 250.0),
    "vit_h": (138_281, 122_916, 133_159, 187.5),
}


@pytest.mark.parametrize("backbone", VITDET)
def test_vitdet(backbone):
    found = recipe("coco", backbone, "mask_rcnn-vitdet")
    for name, value in VITDET[backbone].items():
        assert getattr(found, name) == value, name
    assert found.lr == pytest.approx(1e-4)
    assert (found.weight_decay, found.betas, found.batch_size) == (0.1, (0.9, 0.999), 64)
    assert (found.window_size, found.patch_size, found.image_size) == (14, 16, 1024)
    assert found.taps == found.global_blocks[-1:]
    assert found.no_decay == (() if backbone == "vit_h" else ("backbone_norm", "pos_embed"))
    assert (found.min_scale, found.max_scale, found.flip_prob) == (0.1, 2.0, 0.5)


@pytest.mark.parametrize("backbone", SCHEDULE)
def test_vitdet_steps_are_detectron2s(backbone):
    found = recipe("coco", backbone, "mask_rcnn-vitdet")
    plan = MicroBatches(117_266, found, 0, 0, 1, found.epoch_images)
    first, second = (round(share * plan.num_steps) for share in found.milestones)
    warmup = found.warmup_epochs * plan.epoch_steps
    assert (plan.num_steps, first, second) == SCHEDULE[backbone][:3]
    assert warmup == pytest.approx(SCHEDULE[backbone][3])


@pytest.mark.parametrize(("backbone", "drop_path"), [("vit_b", 0.1), ("vit_l", 0.3)])
def test_the_mae_papers_protocol(backbone, drop_path):
    """2111.11429: selected hyperparameters of MAE."""
    found = recipe("coco", backbone, "mask_rcnn-fpn")
    assert found.lr == pytest.approx(8e-5)
    assert (found.weight_decay, found.layer_decay, found.drop_path) == (0.1, 1.0, drop_path)
    assert (found.schedule, found.warmup_epochs, found.epochs) == ("cosine", 0.25, 100)
    assert found.taps == found.global_blocks == VITDET[backbone]["global_blocks"]
    assert (found.relative_position, found.norm, found.pyramid) == ("shared", "batch", "fpn")
    dense = found.backbone_options()["dense"]
    assert (dense.window_size, dense.resize_position) == (14, "load")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("backbone", ["vit_mini", "vit_t", "vit_s", "vit_b", "vit_l", "vit_h"])
def test_every_number_has_a_source(protocol, backbone):
    rows = sourced("coco", backbone, protocol)
    assert all(source for _, source in rows.values())
    if backbone in ("vit_s", "vit_t"):
        named = {source for name, (_, source) in rows.items() if name == "base_lr"}
        assert named == {"ours: ViT-B's value; none is published"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 1000}, "image_size is 1000; expected a multiple of 64"),
        ({"taps": (5, 11)}, "taps is .*; expected 1 for pyramid simple"),
        ({"taps": (5,)}, "taps is .*; expected the last block, 11, among them"),
        ({"taps": (12,)}, "blocks 0 to 11"),
        ({"anchor_sizes": (32,)}, "anchor_sizes is .*; expected five"),
        ({"min_scale": 3.0}, "min_scale is 3.0; expected above 0, up to max_scale"),
        ({"milestones": (0.9, 0.5)}, "milestones is .*; expected rising shares"),
        ({"milestones": ()}, "milestones is .*; expected some, for step alone"),
        ({"max_detections": 200}, "max_detections is 200; expected at least 1 and at most 100"),
        ({"epoch_images": 0}, "epoch_images is 0"),
        ({"pyramid_channels": 7}, "pyramid_channels is 7; expected a multiple of 8"),
        ({"anchor_sizes": (-8, 16, 32, 64, 128)}, "anchor_sizes is .*; expected at least 1"),
    ],
)
def test_bad_values_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(recipe("coco", "vit_b", "mask_rcnn-vitdet"), **changes)


def test_group_norm_divides_the_width(monkeypatch):
    """Of a backbone of somebody's own: the four-stage FPN has 32 groups."""
    narrow = dataclasses.replace(SIZES["vit_t"], embed_dim=200)
    monkeypatch.setitem(SIZES, "vit_t", narrow)
    assert recipe("coco", "vit_t", "mask_rcnn-vitdet").pyramid == "simple"
    with pytest.raises(ValueError, match="pyramid is 'fpn'; expected simple: group norm does not"):
        recipe("coco", "vit_t", "mask_rcnn-fpn")
    with pytest.raises(RunError, match="pyramid is 'fpn'"):  # as a command meets it
        of_command("coco", "vit_t", "mask_rcnn-fpn")


def test_what_the_source_does_otherwise_with_random_weights():
    """2111.11429: 1.6e-4 at batch 64 and a decay of 0.2."""
    note = tasks.scratch_note("coco", "mask_rcnn-fpn", "vit_b")
    assert f"--base-lr {1.6e-4 * 256 / 64:.5f} --weight-decay 0.2" in note
    assert "the best of --epochs 100, 200 and 400" in note
    assert tasks.scratch_note("coco", "mask_rcnn-fpn", "vit_mini") is None
    assert tasks.scratch_note("coco", "mask_rcnn-vitdet", "vit_b") is None
    assert tasks.scratch_note("ade20k", "upernet-512-160k", "vit_b") is None


def test_unknown_names_have_near_matches():
    with pytest.raises(TaskError, match="did you mean mask_rcnn-vitdet"):
        recipe("coco", "vit_b", "mask_rcnn_vitdet")
    with pytest.raises(BackboneError, match="there are"):
        recipe("coco", "resnet50", "mask_rcnn-fpn")


def test_a_backbone_of_a_published_size_takes_its_numbers():
    made = recipe("coco", "timm:vit_large_patch16_224", "mask_rcnn-fpn")
    assert dataclasses.replace(made, backbone="vit_l") == recipe("coco", "vit_l", "mask_rcnn-fpn")


def test_warmup_is_250_steps_of_64_images():
    assert round(WARMUP * 118_000 / 64, 9) == 250
