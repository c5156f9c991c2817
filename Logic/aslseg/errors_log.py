"""The log of errors that nobody foresaw: a person reads one sentence, the traceback goes here."""

from __future__ import annotations

import os
import traceback
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.storage import cache_folder

MAX_LOG_BYTES = 1_000_000
"""A log beyond this size is put aside and a new one begun; one old log is kept."""


class UnforeseenError(AslsegError):
    """An error that nobody foresaw, in a sentence with the place of the log."""


def log_path() -> Path:
    """Return the file that unforeseen errors are written to."""
    return cache_folder() / "logs" / "errors.log"


def record(error: BaseException, doing: str) -> Path | None:
    """Append the traceback of an error to the log.

    Args:
        error: What was raised.
        doing: What was under way, such as `segment`.

    Returns:
        The log, or None when it cannot be written.
    """
    path = log_path()
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    text = f"{now} process {os.getpid()}: {doing}\n{trace}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_aside(path)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return path


def unforeseen(error: BaseException, doing: str) -> tuple[str, str]:
    """Record an error, and return what happened and what to do, a sentence each."""
    path = record(error, doing)
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    what = what if len(what) <= 300 else f"{what[:300]} …"
    message = f"Something went wrong that was not foreseen ({what})."
    if path is None:
        return message, "Please report this; trying again may help."
    return message, f"Please report this with the log {path}; trying again may help."


def as_known(error: Exception, doing: str) -> AslsegError:
    """Return an error that can be shown to a person: itself, or a sentence about it."""
    if isinstance(error, AslsegError):
        return error
    known = UnforeseenError(" ".join(unforeseen(error, doing)))
    known.__cause__ = error
    return known


def _put_aside(path: Path) -> None:
    with suppress(OSError):  # another process does the same, or reads it
        if path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))
