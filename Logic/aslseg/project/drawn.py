"""What people have drawn of a case and decided about it, and how it goes to the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aslseg.project.case import REVIEWS, Case
from aslseg.project.labels import keep_history
from aslseg.project.lesions import set_lesions_aside
from aslseg.project.project import Project
from aslseg.project.review import note_removal
from aslseg.storage import inside, whole_lines


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
def ending_decisions(project: Project) -> Iterator[Callable[[Case], None]]:
    """End what people decided about cases; it holds as before if the body fails.

    What else can fail is best done before, for a process that is killed brings nothing back.

    Args:
        project: The project; the caller holds its lock.

    Yields:
        What ends the decisions about a case, those about its lesions go to the history; it raises
        StorageError when the folder cannot be written.
    """
    reviews = project.folder / REVIEWS
    moved: list[tuple[Path, Path]] = []
    lengths: list[int] = []

    def end(case: Case) -> None:
        kept = set_lesions_aside(project.folder, case.id)
        if kept is not None:
            moved.append((kept, project.lesion_path(case.id)))
        if reviews.exists():
            lengths.append(sum(map(len, whole_lines(reviews.read_bytes()))))
        note_removal(project.folder, case)

    try:
        yield end
    except BaseException:
        for kept, path in moved:
            with suppress(OSError):
                kept.rename(path)
        if lengths:
            with suppress(OSError), reviews.open("rb+") as file:
                file.truncate(lengths[0])
        raise
