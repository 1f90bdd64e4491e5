"""The page as a parser sees it, and whether it is safe."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from results import comparison_table, published
from results.figures import figures
from results.formats.html import ShownRun, to_html
from results.logs import Log

VOID = {"meta", "input", "img", "br", "hr", "link"}


HOSTILE = [
    "<script>window.stolen = 1</script>",
    '"><img src=x onerror="window.stolen = 1">',
    "'><svg onload='window.stolen = 1'>",
    "</style></title></script><script>window.stolen = 1</script>",
    "javascript:window.stolen=1",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp; \x00\x1b[2J\x7f\r\n\u2028",
    "\u202egnp.exe\u2066 \u200e\u200f\ufeff",
    "]]> --> <!-- <![CDATA[",
]


class Page(HTMLParser):
    """Elements with their attributes, and the visible text; fails where a tag does not close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        assert len(dict(attributes)) == len(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for each, attributes in self.elements if each == tag]

    @property
    def text(self) -> str:
        kept = [text for tag, text in self.texts if tag not in ("script", "style")]
        return " ".join(" ".join(kept).split())


def shown(records, **more) -> list[ShownRun]:
    return [ShownRun(f"runs/{i}", record, **more) for i, record in enumerate(records)]


def whole(records, **options) -> str:
    """A page of everything that records give."""
    tables = comparison_table(records, published(), costs=True, intervals=True)
    logs = [Log("run", records[0].protocol, False, (1.0, 2.0, 3.0), (3.0, 2.0, 1.0))]
    drawn = figures(records, published(), logs)
    return to_html(tables, drawn, shown(records), **options)


def check_safe(text: str) -> Page:
    """What must hold of any page."""
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        if "href" in attributes:
            assert attributes["href"].startswith("#")
            assert attributes["href"][1:] in ids
        if tag not in ("img", "meta"):
            assert "src" not in attributes
        for reference in re.findall(r"url\(([^)]*)\)", " ".join(attributes.values())):
            assert reference.strip("#\"'") in ids
    assert all(each["src"].startswith("data:image/jpeg;base64,") for each in page.all("img"))
    (script,) = [text for tag, text in page.texts if tag == "script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not {"iframe", "object", "embed", "link", "base"} & {tag for tag, _ in page.elements}
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert "://" not in re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.DOTALL)
    return page


def png(file: Path, size=(64, 48), colour=(200, 30, 60)) -> Path:
    Image.new("RGB", size, colour).save(file)
    return file


def of_three_methods(make_record):
    """Three methods with seeds, a shortened run, two sizes."""
    found = [
        make_record(seed=seed, metrics={"top1": 83.5 + seed / 10, "top5": 96.0})
        for seed in range(3)
    ]
    found += [
        make_record(backbone="vit_l", metrics={"top1": 85.8}, intervals={"top1": (85.5, 86.1)}),
        make_record(init="moco_v3", metrics={"top1": 83.0}, name="moco"),
        make_record(
            init="beit",
            metrics={"top1": 81.0},
            deviations=["epochs 100 -> 10"],
            recipe={"epochs": 10, "betas": (0.9, 0.999), "clip_grad": None, "ema": True},
            recipe_hash="ba9876543210",
        ),
    ]
    return found
