"""A released file from a server: whole, in two attempts, changed in between, cut short, wrong."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backbones import BackboneError
from backbones.baselines import BASELINES, Release
from mae_bench.cli import call
from mae_bench.download import fetch
from mae_bench.errors import RunError

CONTENT = bytes(range(256)) * 9000
MD5 = hashlib.md5(CONTENT).hexdigest()
BODY_AFTER = 4
"""lines of what `weights get` prints below its bar"""


class Server(ThreadingHTTPServer):
    """One file, and how it is served."""

    content, etag, cut, length, code = CONTENT, f'"{MD5}"', None, True, 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/w.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        it, wanted = self.server, self.headers.get("Range")
        it.asked.append(wanted)
        begin = 0
        if wanted and self.headers.get("If-Range") == it.etag:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(it.content):
            self.send_error(416)
            return
        self.send_response(206 if begin else it.code)
        if it.etag:
            self.send_header("ETag", it.etag)
        if it.length:
            self.send_header("Content-Length", str(len(it.content) - begin))
        self.end_headers()
        self.wfile.write(it.content[begin : it.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_in_one_go(server: Server, tmp_path: Path) -> None:
    found = fetch(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert found.checks == (
        f"{len(CONTENT):,} bytes, as the server says",
        "its md5 is the one that the server states",
    )
    assert left_in(tmp_path) == ["w.pth"]


def test_it_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut = 1_500_000
    with pytest.raises(RunError, match="1,500,000 bytes are kept, and the same command goes on"):
        fetch(server.url, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()
    server.cut = None
    fetch(server.url, tmp_path / "w.pth")
    assert server.asked == [None, "bytes=1500000-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_file_that_changed_in_between_begins_again(server: Server, tmp_path: Path) -> None:
    server.cut = 1_500_000
    with pytest.raises(RunError, match="are kept"):
        fetch(server.url, tmp_path / "w.pth")
    server.content, server.cut = CONTENT[::-1], None
    server.etag = f'"{hashlib.md5(server.content).hexdigest()}"'
    fetch(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT[::-1]


def test_what_is_longer_than_the_file_begins_again(server: Server, tmp_path: Path) -> None:
    server.cut = 1_500_000
    with pytest.raises(RunError, match="are kept"):
        fetch(server.url, tmp_path / "w.pth")
    with (tmp_path / ".w.pth.partial").open("ab") as stream:
        stream.write(CONTENT)
    server.cut = None
    fetch(server.url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_without_an_etag_nothing_is_gone_on_from(server: Server, tmp_path: Path) -> None:
    """Nobody could tell whether it is still the same file."""
    server.etag, server.cut = "", 1_500_000
    with pytest.raises(RunError, match="are kept"):
        fetch(server.url, tmp_path / "w.pth")
    server.cut, server.length = None, False
    found = fetch(server.url, tmp_path / "w.pth")
    assert server.asked == [None, None]
    assert found.checks == (
        f"{len(CONTENT):,} bytes; the server does not say how many",
        "the server states no checksum",
    )


def test_wrong_bytes_are_deleted(server: Server, tmp_path: Path) -> None:
    server.etag = f'"{"0" * 32}"'
    with pytest.raises(RunError, match=f"its md5 is {MD5}, the server's 0000"):
        fetch(server.url, tmp_path / "w.pth")
    assert left_in(tmp_path) == []


def test_a_server_that_refuses_and_one_that_is_not_there(server: Server, tmp_path: Path) -> None:
    server.content = b""
    with pytest.raises(RunError, match="the server answers 416"):
        fetch(server.url, tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"127\.0\.0\.1:9/w: .*refused; 0 bytes are kept"):
        fetch("http://127.0.0.1:9/w", tmp_path / "w.pth")


@pytest.fixture
def released(server: Server, tmp_path: Path, monkeypatch) -> Path:
    """The file of a baseline on that server; the folder where transfer looks."""
    release = Release("mae_mini.pth", server.url, f"md5:{MD5[:6]}")
    monkeypatch.setitem(BASELINES["mae"], "vit_mini", release)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mae-bench" / "weights"


def test_weights_get(server: Server, released: Path, capsys) -> None:
    assert call(["weights", "get", "mae/vit_mini"]) == 0
    assert capsys.readouterr().out.splitlines()[-BODY_AFTER:] == [
        "  its md5 is the one that the server states",
        f"  its hash begins as published: md5:{MD5[:6]}",
        f"written to: {released}/mae_mini.pth",
        "next       mae-bench transfer --init mae --backbone vit_mini --data DIR",
    ]
    assert call(["weights", "get", "mae/vit_mini"]) == 0
    assert f"there already: {released}/mae_mini.pth" in capsys.readouterr().out
    assert len(server.asked) == 1


def test_a_file_with_another_hash_than_the_published_one(
    server: Server, released: Path, monkeypatch, capsys
) -> None:
    wrong = Release("mae_mini.pth", server.url, "sha256:012345")
    monkeypatch.setitem(BASELINES["mae"], "vit_mini", wrong)
    assert call(["weights", "get", "mae/vit_mini"]) == 2
    assert "its sha256 begins with" in capsys.readouterr().err
    assert left_in(released) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mae", "expected NAME/SIZE, one of mae/vit_b, mae/vit_l, mae/vit_h"),
        ("beit/vit_h", "no BEiT of this size was released"),
        ("eva/vit_b", "no public weights are known by the name 'eva'"),
    ],
)
def test_names_that_are_not_released(name: str, said: str, capsys) -> None:
    assert call(["weights", "get", name]) == 2
    assert said in capsys.readouterr().err


def test_the_official_addresses_are_complete() -> None:
    for sizes in BASELINES.values():
        for release in sizes.values():
            assert release.url.startswith("https://")
            assert release.url.endswith(release.file)


def test_transfer_says_how_to_get_what_is_not_there(tmp_path: Path) -> None:
    from backbones.baselines import find

    with pytest.raises(BackboneError, match="`mae-bench weights get mae/vit_b` gets it from http"):
        find("mae", "vit_b", tmp_path)
