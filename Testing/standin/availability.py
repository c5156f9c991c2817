"""What happens to tests whose libraries (Qt, Slicer's own, CMake) are not on this machine."""

from __future__ import annotations

import importlib
import os
from typing import Any, NoReturn

import pytest

LIBRARIES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1"


def what_is_missing() -> str:
    """Return why the stand-in cannot run here, an empty text if it can."""
    try:
        for name in ("PySide6.QtWidgets", "PySide6.QtUiTools", "vtk", "slicer"):
            importlib.import_module(name)
    except ImportError as error:
        remedy = (
            f"pip install PySide6-Essentials slicer-core; on Debian: apt-get install {LIBRARIES}"
        )
        return f"no stand-in for Slicer: {error} ({remedy})"
    return ""


def is_required() -> bool:
    """Tell whether tests fail where it is missing: CI is set, and SLICER_STANDIN is not "no"."""
    left_out = os.environ.get("SLICER_STANDIN") == "no"
    return os.environ.get("CI", "").lower() not in ("", "0", "false") and not left_out


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test or a file that cannot run here; fail where the libraries are required."""
    if is_required():
        pytest.fail(f"{reason}; with CI set it must run (SLICER_STANDIN=no leaves it out)")
    pytest.skip(reason, allow_module_level=True)


class SkippedModule(pytest.Module):
    """A test file that is skipped, or fails, before it is imported."""

    def collect(self) -> Any:
        skip_or_fail(what_is_missing())
