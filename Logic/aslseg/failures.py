"""The log of errors that nobody foresaw: a person reads one sentence, the traceback goes here."""

from __future__ import annotations

import os
import re
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
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
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


_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|bad_alloc")


def failure_of(error: BaseException, doing: str = "a request") -> dict[str, str]:
    """Return message, remedy and kind of an error; what nobody foresaw goes to the log.

    The kind is that of the library's error class (`image`, `project`, `config`, `weights`,
    `device`, `storage`, `run`, `request`), or `memory`, `gpu_memory`, `package`, `internal`.

    Args:
        error: What was raised.
        doing: What was under way, for the log.
    """
    known = _memory(error) or _package(error)
    if known is not None:
        return known
    if isinstance(error, AslsegError):
        message, remedy = in_two(str(error))
        return {"message": message, "remedy": remedy, "kind": _kind_of(error)}
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        message = f"A file cannot be read or written ({name}{error.strerror})."
        return _failure(message, "Check that it is there and that you may use it.", "storage")
    return _failure(*unforeseen(error, doing), "internal")


def in_two(text: str) -> tuple[str, str]:
    """Part a message of the library into what happened and what to do; the latter may be empty."""
    head, mark, tail = text.rpartition("; ")
    if not mark:
        head, mark, tail = text.partition(". ")
    if not mark or not tail.strip():
        return text, ""
    return head.rstrip(".") + ".", tail[:1].upper() + tail[1:]


def _failure(message: str, remedy: str, kind: str) -> dict[str, str]:
    return {"message": message, "remedy": remedy, "kind": kind}


def _kind_of(error: AslsegError) -> str:
    name = type(error).__name__
    return "image" if "Geometry" in name else name.removesuffix("Error").lower()


def _memory(error: BaseException) -> dict[str, str] | None:
    text = str(error)
    on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA" in text or "MPS backend" in text
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        if on_gpu:
            remedy = "Close programs that use it, choose a smaller SAM, or the CPU as device."
            return _failure("The graphics card ran out of memory.", remedy, "gpu_memory")
        remedy = "Close other programs, crop the volume, or choose a smaller SAM and input size."
        return _failure("The computer ran out of memory.", remedy, "memory")
    return None


def _package(error: BaseException) -> dict[str, str] | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        remedy = "Install the requirements in the panel and try again."
        return _failure(f"The Python package '{error.name}' is missing.", remedy, "package")
    if isinstance(error, ImportError):
        source = f" ({Path(error.path).name})" if error.path else ""
        remedy = "Install the requirements again and restart the application."
        return _failure(f"A package cannot be loaded{source}: {error}.", remedy, "package")
    return None
