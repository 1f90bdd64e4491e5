"""How long UperNet on a ViT takes, next to mmsegmentation's own ViT with the same head.

    python benchmarks/segmentation_step.py            # prints the tables
    python benchmarks/segmentation_step.py --write    # and writes them to segmentation_step.md
    python benchmarks/segmentation_step.py --backbone vit_b --crop 256 --rounds 3

Both have the same weights, get the same uint8 images and labels and drop the same channels;
losses, gradients and predicted classes are compared before anything is timed. A training step
begins with pixels and ends with AdamW: mmsegmentation's through mmengine's `train_step`, ours as
`mae-bench transfer` runs it. Prediction is of one image in overlapping windows. All live in one
process with one thread and take turns; arithmetic is float32.
"""

import dataclasses
from pathlib import Path

import side_by_side
import torch
from mmseg_peer import MMSegmentor, weights
from side_by_side import OURS
from torch import Tensor

import backbones
from mae_bench.optim import build_optimizer
from tasks.ade20k.classes import ClassRule
from tasks.ade20k.layout import SegmentationData, SegmentationSplit
from tasks.ade20k.recipes import Ade20kRecipe, recipe
from tasks.ade20k.task import Ade20k
from tasks.images.files import FileNames

PEER = "mmsegmentation"
BATCH = 2
CLASSES = 150
LARGEST_DIFFERENCE = 1e-4
"""relative, of a loss or a gradient"""
NOTHING = 1e-7
"""of the largest gradient's norm, below which one counts as zero"""
OTHER_CLASSES = 1e-4
"""share of the pixels whose two best logits rounding may exchange"""


class Bench:
    """Both networks with what they are fed."""

    def __init__(self, settings: Ade20kRecipe) -> None:
        torch.manual_seed(0)
        backbone = backbones.create(settings.backbone, **settings.backbone_options())
        self.task = Ade20k(settings, backbone, no_images(), seed=0)
        with torch.no_grad():
            for name, parameter in self.task.named_parameters():
                if "relative_position" in name:  # they start at zero
                    parameter.normal_(std=0.1)
        self.peer = MMSegmentor(self.task)
        self.optimiser = build_optimizer(self.task, settings)
        side = settings.image_size
        self.images = torch.randint(256, (BATCH, 3, side, side), dtype=torch.uint8)
        self.labels = torch.randint(CLASSES, (BATCH, side // 16, side // 16), dtype=torch.uint8)
        self.labels = self.labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
        self.labels[:, :16] = 255
        # As wide as ADE20K's images are on average, 4 to 3.
        self.image = torch.randint(256, (3, side, side * 4 // 3), dtype=torch.uint8)

    def losses(self) -> dict[str, Tensor]:
        size = self.images.shape[-1]
        sizes = torch.full((BATCH, 2), size)
        return self.task({"images": self.images, "sizes": sizes, "labels": self.labels})

    def step(self) -> None:
        """As `mae_bench.train.fit` does it."""
        self.task.train()
        loss = self.losses()["loss"]
        loss.backward()
        loss.item()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def predict(self) -> Tensor:
        self.task.eval()
        return self.task.predict([self.image], tuple(self.image.shape[1:]), batch_size=1)


def no_images() -> SegmentationData:
    """ADE20K's classes, and no image of them that anybody reads."""
    names = FileNames(["none.png"])
    split = SegmentationSplit(Path(), names, names)
    rule = ClassRule(tuple(f"class {number}" for number in range(CLASSES)))
    return SegmentationData("ade20k", split, split, rule, "", True)


def check(bench: Bench) -> str:
    """What differs; stops the program if it is too much.

    Losses and gradients in float64: batch norms over the two single pixels of the coarsest pooled
    map blow up what rounding does. `bench` is spoilt by it.
    """
    for network in (bench.task, bench.peer.model):
        network.train().double()
    torch.manual_seed(1)
    own = bench.losses()
    own["loss"].backward()
    torch.manual_seed(1)
    theirs = bench.peer.backward(bench.images, bench.labels)
    pairs = [(own["loss_seg"], "decode.loss_ce"), (own["loss_aux"], "aux.loss_ce")]
    loss = max(abs(1 - float(ours.detach() / theirs[name])) for ours, name in pairs)
    expected = bench.peer.gradients()
    found = weights(bench.task, gradients=True)
    trained = {name for name, grad in found.items() if grad is not None}
    if trained != expected.keys():
        raise SystemExit(f"other weights train: {trained ^ expected.keys()}")
    # Biases before a batch norm change nothing: what is theirs is rounding.
    least = NOTHING * max(float(grad.norm()) for grad in expected.values())
    gradient = max(
        float((found[n] - g).norm() / g.norm()) for n, g in expected.items() if g.norm() > least
    )
    if max(loss, gradient) > LARGEST_DIFFERENCE:
        raise SystemExit(f"results differ by {loss:.1e} and {gradient:.1e}; nothing was timed")
    return (
        f"Relative difference of the losses {loss:.0e}, of the worst gradient {gradient:.0e}, in "
        "float64 on crops of half the side"
    )


def check_predicted(bench: Bench) -> str:
    other = (bench.predict() != bench.peer.predict(bench.image)).float().mean().item()
    if other > OTHER_CLASSES:
        raise SystemExit(f"{other:.2%} of the pixels get another class; nothing was timed")
    return f"{other:.2%} of the pixels get another class"


def measure(settings: Ade20kRecipe, rounds: int) -> str:
    half = {"image_size": settings.image_size // 2, "stride": settings.stride // 2}
    said = check(Bench(dataclasses.replace(settings, **half)))
    bench = Bench(settings)
    said = f"{said}; {check_predicted(bench)}."
    steps = {
        PEER: lambda: bench.peer.step(bench.images, bench.labels),
        OURS: bench.step,
    }
    windows = {PEER: lambda: bench.peer.predict(bench.image), OURS: bench.predict}
    side, width = settings.image_size, bench.image.shape[2]
    return "\n".join(
        [
            f"### {settings.backbone}, crops of {side} x {side}",
            "",
            f"{said} Rounds: {rounds}.",
            "",
            f"A training step of {BATCH} crops:",
            "",
            side_by_side.rows(side_by_side.take_turns(steps, rounds)),
            "",
            f"Prediction of an image of {side} x {width} in windows {settings.stride} apart:",
            "",
            side_by_side.rows(side_by_side.take_turns(windows, rounds)),
        ]
    )


def main() -> None:
    parser = side_by_side.parser(__doc__, 5, __file__)
    parser.add_argument("--backbone", default="vit_t", help="default: vit_t")
    parser.add_argument("--crop", type=int, default=512, help="pixels (default 512)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    crop = arguments.crop
    # mmcv draws the paths to drop otherwise than timm: results could not be compared.
    changes = {"image_size": crop, "stride": crop * 2 // 3, "drop_path": 0.0, "precision": "fp32"}
    base = recipe("ade20k", arguments.backbone, "upernet-512-160k")
    table = measure(dataclasses.replace(base, **changes), arguments.rounds)
    machine = side_by_side.machine("onedl-mmsegmentation", "mmcv-lite", "mmengine")
    title = "UperNet on a ViT next to mmsegmentation's"
    tables = [f"{table}\n\n{machine}", EXPLANATION]
    side_by_side.publish(__file__, title, tables, arguments.write, keep_tables=True)


EXPLANATION = (
    "The recipe is the published one but for no stochastic depth and the precision. The last "
    "column is the median over the rounds of (implementation / mae-bench) in the same round."
)


if __name__ == "__main__":
    main()
