"""One run, one folder: effective recipe, log, states, pictures, record.

run.json                what is being run, written first; the folder belongs to it for good
log.jsonl               one line per optimiser step: only what is reproducible
tensorboard/            the same about once a second, and images/s
state/step-00001000.pt  everything that training needs to go on; the two newest are kept
record.json             the result, written last
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from filelock import FileLock, Timeout

from backbones.files import open_regular, read_regular
from mae_bench.arguments import check_name
from mae_bench.errors import HeldError, RunError, first_line
from mae_bench.progress import say
from mae_bench.run.files import (
    BACKBONE_FILE,
    HALF_WRITTEN,
    LOCK_FILE,
    LOG_FILE,
    MAE_FILE,
    MODEL_FILE,
    RECORD_FILE,
    RUN_FILE,
    STATE_FOLDER,
    STATES,
    TOKENIZER_FILE,
    TORN_FILE,
    atomic,
    naming,
    sweep,
    write_json,
    write_torch,
)
from results import Record, ResultsError, parse_record
from results.store import MAX_BYTES
from tasks.images.fingerprint import changed
from tasks.processes import first_alone

KEEP_STATES = 2
LOCK_SECONDS = 7.0
"""a killed run's loading processes may hold its lock until they notice, within five seconds"""


class Run:
    """An open run folder; use `open_run`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = folder / STATE_FOLDER
        self.log_file = folder / LOG_FILE

    @property
    def other_test(self) -> str | None:
        """What is to be said of a test set that has changed since training began."""
        try:
            said = json.loads((self.folder / RUN_FILE).read_bytes()).get("other_test")
        except (OSError, ValueError, AttributeError):
            return None
        return said if isinstance(said, str) else None

    @property
    def record(self) -> Record | None:
        """The result, if the run has finished; `RunError` if its file is damaged."""
        file = self.folder / RECORD_FILE
        try:
            return parse_record(read_regular(file, MAX_BYTES)) if file.exists() else None
        except ResultsError as error:
            raise RunError(
                f"{file}: damaged ({error}); delete it, and the same command writes it again"
            ) from None

    def save_state(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` optimiser steps: whole or not at all."""
        self.states.mkdir(exist_ok=True)
        write_torch(self.states / f"step-{step:08d}.pt", {"step": step, **state})
        for old in self.state_files()[:-KEEP_STATES]:
            old.unlink()

    def newest_state(self) -> tuple[Path | None, dict[str, Any]]:
        """The newest readable state and its file; damaged ones are named and removed.

        None and nothing if no state was saved. Raises `RunError` if all are damaged: to train
        anew is for the user to decide.
        """
        files, damaged = self.state_files(), []
        for file in reversed(files):
            try:
                state = read_state(file)
            except (BadZipFile, RuntimeError, EOFError, KeyError, UnpicklingError) as error:
                damaged.append(f"{file} is damaged ({first_line(error)})")
                continue
            for line, bad in zip(damaged, reversed(files), strict=False):
                say(f"{line}; going on from {file.name}", style="yellow")
                bad.unlink()
            return file, state
        if damaged:
            raise RunError(
                f"{damaged[0]}, and so is every saved state; delete {self.states} to start anew"
            )
        return None, {}

    def state_files(self) -> list[Path]:
        return sorted(self.states.glob(STATES))

    def cut_log(self, step: int) -> None:
        """Drop log lines after `step`: what the crash lost will be computed and logged again.

        Says so if lines before are damaged or missing, as of a disk that failed; the others stay.
        """
        there = self.log_file.exists()
        lines = read_regular(self.log_file).splitlines() if there else []
        kept: dict[int, bytes] = {}
        latest = 0
        for line in lines:
            try:
                number = int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError, RecursionError):  # the crash cut this line
                continue
            if latest < number <= step:
                kept[number], latest = line, number
        lost = [number for number in range(1, step + 1) if number not in kept]
        if lost:
            say(
                f"{self.log_file}: damaged; {len(lost)} of {step} lines are lost, the first of "
                f"step {lost[0]}, the last of step {lost[-1]}; the training itself is whole",
                style="yellow",
            )
        if there or lost:
            with atomic(self.log_file) as stream:
                stream.writelines(line + b"\n" for line in kept.values())


def read_state(file: Path, mapped: bool = False) -> dict[str, Any]:
    """A saved state, on the CPU. Its checksums are looked at here, for torch leaves them alone.

    Of one that is `mapped` no more is in memory than is looked at.
    """
    with open_regular(file) as stream, BufferedReader(stream) as buffered:
        with ZipFile(buffered) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise BadZipFile(f"the checksum of {wrong} is wrong")
        if mapped:
            return torch.load(str(file), map_location="cpu", weights_only=True, mmap=True)
        buffered.seek(0)
        return torch.load(buffered, map_location="cpu", weights_only=True)


def run_folder(out: str | Path, name: str) -> Path:
    """The folder of a run; `RunError` unless `name` is that of one folder inside `out`."""
    check_name(name)
    return Path(out) / name


@contextmanager
def open_run(folder: Path, identity: dict[str, Any]) -> Iterator[Run]:
    """Lock `folder` and make it this run's, or go on with it if it already is.

    `identity` (JSON-safe) is everything that determines the result. Raises `RunError` if another
    process works in the folder or the folder belongs to something else. Of several processes of
    one run the first holds the lock.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        first_alone(lambda: take(folder, lock, identity))
        with naming(folder):
            yield Run(folder)
    finally:
        lock.release()


def take(folder: Path, lock: FileLock, identity: dict[str, Any]) -> None:
    """Create and lock the folder, and claim it."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise RunError(
                f"run folder {folder}: {place} is a file; choose another --out or --name"
            )
    refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except NotImplementedError:
        raise RunError(
            f"run folder {folder}: its file system has no locks, so two processes could work in "
            "it at once; choose another --out"
        ) from None
    except Timeout:
        raise HeldError(
            f"run folder {folder}: another process is working in it; wait for it or choose "
            "another --name"
        ) from None
    claim(folder, identity)
    sweep(folder)
    sweep(folder / STATE_FOLDER)
    set_aside_torn(folder)


def set_aside_torn(folder: Path) -> None:
    """Move a result that breaks off, as after a power cut, out of the way of the one to come.

    One that is whole and says what we do not know stays, for `Run.record` to refuse.
    """
    file = folder / RECORD_FILE
    if not file.exists():
        return
    try:
        json.loads(read_regular(file, MAX_BYTES))
    except (ValueError, RecursionError):
        aside = file.with_name(TORN_FILE)
        file.replace(aside)
        say(f"{file}: damaged; it is {aside.name} now, and is made again", style="yellow")


def refuse_foreign(folder: Path) -> None:
    """Raise `RunError` if `folder` holds something, but no run."""
    if folder.exists() and not (folder / RUN_FILE).exists():
        ours = (LOCK_FILE, f".{RUN_FILE}{HALF_WRITTEN}")
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in ours)
        if foreign:
            raise RunError(
                f"run folder {folder}: not empty and no run of ours ({foreign[0]}); "
                "choose another --name or --out"
            )


def refuse_torn(file: Path) -> None:
    """Raise `RunError` for a run.json that breaks off beside what its run has saved.

    It alone tells whose that is, so no run goes on with it; but it is not lost.
    """
    folder = file.parent
    kept = [name for name in (*WEIGHTS, RECORD_FILE) if (folder / name).exists()]
    kept += [STATE_FOLDER] if list(folder.glob(f"{STATE_FOLDER}/{STATES}")) else []
    if kept:
        raise RunError(
            f"{file}: damaged, and nothing else tells whose {', '.join(kept)} beside it are; "
            "choose another --name, or delete the folder once you have what you need of it "
            "(weights load by --checkpoint FILE)"
        )


NOTES = ("source", "anatomy", "tested_on", "other_test")
"""what a run.json keeps that is no part of the identity"""
WEIGHTS = (BACKBONE_FILE, MAE_FILE, TOKENIZER_FILE, MODEL_FILE)
OF_THE_TEST_SET = ("fingerprint", "val_images", "standard")
"""what of the data's facts may change with the test set alone"""


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write run.json, or check that the one there says the same. What was not saved is free.

    What was trained on the same images stays this run's where the test set alone is another one
    now, which is said and kept in mind; unless it has been scored.
    """
    file = folder / RUN_FILE
    identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    if not file.exists():
        write_json(file, identity)
        return
    try:
        there = json.loads(read_regular(file, MAX_BYTES))
    except (ValueError, RecursionError):
        there = None
    if not isinstance(there, dict):
        refuse_torn(file)
        say(f"{file}: damaged; nothing was saved yet, so it is written again", style="yellow")
        write_json(file, identity)
        return
    old, new = (without_notes(each, there) for each in (there, identity))
    saved = any((folder / kept).exists() for kept in (STATE_FOLDER, RECORD_FILE))
    if old == new:
        return
    if not saved:
        write_json(file, identity)  # a run that failed before it came to save anything
        return
    differing = "; ".join(differences(old, new))
    if not same_training(old, new):
        raise RunError(
            f"run folder {folder}: holds a different run ({differing}); "
            "choose another --name or delete the folder"
        )
    if (folder / RECORD_FILE).exists():
        raise RunError(
            f"run folder {folder}: was scored on another test set ({differing}); "
            f"mae-bench evaluate {folder} --data ... scores it on this one too"
        )
    what = f"the test set is another one than when training began ({differing})"
    say(f"note: {what}; what was trained is kept", style="yellow")
    write_json(file, identity | {"other_test": what})


def without_notes(content: dict[str, Any], there: dict[str, Any]) -> dict[str, Any]:
    """An identity without what is no part of it, and what the older file `there` did not tell."""
    told = "train_fingerprint" in there
    kept = {
        key: value
        for key, value in content.items()
        if key not in NOTES and (told or key != "train_fingerprint")
    }
    data = kept.get("data")
    if isinstance(data, dict):  # `own` follows from the fingerprint
        kept["data"] = {key: value for key, value in data.items() if key != "own"}
    return kept


def same_training(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two identities differ in their test sets alone, as far as they tell."""

    def trained(identity: dict[str, Any]) -> dict[str, Any]:
        data = identity.get("data")
        data = data if isinstance(data, dict) else {}
        kept = {key: value for key, value in data.items() if key not in OF_THE_TEST_SET}
        return identity | {"data": kept}

    return "train_fingerprint" in old and trained(old) == trained(new)


def differences(there: dict[str, Any], here: dict[str, Any], most: int = 3) -> list[str]:
    """ "key: old there, new here" for nested dictionaries, the first few."""
    found = []
    for key in dict.fromkeys([*there, *here]):
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, most)
        elif a != b and key == "fingerprint" and isinstance(a, str) and isinstance(b, str):
            found.append(changed(a, b))
        elif None in (a, b) and isinstance(a or b, dict):
            found.append(f"a {key} there, none here" if b is None else f"no {key} there, one here")
        elif a != b:
            found.append(f"{key} {a} there, {b} here")
    return found[:most]
