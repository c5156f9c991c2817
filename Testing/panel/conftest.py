"""The stand-in application for the tests of the panel, and a project with a finished run."""

from __future__ import annotations

import email
import logging
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from standin.fixtures import application, dialogs, pytest_pycollect_makemodule, scene  # noqa: E402

__all__ = ["application", "dialogs", "pytest_pycollect_makemodule", "scene"]


@pytest.fixture
def open_module(scene: Any) -> Callable[[], Any]:
    """Open SlicerASLseg/ASLseg.py as Slicer does; the widget is returned."""
    from harness import open_module

    return open_module


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    """The panel in an empty scene."""
    return open_module().panel


@pytest.fixture
def ct(panel: Any) -> Any:
    """A small volume in the scene."""
    import numpy as np
    import slicer

    from aslseg.data.volume import Geometry, Volume
    from ASLsegLib.scene.volumes import add_volume

    geometry = Geometry((4, 20, 20), np.diag([-2.0, -2.0, 4.0, 1.0]))
    node = add_volume(Volume(np.zeros(geometry.shape, np.int16), geometry), "ct")
    slicer.app.processEvents()
    return node


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Folder of a project of three small phantoms, on which nothing is trained."""
    from test_bare import make_project

    make_project(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture(scope="session", autouse=True)
def _package_metadata_parsed_once() -> Iterator[None]:
    """Each test imports the panel anew, and that asks which versions of packages are installed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(email, "message_from_string", cache(email.message_from_string))
        yield


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


@pytest.fixture
def needs_sam(sam: str) -> None:
    """Leave a test out where SAM, which it asks, has no weights."""
    if sam == "none":
        pytest.skip("no weights of SAM: set ASLSEG_WEIGHTS")


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, sam: str) -> Path:
    """Folder with `project`, in which one tiny run is finished, and `data`; not to be changed."""
    import os
    import shutil
    import subprocess

    from filelock import FileLock

    if "ASLSEG_TRAINED" in os.environ:  # made before by trained.py, to save the time
        return Path(os.environ["ASLSEG_TRAINED"])
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers: one of them trains for all
    folder, done = base / "trained", base / "trained.done"
    with FileLock(base / "trained.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = [sys.executable, str(HERE / "trained.py"), str(folder), sam]
            subprocess.run(command, check=True, capture_output=True)
            done.touch()
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """Project folder with a finished run, to be worked with."""
    import shutil

    shutil.copytree(trained_once, tmp_path / "trained")
    return tmp_path / "trained" / "project"


@pytest.fixture
def reviewer(open_module: Callable[..., Any], trained: Path) -> Any:
    """A person who reviews case c2, in which the run has found three lesions."""
    from lesion_reviewer import Reviewer, give_lesions

    return Reviewer(open_module(), give_lesions(trained))
