"""Scoring what a run has trained again: on its own test set, or on another one of its classes.

Finished or not: a training is never lost. Of an interrupted one the newest good state is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

import tasks
from backbones.checkpoint import check_keys
from backbones.loading import rebuild
from mae_bench.data import MINI, announce, look_at, task_root
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import duration, say
from mae_bench.report import show
from mae_bench.run.trained import Trained, base_of, learnt, read_run_file, read_trained
from mae_bench.run.writing import Run, open_run, run_folder
from mae_bench.setup import Setup, Spent, already_finished, scoring, start, timed
from mae_bench.unreadable import write_unreadable
from results import Data, Record, write_record
from tasks.check import refuse
from tasks.identity import of_split
from tasks.images.unreadable import by_reason
from tasks.learnt import CLASSES_FILE, as_lines
from tasks.task import Scoring, Task


@dataclass(frozen=True)
class TestSet:
    """A test set of the classes of a run, and the run's network on it."""

    source: str
    """as a user names it"""
    root: Path
    task: Task
    facts: Data
    limit: int | None
    notes: list[str]
    unlabelled: bool
    own: bool
    """whether these are the very images that the run began with"""


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
    test = test_set(trained, str(source_of(trained, data)), limit, how)
    how_to_score = scoring(test.task, how, accelerator, batch_size=trained.recipe.device_batch)
    first = is_first(trained, test)
    said = differences(trained, test.facts, test.own, first)
    for line in said:
        say(f"note: {line}")
    more = (known.seed, test.facts, known.init, known.checkpoint, test.limit)
    base = base_of(trained)
    setup = Setup(known.task, base, trained.recipe, *more, data_notes=test.notes, sweep=known.sweep)
    if first:
        folder, identity = trained.folder, read_run_file(trained.folder)
    else:
        beside = trained.folder.resolve().parent
        folder = run_folder(out or beside, name or title(trained, test.facts))
        identity = setup.identity() | {"weights": trained.digest(), "source": test.source}
    with open_run(folder, identity) as opened:
        done = already_finished(opened)
        spent = trained.spent if first else None
        return done or score(opened, trained, test, setup, spent, accelerator, how_to_score, said)


def test_set(trained: Trained, source: str, limit: int | None, how: Execution) -> TestSet:
    """What is to be scored; `RunError` or `TaskError` for data that cannot be."""
    known = trained.identity
    root = task_root(known.task, source)
    found = look_at(known.task, root, how.max_bad_images, test_alone(trained, source))
    if not found.unlabelled:
        refuse(found, known.task, root)
    notes = found.notes()
    for note in notes:
        say(f"note: {note}")
    notes = [note for note in notes if note not in found.unreadable()]
    same = unchanged(trained, found.data)
    limit = known.limit if limit is None and same else limit
    task = build(trained, found.data, limit)
    facts = Data.model_validate(task.data_facts() | {"miniature": announce(root)})
    own = same and limit == known.limit
    return TestSet(source, root, task, facts, limit, notes, found.unlabelled, own)


def is_first(trained: Trained, test: TestSet) -> bool:
    """Whether this is the score that a training which has come to its end still lacks."""
    as_begun = test.own and test.facts.fingerprint == trained.identity.data.fingerprint
    return as_begun and not trained.finished and trained.step >= trained.steps


def score(
    opened: Run,
    trained: Trained,
    test: TestSet,
    setup: Setup,
    spent: Spent | None,
    accelerator: Accelerator,
    how: Scoring,
    said: Sequence[str],
) -> Record | None:
    """Score, and write all that comes out into the run's folder; None without labels.

    `spent`: what the training took, where the score is its own.
    """
    folder = opened.folder
    test.task.to(accelerator.device)
    scored, scoring_took = timed(
        test.task, replace(how, folder=folder), "evaluating", test.facts.val_images
    )
    spent = spent or scoring_took
    if accelerator.is_main_process:
        write_unreadable(folder, spent.skipped, scored.unreadable)
    if test.unlabelled and not scored.metrics:
        say(
            f"the test images of {test.root} are not labelled: predictions without scores are in "
            f"{folder} ({duration(scoring_took.seconds)}), and there is no record"
        )
        for line in by_reason(scored.unreadable):
            say(f"unreadable   {line}")
        return None
    complete = trained.step >= trained.steps
    record = setup.record(opened, test.task, spent, scored, accelerator, said, complete)
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
