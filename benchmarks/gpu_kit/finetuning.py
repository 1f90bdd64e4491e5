"""A step of fine-tuning on ImageNet-1k: ours, timm's usual loop, and the release's arrangement.

All of them mix images and train the same ViT on soft targets of a thousand classes; ours is the
task as `mae-bench transfer` builds it, with its normalisation and augmentation on the device.
"""

import numpy as np
import torch
import torch.nn.functional as F
from release_peer import ReleaseStep, attend_explicitly
from timm.data import Mixup
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import backbones
from backbones.vit import compile_blocks
from gpu_kit.part import Bench
from gpu_kit.timing import measure
from mae_bench.optim import build_optimizer, clip
from mae_bench.recipes import override
from tasks.classification.datasets import IMAGENET_1K
from tasks.classification.labelled import LabelledImages, Split
from tasks.classification.recipes import recipe
from tasks.classification.task import Classification
from tasks.images.files import FileNames

DIFFERENCE = 1e-4


def run(bench: Bench) -> None:
    torch.manual_seed(0)
    sizes = bench.choose((("vit_b", 128), ("vit_l", 128)), (("vit_mini", 4),))
    for name, make in MAKERS.items():
        for backbone, batch in sizes:
            bench.attempt(f"{backbone}, {name}", time_step, bench, backbone, batch, name, make)
            bench.release()


class Ours:
    """`Classification` with names of images that are never read."""

    def __init__(self, bench: Bench, backbone: str, compiled: bool = False) -> None:
        self.bench = bench
        classes = [str(number) for number in range(1000)]
        split = Split(bench.out, FileNames(classes), np.arange(1000))
        data = LabelledImages(IMAGENET_1K, tuple(classes), split, split, "none", ())
        self.recipe = override(recipe("imagenet1k", backbone, "finetune"), {})
        vit = backbones.create(backbone, self.recipe.image_size, drop_path=self.recipe.drop_path)
        self.task = Classification(self.recipe, vit, data, seed=0).to(bench.device).train()
        if compiled:
            compile_blocks(self.task, backend=bench.backend)
        self.optimiser = build_optimizer(self.task, self.recipe)

    def __call__(self, images: Tensor, targets: Tensor) -> None:
        with torch.autocast(self.bench.device, torch.bfloat16):
            loss = self.task({"images": images, "targets": targets})["loss"]
        loss.backward()
        clip(self.task, self.recipe.clip_grad)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


class Mixed(nn.Module):
    """timm's ViT and mixing on uint8 images, which are normalised on the device too."""

    mean: Tensor
    std: Tensor

    def __init__(self, bench: Bench, backbone: str) -> None:
        """With the weights of a new task of ours, whose logits are compared in float32."""
        super().__init__()
        task = Ours(bench, backbone).task
        size = backbones.SIZES[backbone]
        self.vit = VisionTransformer(
            img_size=size.pretrain_image,
            patch_size=size.patch_size,
            embed_dim=size.embed_dim,
            depth=size.depth,
            num_heads=size.num_heads,
            num_classes=1000,
            global_pool="avg",
            drop_path_rate=task.recipe.drop_path,
        )
        for name in ("mean", "std"):
            self.register_buffer(name, getattr(task, name).cpu())
        state = {k.removeprefix("backbone."): v for k, v in task.state_dict().items()}
        self.vit.load_state_dict({k.replace("head.0.", "head."): v for k, v in state.items()})
        same_logits(bench, task, self)
        self.mix = Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=1000)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        images, targets = self.mix((images.float() - self.mean) / self.std, targets)
        return -(targets * F.log_softmax(self.vit(images).float(), dim=-1)).sum(dim=-1).mean()


@torch.no_grad()
def same_logits(bench: Bench, task: Classification, peer: Mixed) -> None:
    """Raises unless both say the same of two images."""
    side = task.recipe.image_size
    images = torch.randn(2, 3, side, side)
    wanted = task.eval().logits(images.to(bench.device)).cpu()
    found = peer.eval().vit(images)
    if not (found - wanted).norm() < DIFFERENCE * wanted.norm():
        raise RuntimeError("timm's ViT with our weights gives other logits")


class Timm:
    """bf16, the loss read now and then, AdamW as torch gives it."""

    def __init__(self, bench: Bench, backbone: str) -> None:
        self.bench = bench
        self.network = Mixed(bench, backbone).to(bench.device).train()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4, weight_decay=0.05)

    def __call__(self, images: Tensor, targets: Tensor) -> None:
        with torch.autocast(self.bench.device, torch.bfloat16):
            loss = self.network(images, targets)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def released(bench: Bench, backbone: str) -> ReleaseStep:
    network = Mixed(bench, backbone)
    attend_explicitly(network)
    half = bench.choose(torch.float16, torch.bfloat16)
    return ReleaseStep(network.to(bench.device).train(), bench.device, half)


MAKERS = {
    "mae-bench": Ours,
    "timm's ViT and loop, bf16": Timm,
    "the release's arrangement, fp16": released,
    # Last: stochastic depth makes a graph of each block.
    "mae-bench, compiled blocks": lambda bench, backbone: Ours(bench, backbone, compiled=True),
}


def time_step(bench: Bench, backbone: str, batch: int, name: str, make: object) -> None:
    assert callable(make)
    step = make(bench, backbone)
    side = backbones.SIZES[backbone].pretrain_image
    images = torch.randint(256, (batch, 3, side, side), device=bench.device).byte()
    targets = torch.randint(1000, (batch,), device=bench.device)
    found = measure(bench, lambda: step(images, targets))
    usual = bench.counts.setdefault(backbone, found.seconds)
    bench.book.row(
        f"{backbone}, a step of {batch} images",
        implementation=name,
        **{
            "ms, median (min)": f"{1e3 * found.seconds:.1f} ({1e3 * found.least:.1f})",
            "images/s": f"{batch / found.seconds:.1f}",
            "times mae-bench": round(found.seconds / usual, 2),
            "peak GiB": round(found.peak_gib, 1),
            "first step, s": round(found.first, 1),
        },
    )
