"""How long a step of fine-tuning and of a linear probe takes, next to timm's and MAE's own way.

    python benchmarks/finetune_step.py            # prints the tables
    python benchmarks/finetune_step.py --write    # and writes them to finetune_step.md
    python benchmarks/finetune_step.py --backbone vit_s --batch 16 --rounds 5

All networks have the same weights and get the same uint8 images and classes, and draw the same
mixtures and the same paths to drop. Loss, gradients, and weights after one step with layer-wise
rates are compared before anything is timed. A step begins with pixels and ends with AdamW, or with
LARS for the probe. All live in one process with one thread and take turns; arithmetic is float32.
The step is the recipe's but for random erasing, which timm leaves to its loader.
"""

import dataclasses
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import peers
import side_by_side
import torch
from release_peer import attend_explicitly
from side_by_side import OURS
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import Lars, create_optimizer_v2
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

import backbones
from mae_bench.optim import build_optimizer, clip
from tasks.classification.datasets import DATASETS
from tasks.classification.labelled import LabelledImages, Split
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.recipes import recipe
from tasks.classification.task import Classification
from tasks.images.files import FileNames

CLASSES = 1000
LARGEST_DIFFERENCE = 1e-4
"""relative, of the loss, of any gradient, and of the weights that a step moves"""
TIMM, RELEASE = "timm's ViT and training loop", "the MAE release's arrangement"
SETTINGS = (("finetune", "vit_s", 2), ("linear", "vit_s", 4))
"""protocol, backbone, images of a step"""


class Side:
    """One network with its optimiser."""

    network: nn.Module
    optimiser: Optimizer

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError

    def backward(self, images: Tensor, targets: Tensor) -> float:
        draw()
        loss = self.loss(images, targets)
        loss.backward()
        return loss.item()

    def step(self, images: Tensor, targets: Tensor) -> None:
        self.backward(images, targets)
        self.update()

    def update(self) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def flops(self, images: Tensor, targets: Tensor) -> int:
        """Floating-point operations of forward and backward, as torch counts them."""
        with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
            self.backward(images, targets)
        self.optimiser.zero_grad(set_to_none=True)
        return counter.get_total_flops()


def draw() -> None:
    """Seed torch, and from it numpy and `random`, as our task does for timm's mixup."""
    torch.manual_seed(0)
    seed = int(torch.randint(2**32, ()))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 timm's
    torch.manual_seed(0)


class Ours(Side):
    """The task and the optimiser of `mae-bench transfer`, stepped as its loop does."""

    def __init__(self, settings: ClassificationRecipe) -> None:
        options = settings.backbone_options()
        backbone = backbones.create(settings.backbone, **options)
        self.network = self.task = Classification(settings, backbone, no_images(), seed=0)
        self.optimiser = build_optimizer(self.task, settings)
        self.task.train()

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        return self.task({"images": images, "targets": targets})["loss"]

    def update(self) -> None:
        scale_rates(self.optimiser, self.task.recipe.lr)
        clip(self.task, self.task.recipe.clip_grad)
        super().update()


class Timm(Side):
    """timm's network, mixup, loss and optimiser, as its train.py puts them together."""

    def __init__(self, ours: Ours) -> None:
        self.settings = settings = ours.task.recipe
        self.mean, self.std = ours.task.mean, ours.task.std
        self.network = timm_classifier(ours.task)
        self.mix: Mixup | None = None
        if settings.mixup:
            self.mix = Mixup(
                settings.mixup,
                settings.cutmix,
                switch_prob=settings.mix_switch_prob,
                label_smoothing=settings.label_smoothing,
                num_classes=CLASSES,
            )
        self.soft = SoftTargetCrossEntropy()
        self.optimiser = self.build()
        self.network.train()

    def build(self) -> Optimizer:
        settings = self.settings
        if settings.trained_blocks == 0:
            self.network.requires_grad_(False)
            self.network.head.requires_grad_(True)
        if settings.optimizer == "lars":
            # Of matrices alone the rate is adapted: facebookresearch/mae, util/lars.py.
            weights = [
                {"params": [p], "always_adapt": p.ndim > 1} for p in self.network.head.parameters()
            ]
            return Lars(weights, settings.lr, settings.betas[0], trust_coeff=0.001, eps=0.0)
        return create_optimizer_v2(
            self.network,
            "adamw",
            settings.lr,
            settings.weight_decay,
            betas=settings.betas,
            layer_decay=settings.layer_decay,
        )

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        pixels = (images.float() - self.mean) / self.std
        if self.mix is None:
            smoothing = self.settings.label_smoothing
            return cross_entropy(self.network(pixels), targets, label_smoothing=smoothing)
        # Our task draws the seed of the mixture first, then the paths.
        torch.randint(2**32, ())
        pixels, mixed = self.mix(pixels, targets)
        return self.soft(self.network(pixels), mixed)

    def update(self) -> None:
        scale_rates(self.optimiser, self.settings.lr)
        super().update()


class Release(Timm):
    """The same as facebookresearch/mae has it.

    Attention writes its weights out, as in the timm of its time (models_vit.py), and the norm of
    all gradients is computed in every step (util/misc.py).
    """

    def build(self) -> Optimizer:
        attend_explicitly(self.network)
        return super().build()

    def update(self) -> None:
        trained = [p.grad for p in self.network.parameters() if p.grad is not None]
        torch.stack([grad.norm() for grad in trained]).norm().item()
        super().update()


def scale_rates(optimiser: Optimizer, rate: float) -> None:
    """What the schedule does before each step."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)


def no_images() -> LabelledImages:
    """ImageNet's classes, and no image of them that anybody reads."""
    nothing = Split(Path(), FileNames(["none.jpg"]), np.zeros(1, np.int64))
    names = tuple(f"n{number:08}" for number in range(CLASSES))
    return LabelledImages(DATASETS["imagenet1k"], names, nothing, nothing, "")


def timm_classifier(task: Classification) -> nn.Module:
    """timm's ViT with the weights of one of ours, its classifier included."""
    settings = task.recipe
    pooling = "avg" if settings.pooling == "patches" else "token"
    vit = peers.timm_vit(
        task.backbone,
        num_classes=CLASSES,
        global_pool=pooling,
        drop_path_rate=settings.drop_path,
    )
    vit.pos_embed.requires_grad_(task.backbone.pos_embed.requires_grad)
    if settings.head_batch_norm:
        vit.head = nn.Sequential(nn.BatchNorm1d(vit.embed_dim, affine=False, eps=1e-6), vit.head)
    state = {name.removeprefix("backbone."): value for name, value in task.state_dict().items()}
    if not settings.head_batch_norm:
        state = {name.replace("head.0.", "head."): value for name, value in state.items()}
    vit.load_state_dict(state)
    return vit


def check(sides: dict[str, Side], images: Tensor, targets: Tensor) -> str:
    """Relative differences of loss, gradients and moved weights; stops if one is too large."""
    losses, gradients, moves = [], [], []
    head = "head." if "head.weight" in dict(sides[TIMM].network.named_parameters()) else "head.0."
    for side in sides.values():
        own = dict(side.network.named_parameters())
        names = {name.removeprefix("backbone.").replace("head.0.", head): name for name in own}
        losses.append(side.backward(images, targets))
        trained = sorted(name for name in names if own[names[name]].grad is not None)
        gradients.append({name: own[names[name]].grad for name in trained})
        before = {name: own[names[name]].detach().clone() for name in trained}
        side.update()
        moved = [(own[names[name]].detach() - before[name]).flatten() for name in trained]
        moves.append(torch.cat(moved))
    said = []
    for row, name in list(enumerate(sides))[1:]:
        if gradients[row].keys() != gradients[0].keys():
            raise SystemExit(f"{name}: other weights train; nothing was timed")
        gaps = [abs(losses[0] / losses[row] - 1)]
        gaps.append(max(apart(gradients[0][n], grad) for n, grad in gradients[row].items()))
        gaps.append(apart(moves[0], moves[row]))
        if max(gaps) > LARGEST_DIFFERENCE:
            raise SystemExit(f"{name}: differs by {gaps}; nothing was timed")
        said.append(f"{gaps[0]:.0e}, {gaps[1]:.0e} and {gaps[2]:.0e} ({name})")
    return "; ".join(said)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm().clamp(min=1e-30))


def measure(protocol: str, backbone: str, batch: int, rounds: int) -> str:
    """One Markdown table."""
    changes = {"erase_prob": 0.0, "precision": "fp32", "batch_size": batch, "device_batch": batch}
    settings = dataclasses.replace(recipe("imagenet1k", backbone, protocol), **changes)
    torch.manual_seed(0)
    side = settings.image_size
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8)
    targets = torch.randint(CLASSES, (batch,))
    ours = Ours(settings)
    sides = {OURS: ours, TIMM: Timm(ours), RELEASE: Release(ours)}
    said = check(sides, images, targets)
    flops = {name: each.flops(images, targets) for name, each in sides.items()}
    jobs: dict[str, Callable[[], object]] = {
        name: partial(each.step, images, targets) for name, each in sides.items()
    }
    spent = side_by_side.take_turns(jobs, rounds)
    columns = {"": ["GFLOP per image"]}
    columns |= {name: [f"{count / batch / 1e9:.1f}"] for name, count in flops.items()}
    return "\n".join(
        [
            f"### {protocol}, {backbone}, {side} x {side}, batch {batch}",
            "",
            "Relative differences of loss, of the worst gradient, and of what a step moves: "
            f"{said}. Rounds: {rounds}.",
            "",
            side_by_side.rows(spent, columns=columns),
        ]
    )


def main() -> None:
    parser = side_by_side.parser(__doc__, 5, __file__)
    parser.add_argument("--backbone", help="one backbone in place of the default tables")
    parser.add_argument("--batch", type=int, default=4, help="images per step with --backbone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = SETTINGS
    if arguments.backbone:
        settings = tuple((p, arguments.backbone, arguments.batch) for p in ("finetune", "linear"))
    tables = [measure(*each, arguments.rounds) for each in settings]
    machine = side_by_side.machine("timm")
    title = "A step of fine-tuning and of a linear probe"
    side_by_side.publish(__file__, title, [*tables, machine, EXPLANATION], arguments.write)


EXPLANATION = (
    "A step is normalisation, mixup or cutmix, forward, backward and AdamW; of the probe, without "
    "mixing, through a frozen backbone, with LARS. The last column is the median over the rounds "
    "of (implementation / mae-bench) in the same round."
)


if __name__ == "__main__":
    main()
