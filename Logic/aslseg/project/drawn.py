"""What people have drawn of a case and decided about it, and how it goes to the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from aslseg.project.case import Case
from aslseg.project.labels import keep_history
from aslseg.project.lesions import set_lesions_aside
from aslseg.project.project import Project
from aslseg.project.review import noting_removal
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
def ending_decisions(project: Project) -> Iterator[Callable[[Case], None]]:
    """End what people decided about cases; it holds as before if the body fails.

    What else can fail is best done before, for a process that is killed brings nothing back.

    Args:
        project: The project; the caller holds its lock.

    Yields:
        What ends the decisions about a case, those about its lesions go to the history; it raises
        StorageError when the folder cannot be written.
    """
    with ExitStack() as ended:

        def end(case: Case) -> None:
            ended.enter_context(_lesions_aside(project, case))
            ended.enter_context(noting_removal(project.folder, case))

        yield end


@contextmanager
def _lesions_aside(project: Project, case: Case) -> Iterator[None]:
    """Set the decisions about a case's lesions aside; they come back if the body fails."""
    kept = set_lesions_aside(project.folder, case.id)
    try:
        yield
    except BaseException:
        if kept is not None:
            with suppress(OSError):
                kept.rename(project.lesion_path(case.id))
        raise
