"""A classifier as somebody released it: a backbone with its head, in one checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from backbones.baselines import name_of
from backbones.conversion import Converted
from backbones.formats import PATCHES
from backbones.heads import Head, classifier_in
from backbones.hub import CONFIG, labels_beside
from backbones.loading import build, read
from backbones.precision import as_they_are
from backbones.reading import Reading, ReadingOptions
from backbones.report import POOLED, LoadReport, Pooling
from backbones.shapes import grid_in
from mae_bench.arguments import refuse_label
from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.setup import checkpoint_of
from results import Changed
from results.protocol import ProtocolId
from tasks.classification import recipes
from tasks.classification.classifier import Classifier
from tasks.classification.recipe import ClassificationRecipe
from tasks.learnt import read_listed

PROTOCOL = ProtocolId("imagenet1k", "released", "1")
KNOWN_POOLING = ("moco_v3", "deit", "augreg", "torchvision", "hf_vit", "hf_beit", "dino")
"""layouts whose own code has one kind of pooling, or two that the tensors tell apart"""


class ReleasedOptions(ReadingOptions, total=False):
    """What a user says of a released classifier: how it is read, and how it is tested."""

    image_size: int | None
    """pixels of the side; None: those that its positions belong to"""
    pooling: Pooling | None
    """what its classifier reads, where the file does not tell"""
    test_crop_ratio: float | None
    """side of the test crop / side of the resized image"""


@dataclass(frozen=True)
class Released:
    """A classifier that was trained elsewhere, and nothing is known of how."""

    name: str
    classifier: Classifier
    report: LoadReport
    init: str
    classes: list[str]
    """wnids in the order of their indices"""
    changed: tuple[Changed, ...] = ()
    """how a user has it tested otherwise than the file says"""

    @property
    def recipe(self) -> ClassificationRecipe:
        """How it is tested; the rest is the fine-tuning recipe's and of no effect."""
        return self.classifier.recipe

    def model(self) -> Classifier:
        return self.classifier

    def protocol(self, on: str) -> str:
        return str(replace(PROTOCOL, task=on))

    def weights_id(self) -> str:
        """SHA-256 of the file, and what else they depend on."""
        return " ".join([self.report.sha256, *(f"{k} {v}" for k, v in self.report.read_as.items())])

    @property
    def trained_on(self) -> None:
        """Nobody can tell."""

    def fields(self) -> dict[str, Any]:
        """What its records say of it."""
        return {
            "kind": "transfer",
            "backbone": self.recipe.backbone,
            "init": self.init,
            "checkpoint": checkpoint_of(self.report),
            "recipe": self.recipe.to_dict(),
            "recipe_hash": self.recipe.digest(),
            "deviations": list(map(str, self.changed)),
            "changed": list(self.changed),
            "seed": 0,
            "complete": True,
        }


def read_released(
    file: Path,
    backbone: str,
    init: str | None,
    classes: Path | None,
    **options: Unpack[ReleasedOptions],
) -> Released:
    """The classifier in a file that holds an encoder with a linear head; see `backbones.heads`.

    It is tested at its own image size, crop and pooling, as far as the file or one beside it tells
    them; what nothing tells is assumed, and that is said. `classes`: a file of wnids in the order
    of the head's outputs, one per line; None: ImageNet-1k's 1,000 in theirs. Raises `RunError` or
    `BackboneError` for anything else.
    """
    names = {"image_size", "pooling", "test_crop_ratio"}
    reading = Reading(**{k: v for k, v in options.items() if k not in names})  # type: ignore[arg-type]
    first, converted, report = read(file, reading)
    head = classifier_in(file, converted)
    outputs, wnids = head.outputs, imagenet_wnids() if classes is None else read_listed(classes)
    if outputs != len(wnids):
        raise RunError(
            f"checkpoint {file}: its head has {outputs} outputs; expected {len(wnids)}, for the "
            + ("classes of ImageNet-1k" if classes is None else f"lines of {classes}")
        )
    refuse_other_order(first, converted, wnids, classes)
    how = settle_test(file, backbone, converted, head, report, options)
    vit = build(backbone, first, converted, report, how.recipe.image_size)
    model = with_head(how.recipe, vit, head)
    say(str(report))
    label = init or name_of(file)
    refuse_label(label, report.maker, report.file, classifier=True)
    say(
        f"  and its classifier {head.key} of {outputs} classes, on {POOLED[how.recipe.pooling]},\n"
        f"    at {how.recipe.image_size} pixels, {how.recipe.crop_ratio:.3g} of the resized image"
    )
    return Released(name_of(file), model, report, label, wnids, how.changed)


def refuse_other_order(
    file: Path, converted: Converted, classes: list[str], given: Path | None
) -> None:
    """Raise `RunError` if the configuration beside a file has its classes in another order."""
    labels = labels_beside(file, converted)
    if labels is None or set(labels) != set(classes) or labels == classes:
        return
    row = next(
        row for row, pair in enumerate(zip(labels, classes, strict=False)) if len({*pair}) > 1
    )
    raise RunError(
        f"{file.with_name(CONFIG)}: has the classes in another order than "
        f"{given or 'ImageNet-1k'}: output {row} is {labels[row]!r} there and {classes[row]!r} "
        "here; expected one order: correct the file that is wrong"
        + ("" if given else ", or name the classes with --classes")
    )


@dataclass(frozen=True)
class Test:
    """How a released classifier is tested."""

    recipe: ClassificationRecipe
    changed: tuple[Changed, ...]


def settle_test(
    file: Path,
    backbone: str,
    converted: Converted,
    head: Head,
    report: LoadReport,
    options: ReleasedOptions,
) -> Test:
    """Image size, crop and pooling: a user's, else the file's, else the recipe's as assumed."""
    base = recipes.recipe("imagenet1k", backbone, "finetune")
    changed = []
    own = report.tested.get("image_size") or side_in(converted)
    size = options.get("image_size") or own or base.image_size
    if own is None and options.get("image_size") is None:
        report.assumed.append(f"images of {size} pixels; --image-size for others")
    elif own not in (None, size):
        changed.append(Changed(field="image_size", value=size, standard=own))
    told, crop = report.tested.get("crop_ratio"), options.get("test_crop_ratio")
    recipe = replace(
        base,
        protocol=str(PROTOCOL),
        precision="fp32",
        drop_path=0.0,
        image_size=size,
        test_crop_ratio=told if crop is None else crop,
        pooling=settle_pooling(file, converted, head, report, options.get("pooling")),
        head_batch_norm=head.batch_norm is not None,
    )
    if told is None and crop is None:
        report.assumed.append(
            f"a test crop of {recipe.crop_ratio:.3g} of the resized image, by the MAE release's "
            "rule; --test-crop-ratio for another"
        )
    elif told is not None and crop not in (None, told):
        changed.append(Changed(field="test_crop_ratio", value=crop, standard=told))
    if "cut" in report.tested:
        report.assumed.append(
            f"images with their shorter side resized (bicubic) and the middle cut out; "
            f"{report.tested['cut']}"
        )
    return Test(recipe, tuple(changed))


def side_in(converted: Converted) -> int | None:
    """Pixels of the side of the images that the file's positions belong to; None: not told."""
    grid, patches = grid_in(converted.state, converted.grid), converted.state.get(PATCHES)
    return (
        None if grid is None or patches is None or patches.ndim != 4 else grid * len(patches[0, 0])
    )


def settle_pooling(
    file: Path, converted: Converted, head: Head, report: LoadReport, asked: Pooling | None
) -> Pooling:
    """What the classifier reads; a norm of its own tells that it reads the mean of the patches."""
    if head.norm is not None:
        if asked == "cls":
            raise RunError(
                f"--pooling cls: the classifier of {file} has a norm of its own, which follows the "
                "mean of the patches; leave the flag out"
            )
        return "patches"
    known = head.batch_norm is not None or converted.format in KNOWN_POOLING
    if asked is None and not known:
        report.assumed.append(
            "that its classifier reads the class token; --pooling patches for the mean of the "
            "patches after the last norm"
        )
    return asked or "cls"


class OnMeanOfNormed(Classifier):
    """A classifier that reads the mean of the patches after the backbone's own norm.

    As timm's with global_pool avg and without fc_norm; all that we train norm the mean.
    """

    def logits(self, images: Tensor) -> Tensor:
        tokens = self.backbone(images, norm=True)
        with as_they_are(images.device.type):
            return self.head(tokens[:, 1:].float().mean(dim=1))


def with_head(recipe: ClassificationRecipe, vit: Any, head: Head) -> Classifier:
    """The backbone with the file's classifier on it."""
    if recipe.pooling == "patches" and head.norm is None:
        model: Classifier = OnMeanOfNormed(replace(recipe, pooling="cls"), vit, head.outputs)
        model.recipe = recipe
    else:
        model = Classifier(recipe, vit, head.outputs)
    state: dict[str, Tensor] = {}
    linear = "head.0."
    if head.batch_norm is not None:
        state |= dict(
            zip(("head.0.running_mean", "head.0.running_var"), head.batch_norm, strict=True)
        )
        linear = "head.1."
    state |= {f"{linear}weight": head.weight, f"{linear}bias": head.bias}
    if head.norm is not None:
        state |= dict(zip(("fc_norm.weight", "fc_norm.bias"), head.norm, strict=True))
        model.fc_norm.eps = vit.anatomy.norm_eps
    model.load_state_dict(model.state_dict() | state)
    return model


def imagenet_wnids() -> list[str]:
    """The 1,000 of ImageNet-1k in the order of class indices, as timm has them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_label_name(index) for index in range(info.num_classes())]
