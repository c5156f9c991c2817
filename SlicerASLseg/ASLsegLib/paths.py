"""Where library, resources, Python and projects lie, from a checkout and in an extension.

In an installed extension `Logic` and `Resources` lie beside `ASLseg.py`; in a checkout they lie
beside its folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parents[1]
PROJECT_FILE = "project.json"
"""By which a folder is known as a project, as in `aslseg.project.case`, which needs pydantic."""


def find(*parts: str) -> Path:
    """Find a file or folder of the extension.

    Args:
        parts: Its path from the folder of the module, or from the one above.

    Raises:
        FileNotFoundError: When the extension is incomplete.
    """
    candidates = [folder.joinpath(*parts) for folder in (MODULE_FOLDER, MODULE_FOLDER.parent)]
    for path in candidates:
        if path.exists():
            return path
    msg = f"{'/'.join(parts)} is in none of {MODULE_FOLDER} and {MODULE_FOLDER.parent}; reinstall."
    raise FileNotFoundError(msg)


def library() -> Path:
    """Return the folder that has to be on Python's path for `import aslseg`."""
    return find("Logic", "aslseg").parent


def resource(*parts: str) -> Path:
    """Return a file of the folder Resources, such as `resource("UI", "ASLseg.ui")`."""
    return find("Resources", *parts)


def make_library_importable() -> None:
    """Put the library on Python's path, once, in front of any other that was installed there."""
    folder = str(library())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def python_command() -> list[str]:
    """Return the command of the Python that runs the engine: Slicer's own."""
    beside = shutil.which("PythonSlicer", path=str(Path(sys.executable).parent))
    return [beside or shutil.which("PythonSlicer") or sys.executable]
