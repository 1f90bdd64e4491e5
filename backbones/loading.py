"""Strict loading of a checkpoint into a backbone, with a report of what became of each key."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

import backbones
from backbones import side_files
from backbones.checkpoint import check_keys, refuse_not_finite, shorten
from backbones.choosing import choose_network, choose_state
from backbones.contents import digest, find_files, read_files
from backbones.conversion import Converted, convert, settle_grid, with_facts
from backbones.dense import DenseViT
from backbones.files import INDEX_ENDING
from backbones.fit import (
    add_relative_positions,
    check_fit,
    draw_positions,
    fit_bias_tables,
    fit_patches,
    fit_positions,
    gather_equal_tables,
    refuse_homeless_tables,
    spread_shared_table,
)
from backbones.formats import FORMATS, Tensors
from backbones.hub import fetch, is_remote, neighbours, told_beside
from backbones.plugin import blaming, find
from backbones.reading import Reading
from backbones.report import LoadReport
from backbones.side_files import parse_json
from backbones.sizes import SIZES, Anatomy, BackboneError, Dense, shape_of, with_positions
from backbones.vit import ViT

AS_IT_IS = Reading()
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
    reading: Reading = AS_IT_IS,
) -> tuple[ViT | DenseViT, LoadReport]:
    """See `backbones.load`."""
    if find(name) is not None:
        return load_plugin(name, checkpoint, image_size, drop_path, dense, reading)
    shape_of(name)  # an unknown name is told before a file is read
    file, converted, report = read(checkpoint, reading)
    return build(name, file, converted, report, image_size, drop_path, dense), report


def build(
    name: str,
    file: Path,
    converted: Converted,
    report: LoadReport,
    image_size: int,
    drop_path: float = 0.0,
    dense: Dense | None = None,
) -> ViT | DenseViT:
    """The backbone of a name with the weights of a file that was read; completes its report."""
    named = report.metadata.get("backbone")
    if named not in (None, name):
        raise BackboneError(f"checkpoint {file}: holds a {named}; asked for {name}")
    anatomy = settle_heads(name, fit_anatomy(file, name, converted), converted, report)
    anatomy = with_positions(anatomy, dense)
    vit = backbones.create(name, image_size, drop_path, dense=dense, anatomy=anatomy)
    load_into(vit, file, converted, report)
    return vit


def settle_heads(name: str, anatomy: Anatomy, converted: Converted, report: LoadReport) -> Anatomy:
    """The anatomy with heads where a layout suggests some; what is assumed or differs is said."""
    own, guess = shape_of(name)[0].num_heads, converted.guessed_heads
    if anatomy.num_heads is not None:
        if anatomy.num_heads != own:
            report.said.append(f"{anatomy.num_heads} heads of the file; {name} has {own}")
    elif guess is None or guess == own:
        report.assumed.append(f"{own} heads, as {name} has; no tensor shows them")
    elif name in SIZES:
        report.assumed.append(
            f"{guess} heads, as {converted.format}'s of this width have; others with its table of "
            f"positions, such as mmpretrain's MAE, have {own}: --heads {own} for those"
        )
        return replace(anatomy, num_heads=guess)
    else:
        report.assumed.append(
            f"{own} heads, as {name} has; {converted.format}'s of this width have {guess}: "
            f"--heads {guess} for those"
        )
    return anatomy


def read(checkpoint: str | Path, reading: Reading = AS_IT_IS) -> tuple[Path, Converted, LoadReport]:
    """A checkpoint's file, its tensors under our names, and the beginning of its report."""
    place = fetch(str(checkpoint)) if is_remote(checkpoint) else Path(checkpoint)
    files, said = find_files(place)
    file = files[0]
    chosen = choose_state(place, read_files(files, reading.allow_pickle), reading.key)
    chosen = choose_network(place, chosen, reading)
    told = reading.rows_and_columns
    converted = convert(str(place), chosen.tensors, reading.format, told)
    converted.skipped = chosen.skipped | converted.skipped
    converted.beside = chosen.outside | converted.beside
    beside = neighbours(file, converted)
    said += told_beside(file, converted, beside)
    facts = beside | own_facts(place, chosen.metadata)
    converted = with_facts(converted, facts)
    ours = "anatomy" in chosen.metadata
    settle_grid(str(place), converted, told, facts.get("grid"), square=ours)
    if reading.heads is not None:
        converted = with_heads(place, converted, reading.heads, facts)
    report = LoadReport(
        str(checkpoint) if is_remote(checkpoint) else called(place),
        digest(files),
        converted.format,
        FORMATS[converted.format].source,
        skipped=dict(converted.skipped),
        resized=dict(converted.changed),
        pixel_mean=converted.mean,
        pixel_std=converted.std,
        pooling=converted.pooling,
        norm_eps=converted.anatomy.norm_eps,
        shared=reading.format is None and not FORMATS[converted.format].sure(chosen.tensors),
        assumed=list(converted.assumed),
        said=said + chosen.said + precision(converted),
        read_as=read_as(reading, beside),
        tested={k: facts[k] for k in ("image_size", "crop_ratio", "cut") if k in facts},
        metadata=chosen.metadata,
    )
    return file, converted, report


def called(place: Path) -> str:
    """The name of a checkpoint: of its file, or of the folder that its shards are in."""
    folder = place.absolute().parent.name
    return folder if place.name.endswith(INDEX_ENDING) and folder else place.name


def read_as(reading: Reading, beside: Mapping[str, Any]) -> dict[str, str]:
    """What else the weights depend on than the file: a user's words, and facts from beside it."""
    names = ("format", "key", "prefix", "heads", "grid")
    found = {name: getattr(reading, name) for name in names}
    for name in ("num_heads", "norm_eps", "final_norm", "mean", "std", "grid"):
        value = beside.get(name)
        if isinstance(value, tuple):
            value = " ".join(f"{number:g}" for number in value)
        found[f"{name} beside it"] = value
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def precision(converted: Converted) -> list[str]:
    """A line about weights that are not in float32, in which all is computed."""
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in converted.state.values()})
    return [] if kinds == ["float32"] else [f"weights in {' and '.join(kinds)}, taken as float32"]


def with_heads(
    place: Path, converted: Converted, heads: int, facts: Mapping[str, Any]
) -> Converted:
    """The same with the number of heads that a user names, unless the file states another."""
    stated = converted.visible_heads or facts.get("num_heads")
    if stated not in (None, heads):
        raise BackboneError(f"checkpoint {place}: --heads {heads}: it states {stated} itself")
    anatomy = replace(converted.anatomy, num_heads=heads)
    return replace(converted, anatomy=anatomy, guessed_heads=None)


def anatomy_metadata(vit: Any) -> dict[str, str]:
    """What a file of ours has to say of a backbone beside its tensors, for `checkpoint.save`.

    Without it a file's heads, layer norm eps and pixel statistics would be assumed when it is
    loaded. A plug-in has no anatomy to tell.
    """
    facts = {"mean": vit.pixel_mean, "std": vit.pixel_std, "image_size": vit.image_size}
    if hasattr(vit, "anatomy"):
        facts |= asdict(vit.anatomy) | {"num_heads": vit.num_heads}
    return {"backbone": vit.name, "anatomy": json.dumps(facts)}


def rebuild(name: str, options: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """The backbone that `anatomy_metadata` tells of, with new weights; `options` as for `create`.

    What the metadata do not tell is as the name has it.
    """
    told = told_anatomy("of a run", metadata)
    given = {} if told is None else {each: getattr(told, each) for each in told.model_fields_set}
    anatomy = {each.name: given[each.name] for each in fields(Anatomy) if each.name in given}
    vit = backbones.create(name, **options, anatomy=Anatomy(**anatomy) if anatomy else None)
    for part, key in (("pixel_mean", "mean"), ("pixel_std", "std")):
        if given.get(key) is not None:
            setattr(vit, part, tuple(given[key]))
    return vit


def own_facts(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `anatomy_metadata` wrote into a file of ours; nothing in others."""
    told = told_anatomy(str(file), metadata)
    if told is None:
        return {}
    names = ("num_heads", "norm_eps", "mean", "std", "image_size")
    facts = {key: getattr(told, key) for key in names}
    return {key: value for key, value in facts.items() if value is not None}


def told_anatomy(file: str, metadata: Mapping[str, str]) -> side_files.Anatomy | None:
    """The `anatomy` in a file's metadata; None: it has none."""
    if "anatomy" not in metadata:
        return None
    what = f"checkpoint {file}: its metadata's anatomy"
    return parse_json(what, metadata["anatomy"], side_files.Anatomy)


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
    itself, its class token, with fresh relative positions and, where `Dense` adds them, absolute
    ones, and with the patches that `fit_patches` makes. Refused weights leave `vit` as it is.
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
    refuse_not_finite(file, state)
    try:
        fit_positions(state, own, report, "cls_token" in own, converted.grid)
    except ValueError as error:
        raise BackboneError(f"checkpoint {file}: {error}") from None
    if isinstance(vit, DenseViT):
        fit_patches(state, vit, report)
        if not converted.anatomy.absolute_position:
            draw_positions(state, own, report)
    gather_equal_tables(state, own, report)
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
    reading: Reading,
) -> tuple[Any, LoadReport]:
    """A plug-in with a checkpoint's tensors under its own names; nothing is converted."""
    place = fetch(str(checkpoint)) if is_remote(checkpoint) else Path(checkpoint)
    refused = [flag for flag in ("format", "heads", "grid") if getattr(reading, flag) is not None]
    if refused:
        raise BackboneError(
            f"--{refused[0]}: {name} is a plug-in, whose checkpoints have its own names alone"
        )
    vit: Any = backbones.create(name, image_size, drop_path, dense=dense)
    files, said = find_files(place)
    chosen = choose_state(place, read_files(files, reading.allow_pickle), reading.key)
    if reading.prefix is not None:
        chosen = choose_network(place, chosen, reading)
    own = vit.state_dict()
    state, changes = fit_plugin(place, name, vit, chosen.tensors)
    check_keys(place, name, state, own)
    vit.load_state_dict(state)
    total = sum(value.numel() for value in own.values())
    return vit, LoadReport(
        place.name,
        digest(files),
        PLUGIN,
        backbone=name,
        loaded=sorted(own),
        skipped=dict(chosen.skipped),
        resized=changes,
        parameters_loaded=total,
        parameters=total,
        num_heads=shape_of(name)[0].num_heads,
        pixel_mean=vit.pixel_mean,
        pixel_std=vit.pixel_std,
        said=said + chosen.said,
        read_as=read_as(reading, {}),
        metadata=chosen.metadata,
    )


def fit_plugin(
    place: Path, name: str, vit: Any, tensors: Tensors
) -> tuple[Tensors, dict[str, str]]:
    """A file's tensors by the hooks of a plug-in, and what these changed; see `plugin`.

    Raises `BackboneError` for a hook that returns no tensors, or where one is lacking.
    """
    state, changes = dict(tensors), dict[str, str]()
    if hasattr(vit, "convert_checkpoint"):
        with blaming(name, "convert_checkpoint()"):
            state = vit.convert_checkpoint(dict(tensors))
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise BackboneError(
                f"backbone {name!r}: convert_checkpoint() returned no dictionary of tensors"
            )
        if state.keys() != tensors.keys():
            changes["all tensors"] = (
                f"{len(tensors)} -> {len(state)}, by its convert_checkpoint(), without "
                f"{shorten(sorted(tensors.keys() - state.keys()))}"
            )
    own = vit.state_dict()
    others = [key for key in state if key in own and state[key].shape != own[key].shape]
    for key in others if hasattr(vit, "resize_tensor") else ():
        before, wanted = tuple(state[key].shape), tuple(own[key].shape)
        with blaming(name, f"resize_tensor({key!r})"):
            state[key] = vit.resize_tensor(key, state[key])
        if tuple(getattr(state[key], "shape", ())) != wanted:
            raise BackboneError(
                f"backbone {name!r}: resize_tensor({key!r}) made no tensor of {wanted} of {before}"
            )
        changes[key] = f"{before} -> {wanted}, by its resize_tensor()"
    if others and not hasattr(vit, "resize_tensor"):
        shapes = f"{tuple(state[others[0]].shape)} for {tuple(own[others[0]].shape)}"
        raise BackboneError(
            f"checkpoint {place} does not fit {name}: {others[0]} {shapes}; the backbone has no "
            "resize_tensor() for it, see backbones/plugin.py"
        )
    return state, changes
