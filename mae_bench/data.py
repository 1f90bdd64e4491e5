"""From `--data` to folders: the built-in miniature world, or the user's own."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

import tasks
from mae_bench.errors import RunError
from mae_bench.progress import Bar, console, progress, say
from tasks import check_known, miniature
from tasks.check import MAX_BAD_IMAGES, Check, refuse
from tasks.classification.datasets import KAGGLE
from tasks.errors import TaskError
from tasks.stores import is_archive

MINI = "mini"
SHEET = "contact_sheet.png"
FOLDER = "folder"
"""the task of one's own classes"""
MOST_LOOKED_AT = 8
"""folders, for images in them"""


def task_root(task: str, data: str | Path) -> Path:
    """Root folder of a task's data set; "mini" is the miniature twin, made if it is not there.

    What the task takes instead of a folder, as "TRAIN.json,VAL.json" for COCO, passes as it is.
    """
    if str(data) == MINI:
        refuse_without_twin(task, "--data")
        return miniature_world() / task
    refuse_place(task, "--data", data)
    return Path(data)


def refuse_place(task: str, flag: str, data: str | Path) -> None:
    """Raise `RunError` where nothing lies, or a file that is no archive."""
    root = Path(data)
    if task in tasks.checked() and tasks.face_of(task).takes(data):
        return
    if not root.exists():
        fault = "no such folder"
    elif root.is_file() and not is_archive(root):
        fault = "is a file"
    else:
        return
    raise RunError(
        f"{flag} {root}: {fault}; expected the {task} data set, or mini for the built-in world"
    )


def refuse_without_twin(name: str, flag: str) -> None:
    """Raise `RunError` if the miniature world has no data for a task or test set."""
    if name not in tasks.checked():
        return
    face = tasks.face_of(name)
    if name not in {twin.name for twin in face.twins()}:
        layout = next(row.layout for row in face.datasets() if row.name == name)
        raise RunError(f"the miniature world has no {name} data; give {flag} DIR with {layout}")


def pretraining_folders(data: str | Path) -> list[Path]:
    """Folders of unlabelled images: the world's, train/ (Kaggle's, too), or any folder."""
    if str(data) == MINI:
        world = miniature_world()
        return [world / "unlabelled", world / "imagenet1k" / "train"]
    root = Path(data)
    if not root.exists():
        raise RunError(
            f"--data {root}: no such folder; expected a folder of images, or mini for the "
            "built-in world"
        )
    from tasks.stores import opened

    root = opened(root)
    folders = [root / "train", root / KAGGLE / "train"]
    return next(([folder] for folder in folders if folder.is_dir()), [root])


def miniature_world(root: Path | None = None) -> Path:
    """The miniature world, drawn now if it is not complete on disk."""
    root = root or miniature.default_root()
    with ExitStack() as stack:
        bar: Bar | None = None

        def advance(done: int, total: int, what: str) -> None:
            nonlocal bar
            if bar is None:  # drawing has begun: the world was not there
                bar = stack.enter_context(progress(f"drawing the miniature world in {root}", total))
            bar.update(done, what)

        return miniature.ensure(root, on_progress=advance)


def weights_folder() -> Path:
    """Where the released weights of baselines are looked for, beside the miniature world."""
    return miniature.default_root().parent / "weights"


def is_miniature(data: str | Path) -> bool:
    """Whether `--data` means the miniature world or a folder of one."""
    return str(data) == MINI or miniature.find(Path(data)) is not None


def announce(root: Path) -> bool:
    """Say where the data are; whether they belong to a miniature world."""
    inside = miniature.find(root) is not None
    told = " (the built-in miniature world: drawn images; --data DIR takes yours)" if inside else ""
    say(f"data: {root}{told}", style="bold" if inside else None)
    return inside


def contact_sheet() -> Path | None:
    """The picture of the miniature world that `data make` and `quickstart` drew, if it is there."""
    file = miniature.default_root() / SHEET
    return file if file.is_file() else None


def make_miniature_world(root: Path | None = None) -> Path:
    """`mae-bench data make`: the world and a contact sheet of it."""
    world = miniature_world(root)
    picture = world / SHEET
    miniature.contact_sheet(world, picture)
    say(f"miniature world  {world}\ncontact sheet    {picture}")
    return world


def check_data(name: str, root: str | Path) -> bool:
    """`mae-bench data check`: print what is right and wrong with a data set on disk.

    Returns whether nothing is wrong: then `mae-bench transfer` takes it, and else it does not.
    Raises `TaskError` for an unknown data set.
    """
    check_known("data set", name, tasks.checked())
    from mae_bench.doctor import show

    if str(root) == MINI:
        refuse_without_twin(name, "--root")
    else:
        refuse_place(name, "--root", root)
    place = miniature_world() / name if str(root) == MINI else root
    say(f"reading what is in {place} ...")
    return show(look_at(name, place).findings)


def usable(name: str, root: str | Path, max_bad_images: int) -> Check:
    """What `check_data` finds, with the data as read.

    Raises `TaskError` with the first problem, if there is any.
    """
    try:
        found = look_at(name, root, max_bad_images)
        refuse(found, name, root)
    except TaskError as error:
        raise TaskError(f"{error}{own_classes(name, Path(root))}") from error
    return found


def own_classes(name: str, root: Path) -> str:
    """What to add where a folder that does not fit its task holds one's own folders of classes."""
    if name == FOLDER or not root.is_dir():
        return ""
    from tasks.classification.one_folder import is_one_folder
    from tasks.images.walk import OWN_SUFFIXES, in_folder, is_image_name

    classes = [each for each, is_folder in in_folder(root) if is_folder]
    filled = [
        each
        for each in classes[:MOST_LOOKED_AT]
        if any(is_image_name(file, OWN_SUFFIXES) for file, _ in in_folder(root / each))
    ]
    if len(filled) < 2 or not is_one_folder(classes):
        return ""
    return f"; if {' and '.join(filled[:2])} are classes of your own: --task {FOLDER}"


def look_at(
    name: str,
    root: str | Path,
    max_bad_images: int = MAX_BAD_IMAGES,
    learnt: Sequence[str] | None = None,
) -> Check:
    """What there is to say of a data set, with a bar while its images are decoded.

    `learnt`: the classes of a model that is only to be tested; then a test set alone will do.
    """
    with ExitStack() as stack:
        bar: Bar | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress("looking at the data", total))
            bar.update(done)

        found = None
        if learnt is not None:
            found = tasks.check_test(name, root, learnt, advance, max_bad_images)
        return found or tasks.check_data(name, root, advance, max_bad_images)


def list_data() -> None:
    """`mae-bench data list`: print tables of all data sets that the benchmark knows."""
    style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
    style |= {"padding": (0, 1, 0, 0), "header_style": ""}
    numbers, files = Table(**style), Table(**style)
    for title in ("data set", "classes", "training images", "test images", "GB on disk, about"):
        numbers.add_column(title, justify="left" if title == "data set" else "right", no_wrap=True)
    files.add_column("data set", no_wrap=True)
    files.add_column("files below the data folder", overflow="fold")
    for *cells, layout in data_rows():
        numbers.add_row(*map(Text, cells))
        files.add_row(*map(Text, (cells[0], layout)))
    console.print(numbers, Text(), files, soft_wrap=False)
    only_test = [name for face in tasks.faces() for name in face.only_test]
    say(
        "\nmae-bench data check NAME --root DIR says what is missing, and where to get it.\n"
        f"{', '.join(only_test)} test a model of imagenet1k."
    )


def data_rows() -> list[tuple[str, ...]]:
    """Name, classes, training and test images, disk and layout of each data set, as text."""
    rows = [row for face in tasks.faces() for row in face.datasets()]
    return [
        as_text(r.name, r.classes, r.train_images, r.test_images, r.gigabytes, r.layout)
        for r in rows
    ]


def as_text(
    name: str,
    classes: int,
    train: int | None,
    val: int,
    gigabytes: float | None,
    layout: str,
) -> tuple[str, ...]:
    """The cells of a data set; a dash where it has nothing, "any" where numbers are the user's."""
    counts = ["-" if n is None else f"{n:,}" if n else "any" for n in (classes, train, val)]
    disk = "" if gigabytes is None else f"{gigabytes:.0f}" if gigabytes >= 10 else f"{gigabytes:g}"
    return (name, *counts, disk, layout)
