"""Masks into segments and back, on the grid of a volume node; segments of others stay untouched."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from aslseg.data.masks import box_of
from aslseg.data.volume import Geometry
from ASLsegLib.scene.volumes import as_matrix, geometry_of

if TYPE_CHECKING:
    from aslseg.targets import Target

Extent = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Part:
    """The box around a mask, and what is in it.

    Attributes:
        extent: First and last index along i, j and k.
        values: (d, h, w) bool.
    """

    extent: Extent
    values: np.ndarray

    @property
    def place(self) -> tuple[slice, slice, slice]:
        """Where `values` lie in the (D, H, W) array of the whole volume."""
        i0, i1, j0, j1, k0, k1 = self.extent
        return slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1)


Parts = Mapping[str, Part | None]
"""What a label map holds, by the name of the target; None where it has nothing of it."""


def parts_of(labels: np.ndarray, targets: Sequence[Target]) -> Parts:
    """Return the part of each target in a label map; may be called in a thread.

    Args:
        labels: (D, H, W) uint8.
        targets: Whose values `labels` holds.
    """
    return {target.name: part_of(labels == target.value) for target in targets}


def part_of(mask: np.ndarray, first_ijk: tuple[int, int, int] = (0, 0, 0)) -> Part | None:
    """Return the box around a mask with a copy of what is in it; None for an empty mask.

    Args:
        mask: (D, H, W) bool.
        first_ijk: Index of the mask's first voxel.
    """
    box = box_of(mask)
    if box is None:
        return None
    (k, j, i), (k1, j1, i1) = box.start, box.stop
    x, y, z = first_ijk
    extent = (x + i, x + i1 - 1, y + j, y + j1 - 1, z + k, z + k1 - 1)
    return Part(extent, mask[box.slices].copy())


def with_slice(
    part: Part | None, slice_index: int, plane: np.ndarray, axis: int = 0
) -> Part | None:
    """Return a part in which one slice is another one.

    Args:
        part: What there was; None for nothing.
        slice_index: Which slice.
        plane: Bool, the whole slice; its axes are the other two, in their order.
        axis: Axis of (D, H, W) arrays along which slices are numbered.
    """
    start = [0, 0, 0]
    start[2 - axis] = slice_index
    plane = np.expand_dims(plane, axis)
    extent = _extent_of_both(part, part_of(plane, (start[0], start[1], start[2])))
    if extent is None:
        return None
    first, last = extent[::2], extent[1::2]
    values = _values_in(part, extent)
    if first[2 - axis] <= slice_index <= last[2 - axis]:
        cut = [slice(a, b + 1) for a, b in zip(first[::-1], last[::-1], strict=True)]
        cut[axis] = slice(None)
        of_slice = np.moveaxis(values, axis, 0)[slice_index - first[2 - axis]]
        of_slice[:] = plane[tuple(cut)].squeeze(axis)
    return part_of(values, (first[0], first[1], first[2]))


def combined(
    first: Part | None,
    second: Part | None,
    rule: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Part | None:
    """Return what a rule makes of two parts, voxel by voxel.

    Args:
        first: A part; None for nothing.
        second: Another one on the same grid.
        rule: Of two bool arrays; nothing of nothing has to be nothing. `np.greater` is the first
            without the second.
    """
    extent = _extent_of_both(first, second)
    if extent is None:
        return None
    i0, _, j0, _, k0, _ = extent
    return part_of(rule(_values_in(first, extent), _values_in(second, extent)), (i0, j0, k0))


def _extent_of_both(first: Part | None, second: Part | None) -> Extent | None:
    """Return the box around two parts; None for two times nothing."""
    extents = [part.extent for part in (first, second) if part is not None]
    if not extents:
        return None
    corners = np.array(extents)
    i0, j0, k0 = corners[:, ::2].min(axis=0).tolist()
    i1, j1, k1 = corners[:, 1::2].max(axis=0).tolist()
    return i0, i1, j0, j1, k0, k1


def _values_in(part: Part | None, extent: Extent) -> np.ndarray:
    """Return what a box, which contains a part, has of it: (d, h, w) bool."""
    i0, i1, j0, j1, k0, k1 = extent
    values = np.zeros((k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1), bool)
    if part is not None:
        in_k, in_j, in_i = part.place
        values[
            in_k.start - k0 : in_k.stop - k0,
            in_j.start - j0 : in_j.stop - j0,
            in_i.start - i0 : in_i.stop - i0,
        ] = part.values
    return values


def without(first: Part | None, second: Part | None) -> Part | None:
    """Return the voxels of the first part that the second one does not have."""
    return combined(first, second, np.greater)


def together(first: Part | None, second: Part | None) -> Part | None:
    """Return the voxels of either part."""
    return combined(first, second, np.logical_or)


def on_slice(part: Part | None, slice_index: int, axis: int = 0) -> Part | None:
    """Return what a part has on one slice; None for nothing.

    Args:
        part: What there is.
        slice_index: Which slice.
        axis: As in `with_slice`.
    """
    if part is None or not 0 <= slice_index - part.extent[4 - 2 * axis] < part.values.shape[axis]:
        return None
    first = list(part.extent[::2])
    n = slice_index - first[2 - axis]
    first[2 - axis] = slice_index
    return part_of(part.values.take([n], axis), (first[0], first[1], first[2]))


@dataclass(frozen=True)
class PackedPart:
    """A part that is kept for long.

    Attributes:
        extent: As in `Part`.
        bits: Of its values, compressed.
    """

    extent: Extent
    bits: bytes


def packed(part: Part | None) -> PackedPart | None:
    """Return a part in few bytes."""
    if part is None:
        return None
    return PackedPart(part.extent, zlib.compress(np.packbits(part.values).tobytes(), 1))


def unpacked(part: PackedPart | None) -> Part | None:
    """Return what was packed."""
    if part is None:
        return None
    i0, i1, j0, j1, k0, k1 = part.extent
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    bits = np.frombuffer(zlib.decompress(part.bits), np.uint8)
    count = shape[0] * shape[1] * shape[2]
    return Part(part.extent, np.unpackbits(bits, count=count).reshape(shape).astype(bool))


def read_part(node: Any, segment_id: str, volume: Any) -> Part | None:
    """Return the box around a segment on the grid of a volume; None for an empty segment.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        volume: Volume node; a segment on another grid is resampled, nearest neighbour.
    """
    geometry = geometry_of(volume)
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    if image.IsEmpty():
        return None
    if not is_on(image, geometry):
        image = resampled(image, geometry)
    return within(image, geometry.shape)


def lies_on(node: Any, segment_id: str, volume: Any) -> bool:
    """Tell whether the voxels of a segment are those of a volume; an empty one has none."""
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    return bool(image.IsEmpty()) or is_on(image, geometry_of(volume))


def write_part(node: Any, segment_id: str, part: Part | None, volume: Any) -> None:
    """Let a segment hold a part, or nothing; where it overlaps another segment, both keep theirs.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        part: On the grid of `volume`.
        volume: Volume node.
    """
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if part is None:
        logic.ClearSegment(node, segment_id)
        return
    image = _image_of(part, geometry_of(volume))
    logic.SetBinaryLabelmapToSegment(image, node, segment_id, logic.MODE_REPLACE)


def segment_ids(node: Any) -> list[str]:
    """Return the ids of all segments, in their order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]


def all_segment_ids() -> set[str]:
    """Return the ids of the segments of all segmentations in the scene."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return {name for node in nodes for name in segment_ids(node)}


def _image_of(part: Part, geometry: Geometry) -> Any:
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*part.extent)
    image.SetGeometryFromImageToWorldMatrix(as_matrix(geometry.ijk_to_ras))
    flat = np.ascontiguousarray(part.values, np.uint8).ravel()
    scalars = numpy_support.numpy_to_vtk(flat, True, vtk.VTK_UNSIGNED_CHAR)
    scalars.SetName("ImageScalars")
    image.GetPointData().SetScalars(scalars)
    return image


def is_on(image: Any, geometry: Geometry) -> bool:
    """Tell whether the voxels of an image lie on a grid."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    return Geometry(geometry.shape, affine).matches(geometry)


def resampled(image: Any, geometry: Geometry) -> Any:
    """Return an image on a grid, by nearest neighbours."""
    slices, rows, columns = geometry.shape
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(0, columns - 1, 0, rows - 1, 0, slices - 1)
    reference.SetGeometryFromImageToWorldMatrix(as_matrix(geometry.ijk_to_ras))
    out = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        image, reference, out, False
    )
    return out


def within(image: Any, shape: tuple[int, int, int]) -> Part | None:
    """Return what an image holds within a grid of a shape."""
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    whole = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(whole)
    ends = zip((k0, j0, i0), shape, strict=True)
    inside = values[tuple(slice(max(-first, 0), max(n - first, 0)) for first, n in ends)] > 0
    return part_of(inside, (max(i0, 0), max(j0, 0), max(k0, 0)))
