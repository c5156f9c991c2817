"""Where the predictions disagree, as a coloured overlay on the image."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ASLsegLib.scene.lesion_masks import shared, target_mask, together, without
from ASLsegLib.scene.segmentations import find_prediction
from ASLsegLib.scene.volumes import as_matrix, free_name, geometry_of, place_beside, slice_axis_of

if TYPE_CHECKING:
    from aslseg.targets import Target

_ROLE, _VOLUME = "ASLseg.Overlay", "ASLseg.Volume"
_OF_LABELS, _OF_PROBABILITIES = "labels", "disagreement"
COMPARED = ("specialist", "sam", "refined")
"""Predictions that may disagree."""
_COLORS = ("vtkMRMLColorTableNodeFileInferno.txt", "vtkMRMLColorTableNodeWarm1")
LEAST_PERCENT = 10
"""Smaller disagreement is not shown."""
OPACITY = 0.6


def find_overlay(volume: Any) -> Any | None:
    """Return the overlay of a volume, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(_ROLE) and node.GetNodeReferenceID(_VOLUME) == volume.GetID():
            return node
    return None


def image_of(percent: np.ndarray) -> vtk.vtkImageData:
    """Return voxels as an image for `show_disagreement`; may be called in a thread.

    Args:
        percent: (D, H, W) uint8, from 0 to 100.
    """
    image = vtk.vtkImageData()
    image.SetDimensions(percent.shape[::-1])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    scalars = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    scalars.reshape(percent.shape)[:] = percent
    return image


def can_compare(volume: Any) -> bool:
    """Tell whether there is an overlay of a volume, or two predictions that one can be made of."""
    found = [source for source in COMPARED if find_prediction(volume, source) is not None]
    return find_overlay(volume) is not None or len(found) > 1


def compare_labels(volume: Any, targets: Sequence[Target]) -> None:
    """Make the overlay from the labels in the scene, where no probabilities were compared.

    Args:
        volume: Volume node with two predictions or more.
        targets: Of the predictions.
    """
    known = find_overlay(volume)
    if known is not None and known.GetAttribute(_ROLE) == _OF_PROBABILITIES:
        return
    nodes = [node for source in COMPARED if (node := find_prediction(volume, source))]
    percent = np.zeros(geometry_of(volume).shape, np.uint8)
    for target in targets:
        masks = [target_mask(node, volume, target, targets) for node in nodes]
        apart = without(reduce(together, masks), reduce(shared, masks))
        if apart is not None:
            percent[apart.box.slices][apart.mask] = 100
    show_disagreement(volume, image_of(percent)).SetAttribute(_ROLE, _OF_LABELS)


def show_disagreement(volume: Any, image: vtk.vtkImageData) -> Any:
    """Make or update the overlay.

    Args:
        volume: Volume node.
        image: From `image_of`, on the volume's grid; it belongs to the overlay from now on.

    Returns:
        The overlay's volume node.
    """
    node = find_overlay(volume) or _new_overlay(volume)
    node.SetAttribute(_ROLE, _OF_PROBABILITIES)
    node.SetIJKToRASMatrix(as_matrix(geometry_of(volume).ijk_to_ras))
    node.SetAndObserveImageData(image)
    return node


def update_disagreement(volume: Any, slice_index: int, percent: np.ndarray) -> None:
    """Renew one slice of the overlay, where there is one.

    Args:
        volume: Volume node.
        slice_index: Which axial slice.
        percent: (H, W) uint8, from 0 to 100.
    """
    node = find_overlay(volume)
    if node is not None:
        array = slicer.util.arrayFromVolume(node)
        np.moveaxis(array, slice_axis_of(volume), 0)[slice_index] = percent
        slicer.util.arrayFromVolumeModified(node)


def overlay_slice(volume: Any, slice_index: int) -> bytes:
    """Return one slice of the overlay, compressed; empty when there is no overlay."""
    node = find_overlay(volume)
    if node is None:
        return b""
    planes = np.moveaxis(slicer.util.arrayFromVolume(node), slice_axis_of(volume), 0)
    return zlib.compress(planes[slice_index].tobytes(), 1)


def restore_overlay_slice(volume: Any, slice_index: int, kept: bytes) -> bytes:
    """Bring a slice of the overlay back to what `overlay_slice` returned, and return what it was.

    Nothing is done where there was no overlay, or where there is none.
    """
    was, node = overlay_slice(volume, slice_index), find_overlay(volume)
    if node is None or not kept:
        return was
    shape = np.moveaxis(slicer.util.arrayFromVolume(node), slice_axis_of(volume), 0).shape[1:]
    plane = np.frombuffer(zlib.decompress(kept), np.uint8).reshape(shape)
    update_disagreement(volume, slice_index, plane)
    return was


def restore_overlay(volume: Any, image: vtk.vtkImageData | None) -> vtk.vtkImageData | None:
    """Let the overlay have an image that it had, or remove it for None; return what it had."""
    node = find_overlay(volume)
    was = None if node is None else node.GetImageData()
    if image is not None:
        show_disagreement(volume, image)
    elif node is not None:
        slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
        slicer.mrmlScene.RemoveNode(node)
    return was


def set_overlay_visible(volume: Any, visible: bool) -> None:
    """Show the overlay on its volume in all slice views, or take it away there."""
    node = find_overlay(volume)
    if node is None:
        return
    shown = _foreground() == node.GetID()
    if visible:
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=OPACITY)
    elif shown:
        slicer.util.setSliceViewerLayers(foreground=None, foregroundOpacity=0.0)


def hide_overlays_of_others(volume: Any) -> None:
    """Take the overlay of another volume away from the slice views."""
    shown = slicer.mrmlScene.GetNodeByID(_foreground() or "")
    is_overlay = shown is not None and shown.GetAttribute(_ROLE)
    if is_overlay and shown.GetNodeReferenceID(_VOLUME) != volume.GetID():
        slicer.util.setSliceViewerLayers(foreground=None, foregroundOpacity=0.0)


def _new_overlay(volume: Any) -> Any:
    name = free_name(f"{volume.GetName()} - disagreement")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetNodeReferenceID(_VOLUME, volume.GetID())
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    colors = [name for name in _COLORS if slicer.mrmlScene.GetNodeByID(name) is not None]
    if colors:
        display.SetAndObserveColorNodeID(colors[0])
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 100.0)
    display.SetThreshold(LEAST_PERCENT, 100.0)
    display.SetApplyThreshold(True)
    place_beside(node, volume)
    return node


def _foreground() -> str | None:
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return composites[0].GetForegroundVolumeID() if composites else None
