"""Colours that go together: picked in OKLCH, where equal steps look equal.

Source of the space and its matrices: Björn Ottosson, "A perceptual color space for image
processing" (2020).
"""

import math

import numpy as np

Colour = np.ndarray
"""(3, 1, 1) float32, sRGB in 0..1, ready to broadcast over (3, H, W)"""


def oklch(lightness: float, chroma: float, hue: float) -> Colour:
    """The sRGB colour of a lightness in 0..1, a chroma in about 0..0.2 and a hue in degrees.

    Channels outside the sRGB gamut are clipped.
    """
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return np.array([_gamma(channel) for channel in linear], np.float32).reshape(3, 1, 1)


def _gamma(channel: float) -> float:
    channel = min(max(channel, 0.0), 1.0)
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055
