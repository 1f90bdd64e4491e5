"""Files of strangers, of which only regular ones are opened, and ours, whole or not there.

The twin of `backbones.files`, since this package imports no sibling.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
HALF_WRITTEN = ".partial"
"""how the names of unfinished files end, after the number of the process that writes them"""


# Windows knows some of them alone.
READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path | str, most: int | None = None) -> io.FileIO:
    """A regular file, or a link to one, opened for reading without a buffer.

    A named pipe would wait for a writer and a device may have no end. Raises OSError whose
    `strerror` says what the path is instead, or that it has more than `most` bytes.
    """
    descriptor = os.open(path, READING | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            kind = KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
            raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
        if most is not None and found.st_size > most:
            raise OSError(
                errno.EFBIG,
                f"has {found.st_size:,} bytes; expected at most {most:,}",
                str(path),
            )
        return io.FileIO(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, most: int | None = None) -> bytes:
    """The bytes of a regular file; see `open_regular`."""
    with open_regular(path, most) as file:
        return file.readall()


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """A temporary path, whose file becomes `file` only once it is safely on disk.

    Nothing is replaced: FileExistsError if a file is there by then. An OSError names the file.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}{HALF_WRITTEN}")
    try:
        try:
            yield partial
            descriptor = os.open(partial, READING)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.filename is None and error.errno is not None:  # as of a full disk
                error.filename = str(file)
            raise
        try:
            file.hardlink_to(partial)  # unlike a rename it replaces nothing
        except FileExistsError:
            raise
        except OSError:  # some file systems have no such links
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
