"""What killed processes of this program left half written, deleted at the next start."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from aslseg.storage import TEMPORARY, this_computer, this_process

logger = logging.getLogger(__name__)

STALE_AFTER_S = 24 * 3600.0
"""Files of another computer on the same disk are left behind when nothing changed for so long."""

_NAME = re.compile(re.escape(TEMPORARY) + r"([0-9a-f]{8})-(\d{1,10})-([0-9a-f]{8})-[0-9a-f]{8}-")


def sweep(folder: Path, *, deep: bool = False) -> list[Path]:
    """Delete what killed processes of this program left half written in a folder.

    Files that a living process may still write, and whatever has another name, stay.

    Args:
        folder: Where to look.
        deep: Whether to look into its folders too; links are not followed.

    Returns:
        What was deleted.
    """
    found = [path for path in _temporaries(folder, deep=deep) if _is_stale(path)]
    for path in found:
        logger.info("Deleting %s, which a process left that was ended.", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            delete_quietly(path)
    return [path for path in found if not os.path.lexists(path)]


def _temporaries(folder: Path, *, deep: bool) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if name.startswith(TEMPORARY)]:
            if name in folders:
                folders.remove(name)
            yield Path(place, name)
        if not deep:
            return


def _is_stale(path: Path) -> bool:
    owner = _NAME.match(path.name)
    if owner is None:
        return False
    computer, pid, process = owner[1], int(owner[2]), owner[3]
    if computer != this_computer():
        return time.time() - _last_change(path) > STALE_AFTER_S
    if pid == os.getpid():
        return process != this_process(pid)
    import psutil  # the panel reads and writes files before it is installed

    return not psutil.pid_exists(pid)


def _last_change(path: Path) -> float:
    times = [_changed(path)]
    if path.is_dir() and not path.is_symlink():
        times += [_changed(inner) for inner in path.rglob("*")]
    return max(times)


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def delete_quietly(path: Path) -> None:
    """Delete a file; where it cannot be, the log says so."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.info("%s could not be deleted (%s).", path, error.strerror)
