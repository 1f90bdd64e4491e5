"""A contact sheet of a miniature world: labelled rows of its pictures, one PNG."""

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.errors import TaskError
from tasks.miniature import world
from tasks.miniature.twin import Row

COLUMNS, MARGIN, GUTTER, TITLE = 4, 24, 20, 34
"""columns, and pixels: around the sheet, between columns, of the title"""
COLUMN_WIDTH = (1440 - 2 * MARGIN - (COLUMNS - 1) * GUTTER) // COLUMNS
ROOM = 900 - 2 * MARGIN - TITLE
"""of a column, in height: the whole sheet is seen at once on a screen of 1440 x 900 pixels"""
SMALLEST = 0.5
"""scale of the pictures: what a screen does not hold at it takes more columns"""
GAP, SPACE, LABEL_WIDTH = 3, 10, 74
"""between pictures, below a section, of the labels of rows"""
PAPER, INK, FAINT = (250, 249, 246), (40, 44, 52), (128, 132, 140)

Sections = dict[str, tuple[str, list[Row]]]
"""title -> remark, rows"""


def contact_sheet(root: Path | str, file: Path | str) -> Path:
    """Write a PNG with a few pictures of each data set of the world at `root`; return its path.

    Raises TaskError if no complete world lies at `root`.
    """
    root, file = Path(root), Path(file)
    manifest = world.find(root)
    if manifest is None:
        raise TaskError(f"{root} is no complete miniature world; make one there first")
    sections: Sections = {}
    for twin in world.twins():
        if twin.name in manifest["sets"]:
            _, rows = sections.setdefault(twin.title, (twin.remark, []))
            rows += twin.rows(root / twin.name, manifest["sets"][twin.name])

    sheet = _lay_out(sections, f"mae-bench miniature world, seed {manifest['seed']}")
    file.parent.mkdir(parents=True, exist_ok=True)
    # 256 dithered colours: a third of the bytes, and the eye does not miss the others.
    palette = sheet.quantize(256, Image.Quantize.MEDIANCUT)
    drawn = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    with atomic(file) as stream:
        drawn.save(stream, "PNG", optimize=True)
    return file


def _lay_out(sections: Sections, title: str) -> Image.Image:
    """Sections below each other in columns, at the largest scale at which a screen holds them."""
    scale = 1.0
    while True:
        shown = {
            name: (remark, [(label, _that_fit(images, scale)) for label, images in rows])
            for name, (remark, rows) in sections.items()
        }
        columns = _columns(shown)
        tallest = max((sum(_height(shown[name]) for name in names) for names in columns), default=0)
        if scale <= SMALLEST or (len(columns) <= COLUMNS and tallest <= ROOM):
            break
        scale -= 0.01
    fonts = {size: ImageFont.load_default(size) for size in (12, 17, 22)}
    step = COLUMN_WIDTH + GUTTER
    width = 2 * MARGIN + max(len(columns), 1) * step - GUTTER
    sheet = Image.new("RGB", (width, 2 * MARGIN + TITLE + tallest), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, fonts[22])
    for number, names in enumerate(columns):
        left, y = MARGIN + number * step, MARGIN + TITLE
        for name in names:
            remark, rows = shown[name]
            draw.text((left, y), name, INK, fonts[17])
            draw.text((left, y + 21), _in_lines(remark, draw, fonts[12]), FAINT, fonts[12])
            y += _heading(remark)
            for label, images in rows:
                height = _row_height(images)
                middle = (left, y + height / 2)
                draw.text(middle, label, INK, fonts[12], anchor="lm", spacing=1)
                x = left + LABEL_WIDTH
                for image in images:
                    sheet.paste(image, (x, y))
                    x += image.width + GAP
                y += height + GAP
            y += SPACE
    return sheet


def _that_fit(images: list[Image.Image], scale: float) -> list[Image.Image]:
    """The first of them, at that scale, that are no wider together than a row."""
    fitting, room = [], COLUMN_WIDTH - LABEL_WIDTH + GAP
    for image in images:
        width, height = (round(side * scale) for side in image.size)
        room -= width + GAP
        if room < 0:
            break
        fitting.append(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    return fitting


def _columns(sections: Sections) -> list[list[str]]:
    """Titles below each other: each in the first column with room for it, or in a new one."""
    columns: list[list[str]] = []
    left: list[int] = []
    for name, section in sections.items():
        height = _height(section)
        number = next((number for number, room in enumerate(left) if height <= room), len(left))
        if number == len(left):
            columns.append([])
            left.append(ROOM)
        columns[number].append(name)
        left[number] -= height
    return columns


def _height(section: tuple[str, list[Row]]) -> int:
    remark, rows = section
    return _heading(remark) + sum(_row_height(images) + GAP for _, images in rows) + SPACE


def _heading(remark: str) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return 25 + 15 * (1 + _in_lines(remark, draw, ImageFont.load_default(12)).count("\n"))


def _in_lines(remark: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """Broken where it is wider than a column."""
    lines = [""]
    for word in remark.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > COLUMN_WIDTH:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _row_height(images: list[Image.Image]) -> int:
    return max((image.height for image in images), default=0)
