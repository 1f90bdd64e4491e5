"""From `--data` to folders: the built-in miniature world, or the user's own."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mae_bench.errors import RunError
from mae_bench.progress import Bar, console, progress, say
from tasks import check_known, miniature
from tasks.ade20k import datasets as ade20k
from tasks.classification.datasets import DATASETS, FOLDER, ROBUSTNESS
from tasks.coco import datasets as coco

MINI = "mini"
CHECKED = ("coco", "ade20k", *DATASETS, *ROBUSTNESS)
"""data sets that `mae-bench data check` and `list` know"""
NO_TWIN = (
    "the miniature world has no images of your own; give {flag} DIR with train/<class>/ and "
    "val/<class>/"
)
ADE20K_GIGABYTES = 1
"""disk that ADE20K takes, unconfirmed; the sizes of the others come from their archives"""


def task_root(task: str, data: str | Path) -> Path:
    """Root folder of a task's data set; "mini" is the miniature twin, made if it is not there.

    "TRAIN.json,VAL.json", which COCO's reader takes instead of a folder, passes as it is.
    """
    if str(data) == MINI:
        if task == FOLDER.name:
            raise RunError(NO_TWIN.format(flag="--data"))
        return miniature_world() / task
    root = Path(data)
    if task == "coco" and ".json" in str(data).lower():
        return root
    if not root.exists():
        raise RunError(
            f"--data {root}: no such folder; expected the {task} data set, or mini for the "
            "built-in world"
        )
    return root


def pretraining_folders(data: str | Path) -> list[Path]:
    """Folders of unlabelled images: the world's, an ImageNet root's train/, or any folder."""
    if str(data) == MINI:
        world = miniature_world()
        return [world / "unlabelled", world / "imagenet1k" / "train"]
    root = Path(data)
    if not root.exists():
        raise RunError(
            f"--data {root}: no such folder; expected a folder of images, or mini for the "
            "built-in world"
        )
    return [root / "train"] if (root / "train").is_dir() else [root]


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


def announce(root: Path) -> bool:
    """Say where the data are; whether they belong to a miniature world."""
    inside = miniature.find(root) is not None
    say(f"data: {root}" + (" (miniature world)" if inside else ""))
    return inside


def make_miniature_world(root: Path | None = None) -> Path:
    """`mae-bench data make`: the world and a contact sheet of it."""
    world = miniature_world(root)
    picture = world / "contact_sheet.png"
    miniature.contact_sheet(world, picture)
    say(f"miniature world  {world}\ncontact sheet    {picture}")
    return world


def check_data(name: str, root: str | Path) -> bool:
    """`mae-bench data check`: print what is right and wrong with a data set on disk.

    Returns whether nothing is wrong. Raises `TaskError` for an unknown data set.
    """
    check_known("data set", name, list(CHECKED))
    from mae_bench.doctor import show
    from tasks.ade20k.check import check as check_ade20k
    from tasks.classification.check import check as check_classification
    from tasks.coco.check import check as check_coco

    if str(root) == MINI and name == FOLDER.name:
        raise RunError(NO_TWIN.format(flag="--root"))
    place = miniature_world() / name if str(root) == MINI else root
    say(f"reading what is in {place} ...")
    with ExitStack() as stack:
        bar: Bar | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress("decoding a sample of the images", total))
            bar.update(done)

        other = partial(check_classification, name)
        check = {"coco": check_coco, "ade20k": check_ade20k}.get(name, other)
        findings = check(place, on_progress=advance).findings
    return show(findings)


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
    say(
        "\nmae-bench data check NAME --root DIR says what is missing, and where to get it.\n"
        f"{', '.join(ROBUSTNESS)} test a model of imagenet1k."
    )


def data_rows() -> list[tuple[str, ...]]:
    """Name, classes, training and test images, disk and layout of each data set, as text."""
    rows = []
    size = sum(archive.size for archive in coco.ARCHIVES.values()) / 1e9
    for name, facts, disk in (("coco", coco, size), ("ade20k", ade20k, ADE20K_GIGABYTES)):
        train, val = facts.NUM_IMAGES["train"], facts.NUM_IMAGES["val"]
        rows.append(as_text(name, facts.NUM_CLASSES, train, val, disk, facts.LAYOUT))
    for each in DATASETS.values():
        counts = (each.num_classes, each.num_train, each.num_val)
        rows.append(as_text(each.name, *counts, each.gigabytes, each.layout))
    for test in ROBUSTNESS.values():
        images = test.num_sets * test.num_images
        rows.append(as_text(test.name, test.num_classes, None, images, test.gigabytes, test.layout))
    return rows


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
