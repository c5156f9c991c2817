"""Every button and box that is enabled can be pressed, in every state of scene and project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import (
    LEFT_OUT,
    close_project,
    press_all,
    reload_module,
    wait_for_engine,
    wait_for_files,
)
from trained import UNLABELLED

from standin.harness import click, run_event_loop


def test_every_enabled_button_can_be_pressed_without_anything(panel: Any) -> None:
    pressed = press_all(panel, LEFT_OUT)
    assert {"addDicomButton", "presetBox", "deviceBox", "methodBox"} <= set(pressed)


def test_every_enabled_button_can_be_pressed_with_a_project_and_in_an_empty_scene_after(
    panel: Any, ct: Any, project: Path, dialogs: Any
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    panel.ui.casesTable.selectRow(0)
    left_out = (*LEFT_OUT, "addVolumeButton")  # would add a case twice, which is refused in words
    with_project = press_all(panel, left_out)
    assert {"loadCaseButton", "splitBox", "addBoxButton", "addCasesButton"} <= set(with_project)
    wait_for_files(panel.logic)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    press_all(panel, left_out)
    wait_for_files(panel.logic)
    close_project(panel.logic)
    press_all(panel, left_out)
    run_event_loop(0.4)


def test_every_enabled_button_can_be_pressed_after_leaving_and_after_a_reload(
    panel: Any, ct: Any
) -> None:
    slicer.util.selectModule("Data")
    slicer.mrmlScene.Clear(0)
    slicer.util.selectModule("ASLseg")
    press_all(panel, LEFT_OUT)
    press_all(reload_module().panel, LEFT_OUT)


@pytest.mark.parametrize(
    "name",
    ["loadCaseButton", "saveLabelButton", "segmentButton", "refineButton", "measureButton",
     "exportNiftiButton"],
)  # fmt: skip
def test_the_scene_may_be_closed_right_after_a_button(
    panel: Any, trained: Path, dialogs: Any, tmp_path: Path, name: str
) -> None:
    from ASLsegLib.scene.prompts import add_point

    ui, logic = panel.ui, panel.logic
    ui.projectFolderEdit.currentPath = str(trained)
    click(ui.openProjectButton)
    table = ui.casesTable
    rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == UNLABELLED[0]]
    table.selectRow(rows[0])
    click(ui.loadCaseButton)
    wait_for_files(logic)
    refined = logic.predictions(panel.volume)["refined"]
    panel.parameters.resultSegmentation = panel.parameters.labelSegmentation = refined
    add_point(panel.volume, "tumour", (20.0, 20.0), 3)
    slicer.app.processEvents()
    if name == "exportNiftiButton":
        dialogs.answer("Save", str(tmp_path / "refined.nii.gz"))
    button = getattr(ui, name)
    assert button.isEnabledTo(panel.widget), button.toolTip
    button.click()
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.2)
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    wait_for_engine(logic)
    assert panel.volume is None
    assert not ui.segmentButton.enabled


def test_the_reload_button_leaves_nothing_of_the_panel_before_listening(
    panel: Any, ct: Any
) -> None:
    before, looked = panel, []
    panel.logic.poll = lambda: looked.append("poll")
    panel.update = lambda: looked.append("update")
    old_library = sys.modules["ASLsegLib.widgets.panel"]
    slicer.modules.ASLsegWidget.onReload()
    looked.clear()
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.2)
    after = slicer.modules.ASLsegWidget.panel
    assert after is not before
    assert looked == []
    assert sys.modules["ASLsegLib.widgets.panel"] is not old_library
    press_all(after, LEFT_OUT)
