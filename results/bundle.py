"""A run as one file, to be handed on: a zip with a manifest of what is in it.

    manifest.json    format, version; name, size and sha256 of every other member
    run.json, record.json, log.jsonl
    predictions.csv, predictions.json or predictions/*.png; per_class.csv, classes.txt
    with pictures: predictions.png, reconstructions.png; with weights: *.safetensors

With one version of zlib the same run makes the same bytes. A bundle comes from a stranger:
whatever it holds, reading it writes nothing but files of these names into a temporary folder, none
of them larger than it may be. Weights stay in the zip.
"""

import errno
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, Final, Literal, TypeVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from results.errors import ResultsError
from results.files import HALF_WRITTEN, new_file, open_regular
from results.objects import read_object
from results.record import Record, Sha256
from results.store import FILE_NAME, MAX_BYTES, MAX_REASON, RUN_FILE, read_record
from results.text import one_line

SUFFIX = ".maebench.zip"
STALE_SECONDS = 600
FORMAT: Final = "mae-bench run"
VERSION: Final = 1

MANIFEST_FILE = "manifest.json"
PREDICTIONS_FOLDER = "predictions"

MIB, GIB = 1024**2, 1024**3
NEEDED = (RUN_FILE, FILE_NAME)
WORDS = {
    RUN_FILE: MAX_BYTES,
    FILE_NAME: MAX_BYTES,
    "log.jsonl": GIB,
    "per_class.csv": 64 * MIB,
    "per_corruption.csv": MIB,
    "classes.txt": 64 * MIB,
    "predictions.csv": GIB,
    "predictions.json": 2 * GIB,
}
"""member -> most bytes that it may have"""
PICTURES = {"predictions.png": 64 * MIB, "reconstructions.png": 64 * MIB}
WEIGHTS = dict.fromkeys(("backbone.safetensors", "mae.safetensors", "model.safetensors"), 16 * GIB)
MOST_BYTES = WORDS | PICTURES | WEIGHTS
PREDICTION = re.compile(rf"{PREDICTIONS_FOLDER}/[^/\\]+\.png")
PREDICTION_BYTES = 64 * MIB

MAX_MANIFEST = 32 * MIB
MAX_MEMBERS = 100_000
MAX_TOTAL = 8 * GIB
"""of what is unpacked"""
MAX_DIRECTORY = 32 * MIB
"""of the zip's own list of members, which is read at once"""
MAX_RATIO = 100
"""of a member's size to what it takes in the zip, from FREE_RATIO bytes on"""
FREE_RATIO = MIB
CHUNK = MIB

DATE = (1980, 1, 1, 0, 0, 0)
"""of every member; the first day that a zip can tell"""
REGULAR = stat.S_IFREG | 0o644
FAULTS = (BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError)
"""what reading a spoilt zip raises, besides ValueError and an OSError about nonsense places"""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Member(_Strict):
    """A file of a bundle."""

    name: Annotated[str, Field(min_length=1)]
    bytes: NonNegativeInt
    sha256: Sha256


class _Manifest(_Strict):
    format: Literal["mae-bench run"] = FORMAT
    version: Literal[1] = VERSION
    members: list[Member]


Part = TypeVar("Part")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle, unpacked."""

    folder: Path
    """of the members; temporary"""
    record: Record
    identity: dict[str, Any]
    """what run.json says"""


def write_bundle(
    folder: str | Path, output: str | Path, *, weights: bool = False, pictures: bool = False
) -> Path:
    """Pack the finished run in `folder` into the new file `output`, which is whole or not there.

    Raises ResultsError if the run is not finished, if `output` exists, and for a run that no
    reader would take.
    """
    folder, output = Path(folder), Path(output)
    if output.exists():
        raise ResultsError(f"{output}: exists already; name another file or delete it")
    for name in NEEDED:
        if not (folder / name).is_file():
            raise ResultsError(f"{folder} has no {name}; only a finished run can be packed")
    files = _files(folder, weights, pictures)
    for left in stale_halves(output.parent, output.name):
        left.unlink(missing_ok=True)
    try:
        with new_file(output) as partial:
            with partial.open("wb") as stream:
                _write(stream, files)
            try:
                with open_bundle(partial):  # what its reader refuses is better found here
                    pass
            except ResultsError as error:
                reason = str(error).removeprefix(f"{partial}: ")
                raise ResultsError(f"{folder} cannot be packed: {reason}") from None
    except FileExistsError:
        raise ResultsError(f"{output}: exists by now; name another file or delete it") from None
    return output


def stale_halves(folder: Path, name: str = f"*{SUFFIX}") -> list[Path]:
    """What processes that are gone left half written of bundles of that name in a folder.

    A file that anybody wrote to within STALE_SECONDS stays: it may be another machine's.
    """
    found = []
    for file in sorted(folder.glob(f".*{HALF_WRITTEN}")):
        whose, _, pid = file.name.removesuffix(HALF_WRITTEN).removeprefix(".").rpartition(".")
        if not (fnmatchcase(whose, name) and pid.isdecimal()) or file.is_symlink():
            continue
        with suppress(FileNotFoundError):
            old = time.time() - file.stat().st_mtime > STALE_SECONDS
            if old and not Path(f"/proc/{pid}").exists():
                found.append(file)
    return found


def _files(folder: Path, weights: bool, pictures: bool) -> dict[str, Path]:
    """Member name -> file of a run folder, in the order of the bundle."""
    wanted = [*WORDS, *(PICTURES if pictures else ()), *(WEIGHTS if weights else ())]
    names = [name for name in wanted if (folder / name).is_file()]
    predictions = folder / PREDICTIONS_FOLDER
    if predictions.is_dir():
        found = sorted(entry.name for entry in os.scandir(predictions) if entry.is_file())
        names += [f"{PREDICTIONS_FOLDER}/{name}" for name in found if name.endswith(".png")]
    for name in names:
        try:
            _most_bytes(name)
        except ResultsError as error:
            raise ResultsError(f"{folder} {error}") from None
    return {name: folder / name for name in names}


def _write(stream: BinaryIO, files: dict[str, Path]) -> None:
    """A zip of the manifest and the files, the same bytes every time."""
    members = []
    for name, file in files.items():
        digest, size = hashlib.sha256(), 0
        with _opened(file, name) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
        members.append(Member(name=name, bytes=size, sha256=digest.hexdigest()))
    manifest = _Manifest(members=members).model_dump_json(indent=1).encode()
    with ZipFile(stream, "w") as archive:
        with archive.open(_info(MANIFEST_FILE, len(manifest)), "w") as target:
            target.write(manifest)
        for member, file in zip(members, files.values(), strict=True):
            with (
                _opened(file, member.name) as source,
                archive.open(_info(member.name, member.bytes), "w") as target,
            ):
                while chunk := source.read(CHUNK):
                    target.write(chunk)


def _opened(file: Path, name: str) -> io.FileIO:
    """A member's file; ResultsError if it is larger than any reader would take."""
    try:
        return open_regular(file, _most_bytes(name))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):
            raise
        raise ResultsError(f"{file} {error.strerror}; it cannot be packed") from None


def _info(name: str, size: int) -> ZipInfo:
    """How a member is written: nothing tells of the machine or the time."""
    info = ZipInfo(name, DATE)
    info.compress_type = ZIP_STORED if name in WEIGHTS else ZIP_DEFLATED
    info.create_system = 3  # Unix, whose file modes these are
    info.external_attr = REGULAR << 16
    info.file_size = size
    return info


@contextmanager
def open_bundle(file: str | Path) -> Iterator[Bundle]:
    """Unpack a bundle, without its weights, into a temporary folder, which is gone afterwards.

    Raises ResultsError, one line, for anything that is not as `write_bundle` makes it.
    """
    file = Path(file)
    if not file.is_file():
        reason = "is a folder" if file.is_dir() else "no such file"
        raise ResultsError(f"{file}: {reason}; expected a bundle (*{SUFFIX})")
    with tempfile.TemporaryDirectory(prefix="mae-bench-") as temporary:
        folder = Path(temporary)
        try:
            with _Bounded(file) as stream, ZipFile(stream) as archive:
                _unpack(archive, folder)
            record = _part(folder / FILE_NAME, read_record)
            identity = _part(folder / RUN_FILE, _read_object)
        except ResultsError as error:
            raise ResultsError(f"{file}: {error}") from None
        except (*FAULTS, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            reason = _quoted(" ".join(str(error).split()) or type(error).__name__)
            raise ResultsError(f"{file}: no bundle, or a damaged one ({reason})") from None
        yield Bundle(folder, record, identity)


class _Bounded(io.FileIO):
    """A file of which only so much is read at once.

    `zipfile` reads the list of all members at once, of whatever size the file claims.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = MAX_DIRECTORY
        if size > MAX_DIRECTORY:
            raise ResultsError(
                f"its list of members has {size} bytes; expected at most {MAX_DIRECTORY}"
            )
        return super().read(size)


def _unpack(archive: ZipFile, folder: Path) -> None:
    """Check all members, and write them into `folder`."""
    there = _directory(archive)
    total = sum(info.file_size for name, info in there.items() if name not in WEIGHTS)
    most = min(MAX_TOTAL, shutil.disk_usage(folder).free)
    if total > most:
        raise ResultsError(f"unpacks to {total} bytes; expected at most {most} in {folder.parent}")
    if MANIFEST_FILE not in there:
        raise ResultsError(f"has no {MANIFEST_FILE}; it is no bundle of mae-bench")
    text = io.BytesIO()
    _copy(archive, there[MANIFEST_FILE], text, MAX_MANIFEST)
    manifest = _read_manifest(text.getvalue())
    names = [member.name for member in manifest.members]
    if len(set(names)) != len(names):
        raise ResultsError(f"its {MANIFEST_FILE} names a member twice")
    absent = sorted(set(names) - set(there)) or [name for name in NEEDED if name not in names]
    if absent:
        raise ResultsError(f"is incomplete: {_quoted(absent[0])} is missing")
    foreign = sorted(set(there) - set(names) - {MANIFEST_FILE})
    if foreign:
        raise ResultsError(f"holds {_quoted(foreign[0])}, which its {MANIFEST_FILE} does not name")
    if any(name.startswith(f"{PREDICTIONS_FOLDER}/") for name in names):
        (folder / PREDICTIONS_FOLDER).mkdir()
    for member in manifest.members:
        if member.name in WEIGHTS:
            continue
        info = there[member.name]
        if info.file_size != member.bytes:
            raise ResultsError(
                f"{_quoted(member.name)} has {info.file_size} bytes, and {member.bytes} by its "
                f"{MANIFEST_FILE}"
            )
        try:
            with (folder / member.name).open("xb") as target:
                digest = _copy(archive, info, target, member.bytes)
        except FileExistsError:  # where upper and lower case are one
            raise ResultsError(f"{_quoted(member.name)} is there twice") from None
        if digest != member.sha256:
            raise ResultsError(f"{_quoted(member.name)} is not what its {MANIFEST_FILE} says")


def _directory(archive: ZipFile) -> dict[str, ZipInfo]:
    """Members by name, as the zip lists them; nothing of them has been read yet."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise ResultsError(f"has {len(infos)} members; expected at most {MAX_MEMBERS}")
    there: dict[str, ZipInfo] = {}
    for info in infos:
        name = info.orig_filename  # zipfile cuts the other one at a null byte
        most = MAX_MANIFEST if name == MANIFEST_FILE else _most_bytes(name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise ResultsError(f"{_quoted(name)} is no regular file")
        if name in there:
            raise ResultsError(f"{_quoted(name)} is there twice")
        if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise ResultsError(f"{_quoted(name)} is encrypted, or compressed in a way of its own")
        if info.file_size > most:
            raise ResultsError(
                f"{_quoted(name)} has {info.file_size} bytes; expected at most {most}"
            )
        if info.file_size > max(FREE_RATIO, MAX_RATIO * info.compress_size):
            raise ResultsError(
                f"{_quoted(name)} unpacks from {info.compress_size} bytes to {info.file_size}; "
                f"expected at most {MAX_RATIO} times as many"
            )
        there[name] = info
    return there


def _most_bytes(name: str) -> int:
    """How large a member of that name may be. Raises ResultsError if there is none such."""
    if name in MOST_BYTES:
        return MOST_BYTES[name]
    if PREDICTION.fullmatch(name) and name.isprintable() and len(name.encode()) <= 255:
        return PREDICTION_BYTES
    raise ResultsError(f"holds {_quoted(name)}; expected the files of a run and nothing else")


def _copy(archive: ZipFile, info: ZipInfo, target: IO[bytes], most: int) -> str:
    """Write what a member holds, however much it claims to be; its sha256."""
    digest, size = hashlib.sha256(), 0
    with archive.open(info) as source:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > most:
                raise ResultsError(f"{_quoted(info.orig_filename)} has more than {most} bytes")
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _read_manifest(text: bytes) -> _Manifest:
    """The manifest of a bundle of this version."""
    try:
        manifest = _Manifest.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False)
        other = next((d for d in details if d["loc"] == ("version",)), None)
        if other is not None:
            raise ResultsError(
                f"is a bundle of version {_quoted(other['input'])}; this mae-bench reads {VERSION}"
            ) from None
        where = ".".join(str(part) for part in details[0]["loc"])
        reason = one_line(f"{where}: {details[0]['msg']}", MAX_REASON)
        raise ResultsError(f"{MANIFEST_FILE}: {reason}") from None
    if not {"format", "version"} <= manifest.model_fields_set:
        raise ResultsError(f"{MANIFEST_FILE} names no format and version")
    return manifest


def _part(file: Path, read: Callable[[Path], Part]) -> Part:
    """What `read` makes of a member; its complaint names it."""
    try:
        return read(file)
    except ValueError as error:
        raise ResultsError(f"{file.name}: {one_line(str(error), MAX_REASON)}") from None


def _read_object(file: Path) -> dict[str, Any]:
    return read_object(file, MAX_BYTES)


def _quoted(value: object) -> str:
    """A stranger's text, short, on one line, and without control characters."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
