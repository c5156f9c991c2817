"""Pictures of the panel for the documentation name no place of the computer that takes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

from standin.harness import run_event_loop


def test_a_picture_names_no_folder_of_this_computer(
    panel: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "Testing" / "pictures"), *sys.path])
    from tutorial import SHOWN_FOLDER, neutral_folder

    panel.logic.open_project(project)
    run_event_loop(0.1)
    edit = panel.ui.projectFolderEdit
    assert edit.currentPath == str(project)
    with neutral_folder(panel):
        panel.update()
        run_event_loop(0.1)
        assert edit.currentPath == SHOWN_FOLDER
        assert panel.logic.project.folder == project
    run_event_loop(0.1)
    assert edit.currentPath == str(project)
