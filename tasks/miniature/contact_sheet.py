"""A contact sheet of a miniature world: labelled rows of its pictures, one PNG."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from backbones.files import atomic
from tasks.errors import TaskError
from tasks.miniature import world
from tasks.miniature.twin import Row

MARGIN, GAP, LABEL_WIDTH, ROW_WIDTH = 28, 4, 84, 812
"""pixels"""
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
    fonts = {size: ImageFont.load_default(size) for size in (13, 14, 20, 26)}
    heights = [
        52 + sum(max((image.height for image in images), default=0) + GAP for _, images in rows)
        for _, rows in sections.values()
    ]
    width = 2 * MARGIN + LABEL_WIDTH + ROW_WIDTH
    sheet = Image.new("RGB", (width, 2 * MARGIN + 44 + sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, fonts[26])
    y = MARGIN + 44
    for name, (remark, rows) in sections.items():
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
