"""The overview of cases: how each stands, what is known of it, and which to look at next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aslseg.project.case import Case
from aslseg.project.case_facts import CaseFacts, known_facts, thumbnail_path
from aslseg.project.case_reports import CaseReport, case_reports
from aslseg.project.pairing import natural_key
from aslseg.project.project import Project
from aslseg.project.review_order import ReviewOrder, waiting
from aslseg.project.run_folder import RunFolder

STATES = {
    "labelled": "labelled",
    "unlabelled": "unlabelled",
    "pseudo": "AI label (used)",
    "needs review": "AI label (check)",
    "accepted": "accepted",
    "corrected": "corrected",
    "rejected": "rejected",
    "incomplete": "no complete slice",
}
"""What a person reads of the state of a case."""


@dataclass(frozen=True, slots=True)
class CaseOverview:
    """A row of the overview.

    Attributes:
        report: How the case stands.
        turn: Its place among the cases to look at next, from 1; 0 when it is not among them.
        predictions: Folder of the predictions on it that `report` is about, or None.
        facts: What was measured; None as long as nothing was.
        complete: How many slices of the person's label map are complete; None for all.
    """

    report: CaseReport
    turn: int
    predictions: Path | None
    facts: CaseFacts | None
    complete: int | None = None

    @property
    def volumes_ml(self) -> dict[str, float]:
        """As in `CaseFacts`; none of a label map of which some slices alone are complete."""
        known = self.facts.volumes_ml if self.facts and self.complete is None else None
        return known or {}

    @property
    def labelled(self) -> str:
        """What the person's label shows, in words; empty when it is not known."""
        names = ", ".join(self.facts.labelled) if self.facts else ""
        if not names or self.complete is None:
            return names
        return f"{names} ({self.complete} slice{'s' if self.complete != 1 else ''})"


FactsOf = Callable[[Project, Case, Path | None], CaseFacts | None]
"""Tells what was measured of a case, see `known_facts`."""


def case_overviews(
    project: Project,
    run: RunFolder | None,
    *,
    reports: Sequence[CaseReport] | None = None,
    order: ReviewOrder = "least",
    facts_of: FactsOf = known_facts,
) -> list[CaseOverview]:
    """Return a row for each case, in the order of the project; no image is read.

    Args:
        project: The cases.
        run: Whose best round is shown; None when there is none.
        reports: Of the cases, if they are known already; they may be of several runs.
        order: In which cases are looked at.
        facts_of: Looks up what was measured of a case.

    Raises:
        RunError: When a file of the run is damaged.
        ProjectError: When the file of decisions is.
    """
    reports = case_reports(project, run) if reports is None else reports
    queue = [] if run is None else waiting(reports, order)
    turns = {report.case_id: turn for turn, report in enumerate(queue, start=1)}
    rows = []
    for case, report in zip(project.cases, reports, strict=True):
        folder = None if report.refined is None else report.refined.parent
        facts = facts_of(project, case, folder)
        complete = None if case.complete_slices is None else len(case.complete_slices)
        rows.append(CaseOverview(report, turns.get(case.id, 0), folder, facts, complete))
    return rows


def overview_head(targets: Sequence[str]) -> list[str]:
    """Return the titles of the columns of `overview_cells`."""
    volumes = [f"{name} (ml)" for name in targets]
    agreements = [f"Reliability {name}" for name in targets]
    return ["Case", "State", "Labelled", "Lesions decided", *volumes, *agreements, "Look at"]


def overview_cells(row: CaseOverview, targets: Sequence[str]) -> list[str]:
    """Return a row in words and numbers; what is not known is empty."""
    facts = row.facts or CaseFacts("")
    volumes, agreements = row.volumes_ml, facts.reliability or {}
    return [
        row.report.case_id,
        STATES[row.report.state],
        row.labelled,
        f"{facts.decided} of {facts.found}" if facts.found else "",
        *(f"{volumes[name]:.1f}" if name in volumes else "" for name in targets),
        *(f"{agreements[name]:.2f}" if name in agreements else "" for name in targets),
        f"{row.turn}." if row.turn else "",
    ]


def overview_order(
    rows: Sequence[CaseOverview], targets: Sequence[str], column: int, *, descending: bool = False
) -> list[CaseOverview]:
    """Return rows in the order of a column of `overview_cells`.

    Numbers are ordered as numbers, also within names; decided lesions by their share of those
    found. What is not known comes last in both directions.

    Raises:
        IndexError: When there is no such column.
    """
    keys = [(_values(row, targets)[column], row) for row in rows]
    known = sorted(
        ((key, row) for key, row in keys if key is not None),
        key=lambda pair: pair[0],
        reverse=descending,
    )
    return [row for _, row in known] + [row for key, row in keys if key is None]


def overview_matches(row: CaseOverview, text: str, state: str = "") -> bool:
    """Return whether a row has a text in its name, state or labelled targets, and a state.

    Args:
        row: Of the overview.
        text: In capital letters or small ones; any when empty.
        state: A key of `STATES`; any when empty.
    """
    words = " ".join(overview_cells(row, [])[:3]).casefold()
    return text.strip().casefold() in words and state in ("", row.report.state)


def _values(row: CaseOverview, targets: Sequence[str]) -> list[Any]:
    """Return what stands in the cells of a row so that it can be ordered; unknown is None."""
    facts = row.facts or CaseFacts("")
    volumes, agreements = row.volumes_ml, facts.reliability or {}
    return [
        natural_key(row.report.case_id.casefold()),
        natural_key(STATES[row.report.state].casefold()),
        natural_key(row.labelled.casefold()) if row.labelled else None,
        (facts.decided / facts.found, facts.found) if facts.found else None,
        *(volumes.get(name) for name in targets),
        *(agreements.get(name) for name in targets),
        row.turn or None,
    ]


def thumbnail_of(project: Project, row: CaseOverview) -> Path | None:
    """Return the picture of a case; None as long as nothing was measured."""
    path = thumbnail_path(project, row.report.case_id)
    return path if row.facts is not None and path.exists() else None
