"""Faults that are laid into a child: killed at a call of the file system, or told that it fails.

They hang on Python's audit events, which come before a call that opens, renames, removes or makes
something, and which may stop it. What C libraries do by themselves is not seen: the full disk that
they meet is a real one (`test_disk.py`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

_CHANGING = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.rmdir": "rmdir"}

Call = tuple[str, str]
"""What is done (create, open, rename, remove, mkdir, rmdir), and the path in the folder."""


def on_calls(folder: Path, act: Callable[[Call], None]) -> None:
    """Call a function before everything that changes a folder; there is no taking back.

    Args:
        folder: What lies elsewhere does not count.
        act: Whatever it raises, the call raises.
    """
    root = os.path.realpath(folder) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        call = _call_of(event, arguments)
        if call is not None:
            path = os.path.abspath(os.fsdecode(call[1]))  # noqa: PTH100  (follows no link)
            if path.startswith(root):
                act((call[0], path[len(root) :]))

    sys.addaudithook(hook)


def _call_of(event: str, arguments: tuple[Any, ...]) -> tuple[str, Any] | None:
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, (str, bytes, os.PathLike)) or not flags & (os.O_WRONLY | os.O_RDWR):
            return None
        return "create" if flags & os.O_CREAT else "open", path
    if event in _CHANGING:
        path = arguments[1] if event == "os.rename" else arguments[0]
        return (_CHANGING[event], path) if isinstance(path, (str, bytes, os.PathLike)) else None
    return None


def list_calls(folder: Path, file: Path) -> None:
    """Write every call that changes a folder to a file beside it, a line each."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    on_calls(folder, lambda call: os.write(descriptor, f"{call[0]} {call[1]}\n".encode()) and None)


def kill_at_call(folder: Path, number: int) -> None:
    """Kill this process before the call of that number (from 1) that changes a folder."""
    seen = 0

    def act(_: Call) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    on_calls(folder, act)


def kill_at_rename(folder: Path, pattern: str, after: bool) -> None:
    """Kill this process before something is renamed to a path, or before the call after that."""
    is_next = False

    def act(call: Call) -> None:
        nonlocal is_next
        due = call[0] == "rename" and fnmatch(call[1], pattern)
        if is_next or (due and not after):
            os.kill(os.getpid(), signal.SIGKILL)
        is_next = is_next or due

    on_calls(folder, act)


def fail_from_call(folder: Path, number: int, error: int, once: bool = False) -> None:
    """Let every call from that number on fail that would need space in a folder.

    Args:
        folder: The disk.
        number: From 1; removing, renaming and what is there already need no space.
        error: As of `errno`.
        once: Only that call fails.
    """
    seen = 0

    def act(call: Call) -> None:
        nonlocal seen
        if call[0] not in ("create", "mkdir"):
            return
        seen += 1
        if seen == number or (seen > number and not once):
            raise OSError(error, os.strerror(error), call[1])

    on_calls(folder, act)


def use_small_sam() -> None:
    """Let a small SAM with fixed weights stand for the released ones."""
    from support.whole_runs import use_small_sam

    use_small_sam(pytest.MonkeyPatch())


def save_often(steps: int = 3) -> None:
    """Let a training write its state every few steps, so that there is one to resume from."""
    _replace("aslseg.training.trainer.SAVE_EVERY", steps)


def without_report() -> None:
    """Leave the report with its drawings out, which takes as long as the run."""
    _replace("aslseg.report.report.write_report", lambda run: Path(run) / "report.html")


def _replace(name: str, value: object) -> None:
    """Put a value in the place of one that a module has, for as long as this child lives."""
    pytest.MonkeyPatch().setattr(name, value)


def wait_for(path: Path) -> None:
    """Wait until a file is there, so that several children begin at once."""
    limit = time.monotonic() + 60.0
    while not path.exists():
        if time.monotonic() > limit:
            raise TimeoutError(path)
        time.sleep(0.001)


def turn_clock_back(seconds: float, after: int) -> None:
    """Let the clock go backwards by so much after it was read so many times.

    Args:
        seconds: How far; 0 with `after` = 0 is no change.
        after: Readings that still tell the time as it is.
    """
    real, readings = time.time, 0

    def now() -> float:
        nonlocal readings
        readings += 1
        return real() - (seconds if readings > after else 0.0)

    _use_clock(now)


def stop_clock() -> None:
    """Let every reading of the clock give the same time, as coarse clocks do for milliseconds."""
    at = time.time()
    _use_clock(lambda: at)


def _use_clock(now: Callable[[], float]) -> None:
    class Turned(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.fromtimestamp(now(), tz)

    time.time = now
    for name, module in list(sys.modules.items()):
        if name.startswith("aslseg") and getattr(module, "datetime", None) is datetime:
            module.datetime = Turned  # type: ignore[attr-defined]
