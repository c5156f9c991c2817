"""Errors in words for the person in front of the panel: what happened, and what to do."""

from __future__ import annotations

import re
from pathlib import Path

from aslseg.errors import AslsegError
from aslseg.errors_log import unforeseen

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
        place = f"{error.filename}: " if error.filename else ""
        message = f"A file cannot be read or written ({place}{error.strerror})."
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
