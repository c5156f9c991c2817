"""Numbers of slices: as a person writes and reads them (4, 8, 12-15), and those between."""

from __future__ import annotations

from collections.abc import Collection

from aslseg.errors import ConfigError

_MOST_DIGITS = 5
_LEAST_RANGE = 3
"""Fewer slices that follow each other are written one by one."""


def read_slices(text: str) -> list[int]:
    """Return the numbers that a text such as `4, 8, 12-15` names.

    Raises:
        ConfigError: When it is written differently.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        ends = (first, last) if dash else (first, first)
        is_written = all(end.isdecimal() and len(end) <= _MOST_DIGITS for end in ends)
        if not is_written or int(ends[0]) > int(ends[1]):
            msg = (
                f"'{text}' are no slices; write numbers and ranges such as 4,8,12-15, the lower "
                "number first."
            )
            raise ConfigError(msg)
        found += range(int(ends[0]), int(ends[1]) + 1)
    return found


def write_slices(slices: Collection[int]) -> str:
    """Return the text that `read_slices` reads: ascending, `4, 8, 12-15`."""
    runs: list[list[int]] = []
    for k in sorted({*slices}):
        if runs and runs[-1][-1] == k - 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]}-{run[-1]}"] if len(run) >= _LEAST_RANGE else map(str, run)
    return ", ".join(words)


def slices_between(slices: Collection[int]) -> list[int]:
    """Return the slices between the first and the last of some, but for these, ascending."""
    return sorted({*range(min(slices), max(slices))} - {*slices}) if slices else []
