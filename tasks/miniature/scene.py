"""Draw one scene: a place, things with soft shadows on it, and the ground truth of every pixel.

Everything derives from the random generator that is passed in. A thing's class is its shape;
colour, pattern, size, turn and place are drawn independently of it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from tasks.miniature.colour import oklch
from tasks.miniature.shapes import OUTLINES, PATTERNS, SHAPES
from tasks.miniature.stuff import PLACES, Canvas, Rng, draw_place, pixel_grid, unit

MAX_TURN = 0.6
"""largest rotation of a thing, radians either way"""

RADII = (0.09, 0.24)
"""of the things in a landscape, as shares of the shorter side"""

DIFFICULTIES = ("small", "cut_off", "hidden", "camouflaged")
"""what makes the thing of a hard portrait hard to tell"""


@dataclass(frozen=True)
class Thing:
    """One thing as drawn; lengths in pixels."""

    shape: str
    pattern: str
    centre: tuple[float, float]
    """(y, x)"""
    radius: float
    turn: float
    """radians, counter-clockwise"""
    hue: float
    """degrees, and lightness and chroma likewise in OKLCH"""
    lightness: float
    chroma: float = 0.15
    in_crowd: bool = False
    """one of a dense group that is annotated as a whole"""


@dataclass(frozen=True)
class Scene:
    """An image and its ground truth."""

    image: np.ndarray
    """(H, W, 3) uint8, sRGB"""
    place: str
    stuff: np.ndarray
    """(H, W) uint8, index into STUFF of what lies behind the things"""
    things: list[Thing]
    """from back to front"""
    visible: list[np.ndarray]
    """one (H, W) float32 in 0..1 per thing: the part of each pixel where it is seen"""


def object_coordinates(
    thing: Thing, y: np.ndarray, x: np.ndarray, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(u, v), each (H, W), of pixel centres y (H, 1) and x (1, W), as `shapes` has them.

    `shift` moves the thing down and to the right, pixels.
    """
    y, x = y - (thing.centre[0] + shift), x - (thing.centre[1] + shift)
    cosine, sine = math.cos(thing.turn) / thing.radius, math.sin(thing.turn) / thing.radius
    return x * cosine - y * sine, -(x * sine) - y * cosine


def paint_thing(canvas: Canvas, thing: Thing) -> np.ndarray:
    """Paint the thing and its shadow onto the canvas in place; return its coverage (H, W)."""
    height, width = canvas.shape[1:]
    reach = 1.5 * thing.radius + 1  # the farthest corner of a shape, and the shadow
    rows, columns = (
        slice(max(int(centre - reach), 0), max(int(centre + reach) + 1, 0))
        for centre in thing.centre
    )
    grid_y, grid_x = pixel_grid(height, width)
    y, x = grid_y[rows], grid_x[:, columns]
    window = canvas[:, rows, columns]
    outline = OUTLINES[thing.shape]

    drop = 0.10 * thing.radius
    shadow = outline(*object_coordinates(thing, y, x, shift=drop)) * (thing.radius / (2.5 * drop))
    window *= 1 - 0.30 * unit(0.5 - shadow)

    u, v = object_coordinates(thing, y, x)
    distance = outline(u, v)
    inside = unit(0.5 - distance * thing.radius)
    # Light falls from the upper left of the image, however the thing is turned.
    cosine, sine = 0.36 * math.cos(thing.turn), 0.36 * math.sin(thing.turn)
    tone = v * (cosine - sine) - u * (cosine + sine) + 0.16 * unit(distance * (-1 / 0.22)) + 0.40
    if thing.pattern != "plain":
        tone += unit(PATTERNS[thing.pattern](u, v) * 0.8 + 0.5) * 0.84 - 0.42
    dark = oklch(thing.lightness - 0.10, thing.chroma, thing.hue - 6)
    light = oklch(thing.lightness + 0.08, thing.chroma, thing.hue + 6)
    window += inside * (dark + (light - dark) * unit(tone) - window)

    coverage = np.zeros((height, width), np.float32)
    coverage[rows, columns] = inside
    return coverage


def compose(place: str, canvas: Canvas, stuff: np.ndarray, things: list[Thing]) -> Scene:
    """Paint the things, in order, onto the canvas of a place."""
    visible: list[np.ndarray] = []
    for thing in things:
        coverage = paint_thing(canvas, thing)
        for behind in visible:
            behind *= 1 - coverage
        visible.append(coverage)
    pixels = (unit(canvas) * 255 + 0.5).astype(np.uint8)
    return Scene(np.ascontiguousarray(pixels.transpose(1, 2, 0)), place, stuff, things, visible)


def choose_colour(rng: Rng, behind: Canvas, *, hide: bool = False) -> tuple[float, float]:
    """Hue and lightness for a thing: of three drawn, those that stand out most from `behind`.

    With `hide`, those that stand out least.
    """
    backdrop = behind.mean(axis=(1, 2)).reshape(3, 1, 1)
    drawn = []
    for _ in range(3):
        hue = rng.uniform(0, 360)
        # Yellow is only yellow when light, blue only blue when dark.
        drawn.append((hue, rng.uniform(0.52, 0.76) + 0.09 * math.cos(math.radians(hue - 100))))
    choose = min if hide else max
    return choose(drawn, key=lambda c: float(np.abs(oklch(c[1], 0.15, c[0]) - backdrop).sum()))


def draw_portrait(
    rng: Rng, side: int, shape: str, *, pattern: str | None = None, place: str | None = None
) -> Scene:
    """A square scene with one thing that fills 45 to 85 % of its side, for classification.

    Without a pattern, two things in three are plain; without a place, any of them.
    """
    place = place or str(rng.choice(list(PLACES)))
    pattern = pattern or _choose_pattern(rng)
    canvas, stuff = draw_place(rng, side, side, place)
    radius = side * rng.uniform(0.45, 0.85) / 2
    room = max(side / 2 - radius, 0.04 * side)
    centre = (side / 2 + rng.uniform(-room, room), side / 2 + rng.uniform(-room, room))
    return compose(
        place, canvas, stuff, [_place_thing(rng, canvas, shape, pattern, centre, radius)]
    )


def draw_hard_portrait(rng: Rng, side: int, shape: str, difficulty: str) -> Scene:
    """A square scene with one thing that is hard to tell, the first, and perhaps some pebbles.

    By difficulty: a thing of a fifth to a third of the side, among pebbles; one that an edge of
    the image cuts off; one partly behind pebbles; a pale one in the colours of what is behind it.
    """
    place = str(rng.choice(list(PLACES)))
    canvas, stuff = draw_place(rng, side, side, place)
    radius = side * rng.uniform(0.55, 0.85) / 2
    y, x = (float(side * share) for share in rng.uniform(0.4, 0.6, size=2))
    if difficulty == "small":
        radius *= 0.38
    elif difficulty == "cut_off":
        edge = radius * rng.uniform(0.0, 0.3)
        y, x = [(edge, x), (y, edge), (side - edge, x), (y, side - edge)][rng.integers(4)]
    hide = difficulty == "camouflaged"
    thing = _place_thing(rng, canvas, shape, _choose_pattern(rng), (y, x), radius, hide=hide)
    if hide:
        thing = replace(thing, chroma=0.09)
    things = [thing]
    if difficulty in ("small", "hidden"):
        number, distance, size = (4, 2.3, 0.8) if difficulty == "small" else (2, 0.65, 0.55)
        first = rng.uniform(0, 2 * math.pi)
        for k in range(number):
            angle = first + (k + rng.uniform(-0.25, 0.25)) * (2 * math.pi / number)
            reach = distance * radius * rng.uniform(0.8, 1.2)
            centre = (y + reach * math.sin(angle), x + reach * math.cos(angle))
            pebble_radius = size * radius * rng.uniform(0.75, 1.25)
            things.append(_place_pebble(rng, canvas, centre, pebble_radius))
    return compose(place, canvas, stuff, things)


def draw_landscape(
    rng: Rng,
    height: int,
    width: int,
    *,
    place: str | None = None,
    max_things: int,
    min_things: int = 0,
    radii: tuple[float, float] = RADII,
    crowd: bool = False,
) -> Scene:
    """A scene of any size with some things, some pebbles and perhaps a crowd.

    `radii` are the least and the largest of a thing, as shares of the shorter side. Things may hide
    parts of each other; those lower in the image are nearer. Pebbles belong to no class. A crowd is
    a dense group of little things of one shape.
    """
    place = place or str(rng.choice(list(PLACES)))
    canvas, stuff = draw_place(rng, height, width, place)
    side = min(height, width)
    things: list[Thing] = []
    if crowd:
        things += _draw_crowd(rng, canvas, radius=0.045 * side)
    smallest, largest = map(math.log, radii)
    for _ in range(rng.integers(min_things, max_things + 1)):
        radius = side * math.exp(rng.uniform(smallest, largest))
        centre = _free_spot(rng, height, width, radius, things)
        if centre is not None:
            shape = str(rng.choice(list(SHAPES)))
            things.append(_place_thing(rng, canvas, shape, _choose_pattern(rng), centre, radius))
    for _ in range(rng.integers(0, 3)):
        centre = (rng.uniform(0.5, 0.95) * height, rng.uniform(0.05, 0.95) * width)
        things.append(_place_pebble(rng, canvas, centre, rng.uniform(0.03, 0.07) * side))
    things.sort(key=lambda thing: thing.centre[0] + thing.radius)
    return compose(place, canvas, stuff, things)


def _choose_pattern(rng: Rng) -> str:
    return "plain" if rng.random() < 2 / 3 else str(rng.choice(list(PATTERNS)[1:]))


def _place_thing(
    rng: Rng,
    canvas: Canvas,
    shape: str,
    pattern: str,
    centre: tuple[float, float],
    radius: float,
    *,
    hide: bool = False,
) -> Thing:
    """A thing turned at random, in a colour that stands out from what is behind it, or hides."""
    top, left = (max(int(middle - radius), 0) for middle in centre)
    behind = canvas[:, top : int(centre[0] + radius) + 1, left : int(centre[1] + radius) + 1]
    hue, lightness = choose_colour(rng, behind, hide=hide)
    turn = rng.uniform(-MAX_TURN, MAX_TURN)
    return Thing(shape, pattern, centre, radius, turn, hue, lightness)


def _place_pebble(rng: Rng, canvas: Canvas, centre: tuple[float, float], radius: float) -> Thing:
    """A grey pebble that lies rather flat."""
    pebble = _place_thing(rng, canvas, "pebble", "plain", centre, radius)
    return replace(pebble, turn=0.2 * pebble.turn, chroma=0.02)


def _free_spot(
    rng: Rng, height: int, width: int, radius: float, things: list[Thing]
) -> tuple[float, float] | None:
    """A centre at which a thing hides others, or is hidden, in part at most; None if crammed."""
    for _ in range(8):
        centre = (rng.uniform(0.1, 0.9) * height, rng.uniform(0.1, 0.9) * width)
        if all(math.dist(centre, t.centre) > 0.6 * (radius + t.radius) for t in things):
            return centre
    return None


def _draw_crowd(rng: Rng, canvas: Canvas, radius: float) -> list[Thing]:
    """Three uneven rows of little things of one shape and nearly one colour."""
    height, width = canvas.shape[1:]
    top, left = rng.uniform(0.15, 0.6) * height, rng.uniform(0.1, 0.4) * width
    shape = str(rng.choice(list(SHAPES)))
    first = _place_thing(rng, canvas, shape, "plain", (top, left), radius)
    things = []
    for row in range(3):
        for column in range(rng.integers(3, 6)):
            y = top + (1.7 * row + rng.uniform(-0.3, 0.3)) * radius
            x = left + (1.9 * column + 0.9 * (row % 2) + rng.uniform(-0.3, 0.3)) * radius
            turn, hue = rng.uniform(-MAX_TURN, MAX_TURN), first.hue + rng.uniform(-15, 15)
            things.append(replace(first, centre=(y, x), turn=turn, hue=hue, in_crowd=True))
    return things
