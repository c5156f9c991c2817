"""Download a large file so that a cut connection costs nothing but the wait."""

from __future__ import annotations

import http.client
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from aslseg.errors import WeightsError
from aslseg.events import Monitor
from aslseg.storage import sha256_of, storage_errors

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0

_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        address: Where it is (http or https).
        size: Its bytes.
        sha256: Of its content.
    """

    address: str
    size: int
    sha256: str


def download(remote: RemoteFile, path: Path, monitor: Monitor | None = None) -> None:
    """Get a file; it appears at `path` only when it is whole and its digest is right.

    What arrived is kept in `<path>.part`, from where the next attempt, or the next call, goes on.

    Args:
        remote: What to get.
        path: Where to put it.
        monitor: Told of each megabyte.

    Raises:
        WeightsError: When the server does not answer, keeps cutting off, or sends another file.
        StorageError: When the disk is full or the folder cannot be written.
        CancelledError: When asked to stop; what arrived is kept.
    """
    part = path.with_name(path.name + ".part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                _complete(remote, part, monitor or Monitor())
                _verify(remote, part)
                part.replace(path)


def _complete(remote: RemoteFile, part: Path, monitor: Monitor) -> None:
    problem = "the connection was cut"
    before = -1
    while before < _bytes_in(part) < remote.size:  # as long as each attempt brings something
        before = _bytes_in(part)
        try:
            _append(remote, part, monitor)
        except urllib.error.HTTPError as error:
            raise WeightsError(_refused(remote, f"{error.code} {error.reason}")) from error
        except _NETWORK_ERRORS as error:
            problem = str(error)
            logger.info("Download of %s interrupted: %s", remote.address, error)
    if _bytes_in(part) < remote.size:
        raise WeightsError(_interrupted(remote, _bytes_in(part), problem))


def _refused(remote: RemoteFile, answer: str) -> str:
    return f"The server answered {answer} to {remote.address}; use another source."


def _interrupted(remote: RemoteFile, done: int, problem: str) -> str:
    return (
        f"{remote.address} could not be downloaded ({problem}); {done} of {remote.size} bytes are "
        "here and the next try goes on from there. Check the network."
    )


def _bytes_in(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _append(remote: RemoteFile, part: Path, monitor: Monitor) -> None:
    have = _bytes_in(part)
    headers = {"User-Agent": "aslseg", "Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(remote.address, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        resumed = have > 0 and _starts_at(answer, have)
        start = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            of = -(-remote.size // CHUNK_BYTES)
            chunks = _chunks(answer, remote.size - start)
            stage = f"Downloading {part.name.removesuffix('.part')}"
            for chunk in monitor.track(chunks, stage, of, start // CHUNK_BYTES):
                file.write(chunk)


def _starts_at(answer: Any, byte: int) -> bool:
    """Whether a server that was asked to go on does so, instead of starting anew."""
    given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status == 206 and given is not None and int(given.group(1)) == byte


def _chunks(answer: IO[bytes], most: int) -> Iterator[bytes]:
    while most > 0 and (chunk := answer.read(min(CHUNK_BYTES, most))):
        most -= len(chunk)
        yield chunk


def _verify(remote: RemoteFile, part: Path) -> None:
    if _bytes_in(part) == remote.size and sha256_of(part) == remote.sha256:
        return
    part.unlink()
    msg = (
        f"{remote.address} gave another file than the published one (its SHA-256 is not "
        f"{remote.sha256[:12]}...), which was deleted. Use another source."
    )
    raise WeightsError(msg)
