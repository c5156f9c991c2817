"""Fixtures for pytest: import them into the `conftest.py` of a folder of tests.

    from standin.fixtures import *

A file is skipped, with the reason, where PySide6, slicer-core or the libraries that they need from
the system are missing; with CI=true that fails the run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .availability import SkippedModule, what_is_missing

__all__ = ["application", "dialogs", "open_module", "pytest_pycollect_makemodule", "scene"]


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> Any:
    """Import none of the folder's files when the application cannot be had, and say why."""
    return SkippedModule.from_parent(parent, path=module_path) if what_is_missing() else None


@pytest.fixture(scope="session")
def application() -> Iterator[Any]:
    """slicer.app, started once for all tests of this process."""
    import slicer

    from .core import start, stop

    running = getattr(slicer, "app", None)
    app = running or start()
    yield app
    if running is None:
        stop(app)


@pytest.fixture
def scene(application: Any) -> Iterator[Any]:
    """An empty scene; the test fails for what slots raised and for errors that nobody expected."""
    from .dialogs import dialogs
    from .harness import UnhandledErrors, clean_scene, close_modules

    clean_scene()
    errors = UnhandledErrors()
    before, sys.excepthook = sys.excepthook, errors
    yield application.mrmlScene()
    close_modules()
    sys.excepthook = before
    unexpected, unanswered = dialogs.errors(), dialogs.unanswered()
    clean_scene()
    assert not errors.seen, f"raised in slots or observers: {errors.seen}"
    assert not unexpected, f"errors were shown that the test did not take: {unexpected}"
    assert not unanswered, f"questions never came: {unanswered}"


@pytest.fixture
def dialogs(scene: Any) -> Any:
    """Answers to prepare, and messages that were shown."""
    from .dialogs import dialogs

    return dialogs


@pytest.fixture
def open_module(scene: Any) -> Callable[..., Any]:
    """Open a scripted module's file as Slicer does; the module's widget is returned."""
    from .harness import open_module

    return open_module
