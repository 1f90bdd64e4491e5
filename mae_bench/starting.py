"""What a transfer starts from: random weights, a file, a run, or the newest pre-training.

Imports no torch, but to look into a file that does not say in its metadata what it is.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backbones
import tasks
from backbones import BackboneError
from backbones.baselines import BASELINES
from backbones.files import RUN_FILES, holds_weights
from mae_bench.arguments import SCRATCH, refuse_source
from mae_bench.calls import chosen
from mae_bench.errors import RunError
from mae_bench.run.files import BACKBONE_FILE, MAE_FILE, MODEL_FILE, RECORD_FILE
from tasks.recipe import TrainingRecipe

DEFAULT = "vit_mini"
"""the backbone of who names neither one nor weights"""
REMOTE = ("timm:", "hf:")


@dataclass(frozen=True)
class Start:
    """What a transfer starts from, with nothing left open."""

    protocol: str
    backbone: str
    checkpoint: str | Path | None
    """None: random weights, or the released ones of `init`"""
    init: str | None
    said: tuple[str, ...] = ()
    """a line about each thing that was chosen for the user"""

    @property
    def choice(self) -> tuple[str, str, str | Path | None, str | None]:
        """Protocol, backbone, checkpoint and label."""
        return self.protocol, self.backbone, self.checkpoint, self.init


def settle(
    task: str,
    protocol: str | None,
    backbone: str | None,
    checkpoint: str | Path | None,
    init: str | None,
    out: str | Path,
    **reading: Any,
) -> Start:
    """Protocol, backbone and weights of a transfer, as far as the user left them open.

    The weights are those of `checkpoint`: a file, the folder of a run or the name of one in `out`;
    or the released ones that `init` names; or else the newest finished pre-training in `out`, of
    `backbone` if one is named. The backbone is the one that the weights say they are of. `reading`
    as for `backbones.load`. Raises `RunError` for what contradicts itself, and for weights that are
    not there, naming what is.
    """
    protocol, init, said = one_scratch(task, protocol, checkpoint, init)
    trains = issubclass(tasks.recipe_type(task, protocol), TrainingRecipe)
    refuse_source(task, protocol, trains, checkpoint, init)
    if checkpoint is None and SCRATCH in (protocol, init):
        return Start(protocol, backbone or DEFAULT, None, init, said)
    if init in BASELINES and (checkpoint is None or is_plain_folder(checkpoint)):
        if backbone is None:
            sizes = ", ".join(BASELINES[init])
            raise RunError(f"--init {init}: of which size? Give --backbone, one of {sizes}")
        return Start(protocol, backbone, checkpoint, init, said)
    if checkpoint is None:
        run, told = newest_pretraining(Path(out), backbone, f"--protocol {protocol}")
        line = f"weights: {run} (the newest finished pre-training{told} in {out})"
        found: str | Path = run
        chosen.set(str(run))
        said = (*said, line)
        if init is not None:
            names = ", ".join(BASELINES)
            said = (*said, f"--init {init}: their label in tables (released are {names})")
    else:
        found, more = located(checkpoint, out)
        said = (*said, *more)
    if backbone is None:
        backbone = backbone_of(found, reading)
        said = (*said, f"backbone: {backbone}, as the checkpoint says")
    return Start(protocol, backbone, found, init, said)


def likely_backbone(
    task: str,
    protocol: str,
    checkpoint: str | None,
    init: str | None,
    out: str,
) -> str:
    """The backbone whose recipe a command line's flags are; its command says what is wrong."""
    try:
        return settle(task, protocol, None, checkpoint, init, out).backbone
    except (RunError, BackboneError):
        return DEFAULT


def one_scratch(
    task: str, protocol: str | None, checkpoint: str | Path | None, init: str | None
) -> tuple[str, str | None, tuple[str, ...]]:
    """Protocol and label, where `--protocol scratch` and `--init scratch` mean the same.

    Where a task has a protocol of that name, its recipe is that of training from random weights;
    where it has none, random weights take the protocol of trained ones. What contradicts a
    `checkpoint` is left for `refuse_source` to say.
    """
    usual = next(iter(tasks.protocols(task)))
    own = SCRATCH in tasks.protocols(task)
    if checkpoint is None and own and init == SCRATCH and protocol in (None, usual):
        line = f"--init {SCRATCH}: protocol {SCRATCH} of {task}, which has a recipe of its own"
        return SCRATCH, init, (line,)
    if not own and protocol == SCRATCH:
        if init not in (None, SCRATCH):
            raise RunError(
                f"--protocol {SCRATCH} starts from random weights; leave out --init {init}"
            )
        line = f"--protocol {SCRATCH}: protocol {usual} of {task} from random weights"
        return usual, SCRATCH, (line,)
    return protocol or usual, init, ()


def is_plain_folder(place: str | Path) -> bool:
    """Whether it is a folder of files, such as released ones, and no checkpoint itself."""
    folder = Path(place)
    return folder.is_dir() and not holds_weights(folder) and not is_run(folder)


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def newest_pretraining(out: Path, backbone: str | None, who: str) -> tuple[Path, str]:
    """The encoder of the newest finished pre-training in `out`, and words about it.

    Of `backbone`, or of any. Raises `RunError` on behalf of `who`, naming all that would do.
    """
    from results import Record  # slow, and flags need it not
    from results.store import folders_with, read_folder

    made: list[tuple[Path, Record]] = []
    unfinished = []
    for folder in folders_with((BACKBONE_FILE, RUN_FILES[0]), out):
        has_record = (folder / RECORD_FILE).exists()
        if has_record and (folder / BACKBONE_FILE).is_file():  # of thousands few are read
            found = read_folder(folder)
            if isinstance(found, Record) and found.kind == "pretrain" and found.complete:
                made.append((folder, found))
        elif not has_record and folder.name.startswith("pretrain-"):
            unfinished.append(folder)
    fitting = [each for each in made if backbone in (None, each[1].backbone)]
    if fitting:
        folder, record = max(fitting, key=lambda each: (each[1].finished, each[1].name))
        return folder / BACKBONE_FILE, f" of {record.backbone}" if backbone else ""
    raise RunError(without_weights(out, backbone, who, made, unfinished))


def without_weights(
    out: Path, backbone: str | None, who: str, made: Sequence[Any], unfinished: Sequence[Path]
) -> str:
    """What to say where no weights were named and there are none to take."""
    of = f" of {backbone}" if backbone else ""
    would = [f"mae-bench pretrain{f' --backbone {backbone}' if backbone else ''}"]
    would += [f"--checkpoint {folder} ({record.backbone})" for folder, record in made[-3:]]
    released = [name for name, sizes in BASELINES.items() if backbone in (None, *sizes)]
    if released:
        would.append(f"--init {' or '.join(released)} (released weights)")
    would.append(f"to start from random weights: --init {SCRATCH}")
    begun = f" ({unfinished[0]} is not finished)" if unfinished else ""
    return (
        f"{who} needs --checkpoint FILE: there is no finished pre-training{of} in {out}{begun}; "
        f"what would do: {'; '.join(would)}"
    )


def located(
    checkpoint: str | Path, out: str | Path, whole: bool = False
) -> tuple[str | Path, tuple[str, ...]]:
    """The file that `checkpoint` means, and a line if that was not plain.

    That is itself; in the folder of a run, or in the run of that name in `out`, the weights. Those
    are a pre-training's encoder, or with `whole` its autoencoder, or what a transfer has trained.
    """
    if str(checkpoint).startswith(REMOTE):
        return checkpoint, ()
    place = Path(checkpoint)
    if not place.exists():
        named = Path(out) / place
        if place.is_absolute() or not is_run(named):
            raise RunError(f"checkpoint {place}: no such file{runs_like(place, Path(out))}")
        place = named
    if not is_run(place):
        return checkpoint, ()
    wanted = [*([MAE_FILE] if whole else []), BACKBONE_FILE, MODEL_FILE]
    files = [place / name for name in wanted if (place / name).is_file()]
    if not files or not (place / RECORD_FILE).is_file():
        state = "holds no weights" if (place / RECORD_FILE).is_file() else "is not finished"
        raise RunError(
            f"checkpoint {place}: is the folder of a run that {state}; expected one with "
            f"{' or '.join(wanted)}"
        )
    return files[0], (f"weights: {files[0]}",)


def runs_like(name: Path, out: Path) -> str:
    """What to add about the runs that there are, to the complaint about an unknown name."""
    if len(name.parts) > 1 or name.suffix or not out.is_dir():
        return ""
    there = sorted(folder.name for folder in out.iterdir() if is_run(folder))
    near = difflib.get_close_matches(str(name), there, n=3)
    return f", and no run in {out}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def backbone_of(checkpoint: str | Path, reading: dict[str, Any]) -> str:
    """The backbone that a checkpoint is of: by its own word, or else by its tensors.

    Raises `RunError` if neither tells one that we know.
    """
    told = own_word(checkpoint)
    if told is None:
        fits = backbones.inspect(checkpoint, **reading).backbones
        if len(fits) != 1:
            what = f"fits {' and '.join(fits)}" if fits else "has the size of no backbone by name"
            raise RunError(f"checkpoint {checkpoint}: {what}; say which it is with --backbone")
        return fits[0]
    try:
        backbones.size_of(told)
    except BackboneError:
        raise RunError(
            f"checkpoint {checkpoint}: says that it is of {told!r}, which is no backbone of ours; "
            f"name yours with --backbone FILE.py:{told}"
        ) from None
    return told


def own_word(checkpoint: str | Path) -> str | None:
    """The backbone that a file of ours names in its metadata; None in others."""
    file = Path(checkpoint)
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            return (opened.metadata() or {}).get("backbone")
    except (SafetensorError, OSError):  # which loading it says better
        return None
