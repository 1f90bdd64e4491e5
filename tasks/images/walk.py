"""The images below folders: each folder entered once, everything passed over counted and named."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import features

from tasks.errors import TaskError
from tasks.images import heif
from tasks.images.files import shorten
from tasks.stores import Entry, StoredPath
from tasks.stores import key_of as key_there
from tasks.stores import listing as listing_there

SUFFIXES = frozenset(("jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp"))
"""The ones of torchvision's ImageFolder, in either case."""
MORE = {
    "jpg": ("jfif", "jpe"),
    "zlib": ("apng", "gif", "pbm", "pnm", "dib"),
    "avif": ("avif",),
    "jpg_2000": ("jp2", "j2k", "jpx"),
}
"""what Pillow must be built with -> suffixes that are read, too, among one's own images"""
OWN_SUFFIXES = SUFFIXES.union(
    *(names for codec, names in MORE.items() if features.check(codec)),
    heif.SUFFIXES if heif.AVAILABLE else (),
)
EXPECTED = "expected a folder with images (.jpg, .png, .webp, ...) in it or below it"
HELD_OUT = re.compile(
    r"(ilsvrc2012_img_|seg_)?(val|valid|validation|test|testing|eval|evaluation|hold-?out|held-?out)"
    r"([-_]?(\d{4}|256|large|images|imgs|set|data))?",
    re.IGNORECASE,
)
"""names of folders whose images others keep for validation and tests"""
HIDDEN, BARE = "hidden", "without suffix"
HEIC = tuple(f".{suffix}" for suffix in heif.SUFFIXES)
HEIC_HINT = "; convert HEIC to JPEG" + ("" if heif.AVAILABLE else f", or {heif.INSTALL}")
NAMED = 6
"""kinds of files that a line names"""

Key = tuple[int, int | bytes]
"""device and inode of a folder, or archive and name in it"""


@dataclass
class Walk:
    """What lies below some folders."""

    names: list[list[str]] = field(default_factory=list)
    """for each folder, sorted POSIX paths of its images, relative to it"""
    passed: Counter[str] = field(default_factory=Counter)
    """".avif", or the like -> files that were passed over"""
    loops: list[str] = field(default_factory=list)
    """links that lead back to a folder on the way to them"""
    twice: list[tuple[str, str]] = field(default_factory=list)
    """a second way to a folder, the first one"""
    hidden: list[str] = field(default_factory=list)
    """folders that were passed over"""
    held_out: dict[str, int] = field(default_factory=dict)
    """folder that was left out as one of test images -> images in it"""
    entered: list[str] = field(default_factory=list)
    """all folders that were looked into, those that were left out too"""

    def notes(self) -> list[str]:
        """A line for each kind of thing that was not taken."""
        lines = []
        if self.passed:
            kinds = [f"{kind} ({count:,})" for kind, count in self.passed.most_common(NAMED)]
            more = len(self.passed) - len(kinds)
            kinds += [f"{more} other kinds"] if more else []
            lines.append(
                f"{plural(self.passed.total(), 'file')} of other kinds passed over: "
                f"{', '.join(kinds)}" + (HEIC_HINT if any(k in self.passed for k in HEIC) else "")
            )
        if self.hidden:
            lines.append(f"hidden folders passed over: {shorten(self.hidden)}")
        if self.loops:
            what = "links back to a folder around them, not followed"
            lines.append(f"{what}: {shorten(self.loops)}")
        if self.twice:
            ways = [f"{second} (as {first})" for second, first in self.twice]
            lines.append(f"folders to be entered twice, entered once: {shorten(ways, most=2)}")
        for folder, count in self.held_out.items():
            lines.append(f"left out: held-out folder {folder} ({plural(count, 'image')})")
        return lines


def plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def walk(
    folders: Sequence[Path | str],
    suffixes: frozenset[str] = SUFFIXES,
    leave_held_out: bool = False,
) -> Walk:
    """The images anywhere below `folders`, which are not below one another.

    Follows links, as ImageFolder does, but enters no folder twice, and prefers the way without a
    link; passes over hidden files and folders, and with `leave_held_out` over folders called like
    those of test images. Raises TaskError for a folder that is missing, is a file, or cannot be
    listed.
    """
    found = Walk(names=[[] for _ in folders])
    walker = Walker(found, suffixes, leave_held_out)
    for number, folder in enumerate(folders):
        refuse_no_folder(folder)
        walker.enter(str(folder), number, "", parents(folder))
    walker.follow_links()
    found.entered += walker.visited.values()
    for names in found.names:
        names.sort()
    return found


def walk_images(folder: Path | str, suffixes: frozenset[str] = SUFFIXES) -> list[str]:
    """Sorted POSIX paths of the images below one folder; TaskError if there is none."""
    found = walk([folder], suffixes)
    if not found.names[0]:
        raise TaskError(empty(folder, found))
    return found.names[0]


def empty(folder: Path | str, found: Walk) -> str:
    """What to say of a folder without images."""
    notes = "".join(f" ({note})" for note in found.notes())
    return f"image folder {folder} holds no image{notes}; {EXPECTED}: check the path"


def refuse_no_folder(folder: Path | str) -> None:
    path = StoredPath(folder)
    if not path.exists():
        raise TaskError(f"image folder {folder} does not exist; {EXPECTED}: check the path")
    if not path.is_dir():
        raise TaskError(f"image folder {folder} is a file; {EXPECTED}: give the folder around it")


def parents(folder: Path | str) -> frozenset[Key]:
    """The folders around a folder."""
    return frozenset(key_of(str(parent)) for parent in Path(folder).resolve().parents)


def key_of(folder: str) -> Key:
    try:
        return key_there(folder)
    except OSError as error:
        raise unlisted(folder, error) from error


def unlisted(folder: str, error: OSError) -> TaskError:
    return TaskError(
        f"{folder} cannot be listed: {error.strerror}; its images would be missing: give yourself "
        "the permission, or move it away"
    )


def listing(folder: str) -> list[Entry]:
    """What lies in a folder, by name."""
    try:
        return listing_there(folder)
    except OSError as error:
        raise unlisted(folder, error) from error


class Link(NamedTuple):
    """A folder to enter; links to one are followed when the folders without links are known."""

    path: str
    number: int
    """of the start it was found from"""
    prefix: str
    """of the names in it"""
    around: frozenset[Key]
    """folders on the way to it"""
    is_link: bool = False


class Walker:
    """The state of a walk."""

    def __init__(self, found: Walk, suffixes: frozenset[str], leave_held_out: bool) -> None:
        self.found = found
        self.suffixes = suffixes
        self.leave_held_out = leave_held_out
        self.visited: dict[Key, str] = {}
        self.links: list[Link] = []

    def enter(self, path: str, number: int, prefix: str, around: frozenset[Key]) -> None:
        """Take in a folder of the start `number`, and those in it; `around`: those around it."""
        stack = [Link(path, number, prefix, around)]
        while stack:
            here = stack.pop()
            key = key_of(here.path)
            if key in here.around:
                self.found.loops.append(here.path)
            elif key in self.visited:
                self.found.twice.append((here.path, self.visited[key]))
            else:
                self.visited[key] = here.path
                inside = self.look(here, here.around | {key})
                self.links += [link for link in inside if link.is_link]
                stack += [folder for folder in reversed(inside) if not folder.is_link]

    def look(self, here: Link, around: frozenset[Key]) -> list[Link]:
        """Take in the files of a folder; returns the folders in it."""
        found, inside = self.found, []
        names = found.names[here.number]
        for entry in listing(here.path):
            name = entry.name
            if entry.is_folder:
                if name.startswith("."):
                    found.hidden.append(entry.path)
                elif self.leave_held_out and HELD_OUT.fullmatch(name):
                    found.held_out[entry.path] = self.count(entry.path)
                else:
                    below = f"{here.prefix}{name}/"
                    inside.append(Link(entry.path, here.number, below, around, entry.is_link))
            elif (kind := passed_over(name, self.suffixes)) is not None:
                found.passed[kind] += 1
            else:
                names.append(here.prefix + name)
        return inside

    def follow_links(self) -> None:
        while self.links:
            link = self.links.pop(0)
            self.enter(link.path, link.number, link.prefix, link.around)

    def count(self, folder: str) -> int:
        inside = walk([folder], self.suffixes)
        self.found.entered += inside.entered
        return len(inside.names[0])


def passed_over(name: str, suffixes: frozenset[str]) -> str | None:
    """Why a file is no image by its name; None: it is one."""
    if name.startswith("."):
        return HIDDEN
    stem, dot, suffix = name.rpartition(".")
    if not (stem and dot):
        return BARE
    suffix = suffix.lower()
    return None if suffix in suffixes else f".{suffix}"


def is_image_name(name: str, suffixes: frozenset[str] = SUFFIXES) -> bool:
    return passed_over(name, suffixes) is None


def in_folder(folder: Path | str) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a folder) of all that is not hidden in a folder, by name."""
    for entry in listing(str(folder)):
        if not entry.name.startswith("."):
            yield entry.name, entry.is_folder
