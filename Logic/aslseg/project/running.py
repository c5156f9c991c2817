"""A run that is being worked on: its lock, its log, and what is noted of its events and end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aslseg import run_names, schema_1
from aslseg.errors import AslsegError, CancelledError, RunError
from aslseg.events import Event, Monitor, Progress, RunProgress
from aslseg.leftovers import sweep
from aslseg.project.case import RUNS
from aslseg.project.remote_run import FILE_NAME as REMOTE_NOTE
from aslseg.project.remote_run import claim_run
from aslseg.project.run_folder import RunFolder
from aslseg.storage import is_disk_full, plain, storage_errors, unwritable

logger = logging.getLogger(__name__)
_READERS = ("aslseg.data", "aslseg.project")
"""Loggers of what reads files of the user."""
STATUS_EVERY_S = 1.0
"""Each time the disk is waited for, some 10 ms, and a step of a network takes a few hundred."""
LOCK_PATIENCE_S = 2.0
"""Whoever looks whether a run is being worked on holds its lock for a moment."""


class Recorder:
    """Writes a run's events to its folder and passes them on.

    Progress is kept in the status, which is a file that the disk is waited for: it is written when
    a task begins and ends, and no more than once in `STATUS_EVERY_S` between.

    Args:
        folder: Of the run.
        monitor: Gets the events too.
        clock: Seconds that only grow.
    """

    def __init__(
        self, folder: RunFolder, monitor: Monitor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._monitor, self._clock = folder, monitor, clock
        self._written_at = float("-inf")
        self._unwritten: dict[str, Any] = {}

    def attached(self) -> Monitor:
        """Return a monitor that records; its cancel token is that of `monitor`."""
        return replace(self._monitor, listener=self._record, detailed=False)

    def unwritten(self) -> dict[str, Any]:
        """Return the progress that the status does not have yet, for whoever writes it next."""
        taken, self._unwritten = self._unwritten, {}
        return taken

    def _record(self, event: Event) -> None:
        path = self._folder.path / run_names.EVENTS
        line = json.dumps(plain(event.to_json()), allow_nan=False) + "\n"
        with storage_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._unwritten |= _progress_of(event)
        if self._unwritten and self._is_due(event):
            self._written_at = self._clock()
            self._folder.write_status(**self.unwritten())
        self._monitor.listener(event)

    def _is_due(self, event: Event) -> bool:
        turns = isinstance(event, Progress) and event.step in (0, event.of)
        return turns or self._clock() - self._written_at >= STATUS_EVERY_S


def _progress_of(event: Event) -> dict[str, Any]:
    """Return what an event changes in the status."""
    if isinstance(event, Progress):
        return {
            "task": event.task,
            "round": event.round,
            "step": event.step,
            "of": event.of,
            "seconds_left": event.seconds_left,
        }
    if isinstance(event, RunProgress):
        return {
            "run_step": event.step,
            "run_steps": event.steps,
            "run_share": event.share,
            "run_seconds_left": event.seconds_left,
        }
    return {}


@contextmanager
def running(folder: RunFolder, monitor: Monitor, **facts: Any) -> Iterator[Monitor]:
    """Hold the run's lock and keep its status true, however the work ends.

    Files that an earlier process of the project left half written are deleted first. What is logged
    as a warning of the user's files meanwhile is told as a notice too.

    Raises:
        RunError: When another process works on the run.
        StorageError: When the run's folder cannot be written, or the disk is full.
    """
    with locked(folder), _logged(folder):
        if (folder.path / REMOTE_NOTE).exists():
            claim_run(folder.path)
        sweep(folder.path.parents[1] if folder.path.parent.name == RUNS else folder.path, deep=True)
        if folder.status.schema_version != run_names.SCHEMA_VERSION:
            schema_1.upgrade_run(folder.path)
            facts["schema_version"] = run_names.SCHEMA_VERSION
        recorder = Recorder(folder, monitor)
        recording = recorder.attached()
        try:
            folder.write_status(state="running", message="", **facts)
            with _warnings_told(recording):
                yield recording
            folder.write_status(**recorder.unwritten() | {"state": "done", "seconds_left": 0})
        except CancelledError as error:
            _note_end(folder, recorder, "cancelled", str(error))
            raise
        except OSError as error:
            logger.exception("The run ended early")
            known = unwritable(folder.path, error) if is_disk_full(error) else error
            _note_end(folder, recorder, "failed", str(known))
            raise known from error
        except BaseException as error:
            logger.exception("The run ended early")
            _note_end(folder, recorder, "failed", str(error) or type(error).__name__)
            raise


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the lock of a run, whose folder is made if need be.

    Raises:
        RunError: When another process works on the run.
        StorageError: When its folder cannot be written.
    """
    lock = FileLock(folder.path / run_names.LOCK)
    with storage_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_PATIENCE_S)
        except Timeout as error:
            msg = (
                f"Run '{folder.run_id}' is being worked on by another process; wait or stop that "
                "one."
            )
            raise RunError(msg) from error
        except NotImplementedError as error:
            msg = f"The disk of {folder.path} knows no locks; put the project on another disk."
            raise RunError(msg) from error
    try:
        yield
    finally:
        lock.release()


class _Log(logging.FileHandler):
    """The log of a run; a full disk costs lines of it, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Leave the line out."""

    def close(self) -> None:
        """Close the file, whose last lines may not fit on the disk."""
        with suppress(OSError):
            super().close()


@contextmanager
def _logged(folder: RunFolder) -> Iterator[None]:
    with storage_errors(folder.path):
        log = _Log(folder.path / run_names.LOG, encoding="utf-8", errors="backslashreplace")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    library = logging.getLogger("aslseg")
    library.addHandler(log)
    library.setLevel(min(library.level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        library.removeHandler(log)
        log.close()


class _Notices(logging.Handler):
    """Tells each warning once as a notice."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__(logging.WARNING)
        self._monitor = monitor
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it; what cannot be noted, as on a full disk, is in the log."""
        message = record.getMessage()
        if record.levelno == logging.WARNING and message not in self._told:
            self._told.add(message)
            with suppress(AslsegError, OSError):
                self._monitor.warn(message)


@contextmanager
def _warnings_told(monitor: Monitor) -> Iterator[None]:
    """Tell what is logged as a warning of files of the user: with a log, no terminal shows it."""
    notices = _Notices(monitor)
    readers = [logging.getLogger(name) for name in _READERS]
    for reader in readers:
        reader.addHandler(notices)
    try:
        yield
    finally:
        for reader in readers:
            reader.removeHandler(notices)


def _note_end(folder: RunFolder, recorder: Recorder, state: str, message: str) -> None:
    """Write how the run ended, also where the disk has no room for another file."""
    try:
        folder.write_status(**recorder.unwritten(), state=state, message=message)
    except AslsegError:
        logger.exception("The state '%s' could not be written as a new file", state)
        with suppress(AslsegError, OSError):
            _write_over(folder.path / run_names.STATUS, {**folder.noted, "state": state}, message)


def _write_over(path: Path, facts: dict[str, Any], message: str) -> None:
    """Replace a JSON file by one that takes no more room."""
    room = path.stat().st_size
    for text_of in (message, ""):
        text = json.dumps(plain({**facts, "message": text_of}), separators=(",", ":")).encode()
        if len(text) <= room:
            with path.open("rb+") as file:
                file.write(text.ljust(room))
            return
