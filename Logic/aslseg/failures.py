"""Errors in words with a remedy; the traceback of what nobody foresaw goes to a log."""

from __future__ import annotations

import os
import re
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from aslseg.errors import AslsegError
from aslseg.events import Event
from aslseg.storage import cache_folder

MAX_LOG_BYTES = 1_000_000
"""A log beyond this size is put aside and a new one begun; one old log is kept."""


@dataclass(frozen=True, slots=True)
class Failure(Event):
    """How work failed.

    Attributes:
        message: What happened.
        remedy: What the person can do; may be empty.
        kind: For programs: of the library's error class `image`, `project`, `config`, `weights`,
            `device`, `storage`, `run`, `request` and so on; or `memory`, `gpu_memory`, `package`,
            `internal`. The panel adds `start`, `crash`, `killed`, `ended`,
            `protocol` and `panel`.
    """

    message: str
    remedy: str
    kind: str
    event: Literal["failed"] = field(default="failed", kw_only=True)

    @property
    def in_words(self) -> str:
        """Message and remedy."""
        return f"{self.message} {self.remedy}".strip()


OUT_OF_MEMORY = Failure(
    "The computer ran out of memory.",
    "Close other programs, crop the volume, or choose a smaller SAM and input size.",
    "memory",
)
OUT_OF_GPU_MEMORY = Failure(
    "The graphics card ran out of memory.",
    "Close programs that use it, choose a smaller SAM, or the CPU as device.",
    "gpu_memory",
)


class UnforeseenError(AslsegError):
    """An error that nobody foresaw, in a sentence with the place of the log."""


class FailedError(AslsegError):
    """Work that another process did has failed.

    Attributes:
        failure: As that process put it.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.in_words)
        self.failure = failure


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


def failure_of(error: BaseException, doing: str = "a request") -> Failure:
    """Return an error in words; the traceback of what nobody foresaw goes to the log.

    Args:
        error: What was raised.
        doing: What was under way, for the log.
    """
    if isinstance(error, FailedError):
        return error.failure
    known = _memory(error) or _package(error)
    if known is not None:
        return known
    if isinstance(error, AslsegError):
        message, remedy = in_two(str(error))
        return Failure(message, remedy, _kind_of(error))
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        message = f"A file cannot be read or written ({name}{error.strerror})."
        return Failure(message, "Check that it is there and that you may use it.", "storage")
    return Failure(*unforeseen(error, doing), "internal")


def in_two(text: str) -> tuple[str, str]:
    """Part a message of the library into what happened and what to do; the latter may be empty."""
    head, mark, tail = text.rpartition("; ")
    if not mark:
        head, mark, tail = text.partition(". ")
    if not mark or not tail.strip():
        return text, ""
    return head.rstrip(".") + ".", tail[:1].upper() + tail[1:]


def package_missing(name: str) -> Failure:
    """Return the failure of work that needs a Python package which is not there."""
    remedy = "Install the requirements in the panel and try again."
    return Failure(f"The Python package '{name}' is missing.", remedy, "package")


def _kind_of(error: AslsegError) -> str:
    name = type(error).__name__
    return "image" if "Geometry" in name else name.removesuffix("Error").lower()


def _memory(error: BaseException) -> Failure | None:
    text = str(error)
    on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA" in text or "MPS backend" in text
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OUT_OF_GPU_MEMORY if on_gpu else OUT_OF_MEMORY
    return None


def _package(error: BaseException) -> Failure | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return package_missing(error.name)
    if isinstance(error, ImportError):
        source = f" ({Path(error.path).name})" if error.path else ""
        remedy = "Install the requirements again and restart the application."
        return Failure(f"A package cannot be loaded{source}: {error}.", remedy, "package")
    return None
