"""The application, and a scene with a block in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from standin.fixtures import application, dialogs, pytest_pycollect_makemodule, scene

__all__ = ["application", "dialogs", "pytest_pycollect_makemodule", "scene"]


@dataclass(frozen=True)
class BlockScene:
    """A volume of 20 x 60 x 60 voxels of 4 x 2 x 2 mm, and the segment "block" in its middle."""

    volume: Any
    segmentation: Any
    mask: NDArray[np.uint8]


@pytest.fixture
def block(scene: Any) -> BlockScene:
    """A body of 50 HU in air and in it a block of 150 HU, segmented in red, shown in the views."""
    import slicer

    voxels = np.full((20, 60, 60), -1000, np.int16)
    voxels[2:18, 5:55, 5:55] = 50
    mask = np.zeros(voxels.shape, np.uint8)
    mask[6:14, 20:40, 20:40] = 1
    voxels[mask > 0] = 150
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Body")
    slicer.util.updateVolumeFromArray(volume, voxels)
    volume.SetSpacing(2.0, 2.0, 4.0)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Body - labels")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segmentation.GetSegmentation().AddEmptySegment("block", "block", (1, 0, 0))
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "block", volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return BlockScene(volume, segmentation, mask)
