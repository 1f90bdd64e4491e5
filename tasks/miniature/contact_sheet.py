"""A contact sheet of a miniature world: labelled rows of its pictures, one PNG."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.errors import TaskError
from tasks.miniature import world
from tasks.miniature.coco import CATEGORY_IDS
from tasks.miniature.colour import oklch
from tasks.miniature.corruptions import CORRUPTIONS, SEVERITIES
from tasks.miniature.imagenet import SIDE, wnid
from tasks.miniature.renditions import RENDITIONS

MARGIN, GAP, LABEL_WIDTH, ROW_WIDTH = 28, 4, 84, 812
"""pixels"""
PAPER, INK, FAINT = (250, 249, 246), (40, 44, 52), (128, 132, 140)

Row = tuple[str, list[Image.Image]]
"""label and pictures; those that do not fit are left out"""
Section = tuple[str, str, list[Row]]
"""title, remark, rows"""


def contact_sheet(root: Path | str, file: Path | str) -> Path:
    """Write a PNG with a few pictures of each data set of the world at `root`; return its path.

    Raises TaskError if no complete world lies at `root`.
    """
    root, file = Path(root), Path(file)
    manifest = world.find(root)
    if manifest is None:
        raise TaskError(f"{root} is no complete miniature world; make one there first")
    sets = manifest["sets"]
    sections = []
    if "imagenet1k" in sets:
        sections.append(_imagenet(root / "imagenet1k", sets["imagenet1k"]))
    for name, section in ROBUSTNESS_SECTIONS.items():
        if name in sets:
            sections.append(section(root / name))
    if "unlabelled" in sets:
        images = [_open(path) for path in sorted((root / "unlabelled").iterdir())[:24]]
        remark = "the same scenes without labels, for pre-training"
        sections.append(("Unlabelled", remark, [("", images[:12]), ("", images[12:])]))
    if "coco" in sets:
        sections.append(_coco(root / "coco"))
    if "ade20k" in sets:
        sections.append(_ade20k(root / "ade20k", len(sets["ade20k"]["classes"])))
    species = [(name, _species(root / name, int(name[4:]))) for name in sets if name[:4] == "inat"]
    if species:
        sections.append(("iNaturalist", "a species is a shape with a pattern", species))
    places = [
        (name, _first_of_each_folder(root / name / images))
        for name, images in (("places205", "data"), ("places365", "data_256_standard"))
        if name in sets
    ]
    if places:
        remark = "the class is the place: what lies above what"
        sections.append(("Places", remark, places))

    sheet = _lay_out(sections, f"mae-bench miniature world, seed {manifest['seed']}")
    file.parent.mkdir(parents=True, exist_ok=True)
    # 256 dithered colours: a third of the bytes, and the eye does not miss the others.
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT)
    drawn = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    with atomic(file) as stream:
        drawn.save(stream, "PNG", optimize=True)
    return file


def _open(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def _imagenet(folder: Path, facts: dict[str, Any]) -> Section:
    split = "train" if facts["images"]["train"] else "val"
    rows = [
        (name, [_open(path) for path in sorted((folder / split / wnid(label)).glob("*"))[:12]])
        for label, name in enumerate(facts["classes"])
    ]
    return (
        "ImageNet-1k",
        "the class is the shape; colour, pattern, size and place tell nothing",
        rows,
    )


def _imagenet_a(folder: Path) -> Section:
    """Difficulties take turns within a class, so the first of each class show them all."""
    images = [_open(path) for path in _by_turns(folder.glob("n*"), "*.jpg")]
    remark = "hard to tell: small, cut off, hidden or camouflaged; half of the classes"
    return "ImageNet-A", remark, [("", images[:12]), ("", images[12:24])]


def _imagenet_r(folder: Path) -> Section:
    rows = [
        (style, [_open(path) for path in _by_turns(folder.glob("n*"), f"{style}_*.jpg")[:12]])
        for style in RENDITIONS
    ]
    return "ImageNet-R", "renditions in other styles; half of the classes", rows


def _imagenet_sketch(folder: Path) -> Section:
    paths = _by_turns((folder / "sketch").glob("n*"), "*.JPEG")
    return "ImageNet-Sketch", "black outlines on white", [("", [_open(p) for p in paths[:12]])]


def _imagenet_c(folder: Path) -> Section:
    """Per corruption, two images at each severity, enlarged: the same two in all rows."""
    rows = []
    for name in CORRUPTIONS:
        severities = [
            [_open(path) for path in _by_turns((folder / name / str(level)).glob("n*"), "*")[-2:]]
            for level in SEVERITIES
        ]
        images = [image for each in zip(*severities, strict=True) for image in each]
        enlarged = [image.resize((SIDE, SIDE), Image.Resampling.NEAREST) for image in images]
        rows.append((name.replace("_", "\n"), enlarged))
    return "ImageNet-C", "validation images in 15 corruptions, severities 1 to 5", rows


ROBUSTNESS_SECTIONS: dict[str, Callable[[Path], Section]] = {
    "imagenet_a": _imagenet_a,
    "imagenet_r": _imagenet_r,
    "imagenet_sketch": _imagenet_sketch,
    "imagenet_c": _imagenet_c,
}


def _by_turns(folders: Iterable[Path], pattern: str) -> list[Path]:
    """The files of some folders: the first of each, then the second of each, and so on."""
    files = [sorted(folder.glob(pattern)) for folder in sorted(folders)]
    turns = zip_longest(*files)
    return [path for turn in turns for path in turn if path is not None]


def _coco(folder: Path) -> Section:
    """Images, and below them the same with outlines and boxes; a crowd has its box only."""
    split = "train" if (folder / "train2017").exists() else "val"
    content = json.loads((folder / f"annotations/instances_{split}2017.json").read_text())
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    # The busiest of the first images, so that crowds and occlusion show.
    busiest = sorted(content["images"][:60], key=lambda image: -len(of_image[image["id"]]))[:6]
    plain = [_open(folder / f"{split}2017" / image["file_name"]) for image in busiest]
    drawn = [
        _with_outlines(picture, of_image[image["id"]])
        for picture, image in zip(plain, busiest, strict=True)
    ]
    remark = "polygons, boxes, crowd regions, images of many sizes"
    return "COCO 2017", remark, [("images", plain), ("annotations", drawn)]


def _with_outlines(picture: Image.Image, annotations: list[dict[str, Any]]) -> Image.Image:
    picture = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.35)
    draw = ImageDraw.Draw(picture)
    labels = list(CATEGORY_IDS.values())
    for annotation in annotations:
        colour = _class_colour(labels.index(annotation["category_id"]))
        x, y, width, height = annotation["bbox"]
        draw.rectangle((x, y, x + width, y + height), outline=colour)
        if not annotation["iscrowd"]:
            for ring in annotation["segmentation"]:
                draw.polygon(ring, fill=colour, outline="white")
    return picture


def _ade20k(folder: Path, num_classes: int) -> Section:
    """Images, and below them their labels; unlabelled pixels are black."""
    colours = np.array([(0, 0, 0)] + [_class_colour(label) for label in range(num_classes)])
    root = folder / "ADEChallengeData2016"
    paths = sorted((root / "images").glob("*/*.jpg"))[:12]
    paths.sort(key=lambda path: -len(set(_labels(root, path).ravel())))
    images = [_open(path) for path in paths[:6]]
    labels = [Image.fromarray(colours[_labels(root, path)].astype(np.uint8)) for path in paths[:6]]
    return (
        "ADE20K",
        "a label for every pixel but those of pebbles",
        [("images", images), ("labels", labels)],
    )


def _labels(root: Path, image: Path) -> np.ndarray:
    return np.asarray(Image.open(root / "annotations" / image.parent.name / f"{image.stem}.png"))


def _class_colour(label: int) -> tuple[int, ...]:
    """A colour per class; multiples of the golden ratio spread over the circle of hues."""
    turn = 0.618 * label
    lightness = 0.62 + 0.16 * (turn * 2.3 % 1)
    return tuple(int(255 * channel) for channel in oklch(lightness, 0.13, 360 * turn).ravel())


def _species(folder: Path, year: int) -> list[Image.Image]:
    """One image per category, of twelve categories spread over all."""
    split = "train" if (folder / f"train{year}.json").exists() else "val"
    content = json.loads((folder / f"{split}{year}.json").read_text())
    files = {
        annotation["category_id"]: image["file_name"]
        for annotation, image in zip(content["annotations"], content["images"], strict=True)
    }
    chosen = sorted(files)[:: max(len(files) // 12, 1)]
    return [_open(folder / files[category]) for category in chosen]


def _first_of_each_folder(folder: Path) -> list[Image.Image]:
    first: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*.jpg")):
        first.setdefault(path.parent, path)
    return [_open(path) for path in first.values()]


def _lay_out(sections: list[Section], title: str) -> Image.Image:
    fonts = {size: ImageFont.load_default(size) for size in (13, 14, 20, 26)}
    heights = [
        52 + sum(max((image.height for image in images), default=0) + GAP for _, images in rows)
        for _, _, rows in sections
    ]
    width = 2 * MARGIN + LABEL_WIDTH + ROW_WIDTH
    sheet = Image.new("RGB", (width, 2 * MARGIN + 44 + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, fonts[26])
    y = MARGIN + 44
    for name, remark, rows in sections:
        draw.text((MARGIN, y + 14), name, INK, fonts[20])
        left = MARGIN + draw.textlength(name, fonts[20]) + 12
        draw.text((left, y + 20), remark, FAINT, fonts[14])
        y += 52
        for label, images in rows:
            height = max((image.height for image in images), default=0)
            draw.text((MARGIN, y + height / 2), label, INK, fonts[13], anchor="lm")
            x = MARGIN + LABEL_WIDTH
            for image in images:
                if x + image.width <= width - MARGIN:
                    sheet.paste(image, (x, y))
                    x += image.width + GAP
            y += height + GAP
    return sheet
