"""What people have drawn of a case and decided about it, and how it goes to the history."""

from __future__ import annotations

from pathlib import Path

from aslseg.project.case import Case
from aslseg.project.labels import keep_history
from aslseg.project.lesions import set_lesions_aside
from aslseg.project.project import Project
from aslseg.storage import inside


def drawn_files(project: Project, case: Case) -> list[Path]:
    """Return the files of the project that a case has: label map, which is first, and masks.

    Raises:
        StorageError: When a link leads out of the project.
    """
    places = [*([case.label] if case.label else []), *case.masks.values()]
    return [inside(project.folder, place) for place in places]


def set_drawn_aside(project: Project, case: Case) -> list[Path | None]:
    """Copy label map and masks of a case to the history, and move its decisions about lesions.

    Args:
        project: The project; the caller holds its lock.
        case: Whose they are.

    Returns:
        The copies of `drawn_files`; None for one that is missing.

    Raises:
        StorageError: When the folder cannot be written.
    """
    copies = [keep_history(path) for path in drawn_files(project, case)]
    set_lesions_aside(project.folder, case.id)
    return copies
