"""Archives in place of folders: the same data set, to the bit; hostile ones refused or counted."""

import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from small_worlds import draw

import tasks
from tasks import archives, stores
from tasks.ade20k import layout as ade20k
from tasks.classification import layout as classification
from tasks.classification.check import check
from tasks.classification.robustness_sets import read_robustness
from tasks.coco import layout as coco
from tasks.errors import TaskError
from tasks.images import UnlabelledImages, UnreadableImage, decode


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("imagenet1k", "inat2018", "places365", "places205", "coco", "ade20k")
    sizes = {f"{name}_{split}": n for name in names for split, n in (("train", 40), ("val", 8))}
    return draw(tmp_path_factory.mktemp("world") / "w", imagenet_a_val=20, **sizes)


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "MOUNTS", {})


def tar(file: Path, folder: Path, name: str) -> None:
    with tarfile.open(file, "w") as archive:
        archive.add(folder, name)


def zipped(file: Path, folder: Path, name: str, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", method) as archive:
        for each in sorted(folder.rglob("*")):
            archive.write(each, Path(name) / each.relative_to(folder))


def of_imagenet(folder: Path, to: Path) -> None:
    """As image-net.org packs it, a tar of tars; the test images in class folders."""
    (to / "parts").mkdir()
    for each in sorted((folder / "train").iterdir()):
        with tarfile.open(to / "parts" / f"{each.name}.tar", "w") as archive:
            for image in sorted(each.iterdir()):
                archive.add(image, image.name)
    with tarfile.open(to / "ILSVRC2012_img_train.tar", "w") as archive:
        for part in sorted((to / "parts").iterdir()):
            archive.add(part, part.name)
    shutil.rmtree(to / "parts")
    tar(to / "val.tar", folder / "val", ".")


def packed(pack: Callable[[Path, Path, str], None], suffix: str) -> Callable[[Path, Path], None]:
    """Each folder of a data set in an archive of its own; files as they are."""

    def to_archives(folder: Path, to: Path) -> None:
        for each in folder.iterdir():
            if each.is_dir():
                pack(to / f"{each.name}{suffix}", each, each.name)
            else:
                shutil.copy(each, to)

    return to_archives


def deflated(file: Path, folder: Path, name: str) -> None:
    zipped(file, folder, name, zipfile.ZIP_DEFLATED)


CASES = [
    ("imagenet1k", of_imagenet),
    ("imagenet1k", packed(zipped, ".zip")),
    ("inat2018", packed(tar, ".tar")),
    ("places365", packed(tar, ".tar")),
    ("places205", packed(deflated, ".zip")),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(("task", "to_archives"), CASES)
def test_archives_are_the_folders(
    world: Path, data: Path, task: str, to_archives: Callable[[Path, Path], None]
) -> None:
    to_archives(world / task, data)
    plain, same = (classification.read(task, root) for root in (world / task, data))
    assert same.classes == plain.classes
    assert same.notes == plain.notes
    assert same.fingerprint == plain.fingerprint
    for split, other in ((plain.train, same.train), (plain.val, same.val)):
        assert list(other.names) == list(split.names)
        assert np.array_equal(other.targets, split.targets)
        for row in range(0, len(split), max(1, len(split) // 5)):
            assert np.array_equal(decode(other.path(row)), decode(split.path(row)))
    whole, of_folders = check(task, data), check(task, world / task)
    assert [each.status for each in whole.findings] == [each.status for each in of_folders.findings]


def test_robustness_sets(world: Path, data: Path) -> None:
    tar(data / "imagenet-a.tar", world / "imagenet_a", "imagenet-a")
    wnids = sorted(each.name for each in (world / "imagenet1k/train").iterdir())
    plain, same = (
        read_robustness("imagenet_a", root, wnids) for root in (world / "imagenet_a", data)
    )
    assert same.fingerprint == plain.fingerprint


@pytest.mark.parametrize("pack", [zipped, deflated])
def test_ade20k(world: Path, data: Path, pack: Callable[[Path, Path, str], None]) -> None:
    name = "ADEChallengeData2016"
    pack(data / f"{name}.zip", world / "ade20k" / name, name)
    plain = ade20k.read(world / "ade20k")
    for source in (data, data / f"{name}.zip"):
        same = ade20k.read(source)
        assert same.fingerprint == plain.fingerprint
        assert same.classes == plain.classes
        for row in (0, len(plain.val) - 1):
            for place in ("path", "label_path"):
                stored = stores.read(getattr(same.val, place)(row))
                assert stored == getattr(plain.val, place)(row).read_bytes()


def test_coco(world: Path, data: Path) -> None:
    for name in ("train2017", "val2017"):
        zipped(data / f"{name}.zip", world / "coco" / name, name)
    deflated(data / "annotations_trainval2017.zip", world / "coco/annotations", "annotations")
    plain, same = coco.read(world / "coco"), coco.read(data)
    assert same.fingerprint == plain.fingerprint
    assert list(same.train.names) == list(plain.train.names)
    assert np.array_equal(decode(same.val.path(0)), decode(plain.val.path(0)))


def test_a_flat_val_takes_a_list(world: Path, data: Path) -> None:
    of_imagenet(world / "imagenet1k", data)
    (data / "val.tar").unlink()
    lines = ["ImageId,PredictionString"]
    with tarfile.open(data / "ILSVRC2012_img_val.tar", "w") as archive:
        for image in sorted((world / "imagenet1k/val").rglob("*.*")):
            archive.add(image, image.name)
            lines.append(f"{image.stem},{image.parent.name} 1 2 3 4")
    (data / "LOC_val_solution.csv").write_text("\n".join(lines))
    plain, same = (classification.read("imagenet1k", r) for r in (world / "imagenet1k", data))
    assert same.fingerprint != plain.fingerprint  # the names of test images have no folder
    assert np.array_equal(same.val.targets, plain.val.targets)
    assert list(same.train.names) == list(plain.train.names)


def test_pretraining(world: Path, data: Path) -> None:
    of_imagenet(world / "imagenet1k", data)
    shutil.copytree(world / "imagenet1k", data.parent / "plain")
    plain, same = (UnlabelledImages([root], 32) for root in (data.parent / "plain", data))
    assert same.fingerprint == plain.fingerprint
    assert np.array_equal(
        same.__getitems__([(0, 3)])["images"], plain.__getitems__([(0, 3)])["images"]
    )


HELD_OUT: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("inat2018", packed(tar, ".tar")),
    ("places205", packed(deflated, ".zip")),
    ("ade20k", packed(zipped, ".zip")),
]


@pytest.mark.parametrize(("task", "to_archives"), HELD_OUT)
def test_pretraining_leaves_test_images_out(
    world: Path, data: Path, task: str, to_archives: Callable[[Path, Path], None]
) -> None:
    to_archives(world / task, data)
    plain, same = (
        UnlabelledImages([root], 32, leave_out=tasks.held_out(root))
        for root in (world / task, data)
    )
    assert same.fingerprint == plain.fingerprint
    found, expected = (
        [note.replace(str(root), "") for note in images.notes() if note.startswith("left out: ")]
        for root, images in ((data, same), (world / task, plain))
    )
    assert found == expected
    assert found


def test_test_images_in_an_archive_without_its_list_are_refused(world: Path, data: Path) -> None:
    tar(data / "train_val2018.tar", world / "inat2018/train_val2018", "train_val2018")
    for source in (data, data / "train_val2018.tar"):
        with pytest.raises(TaskError, match="holds training and test images of iNaturalist 2018"):
            tasks.held_out(source)


def make(folder: Path) -> Path:
    for number, name in enumerate(
        f"{s}/{c}/{i}.png" for s in ("train", "val") for c in "ab" for i in "12"
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(20, 24, seed=number).save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_archive_is_a_folder_of_its_own(data: Path, suffix: str) -> None:
    plain = classification.read("folder", make(data.parent / "pets"))
    pack = tar if suffix == ".tar" else deflated
    pack(data / f"pets{suffix}", data.parent / "pets", "pets")
    same = classification.read("folder", data / f"pets{suffix}")
    assert (same.fingerprint, same.name, same.notes) == (plain.fingerprint, "pets", plain.notes)


def test_another_process_opens_the_archive_itself(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar(data / "pets.tar", make(data.parent / "pets"), "pets")
    split = classification.read("folder", data / "pets.tar").train
    expected = decode(split.path(1))
    sent = pickle.dumps(split)
    monkeypatch.setattr(stores, "MOUNTS", {})
    assert np.array_equal(decode(pickle.loads(sent).path(1)), expected)


def test_the_index_is_kept_and_follows_the_archive(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar(data / "pets.tar", make(data.parent / "pets"), "pets")
    plain = classification.read("folder", data / "pets.tar")
    monkeypatch.setattr(stores, "MOUNTS", {})
    with monkeypatch.context() as patched:
        patched.setattr(archives, "index_tar", None)
        assert classification.read("folder", data / "pets.tar").fingerprint == plain.fingerprint
    picture(20, 24, seed=99).save(data.parent / "pets/train/a/3.png")
    tar(data / "pets.tar", data.parent / "pets", "pets")
    monkeypatch.setattr(stores, "MOUNTS", {})
    assert len(classification.read("folder", data / "pets.tar").train) == len(plain.train) + 1
    for file in (tmp_path / "cache/mae-bench/archives").iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    capsys.readouterr()
    monkeypatch.setattr(stores, "MOUNTS", {})
    assert len(classification.read("folder", data / "pets.tar").train) == len(plain.train) + 1
    assert f"it is damaged, or no file of ours; {data / 'pets.tar'} is read" in (
        capsys.readouterr().err
    )


def test_an_index_that_others_may_have_written_is_made_anew(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar(data / "pets.tar", make(data.parent / "pets"), "pets")
    classification.read("folder", data / "pets.tar")
    (index,) = (tmp_path / "cache/mae-bench/archives").glob("*.safetensors")
    index.chmod(0o666)
    monkeypatch.setattr(stores, "MOUNTS", {})
    classification.read("folder", data / "pets.tar")
    assert "others may write to it" in capsys.readouterr().err


def test_what_is_unpacked_wins(data: Path) -> None:
    make(data)
    (data / "train.tar").write_bytes(b"half of a download")
    assert len(classification.read("folder", data).train) == 4


def test_archives_by_other_names_are_not_read(data: Path, capsys) -> None:
    """Whatever is in them: a half-downloaded test set, a backup of other images."""
    plain = classification.read("folder", make(data.parent / "pets"))
    make(data)
    zipped(data / "backup.zip", data.parent / "pets" / "train", "backup")
    (data / "test2017.zip").write_bytes(b"half of a download")
    same = classification.read("folder", data)
    assert same.classes == plain.classes
    assert list(same.train.names) == list(plain.train.names)
    assert "backup.zip, test2017.zip not read" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [300, 1500, 3000])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_a_cut_archive_is_refused(data: Path, suffix: str, cut: int) -> None:
    file = data / f"pets{suffix}"
    (tar if suffix == ".tar" else zipped)(file, make(data.parent / "pets"), "pets")
    content = file.read_bytes().rstrip(b"\0")
    file.write_bytes(content[:-cut])
    with pytest.raises(TaskError, match=r"pets\.(tar|zip) cannot be read: .*; get it again"):
        classification.read("folder", file)


def test_a_compressed_tar_is_refused_with_the_command(data: Path) -> None:
    file = data / "pets.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        archive.add(make(data.parent / "pets"), "pets")
    for source in (file, data):
        with pytest.raises(TaskError, match=r"`gunzip -k .*pets\.tar\.gz` makes a tar of it"):
            classification.read("imagenet1k", source)


def test_odd_members_are_passed_over_and_said(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(data.parent / "pets")
    with tarfile.open(data / "pets.tar", "w") as archive:
        for name in ("../out.png", "/etc/out.png", "pets/train/../../x.png"):
            member = tarfile.TarInfo(name)
            archive.addfile(member)
        link = tarfile.TarInfo("pets/train/a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(folder / "val/a/1.png", "pets/train/a/1.png")
        archive.add(folder, "pets")
    found = classification.read("folder", data / "pets.tar")
    assert found.fingerprint == classification.read("folder", folder).fingerprint
    said = capsys.readouterr().err
    assert "3 members passed over, for names that lead outside the archive" in said
    assert "1 members passed over, for being links or devices: pets/train/a/link.png" in said
    assert "1 members passed over, for having the name of a later one: pets/train/a/1.png" in said


def test_a_name_in_no_encoding_is_that_of_the_file(data: Path) -> None:
    folder = make(data.parent / "pets")
    with tarfile.open(
        data / "pets.tar", "w", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        archive.add(folder, "pets")
        archive.add(folder / "val/a/1.png", "pets/train/a/\udce9.png")
    names = classification.read("folder", data / "pets.tar").train.names
    assert "train/a/\udce9.png" in list(names)


def spoilt(file: Path, offset: int, value: bytes) -> None:
    """Change the last entry of a zip's list, `offset` bytes into it."""
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + offset : entry + offset + len(value)] = value
    file.write_bytes(content)


def test_bombs_and_damage_are_unreadable_images(data: Path) -> None:
    folder = make(data.parent / "pets")
    (folder / "val/b/2.png").write_bytes(bytes(2**25))
    deflated(data / "pets.zip", folder, "pets")
    bomb = classification.read("folder", data / "pets.zip").val.path(3)
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(bomb)
    spoilt(data / "pets.zip", 24, struct.pack("<L", 100))  # the size: less than it unpacks to
    stores.MOUNTS.clear()
    path = classification.read("folder", data / "pets.zip").val.path(3)
    with pytest.raises(UnreadableImage, match="cannot be read: is damaged in pets"):
        decode(path)
    spoilt(data / "pets.zip", 8, struct.pack("<H", 1))  # the flags: encrypted
    stores.MOUNTS.clear()
    assert len(classification.read("folder", data / "pets.zip").val) == 3


def test_what_is_passed_over_is_a_note_of_the_data(world: Path, data: Path) -> None:
    folder = make(data.parent / "pets")
    with tarfile.open(data / "pets.tar", "w") as archive:
        link = tarfile.TarInfo("pets/train/a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.add(folder, "pets")
    said = "pets.tar: 1 members passed over, for being links or devices: pets/train/a/link.png"
    assert said in classification.read("folder", data / "pets.tar").notes
    shutil.copytree(world / "coco/annotations", data / "annotations")
    for name in ("train2017", "val2017"):
        with tarfile.open(data / f"{name}.tar", "w") as archive:
            archive.addfile(link)
            archive.add(world / "coco" / name, name)
    found = coco.read(data)
    assert found.fingerprint == coco.read(world / "coco").fingerprint
    assert [line.partition(":")[0] for line in found.passed_over] == [
        "train2017.tar",
        "val2017.tar",
    ]
    assert set(found.passed_over) <= set(found.report_lines())


@pytest.mark.parametrize(
    ("names", "bare"),
    [(("train2017", "val2017"), False), (("mine", "other"), False), (("mine", "other"), True)],
)
def test_images_of_a_pair_of_annotation_files_lie_in_archives(
    world: Path, data: Path, names: tuple[str, str], bare: bool
) -> None:
    """By the official names, or by those of the files."""
    files = []
    for split, name in zip(("train2017", "val2017"), names, strict=True):
        files.append(data / f"{name}.json")
        shutil.copy(world / f"coco/annotations/instances_{split}.json", files[-1])
        zipped(data / f"{name}.zip", world / "coco" / split, "." if bare else name)
    plain = coco.read(world / "coco")
    found = coco.read(",".join(map(str, files)))
    assert found.fingerprint == plain.fingerprint
    assert np.array_equal(decode(found.val.path(0)), decode(plain.val.path(0)))


def test_zip64(data: Path) -> None:
    """Members behind the first four gigabytes, here of a hole, and a list of such places."""
    folder = make(data.parent / "pets")
    with (data / "pets.zip").open("wb") as file:
        file.truncate(2**32 + 7)
    with zipfile.ZipFile(data / "pets.zip", "a") as archive:
        for each in sorted(folder.rglob("*")):
            archive.write(each, Path("pets") / each.relative_to(folder))
    with (data / "pets.zip").open("rb") as file:
        file.seek(-(56 + 20 + 22), 2)
        assert file.read(4) == b"PK\6\6"  # zip64's end of the list
    found = classification.read("folder", data / "pets.zip")
    assert found.fingerprint == classification.read("folder", folder).fingerprint
    path = found.val.path(0)
    assert np.array_equal(decode(path), decode(folder / found.val.names[0]))


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar that writes sparse members")
def test_sparse_members_are_passed_over_and_said(data: Path) -> None:
    folder = make(data.parent / "pets")
    with (folder / "train/a/hole.png").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**19)
        file.write(b"x")
    command = ["tar", "--sparse", "-cf", data / "pets.tar", "-C", folder.parent, "pets"]
    subprocess.run(command, check=True)
    found = classification.read("folder", data / "pets.tar")
    assert "train/a/hole.png" not in list(found.train.names)
    line = "pets.tar: 1 members passed over, for being sparse: pets/train/a/hole.png"
    assert line in found.notes


INDEX_ONE = """
import sys, time
from pathlib import Path
from tasks import archives
index = archives.index_tar
def slow(*arguments):
    print("made", flush=True)
    time.sleep(1)
    index(*arguments)
archives.index_tar = slow
print(len(archives.open_archive(Path(sys.argv[1]), print)))
"""


def test_of_two_processes_at_once_one_makes_the_index(data: Path) -> None:
    tar(data / "pets.tar", make(data.parent / "pets"), "pets")
    command = [sys.executable, "-c", INDEX_ONE, str(data / "pets.tar")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(each.communicate()[0] for each in both).split()
    assert said.count("made") == 1
    assert len(said) == 3
