"""One writer at a time: whoever changes a project reads, changes and writes it under its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aslseg.errors import ProjectError, StorageError
from aslseg.project.case import HISTORY, LABELS
from aslseg.project.image_digests import PLACE as KNOWN_IMAGES
from aslseg.storage import storage_errors, sweep

LOCK = ".project.lock"
PATIENCE_S = 60.0


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the lock of a project; the thread that holds it may ask for it again.

    Files that an ended process left half written in the project are deleted first.

    Args:
        folder: Of the project.

    Raises:
        ProjectError: When another program does not give the lock back in time.
        StorageError: When the folder cannot be written, or its disk knows no locks.
    """
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
    is_first = not lock.is_locked
    with storage_errors(folder):
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout as error:
            msg = f"Another program is changing {folder}; wait until it is done and try again."
            raise ProjectError(msg) from error
        except NotImplementedError as error:
            msg = f"The disk of {folder} knows no locks; put the project on another disk."
            raise StorageError(msg) from error
    try:
        if is_first:
            for place in (
                folder,
                folder / KNOWN_IMAGES.parent,
                folder / LABELS,
                folder / LABELS / HISTORY,
            ):
                sweep(place)
        yield
    finally:
        lock.release()
