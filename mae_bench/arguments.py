"""What a call is given, checked before anything is read or imported. Imports no torch.

The commands call this before the modules that do the work are imported, and these call it again,
for who calls them from Python. The numbers of a recipe have their bounds in its class.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import tasks
from backbones.baselines import BASELINES
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.recipes import PRETRAIN, override, recipe
from tasks.recipe import Recipe, TrainingRecipe

SCRATCH = "scratch"
"""random weights: the protocol of that name, or --init in tasks that have none and in probes"""
FEATURES = "features"
"""folder beside the runs for what probes share, which can be deleted at any time"""
PRINTED = "printed"
"""folder beside the runs for what the runs of a suite print"""
JOBS = "jobs"
"""folder beside the runs for what a cluster's jobs are made of"""
MOST_LETTERS = 220
"""bytes of a name: file systems take 255, and what belongs to a run is called after it"""
MOST_LABEL = 100
"""letters of a label"""
FILE_ENDINGS = (".zip", ".md", ".html", ".tex", ".csv", ".json", ".svg", ".png", ".pdf", ".lock")
"""of files that reports and packed runs are beside the runs"""
MOST_IMAGES = 10**9


def check_common(
    out: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    **texts: Any,
) -> None:
    """Raise `RunError` for what no command takes; `texts` are the words given for other flags."""
    for flag, text in ({"out": out} | texts).items():
        if isinstance(text, str) and not text.strip():
            raise RunError(f"--{flag} is empty; give it a value or leave it out")
    if name is not None:
        check_name(name)
    check_seed(seed)
    if limit is not None and not is_whole(limit, 1, MOST_IMAGES):
        raise RunError(f"limit is {limit!r}; expected at least 1 image, a whole number")


def check_name(name: str) -> None:
    """Raise `RunError` unless `name` is one that a run's folder can have."""
    if not name.isprintable() or name in ("", ".", "..") or "/" in name or os.sep in name:
        raise RunError(
            f"run name {name!r}: expected the name of one folder, without a slash; "
            "say where it lies with --out"
        )
    fault = ""
    if name == PRINTED:
        fault = "is the folder of what the runs of a suite print"
    elif name == JOBS:
        fault = "is the folder of what a cluster's jobs are made of"
    elif name == FEATURES:
        fault = "is the folder of the features that probes share, which can be deleted"
    elif name != name.strip() or name.startswith("."):
        fault = "begins with a dot or has a space at an end"
    elif name.lower().endswith(FILE_ENDINGS):
        fault = "ends as a file of a report or of a packed run does"
    elif len(name.encode()) > MOST_LETTERS:
        fault = f"is longer than {MOST_LETTERS} bytes"
    if fault:
        raise RunError(f"run name {name!r} {fault}; choose another --name")


def slug(value: object) -> str:
    """A value as a part of a folder's name."""
    text = "-".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return re.sub(r"[^A-Za-z0-9._+@-]", "-", text)


def shortened(name: str) -> str:
    """A name that file systems take: the end of one that is too long gives way to its hash."""
    if len(name.encode()) <= MOST_LETTERS - 20:  # for what an evaluation adds
        return name
    return f"{name[: MOST_LETTERS - 40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def check_seed(seed: int) -> None:
    """Raise `RunError` unless every generator takes this seed."""
    if not is_whole(seed, 0, 2**32 - 1):
        raise RunError(f"seed is {seed!r}; expected a whole number from 0 to 2^32 - 1")


def is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def pretraining(
    backbone: str, overrides: dict[str, Any], method: str = "mae"
) -> tuple[Recipe, Recipe]:
    """The recipe of a method as published and as changed; an error of one line for a bad change."""
    base = recipe(PRETRAIN, backbone, method)
    return base, override(base, overrides)


def transferring(
    task: str,
    backbone: str,
    protocol: str,
    checkpoint: str | Path | None,
    init: str | None,
    overrides: dict[str, Any],
    execution: Execution | None = None,
    **reading: Any,
) -> tuple[Recipe, Recipe]:
    """A protocol's recipe as published and as changed; `RunError` for what contradicts itself.

    `reading` are flags that say how the checkpoint is read.
    """
    base = recipe(task, backbone, protocol)
    effective = override(base, overrides)
    trains = isinstance(effective, TrainingRecipe)
    given = [flag for flag, value in reading.items() if value not in (None, False)]
    unread = ", ".join(f"--{flag.replace('_', '-')}" for flag in given)
    if unread and checkpoint is None and init not in BASELINES:
        raise RunError(f"{unread}: there is no checkpoint to read; leave it out")
    how = execution or Execution()
    asked = {"compile": how.compile, "checkpoint-activations": how.checkpoint_activations}
    asked |= {"shard": how.shard, "eval-every": bool(how.eval_every)}
    asked["log"] = how.log != "tensorboard"
    flag = next((f"--{name}" for name, given in asked.items() if given), None)
    if not trains and flag:
        raise RunError(f"{flag}: --protocol {protocol} trains no backbone; leave it out")
    return base, effective


def refuse_source(
    task: str, protocol: str, trains: bool, checkpoint: str | Path | None, init: str | None
) -> None:
    """Raise `RunError` unless it is clear whether weights are loaded or drawn.

    And unless the label `init` says the same: tables call a run after it.
    """
    own = protocol in tasks.own_protocols(task)
    # Then it is the protocol that says so.
    named = trains and SCRATCH in tasks.protocols(task) and not own
    flag = f"--protocol {SCRATCH}" if named else f"--init {SCRATCH}"
    if init is not None and not (init.strip() and init.isprintable() and len(init) <= MOST_LABEL):
        raise RunError(f"--init {init!r}: expected a short name on one line, for the tables")
    labelled = init is not None and init.lower() == SCRATCH
    if protocol == SCRATCH if named else init == SCRATCH:
        if checkpoint is not None:
            raise RunError(f"{flag} starts from random weights; leave out --checkpoint")
        if init is not None and not labelled:
            raise RunError(f"{flag} starts from random weights; leave out --init {init}")
        return
    if labelled:
        raise RunError(
            f"--init {init} is the name of random weights, and --protocol {protocol} starts from "
            f"--checkpoint; name its weights otherwise; to start from random weights: {flag} alone"
        )


def refuse_label(init: str, told: str | None, file: str, classifier: bool = False) -> None:
    """Raise `RunError` if the label `init` says what the loaded file contradicts.

    `told` is the method that a file of ours names, or the layout of another's. The label may come
    from a flag, or from the name of the file. A whole classifier may well be trained from scratch.
    """
    from results.labels import plain  # slow, and flags need it not

    shown = METHODS.get(told or "", told)
    labels = {plain(name): name for name in BASELINES}
    label = labels.get(plain(init))
    if plain(init) == SCRATCH and not classifier:
        raise RunError(f"{file}: its run would be called {init!r}; name its weights with --init")
    if label and shown in BASELINES and label != shown:
        raise RunError(
            f"{file}: its run would be called {init!r}, and by what the file holds (format {told}) "
            f"it is {shown}; name its weights with --init, for example {shown}"
        )


METHODS = {
    "mae": "mae",
    "mae_full": "mae",
    "hf_mae": "mae",
    "moco_v3": "moco_v3",
    "beit": "beit",
    "beit_finetuned": "beit",
    "hf_beit": "beit",
    "dino_full": "dino",
}
"""layout of a checkpoint that one method alone writes -> that method"""
