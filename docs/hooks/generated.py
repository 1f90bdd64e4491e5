"""Pages that are made when the documentation is built, from what they are about.

A page for each protocol from its recipes, the list of checkpoint layouts from the code that reads
them, and the files of the project's root and of benchmarks/ as they are.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import tasks
from backbones.formats import FORMATS
from mae_bench import recipes
from mae_bench.pretraining.methods import METHODS
from mae_bench.pretraining.recipes import PRETRAIN
from mae_bench.words import hand_in
from results import headline
from results.labels import metric_title
from results.published import same_recipe

ROOT = Path(__file__).parents[2]
COPIED = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
SHOWN = ("vit_b", "vit_l", "vit_h")
LAYOUTS = "<!-- generated: formats -->"
INTRODUCTION = """# Protocols

One page for each, made from the recipes themselves when these pages are built: every number with
where it comes from. `ours` is a decision of this project, with its reason. A protocol whose numbers
change gets a new version: `imagenet1k/finetune@1`. `mae-bench transfer --help` shows the same for
any backbone.

| protocol | what it is |
|---|---|
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are in no file."""
    hand_in()
    pages = protocol_pages()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    copies = [*COPIED, *(f"benchmarks/{file.name}" for file in (ROOT / "benchmarks").glob("*.md"))]
    for name in copies:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    nav: list[Any] = config.nav or []
    for entry in nav:
        if isinstance(entry, dict) and entry.get("Protocols") == "protocols/":
            entry["Protocols"] = list(pages)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated; what lies beside docs/ in the checkout lies inside it here."""
    markdown = markdown.replace(LAYOUTS, layouts())
    if page.file.src_uri in COPIED or page.file.src_uri.startswith("benchmarks/"):
        return re.sub(r"\]\(docs/", "](", markdown)
    return markdown.replace("](../benchmarks/", "](benchmarks/")


def protocol_pages() -> dict[str, str]:
    """Path below docs/ -> text, of the list of all and of each."""
    found, lines = {}, []
    for task, what in tasks.known().items():
        for protocol, trains in tasks.protocols(task).items():
            asked = "partial:1" if protocol == "partial:K" else protocol
            name = f"protocols/{task}-{protocol.replace(':', '-')}.md"
            command = f"mae-bench transfer --task {task} --protocol {asked}"
            said = f"{what[:1].upper()}{what[1:]}; {trains}."
            found[name] = page(task, asked, command, said)
            lines.append(f"| [{task} {protocol}]({Path(name).name}) | {trains} |")
    for method in METHODS.values():
        name = f"protocols/pretrain-{method.name}.md"
        command = f"mae-bench pretrain --method {method.name}"
        found[name] = page(PRETRAIN, method.name, command, f"Pre-training: {method.title}.")
        lines.append(f"| [pretrain {method.name}]({Path(name).name}) | {method.title} |")
    return {"protocols/index.md": INTRODUCTION + "\n".join(lines) + "\n", **found}


def page(task: str, protocol: str, command: str, said: str) -> str:
    """One protocol: its numbers for the published sizes, their sources, published results."""
    rows = {name: recipes.sourced(task, name, protocol) for name in SHOWN}
    made = {name: recipes.recipe(task, name, protocol) for name in SHOWN}
    identity = made["vit_b"].protocol
    lines = [f"# {task}: {protocol}", "", said, "", "```console", f"$ {command}", "```", ""]
    hashes = ", ".join(f"{name} `{made[name].digest()}`" for name in SHOWN)
    lines += [f"Protocol `{identity}`; recipe hashes: {hashes}.", ""]
    lines += scores(identity)
    lines += ["## Recipe", "", f"| field | {' | '.join(SHOWN)} | source |", "|---|---|---|---|---|"]
    for field in rows["vit_b"]:
        values = [shown(rows[name][field][0]) for name in SHOWN]
        sources = list(dict.fromkeys(rows[name][field][1] for name in SHOWN))
        lines.append(f"| `{field}` | {' | '.join(values)} | {cell('; '.join(sources))} |")
    return "\n".join(lines) + "\n"


def scores(identity: str) -> list[str]:
    """The published results that reports set beside runs of the protocol."""
    found = [row for name in SHOWN for row in headline(identity, name)]
    if not found:
        return ["No published result is set beside runs of this protocol.", ""]
    lines = ["## Published results", ""]
    lines += [
        "| backbone | weights | score | by this very recipe | source |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        score = f"{metric_title(row.metric)} {row.value:.{row.decimals}f}"
        same = "yes" if same_recipe(identity, row) else "no"
        where = f"{row.citation}. {row.note}" if row.note else row.citation
        lines.append(f"| {row.backbone} | {cell(row.method)} | {score} | {same} | {cell(where)} |")
    return [*lines, ""]


def layouts() -> str:
    lines = ["| `--format` | source |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {cell(f.source)} |" for name, f in FORMATS.items())])


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return cell(" ".join(map(str, value))) or "–"
    return cell(f"{value:g}" if isinstance(value, float) else str(value))


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
