"""Lesions of a case by number, for whoever decides about them without the panel."""

from __future__ import annotations

from collections.abc import Sequence

from aslseg.errors import ProjectError
from aslseg.evaluation.lesion_review import ReviewedLesion, read_review
from aslseg.project.lesions import LesionDecision, What, put_lesion
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder


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
        ProjectError: When there is no lesion of a number, or two decisions about one; nothing
            changes then.
        AslsegError: As `numbered_lesions`.
    """
    rows, latest = numbered_lesions(project, run, case_id, round_number=round_number)
    asked = [*accept, *delete, *undo]
    wrong = [n for n in asked if n not in rows or asked.count(n) > 1]
    if wrong:
        msg = (
            f"Case {case_id} has {len(rows)} lesions, each to be decided about once, and "
            f"{wrong[0]} is none of them or named twice; list them first."
        )
        raise ProjectError(msg)
    for number in asked:
        lesion = rows[number]
        decision = None
        if number in accept:
            decision = _accepted(lesion, run.run_id, round_number)
        elif number in delete and lesion.found is not None:
            decision = LesionDecision(
                "deleted",
                lesion.target,
                lesion.found,
                None,
                run.run_id,
                round_number,
                lesion.candidate,
            )
        elif not lesion.number:
            continue  # nothing was decided
        _, now = put_lesion(project, case_id, decision, lesion=lesion.number or None, seen=latest)
        latest = now.latest
    return numbered_lesions(project, run, case_id, round_number=round_number)[0]


def _accepted(lesion: ReviewedLesion, run_id: str, round_number: int) -> LesionDecision:
    """Return a lesion as it is shown, or as its candidate is where it was deleted."""
    mask = lesion.found if lesion.state == "deleted" else lesion.voxels
    what: What = "accepted"
    if lesion.found is None or lesion.state == "edited":
        what = "added" if lesion.found is None else "edited"
    return LesionDecision(
        what, lesion.target, lesion.found, mask, run_id, round_number, lesion.candidate
    )
