"""What the command line shows while it works, and how Ctrl-C reaches the work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from aslseg.events import CancelToken, Event, Metric, Monitor, Notice, Progress, RunProgress
from aslseg.steps import run_in_words, step_title

Key = tuple[int, str]
HEARTBEAT_S = 20.0
WORTH_A_LINE_S = 1.0
STDERR = 2
STOPPING = b"\nStopping after this step; press Ctrl-C again to stop at once.\n"


@dataclass
class _Task:
    """A task that is under way."""

    name: str
    bar: TaskID
    began: float
    shown_at: float


class ProgressView:
    """Shows progress events: as bars with time left on a terminal, else as lines now and then."""

    def __init__(self, console: Console) -> None:
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", style="cyan"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._console = console
        self._tasks: dict[Key, _Task] = {}
        self._run_bar: TaskID | None = None
        self._run_step, self._run_told_at = (0, 0), float("-inf")

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, RunProgress):
            self._run(event)
        elif isinstance(event, Metric):
            self._metric(event)
        elif isinstance(event, Notice):
            self._say(f"Note: {event.message}", style="yellow")

    def _progress(self, event: Progress) -> None:
        key = (event.round, event.task)
        if key not in self._tasks:
            self._tasks[key] = self._begin(title(event))
        task = self._tasks[key]
        left = time_left(event.seconds_left)
        self.bars.update(task.bar, completed=event.step, total=event.of or None, left=left)
        if event.of and event.step >= event.of:
            self._finish(self._tasks.pop(key))
        elif not self._console.is_terminal:
            self._heartbeat(task, event, left)

    def _run(self, event: RunProgress) -> None:
        """Show how far the whole run is: above the bars, or as a line with each new step."""
        text = run_in_words(event)
        if self._run_bar is None:
            self._run_bar = self.bars.add_task(text, total=100, left="", note="")
        self.bars.update(self._run_bar, completed=round(100 * event.share), description=text)
        now, step = time.monotonic(), (event.round, event.step)
        is_due = step != self._run_step or now - self._run_told_at >= HEARTBEAT_S
        if not self._console.is_terminal and is_due:
            self._run_step, self._run_told_at = step, now
            self._say(text)

    def _begin(self, name: str) -> _Task:
        now = time.monotonic()
        bar = self.bars.add_task(name, total=None, left="", note="")
        return _Task(name, bar, now, now)

    def _heartbeat(self, task: _Task, event: Progress, left: str) -> None:
        now = time.monotonic()
        if now - task.shown_at >= HEARTBEAT_S:
            task.shown_at = now
            told = f"     {task.name}: {event.step} of {event.of}"
            self._say(f"{told}, {left}" if left else told)

    def _finish(self, task: _Task) -> None:
        self.bars.remove_task(task.bar)
        seconds = time.monotonic() - task.began
        if seconds >= WORTH_A_LINE_S:
            self._say(f"done {task.name} ({duration(seconds)})", style="green")

    def _metric(self, event: Metric) -> None:
        for (round_, _), task in self._tasks.items():
            if round_ == event.round:
                self.bars.update(task.bar, note=f"{event.name} {event.value:.3f}")

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def title(event: Progress) -> str:
    """Name the task of an event for a person."""
    name = step_title(event.task)
    name = name[:1].upper() + name[1:]
    return f"Round {event.round}: {name}" if event.round else name


def time_left(seconds: float | None) -> str:
    """Say how long it will still take."""
    return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Write a time in seconds as people do: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def watched(console: Console, stopping: bytes = STOPPING) -> Iterator[Monitor]:
    """Give a monitor that shows progress, and that Ctrl-C or a termination signal cancels.

    The first Ctrl-C asks the work to stop at the next safe place; the second stops at once.

    Args:
        console: Where progress is shown.
        stopping: Written with the first Ctrl-C.
    """
    view, token = ProgressView(console), CancelToken()
    with _signals_cancel(token, stopping), view.bars:
        yield Monitor(view, token)


@contextmanager
def _signals_cancel(token: CancelToken, stopping: bytes) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        if token.is_cancelled:
            raise KeyboardInterrupt
        token.cancel()
        os.write(STDERR, stopping)  # the console may be busy with what was interrupted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
