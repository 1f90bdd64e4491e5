"""Files of a data set, in folders or in archives: what readers ask for by a path.

`opened` makes an archive count as what it would unpack to, beside it; a path below that is answered
by the functions here, and by the methods of `StoredPath`, as one of the file system is. What is
unpacked wins over the archive. Imports no torch.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from backbones.files import open_regular, read_regular
from tasks.archives import Archive, open_archive
from tasks.errors import TaskError
from tasks.kept import say

SUFFIXES = (".tar", ".zip")
COMPRESSED = {".gz": "gunzip -k", ".tgz": "gunzip -k", ".bz2": "bunzip2 -k", ".xz": "unxz -k"}
"""suffixes of tars without random access, and the command that makes them tars"""
INTO = {"ILSVRC2012_img_train": "train", "ILSVRC2012_img_val": "val"}
"""archives of bare files, by their stem -> the folder that they belong in"""
OFFICIAL = re.compile(
    r"ILSVRC2012_img_(train|val)|train|val|(train|val|train_val|trainval)20\d\d|images|"
    r"annotations(_trainval20\d\d)?|ADEChallengeData2016|train_val_images|"
    r"(train|val)_(256|large)(_places365standard)?|"
    r"data(_256|_large)?(_standard)?|filelist_places365-\w+|imagesPlaces205\w*|"
    r"trainvalsplit_places205|imagenet[-_]?(a|r|c|sketch)|sketch|blur|digital|extra|noise|weather",
    re.IGNORECASE,
)
"""stems of archives that data sets are released in, and of the folders in their layouts: what else
lies in a data folder may be anything, and is not read"""
SPLITS = ("train", "val")
"""archives of these names belong in the folders of the names"""


@dataclass(frozen=True)
class Mount:
    """An archive that stands for what it unpacks to in a folder."""

    archive: Archive
    into: bytes
    """path, relative to the folder, that its members would be unpacked in; with a slash at the
    end, or empty"""
    unpacked: frozenset[str]
    """names in the folder that are there on disk, and so are not taken from the archive"""


MOUNTS: dict[str, list[Mount]] = {}
"""Folder, or path of an archive that was given itself -> archives in it. Kept for the process,
since any part of a reader may ask for any path, as it may of the file system."""


class Entry(NamedTuple):
    """Something in a folder."""

    name: str
    path: str
    is_folder: bool
    is_link: bool = False


class Member(NamedTuple):
    """A place in an archive."""

    archive: Archive
    name: bytes
    """empty: all of it"""
    row: int | None = None
    """of a file; None: this is a folder"""

    @property
    def size(self) -> int:
        """Bytes of a file."""
        return 0 if self.row is None else self.archive.size(self.row)

    def start(self, length: int) -> bytes:
        """The first bytes of a file."""
        return self.archive.start(self.file_row(), length)

    def read(self, most: int | None = None) -> bytes:
        """The bytes of a file; OSError as from `open_regular`."""
        return self.archive.read(self.file_row(), most)

    def file_row(self) -> int:
        if self.row is None:
            raise OSError(errno.EISDIR, "is a folder, not a regular file")
        return self.row


def find(path: Path | str) -> Member | None:
    """Where a path leads into an archive; None: the file system has it, if anything."""
    if not MOUNTS:
        return None
    text = str(path)
    cut = len(text)
    while cut > 0:
        for mount in MOUNTS.get(text[:cut], ()):
            rest = text[cut + 1 :]
            first = rest.partition("/")[0]
            if first in mount.unpacked or (not rest and not is_archive(text)):
                continue
            name = os.fsencode(rest)
            if not mount.into or f"{rest}/".encode("utf-8", "surrogateescape") == mount.into:
                name = b"" if mount.into else name
            elif name.startswith(mount.into):
                name = name[len(mount.into) :]
            else:
                continue
            row = mount.archive.row(name)
            if row is not None or mount.archive.has_folder(name):
                return Member(mount.archive, name, row)
        cut = text.rfind("/", 0, cut)
    return None


def is_archive(path: Path | str) -> bool:
    return str(path).lower().endswith(SUFFIXES)


def read(path: Path | str, most: int | None = None) -> bytes:
    """The bytes of a file; OSError as from `open_regular`."""
    member = find(path)
    return read_regular(path, most) if member is None else member.read(most)


def pieces(path: Path | str, length: int) -> list[bytes]:
    """The start, middle and end of a file, `length` bytes each; all of one that is not longer."""
    member = find(path)
    if member is not None and member.row is not None:
        size = member.archive.size(member.row)
        starts, each = parts(size, length)
        return list(member.archive.read_pieces(member.row, starts, each))
    with open_regular(path) as file:
        starts, each = parts(os.fstat(file.fileno()).st_size, length)
        found = []
        for start in starts:
            file.seek(start)
            found.append(file.readall() if len(starts) == 1 else file.read(each) or b"")
        return found


def parts(size: int, length: int) -> tuple[tuple[int, ...], int]:
    """Where pieces of a file of `size` bytes begin, and how long they are."""
    if size <= 3 * length:
        return (0,), size
    return (0, (size - length) // 2, size - length), length


def size_of(path: str) -> int:
    """Bytes of a file. Raises OSError."""
    if MOUNTS:
        folder, _, file = path.rpartition("/")
        member = find(folder)
        if member is not None:
            size = sizes_in(member.archive, member.name).get(file)
            if size is None:
                raise FileNotFoundError(errno.ENOENT, "is not there", path)
            return size
        if (member := find(path)) is not None:
            return member.size
    return os.stat(path).st_size  # noqa: PTH116 a Path takes as long


@lru_cache(maxsize=16)
def sizes_in(archive: Archive, folder: bytes) -> dict[str, int]:
    """`Archive.sizes_in`: the sizes of a million files are asked for folder by folder."""
    return archive.sizes_in(folder)


def listing(folder: Path | str) -> list[Entry]:
    """What lies in a folder, by name. Raises OSError."""
    member = find(folder)
    if member is not None:
        if member.row is not None:
            raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(folder))
        inside = member.archive.inside(member.name)
        found = [Entry(name, f"{folder}/{name}", is_folder) for name, is_folder in inside]
    else:
        with os.scandir(folder) as entries:
            found = [
                Entry(entry.name, entry.path, leads_to_folder(entry), entry.is_symlink())
                for entry in entries
            ]
        mounts = MOUNTS.get(str(folder))
        if not mounts:
            return sorted(found)
        read_here = {mount.archive.path.name for mount in mounts}
        found = [entry for entry in found if entry.name not in read_here]
        found += [
            Entry(name, f"{folder}/{name}", is_folder)
            for mount in mounts
            for name, is_folder in tops(mount)
            if name not in mount.unpacked
        ]
    return sorted(dict.fromkeys(found), key=lambda entry: entry.name)


def names_in(folder: Path | str) -> list[str]:
    """The names of what lies in a folder, in any order. Raises OSError."""
    if find(folder) is None and not MOUNTS.get(str(folder)):
        return os.listdir(folder)  # noqa: PTH208 a Path takes as long
    return [entry.name for entry in listing(folder)]


def tops(mount: Mount) -> Iterator[tuple[str, bool]]:
    """What lies on top once an archive is unpacked."""
    if mount.into:
        return iter([(os.fsdecode(mount.into).partition("/")[0], True)])
    return mount.archive.inside(b"")


def leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def key_of(folder: str) -> tuple[int, int | bytes]:
    """What tells a folder from others, whatever way leads to it. Raises OSError."""
    member = find(folder)
    if member is None:
        status = os.stat(folder)  # noqa: PTH116 a Path takes as long
        return status.st_dev, status.st_ino
    return member.archive.file.fileno(), member.name + b"/"


if TYPE_CHECKING:
    SystemPath = PosixPath
else:
    SystemPath = type(Path())  # Windows has another


class StoredPath(SystemPath):
    """A path that may lead into an archive that is in `MOUNTS`; so do paths made from it."""

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        member = find(self)
        if member is None:
            return super().stat(follow_symlinks=follow_symlinks)
        of = member.archive.status
        kind = stat.S_IFDIR if member.row is None else stat.S_IFREG
        size = member.size
        names = ("st_atime", "st_mtime", "st_ctime", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
        times = {name: getattr(of, name) for name in names}
        basic = (kind | 0o444, of.st_ino, of.st_dev, 1, of.st_uid, of.st_gid, size, 0, 0, 0)
        return os.stat_result(basic, times)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return find(self) is not None or os.path.exists(str(self))  # noqa: PTH110

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        member = find(self)
        return os.path.isdir(str(self)) if member is None else member.row is None  # noqa: PTH112

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        member = find(self)
        return os.path.isfile(str(self)) if member is None else member.row is not None  # noqa: PTH113

    def iterdir(self) -> Generator["StoredPath", None, None]:
        return (self / entry.name for entry in listing(self))

    def __reduce__(self) -> tuple[Any, ...]:
        places = [place for place in (self, *self.parents) if str(place) in MOUNTS]
        return reopened, (str(self), tuple(str(place) for place in places))


def reopened(path: str, places: tuple[str, ...]) -> Path:
    """A path in another process, which opens the archives there anew."""
    for place in places:
        opened(place)
    return StoredPath(path)


def opened(source: Path | str) -> Path:
    """A data folder, or an archive in place of one, in which archives count as unpacked.

    Members are taken as `tar xf` or `unzip` in the folder would lay them; those of ImageNet's two
    and of train.tar and val.tar, if they have no such folder in them, in train/ and val/. Archives
    by other names than `OFFICIAL` are not opened, which a line says. An archive given itself is the
    folder. Raises TaskError for an archive that cannot be read.
    """
    root = Path(source).expanduser()
    if not hasattr(os, "pread"):  # Windows
        return root
    if root.is_file():
        refuse_compressed(root)
        return open_one(root) if is_archive(root) else root
    if not root.is_dir():
        return root
    try:
        files = sorted(file for file in root.iterdir() if is_archive(file) and file.is_file())
    except OSError:
        return root  # the reader says so
    if not files:
        return root
    if str(root) not in MOUNTS:
        known = [file for file in files if OFFICIAL.fullmatch(file.stem)]
        mounts = [mount for file in known if (mount := mounted(root, file)) is not None]
        register(root, mounts)
        others = [file.name for file in files if file not in known]
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            say(
                f"{root}: {', '.join(others[:3])}{more} not read: no name of an official archive; "
                "give an archive itself as --data"
            )
    return StoredPath(root) if MOUNTS[str(root)] else root


def register(root: Path, mounts: list[Mount]) -> None:
    for way in (root, root.absolute(), root.resolve()):
        MOUNTS[str(way)] = mounts


def open_one(file: Path) -> Path:
    if str(file) not in MOUNTS:
        archive = open_archive(file, progress(file))
        register(file, [Mount(archive, b"", frozenset())])
        told(f"{file}: {len(archive):,} files are read from it as it is", archive)
    root: Path = StoredPath(file)
    inside = listing(root)
    if len(inside) == 1 and inside[0].is_folder and inside[0].name not in SPLITS:
        return root / inside[0].name
    return root


def mounted(root: Path, file: Path) -> Mount | None:
    """How an archive in a folder is read; None: what it unpacks to is there already."""
    into = INTO.get(file.stem, file.stem)
    if (root / into).exists():
        return None
    archive = open_archive(file, progress(file))
    bare = file.stem in INTO or (
        file.stem in SPLITS and all(name != file.stem for name, _ in archive.inside(b""))
    )
    place = os.fsencode(f"{into}/") if bare else b""
    mount = Mount(archive, place, frozenset())
    unpacked = frozenset(name for name, _ in tops(mount) if (root / name).exists())
    taken = sorted({name for name, _ in tops(mount)} - unpacked)
    if not taken:
        return None
    more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
    told(f"{file}: {', '.join(taken[:3])}{more} is read from it as it is", archive)
    return Mount(archive, place, unpacked)


def told(line: str, archive: Archive) -> None:
    for text in (line, *(f"{archive.path}: {note}" for note in archive.notes)):
        say(text)


def unread_members(root: Path | str) -> list[str]:
    """A line for each kind of member that is not read, of the archives in a folder, or of one."""
    places = [str(each) for each in (Path(root), *Path(root).parents) if str(each) in MOUNTS]
    archives = {mount.archive.path: mount.archive for at in places[:1] for mount in MOUNTS[at]}
    return [f"{path.name}: {note}" for path, each in archives.items() for note in each.notes]


def progress(file: Path) -> Callable[[int], None]:
    """Tells how far the index of an archive is."""

    return lambda members: say(f"{file}: {members:,} files found, once")


def title(root: Path) -> str:
    """What a data folder is called; an archive in place of one as what it unpacks to."""
    place = root.resolve()
    return place.stem if is_archive(place) else place.name


def refuse_compressed(file: Path) -> None:
    """Raise TaskError for a compressed tar."""
    command = COMPRESSED.get(file.suffix.lower())
    if command is not None and (file.suffix == ".tgz" or file.stem.lower().endswith(".tar")):
        raise TaskError(f"{file} {no_access(file)}")


def no_access(file: Path) -> str:
    command = COMPRESSED[file.suffix.lower()]
    return (
        f"is compressed as a whole, and so cannot be read in any order; `{command} {file}` makes "
        "a tar of it, which is read as it is"
    )


@contextmanager
def with_archives(source: Path | str) -> Iterator[Path]:
    """`opened`; an error says, too, of the compressed tars there that they are not read."""
    root = opened(source)
    try:
        yield root
    except TaskError as error:
        hints = [
            f"; {file.name} {no_access(file)}"
            for file in (sorted(root.iterdir()) if root.is_dir() else [])
            if file.suffix.lower() in COMPRESSED and ".t" in file.name.lower()
        ]
        if not hints or type(error) is not TaskError:
            raise
        raise TaskError(f"{error}{hints[0]}") from error
