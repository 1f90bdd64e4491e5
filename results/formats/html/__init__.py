"""The report as one HTML page that needs no network.

Imports jinja2, matplotlib and Pillow, so that `import results` does not. All that a record holds
is untrusted: jinja2 escapes it, `one_line` drops what is invisible, pictures are decoded and
encoded anew, and a content security policy forbids all scripts but the page's own.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from results.configuration import configurations
from results.figures import KEY, Drawn
from results.formats import Content
from results.formats.html.pictures import encoded, encoded_pictures, inline_svg
from results.formats.html.runs import ShownRun, Unfinished, behind_rows
from results.formats.html.tables import general_notes, kinds_in, links_of, table_for_page
from results.formats.texts import NOTE_LIMIT, OWNERS, with_arrows
from results.store import Skipped
from results.table import Table
from results.text import one_line

TEMPLATES = Path(__file__).with_name("templates")
MAX_SKIPPED = 50
TEXT_LENGTH = 300
"""characters of one text of a record"""


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
    world: Path | None = None,
) -> str:
    """The page. `refresh`: seconds after which it loads itself again; `world`: a picture of the
    data of the miniature world's runs.

    Of very many runs and pictures some are left out, and the page says how many.
    """
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = configurations([run.record for run in runs])
    shown, drawn = list(tables), list(figures)
    links = links_of(shown, found)
    pictures, left_out = encoded_pictures(runs)
    sheet = None if world is None else encoded(world)
    plots: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for i, each in enumerate(drawn):
        about = {"key": f"f-{i}", "title": each.title, "caption": each.caption}
        plots[each.of_training].append(about | {"svg": inline_svg(each, i)})
    sections = {
        "progress": ("Under way", unfinished),
        "tables": ("Tables", shown),
        "figures": ("Figures", plots[False]),
        "pictures": ("Pictures", pictures or left_out or sheet),
        "training": ("Training curves", plots[True]),
        "runs": ("Runs", found),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda text: one_line(str(text), TEXT_LENGTH)
    environment.filters["note"] = lambda text: one_line(text, NOTE_LIMIT)
    environment.filters["arrows"] = with_arrows
    return environment.get_template("page.html").render(
        title=title,
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
        made=made and f"{made:%Y-%m-%d %H:%M} UTC",
        refresh=refresh,
        tables=[table_for_page(table, t, links) for t, table in enumerate(shown)],
        owners=list(OWNERS.values()),
        general=general_notes(shown),
        figures=plots[False],
        curves=plots[True],
        key=KEY if plots[False] else "",
        sections=[(key, name) for key, (name, is_there) in sections.items() if is_there],
        kinds=kinds_in(shown),
        num_rows=sum(len(table.rows) for table in shown),
        pictures=pictures,
        pictures_left_out=left_out,
        sheet=sheet,
        configurations=behind_rows(found, runs, shown, links, pictures),
        num_configurations=len(found),
        num_runs=len(runs),
        unfinished=unfinished,
        skipped=skipped[:MAX_SKIPPED],
        num_skipped=len(skipped),
    )
