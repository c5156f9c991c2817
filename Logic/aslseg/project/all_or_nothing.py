"""A change of several files of a project that holds wholly or not at all, also where it is killed.

The files are copied to `.unfinished/` first, and `files.json` there says which of them there were.
It goes when the change is done; where it is still there, the process was ended in between, and
whoever opens or changes the project next puts the files back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aslseg.errors import ProjectError
from aslseg.project.case import LABELS, LESIONS, MASKS, OWN_FILES
from aslseg.reading import read_object
from aslseg.storage import copy_atomic, inside, storage_errors, write_json_atomic

UNFINISHED = ".unfinished"
FILES = "files.json"
"""In `UNFINISHED`; it is there as long as a change is not done."""
_PLACES = (*OWN_FILES, LABELS, LESIONS, MASKS)
_REMEDY = f"restore it from a copy, or look at the files in {UNFINISHED} and move it away"


@contextmanager
def all_or_nothing(folder: Path, places: Iterable[Path]) -> Iterator[None]:
    """Let the body change files of a project, all of them or none; none in another such body.

    Args:
        folder: Of the project; the caller holds its lock.
        places: Relative to the folder, of files that the body makes, changes or deletes; where it
            makes one, none was there.

    Raises:
        StorageError: When a file cannot be copied, or the folder cannot be written; nothing has
            changed then.
    """
    _keep(folder, dict.fromkeys(places))
    try:
        yield
        with storage_errors(folder):
            (folder / UNFINISHED / FILES).unlink()  # from now on it holds
    except BaseException:
        undo_unfinished(folder)
        raise
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def undo_unfinished(folder: Path) -> None:
    """Put back the files of a change that was broken off, if there is one.

    Needs no room on the disk. Where it is broken off itself, it can be repeated.

    Args:
        folder: Of the project; the caller holds its lock.

    Raises:
        ProjectError: When what is kept of the change is damaged.
        StorageError: When the folder cannot be written.
    """
    kept = folder / UNFINISHED
    if (kept / FILES).exists():  # else what it says holds, or was never begun
        places = _places_of(folder)
        with storage_errors(folder):
            for place in [place for place, was_there in places.items() if was_there]:
                if (kept / place).exists():  # else it is back already
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    (kept / place).replace(folder / place)
            for place in [place for place, was_there in places.items() if not was_there]:
                (folder / place).unlink(missing_ok=True)
            (kept / FILES).unlink()
    shutil.rmtree(kept, ignore_errors=True)


def _keep(folder: Path, places: Iterable[Path]) -> None:
    """Copy files to where they are kept; what says that they are comes last."""
    kept = folder / UNFINISHED
    shutil.rmtree(kept, ignore_errors=True)
    there = {place: inside(folder, place).exists() for place in places}
    try:
        for place in [place for place, is_there in there.items() if is_there]:
            copy_atomic(folder / place, kept / place)
        names = {place.as_posix(): is_there for place, is_there in there.items()}
        write_json_atomic(kept / FILES, names)
    except BaseException:
        shutil.rmtree(kept, ignore_errors=True)
        raise


def _places_of(folder: Path) -> Mapping[Path, bool]:
    """Return the places that `files.json` names, and whether there was a file."""
    path = folder / UNFINISHED / FILES
    values = read_object(path, ProjectError, _REMEDY)
    places = {Path(name): was_there for name, was_there in values.items()}
    for place, was_there in places.items():
        if place.parts[:1] not in [(name,) for name in _PLACES] or not isinstance(was_there, bool):
            msg = f"{path} is damaged, '{str(place)[:100]}' is no file of a change; {_REMEDY}."
            raise ProjectError(msg)
        inside(folder, place)
    return places
