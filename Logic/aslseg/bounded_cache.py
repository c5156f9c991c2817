"""A folder on disk of what can be made again, which several processes use, with a bound."""

from __future__ import annotations

import logging
import os
import shutil
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from aslseg.leftovers import delete_quietly, sweep
from aslseg.storage import TEMPORARY, storage_errors, temporary_beside

logger = logging.getLogger(__name__)

Entry = TypeVar("Entry")


class BoundedCache:
    """A folder of what can be made again: a folder for each key, up to a bound in all.

    Several processes may use one. Where it grows beyond its bound, entries go that were not used
    for longest; those in use by a living process stay.

    Args:
        folder: Where; it is made when first written to. Beside the entries it holds a hidden file
            for each one in use, named after the process as temporary files are: one of a killed
            process is known by that, and deleted.
        limit_gb: The bound, in 10^9 bytes.
    """

    def __init__(self, folder: Path, limit_gb: float) -> None:
        self.folder = folder
        self.limit_gb = limit_gb

    def hold(self, key: str, opened: Callable[[Path], Entry]) -> Entry:
        """Open an entry, which no process deletes as long as what is returned lives here.

        Args:
            key: Without a `-`.
            opened: Given the entry's folder, which may be absent, returns what stands for it.

        Raises:
            StorageError: When the folder cannot be written.
        """
        folder = self.folder / key
        with storage_errors(folder), self._locked():
            mark = temporary_beside(folder)
            mark.touch()
            if folder.is_dir():
                os.utime(folder)
        entry = opened(folder)
        weakref.finalize(entry, delete_quietly, mark)
        return entry

    def evict(self) -> list[str]:
        """Delete the entries that were not used for longest, as far as the cache is too large.

        Returns:
            Their keys, the longest unused one first.
        """
        gone: dict[str, Path] = {}
        try:
            with self._locked():
                sizes, used = self._sizes(), self._used()
                excess = sum(sizes.values()) - self.limit_gb * 1e9
                for key in sizes:
                    if excess > 0 and key not in used:
                        doomed = temporary_beside(self.folder / key)
                        (self.folder / key).rename(doomed)
                        gone[key], excess = doomed, excess - sizes[key]
        except OSError as error:  # somebody deletes the cache, or has a file of it open
            logger.warning("The cache %s could not be bounded: %s", self.folder, error)
        for doomed in gone.values():
            shutil.rmtree(doomed, ignore_errors=True)
        if gone:
            logger.info("%d volumes went from the cache %s.", len(gone), self.folder)
        return list(gone)

    def _sizes(self) -> dict[str, int]:
        """Return the bytes of each entry by key, the longest unused one first."""
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        entries = [path for path in folders if not path.name.startswith(TEMPORARY)]
        entries.sort(key=lambda path: path.stat().st_mtime_ns)
        return {path.name: sum(part.stat().st_size for part in path.iterdir()) for path in entries}

    def _used(self) -> set[str]:
        """Return the keys that a living process uses."""
        sweep(self.folder, deep=True)
        marks = (path for path in self.folder.glob(f"{TEMPORARY}*-*") if path.is_file())
        return {mark.name.rpartition("-")[2] for mark in marks}

    def _locked(self) -> AbstractContextManager[Any]:
        """Return the lock under which entries begin to be used, and are chosen to be deleted."""
        from filelock import FileLock  # the panel reads and writes files before it is installed

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".cache.lock")
