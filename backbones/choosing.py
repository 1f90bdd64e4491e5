"""Which of the networks in a checkpoint is meant, and what its tensors' names begin with.

One is taken, and what was chosen is said; of several the user has to name one.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.contents import OWN_METADATA, Contents, refuse_names, refuse_odd, states_in
from backbones.formats import FORMATS, Tensors
from backbones.reading import Reading
from backbones.sizes import BackboneError

WRAPPERS = ("model", "state_dict", "module")
"""what files of one network put it under: MAE's, DeiT's and BEiT's; MoCo v3's; DeepSpeed's"""
TEACHER, STUDENT = "teacher", "student"
ANCHOR = re.compile(
    r"(?:^|[./])("
    r"patch_embed\.proj\.weight|patch_embed\.projection\.weight|conv_proj\.weight|"
    r"embeddings\.patch_embeddings\.projection\.weight|embedding/kernel)$"
)
"""the tensor that each ViT has once, under the names of every layout"""
AROUND_BLOCKS = re.compile(
    r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\."
)
"""what wrappers of single blocks put into names: torch.compile, FSDP, activation checkpointing
(torch's and fairscale's)"""
FLAT = re.compile(r"(^|\.)_?flat_param(_\d+)?$")
"""what FSDP calls the parameters of a wrapped module that it keeps as one row"""


@dataclass
class Chosen:
    """The tensors of one network, and what was chosen to get there."""

    tensors: Tensors
    metadata: dict[str, str]
    format: str | None = None
    """of `FORMATS`, where looking for the prefix told it"""
    skipped: dict[str, str] = field(default_factory=dict)
    """key of the file -> why it is not among them"""
    said: list[str] = field(default_factory=list)
    key: str = ""
    prefix: str = ""
    outside: Tensors = field(default_factory=dict)
    """tensors of the file that do not begin with the prefix: a classifier may be there"""


def choose_state(file: Path, contents: Contents, key: str | None) -> Chosen:
    """The one state dict of a file, or the one under `key`; nothing is loaded yet."""
    states = dict(states_in(contents.tree))
    states.pop(OWN_METADATA, None)
    if not states:
        raise BackboneError(
            f"checkpoint {file}: holds no state dict; expected tensors by name, directly or under "
            f"a name such as {', '.join(WRAPPERS)}"
        )
    if key is not None and key not in states:
        raise BackboneError(
            f"checkpoint {file}: --key {key}: holds no tensors there; there are "
            f"{shorten([name or 'those at the top' for name in states], 8)}"
        )
    where = key if key is not None else pick_state(file, states)
    named = states[where]
    refuse_names(file, list(named))
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        refuse_odd(file, name, value)
    left = {name: "no tensor" for name, value in named.items()
            if not isinstance(value, Tensor | dict) and not where}  # fmt: skip
    chosen = Chosen(tensors, contents.metadata, said=list(contents.said), key=where)
    several = sum(map(holds_vit, states.values())) > 1
    if key is not None or several or where not in ("", *WRAPPERS):
        others = [name or "the top" for name, state in states.items() if holds_vit(state)]
        others = [name for name in others if name != (where or "the top")]
        beside = f", not {shorten(others)}" if others else ""
        chosen.said.append(f"from its part {where or 'the top'}{beside}")
    if left and where == "":
        chosen.skipped |= left
    return chosen


def pick_state(file: Path, states: dict[str, dict[str, Any]]) -> str:
    """Where the one ViT is; `BackboneError` asks for --key where there are several."""
    vits = [where for where, state in states.items() if holds_vit(state)]
    if len(vits) > 1:
        # DINO's and iBOT's files: of the two networks the teacher is evaluated.
        roots = {where.partition(".")[0] for where in vits}
        if roots == {TEACHER, STUDENT}:
            vits = [where for where in vits if where.partition(".")[0] == TEACHER]
    if len(vits) > 1 and all(same(states[vits[0]], states[other]) for other in vits[1:]):
        vits = vits[:1]
    if len(vits) > 1:
        raise BackboneError(
            f"checkpoint {file}: holds {len(vits)} networks, {shorten(vits, 8)}; choose one with "
            f"--key, for example --key {vits[-1]} (timm takes the moving average, model_ema)"
        )
    if vits:
        return vits[0]
    # No ViT: what is there is said by whoever reads on.
    return next((name for name in ("", *WRAPPERS) if name in states), next(iter(states)))


def holds_vit(state: dict[str, Any]) -> bool:
    """Whether a ViT's patches are projected by one of its tensors."""
    return any(map(ANCHOR.search, state))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states have equal tensors."""
    return one.keys() == other.keys() and all(
        value is other[key]
        or (
            isinstance(value, Tensor)
            and isinstance(other[key], Tensor)
            and plain(value)
            and plain(other[key])
            and value.equal(other[key])
        )
        for key, value in one.items()
    )


def plain(value: Tensor) -> bool:
    """Whether its values may be looked at."""
    try:
        refuse_odd(Path(), "", value)
    except BackboneError:
        return False
    return True


def choose_network(file: Path, chosen: Chosen, reading: Reading) -> Chosen:
    """Take the prefix off that all tensors of the one network have, or the one that is named."""
    tensors = chosen.tensors
    networks = {key[: match.start(1)] for key in tensors if (match := ANCHOR.search(key))}
    if reading.prefix is not None:
        prefix = named_prefix(file, tensors, reading.prefix)
        return cut(chosen, prefix, reading.format, () if prefix else networks - {""})
    if not networks:
        refuse_flattened(file, tensors)
        return chosen
    own = "anatomy" in chosen.metadata or "producer" in chosen.metadata
    cuts: dict[str, str | None] = {}
    for network in sorted(networks):
        where, format = best_cut(tensors, network, reading.format, own)
        cuts[where] = format
    if len(cuts) > 1:
        names = [name or "none" for name in cuts]
        raise BackboneError(
            f"checkpoint {file}: holds {len(cuts)} networks, whose names begin with "
            f"{shorten(names, 8)}; choose one with --prefix, for example --prefix {names[-1]}"
        )
    ((where, format),) = cuts.items()
    return cut(chosen, where, format)


def named_prefix(file: Path, tensors: Tensors, prefix: str) -> str:
    """The prefix that a user names, with the dot that it may have been written without."""
    if prefix in ("", "none"):
        return ""
    for each in (prefix, f"{prefix}."):
        if each.endswith(".") and any(key.startswith(each) for key in tensors):
            return each
    found = sorted({key[: match.start(1)] for key in tensors if (match := ANCHOR.search(key))})
    raise BackboneError(
        f"checkpoint {file}: --prefix {prefix}: no tensor's name begins so; networks begin with "
        f"{shorten([name or 'none' for name in found], 8)}"
    )


def best_cut(
    tensors: Tensors, network: str, format: str | None, own: bool
) -> tuple[str, str | None]:
    """How much of a network's prefix to take off: the least that leaves a known layout.

    And that layout; with none known all of it.
    """
    steps = [0, *(match.end() for match in re.finditer(r"\.", network)), len(network)]
    for step in dict.fromkeys(steps):
        inside = under(tensors, network[:step])
        told = [
            name
            for name, each in FORMATS.items()
            if (each.fits(inside) if name == format else each.fits(inside) and each.told(inside))
            and (format is None or name == format)
            and (own or format is not None or name != "mae_bench")
        ]
        if len(told) == 1 and one_network(inside, told[0]):
            return network[:step], told[0]
    return network, None


def one_network(inside: Tensors, format: str) -> bool:
    """Whether a layout's rules leave out all but one of the ViTs."""
    layout = FORMATS[format]
    left = [
        key
        for key in inside
        if ANCHOR.search(key) and not any(re.match(start, key) for start in layout.skip)
    ]
    return len(left) == 1


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with a prefix, without it."""
    if not prefix:
        return tensors
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def cut(chosen: Chosen, prefix: str, format: str | None, others: Collection[str] = ()) -> Chosen:
    """The tensors under a prefix; the rest, and what begins with one of `others`, is named."""
    kept = {
        key: value
        for key, value in chosen.tensors.items()
        if key.startswith(prefix) and not key.startswith(tuple(others))
    }
    chosen.outside = {k: v for k, v in chosen.tensors.items() if k not in kept}
    inside, wrappers = unwrapped(under(kept, prefix))
    for key in chosen.outside:
        chosen.skipped[key] = f"outside of the network ({key.partition('.')[0]})"
    if prefix:
        chosen.said.append(f"prefix {prefix} taken off")
    if wrappers:
        chosen.said.append(f"{' and '.join(wrappers)} taken out of the names of tensors")
    chosen.tensors, chosen.format, chosen.prefix = inside, format, prefix
    return chosen


def unwrapped(tensors: Tensors) -> tuple[Tensors, list[str]]:
    """The tensors without the names of wrappers inside of theirs, and these wrappers.

    All stay as they are where two would have one name: strict loading tells of those.
    """
    out = {AROUND_BLOCKS.sub("", key): value for key, value in tensors.items()}
    if len(out) < len(tensors):
        return tensors, []
    return out, sorted({name for key in tensors for name in AROUND_BLOCKS.findall(key)})


def refuse_flattened(file: Path, tensors: Tensors) -> None:
    """Raise `BackboneError` for a state of FSDP whose parameters are rows without their shapes."""
    flat = sorted(key for key in tensors if FLAT.search(key))
    if flat:
        raise BackboneError(
            f"checkpoint {file}: holds the flattened parameters of FSDP ({shorten(flat)}), whose "
            "names and shapes are lost; expected whole ones: write the file again with "
            "StateDictType.FULL_STATE_DICT"
        )


def shorten(names: list[str], most: int = 4) -> str:
    """The first few names and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
