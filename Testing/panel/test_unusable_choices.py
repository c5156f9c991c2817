"""Volumes and runs that cannot be used are not offered, and refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import slicer
import vtk

from aslseg.errors import AslsegError


@pytest.fixture
def photo(panel: Any) -> Any:
    """A colour picture in the scene: in MRML it derives from a scalar volume."""
    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    node.SetAndObserveImageData(image)
    slicer.app.processEvents()
    return node


def test_a_colour_picture_is_never_the_volume_to_segment(panel: Any, photo: Any) -> None:
    assert panel.volume is None
    assert panel.ui.inputVolumeSelector.currentNode() is None
    assert panel.ui.segmentButton.toolTip == "Choose a volume."
    panel.parameters.inputVolume = photo  # by a script, or a scene of an older version
    assert panel.volume is None
    assert not panel.ui.addVolumeButton.enabled


def test_the_ct_beside_a_colour_picture_is_chosen(panel: Any, photo: Any, ct: Any) -> None:
    assert panel.volume is ct
    assert panel.ui.inputVolumeSelector.currentNode() is ct


def test_a_script_that_gives_a_colour_picture_is_told_what_to_choose(
    panel: Any, photo: Any, tmp_path: Path
) -> None:
    for action in (
        lambda: panel.logic.segment(photo),
        lambda: panel.logic.refine(photo),
        lambda: panel.logic.add_volume(photo, folder=tmp_path),
    ):
        with pytest.raises(AslsegError, match="photo is no scalar volume"):
            action()


def test_a_run_that_is_named_and_cannot_be_used_is_not_replaced_by_another(
    panel: Any, ct: Any
) -> None:
    for action in (panel.logic.segment, panel.logic.refine):
        with pytest.raises(AslsegError, match="Run gone cannot be used"):
            action.begin(ct, run_id="gone")
    assert not panel.logic.engine.is_busy


def test_a_run_that_the_project_does_not_have_is_chosen_no_more(
    panel: Any, ct: Any, trained: Path
) -> None:
    panel.parameters.run = "of-another-project"
    panel.update()
    assert panel.parameters.run == "of-another-project"  # the scene's project may be opened yet
    panel.logic.open_project(trained)
    slicer.app.processEvents()
    assert panel.parameters.run == ""
    assert panel.ui.runBox.currentText.endswith("(latest)")
    assert panel.ui.segmentButton.enabled
    run = panel.logic.usable_run()
    panel.parameters.run = run
    panel.update()
    assert panel.parameters.run == run
    shutil.rmtree(trained / "runs" / run)
    panel.logic.refresh()
    assert panel.parameters.run == ""
