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
    times = sorted(datetime.fromisoformat(one.decided_at) for one in reports if one.decided_at)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    working = [gap for gap in gaps if gap <= PAUSE_S][-RECENT_CASES:]
    return median(working) if len(working) >= CASES_OF_A_PACE else None
