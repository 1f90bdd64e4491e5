"""The things of the miniature world: ten shapes as signed distances, four surface patterns.

A shape is a function of object coordinates (u to the right, v upwards; the shape fills about
-1..1) that returns the signed distance to its outline, negative inside. The sign is exact; away
from the outline the value is only as good as anti-aliasing and soft shadows need.
"""

import math
from collections.abc import Callable

import numpy as np

Field = np.ndarray
"""(H, W) float32"""


def _half_plane(u: Field, v: Field, degrees: float, offset: float) -> Field:
    angle = math.radians(degrees)
    return u * math.cos(angle) + v * math.sin(angle) - offset


def _circle(u: Field, v: Field, radius: float) -> Field:
    return np.sqrt(u * u + v * v) - radius


def _box(u: Field, v: Field, half_width: float, half_height: float) -> Field:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def disc(u: Field, v: Field) -> Field:
    return _circle(u, v, 0.92)


def ring(u: Field, v: Field) -> Field:
    return np.abs(_circle(u, v, 0.70)) - 0.25


def square(u: Field, v: Field) -> Field:
    return _box(u, v, 0.80, 0.80)


def triangle(u: Field, v: Field) -> Field:
    """Equilateral, one corner up."""
    sides = np.maximum(_half_plane(u, v, 30, 0.36), _half_plane(u, v, 150, 0.36))
    return np.maximum(sides, -v - 0.68)


def star(u: Field, v: Field) -> Field:
    """Pentagram: the points inside at least four of five half-planes."""
    largest = _half_plane(u, v, -90, 0.34)
    second = np.full_like(largest, -np.inf)
    for degrees in (-18, 54, 126, 198):
        side = _half_plane(u, v, degrees, 0.34)
        second = np.maximum(second, np.minimum(largest, side))
        largest = np.maximum(largest, side)
    return second


def cross(u: Field, v: Field) -> Field:
    return np.minimum(_box(u, v, 0.90, 0.29), _box(u, v, 0.29, 0.90))


def crescent(u: Field, v: Field) -> Field:
    """A disc without a disc to its upper right."""
    return np.maximum(_circle(u, v, 0.95), 0.76 - _circle(u - 0.46, v - 0.22, 0))


def heart(u: Field, v: Field) -> Field:
    """A square on its corner with a half disc on each upper side."""
    radius = 0.60
    lobe = radius * math.sqrt(0.5)
    u, v = np.abs(u), v + 0.09
    diamond = (u + np.abs(v)) * math.sqrt(0.5) - radius
    return np.minimum(diamond, _circle(u - lobe, v - lobe, radius))


def arrow(u: Field, v: Field) -> Field:
    """Points up: a triangular head on a shaft."""
    head = np.maximum(_half_plane(np.abs(u), v, 42, 0.645), -v)
    return np.minimum(head, _box(u, v + 0.42, 0.27, 0.50))


def hourglass(u: Field, v: Field) -> Field:
    waist = (np.abs(u) - 0.10 - 0.72 * np.abs(v)) * 0.81
    return np.maximum(waist, np.abs(v) - 0.90)


def pebble(u: Field, v: Field) -> Field:
    """A flat ellipse; clutter, not a class."""
    return (np.sqrt(u * u + 2.4 * v * v) - 0.92) * 0.75


SHAPES: dict[str, Callable[[Field, Field], Field]] = {
    shape.__name__: shape
    for shape in (
        disc, ring, square, triangle, star, cross, crescent, heart, arrow, hourglass
    )
}  # fmt: skip
"""the thing classes, in order of their class index"""

OUTLINES = {**SHAPES, "pebble": pebble}
"""everything that can be drawn"""


def plain(u: Field, v: Field) -> Field:
    return np.zeros_like(u)


def striped(u: Field, v: Field) -> Field:
    return np.sin(8.5 * (u + 0.35 * v))


def dotted(u: Field, v: Field) -> Field:
    spread = np.cos(7.5 * u) * np.cos(7.5 * v)
    return (np.abs(spread) - 0.45) * 1.8


def checked(u: Field, v: Field) -> Field:
    return np.sin(6.5 * u) * np.sin(6.5 * v)


PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    pattern.__name__: pattern for pattern in (plain, striped, dotted, checked)
}
"""Surface patterns over object coordinates, about -1..1; the outline is no part of them."""
