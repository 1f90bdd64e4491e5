"""Standard output and error whose reader may go: losing a terminal or a pipe never loses work."""

import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import Any, TextIO

GONE = (errno.EPIPE, errno.EIO, errno.ENXIO, errno.ECONNRESET, errno.EBADF)
"""a pipe without a reader, a terminal that was closed"""


class Unread(io.FileIO):
    """A file descriptor to write to; after the first failure what is written is dropped."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        try:
            while self.failure is None:
                written = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])  # another program has made it one that never waits
        except OSError as failure:
            self.failure = failure
        return size


def keep_going_unread() -> None:
    """Have all output of this process dropped, from now on, once it cannot be written."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us; the next file would be it
            nothing = Path(os.devnull).open("r" if name == "stdin" else "w")  # noqa: SIM115
            setattr(sys, name, nothing)
        elif name != "stdin":
            setattr(sys, name, unread(stream))


def unread(stream: TextIO) -> TextIO:
    """The same, by way of `Unread`; itself if it is no file."""
    stream.flush()
    try:
        raw = io.BufferedWriter(Unread(stream.fileno()))
    except io.UnsupportedOperation:  # somebody catches what is printed
        return stream
    lines = stream.line_buffering
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=bool(lines))


def unwritten() -> str | None:
    """Why output was lost although somebody is there to read it, as on a full disk; else None."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        raw = getattr(stream.buffer, "raw", None)
        failure = raw.failure if isinstance(raw, Unread) else None
        if failure is not None and failure.errno not in GONE:
            return f"standard {'output' if name == 'stdout' else 'error'}: {failure.strerror}"
    return None
