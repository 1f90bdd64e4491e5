"""Where data sets lie below one folder, told by the files that they have. Imports no torch."""

import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import tasks
from mae_bench.data import MINI
from mae_bench.errors import RunError
from results.labels import plain
from tasks.face import DatasetRow
from tasks.stores import OFFICIAL, is_archive

MOST_DEPTH = 2
"""folders below the root that are looked into"""
MOST_FOLDERS = 2000
"""a folder with more in it holds images, not data sets"""


def find_data(
    wanted: Collection[str], root: str | Path | None, given: dict[str, str]
) -> dict[str, str]:
    """Task -> folder of its data; `given` says it for some. `RunError` names all that is missing.

    Without a root it is the miniature world. A folder is the one of a data set if it holds the
    files that `mae-bench data list` shows, or the archives of the official release, which are read
    as they are; where several do, or several sets look alike, its name
    decides.
    """
    for name in given:
        tasks.check_known("data set", name, tasks.checked())
    if root is None:
        return {name: given.get(name, MINI) for name in wanted}
    place = Path(root).expanduser()
    if not place.is_dir():
        raise RunError(f"--data-root {root}: no such folder")
    rows = {row.name: row for face in tasks.faces() for row in face.datasets()}
    there = list(folders_below(place))
    found, missing = {}, []
    for name in wanted:
        fitting = [folder for folder in there if looks_like(rows[name], folder)]
        packed = [folder for folder in there if is_packed(rows[name], folder)]
        named = [folder for folder in fitting if is_called(rows[name], folder)]
        if name in given:
            found[name] = given[name]
        elif len(named or fitting) == 1 and (named or not alike(rows, name)):
            found[name] = str((named or fitting)[0])
        elif len(packed) == 1 and not named:  # names of archives tell sets apart that look alike
            found[name] = str(packed[0])
        elif fitting or packed:
            fitting = fitting or packed
            several = ", ".join(map(str, (named or fitting)[:3]))
            missing.append(f"{name} may be in {several}: call the right one {name}")
        else:
            missing.append(f"{name} ({rows[name].layout})")
    if missing:
        raise RunError(
            f"--data-root {root}: in it and up to {MOST_DEPTH} folders below there is no "
            f"{'; no '.join(missing)}. `mae-bench data check NAME --root DIR` says where to get a "
            "data set; in the file of a suite a line in [folders] says where one lies"
        )
    return found


def folders_below(root: Path, depth: int = MOST_DEPTH) -> Iterator[Path]:
    """`root`, and the folders in it and below."""
    yield root
    if depth == 0:
        return
    inside = sorted(each for each in root.iterdir() if each.is_dir() and each.name[0] != ".")
    if len(inside) <= MOST_FOLDERS:
        for each in inside:
            yield from folders_below(each, depth - 1)


def looks_like(row: DatasetRow, folder: Path) -> bool:
    """Whether a folder has something of all that a data set's layout names."""
    return all(next(folder.glob(pattern), None) is not None for pattern in patterns(row.layout))


def is_packed(row: DatasetRow, folder: Path) -> bool:
    """Whether a folder has the archives of the official release, or what they unpack to."""
    there = {name: archive_in(folder, name) for name in row.archives}
    return any(there.values()) and all(
        there[name] or all(any((folder / each).exists() for each in one) for one in unpacked)
        for name, unpacked in row.archives.items()
    )


def archive_in(folder: Path, name: str) -> bool:
    """Whether an archive lies in a folder as it can be read: not compressed as a whole."""
    plain_name = name.removesuffix(".gz")
    read = is_archive(plain_name) and OFFICIAL.fullmatch(Path(plain_name).stem)
    return bool(read) and (folder / plain_name).is_file()


def is_called(row: DatasetRow, folder: Path) -> bool:
    """Whether a folder has the data set's name, as people write it: ImageNet-A, coco2017."""
    name, other = plain(row.name), plain(folder.name)
    return other == name or other.startswith(name) or name.removeprefix("imagenet") == other


def alike(rows: dict[str, DatasetRow], name: str) -> bool:
    """Whether other data sets have the same files, so that a name has to tell."""
    mine = set(patterns(rows[name].layout))
    return any(mine == set(patterns(row.layout)) for each, row in rows.items() if each != name)


def patterns(layout: str) -> list[str]:
    """Patterns of `Path.glob` for the files of a layout as `mae-bench data list` shows it."""
    found = []
    for part in re.split(r", (?![^{]*\})| and ", layout.partition(", or ")[0]):
        for text in alternatives(part.strip()):
            found.append(re.sub(r"<wnid>", "n[0-9]*", text) if "<wnid>" in text else text)
    return [re.sub(r"<[^>]*>", "*", text) for text in found if text]


def alternatives(text: str) -> list[str]:
    """ "{a,b}x" -> ["ax", "bx"]."""
    pieces = re.split(r"\{([^}]*)\}", text)
    choices = [[p] if i % 2 == 0 else p.split(",") for i, p in enumerate(pieces)]
    return ["".join(each) for each in itertools.product(*choices)]
