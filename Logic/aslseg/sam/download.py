"""Download a large file so that a cut connection costs nothing but the wait.

The network is read by a thread, so that a request to stop is obeyed while nothing arrives.
Redirects may lead to any host, as those of GitHub do, but not away from https; the checksum decides
whether what came is used.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread
from typing import IO, Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from aslseg.errors import WeightsError
from aslseg.events import Monitor
from aslseg.storage import sha256_of, storage_errors

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0
POLL_S = 0.2
SLOWEST_BYTES_PER_S = 1000
MOST_SHORT_ATTEMPTS = 5


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


class _CutError(Exception):
    """The connection failed; another attempt may go on."""


def download(remote: RemoteFile, path: Path, monitor: Monitor | None = None) -> None:
    """Get a file; it appears at `path` only when it is whole and its digest is right.

    What arrived is kept in `<path>.part`, from where the next attempt, or the next call, goes on.

    Args:
        remote: What to get.
        path: Where to put it.
        monitor: Told of each megabyte.

    Raises:
        WeightsError: When the server does not answer, keeps cutting off, is too slow, or sends
            another file.
        StorageError: When the disk is full or the folder cannot be written.
        CancelledError: When asked to stop; what arrived is kept.
    """
    monitor = monitor or Monitor()
    part = path.with_name(path.name + ".part")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path, monitor):
            if not path.exists():
                _get(remote, part, monitor)
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                part.replace(path)


@contextmanager
def _alone(path: Path, monitor: Monitor) -> Iterator[None]:
    """Wait until no other process gets this file."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        monitor.warn(f"Another program is downloading {path.name}; waiting for it.")
    while not lock.is_locked:
        monitor.check()
        with suppress(Timeout):
            lock.acquire(timeout=POLL_S)
    try:
        yield
    finally:
        lock.release()


def _get(remote: RemoteFile, part: Path, monitor: Monitor) -> None:
    kept = _bytes_in(part) > 0
    _complete(remote, part, monitor)
    if kept and not _is_genuine(remote, part):
        logger.info("What was kept of %s is of another file; starting anew.", remote.address)
        part.unlink()
        _complete(remote, part, monitor)
    if not _is_genuine(remote, part):
        part.unlink()
        reason = f"its SHA-256 is not {remote.sha256[:12]}...; it was deleted"
        raise WeightsError(_another(remote, reason))


def _is_genuine(remote: RemoteFile, part: Path) -> bool:
    return _bytes_in(part) == remote.size and sha256_of(part) == remote.sha256


def _bytes_in(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _complete(remote: RemoteFile, part: Path, monitor: Monitor) -> None:
    """Go on until all bytes are here, or an attempt brings nothing, or too many bring little."""
    short_attempts = 0
    while (have := _bytes_in(part)) < remote.size:
        problem = "the connection was cut"
        try:
            _append(remote, part, monitor)
        except _CutError as error:
            problem = str(error)
            logger.info("Download of %s interrupted: %s", remote.address, error)
        gained = _bytes_in(part) - have
        short_attempts += gained < min(CHUNK_BYTES, remote.size - have)
        if gained <= 0 or short_attempts > MOST_SHORT_ATTEMPTS:
            raise WeightsError(_interrupted(remote, _bytes_in(part), problem))


def _append(remote: RemoteFile, part: Path, monitor: Monitor) -> None:
    arrivals = _arrivals(remote, _bytes_in(part), monitor)
    with closing(arrivals):
        start = int(next(arrivals))
        with part.open("ab" if start else "wb") as file:
            chunks = _written(arrivals, file, remote.size, start)
            stage = f"Downloading {part.name.removesuffix('.part')}"
            of = -(-remote.size // CHUNK_BYTES)
            for _ in monitor.track(chunks, stage, of, start // CHUNK_BYTES):
                pass


def _written(pieces: Iterator[Any], file: IO[bytes], size: int, start: int) -> Iterator[None]:
    """Write each piece as it arrives; yield when another megabyte, or the file, is complete."""
    done = start
    for piece in pieces:
        file.write(piece)
        before, done = done, done + len(piece)
        yield from [None] * (done // CHUNK_BYTES - before // CHUNK_BYTES)
    if done == size and size % CHUNK_BYTES:
        yield None


def _arrivals(remote: RemoteFile, have: int, monitor: Monitor) -> Generator[Any, None, None]:
    """Yield the byte from which the server sends, then what it sends.

    Raises:
        WeightsError: When the server refuses, sends another file, or is too slow.
        _CutError: When the connection fails.
        CancelledError: When asked to stop, within a fraction of a second.
    """
    arrived: Queue[Any] = Queue(maxsize=4)
    ended = Event()
    Thread(target=_listen, args=(remote, have, arrived, ended), daemon=True).start()
    began, got = time.monotonic(), 0
    try:
        while True:
            monitor.check()
            with suppress(Empty):
                piece = arrived.get(timeout=POLL_S)
                if piece is None:
                    return
                if isinstance(piece, Exception):
                    raise piece
                got += len(piece) if isinstance(piece, bytes) else 0
                yield piece
            if time.monotonic() - began > TIMEOUT_S:
                _check_pace(remote, got)
                began, got = time.monotonic(), 0
    finally:
        ended.set()
        with suppress(Empty):  # a thread that waits for room goes on, and sees that it is over
            while True:
                arrived.get_nowait()


def _check_pace(remote: RemoteFile, got: int) -> None:
    if got < SLOWEST_BYTES_PER_S * TIMEOUT_S:
        msg = (
            f"{remote.address} is too slow: {got} bytes came in {TIMEOUT_S:.0f} s. What came is "
            "kept, and the next try goes on from there; try later or from another network."
        )
        raise WeightsError(msg)


def _listen(remote: RemoteFile, have: int, arrived: Queue[Any], ended: Event) -> None:
    """Ask the server and pass on what it sends: a first byte, pieces, and None or an error."""
    try:
        answer, start = _open(remote, have)
        with answer:
            arrived.put(start)
            most = remote.size - start
            while most > 0 and not ended.is_set() and (piece := answer.read1(CHUNK_BYTES)):
                arrived.put(piece[:most])
                most -= len(piece)
        arrived.put(None)
    except urllib.error.HTTPError as error:
        error.close()
        arrived.put(WeightsError(_refused(remote, f"{error.code} {error.reason}")))
    except WeightsError as error:
        arrived.put(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        arrived.put(_CutError(str(error) or type(error).__name__))


def _open(remote: RemoteFile, have: int) -> tuple[Any, int]:
    """Ask for what is missing, and for everything if the server cannot go on from there.

    Returns:
        The answer, and the byte of the file from which it goes.
    """
    answer = _ask(remote, have) if have else None
    start = have if answer is not None and _goes_on(answer, have) else 0
    if answer is not None and not start and answer.status == HTTPStatus.PARTIAL_CONTENT:
        answer.close()
        answer = None
    answer = answer or _ask(remote, 0)
    _check_length(remote, answer, start)
    return answer, start


def _ask(remote: RemoteFile, have: int) -> Any:
    headers = {"User-Agent": "aslseg", **({"Range": f"bytes={have}-"} if have else {})}
    request = urllib.request.Request(remote.address, headers=headers)
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        return opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if not have or error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        return None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to any host, but from https to https only."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Refuse what a browser would call mixed content; leave the rest to urllib."""
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and not (scheme == "http" and req.type == "http"):
            problem = (
                f"{req.full_url} leads to {newurl}, which is not secure, so nothing was "
                "downloaded. Try again from another network."
            )
            raise WeightsError(problem)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _goes_on(answer: Any, byte: int) -> bool:
    """Whether a server that was asked to go on does so, instead of starting anew."""
    given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    partial = answer.status == HTTPStatus.PARTIAL_CONTENT
    return partial and given is not None and int(given.group(1)) == byte


def _check_length(remote: RemoteFile, answer: Any, start: int) -> None:
    """Refuse a file of another length before any of it replaces what is here."""
    told = answer.headers.get("Content-Length", "")
    if told.isdigit() and start + int(told) != remote.size:
        answer.close()
        reason = f"it has {start + int(told)} bytes instead of {remote.size}"
        raise WeightsError(_another(remote, reason))


def _another(remote: RemoteFile, reason: str) -> str:
    return (
        f"{remote.address} gave another file than the published one ({reason}). Use another source."
    )


def _refused(remote: RemoteFile, answer: str) -> str:
    return f"The server answered {answer} to {remote.address}; use another source."


def _interrupted(remote: RemoteFile, done: int, problem: str) -> str:
    return (
        f"{remote.address} could not be downloaded ({problem}); {done} of {remote.size} bytes are "
        "here and the next try goes on from there. Check the network."
    )
