"""Memory that was freed goes back to the system."""

from __future__ import annotations

import ctypes
import os


def give_back_memory() -> None:
    """Hand freed memory back to the system now; does nothing where there is no glibc.

    Between volumes: what each leaves in pieces between longer-lived objects would add up over many.
    """
    found = ctypes.CDLL(None) if os.name == "posix" else None
    malloc_trim = getattr(found, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
