"""Fetching a public file: resumed where it stopped, and checked by all that is known of it."""

import contextlib
import hashlib
import http.client
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from backbones.files import HALF_WRITTEN, naming, synchronise
from mae_bench.errors import RunError, first_line
from mae_bench.progress import progress

PATIENCE = 60.0
"""seconds without a byte after which a connection is given up"""
PIECE = 2**20
"""bytes read at once"""
MD5 = re.compile(r'"([0-9a-f]{32})"')
"""an ETag that is the MD5 of the file, as those of object stores are for files sent in one piece"""
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416


@dataclass(frozen=True)
class Fetched:
    """A file that came from elsewhere."""

    file: Path
    size: int
    sha256: str
    checks: tuple[str, ...]
    """what was confirmed, and what could not be"""


def fetch(url: str, file: Path) -> Fetched:
    """Download `url` into `file`; what an earlier attempt has left is gone on from.

    Its length is checked against the one that the server states, and its MD5 where the server
    states that. Raises `RunError` with what is kept, if the connection ends too early; nothing is
    at `file` before all of it is there.
    """
    unfinished = file.with_name(f".{file.name}{HALF_WRITTEN}")
    facts = unfinished.with_name(f"{unfinished.name}.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(file):
            etag, total = receive(url, unfinished, facts)
    except HTTPError as error:
        raise RunError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        said = error.reason if isinstance(error, URLError) else first_line(error)
        raise RunError(f"{url}: {said}; {kept(unfinished)}") from None
    size = unfinished.stat().st_size
    if total is not None and size < total:
        raise RunError(f"{url}: ended after {size:,} of {total:,} bytes; {kept(unfinished)}")
    with unfinished.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    checks = check(url, unfinished, facts, size, total, etag)
    synchronise(unfinished)
    unfinished.replace(file)
    facts.unlink(missing_ok=True)
    return Fetched(file, size, sha256, checks)


def receive(url: str, unfinished: Path, facts: Path) -> tuple[str, int | None]:
    """Append to `unfinished` what it lacks; the server's ETag and the length that it states."""
    before = {}
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(facts.read_text())
    known = before.get("etag") if isinstance(before, dict) else None
    have = unfinished.stat().st_size if unfinished.is_file() and known else 0
    headers = {"User-Agent": "mae-bench", "Accept-Encoding": "identity"}
    if have:  # the rest, but the whole file where it is another one by now
        headers |= {"Range": f"bytes={have}-", "If-Range": str(known)}
    try:
        answer = urlopen(Request(url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        if not have or error.code != RANGE_NOT_SATISFIABLE:
            raise
        unfinished.unlink()  # as long as the file already, or longer: begin again
        return receive(url, unfinished, facts)
    with answer:
        have = have if answer.status == PARTIAL_CONTENT else 0
        etag, length = answer.headers.get("ETag", ""), answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        facts.write_text(json.dumps({"url": url, "etag": etag}))
        with unfinished.open("ab" if have else "wb") as stream:
            copy(answer, stream, have, total)
    return etag, total


def copy(answer: Any, stream: Any, done: int, total: int | None) -> None:
    """Write what comes, with a bar of MiB."""
    title = "downloading (MiB)" + (f", going on after {done:,} bytes" if done else "")
    whole = -(-(total or done) // PIECE)
    with progress(title, whole, done // PIECE) as bar:
        while piece := answer.read(PIECE):
            stream.write(piece)
            done += len(piece)
            bar.update(min(done // PIECE, whole))


def kept(unfinished: Path) -> str:
    """What to say of what has come."""
    have = unfinished.stat().st_size if unfinished.is_file() else 0
    return f"{have:,} bytes are kept, and the same command goes on from there"


def check(
    url: str, unfinished: Path, facts: Path, size: int, total: int | None, etag: str
) -> tuple[str, ...]:
    """What the server says of the file against what has come; a wrong file is deleted."""
    if total is not None and size != total:
        discard(unfinished, facts)
        raise RunError(f"{url}: {size:,} bytes came of {total:,}; they are deleted, try again")
    told = f"{size:,} bytes" + (
        ", as the server says" if total is not None else "; the server does not say how many"
    )
    match = MD5.fullmatch(etag)
    if match is None:
        return (told, "the server states no checksum")
    with unfinished.open("rb") as stream:
        found = hashlib.file_digest(stream, "md5").hexdigest()
    if found != match[1]:
        discard(unfinished, facts)
        raise RunError(
            f"{url}: its md5 is {found}, the server's {match[1]}; it is deleted, try again"
        )
    return told, "its md5 is the one that the server states"


def discard(unfinished: Path, facts: Path) -> None:
    unfinished.unlink()
    facts.unlink(missing_ok=True)
