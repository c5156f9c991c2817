"""Decisions of a person, as a child takes them: what is refused is one sentence and exit code 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.project import open_project
from aslseg.review import accept, correct, reject, undo_last
from aslseg.runfolder import RunFolder
from faults.small import a_patient


def decide(what: str, project: Path, case_id: str = "c2", drawn: int | None = None) -> None:
    """Take a decision about a case, or take the last one back.

    Args:
        what: accept, correct, save, reject or undo.
        project: Its folder.
        case_id: The case.
        drawn: Number of the label map that is drawn; that of the case if there is none.
    """
    run = RunFolder(project / "runs" / "a")
    labels = a_patient(int(case_id[1:]) if drawn is None else drawn)[1]
    try:
        opened = open_project(project)
        if what == "accept":
            accept(opened, run, case_id)
        elif what == "correct":
            correct(opened, case_id, labels, run)
        elif what == "save":
            opened.save_label(case_id, labels)
        elif what == "reject":
            reject(opened, case_id, run)
        else:
            undo_last(opened)
    except AslsegError as error:
        msg = f"Error: {error}"
        raise SystemExit(msg) from error


def decide_all(project: Path, steps: Sequence[str]) -> None:
    """Take decisions one after the other; every label that is drawn is another one."""
    for number, step in enumerate(steps):
        decide(step, project, drawn=number)


def told(project: Path, case_id: str = "c2") -> tuple[str, str | None]:
    """Return the status of a case, and the place of its label."""
    case = open_project(project).case(case_id)
    return case.status, None if case.label is None else case.label.as_posix()
