"""--sweep: settings chosen by held-out training images, never by the test set.

Each candidate is a run of its own, below the folder of the run that it is for. Its data are the
training images alone, divided once more, so that nothing here could read a test image. The best one
is then trained on all training images, and scored on the test set once.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import tasks
from backbones import BackboneError
from mae_bench.errors import Diverged, HeldError, Interrupted, RunError
from mae_bench.grid import Candidate, Grid, choose
from mae_bench.progress import say
from mae_bench.run.files import FAILED_FILE, MODEL_FILE, RUN_FILE, STATE_FOLDER, write_json
from mae_bench.run.writing import Run, differences, open_run
from mae_bench.setup import start
from mae_bench.transfer import Job, Order, load, measure, prepare
from results import HeldOut, Record, ResultsError, Sweep, Tried
from results.objects import read_object
from results.store import CANDIDATES, MAX_BYTES
from tasks.errors import TaskError
from tasks.face import Metric
from tasks.identity import of_split
from tasks.processes import first_alone


def swept(order: Order, grid: Grid, whole: Job, data: Any, folder: Path) -> Job:
    """The measurement that a sweep chooses; `whole`: the same without a sweep, ready to begin.

    `data` is the data set as read, test images included. Goes on with what is in `folder`. Raises
    `RunError` if all candidates fail; one alone that diverges is named and passed over.
    """
    divided = data.limited(order.limit).divided(grid.holdout, order.seed)
    held_out = HeldOut(
        share=grid.holdout,
        seed=order.seed,
        train_images=len(divided.train),
        images=len(divided.val),
        fingerprint=of_split(divided.val, divided.classes),
    )
    known = first_alone(lambda: known_choice(folder, grid, held_out))
    if known is None:
        refuse_unfit_candidates(order, grid, divided, held_out)
        asked = {"grid": lists(grid.fields), "held_out": held_out.model_dump()}
        with open_run(folder, whole.identity | {"sweep": asked}):
            known = search(order, grid, divided, held_out, folder)
    else:
        say(f"sweep: chosen before: {Tried(values=known.chosen, score=None)}")
    chosen = next(each for each in grid.candidates if lists(each.values) == known.chosen)
    accelerator = start(order.how, order.seed)
    loaded = load(order.begun, chosen.recipe, order.reading, aloud=False)
    notes = whole.setup.data_notes
    return prepare(order, chosen.recipe, loaded, accelerator, data, notes, sweep=known)


def known_choice(folder: Path, grid: Grid, held_out: HeldOut) -> Sweep | None:
    """What the same sweep has chosen before, by the run.json there; None: nothing yet.

    Raises `RunError` where the folder is another sweep's.
    """
    try:
        found = read_object(folder / RUN_FILE, MAX_BYTES).get("sweep")
    except ResultsError:
        return None
    if not isinstance(found, dict):
        return None
    there = {"grid": found.get("grid"), "held_out": found.get("held_out")}
    asked = {"grid": lists(grid.fields), "held_out": held_out.model_dump(mode="json")}
    if there != asked and (folder / CANDIDATES).exists():
        differing = differences(there, asked)
        raise RunError(
            f"run folder {folder}: holds another sweep ({'; '.join(differing)}); choose another "
            "--name or delete the folder"
        )
    try:
        return Sweep.model_validate_json(json.dumps(found))
    except ValidationError:  # begun, and nothing chosen yet
        return None


def search(order: Order, grid: Grid, data: Any, held_out: HeldOut, folder: Path) -> Sweep:
    """Train and score every candidate that is not done yet, and choose."""
    count = len(grid.candidates)
    say(
        f"sweep: {count} candidates of {grid}, each trained on {held_out.train_images:,} of the "
        f"training images and scored on the {held_out.images:,} others ({100 * held_out.share:g} %"
        f"{' of each class' if data.classes and hasattr(data.train, 'targets') else ''}, seed "
        f"{held_out.seed}); no test image is looked at"
    )
    metric, better, tried = None, "higher", list[Tried]()
    for number, candidate in enumerate(grid.candidates, start=1):
        place = folder / CANDIDATES / candidate.name
        with named(candidate):
            found = done_or_failed(order, candidate, data, held_out, place)
        if isinstance(found, str):
            tried.append(Tried(values=lists(candidate.values), score=None, failed=found))
            say(f"candidate {number}/{count}  {candidate}: failed: {found}", style="yellow")
            continue
        metric, how = headline(order.task, found.metrics)
        better, score = how.better, found.metrics[metric]
        seconds = found.cost.seconds
        tried.append(Tried(values=lists(candidate.values), score=score, seconds=seconds))
        say(f"candidate {number}/{count}  {candidate}: {metric} {score:.4f}")
    choice = choose(grid, [each.score for each in tried], better)
    failures = [f"{each} failed: {each.failed}" for each in tried if each.failed]
    for line in choice.notes:
        say(f"note: {line}")
    assert metric is not None
    return Sweep(
        grid=lists(grid.fields),
        metric=metric,
        held_out=held_out,
        tried=tried,
        chosen=lists(choice.candidate.values),
        notes=[*choice.notes, *failures],
    )


def done_or_failed(
    order: Order, candidate: Candidate, data: Any, held_out: HeldOut, place: Path
) -> Record | str:
    """The record of a candidate, or why it diverged; what it needed for that is then removed."""
    job = job_of(order, candidate, data, held_out)
    with open_run(place, job.identity) as run:
        record = run.record
        reason = first_alone(lambda: failure(place)) if record is None else None
        if record is None and reason is None:
            try:
                record = measure(job, run)
            except Diverged as error:
                reason = str(error).partition(";")[0]
                first_alone(lambda: write_json(place / FAILED_FILE, {"reason": reason}))
        first_alone(lambda: clear(run))
    return record if record is not None else str(reason)


def job_of(order: Order, candidate: Candidate, data: Any, held_out: HeldOut) -> Job:
    """The measurement of a candidate on the divided training images, ready to begin."""
    accelerator = start(order.how, order.seed)
    loaded = load(order.begun, candidate.recipe, order.reading, aloud=False)
    apart = [f"scored on {held_out.images} held-out training images, not on the test set"]
    limited = Order(**{**vars(order), "limit": None})  # the data are that already
    return prepare(limited, candidate.recipe, loaded, accelerator, data, (), apart=apart)


def refuse_unfit_candidates(order: Order, grid: Grid, data: Any, held_out: HeldOut) -> None:
    """Raise the error of a candidate that could not begin, before the first one is trained."""
    for candidate in grid.candidates:
        with named(candidate):
            job_of(order, candidate, data, held_out)


@contextmanager
def named(candidate: Candidate) -> Iterator[None]:
    """Have the error of bad input say whose it is."""
    try:
        yield
    except (RunError, TaskError, BackboneError) as error:
        if isinstance(error, Interrupted | HeldError):
            raise
        raise RunError(f"candidate {candidate}: {error}") from None


def failure(place: Path) -> str | None:
    """Why a candidate failed before; None: it did not."""
    file = place / FAILED_FILE
    if not file.exists():
        return None
    try:
        return str(read_object(file, MAX_BYTES)["reason"])
    except (ResultsError, KeyError):
        return None  # it is tried again


def clear(run: Run) -> None:
    """Remove states and weights of a candidate that is done: its score is what is of use."""
    shutil.rmtree(run.folder / STATE_FOLDER, ignore_errors=True)
    (run.folder / MODEL_FILE).unlink(missing_ok=True)


def headline(task: str, metrics: Mapping[str, float]) -> tuple[str, Metric]:
    """The first metric that tables show; `RunError` where a task has none of them."""
    shown = tasks.face_of(task).metrics
    for name, how in shown.items():
        if name in metrics:
            return name, how
    raise RunError(f"--sweep: {task} has none of the scores {', '.join(shown)} to choose by")


def lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return found
