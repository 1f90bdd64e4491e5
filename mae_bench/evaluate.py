"""`mae-bench evaluate`: score an ImageNet-1k classifier, of a run or released, on a test set."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import tasks
from backbones.checkpoint import check_keys, file_sha256, read_tensors
from backbones.files import holds_weights
from backbones.loading import rebuild
from mae_bench.again import score_again
from mae_bench.arguments import check_common
from mae_bench.data import announce, task_root
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import duration, say
from mae_bench.released import Released, ReleasedOptions, read_released
from mae_bench.report import show
from mae_bench.run.files import MODEL_FILE
from mae_bench.run.writing import RECORD_FILE, open_run, run_folder
from mae_bench.setup import already_finished, make_record, start, timed
from mae_bench.setup import scoring as scoring_for
from mae_bench.unreadable import write_unreadable
from results import Data, Named, Record, ResultsError, write_record
from results.protocol import ProtocolId
from results.store import read_record
from tasks import check_known
from tasks.classification.classifier import Classifier
from tasks.classification.recipe import ClassificationRecipe
from tasks.classification.robustness import CORRUPTED, SETS, Robustness
from tasks.learnt import CLASSES_FILE, read_classes

TRAINED_ON = "imagenet1k"


def evaluate(
    run: str | Path,
    on: str | None = None,
    data: str | Path | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    limit: int | None = None,
    execution: Execution | None = None,
    backbone: str | None = None,
    init: str | None = None,
    classes: str | Path | None = None,
    **options: Unpack[ReleasedOptions],
) -> Record | None:
    """Score what a run has trained, or the classifier in a file, on a test set, and record it.

    Without `on` the run may be of any task that trains, finished or interrupted; of an interrupted
    one the newest good state is scored, and marked as incomplete. It is scored on the test set of
    `data`, which has the same classes; by default the run's own, where it lay. Test images without
    labels give predictions, and None. With `on` the run is a finished one of ImageNet-1k:

    `run` is that run's folder, or the file of a classifier that was released, such as
    mae_finetuned_vit_base.pth; then `backbone` is its size, `init` a name for the tables, and
    `classes` and `options` are those of `released.read_released`. `on` is one of
    `tasks.classification.robustness.SETS`, below the folder `data` in its official layout. The
    result is a run folder of its own in `out` (default: beside the run; for a file, runs), called
    after the run and the set, with the protocol "<set>/<the run's>". `limit` takes only so many
    images, in ImageNet-C of each corruption and severity, which marks the result. A finished
    evaluation is returned as it is. Bad input raises a one-line error.
    """
    words: dict[str, Any] = {
        word: options.get(word) for word in ("format", "key", "prefix", "grid")
    }
    check_common(out, name, limit=limit, run=run, data=data, init=init, **words)
    how = execution or Execution()
    if on is None or (on not in SETS and on in tasks.known()):
        given: dict[str, Any] = {"backbone": backbone, "init": init, "classes": classes, **options}
        refuse_file(Path(run), given)
        return score_again(Path(run), data, out, name, limit, how, on)
    check_known("test set", on, list(SETS))
    source = read_source(Path(run), backbone, init, classes, **options)
    root = task_root(on, "mini" if data is None else data)
    beside = Path(run).resolve().parent if isinstance(source, Finished) else Path("runs")
    folder = run_folder(beside if out is None else out, name or f"{source.name}-{on}")
    return score_on(on, source, root, folder, limit, how)


def refuse_file(run: Path, given: dict[str, Any]) -> None:
    """Raise `RunError` for a file, and for options of files, where a run's own set is scored."""
    extra = [f"--{key.replace('_', '-')}" for key, value in given.items() if value]
    if run.is_file() or extra:
        what = f"{', '.join(extra)}: for a file" if extra else f"{run} is a file"
        raise RunError(f"{what}; expected --on too, one of {', '.join(SETS)}")


def score_on(
    on: str,
    source: "Finished | Released",
    root: Path,
    folder: Path,
    limit: int | None,
    how: Execution,
) -> Record:
    """Score a classifier on a robustness set, into a run folder of its own."""
    accelerator = start(how, source.fields()["seed"])
    model = source.model().to(accelerator.device)
    measured = Robustness(model, source.classes, on, root, limit)
    scoring = scoring_for(measured, how, accelerator, batch_size=source.recipe.device_batch)
    notes = measured.notes()
    for note in notes:
        say(f"note: {note}")
    facts = Data.model_validate(measured.data_facts() | {"miniature": announce(root)})
    found_in = {"source": str(root)}
    with open_run(folder, identity(source, on, facts, limit) | found_in) as opened:
        done = already_finished(opened)
        if done is not None:
            return done
        into_folder = replace(scoring, folder=folder)
        scored, spent = timed(measured, into_folder, f"evaluating on {on}", facts.val_images)
        known = source.fields() | {
            "name": folder.name,
            "protocol": source.protocol(on),
            "task": on,
            "data": facts,
            "trained_on": source.trained_on,
            "deviations": deviations(source, on, facts, limit),
            "data_notes": notes,
        }
        record = make_record(known, spent, scored, accelerator)
        if accelerator.is_main_process:
            write_unreadable(folder, (), scored.unreadable)
            write_record(folder, record)
            what = "run " if isinstance(source, Finished) else ""
            show([record])
            say(f"predictions  {folder}  ({duration(spent.seconds)})")
            say(f"{record.protocol}, {what}{source.name}: {told(record)}")
    return record


def told(record: Record) -> str:
    """ "top1 35.90 (34.81 to 37.02), top5 56.10 (55.00 to 57.23)": scores with intervals."""
    parts = []
    for metric, value in record.metrics.items():
        ends = record.intervals.get(metric)
        interval = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        parts.append(f"{metric} {value:.2f}{interval}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Finished:
    """A finished run whose classifier can be built again."""

    folder: Path
    record: Record
    recipe: ClassificationRecipe
    classes: list[str]
    """wnids in the order of their indices"""

    def model(self) -> Classifier:
        """The classifier with the run's weights, strictly; `RunError` or `BackboneError`."""
        file = self.folder / MODEL_FILE
        tensors, said = read_tensors(file)
        vit = rebuild(self.record.backbone, self.recipe.backbone_options(), said)
        model = Classifier(self.recipe, vit, len(self.classes))
        check_keys(file, self.record.backbone, tensors, model.state_dict())
        model.load_state_dict(tensors)
        return model

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def protocol(self, on: str) -> str:
        return str(replace(ProtocolId.read(self.record.protocol), task=on))

    def weights_id(self) -> str:
        """SHA-256 of the classifier's file."""
        return file_sha256(self.folder / MODEL_FILE)

    @property
    def trained_on(self) -> Named:
        """The run's own training data."""
        return Named(name=self.record.data.name, fingerprint=self.record.data.fingerprint)

    def fields(self) -> dict[str, Any]:
        """What the run's own record says of it."""
        return dict(self.record)


def identity(
    source: Finished | Released, on: str, facts: Data, limit: int | None
) -> dict[str, Any]:
    """What an evaluation's folder belongs to."""
    fields = source.fields()
    return {
        "task": on,
        "protocol": source.protocol(on),
        "weights": source.weights_id(),
        "recipe": fields["recipe"],
        "seed": fields["seed"],
        "data": facts.model_dump(),
        "init": fields["init"],
        "limit": limit,
    }


def deviations(source: Finished | Released, on: str, facts: Data, limit: int | None) -> list[str]:
    """Those of the run itself, and what an evaluation adds to them."""
    found = list(source.fields()["deviations"])
    if isinstance(source, Finished):
        trained = source.record.data
        if not trained.standard and not (trained.miniature and facts.miniature):
            found.append(
                f"trained on {trained.train_images} images of {trained.name}, not the official set"
            )
    if limit is not None:
        each = " of each corruption and severity" if on == CORRUPTED else ""
        found.append(f"limited to {limit} test images{each}")
    return found


def read_source(
    run: Path,
    backbone: str | None,
    init: str | None,
    classes: str | Path | None,
    **options: Unpack[ReleasedOptions],
) -> Finished | Released:
    """The run in a folder, or the classifier in a file; `RunError` for what goes with neither."""
    given = {"backbone": backbone, "init": init, "classes": classes} | options
    if not run.is_file() and not holds_weights(run):
        extra = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
        if extra and run.is_dir():
            raise RunError(f"{', '.join(extra)}: for a file; the run in {run} tells it itself")
        return read_run(run)
    if backbone is None:
        raise RunError(f"{run} is a file: expected its size too, for example --backbone vit_b")
    return read_released(run, backbone, init, Path(classes) if classes else None, **options)


def read_run(folder: Path) -> Finished:
    """The run in a folder; `RunError` unless it is a finished ImageNet-1k classifier's."""
    wanted = f"expected the folder of a finished {TRAINED_ON} run"
    if not folder.is_dir():
        raise RunError(f"run {folder}: no such folder; {wanted}")
    file = folder / RECORD_FILE
    if not file.is_file():
        raise RunError(
            f"run {folder}: has no {RECORD_FILE}, so it is not finished; {wanted}: the command "
            "that began it goes on with it"
        )
    try:
        record = read_record(file)
    except ResultsError as error:
        raise RunError(f"{file}: damaged ({error}); {wanted}") from None
    if (record.kind, record.task) != ("transfer", TRAINED_ON) or not record.complete:
        raise RunError(f"run {folder}: is {record.protocol} on {record.data.name}; {wanted}")
    for needed in (MODEL_FILE, CLASSES_FILE):
        if not (folder / needed).is_file():
            raise RunError(
                f"run {folder}: its {record.protocol} run has left no {needed}; {wanted} that "
                "trains a classifier, by this version of mae-bench"
            )
    return Finished(folder, record, recipe_of(record, folder), read_classes(folder / CLASSES_FILE))


def recipe_of(record: Record, folder: Path) -> ClassificationRecipe:
    """The recipe that a record tells; `RunError` unless it is a classifier's, field by field."""
    from pydantic import TypeAdapter, ValidationError

    try:
        recipe = TypeAdapter(ClassificationRecipe).validate_python(record.recipe)
    except (ValidationError, ValueError):
        recipe = None
    if recipe is None or recipe.digest() != record.recipe_hash:
        raise RunError(
            f"run {folder}: the recipe of its {record.protocol} run is not of a classifier that "
            "this version of mae-bench trains; expected finetune, linear, partial:K or scratch"
        )
    return recipe
