"""Which label map of a case is taken along, and who or what made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from aslseg.errors import ProjectError
from aslseg.export.origin import MadeBy
from aslseg.project.case import Case
from aslseg.project.case_reports import CaseReport, case_reports, refined_files
from aslseg.project.external_labels import unknown_targets
from aslseg.project.latest_predictions import latest_predictions
from aslseg.project.project import Project
from aslseg.project.review import Review, decisions
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import DOUBTFUL

LabelChoice: TypeAlias = Literal["human", "accepted", "all"]
"""Label maps that people drew or corrected; also predictions that people accepted; also those that
nobody has looked at."""


@dataclass(frozen=True, slots=True)
class CaseLabel:
    """A case, and its label map if it has one that was asked for.

    Attributes:
        case: The case.
        state: How it stands, as the review says.
        path: Of the label map, or None.
        made_by: Who or what made it; None without one.
        run: Whose prediction it is or was corrected from; empty without.
        round: Of that run.
        decided: When a person decided; empty where nobody did.
        doubtful: Which voxels of a prediction are in doubt: a label map that is 0 elsewhere.
        unknown: Names of the targets that a prediction says nothing of, as another model may.
    """

    case: Case
    state: str
    path: Path | None = None
    made_by: MadeBy | None = None
    run: str = ""
    round: int = 0
    decided: str = ""
    doubtful: Path | None = None
    unknown: frozenset[str] = frozenset()


def labels_of(
    project: Project,
    choice: LabelChoice,
    runs: Iterable[RunFolder],
    cases: Sequence[str] | None = None,
) -> list[CaseLabel]:
    """Find the label map of each case.

    A person's label map goes before a prediction. A prediction is the refined one of the best round
    of the first run that has one of the case; those that a person rejected are left out.

    Args:
        project: The cases.
        choice: Which label maps.
        runs: Whose predictions, those that are preferred first; none for none.
        cases: Names of the cases that are wanted; all when None.

    Raises:
        ProjectError: When a name is no case, or the file of decisions is damaged.
        RunError: When the run is damaged.
    """
    wanted = {project.case(name).id for name in cases} if cases is not None else None
    asked = [case for case in project.cases if wanted is None or case.id in wanted]
    last = {review.case_id: review for review in decisions(project)}
    files = cache(refined_files)  # those of a run are listed once
    sources = latest_predictions((case for case in asked if case.label is None), runs, files)
    used = [sources.get(case.id) for case in asked]
    reports = {
        run: {report.case_id: report for report in case_reports(project, run, files(run))}
        for run in set(used)
    }
    return [
        _label_of(project, case, choice, reports[run][case.id], last, run)
        for case, run in zip(asked, used, strict=True)
    ]


def _label_of(
    project: Project,
    case: Case,
    choice: LabelChoice,
    report: CaseReport,
    last: Mapping[str, Review],
    run: RunFolder | None,
) -> CaseLabel:
    if case.label is not None:
        review = last.get(case.id)
        made_by = _made_by(case, review)
        if made_by == "accepted" and choice == "human":
            return CaseLabel(case, report.state)
        return CaseLabel(
            case,
            report.state,
            project.label_path(case),
            made_by,
            run=review.run if review else "",
            round=review.round if review else 0,
            decided=review.time if review else "",
        )
    if choice != "all" or report.refined is None or run is None or report.state == "rejected":
        return CaseLabel(case, report.state)
    doubtful = report.refined.with_name(DOUBTFUL)
    return CaseLabel(
        case,
        report.state,
        report.refined,
        "ai",
        run=run.run_id,
        round=run.best_round,
        doubtful=doubtful if doubtful.exists() else None,
        unknown=unknown_targets(project, run, case.id),
    )


def _made_by(case: Case, review: Review | None) -> MadeBy:
    if case.status == "accepted":
        return "accepted"
    if review is None:
        return "given"
    return "corrected" if review.what == "corrected" else "drawn"


def require_labels(found: Sequence[CaseLabel], choice: LabelChoice) -> None:
    """Make sure that there is a label map.

    Raises:
        ProjectError: When there is none.
    """
    if not any(label.path for label in found):
        missing = "label a volume, or train first" if choice == "all" else "ask for all label maps"
        msg = f"There is no label map to export ({choice} ones of {len(found)} cases); {missing}."
        raise ProjectError(msg)
