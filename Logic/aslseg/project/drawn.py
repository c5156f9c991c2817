"""What people have drawn of a case and decided about it, and how it goes to the history."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from aslseg.project.all_or_nothing import all_or_nothing
from aslseg.project.case import OWN_FILES, Case
from aslseg.project.labels import keep_history
from aslseg.project.lesion_decisions import lesions_aside, set_lesions_aside
from aslseg.project.project import Project
from aslseg.project.review import note_removal
from aslseg.storage import inside


def drawn_files(project: Project, case: Case) -> list[Path]:
    """Return the files of the project that a case has: label map, which is first, and masks.

    Raises:
        StorageError: When a link leads out of the project.
    """
    places = [*([case.label] if case.label else []), *case.masks.values()]
    return [inside(project.folder, place) for place in places]


def keep_drawn(project: Project, case: Case) -> list[Path | None]:
    """Copy label map and masks of a case to the history.

    Returns:
        The copies of `drawn_files`; None for one that is missing.

    Raises:
        StorageError: When one cannot be read, or the folder cannot be written.
    """
    return [keep_history(path) for path in drawn_files(project, case)]


@contextmanager
def setting_aside(project: Project, cases: Collection[Case]) -> Iterator[None]:
    """Take away what people drew of cases and decided about them; the history has copies.

    That and what the body does holds wholly or not at all, also where the process is killed.

    Args:
        project: The project; the caller holds its lock, and the history has what was drawn, see
            `keep_drawn`.
        cases: The cases, none of them twice; the body writes the project without them, or without
            what was drawn of them.

    Raises:
        StorageError: When the folder cannot be written; nothing has changed then.
    """
    drawn = [path for case in cases for path in drawn_files(project, case)]
    lesions = {case.id: lesions_aside(project.folder, case.id) for case in cases}
    decided = [project.lesion_path(case.id) for case in cases]
    files = [project.folder / name for name in OWN_FILES] + drawn + decided + [*lesions.values()]
    with all_or_nothing(project.folder, [path.relative_to(project.folder) for path in files]):
        for case in cases:
            note_removal(project.folder, case)
            set_lesions_aside(project.folder, case.id, lesions[case.id])
        for path in drawn:
            path.unlink(missing_ok=True)
        yield
