"""Masks into segments and back, on the grid of a volume node; segments of others stay untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from aslseg.volume import Geometry
from ASLsegLib.scene import as_matrix, geometry_of


def read_mask(node: Any, segment_id: str, volume: Any) -> np.ndarray:
    """Return a segment as a mask on the grid of a volume.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        volume: Volume node; a segment on another grid is resampled, nearest neighbour.

    Returns:
        (D, H, W) bool.
    """
    geometry = geometry_of(volume)
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    mask = np.zeros(geometry.shape, bool)
    if image.IsEmpty():
        return mask
    if not _is_on(image, geometry):
        image = _resampled(image, geometry)
    _paste(image, mask)
    return mask


def write_mask(node: Any, segment_id: str, mask: np.ndarray, volume: Any) -> None:
    """Let a segment hold a mask; where it overlaps another segment, both keep their voxels.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        mask: (D, H, W) bool on the grid of `volume`.
        volume: Volume node.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not mask.any():
        logic.ClearSegment(node, segment_id)
        return
    image = _image_of(mask, geometry_of(volume))
    logic.SetBinaryLabelmapToSegment(image, node, segment_id, logic.MODE_REPLACE)


def segment_ids(node: Any) -> list[str]:
    """Return the ids of all segments, in their order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]


def bounding_extent(mask: np.ndarray) -> tuple[int, int, int, int, int, int]:
    """Return first and last index along i, j and k of a mask that is not empty."""
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    inner = mask[slices[0] : slices[-1] + 1]
    rows = np.flatnonzero(inner.any(axis=(0, 2)))
    columns = np.flatnonzero(inner.any(axis=(0, 1)))
    ends = [(int(index[0]), int(index[-1])) for index in (columns, rows, slices)]
    return (*ends[0], *ends[1], *ends[2])


def _image_of(mask: np.ndarray, geometry: Geometry) -> Any:
    extent = bounding_extent(mask)
    i0, i1, j0, j1, k0, k1 = extent
    part = np.ascontiguousarray(mask[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1], np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*extent)
    image.SetGeometryFromImageToWorldMatrix(as_matrix(geometry.ijk_to_ras))
    scalars = numpy_support.numpy_to_vtk(part.ravel(), True, vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    return image


def _is_on(image: Any, geometry: Geometry) -> bool:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    return Geometry(geometry.shape, affine).matches(geometry)


def _resampled(image: Any, geometry: Geometry) -> Any:
    slices, rows, columns = geometry.shape
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(0, columns - 1, 0, rows - 1, 0, slices - 1)
    reference.SetGeometryFromImageToWorldMatrix(as_matrix(geometry.ijk_to_ras))
    out = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, reference, out, False
    )
    return out


def _paste(image: Any, mask: np.ndarray) -> None:
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)
    there = [slice(max(a, 0), b + 1) for a, b in ((k0, k1), (j0, j1), (i0, i1))]
    cut = tuple(slice(max(-a, 0), None) for a in (k0, j0, i0))
    window = values[cut]
    place = mask[there[0], there[1], there[2]]
    place |= window[tuple(slice(0, n) for n in place.shape)] > 0
