"""How long the review still takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from aslseg.project.case_reports import CaseReport
from aslseg.project.review_pace import CASE_ML, GIVEN_CASE_ML, seconds_left

BEGIN = datetime(2026, 11, 20, 9, 0, tzinfo=timezone.utc)
WAITS = CaseReport("waits", "train", "needs review")


def decided(*minutes: float) -> list[CaseReport]:
    """Return cases that were decided about so many minutes after the begin."""
    times = [(BEGIN + timedelta(minutes=one)).isoformat() for one in minutes]
    return [CaseReport(f"c{n}", "train", "accepted", decided_at=t) for n, t in enumerate(times)]


def test_cases_that_are_alike_take_the_median_time_between_decisions_in_any_order() -> None:
    assert seconds_left([WAITS, *decided(9, 0, 2, 5)]) == pytest.approx(3 * 60)
    assert seconds_left([WAITS, WAITS, *decided(9, 0, 2, 5)]) == pytest.approx(2 * 3 * 60)


def test_a_case_with_more_lesions_takes_longer() -> None:
    done = [replace(one, lesion_ml=CASE_ML) for one in decided(0, 4, 8, 12)]  # twice a case without
    without, more = replace(WAITS, lesion_ml=0.0), replace(WAITS, lesion_ml=4 * CASE_ML)
    assert seconds_left([*done, without]) == pytest.approx(2 * 60)
    assert seconds_left([*done, without, more]) == pytest.approx((2 + 10) * 60)


def test_where_organs_are_given_lesions_alone_take_time() -> None:
    done = [replace(one, organs_given=True, lesion_ml=0.0) for one in decided(0, 1, 2, 3)]
    given = replace(WAITS, organs_given=True, lesion_ml=9 * GIVEN_CASE_ML)
    assert seconds_left([*done, given]) == pytest.approx(10 * 60)
    alike = replace(WAITS, lesion_ml=0.0)  # of this one the organ is repaired too
    assert seconds_left([*done, alike]) == pytest.approx(60 * CASE_ML / GIVEN_CASE_ML)


def test_nothing_is_left_when_no_case_waits() -> None:
    assert seconds_left(decided(0, 2, 5, 9)) == 0


def test_a_night_is_no_case() -> None:
    times = (0, 2, 4, 14 * 60, 14 * 60 + 2)
    assert seconds_left([WAITS, *decided(*times)]) == pytest.approx(2 * 60)


def test_only_the_last_twenty_count() -> None:
    slow = [30.0 * n for n in range(30)]
    fast = [slow[-1] + 1 + n for n in range(20)]
    assert seconds_left([WAITS, *decided(*slow, *fast)]) == pytest.approx(60)


def test_a_label_map_that_is_drawn_is_no_review_and_its_time_is_not_of_the_next_case() -> None:
    drawn, *done = decided(0, 40, 42, 44, 46)
    first = replace(done[0], state="labelled")
    assert seconds_left([WAITS, replace(drawn, state="labelled"), first, *done[1:]]) == 2 * 60


@pytest.mark.parametrize("damaged", ["", "yesterday", "2026-11-20T09:00:00"])
def test_a_time_that_cannot_be_read_does_not_count(damaged: str) -> None:
    odd = CaseReport("odd", "train", "accepted", decided_at=damaged)
    assert seconds_left([WAITS, odd, *decided(0, 2, 5, 9)]) == pytest.approx(3 * 60)


@pytest.mark.parametrize("minutes", [(), (0,), (0, 2, 4), (0, 2, 4, 14 * 60)])
def test_too_few_cases_are_no_pace(minutes: tuple[float, ...]) -> None:
    assert seconds_left([WAITS, *decided(*minutes)]) is None
