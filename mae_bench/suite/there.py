"""Runs of a suite that are there already, known by what they are. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from backbones.baselines import BASELINES, release_of
from mae_bench.data import MINI, weights_folder
from mae_bench.errors import RunError
from mae_bench.recipes import PRETRAIN
from mae_bench.run.files import MODEL_FILE, RECORD_FILE
from mae_bench.run.finding import RunFolder, read_identity, read_run, runs_in
from mae_bench.starting import located
from mae_bench.suite.runs import SuiteRun
from results import Checkpoint, Record, ResultsError
from results.labels import plain
from tasks import miniature


class There:
    """The finished runs of a folder, each with the description of a suite that it is the result
    of."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folders: dict[SuiteRun, str] = {}
        """run -> name of its folder, where that is another one than its own"""
        self.records: dict[SuiteRun, Record] = {}
        found = runs_in(out) if out.is_dir() else []
        self.finished = {run.name: run for run in found if run.record and run.record.complete}

    def look(self, run: SuiteRun) -> Record | None:
        """The result of a run if it is there, under its own name or another; None if it is not."""
        if run in self.records:
            return self.records[run]
        own = self.finished.get(run.name) or self.finished_since(run.name)
        for each in [*filter(None, [own]), *self.finished.values()]:
            if each.record is not None and self.is_result(run, each):
                self.note(run, each.name, each.record)
                return each.record
        return None

    def finished_since(self, name: str) -> RunFolder | None:
        """A run that somebody has finished after the folder was read."""
        folder = self.out / name
        if not (folder / RECORD_FILE).exists():
            return None
        found = read_run(name, folder)
        if not (found.record and found.record.complete):
            return None
        self.finished[name] = found
        return found

    def note(self, run: SuiteRun, name: str, record: Record) -> None:
        """Remember where the result of a run lies."""
        self.records[run] = record
        if name != run.name:
            self.folders[run] = name

    def is_result(self, run: SuiteRun, found: RunFolder) -> bool:
        """Whether a finished run has all that determines the result of a description."""
        record = found.record
        assert record is not None
        kind = PRETRAIN if run.command == PRETRAIN else "transfer"
        same = (record.kind, record.task, record.backbone, record.seed)
        if same != (kind, run.task, run.backbone, run.seed):
            return False
        if not same_recipe(run, record):
            return False
        try:
            said = read_identity(found.folder)
        except ResultsError:
            return False
        source, data = said.get("source"), run.data
        if run.command == "evaluate" and data == MINI:
            data = str(miniature.default_root() / run.task)
        if said.get("limit") is not None or not same_place(source, data):
            return False
        return self.same_weights(run, record, said)

    def same_weights(self, run: SuiteRun, record: Record, said: Mapping[str, Any]) -> bool:
        if not self.same_tokenizer(run.tokenizer, record.tokenizer):
            return False
        if run.command == "evaluate":
            if run.needs is None or self.look(run.needs) is None:
                return False
            file = self.out / self.folders.get(run.needs, run.needs.name) / MODEL_FILE
            return file.is_file() and said.get("weights") == sha256(file)
        start = record.checkpoint
        if run.needs is not None:
            before = self.look(run.needs)
            return (
                before is not None
                and start is not None
                and start.is_traced
                and start.continued_from is None
                and not start.read_as
                and start.recipe_hash == run.needs.recipe.digest()
                and start.seed == run.needs.seed
                and start.data is not None
                and start.data.fingerprint == before.data.fingerprint
                and self.same_tokenizer(run.needs.tokenizer, start.tokenizer)
            )
        file_ = weights_file(run)
        if file_ is None:
            return start is None and run.weights is None
        label = run.init is None or plain(run.init) == plain(record.init)
        return (
            label
            and start is not None
            and not start.read_as
            and file_.is_file()
            and start.sha256 == sha256(file_)
        )

    def same_tokenizer(self, wanted: SuiteRun | str | None, found: Checkpoint | None) -> bool:
        """Whether tokens come from the tokenizer that a suite has for them."""
        if wanted is None or found is None:
            return wanted is None and found is None
        if isinstance(wanted, str):
            return Path(wanted).is_file() and found.sha256 == sha256(Path(wanted))
        made = self.look(wanted)
        return (
            made is not None
            and found.recipe_hash == wanted.recipe.digest()
            and found.seed == wanted.seed
            and found.data is not None
            and found.data.fingerprint == made.data.fingerprint
        )


def same_recipe(run: SuiteRun, record: Record) -> bool:
    """Whether a record has the recipe of a description, or what its sweep may have chosen."""
    trained = run.needs if run.command == "evaluate" and run.needs is not None else run
    grid, sweep = trained.grid, record.sweep
    if grid is None or sweep is None:
        return grid is None and sweep is None and record.recipe == as_json(run.recipe.to_dict())
    held = sweep.held_out
    if sweep.grid != as_json(grid.fields) or (held.share, held.seed) != (
        grid.holdout,
        trained.seed,
    ):
        return False
    chosen = (each for each in grid.candidates if as_json(each.values) == sweep.chosen)
    return any(record.recipe == as_json(each.recipe.to_dict()) for each in chosen)


def as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a record has them."""
    found: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return found


def refuse_missing(runs: Sequence[SuiteRun], out: Path) -> None:
    """Raise `RunError` that names all files of weights that runs start from and are not there."""
    lacking: dict[str, None] = {}
    for run in runs:
        file = weights_file(run)
        if isinstance(run.tokenizer, str) and not Path(run.tokenizer).is_file():
            raise RunError(f"--tokenizer {run.tokenizer}: no such file")
        if run.weights is not None:
            located(run.weights, out)
        elif file is not None and not file.is_file():
            lacking[f"{run.init}/{run.backbone}"] = None
    if lacking:
        raise RunError(
            f"released weights of {', '.join(lacking)} are not in {weights_folder()}; "
            f"`mae-bench weights get {next(iter(lacking))}` and so on gets them, and --write "
            "writes the suite into a file from which they can be taken out"
        )


def same_place(source: object, data: str) -> bool:
    """Whether data came from where a suite has them; of old pre-trainings nobody knows."""
    if not isinstance(source, str):
        return False
    return source == data or Path(source).resolve() == Path(data).resolve()


def weights_file(run: SuiteRun) -> Path | None:
    """The file that a run starts from; None: random weights, or none that we could look at."""
    if run.weights is not None:
        return Path(run.weights)
    if run.init in BASELINES:
        return Path(weights_folder()) / release_of(run.init, run.backbone).file
    return None


def sha256(file: Path) -> str:
    stat = file.stat()
    return digest(file, stat.st_mtime_ns, stat.st_size)


@cache
def digest(file: Path, _time: int, _size: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
