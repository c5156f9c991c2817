"""What a person reads of a run's steps; in events and files they have names of their own."""

from __future__ import annotations

import re

from aslseg.events import RunProgress

_TITLES = (
    (r"cross-fitted-(\d+)-(.+)", r"checking network \1: \2"),
    (r"cross-fitted-alone-(\d+)-(.+)", r"checking network \1 without SAM: \2"),
    (r"specialist-(.+)-network-(\d+)", r"specialist network \2: \1"),
    (r"specialist-(.+)-second-pass", r"specialist network, second pass: \1"),
    (r"specialist-(.+)", r"specialist network: \1"),
    (r"supervised-(.+)-network-(\d+)", r"specialist network \2 on your labels alone: \1"),
    (r"supervised-(.+)-second-pass", r"specialist network, second pass on your labels alone: \1"),
    (r"supervised-(.+)", r"specialist network on your labels alone: \1"),
    (r"adaptation-(.+)", r"network that joins specialist and SAM: \1"),
    (r"sam-(.+)", r"tuning SAM: \1"),
    (r"sam", "tuning SAM"),
)


def step_title(task: str) -> str:
    """Return what the step of a run is called for a person.

    Args:
        task: As events name it, such as `cross-fitted-1-tumour`.
    """
    for pattern, title in _TITLES:
        found = re.fullmatch(pattern, task)
        if found:
            return found.expand(title)
    return task


def run_in_words(progress: RunProgress) -> str:
    """Say how far a run is: `Round 1 of 2, step 4 of 14, about 1 h 10 min left`."""
    text = f"Round {progress.round} of {progress.rounds}, step {progress.step} of {progress.steps}"
    if progress.seconds_left is None:
        return text
    return f"{text}, {rough_time(progress.seconds_left)} left"


def rough_time(seconds: float) -> str:
    """Write an estimate as people do: `less than a minute`, `about 12 min`, `about 1 h 10 min`."""
    if seconds < 60:
        return "less than a minute"
    minutes = round(seconds / 60)
    if minutes >= 60:
        minutes = 5 * round(minutes / 5)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"about {rest} min"
    return f"about {hours} h {rest:02d} min" if rest else f"about {hours} h"
