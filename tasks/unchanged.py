"""Whether a file, or a member of an archive, is still what it was when it was read.

Imports no torch.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbones.files import open_regular
from tasks.stores import StoredPath, find

SETTLED = 2e9
"""nanoseconds after its last change from which on a file's times tell of the next one"""


def identify(path: Path) -> dict[str, Any]:
    """What tells a file, or a member of an archive, from what it becomes if it is written to.

    `digest` is of all its bytes. Raises OSError.
    """
    return state_of(path) | {"digest": digest(path)}


def state_of(path: Path) -> dict[str, Any]:
    """Size, times and place of a file; `settled`: it has not been changed just now."""
    found = StoredPath(path).stat()
    changed = max(found.st_mtime_ns, found.st_ctime_ns)
    times = [found.st_mtime_ns, found.st_ctime_ns]
    return {
        "size": found.st_size,
        "times": times,
        "place": [found.st_dev, found.st_ino],
        "settled": time.time_ns() - changed > SETTLED,
    }


def is_same(known: Mapping[str, Any], path: Path) -> bool:
    """Whether a file is what it was: by its times and its place, or else by its bytes."""
    now = state_of(path)
    if known["size"] != now["size"]:
        return False
    alike = all(known[key] == now[key] for key in ("times", "place"))
    return (alike and known["settled"] is True) or known["digest"] == digest(path)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    member = find(path)
    if member is not None:
        return hashlib.sha256(member.read()).hexdigest()
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
