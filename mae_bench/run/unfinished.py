"""Folders that are whole or not there. Imports no torch."""

import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from filelock import FileLock, Timeout

from mae_bench.run.files import HALF_WRITTEN, LOCK_FILE


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A new folder to write into, which becomes `place` once it is whole; after an error none is.

    What a killed call has left on its way to `place` is deleted. Another one may be under way.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    start = f".{place.name}."
    delete_left(place.parent.glob(f"{glob.escape(start)}*{HALF_WRITTEN}"))
    unfinished = Path(mkdtemp(HALF_WRITTEN, start, place.parent))
    lock = FileLock(unfinished / LOCK_FILE)
    try:
        with lock:
            yield unfinished
            unfinished.chmod(0o755)
            if os.name == "nt":  # where no folder with an open file is renamed
                lock.release()
            (unfinished / LOCK_FILE).unlink(missing_ok=True)
            unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def delete_left(unfinished: Iterable[Path]) -> None:
    """Delete the unfinished folders of killed calls, and none of those under way."""
    for each in unfinished:
        lock = FileLock(each / LOCK_FILE)
        try:
            with lock.acquire(timeout=0):
                for file in each.iterdir():
                    if file.name != LOCK_FILE:
                        file.unlink()
        except (Timeout, OSError):
            continue
        shutil.rmtree(each, ignore_errors=True)
