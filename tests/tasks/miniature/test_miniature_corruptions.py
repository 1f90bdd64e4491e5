"""The corruptions of ImageNet-C's twin, against hand-computed cases and other libraries."""

import colorsys
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tasks.miniature.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tasks.miniature.robustness import input_crop
from tasks.miniature.scene import draw_portrait
from tasks.miniature.shapes import SHAPES

GREY = np.full((64, 64, 3), 0.5, np.float32)


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """(40, 32, 32, 3) uint8"""
    shapes = list(SHAPES)
    scenes = [draw_portrait(rng(11, k), 64, shapes[k % 10]) for k in range(40)]
    return np.stack([input_crop(scene.image) for scene in scenes])


def noise_image() -> np.ndarray:
    """(32, 32, 3) float32 in 0..1, smooth enough to survive a resize."""
    blurred = ndimage.gaussian_filter(rng(12).random((32, 32, 3)), (1.5, 1.5, 0))
    return ((blurred - blurred.min()) / np.ptp(blurred)).astype(np.float32)


def test_the_fifteen_of_the_paper() -> None:
    """hendrycks/robustness, ImageNet-C/create_c/make_imagenet_c.py, without the four extras."""
    assert list(CORRUPTIONS) == [
        "gaussian_noise", "shot_noise", "impulse_noise",
        "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
        "snow", "frost", "fog", "brightness",
        "contrast", "elastic_transform", "pixelate", "jpeg_compression",
    ]  # fmt: skip
    assert all(len(strengths) == len(SEVERITIES) == 5 for _, strengths in CORRUPTIONS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_moves_away_from_the_clean_image(name: str, crops: np.ndarray) -> None:
    """Root mean square distance, levels, mean over images; each step adds 3 % and more."""
    means = []
    for severity in SEVERITIES:
        changed = np.stack([corrupt(crop, name, severity, rng(k)) for k, crop in enumerate(crops)])
        assert (changed.shape, changed.dtype) == (crops.shape, np.uint8)
        squares = (changed.astype(float) - crops) ** 2
        means.append(np.sqrt(squares.mean(axis=(1, 2, 3))).mean())
    assert means[0] > 3
    assert means[4] > 1.4 * means[0]
    assert all(after > 1.03 * before for before, after in pairwise(means))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_randomness_is_the_generators(name: str, crops: np.ndarray) -> None:
    same = [corrupt(crops[0], name, 3, rng(5)) for _ in range(2)]
    assert np.array_equal(*same)
    is_random = name not in {
        "defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"
    }  # fmt: skip
    assert np.array_equal(same[0], corrupt(crops[0], name, 3, rng(6))) != is_random


def test_noise_has_the_stated_strength() -> None:
    """Of 12,288 values: standard errors are 0.6 % of a deviation and 0.4 points of a share."""
    gaussian = CORRUPTIONS["gaussian_noise"][0](GREY, 0.12, rng(1)) - 0.5
    assert gaussian.std() == pytest.approx(0.12, rel=0.03)
    assert abs(gaussian.mean()) < 0.005
    shot = CORRUPTIONS["shot_noise"][0](GREY, 12, rng(2))
    assert shot.mean() == pytest.approx(0.5, abs=0.01)
    assert shot.var() == pytest.approx(0.5 / 12, rel=0.06)
    impulse = CORRUPTIONS["impulse_noise"][0](GREY, 0.17, rng(3))
    assert set(np.unique(impulse)) == {0, np.float32(0.5), 1}
    assert (impulse == 0).mean() == pytest.approx(0.085, abs=0.012)
    assert (impulse == 1).mean() == pytest.approx(0.085, abs=0.012)


@pytest.mark.parametrize(
    "name",
    ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate"],
)
def test_what_moves_pixels_leaves_an_even_image_alone(name: str) -> None:
    corruption, strengths = CORRUPTIONS[name]
    even = np.broadcast_to(np.float32((0.2, 0.4, 0.8)), (32, 32, 3)).copy()
    for strength in strengths:
        np.testing.assert_allclose(corruption(even, strength, rng(0)), even, atol=1e-5)


def test_defocus_is_a_mean_over_a_disc() -> None:
    image = noise_image()
    offsets = np.hypot(*np.mgrid[-2:3, -2:3])
    disc = np.clip(2.2 - offsets, 0, 1)  # radius 1.7, with soft pixels at its edge
    expected = ndimage.convolve(image, (disc / disc.sum())[:, :, None], mode="mirror")
    blurred = CORRUPTIONS["defocus_blur"][0](image, 1.7, rng(0))
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("length", [5, 9])
def test_motion_spreads_a_point_along_a_line(length: float) -> None:
    point = np.zeros((33, 33, 3), np.float32)
    point[16, 16] = 1
    for k in range(10):
        streak = CORRUPTIONS["motion_blur"][0](point, length, rng(k))[:, :, 0]
        assert streak.sum() == pytest.approx(1, abs=1e-5)
        y, x = np.mgrid[-16:17, -16:17]
        covariance = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=streak.ravel(), ddof=0)
        along, across = np.linalg.eigvalsh(covariance)[::-1]
        # A line of length L has variance L^2 / 12; pixels and soft ends add to it.
        assert along == pytest.approx(length**2 / 12, rel=0.35)
        assert across < 0.3
        assert covariance[0, 0] >= covariance[1, 1] - 0.2  # 45 degrees from the x axis at most


def test_zoom_scales_about_the_middle() -> None:
    """A ramp that is 0 in the middle shrinks to its mean over 1 / magnification."""
    ramp = np.broadcast_to((np.arange(32, dtype=np.float32) - 15.5)[:, None, None], (32, 32, 3))
    zoomed = CORRUPTIONS["zoom_blur"][0](ramp.copy(), 1.4, rng(0))
    expected = ramp * np.mean(1 / np.linspace(1, 1.4, 8))
    # OpenCV interpolates in steps of 1/32 pixel.
    np.testing.assert_allclose(zoomed, expected, atol=1 / 32)


def test_glass_and_elastic_move_pixels_no_farther_than_stated() -> None:
    """A ramp of slope 1 turns the way of a pixel into a change of its value."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (64, 64, 3)).copy()
    inner = (slice(6, -6), slice(6, -6))
    for name in ("glass_blur", "elastic_transform"):
        moved = CORRUPTIONS[name][0](ramp, 2.0, rng(1)) - ramp
        assert 1.0 < np.abs(moved[inner]).max() <= 2 + 1 / 32
        assert abs(moved[inner].mean()) < 0.2


def test_brightness_agrees_with_colorsys() -> None:
    image = rng(13).random((6, 6, 3), dtype=np.float32)
    brighter = CORRUPTIONS["brightness"][0](image, 0.3, rng(0))
    for before, after in zip(image.reshape(-1, 3), brighter.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*map(float, before))
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))
        np.testing.assert_allclose(after, expected, atol=1e-4)


def test_contrast_of_two_colours() -> None:
    image = np.zeros((2, 2, 3), np.float32)
    image[0] = (1, 0.5, 0)
    changed = CORRUPTIONS["contrast"][0](image, 0.4, rng(0))
    np.testing.assert_allclose(changed[0, 0], (0.7, 0.35, 0), atol=1e-6)
    np.testing.assert_allclose(changed[1, 1], (0.3, 0.15, 0), atol=1e-6)


def test_pixelate_takes_means_of_blocks() -> None:
    image = noise_image()
    blocks = image.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    changed = CORRUPTIONS["pixelate"][0](image, 0.5, rng(0))
    np.testing.assert_allclose(changed[::2, 1::2], blocks, atol=1.5 / 255)
    assert np.array_equal(changed[::2], changed[1::2])
    assert np.array_equal(changed[:, ::2], changed[:, 1::2])


def test_jpeg_is_pillows(crops: np.ndarray) -> None:
    buffer = BytesIO()
    Image.fromarray(crops[3]).save(buffer, "JPEG", quality=20)
    assert CORRUPTIONS["jpeg_compression"][1][2] == 20
    expected = np.asarray(Image.open(buffer))
    assert np.array_equal(corrupt(crops[3], "jpeg_compression", 3, rng(0)), expected)


def test_weather_lies_over_the_image(crops: np.ndarray) -> None:
    """Snow brightens; fog and frost take contrast away, frost from the edges first."""
    for k, crop in enumerate(crops):
        assert corrupt(crop, "snow", 3, rng(k)).mean() > crop.mean()
        # Along one row and channel, as the tint of the veil is even.
        assert corrupt(crop, "fog", 3, rng(k)).std(axis=1).mean() < crop.std(axis=1).mean()
    ramp = np.tile(np.uint8([0, 64]), (32, 16))[:, :, None].repeat(3, axis=2)
    middle, edge = [], []
    for k in range(40):
        frosted = corrupt(ramp, "frost", 1, rng(k)).astype(int)
        left = (frosted[:, 1::2] - frosted[:, ::2]).mean(axis=2)  # (32, 16), 64 without ice
        middle.append(left[12:20, 6:10].mean())
        edge.append(left[[0, -1]].mean())
    assert np.mean(edge) < np.mean(middle) - 4 < 60
