"""Make, find and check a miniature world: small data sets of drawn scenes in official layouts.

    root/imagenet1k/...  root/unlabelled/...  root/coco/...  and so on, as the faces of tasks say
    root/world.json      the manifest; written last, so a world that has it is complete

A twin that a world lacks, as of a task that is new, is drawn beside the others, which stay as they
are. `drawing` says what an image depends on.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

import tasks
from backbones.files import atomic_text, naming
from tasks.cache import cache_folder
from tasks.errors import TaskError
from tasks.miniature.drawing import Progress, draw
from tasks.miniature.twin import Twin

FORMAT = "mae-bench miniature world"
VERSION = 2
"""counts changes that alter files of every twin; a twin counts its own"""
MANIFEST = "world.json"
UNFINISHED = "world.unfinished"
"""lies in a world from the start of its making to the end"""
DRAWING = ".drawing"
"""folder in a world where twins lie until they are whole"""
LOCK = ".world.lock"
MOMENT = 10.0
"""seconds after which nobody writes into a world any more whose maker was killed"""


def twins() -> list[Twin]:
    """Of the data sets of all tasks."""
    return [twin for face in tasks.faces() for twin in face.twins()]


class WorldSizes:
    """Images per split; a data set whose splits are all 0 is left out.

    Of ImageNet-C it is the number of clean images: each is written in 75 corrupted versions.
    """

    def __init__(self, **images: int) -> None:
        """`images`: coco_val=100 and so on; where nothing is said, as many as the twin says.

        Raises TaskError for a split that there is none of, and a number below 0.
        """
        usual = {f"{t.name}_{split}": n for t in twins() for split, n in t.sizes.items()}
        for name, value in images.items():
            tasks.check_known("world size", name, list(usual))
            if not isinstance(value, int) or value < 0:
                raise TaskError(f"world size {name} is {value!r}; expected an integer, 0 or more")
        self.images: Mapping[str, int] = usual | images

    @classmethod
    def only(cls, **images: int) -> "WorldSizes":
        """These images and no others."""
        return cls(**dict.fromkeys(cls().images, 0) | images)

    def splits(self, twin: Twin) -> dict[str, int]:
        """Images per split of one data set; empty if it is left out."""
        counts = {split: self.images[f"{twin.name}_{split}"] for split in twin.sizes}
        return counts if any(counts.values()) else {}


def default_root() -> Path:
    """The world that is made when none is named: `$XDG_CACHE_HOME/mae-bench/mini-v2`."""
    return cache_folder() / f"mini-v{VERSION}"


def ensure(
    root: Path | str | None = None,
    *,
    seed: int = 0,
    sizes: WorldSizes | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Return a complete world of this version, seed and sizes at `root`, made if need be.

    An unfinished world is made again; of a complete one only what is missing, damaged or of an
    older version. Safe to call from several processes at once: one makes the world, the others
    wait for it. Raises TaskError if `root` holds another complete world, or files that are not a
    world; OSError as `make` does.
    """
    root = default_root() if root is None else Path(root)
    sizes = sizes or WorldSizes()
    if not _lacking(root, seed, sizes):
        return root
    _refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / LOCK):
        lacking = _lacking(root, seed, sizes)
        manifest = _read_manifest(root)
        if lacking and manifest is None:
            make(root, seed=seed, sizes=sizes, workers=workers, on_progress=on_progress)
        elif lacking and manifest is not None:
            _add(root, manifest, lacking, sizes, workers, on_progress)
    return root


def make(
    root: Path | str,
    *,
    seed: int = 0,
    sizes: WorldSizes | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write a world into `root`, replacing a world that is there; return `root`.

    `workers` processes draw (default: one per core, fewer for small worlds; 1 draws in this
    process). They are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__"`. Raises TaskError, before anything is written, if `root` holds
    files that are not a world, and lets OSError (read-only or full disk) through. Whatever stops
    it, an unfinished world has no manifest, and the next `ensure` makes it again.
    """
    root = Path(root)
    sizes = sizes or WorldSizes()
    if not isinstance(seed, int) or seed < 0:
        raise TaskError(f"world seed is {seed!r}; expected an integer, 0 or more")
    if workers is not None and workers < 1:
        raise TaskError(f"workers is {workers}; expected 1 or more")
    _refuse_foreign(root)
    root.mkdir(parents=True, exist_ok=True)
    with naming(root / UNFINISHED):
        (root / UNFINISHED).write_text(f"{FORMAT}, being made\n")
    (root / MANIFEST).unlink(missing_ok=True)
    for twin in twins():
        _remove(root / twin.name)
    manifest = {"format": FORMAT, "version": VERSION, "seed": seed, "sizes": {}, "sets": {}}
    wanted = [twin for twin in twins() if sizes.splits(twin)]
    _add(root, manifest | {"sizes": dict(sizes.images)}, wanted, sizes, workers, on_progress)
    (root / UNFINISHED).unlink()
    return root


def _add(
    root: Path,
    manifest: dict[str, Any],
    wanted: list[Twin],
    sizes: WorldSizes,
    workers: int | None,
    on_progress: Progress | None,
) -> None:
    """Draw some twins apart, put each in its place once all are whole, and note them."""
    _remove(root / DRAWING)
    splits = {twin: sizes.splits(twin) for twin in wanted}
    draw(root / DRAWING, manifest["seed"], splits, workers, on_progress)
    sets = dict(manifest["sets"])
    for twin in wanted:
        sets[twin.name] = {
            "version": twin.version,
            "classes": list(twin.classes),
            "images": splits[twin],
            "files": _count_files(root / DRAWING / twin.name),
        }
        _remove(root / twin.name)
        (root / DRAWING / twin.name).rename(root / twin.name)
    _remove(root / DRAWING)
    whole = {
        "sizes": manifest["sizes"] | sizes.images,
        "files": sum(each["files"] for each in sets.values()),
        "sets": sets,
    }
    with atomic_text(root / MANIFEST) as stream:
        stream.write(json.dumps(manifest | whole, indent=1) + "\n")


def _remove(folder: Path) -> None:
    """Remove a folder, into which the processes of a killed making may write for a moment yet."""
    until = time.monotonic() + MOMENT
    while True:
        try:
            if folder.exists():
                shutil.rmtree(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > until:
                raise
        time.sleep(0.1)


def find(path: Path | str) -> dict[str, Any] | None:
    """The manifest of the complete world that `path` lies in or is; None if in none.

    `path` need not exist.
    """
    path = Path(path).resolve()
    for folder in (path, *path.parents):
        manifest = _read_manifest(folder)
        if manifest is not None:
            return manifest
    return None


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):  # absent, unreadable or not JSON: no world of ours
        return None
    is_ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    whole = is_ours and all(isinstance(manifest.get(key), dict) for key in ("sizes", "sets"))
    return manifest if whole else None


def _lacking(root: Path, seed: int, sizes: WorldSizes) -> list[Twin]:
    """Twins that the world at `root` is yet to get; raises TaskError if it is another one."""
    wanted = [twin for twin in twins() if sizes.splits(twin)]
    manifest = _read_manifest(root)
    if manifest is None:
        return wanted
    drawn = manifest["sets"]
    # A twin of an older version is drawn anew, and may have other sizes since.
    kept = [f"{t.name}_{split}" for t in twins() if not _is_older(drawn, t) for split in t.sizes]
    there = {name: count for name, count in manifest["sizes"].items() if name in kept}
    alike = {name: count for name, count in sizes.images.items() if name in there}
    for key, found, value in (
        ("version", manifest["version"], VERSION),
        ("seed", manifest["seed"], seed),
        ("sizes", {name: there[name] for name in alike}, alike),
    ):
        if found != value:
            raise TaskError(
                f"{root} holds a miniature world of {key} {found}; expected {value}: name another "
                "folder, or delete this one"
            )
    return [twin for twin in wanted if not _is_there(root, drawn.get(twin.name), twin)]


def _is_older(drawn: Mapping[str, Any], twin: Twin) -> bool:
    """Whether a world has a twin as an older version has drawn it."""
    return twin.name in drawn and _version(drawn[twin.name]) < twin.version


def _version(facts: Mapping[str, Any]) -> int:
    return int(facts.get("version", 1))  # older worlds name none


def _is_there(root: Path, facts: dict[str, Any] | None, twin: Twin) -> bool:
    """Whether a world has a twin whole; TaskError if a newer mae-bench has drawn it."""
    if facts is None:
        return False
    version = _version(facts)
    if version > twin.version:
        raise TaskError(
            f"{root} holds version {version} of {twin.name}, drawn by a newer mae-bench than this, "
            f"which draws version {twin.version}: name another folder, or install the newer one"
        )
    return version == twin.version and facts["files"] == _count_files(root / twin.name)


def _refuse_foreign(root: Path) -> None:
    """Raise TaskError if `root` is a file or a folder with something other than a world in it."""
    if not root.exists():
        return
    if not root.is_dir():
        raise TaskError(f"{root} is a file; expected a folder for the miniature world")
    # Names first: a world that another process begins or ends meanwhile is never taken as foreign.
    names = {entry.name for entry in root.iterdir()} - {LOCK}
    is_ours = UNFINISHED in names or _read_manifest(root) is not None
    if names and not is_ours and not (root / UNFINISHED).exists():
        raise TaskError(
            f"{root} is not empty and no miniature world; name an empty or new folder for it"
        )


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
