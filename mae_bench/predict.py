"""`mae-bench predict`: what a run's network says of one's own images."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock

import tasks
from backbones.files import atomic, atomic_text
from mae_bench.again import build
from mae_bench.arguments import check_common
from mae_bench.errors import RunError
from mae_bench.execution import Execution
from mae_bench.progress import progress, say
from mae_bench.run.files import HALF_WRITTEN, LOCK_FILE
from mae_bench.run.trained import Trained, learnt, read_trained
from mae_bench.run.unfinished import delete_left
from mae_bench.setup import scoring, start
from tasks.images import Unreadable, by_reason
from tasks.images.walk import OWN_SUFFIXES, plural, walk_images
from tasks.prediction import Prediction

FILE = "predictions.json"
PICTURE = ".predicted.png"
MOST_BYTES = 180
"""of the part of a picture's name that is made of its image's: file systems take 255 in all"""


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    execution: Execution | None = None,
) -> list[dict[str, Any]]:
    """What the network of a run says of images, files or folders of them, in a list.

    `run` is the folder of a run that trains, finished or interrupted. Into the new folder `out`
    (default: predictions/<run>) go a picture for each image, for segmentation its label map too,
    and predictions.json, the list: "file", and the best classes with probabilities, or objects
    with box (x, y, width, height in pixels), score and mask (COCO's run lengths), or the classes
    of the pixels with their shares; or "unreadable", the reason. Raises one-line errors.
    """
    how = execution or Execution()
    check_common(out, run=run)
    trained = read_trained(Path(run))
    files = found_files([images] if isinstance(images, str | Path) else images)
    folder = new_folder(Path("predictions") / trained.name if out is None else Path(out))
    accelerator = start(how, trained.identity.seed)
    if accelerator.num_processes > 1:
        raise RunError("predict works in one process; start it without torchrun")
    if trained.step < trained.steps:
        say(f"note: training interrupted after step {trained.step} of {trained.steps}")
    root = Path(os.path.commonpath([file.parent for file in files]))
    names = [file.relative_to(root).as_posix() for file in files]
    data = tasks.face_of(trained.identity.task).images_alone(
        root, names, classes_of(trained), trained.weights
    )
    task = build(trained, data, None)
    task.to(accelerator.device)
    found = task.predictions(scoring(task, how, accelerator, batch_size=1))
    rows: list[dict[str, Any]] = []
    unreadable: list[Unreadable] = []
    title = f"predicting {plural(len(files), 'image')}"
    with whole(folder) as unfinished, progress(title, len(files), 0) as bar:
        parts = zip(files, stems(names), found, strict=True)
        for number, (file, stem, each) in enumerate(parts, 1):
            if isinstance(each, Unreadable):
                unreadable.append(each)
                rows.append({"file": str(file), "unreadable": each.reason})
            else:
                rows.append({"file": str(file)} | keep(each, unfinished, stem))
            bar.update(number)
        if len(unreadable) == len(files):
            reasons = "; ".join(by_reason(unreadable)[:3])
            raise RunError(f"none of the images can be read: {reasons}")
        with atomic_text(unfinished / FILE) as stream:
            stream.write(json.dumps(rows, indent=1))
    for line in by_reason(unreadable):
        say(f"unreadable   {line}", style="yellow")
    say(f"predictions  {folder / FILE}, and a picture of each image beside it")
    return rows


def found_files(places: Sequence[str | Path]) -> list[Path]:
    """The image files at some places, in their order, each once; `RunError` if there is none."""
    files: dict[Path, None] = {}
    for place in map(Path, places):
        if place.is_dir():
            inside = walk_images(place, OWN_SUFFIXES)
            files |= dict.fromkeys((place / name).resolve() for name in inside)
        elif place.exists():
            files[place.resolve()] = None
        else:
            raise RunError(f"{place}: no such file; expected an image or a folder of images")
    if not files:
        raise RunError("predict needs images: files, or folders of them")
    return list(files)


def new_folder(folder: Path) -> Path:
    """`folder` itself; `RunError` if there is anything in it, so that nothing is written over."""
    if folder.exists() and not (folder.is_dir() and all(map(is_left, folder.iterdir()))):
        raise RunError(f"--out {folder}: is there already and not empty; choose another folder")
    return folder


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A place to write into whose files are in `folder` at the end; after an error none is.

    So the same command can be given again, and of two at the same time one gets the folder. What
    a killed call has left in it is deleted.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    delete_left(filter(is_left, folder.iterdir()))
    place = Path(mkdtemp(HALF_WRITTEN, ".", folder))
    with FileLock(place / LOCK_FILE):
        try:
            yield place
            new_folder(folder)
            (place / FILE).rename(folder / FILE)
            for file in place.iterdir():
                if file.name != LOCK_FILE:
                    file.rename(folder / file.name)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
            raise
    shutil.rmtree(place, ignore_errors=True)


def stems(names: Sequence[str]) -> Iterator[str]:
    """What the names of an image's pictures begin with: its own name, on one level, short, once."""
    taken: set[str] = set()
    for name in names:
        stem = name.replace("/", "__")
        if len(os.fsencode(stem)) > MOST_BYTES or stem.casefold() in taken:
            short = os.fsencode(stem)[:MOST_BYTES].decode(errors="ignore")
            stem = f"{short}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:12]}"
        taken.add(stem.casefold())
        yield stem


def is_left(file: Path) -> bool:
    """Whether a file in the new folder is another call's, under way or killed."""
    return file.name.startswith(".") and file.name.endswith(HALF_WRITTEN)


def classes_of(trained: Trained) -> list[str]:
    """Names of the classes; "class 0" and so on of a run that keeps none."""
    numbered = [f"class {index}" for index in range(trained.identity.data.classes)]
    return learnt(trained.folder) or numbered


def keep(each: Prediction, folder: Path, stem: str) -> dict[str, Any]:
    """Write a prediction's pictures, and name them beside what was found."""
    pictures = {"picture": (PICTURE, each.picture)}
    pictures |= {what: (f".{what}.png", image) for what, image in each.maps.items()}
    said: dict[str, Any] = dict(each.found)
    for what, (ending, image) in pictures.items():
        said[what] = f"{stem}{ending}"
        with atomic(folder / said[what]) as stream:
            image.save(stream, "PNG")
    return said
