"""The field of the project's folder: empty, typed, kept, offered again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import close_project, reload_module

from standin.harness import click, run_event_loop


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


@pytest.mark.parametrize("answer", ["Yes", "No", "absent"])
def test_a_scene_of_another_project_asks_which_one_shall_be_open(
    panel: Any, project: Path, tmp_path: Path, dialogs: Any, answer: str
) -> None:
    import qt

    other, scene = tmp_path / "other", tmp_path / "scene.mrb"
    shutil.copytree(project, other)
    panel.logic.open_project(other)
    assert slicer.util.saveScene(str(scene))
    panel.logic.open_project(project)
    slicer.mrmlScene.Clear(0)
    if answer == "absent":
        shutil.rmtree(other)
    else:
        text = f"saved with the project {other}, and {project} is open"
        dialogs.answer(text, getattr(qt.QMessageBox, answer))
    slicer.util.loadScene(str(scene))
    run_event_loop(0.1)
    opened = other if answer == "Yes" else project
    assert panel.logic.project.folder == opened
    assert panel.ui.projectFolderEdit.currentPath == str(opened)
    assert panel.parameters.projectFolder == str(opened)
    if answer == "absent":
        dialogs.take(f"saved with the project {other}, which is not there; {project} stays open")


def test_a_scene_of_the_project_that_is_open_asks_nothing(
    panel: Any, project: Path, tmp_path: Path
) -> None:
    panel.logic.open_project(project)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    panel.ui.projectFolderEdit.currentPath = str(tmp_path / "typed")  # and not opened
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    run_event_loop(0.1)
    assert panel.ui.projectFolderEdit.currentPath == str(project)


def test_a_project_is_known_by_the_file_that_the_library_writes() -> None:
    from aslseg.project import case
    from ASLsegLib import paths

    assert paths.PROJECT_FILE == case.PROJECT_FILE
