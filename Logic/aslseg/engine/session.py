"""An engine that outlives whoever asked: requests from a growing file, events into another one.

`python -m aslseg.engine --session FOLDER` reads `requests.jsonl` as it grows and appends to
`events.jsonl`. Whoever follows it touches `contact` from time to time. The engine ends with a
`close` among its requests, or when it has no work and nobody has been in contact for a while.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from filelock import FileLock, Timeout

from aslseg.engine.protocol import read_lines
from aslseg.engine.server import Server, load_tasks

REQUESTS, EVENTS, CONTACT, LOCK, LOG = (
    "requests.jsonl",
    "events.jsonl",
    "contact",
    "lock",
    "log.txt",
)
IDLE_S = 600.0
"""So long an engine without work keeps its networks loaded after the last contact."""
_LOOK_EVERY_S = 0.02
_CONTACT_EVERY_S = 1.0
_PATIENCE_S = 5.0


class GrowingFile:
    """Lines of a file that others append to, as a stream that waits for the next one.

    Args:
        path: The file; it need not be there yet.
        is_over: Asked while nothing comes; True ends the stream.
    """

    def __init__(self, path: Path, is_over: Callable[[], bool]) -> None:
        self._path = path
        self._is_over = is_over
        self._offset = 0
        self._kept = b""

    def readline(self, limit: int = -1) -> bytes:
        """Return the next whole line, or what a limit leaves of it; nothing at the end."""
        while b"\n" not in self._kept and not 0 <= limit <= len(self._kept):
            if not self._read_more():
                if self._is_over():
                    return b""
                time.sleep(_LOOK_EVERY_S)
        end = self._kept.find(b"\n") + 1 or len(self._kept)
        end = min(end, limit) if limit >= 0 else end
        line, self._kept = self._kept[:end], self._kept[end:]
        return line

    def _read_more(self) -> bool:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read(1 << 20)
        except FileNotFoundError:
            return False
        self._offset += len(new)
        self._kept += new
        return bool(new)


class Contact:
    """Tells whether somebody has been in contact lately, by the time of a file.

    The time of the file is compared with itself alone: the clock of its disk may be another one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0
        self._changed_at = self._looked_at = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Seconds since the last contact."""
        now = time.monotonic()
        if now - self._looked_at > _CONTACT_EVERY_S:
            self._looked_at = now
            stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
            if stamp != self._seen:
                self._seen, self._changed_at = stamp, now
        return now - self._changed_at


def is_alive(folder: Path) -> bool:
    """Whether an engine works on the requests of a session's folder."""
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def serve_session(folder: Path) -> None:
    """Serve the requests of a session's folder until they end, then end this process.

    Standard output and error are expected to be the session's log already.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE_S)  # whoever looks for life holds it for a moment
    except Timeout:
        sys.exit(f"Another engine serves {folder} already.")
    contact = Contact(folder / CONTACT)

    def is_over() -> bool:
        return contact.quiet_s > IDLE_S and not server.is_at_work

    requests = GrowingFile(folder / REQUESTS, is_over)
    with (folder / EVENTS).open("a", encoding="utf-8", newline="\n") as stream:
        server = Server(read_lines(cast("IO[bytes]", requests)), stream, load_tasks)
        server.run()
    logging.shutdown()
    os._exit(0)  # as `server.main`
