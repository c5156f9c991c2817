"""A task says how far it is, and how long it still takes when enough of it was done to tell."""

from __future__ import annotations

import pytest

from aslseg import events
from aslseg.events import Event, Monitor, Progress


def told_by(monkeypatch: pytest.MonkeyPatch, seconds: list[float], total: int) -> list[object]:
    """Return the times left that a task tells whose items take so long."""
    now, told = [0.0], list[object]()

    def keep(event: Event) -> None:
        if isinstance(event, Progress):
            told.append(event.seconds_left)

    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    for item in Monitor(listener=keep, interval_s=0.0).track(seconds, "a task", total):
        now[0] += item
    return told


def test_few_items_of_many_tell_nothing_of_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = told_by(monkeypatch, [60.0] + [0.4] * 899, 900)
    assert told[:10] == [None] * 10
    assert told[10] == pytest.approx((60.0 + 9 * 0.4) / 10 * 890)
    assert told[-1] == 0.0


@pytest.mark.parametrize(("total", "first"), [(2, 1), (30, 3)])
def test_a_tenth_of_the_items_is_enough(
    monkeypatch: pytest.MonkeyPatch, total: int, first: int
) -> None:
    told = told_by(monkeypatch, [5.0] * total, total)
    assert told[:first] == [None] * first
    assert told[first] == pytest.approx(5.0 * (total - first))


def test_a_task_of_unknown_length_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_by(monkeypatch, [5.0] * 3, 0) == [None] * 4
