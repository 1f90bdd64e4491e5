"""One tar or zip, read where it lies: an index of its files, made once, and positional reads.

A tar of tars, as ImageNet's training images are packed, counts as unpacked twice: a.tar/b is a/b.
"""

import errno
import hashlib
import io
import os
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from backbones.files import open_regular
from tasks.errors import TaskError
from tasks.kept import Kept, keep

VERSION = 2
"""of the index; another one is made anew"""
STORED, DEFLATED = 0, 8
"""zip's numbers of the methods that are read"""
NO_SUM = -1
"""checksum of members that have none"""
ENCRYPTED = 1
"""bit of a zip's flags"""
LOCAL = struct.Struct("<4s22x2H")
"""a zip's header before each member: signature, lengths of name and extra field"""
LONGEST_NAME = 4096
"""bytes; Linux opens no longer one"""
LONGEST_READ = 2**24
"""bytes at a time while an index is made; a header that asks for more is hostile"""
PIECE = 2**16
"""bytes of an archive that tell it, at its start, middle and end"""
BLOCK = tarfile.BLOCKSIZE
NAMED = 4
"""members that a note names"""
EVERY = 20_000
"""members between two lines of progress"""
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, ValueError, EOFError, NotImplementedError)

Say = Callable[[int], None]
"""called with the number of members so far"""


class Row(NamedTuple):
    """Where the bytes of a member lie."""

    offset: int
    stored: int
    """bytes in the archive"""
    size: int
    """bytes of the file"""
    method: int = STORED
    checksum: int = NO_SUM
    """CRC-32 of the file"""


class Found:
    """Members of an archive while its index is made."""

    def __init__(self, say: Say) -> None:
        self.names: list[bytes] = []
        self.rows: list[Row] = []
        self.passed: dict[str, list[str]] = defaultdict(list)
        """reason -> names that were passed over"""
        self.say = say

    def add(self, name: bytes, row: Row) -> None:
        clean = name.removeprefix(b"./")
        if is_outside(clean):
            self.skip("names that lead outside the archive, or are none", name)
            return
        self.names.append(clean)
        self.rows.append(row)
        if len(self.names) % EVERY == 0:
            self.say(len(self.names))

    def skip(self, reason: str, name: bytes) -> None:
        self.passed[reason].append(os.fsdecode(name[:200]))

    def kept(self) -> Kept:
        """The index; of members of one name the last counts, as in unpacking."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        kept = []
        for row, after in zip(order, [*order[1:], None], strict=True):
            if after is not None and self.names[row] == self.names[after]:
                self.skip("having the name of a later one", self.names[row])
            else:
                kept.append(row)
        lengths = np.array([len(self.names[row]) for row in kept], dtype=np.int64)
        notes = [
            f"{len(names):,} members passed over, for {reason}: {', '.join(names[:NAMED])}"
            + ", ..." * (len(names) > NAMED)
            for reason, names in self.passed.items()
        ]
        arrays: dict[str, np.ndarray] = {
            "names": np.frombuffer(b"".join(self.names[row] for row in kept), dtype=np.uint8),
            "ends": np.cumsum(lengths, dtype=np.int64),
            "spans": np.array([self.rows[row] for row in kept], np.int64).reshape(
                -1, len(Row._fields)
            ),
        }
        return Kept({"notes": notes}, arrays)


def is_outside(name: bytes) -> bool:
    """Whether a member's name is no path below the place where it would be unpacked."""
    parts = name.split(b"/")
    return (
        len(name) > LONGEST_NAME
        or b"\0" in name
        or any(part in (b"", b".", b"..") for part in parts)
    )


class Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self.descriptor, self.start, self.size, self.at = descriptor, start, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.at)
        wanted = left if size < 0 else min(size, left)
        if wanted > LONGEST_READ:
            raise ValueError(f"a header of {wanted:,} bytes")
        data = os.pread(self.descriptor, wanted, self.start + self.at)
        self.at += len(data)
        return data


def index_tar(window: Window, found: Found, into: bytes = b"") -> None:
    """Take in the members of a tar; those of tars in it, if it holds nothing else."""
    inner: list[tuple[bytes, Row]] = []
    others = 0
    with tarfile.open(fileobj=window, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # or it would keep them all
            name = into + os.fsencode(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                kind = "being sparse" if member.isreg() else "being links or devices"
                found.skip(kind, name)
                others += 1
                continue
            row = Row(window.start + member.offset_data, member.size, member.size)
            if not into and not others and member.name.endswith(".tar"):
                inner.append((name.removesuffix(b".tar").removeprefix(b"./"), row))
                continue
            others += 1
            found.add(name, row)
        end = tar.offset
    window.seek(end)
    if window.read(BLOCK).strip(b"\0") or window.tell() != end + BLOCK:
        raise tarfile.ReadError(f"it breaks off, or is damaged, at byte {window.start + end:,}")
    for name, row in inner:
        if others:
            found.add(name + b".tar", row)
        else:
            index_tar(Window(window.descriptor, row.offset, row.size), found, name + b"/")


def index_zip(window: Window, found: Found) -> None:
    """Take in the members of a zip."""
    with open(window.descriptor, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            utf8 = member.flag_bits & 0x800
            name = member.filename.encode("utf-8" if utf8 else "cp437", "surrogateescape")
            head = os.pread(window.descriptor, LOCAL.size, member.header_offset)
            signature, *lengths = LOCAL.unpack(head) if len(head) == LOCAL.size else (b"", 0)
            start = member.header_offset + LOCAL.size + sum(lengths)
            stored, size = member.compress_size, member.file_size
            if member.flag_bits & ENCRYPTED:
                found.skip("being encrypted", name)
            elif member.external_attr >> 28 == 0o12:
                found.skip("being links or devices", name)
            elif member.compress_type not in (STORED, DEFLATED):
                found.skip("being compressed otherwise than by deflate", name)
            elif signature != b"PK\3\4" or start + stored > window.size:
                found.skip("not being where the archive says", name)
            elif member.compress_type == STORED and stored != size:
                found.skip("being of two sizes", name)
            else:
                found.add(name, Row(start, stored, size, member.compress_type, member.CRC))


class Names(Sequence[bytes]):
    """Sorted names, in one block of memory."""

    def __init__(self, block: np.ndarray, ends: np.ndarray) -> None:
        self.block, self.ends = np.asarray(block), np.asarray(ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        start = self.ends[index - 1] if index else 0
        return self.block[start : self.ends[index]].tobytes()


class Archive:
    """An archive of which the index is known; any thread and forked process may read it."""

    def __init__(self, path: Path, file: io.FileIO, index: Kept) -> None:
        arrays = index.arrays
        self.path = path
        self.file = file
        self.status = os.fstat(file.fileno())
        self.names = Names(arrays["names"], arrays["ends"])
        self.spans = np.asarray(arrays["spans"])
        self.notes: list[str] = index.facts["notes"]

    def __len__(self) -> int:
        return len(self.names)

    def row(self, name: bytes) -> int | None:
        """Of the file of a name."""
        at = bisect_left(self.names, name)
        return at if at < len(self.names) and self.names[at] == name else None

    def has_folder(self, name: bytes) -> bool:
        start = name + b"/" if name else b""
        at = bisect_left(self.names, start)
        return at < len(self.names) and self.names[at].startswith(start)

    def inside(self, folder: bytes) -> Iterator[tuple[str, bool]]:
        """(name, whether it is a folder) of all that lies in a folder."""
        start = folder + b"/" if folder else b""
        at = bisect_left(self.names, start)
        while at < len(self.names) and (name := self.names[at]).startswith(start):
            first, slash, _ = name[len(start) :].partition(b"/")
            yield os.fsdecode(first), bool(slash)
            # "0" follows "/": the next name that is not in this folder
            at = bisect_left(self.names, start + first + b"0", at) if slash else at + 1

    def sizes_in(self, folder: bytes) -> dict[str, int]:
        """Name -> bytes of the files in a folder, not those below folders in it."""
        start = folder + b"/" if folder else b""
        first = bisect_left(self.names, start)
        last = bisect_left(self.names, folder + b"0", first) if folder else len(self.names)
        sizes = self.spans[first:last, 2].tolist()
        names = self.names[first:last]
        skip = len(start)
        return {os.fsdecode(n[skip:]): size for n, size in zip(names, sizes, strict=True)}

    def size(self, row: int) -> int:
        return int(self.spans[row, 2])

    def read(self, row: int, most: int | None = None) -> bytes:
        """A member's bytes. OSError, which says why, if it has too many or is damaged."""
        where = Row(*self.spans[row].tolist())
        if most is not None and where.size > most:
            raise OSError(errno.EFBIG, f"has {where.size:,} bytes; expected at most {most:,}")
        data = self.piece(where.offset, where.stored)
        if where.method == DEFLATED:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = unpacking.decompress(data, where.size + 1)
            except zlib.error as error:
                raise damaged(self.path) from error
        if len(data) != where.size or where.checksum not in (NO_SUM, zlib.crc32(data)):
            raise damaged(self.path)
        return data

    def start(self, row: int, length: int) -> bytes:
        """The first bytes of a member, without unpacking the rest."""
        where = Row(*self.spans[row].tolist())
        data = self.piece(where.offset, min(where.stored, LONGEST_READ))
        if where.method == STORED:
            return data[:length]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length)
        except zlib.error as error:
            raise damaged(self.path) from error

    def read_pieces(self, row: int, starts: Sequence[int], length: int) -> Iterator[bytes]:
        """Pieces of a member."""
        where = Row(*self.spans[row].tolist())
        data = b"" if where.method == STORED else self.read(row)
        for start in starts:
            if where.method == STORED:
                yield self.piece(where.offset + start, length)
            else:
                yield data[start : start + length]

    def piece(self, offset: int, length: int) -> bytes:
        """Bytes of the archive."""
        data = os.pread(self.file.fileno(), length, offset)
        while len(data) < length:  # more than the system gives at once
            more = os.pread(self.file.fileno(), length - len(data), offset + len(data))
            if not more:
                raise damaged(self.path)
            data += more
        return data


def damaged(path: Path) -> OSError:
    return OSError(errno.EIO, f"is damaged in {path.name}")


def open_archive(path: Path, say: Say) -> Archive:
    """An archive with its index, which is made if it is not in the cache.

    The index belongs to the archive's size, time of change and a sample of its content. Raises
    TaskError for what is no archive, is cut off or damaged.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}; check the path") from error
    status = os.fstat(file.fileno())
    key = f"{VERSION}-{status.st_size}-{status.st_mtime_ns}-{sample(file.fileno(), status.st_size)}"

    def is_sound(found: Kept) -> bool:
        refuse_unsound(found.arrays, status.st_size)
        return True

    found = keep("archives", str(path), is_sound, lambda: index(path, file, say), known_by=key)
    return Archive(path, file, found)


def index(path: Path, file: io.FileIO, say: Say) -> Kept:
    """An archive's index, made by going through it. TaskError as `open_archive`."""
    found = Found(say)
    window = Window(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    try:
        (index_zip if path.suffix.lower() == ".zip" else index_tar)(window, found)
    except (*DAMAGED, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"{path} cannot be read: {reason}; get it again") from error
    made = found.kept()
    if not len(made.arrays["ends"]):
        reasons = "".join(f" ({note})" for note in made.facts["notes"])
        raise TaskError(f"{path} holds no file{reasons}; get it again, or move it away")
    return made


def sample(descriptor: int, size: int) -> str:
    """A digest of an archive's start, middle and end, where a zip keeps its list."""
    pieces = [os.pread(descriptor, PIECE, at) for at in (0, size // 2, max(0, size - PIECE))]
    return hashlib.sha256(b"".join(pieces)).hexdigest()[:32]


def refuse_unsound(arrays: Mapping[str, np.ndarray], size: int) -> None:
    """Raise ValueError unless an index tells of bytes that are there, and its parts fit."""
    names, ends, spans = arrays["names"], arrays["ends"], arrays["spans"]
    if [each.dtype for each in (names, ends, spans)] != [np.uint8, np.int64, np.int64]:
        raise ValueError("other types")
    if not len(ends) or spans.shape != (len(ends), len(Row._fields)) or ends[-1] != len(names):
        raise ValueError("other shapes")
    if (np.diff(ends, prepend=0) <= 0).any() or (spans[:, :4] < 0).any():
        raise ValueError("numbers out of order")
    if (spans[:, 0] + spans[:, 1] > size).any() or not np.isin(spans[:, 3], (0, 8)).all():
        raise ValueError("members that are not there")
