"""Classified images with what was answered, and a matrix of confusions, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.classification.labelled import Split
from tasks.images import UnreadableImage, decode
from tasks.pictures import FONT, MARGIN, captioned, fitted, spread, text_colour

NUM_RIGHT, NUM_WRONG = 6, 12
COLUMNS = 3
SIDE = 128
"""longer side of a drawn image, pixels"""
ANSWERS = 206
"""width of the answers beside it, pixels"""
LINE = 21
"""height of an answer, pixels"""
TRUE, OTHER, DARK = (86, 180, 233), (230, 159, 0), (0, 60, 120)
"""of the true class, of others, and of a cell with all of a row"""
MOST_SHOWN = 30
"""classes of the matrix"""
MATRIX, LEAST_CELL, MOST_CELL = 640, 16, 40
"""sides of the matrix and of its cells, pixels"""
LABEL = 150
"""length of a class's name beside the matrix, pixels"""


def classified_sheet(
    index: np.ndarray,
    targets: np.ndarray,
    best: np.ndarray,
    probabilities: np.ndarray,
    split: Split,
    classes: Sequence[str],
    file: Path,
) -> None:
    """Write a PNG: images that are classified right, others that are not, and confusions.

    `index` (N,) are places in the test set `split`, `targets` (N,) and `best` (N, R) class indices,
    best first, with their `probabilities` (N, R).
    """
    right = best[:, 0] == targets
    parts: list[Image.Image] = []
    for words, rows, most in (("right", right, NUM_RIGHT), ("wrong", ~right, NUM_WRONG)):
        chosen = np.flatnonzero(rows)
        count = f"{len(chosen):,} of {len(rows):,} images"
        parts.append(heading(f"{words}: {count} (blue: the true class)"))
        tiles = []
        for row in chosen[spread(len(chosen), most)] if len(chosen) else ():
            try:
                pixels = decode(split.path(int(index[row])), split.upright)
            except UnreadableImage:  # since it was scored
                continue
            tiles.append(tile(pixels, int(targets[row]), best[row], probabilities[row], classes))
        parts += [beside(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    parts += confusions(targets, best[:, 0], classes)
    with atomic(file) as stream:
        stacked(parts).save(stream, "PNG")


def tile(
    pixels: np.ndarray,
    target: int | None,
    best: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> Image.Image:
    """An image over its true class, if known; beside it the best classes and probabilities."""
    image = Image.fromarray(pixels)
    image = image.resize(fitted(image, SIDE), Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE + MARGIN + ANSWERS, SIDE + FONT + 8), "white")
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(image, (0, SIDE - image.height))
    canvas.paste(captioned(square, "" if target is None else classes[target]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    left = SIDE + MARGIN
    for rank, (label, share) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True)):
        top = SIDE - LINE * (len(best) - rank)
        colour = TRUE if label == target else OTHER
        draw.rectangle((left, top, left + share * ANSWERS, top + LINE - 4), fill=colour)
        name = f"{100 * share:.0f} % {classes[label]}"
        text = captioned(Image.new("RGB", (ANSWERS, 0)), name)
        # Only its letters, so that the bar is seen behind them.
        mask = Image.eval(text.convert("L"), lambda value: 255 - value)
        canvas.paste("black", (left + 4, top - 3), mask)
    return canvas


def confusions(
    targets: np.ndarray, answers: np.ndarray, classes: Sequence[str]
) -> list[Image.Image]:
    """The matrix of true classes and answers, of the classes with the most errors if many."""
    shown = worst(targets, answers, len(classes))
    title = "confusion: a row for each true class, answers in columns, % of the row's images"
    parts = [heading(title)]
    if len(shown) < len(np.union1d(targets, answers)):
        parts.append(heading(f"the {len(shown)} classes with the most errors of {len(classes)}"))
    return [*parts, matrix(targets, answers, shown, classes)]


def worst(targets: np.ndarray, answers: np.ndarray, count: int) -> np.ndarray:
    """Up to MOST_SHOWN of the classes that occur, those with the most errors, in their order."""
    wrong = targets != answers
    errors = np.bincount(targets[wrong], minlength=count)
    errors = errors + np.bincount(answers[wrong], minlength=count)
    there = np.union1d(targets, answers)
    ranked = there[np.argsort(-errors[there], kind="stable")]
    return np.sort(ranked[:MOST_SHOWN])


def matrix(
    targets: np.ndarray, answers: np.ndarray, shown: np.ndarray, classes: Sequence[str]
) -> Image.Image:
    """Shares of the images of each row's class that are answered with each column's, as shades."""
    cell = min(MOST_CELL, max(LEAST_CELL, MATRIX // len(shown)))
    side = cell * len(shown)
    canvas = Image.new("RGB", (LABEL + side + 1, LABEL + side + 1), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=FONT if cell > 28 else 9)
    across = Image.new("RGB", (side, LABEL), "white")
    for place, label in enumerate(shown.tolist()):
        name = captioned(Image.new("RGB", (LABEL - 8, 0)), classes[label])
        middle = place * cell + (cell - FONT - 6) // 2
        canvas.paste(name, (0, LABEL + middle))
        across.paste(name.rotate(90, expand=True), (middle, 0))
        mine = answers[targets == label]
        if not mine.size:
            continue
        for column, other in enumerate(shown.tolist()):
            share = float(np.mean(mine == other))
            shade = [round(255 + share * (dark - 255)) for dark in DARK]
            x, y = LABEL + column * cell, LABEL + place * cell
            colour = (shade[0], shade[1], shade[2])
            draw.rectangle((x, y, x + cell, y + cell), fill=colour, outline=(225, 225, 225))
            if share >= 0.005:
                at = (x + cell / 2, y + cell / 2)
                fill = text_colour(colour)
                draw.text(at, f"{100 * share:.0f}", fill=fill, font=font, anchor="mm")
    canvas.paste(across, (LABEL, 0))
    return canvas


def heading(text: str) -> Image.Image:
    """A line of text as wide as the sheet."""
    width = COLUMNS * (SIDE + ANSWERS + 2 * MARGIN)
    canvas = Image.new("RGB", (width, 28), "white")
    ImageDraw.Draw(canvas).text((0, 6), text, fill="black", font=ImageFont.load_default(size=16))
    return canvas


def beside(tiles: Sequence[Image.Image]) -> Image.Image:
    step = tiles[0].width + MARGIN
    canvas = Image.new("RGB", (step * len(tiles), tiles[0].height + MARGIN), "white")
    for place, each in enumerate(tiles):
        canvas.paste(each, (place * step, 0))
    return canvas


def stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """Images below each other, with a margin around all of them."""
    width = max(part.width for part in parts) + 2 * MARGIN
    canvas = Image.new("RGB", (width, sum(p.height for p in parts) + 2 * MARGIN), "white")
    top = MARGIN
    for part in parts:
        canvas.paste(part, (MARGIN, top))
        top += part.height
    return canvas
