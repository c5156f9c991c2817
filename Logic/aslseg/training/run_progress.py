"""How far a run is over all its rounds, and the time left: its plan compared with its events."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from aslseg.events import Event, Progress, RunProgress
from aslseg.training.run_plan import PlannedStep, estimate_of

_ENOUGH_S, _ENOUGH_SHARE = 30.0, 0.1
"""The time left is told when so much was done, in planned seconds or as a part of the run: the
first units take longer, and much longer while other programs keep the processor busy."""
_FEW_UNITS = 3
"""So many units of one kind tell how long others of that kind take."""


class RunFollower:
    """Listens to a run's events, passes them on, and follows each progress by a `RunProgress`.

    The time left is that of the steps to come: units times the seconds that a unit of their kind
    has taken here, or the planned seconds times the ratio of measured to planned ones so far. What
    comes before the first unit of a step (images are prepared, slices encoded) is measured by kind
    too. The share never falls.

    Args:
        steps: In their order; see `planned_steps`.
        listener: Gets all events.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        steps: Sequence[PlannedStep],
        listener: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._listener, self._clock = steps, listener, clock
        self._at = -1
        self._done_units = self._begun_units = 0
        self._of = 0
        self._share = 0.0
        self._began = self._free_since = clock()
        self._measured: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        self._before: dict[str, list[float]] = defaultdict(list)
        self._planned_s = self._taken_s = 0.0

    def __call__(self, event: Event) -> None:
        """Take note of an event and pass it on."""
        self._listener(event)
        if isinstance(event, Progress) and self._steps:
            self._take(event)
            self._listener(self._progress())

    def _take(self, event: Progress) -> None:
        now = self._clock()
        if not self._continues(event):
            following = self._find(event)
            if following is None:
                return  # it belongs to the step that follows
            self._end_step(now)
            self._begin_step(following, event, now)
        self._done_units, self._of = event.step, max(event.of, event.step)
        if self._of and self._done_units >= self._of:
            self._free_since = now

    def _continues(self, event: Progress) -> bool:
        if self._at < 0:
            return False
        step = self._steps[self._at]
        same = (step.round, step.task) == (event.round, event.task)
        return same and event.step >= self._done_units and event.of == self._of

    def _find(self, event: Progress) -> int | None:
        wanted = (event.round, event.task)
        later = range(self._at + 1, len(self._steps))
        return next(
            (n for n in later if (self._steps[n].round, self._steps[n].task) == wanted), None
        )

    def _begin_step(self, at: int, event: Progress, now: float) -> None:
        self._before[self._steps[at].kind].append(now - self._free_since)
        self._at, self._began, self._begun_units = at, now, event.step

    def _end_step(self, now: float) -> None:
        """Keep what the step has taken."""
        if self._at < 0 or self._done_units <= self._begun_units:
            return
        step, units = self._steps[self._at], self._done_units - self._begun_units
        seconds = self._free_since - self._began if self._is_over else now - self._began
        known, count = self._measured[step.kind]
        self._measured[step.kind] = known + seconds, count + units
        self._planned_s += units * step.unit_s
        self._taken_s += seconds

    @property
    def _is_over(self) -> bool:
        return bool(self._of) and self._done_units >= self._of

    def _unit_s(self, step: PlannedStep, now: float) -> float:
        """Return the seconds that a unit of a step takes, as far as is known now."""
        seconds, units = self._measured[step.kind]
        planned, taken = self._planned_s, self._taken_s
        if self._at >= 0:
            current = self._steps[self._at]
            here = self._done_units - self._begun_units
            spent = (self._free_since if self._is_over else now) - self._began
            if here:
                planned, taken = planned + here * current.unit_s, taken + spent
            if here and current.kind == step.kind:
                seconds, units = seconds + spent, units + here
        if units and units >= min(_FEW_UNITS, step.units):
            return seconds / units
        return step.unit_s * (taken / planned if planned else 1.0)

    def _step_s(self, step: PlannedStep, now: float, units: int) -> float:
        before, ratio = self._before[step.kind], 1.0
        if step.unit_s:
            ratio = self._unit_s(step, now) / step.unit_s
        before_s = sum(before) / len(before) if before else step.before_s * ratio
        return units * self._unit_s(step, now) + before_s

    def _progress(self) -> RunProgress:
        now, at = self._clock(), max(self._at, 0)
        step = self._steps[at]
        of = self._of or step.units
        done = sum(self._step_s(one, now, one.units) for one in self._steps[:at])
        done += self._done_units * self._unit_s(step, now)
        left = max(of - self._done_units, 0) * self._unit_s(step, now)
        left += sum(self._step_s(one, now, one.units) for one in self._steps[at + 1 :])
        self._share = max(self._share, done / (done + left) if done + left else 0.0)
        number = at + 1 if not self._is_over else min(at + 2, len(self._steps))
        measured = self._planned_s + (self._done_units - self._begun_units) * step.unit_s
        enough = min(_ENOUGH_S, _ENOUGH_SHARE * estimate_of(self._steps).seconds)
        return RunProgress(
            round=self._steps[number - 1].round,
            rounds=self._steps[-1].round,
            step=number,
            steps=len(self._steps),
            share=self._share,
            seconds_left=left if measured >= enough > 0 else None,
        )
