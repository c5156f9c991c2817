"""How long the review still takes, from the times at which a person decided about cases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median

from aslseg.project.case_reports import CaseReport
from aslseg.project.review_order import waiting

PAUSE_S = 3600.0
"""Who decides nothing for longer did something else in between."""
CASES_OF_A_PACE = 3
"""Fewer cases say nothing of how long the others take (ours)."""
RECENT_CASES = 20
"""A person becomes faster, and so do cases from round to round: earlier ones do not count."""
CASE_ML = 20.0
"""A case without lesions takes as long as so much more lesion volume in another one (ours; derived
on one draw of LiTS and checked on five, see Docs/studies/label-economy.md)."""
GIVEN_CASE_ML = 1.0
"""The same where the organs are given, which nobody repairs (ours; from five draws, see there)."""
REVIEWED = ("accepted", "corrected", "rejected")


def seconds_left(reports: Sequence[CaseReport]) -> float | None:
    """Return how long the cases that wait take a person, at the pace of those decided about (ours).

    A case is taken to last in proportion to `CASE_ML` (`GIVEN_CASE_ML` where its organs are given)
    and the expected volume of its lesions, for those that wait may have more lesions than those
    that were decided about. The pace is the median; label maps drawn by hand do not count.

    Args:
        reports: How each case stands, in any order.

    Returns:
        Seconds; None as long as too few cases were decided about one after the other.
    """
    timed = [(time, one) for one in reports if (time := _time_of(one.decided_at)) is not None]
    timed.sort(key=lambda pair: pair[0])
    paces = [
        gap / _work_ml(case)
        for (earlier, _), (later, case) in pairwise(timed)
        if (gap := (later - earlier).total_seconds()) <= PAUSE_S and case.state in REVIEWED
    ][-RECENT_CASES:]
    if len(paces) < CASES_OF_A_PACE:
        return None
    return median(paces) * sum(_work_ml(one) for one in waiting(reports))


def _work_ml(report: CaseReport) -> float:
    least = GIVEN_CASE_ML if report.organs_given else CASE_ML
    return least + (report.lesion_ml or 0.0)


def _time_of(text: str) -> datetime | None:
    """Return a time of the file of decisions; None for none, and for one that cannot be read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
