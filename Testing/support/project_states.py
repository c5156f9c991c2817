"""A project as it is on disk whenever a process that changes it could be killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from faults.hooks import Call, on_calls


def states_between(folder: Path, change: Callable[[], object]) -> list[Path]:
    """Copy a folder before everything that a change does to it, and when it is done.

    Args:
        folder: Of a project; the copies come to lie beside it.
        change: What changes it.
    """
    copies: list[Path] = []
    is_at_work = True

    def copy(_: Call | None = None) -> None:
        if is_at_work:
            copies.append(folder.with_name(f"{folder.name}-{len(copies)}"))
            shutil.copytree(folder, copies[-1])

    on_calls(folder, copy)
    change()
    copy()
    is_at_work = False
    return copies
