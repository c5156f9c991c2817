"""A scene with a phantom: a volume, and a segmentation of its liver and tumours."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from numpy.typing import NDArray

from aslseg.data.phantom.dataset import SHAPE, SPACING_MM, make_phantom
from aslseg.data.volume import Labelmap, Volume

COLOURS = {"liver": (0.867, 0.510, 0.396), "tumour": (0.565, 0.933, 0.565)}


@dataclass(frozen=True)
class PhantomScene:
    """What was put into the scene."""

    volume: Any
    segmentation: Any
    labels: NDArray[np.uint8]


@functools.cache
def _small_phantom(seed: int) -> tuple[Volume, Labelmap]:
    """Return a phantom with half as many voxels along each axis."""
    shape = tuple(count // 2 for count in SHAPE)
    return make_phantom(seed, shape, tuple(2 * edge for edge in SPACING_MM))  # type: ignore[arg-type]


def add_phantom(name: str = "Phantom", seed: int = 1) -> PhantomScene:
    """Add a phantom with its labels to the scene, shown in the slice views."""
    image, labelmap = _small_phantom(seed)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(volume, image.voxels)
    volume.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.geometry.ijk_to_ras))
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(400, 40)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} - labels")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for value, (target, colour) in enumerate(COLOURS.items(), start=1):
        segmentation.GetSegmentation().AddEmptySegment(target, target, colour)
        mask = (labelmap.labels == value).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, target, volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return PhantomScene(volume, segmentation, labelmap.labels)
