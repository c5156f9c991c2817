"""The lines of a file of decisions about lesions: those of one command count all or none.

Each line but the last of a command says how many follow (`more`). Where they are not there, the
process was killed while it wrote them, and none of them counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aslseg.errors import ProjectError
from aslseg.reading import read_lines

MORE = "more"
"""Key of a line: how many lines of the same command follow; it is not there for none."""
REMEDY = "restore it from a copy, or empty the damaged line"


def read_lesion_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Read the lines of all commands that were written whole.

    Yields:
        Number of the line from 1, and its object; None for a line that holds none.

    Raises:
        ProjectError: When the file is too large, cannot be read, or lacks lines within.
    """
    waiting: list[tuple[int, dict[str, Any] | None]] = []
    due = 0
    for number, values in read_lines(path, ProjectError, REMEDY):
        more = 0 if values is None else values.get(MORE, 0)
        if due and more != due - 1:
            msg = (
                f"{path} is damaged in line {number} (lines of one command are missing); {REMEDY}."
            )
            raise ProjectError(msg)
        waiting.append((number, values))
        due = more if isinstance(more, int) else 0
        if not due:
            yield from waiting
            waiting.clear()


def count_lesion_lines(path: Path) -> int:
    """Return the number of the last line that counts; 0 without any.

    Raises:
        ProjectError: As `read_lesion_lines`.
    """
    return max((number for number, _ in read_lesion_lines(path)), default=0)
