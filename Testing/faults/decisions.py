"""Decisions of a person, as a child takes them: what is refused is one sentence and exit code 1."""

from __future__ import annotations

from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.project import open_project
from aslseg.review import accept, correct, reject, undo_last
from aslseg.runfolder import RunFolder
from faults.small import a_patient


def decide(what: str, project: Path, case_id: str = "c2") -> None:
    """Take a decision about a case, or take the last one back."""
    run = RunFolder(project / "runs" / "a")
    try:
        opened = open_project(project)
        if what == "accept":
            accept(opened, run, case_id)
        elif what == "correct":
            correct(opened, case_id, a_patient(int(case_id[1:]))[1], run)
        elif what == "save":
            opened.save_label(case_id, a_patient(int(case_id[1:]))[1])
        elif what == "reject":
            reject(opened, case_id, run)
        else:
            undo_last(opened)
    except AslsegError as error:
        msg = f"Error: {error}"
        raise SystemExit(msg) from error


def told(project: Path, case_id: str = "c2") -> tuple[str, str | None]:
    """Return the status of a case, and the place of its label."""
    case = open_project(project).case(case_id)
    return case.status, None if case.label is None else case.label.as_posix()
