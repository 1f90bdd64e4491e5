"""The drawn scenes: what is in the image is what the ground truth says."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from tasks.miniature.colour import oklch
from tasks.miniature.scene import compose, draw_landscape, draw_portrait, object_coordinates
from tasks.miniature.shapes import OUTLINES, PATTERNS, SHAPES
from tasks.miniature.stuff import PLACES, STUFF, draw_place, pixel_grid, smooth_noise


def rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


@pytest.mark.parametrize(
    ("lightness", "chroma", "hue", "name"),
    # Known OKLCH coordinates of CSS colours (CSS Color Module Level 4 sample values).
    [
        (0.62796, 0.25768, 29.234, "red"),
        (0.51975, 0.17686, 142.495, "green"),
        (0.45201, 0.31321, 264.052, "blue"),
        (1.0, 0.0, 0.0, "white"),
    ],
)
def test_oklch_agrees_with_css(lightness: float, chroma: float, hue: float, name: str) -> None:
    expected = np.array(ImageColor.getrgb(name)) / 255
    np.testing.assert_allclose(oklch(lightness, chroma, hue).ravel(), expected, atol=2e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_frame(shape: str) -> None:
    v, u = (axis.astype(np.float32) for axis in np.mgrid[1.5:-1.5:301j, -1.5:1.5:301j])
    inside = OUTLINES[shape](u, v) < 0
    for axis in (u, v):
        assert 1.3 < np.ptp(axis[inside]) < 2.25  # about -1..1, whatever the shape
    assert abs(u[inside].min() + u[inside].max()) < 0.4  # roughly centred
    assert abs(v[inside].min() + v[inside].max()) < 0.4


def test_areas_of_simple_shapes() -> None:
    v, u = (axis.astype(np.float32) for axis in np.mgrid[0.999:-0.999:1000j, -0.999:0.999:1000j])
    share = {name: float((OUTLINES[name](u, v) < 0).mean()) for name in SHAPES}
    assert share["disc"] == pytest.approx(np.pi * 0.92**2 / 4, abs=2e-3)
    assert share["ring"] == pytest.approx(np.pi * (0.95**2 - 0.45**2) / 4, abs=2e-3)
    assert share["square"] == pytest.approx(0.64, abs=3e-3)
    assert share["cross"] == pytest.approx((2 * 0.9 * 0.29 * 2 - 0.58**2 / 2) / 2, abs=3e-3)


def test_smooth_noise_is_smooth_and_bounded() -> None:
    noise = smooth_noise(rng(0), 64, 48, 4, 3)
    assert noise.shape == (64, 48)
    assert noise.dtype == np.float32
    assert np.abs(noise).max() <= 1
    # Between two knots, 16 pixels apart, it changes by 2 at most, at 1.5 times the mean slope.
    assert np.abs(np.diff(noise, axis=0)).max() < 2 * 1.5 / 16 + 1e-3
    assert noise.std() > 0.1


@pytest.mark.parametrize("place", PLACES)
def test_places_have_their_stuff_from_top_to_bottom(place: str) -> None:
    names = list(STUFF)
    for seed in range(5):
        canvas, labels = draw_place(rng(seed), 60, 80, place)
        assert canvas.shape == (3, 60, 80)
        assert np.isfinite(canvas).all()
        assert -0.05 < canvas.min() < canvas.max() < 1.15
        for column in labels.T:
            changes = column[np.flatnonzero(np.diff(column, prepend=255))]
            assert [names[label] for label in changes] == list(PLACES[place])


def test_portrait_is_a_function_of_its_seed() -> None:
    first, again, other = (draw_portrait(rng(1, k), 64, "star") for k in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8


def test_portrait_fills_the_frame_as_promised() -> None:
    for k in range(40):
        scene = draw_portrait(rng(2, k), 64, list(SHAPES)[k % 10])
        (thing,), (visible,) = scene.things, scene.visible
        assert 0.45 <= 2 * thing.radius / 64 <= 0.85
        assert abs(thing.turn) <= 0.6
        assert visible.sum() > 0.05 * 64 * 64


def test_only_the_thing_and_its_shadow_differ_from_the_empty_place() -> None:
    for k in range(20):
        place = list(PLACES)[k % len(PLACES)]
        scene = draw_portrait(rng(3, k), 64, list(SHAPES)[k % 10], place=place, pattern="dotted")
        canvas, stuff = draw_place(rng(3, k), 64, 64, place)
        empty = compose(place, canvas, stuff, [])
        (thing,), (visible,) = scene.things, scene.visible
        differs = np.abs(scene.image.astype(int) - empty.image).max(axis=2) > 3
        seen = visible > 0.99
        assert differs[seen].mean() > 0.9
        y, x = pixel_grid(64, 64)
        far = OUTLINES[thing.shape](*object_coordinates(thing, y, x)) > 0.45
        assert not differs[far].any()
        assert np.array_equal(scene.stuff, stuff)


def test_thing_turns_counter_clockwise() -> None:
    """The tip of an arrow that is turned by +0.6 rad lies to the left of its shaft."""
    scene = draw_portrait(rng(4), 64, "arrow")
    thing = replace(scene.things[0], turn=0.6, centre=(32.0, 32.0), radius=24.0)
    visible = compose("meadow", *draw_place(rng(0), 64, 64, "meadow"), [thing]).visible[0]
    top = np.flatnonzero(visible.max(axis=1) > 0.5)[0]
    tip_x = float(np.argmax(visible[top + 1]))
    # The tip (0, 0.868) turns to (-0.868 sin 0.6, 0.868 cos 0.6), in units of the radius.
    assert tip_x == pytest.approx(32 - 24 * 0.868 * np.sin(0.6), abs=3)


def test_visible_parts_never_overlap() -> None:
    hidden = 0
    for k in range(30):
        scene = draw_landscape(rng(5, k), 96, 128, max_things=7, crowd=k % 3 == 0)
        assert scene.image.shape == (96, 128, 3)
        assert len(scene.things) == len(scene.visible)
        if not scene.things:
            continue
        total = np.sum(scene.visible, axis=0)
        assert total.min() >= 0
        assert total.max() <= 1 + 1e-5
        y, x = pixel_grid(96, 128)
        for thing, visible in zip(scene.things, scene.visible, strict=True):
            whole = OUTLINES[thing.shape](*object_coordinates(thing, y, x)) < 0
            assert not (visible[~whole] > 0.51).any()
            hidden += (visible[whole] < 0.4).any()
    assert hidden > 10  # occlusion does occur


def test_colour_alone_does_not_tell_the_class() -> None:
    """Hue, lightness, pattern, size and place are spread alike over all shapes."""
    facts = {shape: [] for shape in SHAPES}
    for k in range(1000):
        scene = draw_portrait(rng(6, k), 32, list(SHAPES)[k % 10])
        thing = scene.things[0]
        facts[list(SHAPES)[k % 10]].append(
            (
                np.cos(np.deg2rad(thing.hue)),
                np.sin(np.deg2rad(thing.hue)),
                thing.lightness,
                thing.radius,
                thing.pattern == "plain",
                scene.place in ("barn", "courtyard", "loft"),
            )
        )
    values = np.array([facts[shape] for shape in SHAPES], float)  # (10, 100, facts)
    # Standard errors of the class means; the largest of 60 stays below 4 by a wide margin.
    errors = (values.mean(axis=1) - values.mean(axis=(0, 1))) / (values.std(axis=(0, 1)) / 10)
    assert np.abs(errors).max() < 4
    assert set(PATTERNS) == {"plain", "striped", "dotted", "checked"}
