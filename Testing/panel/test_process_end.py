"""Whatever ends while the engine works: the module, the application, the scene, a node."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import slicer
from harness import close_module, reload_module
from trained import UNLABELLED, overrides_of, small_settings

from standin.harness import click, run_event_loop, wait_until

GONE_S = 10.0


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def engines() -> list[psutil.Process]:
    """The engine's processes under this one, and what they have started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "aslseg.engine" in child.cmdline():
                found += [child, *child.children(recursive=True)]
    return found


@pytest.fixture
def ui(open_module: Callable[..., Any], trained: Path) -> Any:
    """The panel's widgets, with a project open and an unlabelled case loaded."""
    widget = open_module()
    for name in ("cases", "train", "review"):
        getattr(widget.panel.ui, f"{name}Section").collapsed = False
    widget.panel.ui.projectFolderEdit.currentPath = str(trained)
    click(widget.panel.ui.openProjectButton)
    table = widget.panel.ui.casesTable
    rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == UNLABELLED[0]]
    table.selectRow(rows[0])
    click(widget.panel.ui.loadCaseButton)
    wait_until(lambda: widget.panel.volume is not None and not widget.logic.background.is_busy)
    wait_until(lambda: widget.panel.ui.segmentButton.enabled, 60.0, "the device is looked up")
    return widget.panel.ui


@pytest.fixture
def logic(ui: Any) -> Any:
    return slicer.modules.ASLsegWidget.logic


@pytest.fixture
def long_training(monkeypatch: pytest.MonkeyPatch, ui: Any) -> None:
    """Let a training last longer than the test, without SAM."""
    import sys

    changes = overrides_of(small_settings("none", iterations=5000))
    monkeypatch.setattr(sys.modules["ASLsegLib.parameters"], "settings_changes", lambda _: changes)


@pytest.fixture
def both(ui: Any, logic: Any, long_training: None) -> list[psutil.Process]:
    """The processes of a training and of a request that are under way."""
    click(ui.startButton)
    wait_until(lambda: logic.trainer.state == "running", 60.0, "the training runs")
    wait_until(lambda: ui.segmentButton.enabled, 60.0, "the device is looked up")
    click(ui.segmentButton)
    wait_until(lambda: logic.engine.state == "running", 60.0, "the engine works")
    found = engines()
    assert len([one for one in found if one.ppid() == os.getpid()]) == 2
    return found


def are_gone(processes: list[psutil.Process]) -> None:
    """Wait for the end of processes."""
    wait_until(
        lambda: not any(is_alive(process) for process in processes),
        GONE_S,
        "the processes and what they started are gone",
    )


def test_reloading_the_module_ends_both_processes_with_their_trees(
    both: list[psutil.Process],
) -> None:
    before = slicer.modules.ASLsegWidget
    widget = reload_module()
    are_gone(both)
    assert widget is not before
    assert widget.logic.engine.state == widget.logic.trainer.state == "idle"
    assert widget.panel.ui.statusLabel.text == "Ready."


def test_quitting_the_application_ends_both_processes_with_their_trees(
    both: list[psutil.Process],
) -> None:
    close_module()  # what the application does with its modules at its end
    are_gone(both)
    assert engines() == []


def test_closing_the_scene_ends_the_request_and_lets_the_training_go_on(
    logic: Any, both: list[psutil.Process]
) -> None:
    slicer.mrmlScene.Clear(0)
    wait_until(lambda: len(engines()) < len(both), GONE_S, "the request's process is gone")
    run_event_loop(0.3)
    assert logic.engine.state == "idle"
    assert logic.trainer.state == "running"
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []


def test_a_volume_that_is_removed_while_results_come_in_gets_no_more_nodes(
    ui: Any, logic: Any, dialogs: Any
) -> None:
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        slicer.mrmlScene.RemoveNode(node)
    click(ui.segmentButton)
    wait_until(lambda: logic.engine.state not in ("starting", "running"), 60.0, "results come in")
    assert logic.engine.state == "importing"
    slicer.mrmlScene.RemoveNode(slicer.modules.ASLsegWidget.panel.volume)
    wait_until(lambda: not logic.engine.is_busy, GONE_S, "the engine rests")
    run_event_loop(0.2)
    dialogs.take("The volume was removed from the scene")
    assert logic.engine.state in ("idle", "failed")
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert names == []
    assert not ui.segmentButton.enabled


def test_a_prediction_that_is_removed_while_the_engine_works_comes_back_with_the_result(
    ui: Any, logic: Any
) -> None:
    volume = slicer.modules.ASLsegWidget.panel.volume
    click(ui.segmentButton)
    wait_until(lambda: logic.engine.state == "running", 60.0, "the engine works")
    slicer.mrmlScene.RemoveNode(logic.predictions(volume)["refined"])
    wait_until(lambda: not logic.engine.is_busy, 300.0, "the engine rests")
    assert logic.predictions(volume)["refined"].GetSegmentation().GetNumberOfSegments() == 2


def test_copies_of_images_that_a_killed_application_left_are_deleted(
    open_module: Callable[..., Any], tmp_path: Path
) -> None:
    open_module()
    new_scratch = sys.modules["ASLsegLib.logic.interactive"].new_scratch
    computer = sys.modules["aslseg.storage"].this_computer()
    left = tmp_path / f".aslseg-{computer}-{os.getpid()}-{'0' * 8}-{'0' * 8}-panel"
    left.mkdir()
    (left / "image.nrrd").write_text("a patient")
    (tmp_path / "of-another-program").mkdir()
    made = new_scratch(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([made, tmp_path / "of-another-program"])
    assert made.stat().st_mode & 0o077 == 0
    assert new_scratch(tmp_path) != made
    assert made.exists()
