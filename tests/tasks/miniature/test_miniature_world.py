"""Making, finding and checking a miniature world."""

import json
import multiprocessing
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks import miniature
from tasks.errors import TaskError
from tasks.miniature import WorldSizes, drawing, world

only = WorldSizes.only
SPLITS = list(WorldSizes().images)
TINY = WorldSizes(**dict.fromkeys(SPLITS, 6))


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != world.LOCK
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return miniature.make(tmp_path_factory.mktemp("worlds") / "tiny", sizes=TINY, workers=1)


def test_same_bytes_with_any_number_of_workers(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "CHUNK", 4)
    parallel = miniature.make(tmp_path / "parallel", sizes=TINY, workers=2)
    assert contents(parallel) == contents(tiny)


def test_image_does_not_depend_on_the_sizes(tiny: Path, tmp_path: Path) -> None:
    small = miniature.make(tmp_path / "small", sizes=only(imagenet1k_val=3, coco_train=2))
    files = contents(small)
    images = [name for name in files if name.endswith((".JPEG", ".jpg"))]
    assert len(images) == 5
    assert all(contents(tiny)[name] == files[name] for name in images)


def test_seed_changes_every_image(tiny: Path, tmp_path: Path) -> None:
    other = miniature.make(tmp_path / "other", seed=1, sizes=only(imagenet1k_train=6))
    files, before = contents(other), contents(tiny)
    images = [name for name in files if name.endswith(".JPEG")]
    assert len(images) == 6
    assert all(before[name] != files[name] for name in images)


def test_no_image_occurs_twice(tiny: Path) -> None:
    digests = [value for name, value in contents(tiny).items() if name.endswith(("JPEG", "jpg"))]
    # Six per split, but of ImageNet-C six in 15 corruptions at 5 severities.
    assert len(digests) == len(set(digests)) == 6 * (len(SPLITS) - 1 + 15 * 5)


def test_imagenet_folders(tmp_path: Path) -> None:
    sizes = only(imagenet1k_train=40, imagenet1k_val=20, unlabelled_train=7)
    root = miniature.make(tmp_path / "w", sizes=sizes)
    for split, each in (("train", 4), ("val", 2)):
        folders = sorted(path.name for path in (root / "imagenet1k" / split).iterdir())
        assert folders == [f"n{k:08d}" for k in range(1, 11)]
        files = list((root / "imagenet1k" / split).glob("*/*.JPEG"))
        assert Counter(path.parent.name for path in files) == dict.fromkeys(folders, each)
    assert len(list((root / "unlabelled").glob("*.JPEG"))) == 7
    with Image.open(next((root / "unlabelled").glob("*.JPEG"))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
        assert np.asarray(image).std() > 5
    assert not (root / "coco").exists()


def test_manifest(tiny: Path) -> None:
    manifest = json.loads((tiny / "world.json").read_text())
    assert manifest["format"] == "mae-bench miniature world"
    assert (manifest["version"], manifest["seed"]) == (world.VERSION, 0)
    assert manifest["sizes"] == TINY.images
    assert manifest["files"] == len(contents(tiny)) - 1  # without itself
    assert set(manifest["sets"]) == {twin.name for twin in world.twins()}
    assert manifest["sets"]["imagenet1k"]["images"] == {"train": 6, "val": 6}
    assert manifest["sets"]["imagenet1k"]["classes"][:2] == ["disc", "ring"]
    assert manifest["sets"]["places205"]["classes"][0] == "barn"


def test_find_looks_upwards(tiny: Path, tmp_path: Path) -> None:
    manifest = miniature.find(tiny)
    assert manifest is not None
    assert miniature.find(tiny / "coco" / "train2017") == manifest
    assert miniature.find(str(tiny / "not" / "there")) == manifest
    link = tmp_path / "link"
    link.symlink_to(tiny / "imagenet1k")
    assert miniature.find(link) == manifest
    assert miniature.find(tmp_path) is None
    (tmp_path / "world.json").write_text('{"format": "another"}')
    assert miniature.find(tmp_path) is None
    (tmp_path / "world.json").write_text("[")
    assert miniature.find(tmp_path) is None


def test_ensure_keeps_a_complete_world(tmp_path: Path) -> None:
    sizes = only(unlabelled_train=3)
    root = miniature.ensure(tmp_path / "deep" / "w", sizes=sizes)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert miniature.ensure(root, sizes=sizes) == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_ensure_mends_a_damaged_world(tmp_path: Path) -> None:
    sizes = only(unlabelled_train=3)
    root = miniature.ensure(tmp_path / "w", sizes=sizes)
    before = contents(root)
    (root / "unlabelled" / "00000002.JPEG").unlink()
    assert contents(miniature.ensure(root, sizes=sizes)) == before


def test_ensure_makes_an_unfinished_world_again(tmp_path: Path) -> None:
    sizes = only(unlabelled_train=120)

    def interrupt(done: int, total: int, what: str) -> None:
        assert (total, what) == (120, "unlabelled")
        raise KeyboardInterrupt

    root = tmp_path / "w"
    with pytest.raises(KeyboardInterrupt):
        miniature.ensure(root, sizes=sizes, on_progress=interrupt)
    assert 0 < len(list((root / world.DRAWING / "unlabelled").iterdir())) < 120
    assert miniature.find(root) is None
    (root / world.DRAWING / "unlabelled" / "stray.JPEG").write_bytes(b"cut sho")
    miniature.ensure(root, sizes=sizes)
    assert len(list((root / "unlabelled").iterdir())) == 120
    assert miniature.find(root) is not None
    assert not (root / world.UNFINISHED).exists()


def test_ensure_from_two_processes_at_once(tmp_path: Path) -> None:
    """Each fails if the other writes into, or removes, what it has made."""
    code = (
        "import sys; from tasks.miniature import WorldSizes, ensure, find; "
        "ensure(sys.argv[1], sizes=WorldSizes.only(unlabelled_train=300)); "
        "sys.exit(find(sys.argv[1]) is None)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(list((tmp_path / "w" / "unlabelled").iterdir())) == 300


KILLED = """
import sys
from tasks.miniature import WorldSizes, ensure
def told(*_):
    print("drawing", flush=True)
if __name__ == "__main__":
    ensure(sys.argv[1], sizes=WorldSizes.only(unlabelled_train=300), workers=2,
           on_progress=told)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_killed_making_leaves_no_process_and_is_begun_again_at_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "w")]
    semaphores = set(Path("/dev/shm").glob("sem.*"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as making:
        assert making.stdout is not None
        assert making.stdout.readline() == b"drawing\n"
        assert len(of_session(making.pid)) > 2
        assert set(Path("/dev/shm").glob("sem.*")) <= semaphores
        making.kill()
    miniature.ensure(tmp_path / "w", sizes=only(unlabelled_train=300), workers=1)
    assert len(list((tmp_path / "w" / "unlabelled").iterdir())) == 300
    until = time.monotonic() + 60
    while left := of_session(making.pid):
        assert time.monotonic() < until, f"{left} outlive their parent"
        time.sleep(0.05)


def of_session(leader: int) -> list[int]:
    """Processes, still at work, of the session that `leader` has begun."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(session) == leader and state != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_named(tmp_path: Path, workers: int) -> None:
    """What writing raises then has no file name."""
    root = tmp_path / "w"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            miniature.make(root, sizes=only(unlabelled_train=60), workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value.filename).startswith(str(root))
    assert miniature.find(root) is None
    assert len(list(miniature.ensure(root, sizes=only(unlabelled_train=60)).rglob("*.JPEG"))) == 60


def test_a_drawing_process_that_is_killed_is_said(tmp_path: Path) -> None:
    def kill_the_others(*_) -> None:
        for each in multiprocessing.active_children():
            each.kill()

    with pytest.raises(TaskError, match="a drawing process died"):
        miniature.make(
            tmp_path / "w",
            sizes=only(unlabelled_train=200),
            workers=2,
            on_progress=kill_the_others,
        )
    assert not multiprocessing.active_children()


def test_ensure_refuses_another_world(tmp_path: Path) -> None:
    root = miniature.ensure(tmp_path / "w", sizes=only(unlabelled_train=2))
    with pytest.raises(TaskError, match=r"world of seed 0; expected 1"):
        miniature.ensure(root, seed=1, sizes=only(unlabelled_train=2))
    with pytest.raises(TaskError, match=r"world of sizes .* name another folder"):
        miniature.ensure(root, sizes=only(unlabelled_train=3))


def test_a_twin_of_an_older_version_is_drawn_anew_and_no_other(tmp_path: Path, monkeypatch) -> None:
    sizes = only(imagenet1k_val=2, unlabelled_train=3)
    root = miniature.make(tmp_path / "w", sizes=only(imagenet1k_val=2, unlabelled_train=1))
    drawn = contents(miniature.make(tmp_path / "wanted", sizes=sizes))
    (root / "unlabelled/00000001.JPEG").write_text("as an older version has drawn it")
    kept = (root / "imagenet1k").stat().st_mtime_ns
    newer = [replace(t, version=2) if t.name == "unlabelled" else t for t in world.twins()]
    with monkeypatch.context() as patch:
        patch.setattr(world, "twins", lambda: newer)
        miniature.ensure(root, sizes=sizes)
    manifest = json.loads((root / "world.json").read_text())
    versions = {name: each["version"] for name, each in manifest["sets"].items()}
    assert versions == {"imagenet1k": 1, "unlabelled": 2}
    assert manifest["sizes"] == sizes.images
    assert (root / "imagenet1k").stat().st_mtime_ns == kept
    assert contents(root) | {"world.json": ""} == drawn | {"world.json": ""}
    with pytest.raises(TaskError, match="holds version 2 of unlabelled, drawn by a newer"):
        miniature.ensure(root, sizes=sizes)


def test_a_world_of_before_twins_had_versions_is_complete(tmp_path: Path) -> None:
    root = miniature.make(tmp_path / "w", sizes=only(unlabelled_train=3))
    manifest = json.loads((root / "world.json").read_text())
    del manifest["sets"]["unlabelled"]["version"]
    (root / "world.json").write_text(json.dumps(manifest))
    before = (root / "unlabelled").stat().st_mtime_ns
    miniature.ensure(root, sizes=only(unlabelled_train=3))
    assert (root / "unlabelled").stat().st_mtime_ns == before
    assert json.loads((root / "world.json").read_text()) == manifest


def test_a_killed_addition_leaves_the_world_as_it_was(tmp_path: Path) -> None:
    root = miniature.make(tmp_path / "w", sizes=only(imagenet1k_val=2, unlabelled_train=3))
    before = contents(root)
    (root / "unlabelled/00000002.JPEG").unlink()

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    sizes = only(imagenet1k_val=2, unlabelled_train=3)
    with pytest.raises(KeyboardInterrupt):
        miniature.ensure(root, sizes=sizes, on_progress=interrupt)
    assert miniature.find(root) is not None
    assert contents(miniature.ensure(root, sizes=sizes)) == before


@pytest.mark.parametrize("function", [miniature.make, miniature.ensure])
def test_foreign_folders_are_left_alone(function, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(TaskError, match="not empty and no miniature world"):
        function(tmp_path, sizes=only(unlabelled_train=1))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(TaskError, match="is a file"):
        function(tmp_path / "thesis.tex", sizes=only(unlabelled_train=1))


def test_make_replaces_its_own_files_only(tmp_path: Path) -> None:
    root = miniature.make(tmp_path / "w", sizes=only(unlabelled_train=3))
    (root / "notes.txt").write_text("mine")
    miniature.make(root, sizes=only(imagenet1k_val=2), seed=5)
    assert not (root / "unlabelled").exists()
    assert (root / "notes.txt").read_text() == "mine"
    assert json.loads((root / "world.json").read_text())["seed"] == 5


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_to_write_leaves_no_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """A file lies where the images of one class should go."""
    root = tmp_path / "w"
    (root / world.DRAWING / "imagenet1k" / "train").mkdir(parents=True)
    (root / world.DRAWING / "imagenet1k" / "train" / "n00000003").write_text("in the way")
    (root / world.UNFINISHED).write_text("")
    monkeypatch.setattr(world.shutil, "rmtree", lambda path: None)
    with pytest.raises(OSError, match="n00000003"):
        miniature.make(root, sizes=only(imagenet1k_train=120), workers=workers)
    assert miniature.find(root) is None
    assert (root / world.UNFINISHED).exists()


def test_progress_counts_up_to_the_total(tmp_path: Path) -> None:
    calls = []
    sizes = only(imagenet1k_val=60, places365_val=10)
    miniature.make(tmp_path / "w", sizes=sizes, on_progress=lambda *call: calls.append(call))
    assert calls == [(50, 70, "imagenet1k"), (60, 70, "imagenet1k"), (70, 70, "places365")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "world seed is -1"),
        ({"seed": 0.5}, "world seed is 0.5"),
        ({"workers": 0}, "workers is 0; expected 1 or more"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        miniature.make(tmp_path / "w", sizes=only(unlabelled_train=1), **arguments)
    assert not (tmp_path / "w").exists()


def test_bad_sizes() -> None:
    with pytest.raises(TaskError, match="coco_val is -1; expected an integer, 0 or more"):
        WorldSizes(coco_val=-1)


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert miniature.default_root() == Path(f"/somewhere/mae-bench/mini-v{world.VERSION}")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert miniature.default_root().parent == Path.home() / ".cache" / "mae-bench"


def test_contact_sheet(tiny: Path, tmp_path: Path) -> None:
    file = miniature.contact_sheet(tiny, tmp_path / "sheet.png")
    assert file.stat().st_size < 1_000_000
    with Image.open(file) as sheet:
        assert sheet.format == "PNG"
        assert max(sheet.width - 1440, sheet.height - 900) <= 0  # seen at once on a laptop's screen
        pixels = np.asarray(sheet.convert("RGB"))
    paper = (np.abs(pixels.astype(int) - (250, 249, 246)).max(axis=2) < 8).mean()
    assert 0.3 < paper < 0.9  # neither blank nor crammed
    with pytest.raises(TaskError, match="no complete miniature world"):
        miniature.contact_sheet(tmp_path, tmp_path / "sheet.png")


def test_importing_does_not_import_torch() -> None:
    code = "import tasks.miniature, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
