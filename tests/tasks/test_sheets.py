"""Colours and lines of pictures."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tasks.pictures import TOLD_APART, captioned, class_colour, contours

MACHADO = {
    "none": np.eye(3),
    "protanopia": [
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ],
    "deuteranopia": [
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ],
    "tritanopia": [
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ],
}
"""linear RGB as it is seen; Machado, Oliveira and Fernandes, 2009, severity 1"""


def oklab(linear):
    """Ottosson's OKLab of linear RGB (N, 3)."""
    to_lms = [
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    ]
    to_lab = [
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ]
    return np.cbrt(np.clip(linear, 0, 1) @ np.transpose(to_lms)) @ np.transpose(to_lab)


@pytest.mark.parametrize("sight", MACHADO)
def test_the_first_classes_differ_for_the_colour_blind(sight):
    srgb = np.array(TOLD_APART) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = oklab(linear @ np.transpose(MACHADO[sight]))
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 0.1


def test_each_of_many_classes_has_a_colour_of_its_own():
    assert len({class_colour(label) for label in range(200)}) > 190
    assert class_colour(0) == TOLD_APART[0]


def test_contours_lie_between_regions():
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    assert contours(regions).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_a_long_caption_is_cut():
    plain = Image.new("RGB", (40, 10), "red")
    picture = captioned(plain, "a caption that is far too long for forty pixels")
    assert picture.width == 40
    assert picture.crop((0, 0, 40, 10)).tobytes() == plain.tobytes()
    below = np.asarray(picture.crop((0, 10, 40, picture.height)))
    assert below.min() < 100
