"""How long the review still takes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from aslseg.project.review import CaseReport
from aslseg.project.review_pace import seconds_a_case

BEGIN = datetime(2026, 11, 20, 9, 0, tzinfo=timezone.utc)


def decided(*minutes: float) -> list[CaseReport]:
    """Return cases that were decided about so many minutes after the begin, and one that waits."""
    times = [(BEGIN + timedelta(minutes=one)).isoformat() for one in minutes]
    cases = [CaseReport(f"c{n}", "train", "accepted", decided_at=t) for n, t in enumerate(times)]
    return [CaseReport("waits", "train", "needs review"), *cases]


def test_the_pace_is_the_median_time_between_decisions_in_any_order() -> None:
    assert seconds_a_case(decided(9, 0, 2, 5)) == pytest.approx(3 * 60)


def test_a_night_is_no_case() -> None:
    assert seconds_a_case(decided(0, 2, 4, 14 * 60, 14 * 60 + 2)) == pytest.approx(2 * 60)


def test_only_the_last_twenty_count() -> None:
    slow = [30.0 * n for n in range(30)]
    fast = [slow[-1] + 1 + n for n in range(20)]
    assert seconds_a_case(decided(*slow, *fast)) == pytest.approx(60)


@pytest.mark.parametrize("damaged", ["", "yesterday", "2026-11-20T09:00:00"])
def test_a_time_that_cannot_be_read_does_not_count(damaged: str) -> None:
    odd = CaseReport("odd", "train", "accepted", decided_at=damaged)
    assert seconds_a_case([odd, *decided(0, 2, 5, 9)]) == pytest.approx(3 * 60)


@pytest.mark.parametrize("minutes", [(), (0,), (0, 2, 4), (0, 2, 4, 14 * 60)])
def test_too_few_cases_are_no_pace(minutes: tuple[float, ...]) -> None:
    assert seconds_a_case(decided(*minutes)) is None
