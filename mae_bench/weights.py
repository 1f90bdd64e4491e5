"""`mae-bench weights`: what a checkpoint holds, in another layout, and which are public."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import backbones
from backbones import BackboneError
from backbones.baselines import BASELINES, UNRELEASED, confirm, release_of
from backbones.reading import ReadingOptions
from mae_bench.data import weights_folder
from mae_bench.download import fetch
from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.run.files import write_json, write_torch
from mae_bench.run.unfinished import atomic_folder

if TYPE_CHECKING:
    from backbones.inspection import Inspection

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
LAYOUTS = {
    "timm": "a .safetensors file for timm.create_model(..., num_classes=0)",
    "hf": "a folder for transformers' ViTModel or BeitModel",
    "mae": "a .pth file for the MAE release's code",
}
"""layout -> what is written"""
ENDINGS = {"timm": "-timm.safetensors", "hf": "-hf", "mae": "-mae.pth"}


def inspect_weights(checkpoint: str | Path, **reading: Unpack[ReadingOptions]) -> Inspection:
    """Print what a checkpoint holds and which backbone it fits."""
    found = backbones.inspect(checkpoint, **reading)
    say(str(found))
    return found


def convert_weights(
    checkpoint: str | Path,
    to: str,
    output: str | Path | None = None,
    **reading: Unpack[ReadingOptions],
) -> Path:
    """Write a checkpoint's encoder in one of `LAYOUTS`, without any head; the file or folder.

    `output` is made of the checkpoint's name by default, in the current folder. Raises
    `BackboneError` for what the layout cannot hold, `RunError` if something is there already.
    """
    if output is None:
        name = str(checkpoint).replace(":", "-").rpartition("/")[2]
        output = name.partition(".")[0] + ENDINGS.get(to, "")
    place = Path(output)
    if place.exists():
        raise RunError(f"--output {place}: is there already; name another, or delete it")
    made, report = backbones.convert(checkpoint, to, **reading)
    say(str(report))
    from backbones.checkpoint import save
    from backbones.contents import OWN_METADATA

    if to == "hf":
        with atomic_folder(place) as unfinished:
            write_json(unfinished / CONFIG, made.config)
            write_json(unfinished / PROCESSOR, made.processor)
            save(made.tensors, unfinished / "model.safetensors", {})
    elif to == "timm":
        place.parent.mkdir(parents=True, exist_ok=True)
        save(made.tensors, place, made.metadata)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_torch(place, {"model": made.tensors, OWN_METADATA: made.metadata})
    for line in made.said:
        say(f"  {line}")
    say(f"written to {place}: {LAYOUTS[to]}")
    return place


def get_weights(name: str, to: str | Path | None = None) -> Path:
    """Download the released file of a baseline, as "mae/vit_b", and check it; the file.

    `to` is the folder, by default where `transfer --init` looks. A file that is there is checked
    alone. What was confirmed is printed, and what nobody publishes. Raises `BackboneError` for an
    unknown or unreleased name and for a file with another hash than the published one, `RunError`
    if the download fails; the same call goes on with it.
    """
    baseline, slash, backbone = name.partition("/")
    if not slash:
        sizes = [f"{name}/{size}" for size in BASELINES.get(name, {})]
        hint = ", ".join(sizes) or ", ".join(f"{known}/SIZE" for known in BASELINES)
        raise RunError(f"weights get {name}: expected NAME/SIZE, one of {hint}")
    release = release_of(baseline, backbone)
    file = Path(to or weights_folder()) / release.file
    there = file.is_file()
    if not there:
        found = fetch(release.url, file)
        for line in found.checks:
            say(f"  {line}")
    try:
        confirm(file, release)
    except BackboneError:
        if not there:
            file.unlink()
        raise
    published = release.digest and f"its hash begins as published: {release.digest}"
    say(f"  {published or 'no hash is published for it'}")
    say(f"{'there already' if there else 'written to'}: {file}")
    return file


def released_weights() -> list[dict[str, Any]]:
    """What `list_weights` prints, for JSON; `file` is missing where nothing was released."""
    there = [
        {"name": name, "backbone": backbone, **asdict(release)}
        for name, sizes in BASELINES.items()
        for backbone, release in sizes.items()
    ]
    lacking = [
        {"name": name, "backbone": backbone, "note": reason}
        for (name, backbone), reason in UNRELEASED.items()
    ]
    return there + lacking


def list_weights() -> None:
    """Print the public weights of the paper's baselines, and what was never released."""
    for name, sizes in BASELINES.items():
        say(f"\n{name}")
        for backbone, release in sizes.items():
            digest = f"  {release.digest}..." if release.digest else "  no hash is published"
            note = f"\n         {release.note}" if release.note else ""
            say(f"  {backbone}  {release.file}{digest}\n         {release.url}{note}")
        for (other, backbone), reason in UNRELEASED.items():
            if other == name:
                say(f"  {backbone}  {reason}")
    say(
        "\nmae-bench weights get NAME/SIZE, such as mae/vit_b, puts a file into\n"
        f"{weights_folder()}; mae-bench transfer --init NAME takes it\n"
        "from there, or from the folder --checkpoint."
    )
