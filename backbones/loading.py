"""Strict loading of a checkpoint into a backbone, with a report of what became of each key."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import backbones
from backbones.checkpoint import check_keys, file_sha256, read_tensors
from backbones.conversion import Converted, convert, with_facts
from backbones.dense import DenseViT
from backbones.fit import (
    add_relative_positions,
    check_fit,
    fit_bias_tables,
    fit_patches,
    fit_positions,
    refuse_homeless_tables,
    spread_shared_table,
)
from backbones.formats import FORMATS
from backbones.hub import fetch, is_remote, neighbours
from backbones.plugin import find
from backbones.report import LoadReport
from backbones.sizes import SIZES, Anatomy, BackboneError, Dense, shape_of
from backbones.vit import ViT

PLUGIN = "plug-in"
"""the format of a plug-in's checkpoints, which have its own names"""

# What dense prediction leaves out: beginnings of keys -> the rule.
NO_CLASS_TOKEN = {"cls_token": "class token: not used in dense prediction"}
NO_NORM = {"norm.": "final norm: maps are taken before it"}


def load(
    name: str,
    checkpoint: str | Path,
    image_size: int = 224,
    drop_path: float = 0.0,
    dense: Dense | None = None,
    format: str | None = None,
    allow_pickle: bool = False,
) -> tuple[ViT | DenseViT, LoadReport]:
    """See `backbones.load`."""
    size = shape_of(name)[0]
    if find(name) is not None:
        return load_plugin(name, checkpoint, image_size, drop_path, dense, allow_pickle)
    file, converted, report = read(checkpoint, format, allow_pickle)
    named = report.metadata.get("backbone")
    if named not in (None, name):
        raise BackboneError(f"checkpoint {file}: holds a {named}; asked for {name}")
    anatomy = fit_anatomy(file, name, converted)
    if anatomy.num_heads is None:
        report.assumed.append(f"{size.num_heads} heads, as {name} has; no tensor shows them")
    vit = backbones.create(name, image_size, drop_path, dense=dense, anatomy=anatomy)
    load_into(vit, file, converted, report)
    return vit, report


def read(
    checkpoint: str | Path, format: str | None = None, allow_pickle: bool = False
) -> tuple[Path, Converted, LoadReport]:
    """A checkpoint's file, its tensors under our names, and the beginning of its report."""
    file = fetch(str(checkpoint)) if is_remote(checkpoint) else Path(checkpoint)
    tensors, metadata = read_tensors(file, allow_pickle)
    converted = convert(str(file), tensors, format)
    converted = with_facts(converted, neighbours(file, converted) | own_facts(file, metadata))
    return (
        file,
        converted,
        LoadReport(
            str(checkpoint) if is_remote(checkpoint) else file.name,
            file_sha256(file),
            converted.format,
            FORMATS[converted.format].source,
            skipped=dict(converted.skipped),
            resized=dict(converted.changed),
            pixel_mean=converted.mean,
            pixel_std=converted.std,
            pooling=converted.pooling,
            norm_eps=converted.anatomy.norm_eps,
            assumed=list(converted.assumed),
            metadata=metadata,
        ),
    )


def anatomy_metadata(vit: Any) -> dict[str, str]:
    """What a file of ours has to say of a backbone beside its tensors, for `checkpoint.save`.

    Without it a file's heads, layer norm eps and pixel statistics would be assumed when it is
    loaded. A plug-in has no anatomy to tell.
    """
    facts = {"mean": vit.pixel_mean, "std": vit.pixel_std}
    if hasattr(vit, "anatomy"):
        facts |= asdict(vit.anatomy) | {"num_heads": vit.num_heads}
    return {"backbone": vit.name, "anatomy": json.dumps(facts)}


def rebuild(name: str, options: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """The backbone that `anatomy_metadata` tells of, with new weights; `options` as for `create`.

    What the metadata do not tell is as the name has it.
    """
    told = json.loads(metadata.get("anatomy", "{}"))
    anatomy = {each.name: told[each.name] for each in fields(Anatomy) if each.name in told}
    vit = backbones.create(name, **options, anatomy=Anatomy(**anatomy) if anatomy else None)
    for part, key in (("pixel_mean", "mean"), ("pixel_std", "std")):
        if key in told:
            setattr(vit, part, tuple(told[key]))
    return vit


def own_facts(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `anatomy_metadata` wrote into a file of ours; nothing in others."""
    try:
        facts = json.loads(metadata.get("anatomy", "{}"))
        names = ("num_heads", "norm_eps", "mean", "std")
        return {key: facts[key] for key in names if key in facts}
    except (ValueError, TypeError):
        raise BackboneError(
            f"checkpoint {file}: its metadata's anatomy is {metadata['anatomy']!r}; expected JSON "
            "of num_heads, norm_eps, mean and std"
        ) from None


def fit_anatomy(file: Path, name: str, converted: Converted) -> Anatomy:
    """The file's anatomy, which the name's has to allow; `BackboneError` if it does not."""
    own, given = shape_of(name)[1], converted.anatomy
    if name in SIZES:
        return given
    differing = [
        f"{what} ({'the file' if has else name} alone)"
        for what, has, wanted in (
            ("layer scale", given.layer_scale is not None, own.layer_scale is not None),
            ("absolute positions", given.absolute_position, own.absolute_position),
            ("tables of relative position", given.relative_position, own.relative_position),
        )
        if has != wanted
    ]
    if differing:
        raise BackboneError(f"checkpoint {file} does not fit {name}: {'; '.join(differing)}")
    return given


def load_into(
    vit: ViT | DenseViT, file: Path, converted: Converted, report: LoadReport
) -> LoadReport:
    """Load a file's encoder weights into `vit`, strictly; see `backbones.load`.

    A `DenseViT` also takes a file of a plain ViT: without its final norm and, unless it has one
    itself, its class token, with fresh relative positions, and with the patches that
    `fit_patches` makes. Refused weights leave `vit` as it is.
    """
    own = vit.state_dict()
    rules: dict[str, str] = {}
    if isinstance(vit, DenseViT):
        rules = NO_NORM | ({} if vit.dense.class_token else NO_CLASS_TOKEN)
    state = {}
    for key, value in converted.state.items():
        rule = next((rules[start] for start in rules if key.startswith(start)), None)
        if rule is None:
            state[key] = value
        else:
            report.skipped[key] = rule
    try:
        fit_positions(state, own, report, "cls_token" in own)
    except ValueError as error:
        raise BackboneError(f"checkpoint {file}: {error}") from None
    if isinstance(vit, DenseViT):
        fit_patches(state, vit, report)
    spread_shared_table(state, own, report)
    fit_bias_tables(state, own, report, "cls_token" in own)
    add_relative_positions(state, own, report)
    refuse_homeless_tables(file, state, own, vit)
    check_fit(file, vit.name, state, own)
    vit.load_state_dict(state)
    vit.pixel_mean, vit.pixel_std = converted.mean, converted.std
    report.backbone, report.num_heads = vit.name, vit.num_heads
    report.loaded = sorted(set(state) - set(report.fresh))
    report.parameters = sum(value.numel() for value in own.values())
    report.parameters_loaded = sum(own[key].numel() for key in report.loaded)
    return report


def load_plugin(
    name: str,
    checkpoint: str | Path,
    image_size: int,
    drop_path: float,
    dense: Dense | None,
    allow_pickle: bool,
) -> tuple[Any, LoadReport]:
    """A plug-in with a checkpoint's tensors under its own names; nothing is converted."""
    file = fetch(str(checkpoint)) if is_remote(checkpoint) else Path(checkpoint)
    vit: Any = backbones.create(name, image_size, drop_path, dense=dense)
    tensors, metadata = read_tensors(file, allow_pickle)
    own = vit.state_dict()
    check_keys(file, name, tensors, own)
    vit.load_state_dict(tensors)
    total = sum(value.numel() for value in own.values())
    return vit, LoadReport(
        file.name,
        file_sha256(file),
        PLUGIN,
        backbone=name,
        loaded=sorted(own),
        parameters_loaded=total,
        parameters=total,
        num_heads=shape_of(name)[0].num_heads,
        pixel_mean=vit.pixel_mean,
        pixel_std=vit.pixel_std,
        metadata=metadata,
    )
