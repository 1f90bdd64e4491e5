"""`mae-bench runs rescore`: a bundle's scores, computed again from its predictions."""

from dataclasses import dataclass
from pathlib import Path

import tasks
from mae_bench.errors import RunError
from mae_bench.progress import say
from mae_bench.run.files import RUN_FILE
from mae_bench.text_table import NOTHING, plain, show_table
from results import Record
from results.bundle import open_bundle
from tasks.errors import TaskError

IMAGES = "images"
"""a row of its own where predictions are not of as many images as the record has"""
SAME_WITHIN = 1e-6
"""points; less is what another machine's sums differ by"""


@dataclass(frozen=True)
class Rescored:
    """A metric as it was recorded, and as the predictions give it."""

    metric: str
    recorded: float | None
    recomputed: float | None
    """None: the predictions alone do not give it"""

    @property
    def same(self) -> bool:
        if self.recomputed is None:
            return True
        return self.recorded is not None and abs(self.recorded - self.recomputed) <= SAME_WITHIN


def rescore(bundle: str | Path, data: str | Path | None = None) -> list[Rescored]:
    """Compute the scores of a bundle's run again from its predictions, and print both.

    `data` is the data set that it was scored on. Classifications can do without, and then the
    classes of the images are taken from their predictions' file.
    """
    with open_bundle(bundle) as unpacked:
        record = unpacked.record
        limit = unpacked.identity.get("limit")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise RunError(f"{bundle}: {RUN_FILE}: limit is no number of images")
        try:
            found, unpredicted = scores(record, unpacked.folder, data, limit)
        except (RunError, TaskError) as error:  # which may name files that will be gone
            reason = str(error).replace(f"{unpacked.folder}/", "")
            raise RunError(plain(f"{bundle}: {reason}")) from None
    recorded = record.metrics | {IMAGES: record.data.val_images}
    rows = [
        Rescored(metric, recorded.get(metric), found.get(metric))
        for metric in dict.fromkeys([*record.metrics, *found])
    ]
    table = [("metric", "recorded", "recomputed", "")]
    for row in rows:
        verdict = "same" if row.same else "DIFFERENT"
        verdict = verdict if row.recomputed is not None else "not from predictions alone"
        table.append((row.metric, number(row.recorded), number(row.recomputed), verdict))
    say(plain(f"{record.name}: {record.protocol}, {record.backbone} from {record.init}"))
    show_table(table)
    if data is None:
        say("the classes of the images are those that its predictions' file says")
    if unpredicted:
        say(f"{unpredicted} test images have no prediction and are left out")
    if not all(row.same for row in rows):
        say("the record does not say what its predictions score")
    return rows


def scores(
    record: Record, folder: Path, source: str | Path | None, limit: int | None
) -> tuple[dict[str, float], int]:
    """Metrics of the predictions in a folder, and how many test images have none."""
    if record.kind == "pretrain":
        raise RunError("a pre-training has no predictions; nothing to re-score")
    face = tasks.face_of(record.task)
    data = None
    if record.task in face.only_test and source is not None:
        raise RunError(f"{record.task} is re-scored from its predictions alone; leave out --data")
    if face.truth_with_data and source is None:
        mini = ", or mini" if record.data.miniature else ""
        raise RunError(
            f"{record.task} needs the data that the run was scored on: expected --data DIR{mini}"
        )
    if source is not None:
        from mae_bench.data import task_root

        data = face.read(record.task, task_root(record.task, source))
        require_same_data(record, data.fingerprint, source)
        data = data.limited(limit)
    found = face.rescore(record.task, folder, data)
    metrics, most = dict(found.metrics), record.data.val_images
    if found.images is not None and not most - record.skipped_images <= found.images <= most:
        metrics[IMAGES] = found.images  # a part of them scores otherwise
    return metrics, len(found.unreadable)


def require_same_data(record: Record, fingerprint: str, source: str | Path) -> None:
    """Raise `RunError` unless this is the data set that a run was scored on."""
    if fingerprint != record.data.fingerprint:
        raise RunError(
            f"--data {source} is another data set than the run was scored on (fingerprint "
            f"{fingerprint}; expected {record.data.fingerprint})"
        )


def number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.6f}"
