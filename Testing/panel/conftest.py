"""The stand-in application for the tests of the panel; see README.md.

Without PySide6, slicer-core or the libraries that they need from the system, all is skipped; with
CI=true that fails the run.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import standin  # noqa: E402, F401  (tells Qt and VTK what they have to know before they load)

from panel_libraries import skip_or_fail  # noqa: E402


def _what_is_missing() -> str:
    """Return why the application cannot be had here, an empty text if it can."""
    try:
        for name in ("PySide6.QtWidgets", "PySide6.QtUiTools", "vtk", "slicer"):
            importlib.import_module(name)
    except ImportError as error:
        libraries = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1"
        return f"{error} (pip install '.[panel]'; on Debian: apt-get install {libraries})"
    return ""


MISSING = _what_is_missing()


class _SkippedModule(pytest.Module):
    """A test file that is skipped, or fails, before it is imported."""

    def collect(self) -> Any:
        skip_or_fail(f"no stand-in for Slicer: {MISSING}")


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> Any:
    """Run none of the files of this folder when the application cannot be had, and say why."""
    if MISSING and HERE in module_path.parents:
        return _SkippedModule.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """slicer.app, started once for all tests of this process."""
    from standin.core import start, stop

    app = start(tmp_path_factory.mktemp("settings"))
    yield app
    stop(app)


@pytest.fixture
def scene(application: Any) -> Iterator[Any]:
    """An empty scene; the test fails for what slots raised and for errors that nobody expected."""
    from harness import UnhandledErrors, clean_scene, close_module
    from standin.dialogs import dialogs

    clean_scene()
    errors = UnhandledErrors()
    before, sys.excepthook = sys.excepthook, errors
    yield application.mrmlScene()
    close_module()
    sys.excepthook = before
    unexpected, unanswered = dialogs.errors(), dialogs.unanswered()
    clean_scene()
    assert not errors.seen, f"raised in slots or observers: {errors.seen}"
    assert not unexpected, f"errors were shown that the test did not take: {unexpected}"
    assert not unanswered, f"questions never came: {unanswered}"


@pytest.fixture
def dialogs(scene: Any) -> Any:
    """Answers to prepare, and messages that were shown."""
    from standin.dialogs import dialogs

    return dialogs


@pytest.fixture
def open_module(scene: Any) -> Callable[..., Any]:
    """Open SlicerASLseg/ASLseg.py (or another file) as Slicer does; the widget is returned."""
    from harness import open_module

    return open_module


@pytest.fixture(autouse=True)
def _quiet_log() -> None:
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def sam() -> str:
    """The SAM that tests run with: MobileSAM where its weights are, else none."""
    import os

    folders = [os.environ.get("ASLSEG_WEIGHTS", ""), str(HERE.parents[2] / "shared" / "weights")]
    found = [folder for folder in folders if folder and (Path(folder) / "mobile_sam.pt").exists()]
    if not found:
        return "none"
    os.environ["ASLSEG_WEIGHTS"] = found[0]
    return "vit_t"


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, sam: str) -> Path:
    """Folder with `project`, in which one tiny run is finished, and `data`; not to be changed."""
    import os
    import subprocess

    if "ASLSEG_TRAINED" in os.environ:  # made before by trained.py, to save the time
        return Path(os.environ["ASLSEG_TRAINED"])
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, str(HERE / "trained.py"), str(folder), sam]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """Project folder with a finished run, to be worked with."""
    import shutil

    shutil.copytree(trained_once, tmp_path / "trained")
    return tmp_path / "trained" / "project"
