"""Which cases a person should look at first, and how each case of a project stands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aslseg.project.case import Case, Split
from aslseg.project.project import Project
from aslseg.project.review import decisions
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import Reliability, read_reliability

CaseState = Literal[
    "labelled", "unlabelled", "pseudo", "accepted", "corrected", "rejected", "needs review"
]


@dataclass(frozen=True, slots=True)
class CaseReport:
    """How a case stands.

    Attributes:
        case_id: The case.
        split: What it is for.
        state: `pseudo` when the run believes its own label, `needs review` when it does not;
            `unlabelled` as long as no round is finished.
        score: Reliability from 0 to 1; None when it was not judged.
        checkpoint_agreement: Of earlier checkpoints with the last; None when not judged.
        prediction_agreement: Of specialist and refined label; None when not judged.
        reason: Of the selection, in words.
        round: That judged it; 0 for none.
        refined: The refined label, or None.
        decided_at: When a person decided last, ISO 8601, or nothing.
    """

    case_id: str
    split: Split
    state: CaseState
    score: float | None = None
    checkpoint_agreement: float | None = None
    prediction_agreement: float | None = None
    reason: str = ""
    round: int = 0
    refined: Path | None = None
    decided_at: str = ""


def case_reports(project: Project, run: RunFolder | None) -> list[CaseReport]:
    """Say of every case how it stands, in the order of the project.

    Args:
        project: The cases.
        run: Whose best round judged them; None when there is none.

    Raises:
        RunError: When a file of the run is damaged.
        ProjectError: When the file of decisions is.
    """
    best = 0 if run is None else int(run.status.get("best_round", 0))
    judged: dict[str, Reliability] = {}
    if run is not None and best > 0:
        judged = {row.case: row for row in read_reliability(run.round(best))}
    decided = {review.case_id: review for review in decisions(project)}
    reports = []
    for case in project.cases:
        review = decided.get(case.id)
        corrected = review is not None and review.what == "corrected"
        row = judged.get(case.id)
        reports.append(
            CaseReport(
                case_id=case.id,
                split=case.split,
                state=_state(case, row, corrected=corrected),
                score=None if row is None else _known(row.score),
                checkpoint_agreement=None if row is None else _known(row.checkpoint_agreement),
                prediction_agreement=None if row is None else _known(row.prediction_agreement),
                reason="" if row is None else row.reason,
                round=best if row else 0,
                refined=_refined(run, best, case.id),
                decided_at="" if review is None else review.time,
            )
        )
    return reports


def review_queue(project: Project, run: RunFolder) -> list[CaseReport]:
    """Return the cases that wait for a person, in order of need.

    First those that the run does not believe, then those that it does; in both, the least reliable
    first. Cases with a person's label or decision are left out.
    """
    waiting = [r for r in case_reports(project, run) if r.state in ("needs review", "pseudo")]
    return sorted(waiting, key=_need)


def _need(report: CaseReport) -> tuple[bool, float, str]:
    score = -1.0 if report.score is None else report.score
    return report.state == "pseudo", score, report.case_id


def _state(case: Case, row: Reliability | None, *, corrected: bool) -> CaseState:
    if case.label is not None:
        if corrected:
            return "corrected"
        return "accepted" if case.status == "accepted" else "labelled"
    if case.status == "rejected":
        return "rejected"
    if row is None:
        return "unlabelled"
    return "pseudo" if row.accepted else "needs review"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _refined(run: RunFolder | None, best: int, case_id: str) -> Path | None:
    if run is None or best == 0:
        return None
    path = run.predictions(best, case_id) / "refined.nii.gz"
    return path if path.exists() else None


def counts(reports: Iterable[CaseReport]) -> dict[str, int]:
    """Count the cases by state."""
    found: dict[str, int] = {}
    for report in reports:
        found[report.state] = found.get(report.state, 0) + 1
    return found
