"""Which case a person looks at next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from aslseg.project.case_reports import CaseReport
    from aslseg.project.project import Project
    from aslseg.project.run_folder import RunFolder

ReviewOrder: TypeAlias = Literal["least", "doubtful"]
"""`least`: the case with the least lesion volume expected first, which brings most finished cases
for the time (ours; Docs/studies/label-economy.md has what it saves). `doubtful`: first the cases
that the run does not accept, then those that it does; in both, the least reliable first. In either
order, cases of equal rank begin with those that are unlike the labelled ones, and `doubtful` begins
with them altogether, for their networks agree without reason."""
ORDERS: tuple[ReviewOrder, ...] = get_args(ReviewOrder)


def review_queue(
    project: Project, run: RunFolder, order: ReviewOrder = "least"
) -> list[CaseReport]:
    """Return the cases that wait for a person, in an order.

    Cases with a person's label or decision are left out; those to train on are not where no slice
    of that label counts, for they still need one.

    Raises:
        RunError: When a file of the run is damaged.
        ProjectError: When the file of decisions is.
    """
    # Not above: the panel is opened before filelock is there.
    from aslseg.project.case_reports import case_reports

    return waiting(case_reports(project, run), order)


def waiting(reports: Iterable[CaseReport], order: ReviewOrder = "least") -> list[CaseReport]:
    """Return those of all cases that wait for a person, in the order of `review_queue`.

    Where a run judged no candidates, `least` is as `doubtful`.
    """
    left = [one for one in reports if _waits(one)]
    return sorted(left, key=_doubt if order == "doubtful" else _lesions)


def _waits(report: CaseReport) -> bool:
    needs_label = report.state == "incomplete" and report.split == "train"
    return needs_label or report.state in ("needs review", "pseudo")


def _doubt(report: CaseReport) -> tuple[bool, bool, float, str]:
    score = -1.0 if report.score is None else report.score
    return not report.notes, report.state == "pseudo", score, report.case_id


def _lesions(report: CaseReport) -> tuple[bool, float, bool, bool, float, str]:
    expected = report.lesion_ml
    return expected is None, expected or 0.0, *_doubt(report)
