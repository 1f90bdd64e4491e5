"""`mae-bench transfer`: measure a backbone on a downstream task."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState
from torch import Tensor

import backbones
import tasks
from backbones.baselines import BASELINES, find, name_of
from backbones.checkpoint import save
from backbones.files import holds_weights
from backbones.loading import anatomy_metadata
from backbones.plugin import code_of, short
from mae_bench import __version__
from mae_bench.arguments import FEATURES, SCRATCH, check_common, refuse_label, transferring
from mae_bench.cost import with_backbone
from mae_bench.data import announce, is_miniature, task_root, usable, weights_folder
from mae_bench.errors import Diverged
from mae_bench.execution import Execution
from mae_bench.grid import HOLDOUT, read_grid, told
from mae_bench.pretraining.methods.supervised import SUPERVISED
from mae_bench.progress import duration, progress, say
from mae_bench.report import show
from mae_bench.run.files import MODEL_FILE
from mae_bench.run.keeping import Fitted
from mae_bench.run.writing import Run, open_run, run_folder
from mae_bench.setup import (
    PRETRAINING,
    Setup,
    Spent,
    already_finished,
    checkpoint_of,
    refuse_unlogged,
    start,
    tell_changes,
)
from mae_bench.setup import scoring as scoring_for
from mae_bench.starting import Start, settle
from mae_bench.train import fit, refuse_unfit
from mae_bench.unreadable import write_unreadable
from results import Checkpoint, Data, Record, write_record
from results.protocol import ProtocolId
from tasks.identity import of_split
from tasks.learnt import CLASSES_FILE, write_classes
from tasks.recipe import Recipe
from tasks.task import Measurement, Scored, Scoring, Task


@dataclass(frozen=True)
class Loaded:
    """A backbone with the weights that a transfer starts from."""

    vit: Any
    init: str
    """what the weights came from"""
    checkpoint: Checkpoint | None
    """None: random ones"""

    @property
    def anatomy(self) -> dict[str, str]:
        return anatomy_metadata(self.vit)


@dataclass(frozen=True)
class Order:
    """What a transfer was asked for, with nothing left open but the recipe."""

    task: str
    begun: Start
    base: Recipe
    """the protocol's recipe"""
    reading: dict[str, Any]
    data: str | Path
    """as it was given"""
    root: Path
    seed: int
    limit: int | None
    how: Execution
    features: Path


@dataclass(frozen=True)
class Job:
    """A measurement that can begin."""

    built: Measurement
    setup: Setup
    loaded: Loaded
    accelerator: Accelerator
    how: Execution
    scoring: Scoring
    identity: dict[str, Any]
    """what its folder belongs to"""


@dataclass(frozen=True)
class DoneMeasurement:
    """A measurement that is done."""

    measured: Measurement
    scored: Scored
    spent: Spent
    weights: dict[str, Tensor]
    """what was trained; empty: nothing"""


def transfer(
    task: str = "imagenet1k",
    backbone: str | None = None,
    protocol: str | None = None,
    checkpoint: str | Path | None = None,
    data: str | Path = "mini",
    init: str | None = None,
    out: str | Path = "runs",
    name: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    execution: Execution | None = None,
    format: str | None = None,
    allow_pickle: bool = False,
    key: str | None = None,
    prefix: str | None = None,
    heads: int | None = None,
    grid: str | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    sweep_holdout: float = HOLDOUT,
    **overrides: Any,
) -> Record:
    """Train and evaluate a task's protocol on a backbone, and record the scores.

    `protocol` is the first of `tasks.protocols(task)` by default. `checkpoint` is a file, the
    folder of a run or the name of one in `out`; by default it is the newest finished pre-training
    in `out`, of `backbone` if that is given, and `backbone` is by default what the checkpoint says.
    `init` names what the weights came from (by default what the checkpoint says); "scratch" stands
    for random weights; where it is one of `backbones.baselines` and no file is given, its released
    file is taken from the folder `checkpoint`, or from mae-bench/weights in the cache folder.
    `limit` takes only so many images
    of each split, which marks the result; `format` to `grid` say how to read the checkpoint, see
    `backbones.load`; `overrides` are recipe fields. `sweep` lists values of recipe fields: each
    combination is trained without the share `sweep_holdout` of the training images and scored on
    it, and the best is what the run itself trains, on all of them. A run of the same name goes on
    where it stopped, and a finished one is returned as it is. Bad input raises a one-line error
    before training.
    """
    how = execution or Execution()
    check_common(out, name, seed, limit, data=data, checkpoint=checkpoint, init=init, format=format)
    reading: dict[str, Any] = {"format": format, "allow_pickle": allow_pickle, "key": key}
    reading |= {"prefix": prefix, "heads": heads, "grid": grid}
    begun = settle(task, protocol, backbone, checkpoint, init, out, **reading)
    protocol, backbone, checkpoint, init = begun.choice
    base, effective = transferring(
        task, backbone, protocol, checkpoint, init, overrides, how, **reading
    )
    candidates = None if sweep is None else read_grid(sweep, base, overrides, sweep_holdout)
    for line in begun.said:
        say(line)
    accelerator = start(how, seed)
    loaded = load(begun, effective, reading)
    default = re.sub("[/:]", "-", f"{task}-{protocol}-{short(backbone)}-{loaded.init}-seed{seed}")
    if candidates is not None:
        default = f"{default}-swept-{'-'.join(candidates.fields)}"
    folder = run_folder(out, default if name is None else name)
    refuse_unlogged(how, folder)
    root = task_root(task, data)
    checked = usable(task, root, how.max_bad_images)
    order = Order(task, begun, base, reading, data, root, seed, limit, how, Path(out) / FEATURES)
    notes = [note for note in checked.notes() if note not in checked.unreadable()]
    job = prepare(order, effective, loaded, accelerator, checked.data, notes)
    all_notes = dict.fromkeys([*checked.notes(), *job.built.notes()])
    tell_notes(list(all_notes), task, begun, loaded)
    announce(root)
    tell_changes(base, effective)
    if candidates is not None:
        from mae_bench.sweep import swept  # which needs this module

        job = swept(order, candidates, job, checked.data, folder)
    with open_run(folder, job.identity) as run:
        record = already_finished(run)
        if record is None:
            if job.setup.sweep is not None:
                count = job.setup.data.train_images
                say(f"training {told(job.setup.sweep.chosen)} on all {count:,} training images")
            record = measure_chosen(job, run)
            tell(record, run.folder)
        return record


def measure_chosen(job: Job, run: Run) -> Record:
    """`measure`; where what a sweep has chosen diverges on all images, the way on is another one"""
    try:
        return measure(job, run)
    except Diverged as error:
        if job.setup.sweep is None:
            raise
        raise Diverged(
            f"{str(error).rpartition('; ')[0]}; the sweep chose {told(job.setup.sweep.chosen)} on "
            "a part of the images: sweep other values under another --name"
        ) from None


def prepare(
    order: Order,
    recipe: Recipe,
    loaded: Loaded,
    accelerator: Accelerator,
    data: Any,
    notes: Sequence[str],
    **setup: Any,
) -> Job:
    """What is measured, around a backbone; data that do not do are refused here.

    `setup`: further fields of `Setup`.
    """
    task, seed, limit = order.task, order.seed, order.limit
    built = tasks.build(task, recipe, loaded.vit, data, seed, limit)
    if isinstance(built, Task):
        refuse_unfit(built, accelerator, seed, order.how)
    more = {"batch_size": recipe.device_batch, "features": order.features}
    scoring = scoring_for(built, order.how, accelerator, **more)
    all_notes = list(dict.fromkeys([*notes, *built.notes()]))
    inside = is_miniature(order.root)
    facts = Data.model_validate(built.data_facts() | {"miniature": inside})
    trained_on = of_split(built.data.train, built.data.classes)
    start_of = (loaded.init, loaded.checkpoint, limit, trained_on, all_notes)
    made = Setup(task, order.base, recipe, seed, facts, *start_of, **setup)
    code = code_of(recipe.backbone)
    made_by = {} if code is None else {"backbone_code": code}
    identity = made.identity() | made_by | found_in(built, order.data, loaded)
    return Job(built, made, loaded, accelerator, order.how, scoring, identity)


def load(begun: Start, recipe: Recipe, reading: dict[str, Any], aloud: bool = True) -> Loaded:
    """The backbone that a transfer starts from: random, of a file, or a released one."""
    options, init = recipe.backbone_options(), begun.init
    file = released(init, begun.backbone, begun.checkpoint)
    if file is None:
        return Loaded(backbones.create(begun.backbone, **options), init or SCRATCH, None)
    vit, report = backbones.load(begun.backbone, file, **options, **reading)
    if aloud:
        say(str(report))
    known = checkpoint_of(report)
    init = init or report.method or name_of(Path(file))
    refuse_label(init, report.maker, report.file)
    return Loaded(vit, init, known)


def tell_notes(notes: Sequence[str], task: str, begun: Start, loaded: Loaded) -> None:
    """What a user should hear of the data, and of random weights."""
    scratch = None
    if loaded.checkpoint is None:
        scratch = tasks.scratch_note(task, begun.protocol, begun.backbone)
    for note in [*notes, *filter(None, [scratch])]:
        say(f"note: {note}")


def found_in(built: Measurement, data: str | Path, loaded: Loaded) -> dict[str, Any]:
    """What scoring the run again needs to know: where the data lay, and of which shape the ViT."""
    tested_on = of_split(built.data.val, built.data.classes)
    return {"source": str(data), "anatomy": loaded.anatomy, "tested_on": tested_on}


def measure(job: Job, run: Run) -> Record:
    """Train or fit, score, and write all that comes out into the run's folder."""
    built, setup, loaded, accelerator = job.built, job.setup, job.loaded, job.accelerator
    folder, first = run.folder, accelerator.is_main_process
    if first and built.data.classes:
        write_classes(folder / CLASSES_FILE, [str(each) for each in built.data.classes])
    scoring = replace(job.scoring, folder=folder)
    if isinstance(built, Task):
        fitted = fit(built, run, accelerator, setup.seed, job.how, scoring)
        found = score_trained(fitted, run, setup, loaded, accelerator, scoring)
    else:
        found = fit_and_score(built, scoring)
    more = [run.other_test] if run.other_test else []
    spent = with_backbone(found.spent, loaded.vit, setup.effective.image_size)
    record = setup.record(run, found.measured, spent, found.scored, accelerator, more)
    if first:
        if found.weights and not isinstance(built, Task):
            keep(found.weights, setup, loaded, folder)
        write_unreadable(folder, found.spent.skipped, found.scored.unreadable)
        write_record(folder, record)
    return record


def score_trained(
    fitted: Fitted,
    run: Run,
    setup: Setup,
    loaded: Loaded,
    accelerator: Accelerator,
    scoring: Scoring,
) -> DoneMeasurement:
    """Keep what was trained, and evaluate it."""
    task, weights = fitted.model, fitted.model.state_dict()
    if accelerator.is_main_process:  # whatever becomes of the scoring
        keep(weights, setup, loaded, run.folder)
    with progress("evaluating", task.data_facts()["val_images"]) as bar:
        scored = task.evaluate(replace(scoring, on_progress=bar.update))
    return DoneMeasurement(task, scored, fitted.spent, weights)


def fit_and_score(measured: Measurement, scoring: Scoring) -> DoneMeasurement:
    """Evaluate what no loop trains: a probe of frozen features."""
    started, began = datetime.now(UTC), time.monotonic()
    facts = measured.data_facts()
    with progress("extracting features", facts["train_images"] + facts["val_images"]) as bar:
        scored = measured.evaluate(replace(scoring, on_progress=bar.update))
    spent = Spent(started, time.monotonic() - began, skipped=tuple(measured.skipped()))
    return DoneMeasurement(measured, scored, spent, measured.fitted())


def keep(weights: dict[str, Tensor], setup: Setup, loaded: Loaded, folder: Path) -> None:
    """Write what was trained into the run's folder.

    A classifier that was trained from scratch is a supervised pre-training for other tasks.
    """
    origin = {"producer": "mae-bench", "protocol": setup.effective.protocol}
    if ProtocolId.read(setup.effective.protocol).name == SCRATCH:
        made = {"method": SUPERVISED.name, "recipe_hash": setup.effective.digest()}
        origin |= made | {PRETRAINING: setup.origin()}
    save(weights, folder / MODEL_FILE, origin | loaded.anatomy)


def tell(record: Record, folder: Path) -> None:
    """The scores, where the weights are, how to do it again, and, last of all, the scores."""
    if not PartialState().is_main_process:
        return
    show([record])
    say(
        (f"weights    {folder / MODEL_FILE}\n" if (folder / MODEL_FILE).exists() else "")
        + f"to repeat  {record.environment.command}  (seed {record.seed}, recipe "
        f"{record.recipe_hash}, mae-bench {record.environment.commit or __version__})\n"
        f"{record.protocol} with {record.backbone} from {record.init}: "
        f"{', '.join(f'{k} {v:.2f}' for k, v in record.metrics.items())} "
        f"in {duration(record.cost.seconds or 0.0)}"
    )


def released(init: str | None, backbone: str, checkpoint: str | Path | None) -> str | Path | None:
    """The file of a baseline that `init` names, unless `checkpoint` is a file already."""
    place = None if checkpoint is None else Path(checkpoint)
    if init not in BASELINES or (place and (not place.is_dir() or holds_weights(place))):
        return checkpoint
    file = find(init, backbone, Path(checkpoint or weights_folder()))
    note = BASELINES[init][backbone].note
    say(f"{init}: {file}" + (f" ({note})" if note else ""))
    return file
