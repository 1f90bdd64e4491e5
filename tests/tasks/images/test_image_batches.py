"""Crops and batches against Pillow and torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import HEIGHT, WIDTH, picture
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop

from tasks.errors import TaskError
from tasks.images import (
    BadImages,
    UnlabelledImages,
    Unreadable,
    UnreadableImage,
    batches,
    crop_resize,
    eval_crop,
    load_batch,
    random_crop,
    random_resized_crop_box,
    sample_rng,
)
from tasks.images.crops import square_box
from tasks.images.jitter import Jitter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight JPEG files, a.jpg to h.jpg, in a data folder."""
    for number, letter in enumerate("abcdefgh"):
        picture(64, 72, seed=number).save(tmp_path / f"{letter}.jpg", quality=95)
    return tmp_path


# Cropping


class Scripted(np.random.Generator):
    """A generator that gives known numbers."""

    def __init__(self, numbers: list[float]) -> None:
        super().__init__(np.random.PCG64())
        self.numbers = iter(numbers)

    def random(self) -> float:  # type: ignore[override]
        return next(self.numbers)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (64, 64), (40, 400), (400, 40), (1, 9)])
@pytest.mark.parametrize("area", [(0.2, 1.0), (0.08, 1.0)])
def test_crop_boxes_are_torchvisions_when_fed_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], area: tuple[float, float]
) -> None:
    height, width = shape
    image = torch.empty(3, height, width)
    for draw in range(150):
        numbers = np.random.default_rng([draw, height]).random(22).tolist()
        script = iter(numbers)

        def uniform(_: torch.Tensor, low: float, high: float, script=script) -> torch.Tensor:
            return torch.tensor(float(low) + (float(high) - float(low)) * next(script)).double()

        def randint(low: int, high: int, size: tuple, script=script) -> torch.Tensor:
            return torch.tensor(low + int(next(script) * (high - low)))

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", uniform)
            patch.setattr(torch, "randint", randint)
            expected = RandomResizedCrop.get_params(image, area, (3 / 4, 4 / 3))
        assert random_resized_crop_box(Scripted(numbers), height, width, area) == expected


def test_crop_box_follows_the_ranges_it_is_given() -> None:
    rng = np.random.default_rng(0)
    boxes = [random_resized_crop_box(rng, 1000, 1000, (0.3, 0.4), (1.0, 1.2)) for _ in range(300)]
    areas = np.array([h * w for _, _, h, w in boxes]) / 1e6
    ratios = np.array([w / h for _, _, h, w in boxes])
    assert 0.298 < areas.min() < 0.305 < 0.395 < areas.max() < 0.402
    assert 0.997 < ratios.min() < 1.01 < 1.19 < ratios.max() < 1.203
    assert all(
        t >= 0 and left >= 0 and t + h <= 1000 and left + w <= 1000 for t, left, h, w in boxes
    )


def decibels(image: np.ndarray, exact: np.ndarray) -> float:
    error = np.mean((image.astype(float) - exact) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def pillow_resize(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Image.Image:
    top, left, height, width = box
    crop = image.crop((left, top, left + width, top + height))
    return crop.resize((size, size), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [32, 224])
def test_crop_resize_is_at_least_60_db_from_pillow(size: int) -> None:
    """Over all crops together, and 68 dB each when Pillow resizes rows before columns.

    That was its only order up to version 12, and is torch's; newer ones choose, and rounding
    the other half-way image makes a tenth of the pixels differ by one grey level.
    """
    rng = np.random.default_rng(0)
    images = [picture(375, 500, seed) for seed in range(3)] + [picture(500, 375, 3)]
    ours, direct = [], []
    for draw in range(24):
        image = images[draw % 4]
        box = random_resized_crop_box(rng, image.height, image.width, (0.05, 1.0))
        ours.append(crop_resize(np.asarray(image), box, size, flip=False).permute(1, 2, 0).numpy())
        direct.append(np.asarray(pillow_resize(image, box, size)))
        top, left, height, width = box
        rows = image.crop((left, top, left + width, top + height)).resize(
            (size, height), Image.Resampling.BICUBIC
        )
        rows_first = rows.resize((size, size), Image.Resampling.BICUBIC)
        assert decibels(ours[-1], np.asarray(rows_first)) >= 68
    assert decibels(np.stack(ours), np.stack(direct)) >= 60


def test_crop_resize_mirrors_and_stays_channels_last() -> None:
    image = np.asarray(picture())
    for box in ((10, 20, 90, 70), (0, 0, HEIGHT, WIDTH)):
        plain = crop_resize(image, box, 48, flip=False)
        mirrored = crop_resize(image, box, 48, flip=True)
        assert plain.shape == (3, 48, 48)
        assert plain.dtype == torch.uint8
        assert torch.equal(mirrored, plain.flip(2))
        assert not torch.equal(mirrored, plain)
        # Otherwise each image is transposed twice, which takes as long as resizing it.
        assert plain.stride() == mirrored.stride() == (1, 3 * 48, 3)
    exact = crop_resize(image, (30, 40, 48, 48), 48, flip=False)
    np.testing.assert_array_equal(exact.permute(1, 2, 0).numpy(), image[30:78, 40:88])


@pytest.mark.parametrize(("size", "crop_ratio"), [(224, 224 / 256), (32, 0.875), (448, 1.0)])
@pytest.mark.parametrize("shape", [(375, 500), (90, 61), (301, 300)])
def test_eval_crop_is_torchvisions(
    tmp_path: Path, size: int, crop_ratio: float, shape: tuple[int, int]
) -> None:
    path = tmp_path / "image.jpg"
    picture(*shape).save(path)
    transform = transforms.Compose(
        [
            transforms.Resize(int(size / crop_ratio), InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.PILToTensor(),
        ]
    )
    expected = transform(pil_loader(path))
    assert torch.equal(eval_crop(path, size, crop_ratio), expected)
    with Image.open(path) as image:
        assert torch.equal(eval_crop(image, size, crop_ratio), expected)
    grey = picture(*shape).convert("L")
    assert torch.equal(eval_crop(grey, size, crop_ratio), transform(grey.convert("RGB")))


# Batches


def test_bad_images_are_counted_once_and_limited() -> None:
    bad = BadImages(limit=2)
    for name in ("a.jpg", "b.jpg", "a.jpg", "b.jpg"):
        bad.add(Unreadable(name, "is empty"))
    assert list(bad.found) == ["a.jpg", "b.jpg"]
    expected = (
        r"3 image files are unreadable, more than the limit of 2: 2 images: is empty \(a.jpg, "
        r"b.jpg\); 1 image: is a pipe \(c.jpg\); repair"
    )
    with pytest.raises(TaskError, match=expected):
        bad.add(Unreadable("c.jpg", "is a pipe"))
    with pytest.raises(TaskError, match=r"limit of 0: 1 image: is empty \(a\.jpg\); repair"):
        BadImages(limit=0).add(Unreadable("a.jpg", "is empty"))


def test_load_batch_replaces_unreadable_samples_by_the_next_readable_ones() -> None:
    names = list("abcdef")

    def load_one(epoch: int, index: int) -> torch.Tensor:
        if names[index] in "bcf":
            raise UnreadableImage(names[index], "is empty")
        return torch.full((3, 2, 2), 10 * epoch + index, dtype=torch.uint8)

    batch = load_batch([(3, 4), (3, 1), (7, 5), (3, 0)], load_one, names)
    assert batch["index"].tolist() == [4, 3, 0, 0]
    assert batch["index"].dtype == torch.int64
    assert batch["images"][:, 0, 0, 0].tolist() == [34, 33, 70, 30]
    assert [each.name for each in batch["skipped"]] == ["b", "c", "f"]


@pytest.mark.parametrize(("count", "attempts"), [(5, 5), (1000, batches.MOST_REPLACEMENTS)])
def test_load_batch_gives_up_when_too_many_in_a_row_are_unreadable(
    count: int, attempts: int
) -> None:
    tried: list[int] = []

    def load_one(epoch: int, index: int) -> torch.Tensor:
        tried.append(index)
        raise UnreadableImage(f"{index}.jpg", "is empty")

    names = [f"{index}.jpg" for index in range(count)]
    expected = rf"{attempts} image files in a row are unreadable, from 3.jpg on; .*jpg is empty"
    with pytest.raises(TaskError, match=expected):
        load_batch([(0, 3)], load_one, names)
    assert tried == [(3 + step) % count for step in range(attempts)]


def test_sample_rng_is_numpys_default_for_seed_epoch_index() -> None:
    for key in ((0, 0, 0), (1, 2, 3), (2**32 - 1, 799, 1_281_166)):
        expected = np.random.default_rng(list(key)).random(5)
        np.testing.assert_array_equal(sample_rng(*key).random(5), expected)


def test_unlabelled_images_are_random_resized_crops_of_their_files(folder: Path) -> None:
    data = UnlabelledImages([folder], image_size=32, min_crop_area=0.2, seed=5)
    keys = [(epoch, index) for epoch in (0, 1) for index in range(8)]
    batch = data.__getitems__(keys)
    flips = 0
    for row, (epoch, index) in enumerate(keys):
        rng = np.random.default_rng([5, epoch, index])
        image = pil_loader(folder / f"{'abcdefgh'[index]}.jpg")
        box = random_resized_crop_box(rng, image.height, image.width, (0.2, 1.0))
        resized = pillow_resize(image, box, 32)
        if rng.random() < 0.5:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            flips += 1
        found = batch["images"][row].permute(1, 2, 0).numpy()
        assert decibels(found, np.asarray(resized)) > 50
    assert 0 < flips < len(keys)
    assert batch["images"].shape == (16, 3, 32, 32)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["index"].tolist() == [index for _, index in keys]
    assert batch["skipped"] == []
    assert data.names([7, 0]) == [f"{folder}/h.jpg", f"{folder}/a.jpg"]


def test_without_augmentation_the_middle_is_what_evaluation_sees(folder: Path) -> None:
    """torchvision's Resize(int(32 / 0.875)) and CenterCrop(32), in every epoch."""
    data = UnlabelledImages([folder], image_size=32, augmentation="none")
    images = data.__getitems__([(0, index) for index in range(8)])["images"]
    assert torch.equal(images, data.__getitems__([(3, index) for index in range(8)])["images"])
    for index, image in enumerate(images):
        expected = eval_crop(folder / f"{'abcdefgh'[index]}.jpg", 32, 0.875)
        # Cut before it is resized, and not after: borders differ, and half a pixel of the place.
        assert decibels(image.numpy(), expected.numpy()) > 20


def test_fixed_crops_are_squares_of_one_size_anywhere(folder: Path) -> None:
    rng, boxes = np.random.default_rng(0), set()
    for _ in range(400):
        top, left, h, w = square_box(40, 48, 0.875, rng)
        assert h == w == 35
        boxes.add((top, left))
    assert {top for top, _ in boxes} == set(range(6))
    assert {left for _, left in boxes} == set(range(14))
    data = UnlabelledImages([folder], image_size=32, augmentation="crop_fixed", seed=3)
    for epoch in range(4):
        rng = np.random.default_rng([3, epoch, 2])
        image = pil_loader(folder / "c.jpg")
        box = square_box(image.height, image.width, 0.875, rng)
        resized = pillow_resize(image, box, 32)
        if rng.random() < 0.5:
            resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found = data.__getitems__([(epoch, 2)])["images"][0].permute(1, 2, 0).numpy()
        assert decibels(found, np.asarray(resized)) > 50


def test_colour_jitter_is_torchvisions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crop of random size, with ColorJitter's steps at the same factors in the same order."""
    plain = UnlabelledImages([folder], image_size=32, seed=5)
    jittered = UnlabelledImages([folder], image_size=32, seed=5, augmentation="crop_random_jitter")
    for epoch in range(3):
        image = plain.__getitems__([(epoch, 1)])["images"][0]
        found = jittered.__getitems__([(epoch, 1)])["images"][0]
        rng = np.random.default_rng([5, epoch, 1])
        picture = pil_loader(folder / "b.jpg")
        random_resized_crop_box(rng, picture.height, picture.width, (0.2, 1.0))
        rng.random()
        drawn = Jitter.draw(rng, 0.4, 0.4, 0)
        assert all(0.6 <= factor <= 1.4 for factor in drawn.factors[:3])
        theirs = ColorJitter(0.4, 0.4, 0.4)
        chosen = (torch.tensor(drawn.order), *drawn.factors[:3], None)
        monkeypatch.setattr(theirs, "get_params", lambda *_, chosen=chosen: chosen)
        expected = np.asarray(theirs(Image.fromarray(image.permute(1, 2, 0).numpy())))
        assert (found.permute(1, 2, 0).numpy() == expected).all()
        assert not torch.equal(image, found)


def test_a_sample_depends_on_nothing_but_seed_epoch_and_index(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = UnlabelledImages([folder], image_size=32, seed=1)
    keys = [(0, index) for index in range(8)]
    images = data.__getitems__(keys)["images"]
    backwards = data.__getitems__(keys[::-1])["images"]
    assert torch.equal(images, backwards.flip(0))
    monkeypatch.setattr(batches, "GROUP_BYTES", 1)
    assert torch.equal(images, data.__getitems__(keys)["images"])
    alone = random_crop(folder / "c.jpg", 32, np.random.default_rng([1, 0, 2]), (0.2, 1.0))
    assert torch.equal(images[2], alone)
    other_epoch = data.__getitems__([(1, index) for index in range(8)])["images"]
    other_seed = UnlabelledImages([folder], image_size=32, seed=2).__getitems__(keys)["images"]
    for other in (other_epoch, other_seed):
        assert not (images == other).flatten(1).all(dim=1).any()


def test_unlabelled_images_replace_an_unreadable_file_and_name_it(folder: Path) -> None:
    data = UnlabelledImages([folder], image_size=32)
    intact = data.__getitems__([(0, 0), (0, 3)])["images"]
    for letter in "bch":
        path = folder / f"{letter}.jpg"
        path.write_bytes(path.read_bytes()[:1000])
    batch = data.__getitems__([(0, 7), (0, 1)])
    assert batch["index"].tolist() == [0, 3]
    assert [each.name for each in batch["skipped"]] == [
        f"{folder}/{letter}.jpg" for letter in "hbc"
    ]
    assert torch.equal(batch["images"], intact)


def test_unlabelled_images_take_several_folders_and_serve_a_data_loader(folder: Path) -> None:
    second = folder / "second"
    second.mkdir()
    picture(50, 50, seed=9).save(second / "z.png")
    data = UnlabelledImages([second, folder], image_size=16)
    assert len(data) == 9  # one in `second`, which is entered once, and eight more below `folder`
    assert data.names([0]) == [f"{second}/z.png"]
    assert len(set(data.names(range(9)))) == 9
    assert f"entered once: {second} (as {second})" in data.passed_over[-1]
    plan = [[(0, 0), (0, 1)], [(0, 2)]]
    loader = DataLoader(data, batch_sampler=plan, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
    assert [batch["index"].tolist() for batch in loader] == [[0, 1], [2]]


def test_unlabelled_images_refuse_bad_arguments(folder: Path) -> None:
    with pytest.raises(TaskError, match=r"min_crop_area is 0; expected a share in \(0, 1\]"):
        UnlabelledImages([folder], 32, min_crop_area=0)
    with pytest.raises(TaskError, match="seed is -1; expected a whole number"):
        UnlabelledImages([folder], 32, seed=-1)
    with pytest.raises(TaskError, match="no image folder is given"):
        UnlabelledImages([], 32)
    with pytest.raises(TaskError, match="nowhere does not exist"):
        UnlabelledImages([folder, folder / "nowhere"], 32)
