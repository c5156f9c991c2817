"""A segmentation as a label map: what is shown, where it is shown.

Segments are read through the transforms of segmentation and volume. Whatever a label map would not
hold, for it belongs to no target or lies outside of the volume, is named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from aslseg.data.nrrd import kind_of
from aslseg.data.volume import Geometry, Labelmap, Labels
from aslseg.errors import CancelledError
from ASLsegLib.scene.segments import Part, is_on, resampled, segment_ids, within
from ASLsegLib.scene.terminology import (
    is_newer_result,
    target_named,
    terminology_of,
    without_new,
)
from ASLsegLib.scene.volumes import SceneError, as_array, geometry_of

if TYPE_CHECKING:
    from aslseg.targets import Target

LeaveOut = Callable[[str, Sequence[str]], bool]
"""Asked with the name of a segmentation and with what a label map would lack: may it be so?"""

_NEGLIGIBLE = 0.01
_MOST_SAMPLES = 200_000


@dataclass(frozen=True)
class Choice:
    """Which segments make which target.

    Attributes:
        by_target: Ids of the segments of each target that has any.
        left_out: Ids of segments that make none.
    """

    by_target: dict[str, list[str]]
    left_out: list[str]


def leave_out_nothing(name: str, left_out: Sequence[str]) -> bool:
    """Refuse to leave anything out.

    Raises:
        SceneError: Naming what would be left out.
    """
    msg = (
        f"{name} has something that a label map would not hold: {'; '.join(left_out)}. Rename, "
        "remove or move it."
    )
    raise SceneError(msg)


def choose_segments(segmentation: Any, targets: Sequence[Target]) -> Choice:
    """Return which segments make which target, by their names as they are shown.

    A name that is no target's leaves the decision to the terminology, as in files. A
    segment that was put beside one that a person edited counts only where that one is gone.
    """
    names, node = [target.name for target in targets], segmentation.GetSegmentation()
    chosen: dict[str, list[str]] = {}
    newer: dict[str, list[str]] = {}
    left_out = []
    for segment_id in segment_ids(segmentation):
        segment = node.GetSegment(segment_id)
        name = str(segment.GetName() or "")
        kind = kind_of(terminology_of(segment))
        target = target_named(without_new(name), names) or target_named(kind, names)
        if target is None:
            left_out.append(segment_id)
        else:
            (newer if is_newer_result(name) else chosen).setdefault(target, []).append(segment_id)
    for target, ids in newer.items():
        if target in chosen:
            left_out += ids
        else:
            chosen[target], rest = ids[-1:], ids[:-1]
            left_out += rest
    return Choice(chosen, left_out)


def target_segments(segmentation: Any, targets: Sequence[Target], target: str = "") -> list[str]:
    """Return the ids of the segments that make targets, or the one that is named."""
    chosen = choose_segments(segmentation, targets).by_target
    return [one for name, some in chosen.items() if target in ("", name) for one in some]


def shown_labels(
    segmentation: Any,
    volume: Any,
    targets: Sequence[Target],
    may_leave_out: LeaveOut = leave_out_nothing,
) -> Labelmap:
    """Return what a segmentation shows on the voxels of a volume, and where those are shown.

    Args:
        segmentation: Segmentation node.
        volume: Volume node; both may be under transforms.
        targets: Of the label map; a later one lies on top of an earlier one.
        may_leave_out: Asked when a segment that holds something makes no target, or lies outside of
            the volume.

    Raises:
        SceneError: When no segment makes a target, when everything lies outside of the volume, or
            when the volume is under a transform that is not linear.
        CancelledError: When something must not be left out.
    """
    choice = choose_segments(segmentation, targets)
    if not choice.by_target:
        names = ", ".join(target.name for target in targets)
        msg = f"{segmentation.GetName()} has no segment named like a target ({names}); rename."
        raise SceneError(msg)
    labels = np.zeros(geometry_of(volume).shape, np.uint8)
    lacking = [f"'{name}' makes no target" for name in _that_hold_something(segmentation, choice)]
    for target in targets:
        for segment_id in choice.by_target.get(target.name, ()):
            part, outside = read_shown_part(segmentation, segment_id, volume)
            if part is not None:
                labels[part.place][part.values] = target.value
            if outside > _NEGLIGIBLE:
                name = segmentation.GetSegmentation().GetSegment(segment_id).GetName()
                lacking.append(f"{outside:.0%} of '{name}' lies outside of {volume.GetName()}")
    if lacking and not labels.any():
        msg = (
            f"{segmentation.GetName()} holds nothing that lies within {volume.GetName()}: "
            f"{'; '.join(lacking)}. Choose the segmentation of this volume, or move it."
        )
        raise SceneError(msg)
    if lacking and not may_leave_out(str(segmentation.GetName()), lacking):
        msg = "Nothing was done."
        raise CancelledError(msg)
    return Labelmap(labels, shown_geometry(volume))


def voxels_shown(segmentation: Any, volume: Any, targets: Sequence[Target]) -> Labels:
    """Return the voxels of `shown_labels`, whatever else is shown, to compare and not to save."""
    return shown_labels(segmentation, volume, targets, lambda *_: True).labels


def read_shown_part(segmentation: Any, segment_id: str, volume: Any) -> tuple[Part | None, float]:
    """Return a segment on the voxels of a volume over which it is shown.

    Returns:
        The part, None when nothing of it is within the volume; and the share that lies outside.
    """
    image = _image_of(segmentation, segment_id)
    if image.IsEmpty():
        return None, 0.0
    _move(image, segmentation.GetParentTransformNode(), volume.GetParentTransformNode())
    geometry = geometry_of(volume)
    outside = _share_outside(image, geometry)
    if not is_on(image, geometry):
        image = resampled(image, geometry)
    return within(image, geometry.shape), outside


def shown_geometry(volume: Any) -> Geometry:
    """Return where the voxels of a volume are shown.

    Raises:
        SceneError: When it is under a transform that is not linear.
    """
    geometry, transform = geometry_of(volume), volume.GetParentTransformNode()
    if transform is None:
        return geometry
    if not transform.IsTransformToWorldLinear():
        msg = (
            f"{volume.GetName()} is under the non-linear transform {transform.GetName()}; harden "
            "the transform (Data module) first."
        )
        raise SceneError(msg)
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return Geometry(geometry.shape, as_array(matrix) @ geometry.ijk_to_ras)


def _image_of(segmentation: Any, segment_id: str) -> Any:
    """Return a segment as voxels; one that came as a surface is converted first."""
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if not segmentation.GetSegmentation().ContainsRepresentation(name):
        segmentation.CreateBinaryLabelmapRepresentation()
    image = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    return image


def _move(image: Any, from_transform: Any | None, to_transform: Any | None) -> None:
    """Bring an image from the space of one parent transform into that of another one."""
    if from_transform is to_transform:
        return
    move = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(from_transform, to_transform, move)
    slicer.vtkOrientedImageDataResample.TransformOrientedImage(image, move)


def _share_outside(image: Any, geometry: Geometry) -> float:
    """Return the share of an image's voxels that lie outside of a grid."""
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_grid = np.linalg.inv(geometry.ijk_to_ras) @ as_array(matrix)
    corners = np.array([(i, j, k, 1.0) for i in (i0, i1) for j in (j0, j1) for k in (k0, k1)])
    if _are_inside(corners, to_grid, geometry).all():
        return 0.0
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
    found = np.flatnonzero(values)
    found = found[:: max(1, len(found) // _MOST_SAMPLES)]
    if not len(found):
        return 0.0
    k, j, i = np.unravel_index(found, (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1))
    places = np.stack([i + i0, j + j0, k + k0, np.ones(len(found))], axis=1)
    return 1.0 - float(_are_inside(places, to_grid, geometry).mean())


def _are_inside(places: np.ndarray, to_grid: np.ndarray, geometry: Geometry) -> np.ndarray:
    ijk = (to_grid @ places.T)[:3].T
    upper = np.array(geometry.shape[::-1]) - 0.5
    return ((ijk > -0.5 - 1e-6) & (ijk < upper + 1e-6)).all(axis=1)  # type: ignore[no-any-return]


def _that_hold_something(segmentation: Any, choice: Choice) -> list[str]:
    names = []
    for segment_id in choice.left_out:
        image = _image_of(segmentation, segment_id)
        if not image.IsEmpty() and image.GetScalarRange()[1] > 0:
            names.append(str(segmentation.GetSegmentation().GetSegment(segment_id).GetName()))
    return names
