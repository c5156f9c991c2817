"""The lock of a project: one writer at a time reads, changes and writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aslseg.errors import ProjectError, StorageError
from aslseg.leftovers import sweep
from aslseg.project.all_or_nothing import UNFINISHED, undo_unfinished
from aslseg.project.case import HISTORY, LABELS
from aslseg.project.image_digests import PLACE as KNOWN_IMAGES
from aslseg.storage import storage_errors

LOCK = ".project.lock"
PATIENCE_S = 60.0


def require_folder(folder: Path) -> None:
    """Refuse the folder of a project that is not there.

    Raises:
        ProjectError: When it is not.
    """
    if not folder.is_dir():
        msg = (
            f"There is no folder {folder}; connect the disk or network share that it is on, or "
            "give the folder where the project is now."
        )
        raise ProjectError(msg)


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
    require_folder(folder)  # else a new one would be made where it was
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
