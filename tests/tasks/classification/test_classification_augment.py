import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import Mixup, create_transform
from timm.data.auto_augment import RandAugment
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import RandomResizedCrop

from backbones.colour import IMAGENET_MEAN, IMAGENET_STD
from tasks.classification.augment import (
    BatchAugment,
    SampleAugment,
    clipped_crop_box,
    rand_augment_of,
    seeded_globals,
)
from tasks.classification.recipes import ClassificationRecipe, recipe
from tasks.images import random_crop

FINETUNE = recipe("imagenet1k", "vit_b", "finetune")


def finetune(**changes: object) -> ClassificationRecipe:
    return dataclasses.replace(FINETUNE, **changes)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(file)
    return file


def test_rand_augment_is_that_of_create_transform() -> None:
    reference = create_transform(
        input_size=224,
        is_training=True,
        color_jitter=None,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
    theirs = next(step for step in reference.transforms if isinstance(step, RandAugment))
    ours = rand_augment_of(FINETUNE, IMAGENET_MEAN)
    pixels = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    changed = refused = 0
    for seed in range(100):
        image = Image.fromarray(pixels)
        with seeded_globals(seed):
            given = np.asarray(ours(image))
        try:
            with seeded_globals(seed):
                expected = np.asarray(theirs(image))
        except ValueError:  # posterize with 0 bits under a new Pillow; see the next test
            refused += 1
            continue
        np.testing.assert_array_equal(given, expected)
        changed += not np.array_equal(given, pixels)
    assert changed > 50
    assert refused < 5


@pytest.mark.parametrize(("magnitude", "kept"), [(0, 0xF0), (5, 0xC0), (9, 0x80), (10, 0)])
def test_posterize_keeps_the_highest_bits(magnitude: int, kept: int) -> None:
    """PosterizeIncreasing keeps 4 - int(0.4 x magnitude) bits, as timm has it; 0 leaves black."""
    policy = rand_augment_of(finetune(rand_augment=f"rand-m{magnitude}-inc1-p1"), IMAGENET_MEAN)
    op = next(op for op in policy.ops if op.name == "PosterizeIncreasing")
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(op(Image.fromarray(pixels))), pixels & kept)


def test_sample_is_crop_and_flip_then_rand_augment(picture: Path) -> None:
    plain = finetune(image_size=32, rand_augment=None, min_crop_area=0.3)
    for seed in range(5):
        crop = random_crop(picture, 32, np.random.default_rng(seed), (0.3, 1.0))
        given = SampleAugment(plain, IMAGENET_MEAN)(picture, np.random.default_rng(seed))
        assert torch.equal(given, crop)
    augmented = dataclasses.replace(plain, rand_augment="rand-m9-mstd0.5-inc1")
    rng = np.random.default_rng(7)
    crop = random_crop(picture, 32, rng, (0.3, 1.0))
    with seeded_globals(int(rng.integers(2**32))):
        policy = rand_augment_of(augmented, IMAGENET_MEAN)
        expected = np.asarray(policy(Image.fromarray(crop.permute(1, 2, 0).numpy())))
    given = SampleAugment(augmented, IMAGENET_MEAN)(picture, np.random.default_rng(7))
    assert given.shape == (3, 32, 32)
    assert given.dtype == torch.uint8
    np.testing.assert_array_equal(given.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("flip_prob", "flipped"), [(0.0, False), (1.0, True)])
def test_flip_probability(picture: Path, flip_prob: float, flipped: bool) -> None:
    whole = {"image_size": 32, "rand_augment": None, "oversize_crop": "redraw"}
    never = SampleAugment(finetune(**whole, flip_prob=0.0), IMAGENET_MEAN)
    asked = SampleAugment(finetune(**whole, flip_prob=flip_prob), IMAGENET_MEAN)
    for seed in range(4):
        unflipped = never(picture, np.random.default_rng(seed))
        expected = unflipped.flip(2) if flipped else unflipped
        assert torch.equal(asked(picture, np.random.default_rng(seed)), expected)


def test_clipped_crop_by_hand() -> None:
    class Drawn:
        """Gives the area share and log aspect that the test wants, then corner offsets."""

        def __init__(self, *values: float) -> None:
            self.values = iter(values)

        def uniform(self, low: float, high: float) -> float:
            value = next(self.values)
            assert low <= value <= high
            return value

        def integers(self, end: int) -> int:
            return end - 1

    # 100 x 200: half the area is 10,000 pixels; aspect 1 gives 100 x 100, at the far corner.
    assert clipped_crop_box(Drawn(0.5, 0.0), 100, 200, (0.08, 1.0)) == (0, 100, 100, 100)
    # All of it with aspect 4/3: w = sqrt(20000 * 4/3) = 163, h = sqrt(15000) = 122, clipped.
    box = clipped_crop_box(Drawn(1.0, float(np.log(4 / 3))), 100, 200, (0.08, 1.0))
    assert box == (0, 37, 100, 163)


def test_clipped_crop_keeps_what_torchvision_redraws(picture: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [clipped_crop_box(rng, 10, 400, (1.0, 1.0)) for _ in range(50)]
    assert all(h == 10 and 55 <= w <= 73 and 0 <= left <= 400 - w for _, left, h, w in boxes)
    redrawn = RandomResizedCrop.get_params(torch.zeros(3, 10, 400), [1.0, 1.0], [3 / 4, 4 / 3])
    assert redrawn[2:] == (10, 13)  # ten misses, then the centre
    for clip, width in (("clip", range(55, 74)), ("redraw", range(13, 14))):
        seen = []
        augment = SampleAugment(
            finetune(oversize_crop=clip, min_crop_area=1.0, rand_augment=None, image_size=8),
            IMAGENET_MEAN,
        )
        strip = picture.with_name("strip.png")
        columns = np.arange(400) % 256
        Image.fromarray(np.broadcast_to(columns, (10, 400)).astype(np.uint8)).save(strip)
        for seed in range(5):
            view = augment(strip, np.random.default_rng(seed)).float()
            seen.append(abs(float(view[0, 0, 6] - view[0, 0, 1])) / 5 * 8)  # columns covered
        # A view that straddles the jump from 255 to 0 says nothing.
        seen = [s for s in seen if s < 100]
        assert seen
        assert all(min(width) - 3 <= s <= max(width) + 3 for s in seen)


def test_seeded_globals_restores_the_state() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002

    def fail() -> None:
        with seeded_globals(99):
            random.random(), np.random.random(5)  # noqa: NPY002
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


@pytest.mark.parametrize("seed", range(6))
def test_batch_augment_is_timm_erasing_then_mixup(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    targets = torch.randint(10, (8,), generator=generator)

    torch.manual_seed(seed)
    drawn = int(torch.randint(2**32, ()))
    with seeded_globals(drawn):
        expected = RandomErasing(0.25, mode="pixel", max_count=1, device="cpu")(images.clone())
        mix = Mixup(
            mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=10, switch_prob=0.5
        )
        expected, soft = mix(expected, targets)

    torch.manual_seed(seed)
    given, probabilities = BatchAugment(FINETUNE, 10)(images.clone(), targets)
    assert torch.equal(given, expected)
    assert torch.equal(probabilities, soft)
    assert not torch.equal(given, images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8), atol=1e-6, rtol=0)


def test_mixing_uses_mixup_and_cutmix() -> None:
    """A constant image against its mirror: mixup leaves constants, cutmix leaves two values."""
    kinds = set()
    quiet = finetune(erase_prob=0.0)
    for seed in range(20):
        torch.manual_seed(seed)
        images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
        mixed, soft = BatchAugment(quiet, 2)(images, torch.tensor([0, 1]))
        values = mixed[0].unique()
        kinds.add("cutmix" if set(values.tolist()) <= {0.0, 1.0} else "mixup")
        # Smoothing 0.1 over two classes: the share of the other class is 0.05 + 0.9 * weight.
        weight = mixed[0].mean().item()
        assert soft[0, 1].item() == pytest.approx(0.05 + 0.9 * weight, abs=1e-5)
    assert kinds == {"mixup", "cutmix"}


def test_without_mixing_targets_and_images_stay() -> None:
    off = finetune(mixup=0.0, cutmix=0.0, erase_prob=0.0)
    images, targets = torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2])
    same, indices = BatchAugment(off, 10)(images.clone(), targets)
    assert torch.equal(same, images)
    assert torch.equal(indices, targets)


def test_batch_augment_leaves_python_and_numpy_alone() -> None:
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(5)
        results.append(BatchAugment(FINETUNE, 4)(torch.ones(4, 3, 32, 32), torch.arange(4))[0])
        after = random.random()
        random.seed(seed)
        assert after == random.random()
    assert torch.equal(*results)
