"""How long the review still takes, from the times at which a person decided about cases."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from statistics import median

from aslseg.project.review import CaseReport

PAUSE_S = 3600.0
"""Who decides nothing for longer did something else in between."""
CASES_OF_A_PACE = 3
"""Fewer cases say nothing of how long the others take (ours)."""
RECENT_CASES = 20
"""A person becomes faster, and so do cases from round to round: earlier ones do not count."""


def seconds_a_case(reports: Iterable[CaseReport]) -> float | None:
    """Return how long a case takes a person: the median time between decisions about cases, (ours).

    Args:
        reports: How each case stands, in any order.

    Returns:
        Seconds; None as long as too few cases were decided about one after the other.
    """
    times = sorted(time for one in reports if (time := _time_of(one.decided_at)) is not None)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    working = [gap for gap in gaps if gap <= PAUSE_S][-RECENT_CASES:]
    return median(working) if len(working) >= CASES_OF_A_PACE else None


def _time_of(text: str) -> datetime | None:
    """Return a time of the file of decisions; None for none, and for one that cannot be read."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None
