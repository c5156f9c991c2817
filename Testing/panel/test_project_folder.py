"""The field of the project's folder: empty, typed, kept, offered again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import close_project, reload_module

from standin.harness import click


def test_the_folder_is_empty_at_first_and_stays_empty_when_it_is_emptied(panel: Any) -> None:
    edit = panel.ui.projectFolderEdit
    assert edit.currentPath == ""
    edit.currentPath = "/data"
    edit.currentPath = ""
    slicer.app.processEvents()
    assert (edit.currentPath, panel.parameters.projectFolder) == ("", "")
    assert panel.ui.openProjectButton.toolTip == "Choose a folder above."


@pytest.mark.parametrize("typed", ["home/x", "x", "./x", "../x"])
def test_a_path_that_begins_nowhere_is_refused_and_left_as_it_was_typed(
    panel: Any, ct: Any, typed: str
) -> None:
    ui = panel.ui
    ui.projectFolderEdit.currentPath = typed
    assert not ui.openProjectButton.enabled
    assert "Give the whole path of the folder" in ui.openProjectButton.toolTip
    for button in (ui.addVolumeButton, ui.addCasesButton):
        assert not button.enabled
    assert ui.projectFolderEdit.currentPath == typed


def test_the_home_folder_may_be_written_short(panel: Any) -> None:
    from ASLsegLib.parameters import project_folder

    panel.ui.projectFolderEdit.currentPath = "~/livers"
    assert project_folder(panel.parameters) == Path.home() / "livers"
    assert panel.ui.openProjectButton.enabled


def test_a_scene_that_an_older_version_saved_without_a_folder_names_none(panel: Any) -> None:
    panel.parameters.projectFolder = "."
    assert panel.ui.openProjectButton.toolTip == "Choose a folder above."


def test_a_folder_in_which_a_project_was_opened_is_offered_again(panel: Any, project: Path) -> None:
    edit = panel.ui.projectFolderEdit
    edit.currentPath = "/nowhere/at/all"
    edit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    assert edit.currentPath == str(project)
    after = reload_module().panel.ui.projectFolderEdit
    boxes = after.comboBox()
    assert [boxes.itemText(row) for row in range(boxes.count)] == [str(project)]


def test_the_folder_of_the_session_before_is_offered_but_not_chosen(
    panel: Any, project: Path
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    close_project(panel.logic)
    slicer.mrmlScene.Clear(0)
    again = reload_module().panel
    assert again.ui.projectFolderEdit.currentPath == ""
    assert again.ui.projectFolderEdit.comboBox().itemText(0) == str(project)
    assert again.logic.project is None


def test_a_project_that_stays_open_keeps_its_folder_when_the_scene_is_closed(
    panel: Any, project: Path
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert panel.ui.projectFolderEdit.currentPath == str(project)
    assert panel.ui.addCasesButton.enabled
