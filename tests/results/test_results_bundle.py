"""Bundles: the same bytes every time, and hostile ones refused with one line and no file left."""

import hashlib
import io
import json
import random
import stat
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import pytest

from results import ResultsError, bundle, write_record
from results.bundle import open_bundle, write_bundle

PNG = b"\x89PNG\r\n\x1a\n not looked at here"


@pytest.fixture
def run(make_record, tmp_path) -> Path:
    """The folder of a finished run with a file of every kind."""
    folder = tmp_path / "run"
    write_record(folder, make_record())
    (folder / "run.json").write_text('{"task": "imagenet1k", "recipe": {}, "limit": null}')
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n' * 100)
    (folder / "predictions.csv").write_text("file,target\na.jpg,0\n")
    (folder / "classes.txt").write_text("tench\n")
    (folder / "predictions").mkdir()
    for name in ("b.png", "a b.png", "模型.png"):
        (folder / "predictions" / name).write_bytes(PNG + name.encode())
    (folder / "predictions.png").write_bytes(PNG)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "state").mkdir()
    (folder / "state/step-00000001.pt").write_bytes(b"a pickle")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary folders go, to look at what is left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def members(file: Path) -> list[str]:
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        return archive.namelist()


KEPT = [
    "manifest.json",
    "run.json",
    "record.json",
    "log.jsonl",
    "classes.txt",
    "predictions.csv",
    "predictions/a b.png",
    "predictions/b.png",
    "predictions/模型.png",
]


def test_a_bundle_holds_the_run_and_reads_back_the_same(run, make_record, tmp_path, temporary):
    file = write_bundle(run, tmp_path / "one.maebench.zip")
    assert members(file) == KEPT
    with open_bundle(file) as opened:
        assert opened.record == make_record()
        assert opened.identity == json.loads((run / "run.json").read_text())
        unpacked = [p for p in opened.folder.rglob("*") if p.is_file()]
        assert {p.relative_to(opened.folder).as_posix() for p in unpacked} == set(KEPT[1:])
        for each in unpacked:
            assert each.read_bytes() == (run / each.relative_to(opened.folder)).read_bytes()
    assert list(temporary.iterdir()) == []


def test_the_manifest_says_what_is_in_it(run, tmp_path):
    with ZipFile(write_bundle(run, tmp_path / "one.zip")) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert (manifest["format"], manifest["version"]) == ("mae-bench run", 1)
        for each in manifest["members"]:
            content = archive.read(each["name"])
            assert each["bytes"] == len(content)
            assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert [each["name"] for each in manifest["members"]] == KEPT[1:]


def test_weights_and_pictures_on_request(run, tmp_path):
    file = write_bundle(run, tmp_path / "all.zip", weights=True, pictures=True)
    assert set(members(file)) == {*KEPT, "predictions.png", "model.safetensors"}
    with open_bundle(file) as opened:
        assert (opened.folder / "predictions.png").read_bytes() == PNG
        assert not (opened.folder / "model.safetensors").exists()


def test_the_same_run_makes_the_same_bytes(run, tmp_path):
    first = write_bundle(run, tmp_path / "first.zip").read_bytes()
    for file in run.rglob("*"):  # what a copy changes
        file.touch()
        file.chmod(0o700)
    assert write_bundle(run, tmp_path / "second.zip").read_bytes() == first


@pytest.mark.parametrize("name", ["record.json", "run.json"])
def test_only_a_finished_run_is_packed(run, tmp_path, name):
    (run / name).unlink()
    with pytest.raises(ResultsError, match=f"has no {name}; only a finished run can be packed"):
        write_bundle(run, tmp_path / "one.zip")
    assert not (tmp_path / "one.zip").exists()


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "one.zip").write_text("mine")
    with pytest.raises(ResultsError, match="exists already; name another file"):
        write_bundle(run, tmp_path / "one.zip")
    assert (tmp_path / "one.zip").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("record.json", b"{}", "cannot be packed: record.json: "),
        ("run.json", b"[1]", "cannot be packed: run.json: expected a JSON object"),
        ("run.json", b'{"a": NaN}', "cannot be packed: run.json: "),
        ("log.jsonl", b"0" * 10**7, "cannot be packed: 'log.jsonl' unpacks from"),
        ("predictions/a\nb.png", PNG, r"holds 'predictions/a\nb.png'; expected the files of a run"),
    ],
)
def test_what_no_reader_takes_is_not_packed(run, tmp_path, temporary, name, content, said):
    (run / name).write_bytes(content)
    with pytest.raises(ResultsError) as caught:
        write_bundle(run, tmp_path / "one.zip")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == []
    assert list(temporary.iterdir()) == []


Files = dict[str, bytes]


@pytest.fixture
def files(run, tmp_path) -> Files:
    """Member -> content of a good bundle, without its manifest."""
    with ZipFile(write_bundle(run, tmp_path / "good.zip")) as archive:
        return {name: archive.read(name) for name in archive.namelist()[1:]}


def manifest_of(files: Files, **changes: Any) -> bytes:
    """A manifest that tells the truth, but for the changes."""
    listed = [
        {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    manifest = {"format": "mae-bench run", "version": 1, "members": listed}
    return json.dumps(manifest | changes).encode()


def zipped(*parts: tuple[str | ZipInfo, bytes]) -> bytes:
    """A zip of members in this order, whatever they are called."""
    stream = io.BytesIO()
    with ZipFile(stream, "w", ZIP_DEFLATED) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return stream.getvalue()


def bundled(files: Files, **changes: Any) -> bytes:
    return zipped(("manifest.json", manifest_of(files, **changes)), *files.items())


def refused(content: bytes, tmp_path: Path) -> str:
    """The one line that a bundle is refused with; nothing may be left of it."""
    file = tmp_path / "hostile.zip"
    file.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ResultsError) as caught:
        with open_bundle(file):
            pass
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert said.isprintable()
    assert len(said) < 500
    assert sorted(tmp_path.rglob("*")) == before
    return said


def test_a_bundle_by_hand_is_read(files, tmp_path):
    (tmp_path / "hand.zip").write_bytes(bundled(files))
    with open_bundle(tmp_path / "hand.zip") as opened:
        assert opened.record.name == "run"


NAMES = [
    "../escaped",
    "/etc/passwd",
    "predictions/../../escaped.png",
    "predictions/../escaped.png",
    "predictions/a/b.png",
    "predictions/..png/../x.png",
    "C:\\escaped",
    "predictions\\escaped.png",
    "predictions/",
    "state/step-00000001.pt",
    "model.pkl",
    "predictions/a\nb.png",
    "predictions/\x1b[31m.png",
    "predictions/\u202egnp.png",
    "predictions/" + "a" * 300 + ".png",
    "RECORD.JSON",
    ".",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_run_has_are_refused(files, tmp_path, temporary, name):
    said = refused(bundled(files | {name: b"x"}), tmp_path)
    assert "; expected the files of a run and nothing else" in said


def test_a_name_that_a_null_byte_cuts_is_refused(files, tmp_path, temporary):
    content = bundled(files | {"predictions/xXy.png": PNG})
    content = content.replace(b"predictions/xXy.png", b"predictions/x\0y.png")
    assert "expected the files of a run" in refused(content, tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_only_regular_files_are_taken(files, tmp_path, temporary, kind):
    link = ZipInfo("predictions.json")
    link.external_attr = (kind | 0o777) << 16
    named = files | {"predictions.json": b"/etc/passwd"}
    parts = [("manifest.json", manifest_of(named)), *files.items(), (link, b"/etc/passwd")]
    assert "'predictions.json' is no regular file" in refused(zipped(*parts), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_is_there_once(files, tmp_path, temporary):
    parts = [("manifest.json", manifest_of(files)), *files.items()]
    twice = zipped(*parts, ("record.json", files["record.json"]))
    assert "'record.json' is there twice" in refused(twice, tmp_path)
    listed = json.loads(manifest_of(files))["members"]
    said = refused(bundled(files, members=[*listed, listed[0]]), tmp_path)
    assert "its manifest.json names a member twice" in said


def test_manifest_and_members_agree(files, tmp_path, temporary):
    said = refused(
        zipped(("manifest.json", manifest_of(files)), *files.items(), ("per_class.csv", b"x")),
        tmp_path,
    )
    assert "holds 'per_class.csv', which its manifest.json does not name" in said
    for name in ("record.json", "run.json", "predictions.csv"):
        less = {each: content for each, content in files.items() if each != name}
        said = refused(zipped(("manifest.json", manifest_of(files)), *less.items()), tmp_path)
        assert f"is incomplete: '{name}' is missing" in said
    for name in ("record.json", "run.json"):
        less = {each: content for each, content in files.items() if each != name}
        assert f"is incomplete: '{name}' is missing" in refused(bundled(less), tmp_path)
    assert "has no manifest.json; it is no bundle of" in refused(zipped(*files.items()), tmp_path)


def test_what_was_changed_is_noticed(files, tmp_path, temporary):
    honest = manifest_of(files)
    longer = files | {"log.jsonl": files["log.jsonl"] + b"x"}
    same = files | {"log.jsonl": files["log.jsonl"].replace(b"2.5", b"1.5")}
    for changed, said in ((longer, "bytes, and 2500 by its"), (same, "is not what its")):
        content = zipped(("manifest.json", honest), *changed.items())
        assert f"'log.jsonl' {'has 2501 ' if changed is longer else ''}{said}" in refused(
            content, tmp_path
        )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "is a bundle of version 2; this mae-bench reads 1"),
        ({"version": "1; rm -rf /\n" * 50}, "is a bundle of version '1; rm -rf /"),
        ({"format": "something"}, "manifest.json: format: "),
        ({"members": None}, "manifest.json: members: "),
        ({"members": [{"name": 1}]}, "manifest.json: members.0.name: "),
        ({"more": 1}, "manifest.json: more: "),
    ],
)
def test_a_manifest_of_another_version_or_kind(files, tmp_path, temporary, changes, said):
    assert said in refused(bundled(files, **changes), tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10**5, b"{}"])
def test_a_manifest_that_is_none(files, tmp_path, temporary, content):
    said = refused(zipped(("manifest.json", content), *files.items()), tmp_path)
    assert "manifest.json" in said


DEEP = b'{"recipe": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"


@pytest.mark.parametrize("name", ["record.json", "run.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a": NaN}', DEEP])
def test_a_broken_member_is_named(files, tmp_path, temporary, name, content):
    assert f"hostile.zip: {name}: " in refused(bundled(files | {name: content}), tmp_path)


def test_bombs_are_refused_before_they_unpack(files, tmp_path, temporary):
    """Ten megabytes of zeros are a thousandth of that in the zip."""
    said = refused(bundled(files | {"log.jsonl": bytes(10**7)}), tmp_path)
    assert "'log.jsonl' unpacks from" in said
    said = refused(zipped(("manifest.json", bytes(10**8)), *files.items()), tmp_path)
    assert "'manifest.json' has 100000000 bytes; expected at most" in said


def test_sizes_are_bounded(files, tmp_path, temporary, monkeypatch):
    monkeypatch.setitem(bundle.MOST_BYTES, "log.jsonl", 2499)
    assert "'log.jsonl' has 2500 bytes; expected at most 2499" in refused(bundled(files), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(bundle, "MAX_MEMBERS", len(files))
    assert f"has {len(files) + 1} members; expected at most {len(files)}" in refused(
        bundled(files), tmp_path
    )


def test_the_total_is_bounded(files, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_TOTAL", 3000)
    assert "bytes; expected at most 3000 in" in refused(bundled(files), tmp_path)


def test_a_full_disk_is_foreseen(files, tmp_path, monkeypatch):
    usage = bundle.shutil.disk_usage(tmp_path)._replace(free=3000)
    monkeypatch.setattr(bundle.shutil, "disk_usage", lambda _: usage)
    assert "bytes; expected at most 3000 in" in refused(bundled(files), tmp_path)


def test_a_list_of_members_of_any_size_is_not_read(files, tmp_path, temporary, monkeypatch):
    """A hundred gigabytes, as the last bytes of the zip claim."""
    content = bytearray(bundled(files))
    place = content.rindex(b"PK\5\6")
    zip64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, 9, 10**11, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
    said = refused(bytes(content[:place]) + zip64 + locator + bytes(content[place:]), tmp_path)
    assert "hostile.zip: " in said
    monkeypatch.setattr(bundle, "MAX_DIRECTORY", 10**5)
    sized = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 10**5 + 1, 12, 0)
    monstrous = bytes(content[:12]) + bytes(10**6) + sized
    assert "its list of members has 100001 bytes; expected at" in refused(monstrous, tmp_path)


def test_a_member_that_is_longer_than_it_says(files, tmp_path, temporary):
    """The sizes in the list of members say 10, its data are 2500 bytes."""
    content = bytearray(bundled(files))
    start = content.index(b"PK\1\2", content.index(b"PK\1\2"))
    place = content.index(b"log.jsonl", start) - 46
    assert content[place : place + 4] == b"PK\1\2"
    assert struct.unpack_from("<L", content, place + 24) == (2500,)
    struct.pack_into("<L", content, place + 24, 10)
    assert "'log.jsonl' has 10 bytes, and 2500 by its" in refused(bytes(content), tmp_path)
    shorter = json.loads(manifest_of(files))["members"]
    for each in shorter:
        if each["name"] == "log.jsonl":
            each["bytes"] = 10
    content = bytearray(bundled(files, members=shorter))
    place = content.rindex(b"log.jsonl") - 46
    struct.pack_into("<L", content, place + 24, 10)
    assert "hostile.zip: no bundle, or a damaged one" in refused(bytes(content), tmp_path)


@pytest.mark.parametrize("how", ["encrypted", "bzip2"])
def test_ways_of_packing_that_are_not_ours(files, tmp_path, temporary, how):
    info = ZipInfo("predictions.json")
    info.compress_type = ZIP_BZIP2 if how == "bzip2" else ZIP_STORED
    named = files | {"predictions.json": b"[]"}
    parts = [("manifest.json", manifest_of(named)), *files.items()]
    content = bytearray(zipped(*parts, (info, b"[]")))
    if how == "encrypted":
        content[content.rindex(b"PK\1\2") + 8] |= 1
    said = refused(bytes(content), tmp_path)
    assert "'predictions.json' is encrypted, or compressed in a way of its own" in said


def test_a_file_system_without_case(files, tmp_path, temporary, monkeypatch):
    """Two names may be one file."""
    there: set[str] = set()
    opened = Path.open

    def caseless(self: Path, mode: str = "r", *arguments: Any, **how: Any) -> Any:
        if mode == "xb":
            if str(self).lower() in there:
                raise FileExistsError(17, "File exists", str(self))
            there.add(str(self).lower())
        return opened(self, mode, *arguments, **how)

    monkeypatch.setattr(Path, "open", caseless)
    both = files | {"predictions/B.png": PNG, "predictions/b.png": PNG}
    assert "is there twice" in refused(bundled(both), tmp_path)


def test_files_that_are_no_zip(tmp_path, temporary):
    for content in (b"", b"PK", b"PK\3\4" + bytes(100), bytes(10**6), b"PK\5\6" + bytes(18)):
        refused(content, tmp_path)
    for place, said in ((tmp_path, "is a folder"), (tmp_path / "no.zip", "no such file")):
        with pytest.raises(ResultsError, match=f"{said}; expected a bundle"):
            with open_bundle(place):
                pass


def cut(content: bytes, generator: random.Random) -> bytes:
    return content[: generator.randrange(len(content))]


def flipped(content: bytes, generator: random.Random) -> bytes:
    spoilt = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        spoilt[generator.randrange(len(spoilt))] = generator.randrange(256)
    return bytes(spoilt)


def flipped_list(content: bytes, generator: random.Random) -> bytes:
    """Only where the zip lists its members."""
    start = content.index(b"PK\1\2")
    return content[:start] + flipped(content[start:], generator)


@pytest.mark.parametrize("spoil", [cut, flipped, flipped_list])
def test_spoilt_bundles_are_refused_or_whole(
    run, files, tmp_path, temporary, spoil: Callable[[bytes, random.Random], bytes]
):
    """Some flips change nothing that counts: a date, a version."""
    good = (tmp_path / "good.zip").read_bytes()
    generator = random.Random(0)
    refusals = []
    for _ in range(150):
        file = tmp_path / "spoilt.zip"
        file.write_bytes(spoil(good, generator))
        try:
            with open_bundle(file) as opened:
                unpacked = [p for p in opened.folder.rglob("*") if p.is_file()]
                found = {p.relative_to(opened.folder).as_posix(): p.read_bytes() for p in unpacked}
                assert found == files
        except ResultsError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(map(str.isprintable, refusals))
    assert list(temporary.iterdir()) == []


def test_members_are_no_pickles_and_nothing_runs(files, tmp_path, temporary):
    """What a pickle would do shows that none is read."""
    evil = b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
    for name in ("record.json", "run.json", "predictions.csv", "predictions/b.png"):
        content = bundled(files | {name: evil})
        file = tmp_path / "evil.zip"
        file.write_bytes(content)
        try:
            with open_bundle(file) as opened:
                assert (opened.folder / name).read_bytes() == evil
        except ResultsError:
            assert name in ("record.json", "run.json")
    assert not (tmp_path / "ran").exists()
