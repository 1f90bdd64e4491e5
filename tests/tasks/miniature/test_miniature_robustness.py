"""The twins of ImageNet-A, -R, -Sketch and -C: layouts, hard scenes, renditions."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_worlds import draw

from tasks.images import eval_crop
from tasks.miniature.corruptions import CORRUPTIONS
from tasks.miniature.imagenet import CLASSES, wnid
from tasks.miniature.renditions import RENDITIONS, line_drawing
from tasks.miniature.robustness import CLASSES_A, CLASSES_R, CROP
from tasks.miniature.scene import (
    DIFFICULTIES,
    Scene,
    draw_hard_portrait,
    draw_portrait,
    object_coordinates,
)
from tasks.miniature.shapes import OUTLINES, SHAPES
from tasks.miniature.stuff import pixel_grid
from tasks.miniature.twin import save_jpeg


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"imagenet1k": 12, "imagenet_a": 40, "imagenet_r": 40, "imagenet_sketch": 20}
    sizes |= {"imagenet_c": 12}
    folder = tmp_path_factory.mktemp("robustness") / "w"
    return draw(folder, **{f"{name}_val": size for name, size in sizes.items()})


def distance(scene: Scene) -> np.ndarray:
    """(H, W): distance to the outline of the first thing, pixels, negative inside."""
    thing = scene.things[0]
    y, x = pixel_grid(*scene.stuff.shape)
    return OUTLINES[thing.shape](*object_coordinates(thing, y, x)) * thing.radius


# Layouts


@pytest.mark.parametrize(("name", "classes"), [("a", CLASSES_A), ("r", CLASSES_R)])
def test_subsets(root: Path, name: str, classes: tuple[str, ...]) -> None:
    from torchvision.datasets import ImageFolder

    base = root / f"imagenet_{name}"
    assert len(classes) == len(CLASSES) // 2
    data = ImageFolder(base)
    assert data.classes == [wnid(CLASSES.index(shape)) for shape in classes]
    assert Counter(data.targets) == dict.fromkeys(range(5), 8)
    assert {Path(path).suffix for path, _ in data.imgs} == {".jpg"}
    assert data[0][0].size == (64, 64)
    files = [entry.name for entry in base.iterdir() if entry.is_file()]
    assert files == ["README.txt"]
    assert f"{data.classes[0]} {classes[0]}\n" in (base / "README.txt").read_text()


def test_subsets_differ_and_are_not_the_first_classes() -> None:
    """So that a reader who takes the folder's rank for the class index is found out."""
    assert set(CLASSES_A) != set(CLASSES_R)
    assert CLASSES_A != CLASSES[:5] != CLASSES_R


def test_names_in_imagenet_a_never_tell_the_class(root: Path) -> None:
    for path in (root / "imagenet_a").glob("*/*.jpg"):
        own = CLASSES[int(path.parent.name[1:]) - 1]
        number, others, share = path.stem.split("_", 1)[0], path.stem[9:-4], path.stem[-4:]
        assert number.startswith("0.")
        assert share == "_0.5"
        named = others.split(" _ ")
        assert len(named) == 2
        assert set(named) <= set(CLASSES) - {own}


def test_imagenet_r_has_every_style_of_every_class(root: Path) -> None:
    for folder in (root / "imagenet_r").glob("n*"):
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(f"{style}_{turn}.jpg" for style in RENDITIONS for turn in (0, 1))


def test_imagenet_sketch(root: Path) -> None:
    folders = sorted((root / "imagenet_sketch").iterdir())
    assert [folder.name for folder in folders] == ["sketch"]
    for label in range(10):
        names = [path.name for path in sorted((folders[0] / wnid(label)).iterdir())]
        assert names == ["sketch_0.JPEG", "sketch_1.JPEG"]
    assert len(list(folders[0].iterdir())) == 10


def test_imagenet_c(root: Path) -> None:
    base = root / "imagenet_c"
    assert sorted(path.name for path in base.iterdir()) == sorted(CORRUPTIONS)
    clean = root / "imagenet1k" / "val"
    names = {str(path.relative_to(clean)) for path in clean.glob("*/*")}
    assert len(names) == 12
    for corruption in CORRUPTIONS:
        severities = sorted((base / corruption).iterdir())
        assert [path.name for path in severities] == ["1", "2", "3", "4", "5"]
        for severity in severities:
            assert {str(path.relative_to(severity)) for path in severity.glob("*/*")} == names
    with Image.open(next((base / "fog/5").glob("*/*"))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (CROP, CROP), "RGB")


def test_imagenet_c_shows_the_test_view_of_the_validation_images(
    root: Path, tmp_path: Path
) -> None:
    """0.4 of the contrast to the mean colour is left at severity 1, saved as the clean ones are.

    Where the two roundings to levels differ, JPEG may carry it on.
    """
    clean = root / "imagenet1k" / "val"
    for path in clean.glob("*/*"):
        crop = eval_crop(path, CROP, 224 / 256).permute(1, 2, 0).numpy().astype(float)
        mean = crop.mean(axis=(0, 1))
        expected = np.uint8(mean + 0.4 * (crop - mean) + 0.5)
        save_jpeg(tmp_path / "expected.JPEG", expected)
        file = root / "imagenet_c/contrast/1" / path.relative_to(clean)
        difference = np.asarray(Image.open(file), float) - Image.open(tmp_path / "expected.JPEG")
        assert np.abs(difference).max() <= 4
        assert np.abs(difference).mean() < 0.05


# Hard scenes


def hard(difficulty: str) -> list[Scene]:
    shapes = list(SHAPES)
    return [
        draw_hard_portrait(np.random.default_rng([8, k]), 64, shapes[k % 10], difficulty)
        for k in range(40)
    ]


def test_small_things_fill_a_third_of_the_side_at_most() -> None:
    for scene in hard("small"):
        assert 2 * scene.things[0].radius < 64 / 3
        assert np.array_equal(scene.visible[0] > 0.5, distance(scene) < 0)  # and nothing hides it
        assert len(scene.things) == 5


def test_cut_off_things_lose_a_good_part_but_not_most() -> None:
    lost = []
    for scene in hard("cut_off"):
        thing = scene.things[0]
        y, x = np.arange(-64, 128)[:, None] + 0.5, np.arange(-64, 128)[None] + 0.5
        whole = OUTLINES[thing.shape](*object_coordinates(thing, y, x)) < 0
        lost.append(1 - (scene.visible[0] > 0.5).sum() / whole.sum())
    assert min(lost) > 0.03  # a crescent's opening, a corner of a square
    assert sorted(lost)[2] > 0.1
    assert max(lost) < 0.75
    assert 0.25 < np.mean(lost) < 0.5


def test_hidden_things_are_partly_behind_pebbles() -> None:
    seen = []
    for scene in hard("hidden"):
        whole = distance(scene) < 0
        seen.append((scene.visible[0][whole] > 0.5).mean())
        assert [thing.shape for thing in scene.things[1:]] == ["pebble", "pebble"]
    assert min(seen) > 0.25
    assert max(seen) < 0.97
    assert 0.5 < np.mean(seen) < 0.8


def test_camouflaged_things_stand_out_less_than_others() -> None:
    def contrast(scene: Scene) -> float:
        inside = scene.visible[0] > 0.9
        around = (distance(scene) > 6) & (distance(scene) < 14)
        pixels = scene.image.astype(float)
        return float(np.abs(pixels[inside].mean(axis=0) - pixels[around].mean(axis=0)).sum())

    shapes = list(SHAPES)
    plain = [draw_portrait(np.random.default_rng([8, k]), 64, shapes[k % 10]) for k in range(40)]
    camouflaged = np.mean([contrast(scene) for scene in hard("camouflaged")])
    assert 30 < camouflaged < 0.5 * np.mean([contrast(scene) for scene in plain])


def test_every_difficulty_is_tested() -> None:
    assert set(DIFFICULTIES) == {"small", "cut_off", "hidden", "camouflaged"}


# Renditions


def portraits() -> list[Scene]:
    shapes = list(SHAPES)
    return [draw_portrait(np.random.default_rng([9, k]), 64, shapes[k % 10]) for k in range(30)]


@pytest.mark.parametrize("style", [*RENDITIONS.values(), line_drawing])
def test_renditions_keep_the_outline(style) -> None:
    """Colours change more across the outline than anywhere else."""
    near, far = [], []
    for k, scene in enumerate(portraits()):
        image = style(np.random.default_rng(k), scene)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)
        rows, columns = np.gradient(image.astype(float), axis=(0, 1))
        change = np.sqrt((rows**2 + columns**2).sum(axis=2))
        outline = np.abs(distance(scene)) < 3
        near.append(change[outline].mean())
        far.append(change[~outline].mean())
    assert np.mean(near) > 2 * np.mean(far)


def test_line_drawings_are_black_lines_on_white() -> None:
    for k, scene in enumerate(portraits()):
        image = line_drawing(np.random.default_rng(k), scene)
        assert np.array_equal(image.min(axis=2), image.max(axis=2))  # no colour
        ink = image[:, :, 0] < 128
        assert image[np.abs(distance(scene)) > 6].min() == 255  # no place, nothing inside
        assert 0.02 < ink.mean() < 0.25
        assert image.min() < 30


def test_cartoons_are_flat_and_outlined() -> None:
    for k, scene in enumerate(portraits()):
        image = RENDITIONS["cartoon"](np.random.default_rng(k), scene)
        outside = image[distance(scene) > 4]
        assert len(np.unique(outside, axis=0)) == len(np.unique(scene.stuff[distance(scene) > 4]))
        assert image[np.abs(distance(scene)) < 0.5].max(axis=1).mean() < 60


def test_renditions_do_not_depend_on_the_colour_of_the_scene_where_they_drop_it() -> None:
    for name in ("sketch", "embroidery"):
        images = []
        for place in ("beach", "loft"):
            scene = draw_portrait(np.random.default_rng(3), 64, "star", place=place)
            things = draw_portrait(np.random.default_rng(3), 64, "star", place="beach").things
            stand_in = Scene(scene.image, place, scene.stuff, things, scene.visible)
            images.append(RENDITIONS[name](np.random.default_rng(4), stand_in))
        assert np.array_equal(*images)
