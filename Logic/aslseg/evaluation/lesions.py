"""Lesions one by one: volume, longest diameter, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from aslseg.data.geometry import ijk_to_ras
from aslseg.data.masks import label_components
from aslseg.data.volume import Geometry, Labelmap, Mask
from aslseg.targets import Target

_MANY_POINTS = 2000  # beyond, distances are measured among the corners of the convex hull


@dataclass(frozen=True, slots=True)
class LesionMeasurement:
    """One connected part of a target.

    Attributes:
        target: Name of the target.
        number: From 1, largest first.
        volume_ml: Number of voxels times the volume of one.
        longest_diameter_mm: Largest distance of two voxel centres, in three dimensions, plus one
            voxel edge in their direction; one voxel hence has its edge as diameter.
        centre_ras: Mean of the voxel centres.
    """

    target: str
    number: int
    volume_ml: float
    longest_diameter_mm: float
    centre_ras: tuple[float, float, float]


def measure_lesions(
    labelmap: Labelmap, targets: Sequence[Target], names: Sequence[str] | None = None
) -> list[LesionMeasurement]:
    """Measure every connected part of the innermost targets.

    Args:
        labelmap: What to measure.
        targets: All targets.
        names: Of the targets to measure; those that hold no other target when None.

    Returns:
        Target by target, largest first.
    """
    parents = {target.inside for target in targets}
    wanted = names if names is not None else [t.name for t in targets if t.name not in parents]
    found: list[LesionMeasurement] = []
    for target in targets:
        if target.name in wanted:
            found += _lesions_of(labelmap.labels == target.value, target.name, labelmap.geometry)
    return found


def longest_diameter_mm(mask: Mask, geometry: Geometry) -> float:
    """Return the largest distance within a mask: between voxel centres, plus one voxel edge.

    Args:
        mask: (D, H, W), not empty.
        geometry: Where its voxels lie; its shape is not used.
    """
    kji = np.argwhere(mask ^ ndimage.binary_erosion(mask))
    centres = kji[:, ::-1] @ geometry.ijk_to_ras[:3, :3].T
    corners = _hull(centres) if len(centres) > _MANY_POINTS else centres
    if len(corners) < 2:
        return float(max(geometry.spacing_mm))
    distances = pdist(corners)
    first, second = _pair(int(np.argmax(distances)), len(corners))
    direction = corners[first] - corners[second]
    return float(distances.max() + _edge_along(direction, geometry))


def _lesions_of(mask: Mask, target: str, geometry: Geometry) -> list[LesionMeasurement]:
    numbered, _ = label_components(mask)
    boxes = ndimage.find_objects(numbered)
    sizes = np.bincount(numbered.ravel(), minlength=len(boxes) + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    return [
        _lesion(numbered[boxes[n]] == n + 1, boxes[n], target, rank, geometry)
        for rank, n in enumerate(order.tolist(), start=1)
    ]


def _lesion(
    part: Mask, box: tuple[slice, ...], target: str, number: int, geometry: Geometry
) -> LesionMeasurement:
    centre_kji = np.argwhere(part).mean(axis=0) + [axis.start for axis in box]
    r, a, s = ijk_to_ras(centre_kji[None, ::-1], geometry)[0].tolist()
    volume = int(part.sum()) * geometry.voxel_ml
    return LesionMeasurement(target, number, volume, longest_diameter_mm(part, geometry), (r, a, s))


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except QhullError:  # flat: all in one plane
        return points[:: max(len(points) // _MANY_POINTS, 1)]


def _pair(index: int, count: int) -> tuple[int, int]:
    rows, columns = np.triu_indices(count, 1)
    return int(rows[index]), int(columns[index])


def _edge_along(direction: NDArray[np.float64], geometry: Geometry) -> float:
    """Return how far a voxel reaches along a direction: the length of its box's cut."""
    unit = direction / np.linalg.norm(direction)
    in_voxels = np.abs(np.linalg.inv(geometry.ijk_to_ras[:3, :3]) @ unit)
    return float(1.0 / in_voxels.max())
