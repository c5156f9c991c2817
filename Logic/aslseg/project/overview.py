"""The overview of cases: how each stands, what is known of it, and which to look at next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aslseg.project.case import Case
from aslseg.project.case_facts import CaseFacts, known_facts, thumbnail_path
from aslseg.project.project import Project
from aslseg.project.review import CaseReport, case_reports, waiting
from aslseg.project.run_folder import RunFolder
from aslseg.schema_1 import predictions_folder

STATES = {
    "labelled": "labelled",
    "unlabelled": "unlabelled",
    "pseudo": "AI label (used)",
    "needs review": "AI label (check)",
    "accepted": "accepted",
    "corrected": "corrected",
    "rejected": "rejected",
}
"""What a person reads of the state of a case."""


@dataclass(frozen=True, slots=True)
class CaseOverview:
    """A row of the overview.

    Attributes:
        report: How the case stands.
        turn: Its place among the cases to look at next, from 1; 0 when it is not among them.
        predictions: Folder of the latest finished round's predictions on it, or None.
        facts: What was measured; None as long as nothing was.
    """

    report: CaseReport
    turn: int
    predictions: Path | None
    facts: CaseFacts | None


FactsOf = Callable[[Project, Case, Path | None], CaseFacts | None]
"""Tells what was measured of a case, see `known_facts`."""


def case_overviews(
    project: Project,
    run: RunFolder | None,
    *,
    reports: Sequence[CaseReport] | None = None,
    facts_of: FactsOf = known_facts,
) -> list[CaseOverview]:
    """Return a row for each case, in the order of the project; no image is read.

    Args:
        project: The cases.
        run: Whose best round is shown; None when there is none.
        reports: Of the cases, if they are known already.
        facts_of: Looks up what was measured of a case.

    Raises:
        RunError: When a file of the run is damaged.
        ProjectError: When the file of decisions is.
    """
    reports = case_reports(project, run) if reports is None else reports
    queue = [] if run is None else waiting(reports)
    turns = {report.case_id: turn for turn, report in enumerate(queue, start=1)}
    best = 0 if run is None else run.best_round
    root = predictions_folder(run.round(best)) if run is not None and best else None
    rows = []
    for case, report in zip(project.cases, reports, strict=True):
        folder = None if root is None else root / case.id
        facts = facts_of(project, case, folder)
        rows.append(CaseOverview(report, turns.get(case.id, 0), folder, facts))
    return rows


def overview_head(targets: Sequence[str]) -> list[str]:
    """Return the titles of the columns of `overview_cells`."""
    volumes = [f"{name} (ml)" for name in targets]
    agreements = [f"Reliability {name}" for name in targets]
    return ["Case", "State", "Labelled", "Lesions decided", *volumes, *agreements, "Look at"]


def overview_cells(row: CaseOverview, targets: Sequence[str]) -> list[str]:
    """Return a row in words and numbers; what is not known is empty."""
    facts = row.facts or CaseFacts("")
    volumes, agreements = facts.volumes_ml or {}, facts.reliability or {}
    return [
        row.report.case_id,
        STATES[row.report.state],
        ", ".join(facts.labelled),
        f"{facts.decided} of {facts.found}" if facts.found else "",
        *(f"{volumes[name]:.1f}" if name in volumes else "" for name in targets),
        *(f"{agreements[name]:.2f}" if name in agreements else "" for name in targets),
        f"{row.turn}." if row.turn else "",
    ]


def thumbnail_of(project: Project, row: CaseOverview) -> Path | None:
    """Return the picture of a case; None as long as nothing was measured."""
    path = thumbnail_path(project, row.report.case_id)
    return path if row.facts is not None and path.exists() else None
