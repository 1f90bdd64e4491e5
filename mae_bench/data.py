"""From `--data` to folders: the built-in miniature world, or the user's own."""

from contextlib import ExitStack
from pathlib import Path

from mae_bench.errors import RunError
from mae_bench.progress import Bar, progress, say
from tasks import check_known, miniature

MINI = "mini"
CHECKED = ("coco", "ade20k")
"""data sets that `mae-bench data check` knows"""


def task_root(task: str, data: str | Path) -> Path:
    """Root folder of a task's data set; "mini" is the miniature twin, made if it is not there.

    "TRAIN.json,VAL.json", which COCO's reader takes instead of a folder, passes as it is.
    """
    if str(data) == MINI:
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
    from tasks.coco.check import check as check_coco

    place = miniature_world() / name if str(root) == MINI else root
    say(f"reading what is in {place} ...")
    with ExitStack() as stack:
        bar: Bar | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = stack.enter_context(progress("decoding a sample of the images", total))
            bar.update(done)

        check = {"coco": check_coco, "ade20k": check_ade20k}[name]
        findings = check(place, on_progress=advance).findings
    return show(findings)
