"""Why the engine process ended, in words with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KILLED_CODES = (-9, 137)
CRASHED_CODES = (-11, -6, -7, -4, 139, 134, 0xC0000005, 0xC0000409, -1073741819, -1073740791)


@dataclass(frozen=True)
class Failure:
    """How a request failed.

    Attributes:
        message: What happened.
        remedy: What the person can do.
        kind: For programs: `memory`, `gpu_memory`, `package`, `start`, `crash` or `ended`.
    """

    message: str
    remedy: str
    kind: str


def explain(code: int | None, stderr_tail: Sequence[str]) -> Failure:
    """Say why a child process ended before its request was answered.

    Args:
        code: Its exit code as `subprocess` gives it; None when it never started.
        stderr_tail: The last lines of its standard error.
    """
    text = "\n".join(stderr_tail)
    if code is None:
        return Failure(
            f"The engine could not be started: {_last(stderr_tail)}.",
            "Check the Python of this application, or reinstall the extension.",
            "start",
        )
    for pattern, failure in () if code in KILLED_CODES else _PATTERNS:
        found = re.search(pattern, text)
        if found is not None:
            return failure(found)
    return _by_code(code, stderr_tail)


def _gpu(_: re.Match[str]) -> Failure:
    return Failure(
        "The graphics card ran out of memory.",
        "Close programs that use it, choose a smaller SAM, or choose the CPU as device.",
        "gpu_memory",
    )


def _memory(_: re.Match[str]) -> Failure:
    return Failure(
        "The computer ran out of memory.",
        "Close other programs, crop the volume, or choose a smaller SAM and input size.",
        "memory",
    )


def _package(found: re.Match[str]) -> Failure:
    return Failure(
        f"The Python package '{found.group(1)}' is missing.",
        "Install the requirements in the panel and try again.",
        "package",
    )


def _broken_package(found: re.Match[str]) -> Failure:
    return Failure(
        f"A Python package cannot be loaded: {found.group(1).strip()}.",
        "Install the requirements again and restart the application.",
        "package",
    )


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], Failure]], ...] = (
    (r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", _gpu),
    (r"MemoryError|DefaultCPUAllocator: (?:not enough|can't allocate) memory|bad_alloc", _memory),
    (r"No module named '?([\w.]+)'?", _package),
    (
        r"(?:ImportError|OSError): (.*(?:DLL|shared object|dylib|undefined symbol).*)",
        _broken_package,
    ),
)


def _by_code(code: int, stderr_tail: Sequence[str]) -> Failure:
    if code in KILLED_CODES:
        return Failure(
            "The engine was killed by the system, probably because memory ran out.",
            "Close other programs, crop the volume, or choose a smaller SAM; then resume.",
            "memory",
        )
    if code in CRASHED_CODES:
        return Failure(
            f"The engine crashed (code {code}).",
            "Try again; if it happens again, choose the CPU as device or reinstall PyTorch.",
            "crash",
        )
    reported = f" Its last message: {_last(stderr_tail)}" if stderr_tail else ""
    return Failure(
        f"The engine ended unexpectedly (code {code}).{reported}",
        "Try again; the log says more.",
        "ended",
    )


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
