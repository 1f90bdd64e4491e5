"""Scoring what a run has trained again: on its own test set, or on another one of its classes.

Finished or not: a training is never lost. Of an interrupted one the newest good state is scored.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from backbones.checkpoint import check_keys, read_tensors
from backbones.files import read_regular
from backbones.loading import rebuild
from mae_bench.batches import MicroBatches
from mae_bench.data import MINI, announce, look_at, task_root
from mae_bench.errors import RunError, first_line
from mae_bench.execution import Execution
from mae_bench.progress import duration, progress, say
from mae_bench.recipes import recipe
from mae_bench.report import show
from mae_bench.run.files import MODEL_FILE, RECORD_FILE, RUN_FILE, STATE_FOLDER, STATES
from mae_bench.run.writing import open_run, read_state, run_folder
from mae_bench.setup import Setup, Spent, already_finished, scoring, start
from mae_bench.unreadable import write_unreadable
from results import Checkpoint, Data, Record, ResultsError, parse_record, write_record
from results.protocol import ProtocolId
from tasks.check import refuse
from tasks.errors import TaskError
from tasks.identity import of_split
from tasks.images.unreadable import restored
from tasks.learnt import CLASSES_FILE, as_lines, read_classes
from tasks.recipe import Recipe, TrainingRecipe
from tasks.task import Task

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


def score_again(
    run: Path,
    data: str | Path | None,
    out: str | Path | None,
    name: str | None,
    limit: int | None,
    how: Execution,
    on: str | None = None,
) -> Record | None:
    """Score a run's weights, and record it; None for test images without labels.

    The first score of a finished training on its own test set goes into the run's own folder;
    any other into one beside it. See `mae_bench.evaluate`.
    """
    trained = read_trained(run)
    known = trained.identity
    if on not in (None, known.task):
        raise RunError(f"run {run}: is of {known.task}, and is not scored on {on}; leave out --on")
    accelerator = start(how, known.seed)
    source = str(source_of(trained, data))
    root = task_root(known.task, source)
    found = look_at(known.task, root, how.max_bad_images, test_alone(trained, source))
    if not found.unlabelled:
        refuse(found, known.task, root)
    notes = found.notes()
    for note in notes:
        say(f"note: {note}")
    limit = known.limit if limit is None and unchanged(trained, found.data) else limit
    task = build(trained, found.data, limit)
    how_to_score = scoring(task, how, accelerator, batch_size=trained.recipe.device_batch)
    facts = Data.model_validate(task.data_facts() | {"miniature": announce(root)})
    own = unchanged(trained, found.data) and limit == known.limit
    as_begun = own and facts.fingerprint == known.data.fingerprint
    first = as_begun and not trained.finished and trained.step >= trained.steps
    said = differences(trained, facts, own, first)
    for line in said:
        say(f"note: {line}")
    base = base_of(trained)
    more = (known.seed, facts, known.init, known.checkpoint, limit)
    setup = Setup(known.task, base, trained.recipe, *more, data_notes=notes)
    identity = setup.identity() | {"weights": trained.digest(), "source": source}
    if first:
        folder, identity = trained.folder, read_json(trained.folder / RUN_FILE)
    else:
        folder = run_folder(out or trained.folder.resolve().parent, name or title(trained, facts))
    with open_run(folder, identity) as opened:
        record = already_finished(opened)
        if record is not None:
            return record
        task.to(accelerator.device)
        began, started = time.monotonic(), datetime.now(UTC)
        with progress("evaluating", facts.val_images) as bar:
            scored = task.evaluate(replace(how_to_score, on_progress=bar.update, folder=folder))
        seconds = time.monotonic() - began
        spent = Spent(started, seconds, facts.val_images / seconds)
        if first and trained.spent is not None:
            spent = trained.spent
        if accelerator.is_main_process:
            write_unreadable(folder, spent.skipped, scored.unreadable)
        if found.unlabelled and not scored.metrics:
            say(
                f"the test images of {root} are not labelled: predictions without scores are in "
                f"{folder} ({duration(seconds)}), and there is no record"
            )
            return None
        complete = trained.step >= trained.steps
        record = setup.record(opened, task, spent, scored, accelerator, said, complete)
        if accelerator.is_main_process:
            write_record(folder, record)
            scores = ", ".join(f"{k} {v:.2f}" for k, v in record.metrics.items())
            show([record])
            say(f"predictions  {folder}\n{record.protocol}, run {trained.name}: {scores}")
    return record


def title(trained: Trained, facts: Data) -> str:
    """The folder of another score of a run: "<run>-<data>", or "<run>-step-120-<data>"."""
    step = "" if trained.step >= trained.steps else f"-step-{trained.step}"
    return f"{trained.name}{step}-on-{facts.name}-{facts.fingerprint[:6]}"


def unchanged(trained: Trained, data: Any) -> bool:
    """Whether the test images are those that the run began with, whatever else has changed."""
    known = trained.identity
    if data.fingerprint == known.data.fingerprint or known.tested_on is None:
        return data.fingerprint == known.data.fingerprint
    return of_split(data.limited(known.limit).val, data.classes) == known.tested_on


def differences(trained: Trained, facts: Data, own: bool, first: bool) -> list[str]:
    """What sets a score apart from the one that the run itself records; a line each."""
    found = []
    if trained.step < trained.steps:
        found.append(f"training interrupted after step {trained.step} of {trained.steps}")
    there, here = trained.identity.data, facts
    if not own and there.fingerprint == here.fingerprint:
        found.append(f"scored on {here.val_images} test images instead of {there.val_images}")
    elif not own:
        found.append(
            f"scored on {here.val_images} test images of {here.name} ({here.fingerprint[:12]}), "
            f"not on the {there.val_images} of {there.name} ({there.fingerprint[:12]}) that the "
            "run began with"
        )
    elif not first and not found:
        found.append(f"the weights of {trained.name}, scored again")
    return found


def source_of(trained: Trained, data: str | Path | None) -> str | Path:
    """Where the test set is: what was asked for, else where the run had it."""
    if data is not None:
        return data
    if trained.identity.source is not None:
        return trained.identity.source
    if trained.identity.data.miniature:
        return MINI
    raise RunError(
        f"run {trained.folder}: does not tell where its data lay; expected --data, as the run had"
    )


def build(trained: Trained, data: Any, limit: int | None) -> Task:
    """The task with the run's weights, strictly, on data of the same classes."""
    known = trained.identity
    refuse_other_classes(trained, [str(each) for each in data.classes])
    options = trained.recipe.backbone_options()
    vit = rebuild(trained.recipe.backbone, options, trained.metadata)
    data = tasks.face_of(known.task).as_trained(data, trained.weights)
    task = tasks.build(known.task, trained.recipe, vit, data, known.seed, limit)
    assert isinstance(task, Task)
    check_keys(trained.file, trained.recipe.backbone, trained.weights, task.state_dict())
    task.load_state_dict(trained.weights)
    return task


def test_alone(trained: Trained, source: str) -> list[str] | None:
    """The classes with which `source` may be a test set alone; None: the run trained on a part."""
    own = trained.identity.source
    same = own is not None and Path(own).resolve() == Path(source).resolve()
    part = same and tasks.face_of(trained.identity.task).splits(source)
    return None if part else learnt(trained.folder)


def learnt(folder: Path) -> list[str] | None:
    """The classes of a run; None: it keeps none."""
    file = folder / CLASSES_FILE
    return read_classes(file) if file.is_file() else None


def refuse_other_classes(trained: Trained, here: Sequence[str]) -> None:
    """Raise `RunError` unless the classes are those that the run has learnt, in their order."""
    there = learnt(trained.folder)
    if there is not None:
        lines = as_lines(here)
        if lines != there:
            pairs = zip(there, lines, strict=False)
            what = ", the first that differs being {!r} there and {!r} here"
            odd = [what.format(a, b) for a, b in pairs if a != b]
            raise RunError(
                f"run {trained.folder} has learnt {len(there)} classes, and the data have "
                f"{len(here)}{''.join(odd[:1])}; expected data of the same classes in the same "
                "order"
            )
        return
    count = trained.identity.data.classes
    if count != len(here):
        raise RunError(
            f"run {trained.folder} has learnt {count} classes, and the data have {len(here)}; "
            "expected data of the same classes"
        )
    if count:
        kept = f"which keeps no {CLASSES_FILE}"
        say(f"note: assumed: the {count} classes are those of the run, {kept}")


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


def read_json(file: Path) -> Any:
    """The content of a run's JSON file; `RunError` if there is none."""
    try:
        return json.loads(read_regular(file, MOST_BYTES))
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; expected the folder of a run") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: damaged ({first_line(error)}); expected a run's") from None


def read_identity(folder: Path) -> Identity:
    """What run.json says of a run that trains; `RunError` for anything else."""
    file = folder / RUN_FILE
    content = read_json(file)
    try:
        found = Identity.model_validate_json(json.dumps(content))
    except (ValidationError, RecursionError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": ""}
        where = ".".join(map(str, reason["loc"]))
        raise RunError(
            f"{file}: {where}: {reason['msg']}; expected the run of a downstream task"
        ) from None
    if found.task not in tasks.known():
        what = "a pre-training has no scores" if found.task == "pretrain" else "no task of ours"
        raise RunError(f"run {folder}: is of {found.task!r}: {what}; nothing to evaluate")
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
