"""Another computer is chosen as device, trains, is left, and is found again with its project."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import close_module

from aslseg.project.remote_run import RemoteRun, open_remote_runs, write_remote_run
from aslseg.remote.hosts import forget_host
from standin.harness import choose, click, wait_until
from support.remote_host import STEPS, a_host, allow_steps, end_engines
from support.tiny_project import a_tiny_project

pytestmark = pytest.mark.slow

SOON_S = 60.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, application: Any) -> Any:
    """Where a project is, and a host that nobody has named yet; the device is that of before."""
    import qt

    a_host(tmp_path, monkeypatch)
    forget_host("gpu1")
    a_tiny_project(tmp_path / "here")
    before = qt.QSettings().value("ASLseg/device", "auto")
    qt.QSettings().setValue("ASLseg/device", "auto")
    yield tmp_path
    close_module()
    qt.QSettings().setValue("ASLseg/device", before)
    end_engines(tmp_path)


def open_project(widget: Any, folder: Path) -> Any:
    """Open the project in the panel, whose widgets are returned."""
    ui = widget.panel.ui
    ui.casesSection.collapsed = False
    ui.projectFolderEdit.currentPath = str(folder / "here" / "project")
    click(ui.openProjectButton)
    return ui


def test_a_host_trains_while_the_panel_is_closed(
    open_module: Any, folder: Path, dialogs: Any
) -> None:
    project = folder / "here" / "project"
    foreign = project / "runs" / "foreign"
    foreign.mkdir(parents=True)
    write_remote_run(foreign, RemoteRun(host="gpu1", project="0" * 32, session="1" * 32))
    ui = open_project(open_module(), folder)
    logic = slicer.modules.ASLsegWidget.logic
    assert not logic.trainer.is_busy, "nobody here has named the computer that a file names"
    shutil.rmtree(foreign)

    allow_steps(folder, 1)
    dialogs.answer("computer that ssh reaches", f"gpu1 {sys.executable}")
    choose(ui.deviceBox, "another computer")
    assert ui.deviceBox.currentText == "computer gpu1 (ssh)"
    ui.trainSection.collapsed = False
    device = "Networks run on CUDA of gpu1: of the host."
    wait_until(lambda: ui.deviceLabel.text == device, SOON_S, "the host has said its device")
    click(ui.estimateButton)
    takes = "A training takes about 2 h at gpu1: 2 rounds, 900 steps."
    wait_until(lambda: takes in ui.trainingLabel.text, SOON_S, "the host has estimated")
    click(ui.startButton)
    wait_until(lambda: "At gpu1: training" in ui.trainingLabel.text, SOON_S, "the host trains")
    close_module()
    (run_id,) = open_remote_runs(project)
    allow_steps(folder, STEPS)

    open_project(open_module(), folder)
    logic = slicer.modules.ASLsegWidget.logic
    assert logic.trainer.host == "gpu1"
    wait_until(lambda: not logic.trainer.is_busy, SOON_S, "the run has ended")
    assert [(run.run_id, run.state) for run in logic.runs()] == [(run_id, "done")]
    assert open_remote_runs(project) == {}
