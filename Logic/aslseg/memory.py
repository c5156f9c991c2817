"""What glibc does with memory that was freed: keep it, or hand it back to the system."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable

logger = logging.getLogger(__name__)

# Names from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _TOP_PAD_BYTES = -1, 256 << 20


def tune_allocator() -> bool:
    """Let glibc keep freed memory instead of handing it back to the system after every tensor.

    Without this, each large tensor costs a page fault per 4 KiB, which can double the time of
    training on the CPU. The price is that the process keeps its peak of memory, until
    `give_back_memory`.

    Returns:
        Whether it was done; there is nothing to do on systems without glibc.
    """
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER, _M_TOP_PAD: _TOP_PAD_BYTES}
    done = [mallopt(name, value) for name, value in settings.items()] == [1] * len(settings)
    logger.debug("glibc keeps freed memory: %s", done)
    return done


def give_back_memory() -> None:
    """Hand freed memory back to the system now; does nothing where there is no glibc.

    Between volumes: what each leaves in pieces between longer-lived objects would add up over many.
    """
    malloc_trim = _of_glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc; None where this process runs without it."""
    if os.name != "posix":
        return None
    found = ctypes.CDLL(None)
    return getattr(found, name, None) if hasattr(found, "malloc_trim") else None
