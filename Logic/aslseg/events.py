"""Events of a long task, and the request to stop it.

Events go up as plain frozen values; the request to stop goes down as a `CancelToken`. A `Monitor`
carries both through the library, so that no function depends on its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, field
from threading import Event as Flag
from typing import Any, ClassVar, Literal, TypeVar

from aslseg.errors import CancelledError

T = TypeVar("T")
_ENOUGH_ITEMS, _ENOUGH_SHARE = 10, 0.1
"""The time left is told when so many items are done, or such a part of all: the first ones take
longer, and much longer while other programs keep the processor busy."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events of a task.

    Attributes:
        event: Its kind, a word.
    """

    # Read by pydantic, when an event comes over the engine's protocol.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    event: str = field(kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a dictionary."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Progress of a task.

    Attributes:
        task: Its name, for a person.
        step: Steps done.
        of: Steps in all.
        seconds_left: Estimate for this task, or None as long as there is none.
        round: Self-training round, counted from 1; 0 outside of rounds.
    """

    task: str
    step: int
    of: int
    seconds_left: float | None = None
    round: int = 0
    event: Literal["progress"] = field(default="progress", kw_only=True)


@dataclass(frozen=True, slots=True)
class RunProgress(Event):
    """Progress of a training over all its rounds.

    Attributes:
        round: That is under way, from 1.
        rounds: In all.
        step: That is under way, from 1, over all rounds.
        steps: In all.
        share: Of the whole time, from 0 to 1; it never falls within a process.
        seconds_left: Estimate for the whole run; None before enough was measured.
    """

    round: int
    rounds: int
    step: int
    steps: int
    share: float
    seconds_left: float | None = None
    event: Literal["run_progress"] = field(default="run_progress", kw_only=True)


@dataclass(frozen=True, slots=True)
class Metric(Event):
    """One point of a curve.

    Attributes:
        name: What was measured, such as `loss`.
        value: Its value.
        step: Of the task; the round where a round is measured as a whole.
        task: The training that it was measured in, as `Progress` names it.
        source: The prediction that it is about: `specialist`, `sam` or `refined`.
        case: The case that it is about.
        round: As of `Progress`.
    """

    name: str
    value: float
    step: int
    task: str = ""
    source: str = ""
    case: str = ""
    round: int = 0
    event: Literal["metric"] = field(default="metric", kw_only=True)


@dataclass(frozen=True, slots=True)
class Artifact(Event):
    """A file that a person may want was written."""

    kind: str
    path: str
    case: str = ""
    round: int = 0
    event: Literal["artifact"] = field(default="artifact", kw_only=True)


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something a person should know that does not stop the work."""

    message: str
    event: Literal["warning"] = field(default="warning", kw_only=True)


@dataclass(frozen=True, slots=True)
class SliceMask(Event):
    """The section of a growing lesion on a slice; a later one of the same slice replaces it.

    Attributes:
        slice_index: Which slice, in the file's own numbers.
        target: Of the lesion.
        first: Row and column of the mask's first pixel, in the file's own pixels.
        shape: Rows and columns of the mask; 0 and 0 where nothing is left.
        bits: Its pixels row by row, eight a byte, the first one highest; in Base64.
    """

    slice_index: int
    target: str
    first: tuple[int, int]
    shape: tuple[int, int]
    bits: str
    event: Literal["slice_mask"] = field(default="slice_mask", kw_only=True)


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The work was stopped on request; the message says what is kept."""

    message: str
    event: Literal["cancelled"] = field(default="cancelled", kw_only=True)


class CancelToken:
    """A request to stop that any thread may make and the working one obeys."""

    def __init__(self) -> None:
        self._flag = Flag()

    def cancel(self) -> None:
        """Ask for the stop."""
        self._flag.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the stop was asked for."""
        return self._flag.is_set()


def _ignore(_: Event) -> None:
    return None


@dataclass
class Monitor:
    """Connects a task with its caller.

    Attributes:
        listener: Called with every event, in the thread of the task.
        token: Looked at between steps.
        round: Number that is stamped on events.
        interval_s: Least time between two progress events of a task.
        detailed: Whether progress within a step is reported too, as for a single volume.
        may_download: Whether SAM's weights are downloaded where they are not here; not for users
            who ask for each download, as the panel's do.
    """

    listener: Callable[[Event], None] = _ignore
    token: CancelToken = field(default_factory=CancelToken)
    round: int = 0
    interval_s: float = 0.2
    detailed: bool = False
    may_download: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make it in another process, where it is silent and nobody stops it."""
        return _silent, (self.round,)

    def check(self) -> None:
        """Stop here if that was asked for.

        Raises:
            CancelledError: When the token is cancelled.
        """
        if self.token.is_cancelled:
            msg = "Stopped on request; finished steps are kept and the run can be resumed."
            raise CancelledError(msg)

    def metric(
        self,
        name: str,
        value: float,
        step: int,
        *,
        task: str = "",
        source: str = "",
        case: str = "",
    ) -> None:
        """Report one point of a curve; see `Metric`."""
        self.listener(Metric(name, float(value), step, task, source, case, self.round))

    def artifact(self, kind: str, path: object, case: str = "") -> None:
        """Report a written file."""
        self.listener(Artifact(kind, str(path), case, self.round))

    def warn(self, message: str) -> None:
        """Report something worth knowing."""
        self.listener(Notice(message))

    def without_events(self) -> Monitor:
        """Return one for a part of the task, which reports nothing and obeys the same token."""
        return Monitor(token=self.token, may_download=self.may_download)

    def details(self, items: Sequence[T], task: str) -> Iterator[T]:
        """Yield the items as `track` does, but report progress only if `detailed`."""
        monitor = self if self.detailed else self.without_events()
        return monitor.track(items, task)

    def track(
        self, items: Iterable[T], task: str, total: int | None = None, start: int = 0
    ) -> Iterator[T]:
        """Yield the items, reporting progress with time left and obeying the cancel token.

        Args:
            items: What to go through.
            task: Its name, for a person.
            total: Number of steps in all; the length of `items` when not given.
            start: Steps that were done before, when resuming.

        Raises:
            CancelledError: Between two items, when asked to stop.
        """
        of = total if total is not None else len(items) if isinstance(items, Sized) else 0
        began, reported_at = time.monotonic(), float("-inf")
        done = start
        self.listener(Progress(task, done, of, None, self.round))
        for item in items:
            self.check()
            yield item
            done += 1
            now = time.monotonic()
            if now - reported_at >= self.interval_s or done == of:
                reported_at = now
                left = _seconds_left(now - began, done - start, of - start)
                self.listener(Progress(task, done, of, left, self.round))
        self.check()


def _seconds_left(spent_s: float, done: int, of: int) -> float | None:
    """Return how long the rest of a task takes; None before enough of it was done to tell."""
    if of <= 0 or done < min(_ENOUGH_ITEMS, _ENOUGH_SHARE * of):
        return None
    return spent_s / done * max(of - done, 0)


def _silent(round_number: int) -> Monitor:
    return Monitor(round=round_number)
