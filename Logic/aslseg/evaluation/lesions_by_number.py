"""Lesions of a case by number, for whoever decides about them without the panel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from aslseg.errors import ProjectError
from aslseg.evaluation.lesion_review import ReviewedLesion, read_review
from aslseg.project.all_or_nothing import all_or_nothing
from aslseg.project.case import OWN_FILES
from aslseg.project.lesion_decisions import (
    CaseLesions,
    LesionDecision,
    What,
    putting_lesions,
    read_lesions,
)
from aslseg.project.lesion_labels import finish_case, require_finishable
from aslseg.project.lock import changing
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder

Act: TypeAlias = Literal["accept", "delete", "undo"]


def numbered_lesions(
    project: Project, run: RunFolder, case_id: str, *, round_number: int | None = None
) -> tuple[dict[int, ReviewedLesion], int]:
    """Return the lesions of a case by number, from 1, which decisions do not change.

    Candidates come first, in the order of their place in the file; then what a person has added,
    whose numbers have gaps: that of a lesion that is gone is given to no other one.

    Args:
        project: The project.
        run: Whose candidates are reviewed.
        case_id: The case.
        round_number: Of the candidates; the best round when None.

    Returns:
        The lesions, and `CaseLesions.latest` of the decisions.

    Raises:
        AslsegError: As `read_review`.
    """
    now = open_project(project.folder)
    image = now.load_image(now.case(case_id))
    rows, decisions = read_review(now, run, case_id, image, round_number=round_number)
    candidates = sorted((row for row in rows if row.found is not None), key=_place)
    added = {row.number: row for row in rows if row.found is None}
    numbered = dict(enumerate(candidates, start=1))
    numbered |= {len(candidates) + number: added[number] for number in sorted(added)}
    return numbered, decisions.latest


def _place(lesion: ReviewedLesion) -> tuple[int, ...]:
    return () if lesion.found is None else tuple(lesion.found.box.start)


def decide_lesions(
    project: Project,
    run: RunFolder,
    case_id: str,
    *,
    round_number: int,
    accept: Sequence[int] = (),
    delete: Sequence[int] = (),
    undo: Sequence[int] = (),
) -> dict[int, ReviewedLesion]:
    """Decide about lesions by number, as a person does in the panel.

    Args:
        project: The project.
        run: As for `numbered_lesions`.
        case_id: The case.
        round_number: Of the candidates that the numbers are of.
        accept: Numbers of lesions that are right; a deleted one is as it was found.
        delete: Numbers of those that are none.
        undo: Numbers of those that shall be undecided again; added ones are gone.

    Returns:
        The lesions by number, as they are then.

    Raises:
        ProjectError: When there is no lesion of a number, two decisions about one, or an outline
            that is too long to be kept; nothing changes then.
        StorageError: When the folder cannot be written; nothing changes then.
        AslsegError: As `numbered_lesions`.
    """
    acts = _acts(accept, delete, undo)
    asked = _asked(project, run, case_id, round_number, acts)
    if asked.changes:
        with _decided(project, asked):
            pass
    return numbered_lesions(project, run, case_id, round_number=round_number)[0]


def finish_lesions(
    project: Project,
    run: RunFolder,
    case_id: str,
    *,
    round_number: int,
    accept: Sequence[int] = (),
    delete: Sequence[int] = (),
    undo: Sequence[int] = (),
) -> dict[int, ReviewedLesion]:
    """Decide about the last lesions of a case and say that there are no more: both, or neither.

    So it is also where the process is killed in between.

    Args:
        project: The project.
        run: As for `numbered_lesions`.
        case_id: The case; the label map with the decisions becomes its own, see `finish_case`.
        round_number: As for `decide_lesions`.
        accept: As for `decide_lesions`.
        delete: As for `decide_lesions`.
        undo: As for `decide_lesions`.

    Returns:
        The lesions by number, as they are then.

    Raises:
        ProjectError: As `decide_lesions` and `finish_case`, or when lesions were decided about
            elsewhere meanwhile; nothing changes then.
        StorageError: When the folder cannot be written; nothing changes then.
        AslsegError: As `numbered_lesions`.
    """
    acts = _acts(accept, delete, undo)
    asked = _asked(project, run, case_id, round_number, acts)
    with changing(project.folder):
        now = open_project(project.folder)
        require_finishable(now, run, asked.lesions_after, round_number=round_number)
        label, lesions = now.case(case_id).label_place, now.lesion_path(case_id)
        places = [*map(Path, OWN_FILES), label, lesions.relative_to(now.folder)]
        with all_or_nothing(now.folder, places), _decided(now, asked):
            finish_case(now, run, case_id, round_number=round_number)
    return numbered_lesions(project, run, case_id, round_number=round_number)[0]


@dataclass(frozen=True)
class _Asked:
    """Decisions that are asked for.

    Attributes:
        lesions: The decisions that hold before.
        changes: Lesions with what shall be decided about them; None takes a decision back.
    """

    lesions: CaseLesions
    changes: Sequence[tuple[ReviewedLesion, LesionDecision | None]]

    @property
    def lesions_after(self) -> CaseLesions:
        """The decisions that hold afterwards."""
        decisions = dict(self.lesions.decisions)
        for number, (lesion, decision) in enumerate(self.changes, self.lesions.next_number):
            if decision is None:
                decisions.pop(lesion.number)
            else:  # a line each, by which a lesion is numbered that was not
                decisions[lesion.number or number] = decision
        latest = self.lesions.latest + len(self.changes)
        return CaseLesions(self.lesions.case_id, dict(sorted(decisions.items())), latest)


def _acts(
    accept: Sequence[int], delete: Sequence[int], undo: Sequence[int]
) -> list[tuple[int, Act]]:
    """Return the number of each lesion that is named, with what is asked about it."""
    named: dict[Act, Sequence[int]] = {"accept": accept, "delete": delete, "undo": undo}
    return [(number, act) for act, numbers in named.items() for number in numbers]


def _asked(
    project: Project,
    run: RunFolder,
    case_id: str,
    round_number: int,
    acts: Sequence[tuple[int, Act]],
) -> _Asked:
    """Return what is asked for, by number of the lesion.

    Raises:
        ProjectError: When there is no lesion of a number, or two decisions about one.
    """
    rows, latest = numbered_lesions(project, run, case_id, round_number=round_number)
    numbers = [number for number, _ in acts]
    wrong = [n for n in numbers if n not in rows or numbers.count(n) > 1]
    if wrong:
        msg = (
            f"Case {case_id} has {len(rows)} lesions, each to be decided about once, and "
            f"{wrong[0]} is none of them or named twice; list them first."
        )
        raise ProjectError(msg)
    chosen = [(rows[number], act) for number, act in acts]
    changes = [(one, _decision(one, act, run.run_id, round_number)) for one, act in chosen]
    some = [(one, decision) for one, decision in changes if decision is not None or one.number]
    return _Asked(read_lesions(project, case_id, latest), some)


def _decided(project: Project, asked: _Asked) -> AbstractContextManager[CaseLesions]:
    """Note what is asked for, all or nothing; it is taken back if the body fails."""
    changes = [(lesion.number or None, decision) for lesion, decision in asked.changes]
    latest = asked.lesions.latest
    return putting_lesions(project, asked.lesions.case_id, changes, seen=latest)


def _decision(
    lesion: ReviewedLesion, act: Act, run_id: str, round_number: int
) -> LesionDecision | None:
    """Return what is decided about a lesion; None takes back what was, and an added one."""
    if act == "accept":
        return _accepted(lesion, run_id, round_number)
    if act == "undo" or lesion.found is None:
        return None
    return LesionDecision(
        "deleted", lesion.target, lesion.found, None, run_id, round_number, lesion.candidate
    )


def _accepted(lesion: ReviewedLesion, run_id: str, round_number: int) -> LesionDecision:
    """Return a lesion as it is shown, or as its candidate is where it was deleted."""
    mask = lesion.found if lesion.state == "deleted" else lesion.voxels
    what: What = "accepted"
    if lesion.found is None or lesion.state == "edited":
        what = "added" if lesion.found is None else "edited"
    return LesionDecision(
        what, lesion.target, lesion.found, mask, run_id, round_number, lesion.candidate
    )
