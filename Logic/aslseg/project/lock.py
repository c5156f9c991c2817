"""The lock of a project: one writer at a time reads, changes and writes it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aslseg.errors import ProjectError, StorageError
from aslseg.leftovers import sweep
from aslseg.project.all_or_nothing import UNFINISHED, undo_unfinished
from aslseg.project.case import HISTORY, LABELS, PROJECT_FILE, PROJECT_REMEDY
from aslseg.project.image_digests import PLACE as KNOWN_IMAGES
from aslseg.reading import read_object
from aslseg.storage import storage_errors

LOCK = ".project.lock"
PATIENCE_S = 60.0


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the lock of a project; the thread that holds it may ask for it again.

    Files that an ended process left half written in the project are deleted first, and a change of
    several files that it did not finish is taken back.

    Args:
        folder: Of the project.

    Raises:
        ProjectError: When another program does not give the lock back in time, or the folder is not
            there, for it may have been moved, or what is kept of an unfinished change is damaged.
        StorageError: When the folder cannot be written, or its disk knows no locks.
    """
    if not os.path.lexists(folder):  # else a new one would be made where it was
        read_object(folder / PROJECT_FILE, ProjectError, PROJECT_REMEDY)  # says what is wrong
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
            labels = folder / LABELS
            for place in (folder, folder / KNOWN_IMAGES.parent, labels, labels / HISTORY):
                sweep(place)
            if (folder / UNFINISHED).exists():
                undo_unfinished(folder)
        yield
    finally:
        lock.release()
