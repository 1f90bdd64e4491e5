"""Records and tables as pandas' data frames. pandas is imported when one is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from results.errors import ResultsError
from results.formats.texts import owner_of
from results.origins import Pretrainings
from results.record import Record
from results.showing import weights_title

if TYPE_CHECKING:
    import pandas

    from results.table import Column, Table

GIB = 2**30


def records_frame(records: Iterable[Record]) -> pandas.DataFrame:
    """A row for each run, in the order given; a column for each metric, by its name in the record.

    Scores are as in the record (percent from 0 to 100); `<metric>_low` and `<metric>_high` are the
    ends of the 95 % interval over test images, where a run has one. What a run does not have is
    missing (NaN). `weights` is `init` with what our pre-training did otherwise than its protocol,
    as tables name it, where its record is there. Times are in UTC, `hours` of training, `peak_gib`
    of one process's memory.
    """
    records = list(records)
    before = Pretrainings(records)
    parts = [(_about(record, before), _scores(record), _rest(record)) for record in records]
    # The scores of all runs stand together, whichever run has which.
    names = dict.fromkeys(name for part in zip(*parts, strict=True) for row in part for name in row)
    rows = [about | scores | rest for about, scores, rest in parts]
    return _pandas().DataFrame(rows, columns=list(names))


def _about(record: Record, before: Pretrainings) -> dict[str, Any]:
    return {
        "name": record.name,
        "kind": record.kind,
        "task": record.task,
        "protocol": record.protocol,
        "backbone": record.backbone,
        "init": record.init,
        "weights": weights_title(record, before),
        "seed": record.seed,
    }


def _scores(record: Record) -> dict[str, float]:
    found = dict(record.metrics)
    for metric, (low, high) in record.intervals.items():
        found |= {f"{metric}_low": low, f"{metric}_high": high}
    return found


def _rest(record: Record) -> dict[str, Any]:
    weights, cost = record.checkpoint, record.cost
    return {
        "complete": record.complete,
        "deviations": "; ".join(record.deviations),
        "data": record.data.name,
        "train_images": record.data.train_images,
        "val_images": record.data.val_images,
        "classes": record.data.classes,
        "miniature": record.data.miniature,
        "standard": record.data.standard,
        "skipped_images": record.skipped_images,
        "checkpoint": weights.file if weights else None,
        "checkpoint_sha256": weights.sha256 if weights else None,
        "recipe_hash": record.recipe_hash,
        "hours": None if cost.seconds is None else cost.seconds / 3600,
        "images_per_second": cost.images_per_second,
        "peak_gib": None if cost.peak_memory_bytes is None else cost.peak_memory_bytes / GIB,
        "device": record.environment.device,
        "processes": record.environment.processes,
        "sharded": record.environment.sharded,
        "started": record.started,
        "finished": record.finished,
        "command": record.environment.command,
    }


def table_frame(table: Table) -> pandas.DataFrame:
    """The numbers of a table, whole; the columns are called as in its Markdown.

    Beside a measured column stand its standard deviation and number of runs, where any of its
    numbers is the mean of several. An empty cell is missing. `attrs` has title and notes.
    """
    columns: dict[str, list[Any]] = {}
    for number, column in enumerate(table.columns):
        cells, name = [row[number] for row in table.rows], column_name(column)
        if name in columns:  # two columns of one heading differ in their keys
            name = f"{name} [{column.key}]"
        columns[name] = [cell.value for cell in cells]
        if any((cell.n or 1) > 1 for cell in cells):
            columns[f"{name}, std"] = [cell.std for cell in cells]
            columns[f"{name}, runs"] = [cell.n for cell in cells]
    frame = _pandas().DataFrame(columns)
    notes = [f"{note.mark} {note.text}".strip() for note in table.notes]
    frame.attrs |= {"title": table.title, "notes": notes}
    return frame


def column_name(column: Column) -> str:
    """ "ours: top-1 (%)", "published, MAE paper: top-1 (%)"."""
    owner = ", ".join(filter(None, owner_of(column)))
    unit = f" ({column.unit})" if column.unit else ""
    return f"{owner}: {column.title}{unit}" if owner else f"{column.title}{unit}"


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ResultsError(
            "pandas is not installed; pip install pandas, or pip install 'mae-bench[notebook]'"
        ) from None
    return pandas
