"""One run, one folder: effective recipe, log, states, pictures, record.

run.json                what is being run, written first; the folder belongs to it for good
log.jsonl               one line per optimiser step: only what is reproducible
tensorboard/            the same, and images/s
state/step-00001000.pt  everything that training needs to go on; the two newest are kept
record.json             the result, written last
"""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from mae_bench.errors import RunError
from mae_bench.run_files import atomic, write_json
from results import Record, parse_record

KEEP_STATES = 2


class Run:
    """An open run folder; use `open_run`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = folder / "state"
        self.log_file = folder / "log.jsonl"

    @property
    def record(self) -> Record | None:
        """The result, if the run has finished; `results.ResultsError` if its file is damaged."""
        file = self.folder / "record.json"
        return parse_record(file.read_text()) if file.exists() else None

    def save_state(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` optimiser steps: whole or not at all."""
        self.states.mkdir(exist_ok=True)
        with atomic(self.states / f"step-{step:08d}.pt") as stream:
            torch.save({"step": step, **state}, stream)
        for old in self.state_files()[:-KEEP_STATES]:
            old.unlink()

    def newest_state(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest readable state (None: none), and one line per damaged file passed over."""
        damaged: list[str] = []
        for file in reversed(self.state_files()):
            try:
                return torch.load(file, map_location="cpu", weights_only=True), damaged
            except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                damaged.append(f"{file} is damaged and passed over ({reason})")
        return None, damaged

    def state_files(self) -> list[Path]:
        return sorted(self.states.glob("step-*.pt"))

    def cut_log(self, step: int) -> None:
        """Drop log lines after `step`: what the crash lost will be computed and logged again."""
        if not self.log_file.exists():
            return
        kept = []
        for line in self.log_file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the crash cut this line
                break
            if entry["step"] > step:
                break
            kept.append(line)
        with atomic(self.log_file) as stream:
            stream.write("".join(f"{line}\n" for line in kept).encode())


@contextmanager
def open_run(folder: Path, identity: dict[str, Any]) -> Iterator[Run]:
    """Lock `folder` and make it this run's, or go on with it if it already is.

    `identity` (JSON-safe) is everything that determines the result. Raises `RunError` if another
    process works in the folder or the folder belongs to something else. Of several processes of
    one run the first locks, and the others come after it.
    """
    state = PartialState()
    if not state.is_main_process:
        state.wait_for_everyone()
        yield Run(folder)
        return
    if folder.exists() and not folder.is_dir():
        raise RunError(f"run folder {folder}: is a file; choose another --name or --out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"run folder {folder}: another process is working in it; wait for it or choose "
            "another --name"
        ) from None
    try:
        claim(folder, identity)
        state.wait_for_everyone()
        yield Run(folder)
    finally:
        lock.release()


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write run.json, or check that the one there says the same."""
    file = folder / "run.json"
    identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    if not file.exists():
        foreign = sorted(p.name for p in folder.iterdir() if p.name != ".lock")
        if foreign:
            raise RunError(
                f"run folder {folder}: not empty and no run of ours ({foreign[0]}); "
                "choose another --name or --out"
            )
        write_json(file, identity)
        return
    try:
        there = json.loads(file.read_text())
    except json.JSONDecodeError:
        raise RunError(f"{file}: damaged; delete the folder or choose another --name") from None
    if there != identity:
        raise RunError(
            f"run folder {folder}: holds a different run ({'; '.join(differences(there, identity))}"
            "); choose another --name or delete the folder"
        )


def differences(there: dict[str, Any], here: dict[str, Any], most: int = 3) -> list[str]:
    """ "key: old there, new here" for nested dictionaries, the first few."""
    found = []
    for key in dict.fromkeys([*there, *here]):
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, most)
        elif a != b:
            found.append(f"{key} {a} there, {b} here")
    return found[:most]
