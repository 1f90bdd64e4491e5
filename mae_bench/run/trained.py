"""What the folder of a run says that it has trained, finished or not."""

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from torch import Tensor

import tasks
from backbones.checkpoint import read_tensors
from backbones.files import read_regular
from mae_bench.batches import MicroBatches
from mae_bench.errors import RunError, first_line
from mae_bench.progress import say
from mae_bench.recipes import recipe
from mae_bench.run.files import MODEL_FILE, RECORD_FILE, RUN_FILE, STATE_FOLDER, STATES
from mae_bench.run.writing import read_state
from mae_bench.setup import Spent
from results import Checkpoint, Data, Earlier, ResultsError, Sweep, parse_record
from results.objects import read_object
from results.protocol import ProtocolId
from tasks.errors import TaskError
from tasks.images.unreadable import restored
from tasks.learnt import CLASSES_FILE, read_classes
from tasks.recipe import Recipe, TrainingRecipe

MOST_BYTES = 2**24
"""of a run.json or record.json"""


class Identity(BaseModel):
    """What a run.json says, as far as it is used here."""

    model_config = ConfigDict(strict=True, extra="ignore")

    task: str
    recipe: dict[str, Any]
    seed: NonNegativeInt
    data: Data
    init: str
    checkpoint: Checkpoint | None = None
    limit: PositiveInt | None = None
    source: str | None = None
    """where the data lay"""
    tested_on: str | None = None
    """names the test images alone; see `tasks.identity`"""
    sweep: Sweep | None = None
    """how fields of the recipe were chosen"""
    anatomy: dict[str, str] = {}
    """of the backbone, for `backbones.loading.rebuild`"""


@dataclass(frozen=True)
class Trained:
    """What a run has trained so far."""

    folder: Path
    identity: Identity
    recipe: TrainingRecipe
    finished: bool
    """whether there is a record"""
    file: Path
    """of the weights"""
    weights: dict[str, Tensor]
    metadata: dict[str, str]
    step: int
    """optimiser steps behind the weights"""
    steps: int
    """of the whole training"""
    spent: Spent | None
    """None of a run with a record, which has it"""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def digest(self) -> str:
        """Of the weights, for the identity of what is scored with them."""
        found = hashlib.sha256()
        for name, value in sorted(self.weights.items()):
            found.update(f"{name} {tuple(value.shape)}\n".encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def read_trained(folder: Path) -> Trained:
    """What a run has trained; `RunError` if it is none that can be scored again."""
    if not folder.is_dir():
        raise RunError(f"run {folder}: no such folder; expected the folder of a run")
    identity = read_identity(folder)
    effective = read_recipe(folder, identity)
    whole = getattr(effective, "epoch_images", None) if identity.data.standard else None
    try:
        plan = MicroBatches(identity.data.train_images, effective, 0, 0, 1, whole)
    except RunError as error:
        raise RunError(f"run {folder}: {error}") from None
    steps = plan.num_steps
    if finished(folder):
        file = folder / MODEL_FILE
        weights, metadata = read_tensors(file)
        return Trained(
            folder, identity, effective, True, file, weights, metadata, steps, steps, None
        )
    file, state = newest_state(folder)
    try:
        step = int(state["step"])
        averaged = effective.ema_decay is not None and "ema" in state
        weights = {
            key.removeprefix("module.") if averaged else key: value
            for key, value in state["ema" if averaged else "model"].items()
        }
        spent = Spent(
            started=datetime.fromtimestamp(state["started"], UTC),
            seconds=float(state["seconds"]),
            images_per_second=step * effective.batch_size / max(float(state["seconds"]), 1e-9),
            skipped=tuple(restored(state["skipped"])),
            earlier=tuple(
                Earlier(device=device, processes=processes, sharded=sharded, seconds=seconds)
                for device, processes, sharded, seconds in state.get("places", ())
            ),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise RunError(
            f"{file}: is no state of this version of mae-bench ({first_line(error)})"
        ) from None
    metadata = identity.anatomy
    return Trained(folder, identity, effective, False, file, weights, metadata, step, steps, spent)


def finished(folder: Path) -> bool:
    """Whether a run has a record, which has to be one, and its weights."""
    file = folder / RECORD_FILE
    if not file.exists():
        return False
    try:
        parse_record(read_regular(file, MOST_BYTES))
    except (OSError, ResultsError) as error:
        raise RunError(f"{file}: damaged ({error}); expected a run's {RECORD_FILE}") from None
    if not (folder / MODEL_FILE).is_file():
        raise RunError(f"run {folder}: has left no {MODEL_FILE}, so there is nothing to score")
    return True


def newest_state(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest readable state of a run that has no record yet; damaged ones are named."""
    for file in sorted((folder / STATE_FOLDER).glob(STATES), reverse=True):
        try:
            state = read_state(file)
        except (BadZipFile, RuntimeError, EOFError, KeyError, OSError, UnpicklingError) as error:
            say(f"{file} is damaged ({first_line(error)})", style="yellow")
            continue
        if isinstance(state, dict):
            return file, state
        say(f"{file} is no state", style="yellow")
    raise RunError(f"run {folder}: has neither a record nor a readable state; nothing to score")


def read_run_file(folder: Path) -> dict[str, Any]:
    """The content of run.json; `RunError` if there is none."""
    file = folder / RUN_FILE
    if folder.is_dir() and not os.path.lexists(file):
        raise RunError(f"{folder} has no {RUN_FILE}; expected the folder of a run")
    try:
        return read_object(file, MOST_BYTES)
    except ResultsError as error:
        raise RunError(f"{file}: damaged ({error}); expected the folder of a run") from None


def read_identity(folder: Path) -> Identity:
    """What run.json says of a run that trains; `RunError` for anything else."""
    file = folder / RUN_FILE
    try:
        found = Identity.model_validate_json(json.dumps(read_run_file(folder)))
    except ValidationError as error:
        reason = error.errors()[0]
        where = ".".join(map(str, reason["loc"]))
        raise RunError(
            f"{file}: {where}: {reason['msg']}; expected the run of a downstream task"
        ) from None
    if found.task not in tasks.known():
        what = "no task of ours"
        if found.task == "pretrain":
            what = "a pre-training has no head and no scores; transfer it first"
        raise RunError(f"run {folder}: is of {found.task!r}: {what}")
    return found


def protocol_of(identity: Identity) -> str:
    """The protocol's name, as `mae-bench transfer --protocol` takes it."""
    return ProtocolId.read(str(identity.recipe.get("protocol"))).asked


def read_recipe(folder: Path, identity: Identity) -> TrainingRecipe:
    """The run's own recipe; `RunError` unless this version trains by such."""
    expected = "expected the run of a protocol that trains, by this version of mae-bench"
    try:
        kind = tasks.recipe_type(identity.task, protocol_of(identity))
        found = TypeAdapter(kind).validate_python(identity.recipe)
    except (TaskError, ValidationError, ValueError) as error:
        raise RunError(f"run {folder}: its recipe: {first_line(error)}; {expected}") from None
    if not isinstance(found, TrainingRecipe):
        raise RunError(
            f"run {folder}: {found.protocol} is a probe, which is scored as it is fitted: give "
            "mae-bench transfer with the other --data"
        )
    return found


def base_of(trained: Trained) -> Recipe:
    """The protocol's recipe, from which the run's own may deviate."""
    identity = trained.identity
    return recipe(identity.task, trained.recipe.backbone, protocol_of(identity))


def learnt(folder: Path) -> list[str] | None:
    """The classes of a run; None: it keeps none."""
    file = folder / CLASSES_FILE
    return read_classes(file) if file.is_file() else None
