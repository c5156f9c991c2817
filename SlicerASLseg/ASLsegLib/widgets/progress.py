"""How a task of the engine stands, in words and as a bar."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from aslseg.events import Progress, RunProgress
from aslseg.steps import rough_time
from ASLsegLib.engine.client import State

STATES = {
    State.IDLE: _("Ready."),
    State.STARTING: _("Starting …"),
    State.RUNNING: _("Working …"),
    State.IMPORTING: _("Bringing the results into the scene …"),
    State.CANCELLING: _("Stopping …"),
    State.FAILED: _("The last task failed; the log under Advanced says more."),
}
_WHOLE = 1000


def show_progress(bar: Any, progress: Progress) -> None:
    """Let a progress bar show how far a task is, with the time left."""
    bar.setRange(0, progress.of)  # 0 to 0 means that nobody knows
    bar.setValue(progress.step)
    seconds = progress.seconds_left
    bar.setFormat("%p %" if seconds is None else f"%p %, {time_left(seconds)}")


def show_run_progress(bar: Any, progress: RunProgress) -> None:
    """Let a progress bar show how far a training is over all its rounds."""
    bar.setRange(0, _WHOLE)
    bar.setValue(round(progress.share * _WHOLE))
    bar.setFormat("%p %")


def run_progress_text(progress: RunProgress) -> str:
    """Return how far a training is: `Round 1 of 2, step 4 of 14, about 1 h 10 min left`."""
    text = _("Round {round} of {rounds}, step {step} of {steps}")
    if progress.seconds_left is not None:
        text = _("Round {round} of {rounds}, step {step} of {steps}, {time} left")
    return text.format(
        round=progress.round,
        rounds=progress.rounds,
        step=progress.step,
        steps=progress.steps,
        time=rough_time(progress.seconds_left or 0.0),
    )


def time_left(seconds: float) -> str:
    """Return a duration in words: `40 s left`, `12 min left`, `1 h 05 min left`."""
    if seconds < 90:
        return _("{count} s left").format(count=max(round(seconds), 0))
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{count} min left").format(count=minutes)
    return _("{hours} h {minutes:02d} min left").format(hours=minutes // 60, minutes=minutes % 60)
