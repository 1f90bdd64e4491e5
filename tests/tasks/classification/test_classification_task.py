"""The task on a two-block ViT and a tiny data set in ImageNet's layout."""

import copy
import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import tasks
from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from backbones.sizes import Size
from backbones.vit import ViT
from tasks.classification import layout
from tasks.classification.labelled import LabelledImages
from tasks.classification.recipes import ClassificationRecipe, recipe
from tasks.classification.task import Classification
from tasks.errors import TaskError
from tasks.task import Scoring

SIDE = 32
NUM_CLASSES = 7
TINY = Size(embed_dim=48, depth=2, num_heads=3, patch_size=8)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven classes, three training and five test images each, of unlike sizes."""
    folder = tmp_path_factory.mktemp("imagenet")
    write_images(folder, NUM_CLASSES, train=3, val=5)
    return folder


def write_images(folder: Path, num_classes: int, train: int, val: int) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for c in range(num_classes):
            place = folder / split / f"n{c}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((40 + 6 * c, 70 - 5 * i))
                image.save(place / f"{i}.jpg", quality=95)


def small(protocol: str, **changes: object) -> ClassificationRecipe:
    published = recipe("imagenet1k", "vit_b", protocol)
    ours = {"image_size": SIDE, "precision": "fp32"}
    return dataclasses.replace(published, **{**ours, **changes})


def tiny_vit() -> ViT:
    return ViT("tiny", TINY, SIDE)


def read(root: Path) -> LabelledImages:
    return layout.read("imagenet1k", root)


def build(root: Path, protocol: str, seed: int = 0, **changes: object) -> Classification:
    torch.manual_seed(seed)
    return Classification(small(protocol, **changes), tiny_vit(), read(root), seed)


def visible(task: Classification) -> None:
    """Weights at which a mistake anywhere in the head shows."""
    for parameter in task.parameters():
        nn.init.normal_(parameter, std=0.3)


def training_batch(task: Classification, count: int = 8) -> dict:
    return task.train_data.__getitems__([(0, i) for i in range(count)])


def timm_twin(task: Classification, global_pool: str) -> VisionTransformer:
    """timm's ViT with the same weights; its mean pooling leaves the class token out."""
    twin = VisionTransformer(
        img_size=SIDE,
        patch_size=TINY.patch_size,
        embed_dim=TINY.embed_dim,
        depth=TINY.depth,
        num_heads=TINY.num_heads,
        num_classes=NUM_CLASSES,
        global_pool=global_pool,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    weights = {name.removeprefix("backbone."): w for name, w in task.state_dict().items()}
    head = len(task.head) - 1
    for name in ("weight", "bias"):
        weights[f"head.{name}"] = weights.pop(f"head.{head}.{name}")
    weights = {name: w for name, w in weights.items() if not name.startswith("head.0")}
    twin.load_state_dict(weights)
    return twin


@pytest.mark.parametrize("protocol", ["finetune", "scratch"])
def test_patches_pooling_is_timms(root: Path, protocol: str) -> None:
    task = build(root, protocol).eval()
    visible(task)
    images = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = timm_twin(task, "avg")(images)
    torch.testing.assert_close(task.logits(images), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.5


def test_linear_is_class_token_norm_and_batch_norm(root: Path) -> None:
    task = build(root, "linear")
    visible(task)
    twin = timm_twin(task, "token")
    images = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    features = twin.forward_head(twin.forward_features(images), pre_logits=True)
    mean, var = features.mean(0), features.var(0, unbiased=False)
    expected = twin.head((features - mean) / (var + 1e-6).sqrt())
    torch.testing.assert_close(task.train().logits(images), expected, atol=1e-4, rtol=1e-4)
    running = 0.9 * torch.ones(48) + 0.1 * features.var(0)  # unbiased, momentum 0.1
    expected = twin.head((features - 0.1 * mean) / (running + 1e-6).sqrt())
    torch.testing.assert_close(task.eval().logits(images), expected, atol=1e-4, rtol=1e-4)


def test_fine_tuning_ignores_class_token_and_old_norm(root: Path) -> None:
    """The last block's class token cannot reach the logits, and the old norm is gone."""
    task = build(root, "finetune").eval()
    assert isinstance(task.backbone.norm, nn.Identity)
    assert not [name for name in task.state_dict() if name.startswith("backbone.norm")]
    assert task.fc_norm.eps == 1e-6
    tokens = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 0] += 100
    results = []
    for given in (tokens, other):
        task.backbone.forward = lambda images, norm, given=given: given
        results.append(task.logits(torch.zeros(2, 3, SIDE, SIDE)))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("protocol", "std"), [("finetune", 2e-5), ("scratch", 2e-5), ("linear", 0.01)]
)
def test_head_initialisation(root: Path, protocol: str, std: float) -> None:
    linear = build(root, protocol).head[-1]
    assert linear.weight.std().item() == pytest.approx(std, rel=0.1)
    assert not linear.bias.any()


@pytest.mark.parametrize("protocol", ["finetune", "scratch", "linear"])
def test_gradients_reach_exactly_what_trains(root: Path, protocol: str) -> None:
    """No trained parameter is left without a gradient, which DDP would refuse."""
    task = build(root, protocol).train()
    visible(task)
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    if protocol == "linear":
        assert trained == {"head.1.weight", "head.1.bias"}
    else:
        assert trained == {name for name, _ in task.named_parameters()}
        assert "backbone.pos_embed" in trained
    task(training_batch(task))["loss"].backward()
    reached = {n for n, p in task.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached | {"backbone.blocks.0.attn.qkv.bias"} == trained | {
        "backbone.blocks.0.attn.qkv.bias"
    }


def test_the_frozen_backbone_makes_no_graph(root: Path) -> None:
    task = build(root, "linear").train()
    seen = []
    task.backbone.blocks[1].register_forward_hook(lambda *call: seen.append(call[2].requires_grad))
    task(training_batch(task))
    assert seen == [False]


def test_layers_and_decay_by_hand(root: Path) -> None:
    task = build(root, "finetune")
    layers = {
        "backbone.cls_token": 0,
        "backbone.pos_embed": 0,
        "backbone.patch_embed.proj.weight": 0,
        "backbone.patch_embed.proj.bias": 0,
        "backbone.blocks.0.norm1.weight": 1,
        "backbone.blocks.0.mlp.fc2.bias": 1,
        "backbone.blocks.1.attn.qkv.weight": 2,
        "fc_norm.weight": 3,
        "fc_norm.bias": 3,
        "head.0.weight": 3,
        "head.0.bias": 3,
    }
    names = {name for name, _ in task.named_parameters()}
    assert set(layers) <= names
    assert {name: task.layer_index(name) for name in layers} == layers
    assert task.num_layers == 3
    assert {task.layer_index(name) for name in names} == {0, 1, 2, 3}
    assert task.no_decay() == {"backbone.cls_token", "backbone.pos_embed"} <= names
    assert build(root, "linear").layer_index("head.1.weight") == 3


def test_normalisation_is_torchvisions(root: Path) -> None:
    task = build(root, "finetune")
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 3, 16, 16)
    expected = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)(pixels / 255)
    torch.testing.assert_close(task.normalise(pixels), expected, atol=1e-6, rtol=1e-6)


def test_loss_of_mixed_images_is_timms(root: Path) -> None:
    task = build(root, "finetune").train()
    visible(task)
    batch = training_batch(task)
    torch.manual_seed(3)
    out = task(batch)
    torch.manual_seed(3)
    images, soft = task.augment(task.normalise(batch["images"]), batch["targets"])
    expected = SoftTargetCrossEntropy()(timm_twin(task, "avg")(images), soft)
    torch.testing.assert_close(out["loss"], expected, atol=1e-4, rtol=1e-4)
    assert set(out) == {"loss"}  # mixed images have no one class to hit


def test_loss_without_mixing_is_timms(root: Path) -> None:
    task = build(root, "finetune", mixup=0.0, cutmix=0.0, erase_prob=0.0).train()
    visible(task)
    batch = training_batch(task)
    logits = timm_twin(task, "avg")(task.normalise(batch["images"]))
    out = task(batch)
    expected = LabelSmoothingCrossEntropy(0.1)(logits, batch["targets"])
    torch.testing.assert_close(out["loss"], expected, atol=1e-4, rtol=1e-4)
    hits = logits.argmax(1) == batch["targets"]
    assert out["top1"].item() == pytest.approx(100 * hits.float().mean().item())


def test_forward_depends_on_torchs_seed_alone(root: Path) -> None:
    task = build(root, "finetune").train()
    visible(task)
    batch = training_batch(task)
    losses = []
    for seed in (1, 1, 2):
        np.random.default_rng().random()
        torch.manual_seed(seed)
        losses.append(task({k: copy.deepcopy(v) for k, v in batch.items()})["loss"].item())
    assert losses[0] == losses[1] != losses[2]
    assert batch["images"].dtype == torch.uint8


def test_training_batches(root: Path) -> None:
    data = build(root, "finetune").train_data
    assert len(data) == 21
    keys = [(0, 5), (0, 20), (1, 5), (0, 0)]
    batch = data.__getitems__(keys)
    assert batch["images"].shape == (4, 3, SIDE, SIDE)
    assert batch["images"].dtype == torch.uint8
    assert batch["targets"].tolist() == [1, 6, 1, 0]
    assert batch["targets"].dtype == torch.int64
    assert batch["index"].tolist() == [5, 20, 5, 0]
    assert batch["skipped"] == []
    assert data.names([5, 0]) == ["train/n1/2.jpg", "train/n0/0.jpg"]
    assert not torch.equal(batch["images"][0], batch["images"][2])  # another epoch


def test_a_sample_depends_on_seed_epoch_and_index_alone(root: Path) -> None:
    data = build(root, "finetune").train_data
    keys = [(3, i) for i in range(12)]
    forth = data.__getitems__(keys)["images"]
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    back = data.__getitems__(keys[::-1])["images"].flip(0)
    one_by_one = torch.cat([data.__getitems__([key])["images"] for key in keys])
    assert torch.equal(forth, back)
    assert torch.equal(forth, one_by_one)
    other_seed = build(root, "finetune", seed=1).train_data.__getitems__(keys)["images"]
    assert not torch.equal(forth, other_seed)
    loader = DataLoader(data, batch_sampler=[keys[6:], keys[:6]], collate_fn=dict, num_workers=1)
    later, earlier = (batch["images"] for batch in loader)
    assert torch.equal(torch.cat([earlier, later]), forth)


def test_evaluation_is_that_of_image_folder_and_sklearn(root: Path) -> None:
    task = build(root, "finetune")
    visible(task)
    reference = transforms.Compose(
        [
            transforms.Resize(36, transforms.InterpolationMode.BICUBIC),  # 32 / 0.875
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    folder = ImageFolder(str(root / "val"), transform=reference)
    images = torch.stack([image for image, _ in folder])
    logits = timm_twin(task, "avg")(images).detach().numpy()
    expected = {f"top{k}": 100 * top_k_accuracy_score(folder.targets, logits, k=k) for k in (1, 5)}
    assert 0 < expected["top1"] < expected["top5"] < 100
    expected["per_class"] = 100 * balanced_accuracy_score(folder.targets, logits.argmax(1))

    done: list[int] = []
    task.train()
    scores = task.evaluate(Scoring(batch_size=8, workers=0, on_progress=done.append))
    assert scores.metrics == pytest.approx(expected, abs=1e-9)
    assert done == [8, 16, 24, 32, 35]  # the last batch is a partial one
    assert task.training
    assert task.evaluate(Scoring(batch_size=35, workers=1)) == scores


def test_above_224_pixels_the_crop_is_the_whole(root: Path, tmp_path: Path) -> None:
    """At 232 pixels the shorter side becomes 232, not 265."""
    write_images(tmp_path, 6, train=1, val=1)
    large = ViT("tiny", TINY, 232)
    task = Classification(small("finetune", image_size=232), large, read(tmp_path), seed=0)
    seen: list[Tensor] = []
    task.predict = lambda images: seen.append(images) or torch.randn(len(images), 6)
    task.evaluate(Scoring(workers=0))
    shrink = transforms.Resize(232, transforms.InterpolationMode.BICUBIC)
    oracle = transforms.Compose([shrink, transforms.CenterCrop(232), transforms.PILToTensor()])
    folder = ImageFolder(str(tmp_path / "val"), transform=oracle)
    assert torch.equal(seen[0], torch.stack([image for image, _ in folder]))


def test_limit_takes_part_of_both_splits(root: Path) -> None:
    torch.manual_seed(0)
    task = Classification(small("finetune"), tiny_vit(), read(root), seed=0, limit=7)
    assert task.train_data.split.targets.tolist() == list(range(7))
    done: list[int] = []
    task.evaluate(Scoring(workers=0, on_progress=done.append))
    assert done == [7]
    facts = task.data_facts()
    assert facts.pop("fingerprint") == build(root, "finetune").data_facts()["fingerprint"]
    assert facts == {
        "name": "imagenet1k",
        "train_images": 7,
        "val_images": 7,
        "classes": 7,
        "standard": False,
        "upright": False,
        "own": True,  # the classes are not called by wnids
    }


def test_unreadable_test_images_are_left_out_and_named(tmp_path: Path) -> None:
    write_images(tmp_path, 6, train=1, val=3)
    task = build(tmp_path, "finetune")
    visible(task)
    whole = task.evaluate(Scoring(workers=0))
    (tmp_path / "val/n2/1.jpg").write_bytes(b"not a picture")
    truncated = tmp_path / "val/n5/2.jpg"
    truncated.write_bytes(truncated.read_bytes()[:100])
    scores = task.evaluate(Scoring(batch_size=1, workers=0))
    assert [each.name for each in scores.unreadable] == ["val/n2/1.jpg", "val/n5/2.jpg"]
    with pytest.raises(TaskError, match="2 test image files are unreadable, more than the limit"):
        task.evaluate(Scoring(workers=0, max_bad_images=1))
    for image in (tmp_path / "val/n2/1.jpg", truncated):
        image.unlink()
    assert build(tmp_path, "finetune").load_state_dict(task.state_dict())
    fewer = build(tmp_path, "finetune")
    fewer.load_state_dict(task.state_dict())
    assert fewer.evaluate(Scoring(workers=0)).metrics == scores.metrics
    assert whole.metrics.keys() == {"top1", "top5", "per_class"}
    for image in (tmp_path / "val").glob("*/*.jpg"):
        image.write_bytes(b"")
    with pytest.raises(TaskError, match="none of the 16 test images can be read: 16 images"):
        fewer.evaluate(Scoring(workers=0))


def test_unreadable_training_image_is_replaced(tmp_path: Path) -> None:
    write_images(tmp_path, 6, train=2, val=1)
    (tmp_path / "train/n1/1.jpg").write_bytes(b"not a picture")
    batch = build(tmp_path, "finetune").train_data.__getitems__([(0, 2), (0, 3)])
    assert [each.name for each in batch["skipped"]] == ["train/n1/1.jpg"]
    assert batch["index"].tolist() == [2, 4]
    assert batch["targets"].tolist() == [1, 2]


def test_top5_needs_six_classes(tmp_path: Path) -> None:
    write_images(tmp_path, 5, train=1, val=2)
    scored = build(tmp_path, "linear").evaluate(Scoring(workers=0))
    assert scored.metrics.keys() == scored.intervals.keys() == {"top1", "per_class"}


def test_a_copy_shares_the_data_and_scores_the_same(root: Path) -> None:
    task = build(root, "scratch")
    visible(task)
    twin = copy.deepcopy(task)
    assert twin.train_data is task.train_data
    assert twin.data is task.data
    assert twin.head[-1].weight is not task.head[-1].weight
    assert twin.evaluate(Scoring(workers=0)) == task.evaluate(Scoring(workers=0))


def test_bf16_logits_are_not_rounded(root: Path) -> None:
    """The classifier runs in float32, for bf16 makes many of the best logits equal."""
    task = build(root, "finetune", precision="bf16").eval()
    visible(task)
    images = torch.randint(256, (4, 3, SIDE, SIDE), dtype=torch.uint8)
    logits = task.predict(images)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())
    exact = task.logits(task.normalise(images))
    assert not torch.equal(logits, exact)  # the backbone did run in bf16


def test_learns_colours(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for c, colour in enumerate(("red", "green", "blue")):
            place = tmp_path / split / f"n{c}"
            place.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (40, 40 + i), colour).save(place / f"{i}.png")
    task = build(tmp_path, "scratch", rand_augment=None, mixup=0.0, cutmix=0.0, device_batch=32)
    before = task.evaluate(Scoring(workers=0))
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    for epoch in range(12):
        batch = task.train_data.__getitems__([(epoch, i) for i in range(12)])
        loss = task.train()(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before.metrics["top1"] < 50
    assert task.evaluate(Scoring(workers=0)).metrics == {"top1": 100.0, "per_class": 100.0}


def score_in_process(rank: int, root: str, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    task = build(Path(root), "finetune")
    visible(task)
    done: list[int] = []
    folder = Path(out, "files")
    scores = task.evaluate(Scoring(batch_size=4, workers=0, on_progress=done.append, folder=folder))
    Path(out, f"{rank}").write_text(repr((scores, done)))
    dist.destroy_process_group()


def test_two_processes_score_each_image_once(root: Path, tmp_path: Path) -> None:
    task = build(root, "finetune")
    visible(task)
    alone, together = tmp_path / "alone", tmp_path / "files"
    alone.mkdir()
    together.mkdir()
    expected = task.evaluate(Scoring(batch_size=4, workers=0, folder=alone))
    arguments = (str(root), str(tmp_path / "store"), str(tmp_path))
    # Forked, as loader workers are: fresh interpreters would spend ten seconds on imports.
    mp.start_processes(score_in_process, arguments, nprocs=2, start_method="fork")
    # 35 images: 18 and 17, which would score one of them twice if both had 18.
    done = {0: [8, 16, 24, 32, 35], 1: [8, 16, 24, 32, 34]}
    for rank in (0, 1):
        assert (tmp_path / f"{rank}").read_text() == repr((expected, done[rank]))
    names = sorted(file.name for file in alone.iterdir())
    assert names == ["classes.txt", "per_class.csv", "predictions.csv", "predictions.png"]
    for name in names[:2]:  # probabilities depend on the batch in the last digits
        assert (together / name).read_bytes() == (alone / name).read_bytes(), name
    ours, theirs = (pd.read_csv(place / "predictions.csv") for place in (alone, together))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    assert list(ours.file) == list(task.data.val.names)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"seed": -1}, "seed is -1; expected a whole number"),
        ({"limit": 0}, "limit is 0; expected at least 1"),
        ({"data": Path("/nowhere/at/all")}, "data folder /nowhere/at/all does not exist"),
    ],
)
def test_bad_arguments(root: Path, arguments: dict, told: str) -> None:
    given = {"data": root, "seed": 0, "limit": None} | arguments
    with pytest.raises(TaskError, match=told) as error:
        tasks.build("imagenet1k", small("finetune"), tiny_vit(), **given)
    assert "\n" not in str(error.value)


def test_backbone_of_another_image_size(root: Path) -> None:
    with pytest.raises(TaskError, match=r"backbone takes 32-pixel images; the recipe's .* 64"):
        Classification(small("finetune", image_size=64), tiny_vit(), read(root), seed=0)
