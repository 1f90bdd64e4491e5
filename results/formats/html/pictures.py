"""Pictures and figures inside the page; strangers' files are decoded and encoded anew."""

import base64
import itertools
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from results.figures import Drawn
from results.files import read_regular
from results.formats.html.runs import ShownRun
from results.labels import words
from results.text import one_line

MAX_PICTURES = 24
MAX_PICTURE_BYTES = 32 * 1024 * 1024
"""of a file that is read at all"""
MAX_PICTURE_PIXELS = 40_000_000
PICTURE_SIDE = 1280
"""pixels; larger pictures are made smaller"""
ALL_PICTURES_BYTES = 16 * 1024 * 1024
JPEG_QUALITY = 86
KEPT_IN_SVG = {"svg", "g", "defs", "path", "use", "rect", "clipPath", "text", "tspan"}
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""what Pillow raises for a spoilt picture"""
COLOUR = re.compile(r"#([0-9a-f]{6})\b")


def encoded_pictures(runs: Sequence[ShownRun]) -> tuple[list[dict[str, Any]], int]:
    """Pictures as data URIs, and how many were left out.

    The newest runs first, but one of each protocol, and there one of each method, before the second
    of any.
    """
    newest = sorted(runs, key=lambda run: run.record.finished, reverse=True)
    newest = _in_turn(newest, lambda run: (run.record.protocol, run.record.init))
    newest = _in_turn(newest, lambda run: run.record.protocol)
    # One picture of each run before the second of any.
    ranked = itertools.zip_longest(*(run.pictures for run in newest))
    queue = [
        (run, picture)
        for rank in ranked
        for run, picture in zip(newest, rank, strict=True)
        if picture is not None
    ]
    found: list[dict[str, Any]] = []
    headings = words().pictures
    order = [*headings.values(), OTHER_GROUP]
    size = left_out = 0
    for run, (what, file) in queue:
        full = len(found) >= MAX_PICTURES or size >= ALL_PICTURES_BYTES
        picture = None if full else encoded(file)
        if picture is None or size + len(picture[0]) > ALL_PICTURES_BYTES:
            left_out += 1
            continue
        uri, width, height = picture
        size += len(uri)
        group = headings.get(run.record.task, OTHER_GROUP)
        found.append(
            {"run": run.name, "what": what, "uri": uri, "width": width, "height": height}
            | {"group": group, "order": order.index(group)}
        )
    found.sort(key=lambda picture: picture["order"])
    for index, each in enumerate(found):
        each["index"] = index
    return found, left_out


def _in_turn(runs: Iterable[ShownRun], kind: Callable[[ShownRun], Hashable]) -> list[ShownRun]:
    """The first of each kind, then the second of each, and so on."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for run in runs:
        turns.append((seen[kind(run)], run))
        seen[kind(run)] += 1
    return [run for _, run in sorted(turns, key=lambda each: each[0])]


OTHER_GROUP = "Predictions"
"""heading of the pictures of tasks that have none of their own"""


def encoded(file: Path) -> tuple[str, int, int] | None:
    """A PNG as the data URI of a JPEG, and its size; None if it is none, or is too large."""
    try:
        content = BytesIO(read_regular(file, MAX_PICTURE_BYTES))
        with Image.open(content, formats=("PNG",)) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                return None
            picture = image.convert("RGB")
    except UNREADABLE:
        return None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/jpeg;base64,{encoded}", picture.width, picture.height


def inline_svg(drawn: Drawn, number: int) -> Markup:
    """A figure as an SVG element: ids of its own, the page's colours and fonts, nothing else."""
    root = ElementTree.fromstring(drawn.svg)
    prefix = f"f{number}-"
    _clean(root, prefix)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": one_line(drawn.title)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element, prefix: str) -> None:
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        if child.tag.rpartition("}")[2] in KEPT_IN_SVG:
            _clean(child, prefix)
        else:
            element.remove(child)
    attributes = {name.rpartition("}")[2]: text for name, text in element.attrib.items()}
    for name, text in attributes.items():
        if name == "id":
            text = prefix + text
        elif name == "href":
            text = f"#{prefix}{text.removeprefix('#')}"
        text = text.replace("url(#", f"url(#{prefix}").replace("'DejaVu Sans'", "var(--sans)")
        attributes[name] = COLOUR.sub(r"var(--c-\1)", text)
    element.attrib = attributes
