"""The report as one HTML page that needs no network.

Imports jinja2, matplotlib and Pillow, so that `import results` does not. All that a record holds
is untrusted: jinja2 escapes it, `one_line` drops what is invisible, pictures are decoded and
encoded anew, and a content security policy forbids all scripts but the page's own.
"""

import base64
import hashlib
import itertools
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from results.behind import run_names
from results.cells import (
    BEST,
    COSTS,
    DIFFERENCE,
    INTERVALS,
    ONE_SEED,
    OURS,
    THEIRS,
)
from results.configuration import Configuration, configurations
from results.drawing import size_title
from results.figures import KEY, Drawn
from results.files import read_regular
from results.formats import Content
from results.formats.texts import NOTE_LIMIT, OWNERS, cell_text
from results.labels import (
    data_title,
    decimals_of,
    metric_title,
    protocol_title,
    shown,
    task_of,
    words,
)
from results.record import Record
from results.store import Skipped
from results.table import Cell, Column, Table
from results.text import one_line

GENERAL = (OURS, THEIRS, DIFFERENCE, ONE_SEED, BEST, INTERVALS, COSTS)
"""notes that say the same about all tables"""
TEMPLATES = Path(__file__).with_name("templates")
MAX_CONFIGURATIONS = 300
"""described in full"""
MAX_RUNS = 50
"""listed for one configuration"""
MAX_SKIPPED = 50
MAX_PICTURES = 24
MAX_PICTURE_BYTES = 32 * 1024 * 1024
"""of a file that is read at all"""
MAX_PICTURE_PIXELS = 40_000_000
PICTURE_SIDE = 1280
"""pixels; larger pictures are made smaller"""
ALL_PICTURES_BYTES = 16 * 1024 * 1024
JPEG_QUALITY = 86
TEXT_LENGTH = 300
"""characters of one text of a record"""
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


@dataclass(frozen=True)
class ShownRun:
    """A finished run, where it lies, and its pictures as (what they show, file)."""

    name: str
    record: Record
    pictures: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Unfinished:
    """A run under way, or one that stopped."""

    name: str
    protocol: str
    backbone: str
    init: str
    seed: str
    epoch: float
    epochs: float | None
    """of the whole run, if its recipe tells"""
    loss: float | None
    said: str
    """when it was last heard of"""

    @property
    def share(self) -> float | None:
        """Part that is done, 0 to 1."""
        return min(self.epoch / self.epochs, 1.0) if self.epochs else None


def write(content: Content) -> str:
    return content.page()


def to_html(
    tables: Iterable[Table],
    figures: Iterable[Drawn] = (),
    runs: Sequence[ShownRun] = (),
    title: str = "mae-bench report",
    *,
    unfinished: Sequence[Unfinished] = (),
    skipped: Sequence[Skipped] = (),
    made: datetime | None = None,
    refresh: int | None = None,
) -> str:
    """The page. `refresh`: seconds after which it loads itself again.

    Of very many runs and pictures some are left out, and the page says how many.
    """
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = configurations([run.record for run in runs])
    shown, drawn = list(tables), list(figures)
    links = _links(shown, found)
    pictures, left_out = _pictures(runs)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda text: one_line(str(text), TEXT_LENGTH)
    environment.filters["note"] = lambda text: one_line(text, NOTE_LIMIT)
    return environment.get_template("page.html").render(
        title=title,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
        made=made and f"{made:%Y-%m-%d %H:%M} UTC",
        refresh=refresh,
        tables=[_table(table, t, links) for t, table in enumerate(shown)],
        owners=list(OWNERS.values()),
        general=_general(shown),
        figures=[
            {"key": f"f-{i}", "title": each.title, "caption": each.caption, "svg": _inline(each, i)}
            for i, each in enumerate(drawn)
        ],
        key=KEY if any("training-" not in each.key for each in drawn) else "",
        pictures=pictures,
        pictures_left_out=left_out,
        configurations=_configurations(found, runs, shown, links, pictures),
        num_configurations=len(found),
        num_runs=len(runs),
        unfinished=unfinished,
        skipped=skipped[:MAX_SKIPPED],
        num_skipped=len(skipped),
    )


def _general(tables: Sequence[Table]) -> list[tuple[str, str]]:
    """What any table's notes say about all tables, each once: its first words, the rest."""
    there = {note.text for table in tables for note in table.notes}
    parts = [text.partition(":") for text in GENERAL if text in there]
    return [(first, rest) for first, _, rest in parts]


Links = dict[tuple[int, int, int], int]
"""(table, row, column) -> index of the configuration whose runs were measured there"""


def _links(tables: Sequence[Table], found: Sequence[Configuration]) -> Links:
    """Which configuration each number of ours was measured by, by the runs that its cell names."""
    by_run = {id(record): index for index, c in enumerate(found) for record in c.records}
    return {
        (t, r, column): by_run[id(cell.runs[0])]
        for t, table in enumerate(tables)
        for r, row in enumerate(table.rows)
        for column, cell in enumerate(row)
        if cell.runs and id(cell.runs[0]) in by_run
    }


def _table(table: Table, number: int, links: Links) -> dict[str, Any]:
    """A table as the template wants it."""
    columns = [
        {
            "kind": column.kind,
            "owner": OWNERS[column.kind],
            "source": ("to " if column.kind == "difference" and column.source else "")
            + column.source,
            "title": column.title,
            "unit": column.unit,
            "marks": column.marks,
        }
        for column in table.columns
    ]
    rows = [
        [
            _cell(column, cell, links.get((number, r, i)))
            for i, (column, cell) in enumerate(zip(table.columns, row, strict=True))
        ]
        for r, row in enumerate(table.rows)
    ]
    notes = [note for note in table.notes if note.text not in GENERAL]
    return {"title": table.title, "columns": columns, "rows": rows, "notes": notes}


def _cell(column: Column, cell: Cell, link: int | None) -> dict[str, Any]:
    value, _, rest = cell_text(column, cell).partition(" ")
    if isinstance(cell.value, str):
        value, rest = cell.value, ""
    return {
        "kind": column.kind,
        "value": value,
        "rest": rest,
        "sort": cell.value if isinstance(cell.value, float) else None,
        "empty": cell.value is None,
        "best": cell.best,
        "source": cell.source or (f"runs: {run_names(cell)}" if cell.runs else ""),
        "marks": cell.marks,
        "link": link if link is not None and link < MAX_CONFIGURATIONS else None,
    }


def _configurations(
    found: Sequence[Configuration],
    runs: Sequence[ShownRun],
    tables: Sequence[Table],
    links: Links,
    pictures: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """What lies behind a row of a table: recipe, environment and runs."""
    names = {id(run.record): run.name for run in runs}
    rows: dict[int, dict[tuple[int, int], str]] = defaultdict(dict)
    for (t, r, _), index in links.items():
        rows[index][t, r] = tables[t].title
    shown: list[dict[str, Any]] = []
    for index, c in enumerate(found[:MAX_CONFIGURATIONS]):
        own = [names[id(record)] for record in c.records]
        shown.append(
            {
                "first": c.first,
                "title": _title(c.first),
                "size": size_title(c.first.backbone),
                "headline": _headline(c),
                "verdict": _verdict(c.first),
                "metrics": _metric_names(c),
                "runs": [
                    {"name": names[id(r)], "record": r, "cost": _cost(r)}
                    for r in c.records[:MAX_RUNS]
                ],
                "runs_left_out": max(0, len(c.records) - MAX_RUNS),
                "repeats": len(c.repeats),
                "pretraining_seeds": _pretraining_seeds(c),
                "recipe": _recipe(c.first),
                "environments": _environments(c, names),
                "rows": rows[index],
                "pictures": [p for p in pictures if p["run"] in own],
            }
        )
    for picture in pictures:
        picture["configuration"] = next(
            (i for i, each in enumerate(shown) if picture in each["pictures"]), None
        )
    return shown


def _pretraining_seeds(c: Configuration) -> str:
    """ "0, 1, 2", where they are recorded."""
    seeds = [r.checkpoint.seed for r in c.records if r.checkpoint]
    return ", ".join(map(str, sorted({seed for seed in seeds if seed is not None})))


def _title(record: Record) -> str:
    data, what = data_title(task_of(record.protocol)), protocol_title(record.protocol)
    return f"{data}: {what}" if data else what.capitalize()


def _headline(c: Configuration) -> str:
    """ "top-1 83.53 ± 0.10 %": the first that tables show, or else the first by name."""
    for name in _metric_names(c)[:1]:
        title, unit = metric_title(name)
        decimals = decimals_of(name)
        cell = c.cell(name, decimals)
        if isinstance(cell.value, float):
            spread = "" if cell.std is None else f" ± {cell.std:.{decimals}f}"
            return f"{title} {cell.value:.{decimals}f}{spread} {unit}"
    return ""


def _metric_names(c: Configuration) -> list[str]:
    present = {name for record in c.records for name in record.metrics}
    first = shown(present)
    return first + sorted(present - set(first))


def _verdict(record: Record) -> tuple[str, str]:
    """A word on whether the scores compare with published ones, and a kind for its colour."""
    if record.comparable:
        return "comparable", "good"
    if record.data.miniature:
        return "miniature world", "small"
    return "not comparable", "marked"


def _recipe(record: Record) -> list[tuple[str, str, str]]:
    """Field, value, and what the run changed about it."""
    changed = {each.field: f"protocol: {_value(each.standard)}" for each in record.changed}
    return [(name, _value(value), changed.get(name, "")) for name, value in record.recipe.items()]


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _cost(record: Record) -> dict[str, str]:
    cost = record.cost
    return {
        "time": "" if cost.seconds is None else _hours(cost.seconds),
        "speed": "" if cost.images_per_second is None else f"{cost.images_per_second:,.5g}",
        "memory": ""
        if cost.peak_memory_bytes is None
        else f"{cost.peak_memory_bytes / 2**30:.3g} GiB",
    }


def _hours(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _environments(c: Configuration, names: dict[int, str]) -> list[dict[str, Any]]:
    """Each environment that runs of a configuration share, without its command."""
    found: dict[str, dict[str, Any]] = {}
    for record in c.records[:MAX_RUNS]:
        e = record.environment
        key = e.model_copy(update={"command": ""}).model_dump_json()
        entry = found.setdefault(key, {"environment": e, "runs": []})
        entry["runs"].append(names[id(record)])
    return list(found.values())


def _pictures(runs: Sequence[ShownRun]) -> tuple[list[dict[str, Any]], int]:
    """Pictures as data URIs, the newest runs first, and how many were left out."""
    newest = sorted(runs, key=lambda run: run.record.finished, reverse=True)
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
        encoded = None if full else _picture(file)
        if encoded is None or size + len(encoded[0]) > ALL_PICTURES_BYTES:
            left_out += 1
            continue
        uri, width, height = encoded
        size += len(uri)
        group = headings.get(run.record.task, OTHER_GROUP)
        found.append(
            {"run": run.name, "what": what, "uri": uri, "width": width, "height": height}
            | {"group": group, "order": order.index(group)}
        )
    found.sort(key=lambda picture: picture["order"])
    for index, picture in enumerate(found):
        picture["index"] = index
    return found, left_out


OTHER_GROUP = "Predictions"
"""heading of the pictures of tasks that have none of their own"""


def _picture(file: Path) -> tuple[str, int, int] | None:
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


def _inline(drawn: Drawn, number: int) -> Markup:
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
