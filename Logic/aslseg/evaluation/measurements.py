"""What a label map says in numbers: volumes of its targets, and size and HU of each lesion.

A *lesion* is a connected part (by a corner too) of a target that holds no other. All lengths are of
the patient's space in mm, by the grid's whole affine, so that a tilted or sheared grid is right.

The axial diameters follow RECIST 1.1 (Eisenhauer et al. 2009, Eur J Cancer 45:228-247): they lie in
the plane of the axial slices as they were acquired, that of the stored axis nearest to superior.
Of all slices, the connected part with the largest area is measured. The *long* diameter is the
largest distance of two of its voxel centres. The *short* one is the largest distance of two voxel
centres on one perpendicular of the long one; voxels count as on one that are less than a voxel
apart along the long one (ours). To both the reach of a voxel in their direction is added, for
centres lie half of it within the edge on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from aslseg.data.geometry import ijk_to_ras
from aslseg.data.masks import box_of, crop, label_components, uncrop, voxel_counts
from aslseg.data.orientation import to_slices
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume, zeros
from aslseg.targets import Target, region_values

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
        axial_long_mm: Largest diameter in an axial slice; see this file.
        axial_short_mm: Largest diameter perpendicular to it in that slice.
        slice_index: The slice of both, in the file's own number.
        mean_hu: Mean of the image's values; None without an image.
        sd_hu: Their standard deviation, with the number of voxels as divisor.
        centroid_ras: Mean of the voxel centres in mm.
    """

    target: str
    number: int
    volume_ml: float
    longest_diameter_mm: float
    axial_long_mm: float
    axial_short_mm: float
    slice_index: int
    mean_hu: float | None
    sd_hu: float | None
    centroid_ras: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TargetMeasurement:
    """One target of a case, together with what lies inside of it.

    Attributes:
        target: Name of the target.
        volume_ml: Of its region: a liver's has its tumours.
        percent_of_parent: Volume in percent of that of the parent's region; None without a parent,
            or where the parent is empty.
        lesions: Number of its lesions; None of a target that holds others.
        longest_axial_mm: Long axial diameter of the lesion that has the largest; None without one.
    """

    target: str
    volume_ml: float
    percent_of_parent: float | None
    lesions: int | None
    longest_axial_mm: float | None


def measure_targets(
    labelmap: Labelmap, targets: Sequence[Target], lesions: Sequence[LesionMeasurement]
) -> list[TargetMeasurement]:
    """Measure the region of every target.

    Args:
        labelmap: What to measure.
        targets: All targets.
        lesions: Of the same label map, as `measure_lesions` gives them.

    Returns:
        In the order of the targets.
    """
    voxels = voxel_counts(labelmap.labels, 256)
    volume_ml = {
        target.name: float(voxels[region_values(target, targets)].sum())
        * labelmap.geometry.voxel_ml
        for target in targets
    }
    parents = {target.inside for target in targets}
    found = []
    for target in targets:
        parent_ml = volume_ml[target.inside] if target.inside else 0.0
        percent = 100 * volume_ml[target.name] / parent_ml if parent_ml else None
        of_target = [lesion.axial_long_mm for lesion in lesions if lesion.target == target.name]
        number = None if target.name in parents else len(of_target)
        longest = max(of_target, default=None)
        found.append(
            TargetMeasurement(target.name, volume_ml[target.name], percent, number, longest)
        )
    return found


def measure_lesions(
    labelmap: Labelmap,
    targets: Sequence[Target],
    names: Sequence[str] | None = None,
    *,
    image: Volume | None = None,
) -> list[LesionMeasurement]:
    """Measure every connected part of the innermost targets.

    Args:
        labelmap: What to measure.
        targets: All targets.
        names: Of the targets to measure; those that hold no other target when None.
        image: On the same grid, for values in HU.

    Returns:
        Target by target, largest first.

    Raises:
        ValueError: When the image has another shape.
    """
    if image is not None and image.geometry.shape != labelmap.geometry.shape:
        msg = f"Image {image.geometry.shape} and label map {labelmap.geometry.shape} differ."
        raise ValueError(msg)
    parents = {target.inside for target in targets}
    wanted = names if names is not None else [t.name for t in targets if t.name not in parents]
    found: list[LesionMeasurement] = []
    for target in targets:
        if target.name in wanted:
            found += _lesions_of(labelmap.labels == target.value, target.name, labelmap, image)
    return found


def number_lesions(mask: Mask) -> NDArray[np.int32]:
    """Number the connected parts of a mask as `measure_lesions` does: from 1, largest first.

    Args:
        mask: (D, H, W), of one target.
    """
    box = box_of(mask)
    if box is None:
        return zeros(mask.shape, np.int32)
    numbered, count = label_components(crop(mask, box))
    sizes = voxel_counts(numbered, count + 1)[1:]
    ranks = np.zeros(count + 1, np.int32)
    ranks[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    return uncrop(ranks[numbered], box, mask.shape)


def longest_diameter_mm(mask: Mask, geometry: Geometry) -> float:
    """Return the largest distance within a mask: between voxel centres, plus one voxel edge.

    Args:
        mask: (D, H, W), not empty.
        geometry: Where its voxels lie; its shape is not used.
    """
    centres = _surface_centres(mask, geometry)
    if len(centres) == 1:
        return float(max(geometry.spacing_mm))
    length, direction = _farthest(centres)
    return length + _reach_along(direction, geometry)


def axial_diameters_mm(mask: Mask, geometry: Geometry) -> tuple[float, float, int]:
    """Return the long and the short axial diameter of a mask, and the slice that has them.

    Args:
        mask: (D, H, W), not empty.
        geometry: Where its voxels lie.

    Returns:
        Both diameters by the definition of this file; and the slice, counted along the stored axis
        nearest to superior.
    """
    turn = to_slices(geometry)
    slices, grid = turn.array(mask), turn.geometry(geometry)
    index, part = _largest_section(slices)
    centres = _surface_centres(part, grid)
    i_mm, j_mm = (grid.ijk_to_ras[:3, axis] for axis in (0, 1))
    if len(centres) == 1:
        sides = sorted(float(np.linalg.norm(axis)) for axis in (i_mm, j_mm))
        return sides[1], sides[0], index
    length, along = _farthest(centres)
    across = np.cross(np.cross(i_mm, j_mm), along)
    across /= np.linalg.norm(across)
    reach_along, reach_across = _reach_along(along, grid), _reach_along(across, grid)
    long_mm = length + reach_along
    short_mm = _widest(centres @ along, centres @ across, reach_along) + reach_across
    return long_mm, min(short_mm, long_mm), index


def _lesions_of(
    mask: Mask, target: str, labelmap: Labelmap, image: Volume | None
) -> list[LesionMeasurement]:
    numbered = number_lesions(mask)
    return [
        _measured(numbered[box] == n, box, labelmap.geometry, image, (target, n))
        for n, box in enumerate(ndimage.find_objects(numbered), start=1)
    ]


def _measured(
    part: Mask,
    box: tuple[slice, ...],
    geometry: Geometry,
    image: Volume | None,
    name: tuple[str, int],
) -> LesionMeasurement:
    """Measure what a box of the grid has of a lesion: all of it."""
    first = np.array([axis.start for axis in box])
    centre_kji = np.argwhere(part).mean(axis=0) + first
    r, a, s = ijk_to_ras(centre_kji[None, ::-1], geometry)[0].tolist()
    local = Geometry((part.shape[0], part.shape[1], part.shape[2]), geometry.ijk_to_ras)
    long_mm, short_mm, index = axial_diameters_mm(part, local)
    values = None if image is None else image.voxels[box][part].astype(np.float64)
    return LesionMeasurement(
        *name,
        volume_ml=int(part.sum()) * geometry.voxel_ml,
        longest_diameter_mm=longest_diameter_mm(part, local),
        axial_long_mm=long_mm,
        axial_short_mm=short_mm,
        slice_index=index + int(first[to_slices(geometry).axes[0]]),
        mean_hu=None if values is None else float(values.mean()),
        sd_hu=None if values is None else float(values.std()),
        centroid_ras=(r, a, s),
    )


def _largest_section(slices: Mask) -> tuple[int, Mask]:
    """Return the connected part of a slice that is the largest of all, alone in its array."""
    structure = np.zeros((3, 3, 3), bool)
    structure[1] = True  # within a slice, by a corner too
    numbered, _ = ndimage.label(slices, structure)
    largest = 1 + int(np.argmax(np.bincount(numbered.ravel())[1:]))
    part: Mask = numbered == largest
    index = int(np.flatnonzero(part.any(axis=(1, 2)))[0])
    return index, part[index : index + 1]


def _surface_centres(mask: Mask, geometry: Geometry) -> NDArray[np.float64]:
    """Return the centres of the voxels at the surface, in mm from the first voxel of the grid."""
    around = ndimage.generate_binary_structure(3, 1)
    if len(mask) == 1:  # a slice: its edge
        around = around[1:2]
    kji = np.argwhere(mask ^ ndimage.binary_erosion(mask, around))
    centres: NDArray[np.float64] = kji[:, ::-1] @ geometry.ijk_to_ras[:3, :3].T
    return centres


def _farthest(points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest distance of two points, at least two, and its direction."""
    corners = _hull(points) if len(points) > _MANY_POINTS else points
    distances = pdist(corners)
    first, second = _pair(int(np.argmax(distances)), len(corners))
    length = float(distances.max())
    return length, (corners[first] - corners[second]) / length


def _widest(along: NDArray[np.float64], across: NDArray[np.float64], step_mm: float) -> float:
    """Return the largest extent across of points whose places along share a step."""
    steps = np.floor((along - along.min()) / step_mm + 1e-6).astype(int)
    lowest = np.full(steps.max() + 1, np.inf)
    highest = -lowest
    np.minimum.at(lowest, steps, across)
    np.maximum.at(highest, steps, across)
    return float((highest - lowest).max())


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    # "QJ" moves the points by rounding errors: points in one plane have a hull too.
    return np.asarray(points[ConvexHull(points, qhull_options="QJ").vertices])


def _pair(index: int, count: int) -> tuple[int, int]:
    rows, columns = np.triu_indices(count, 1)
    return int(rows[index]), int(columns[index])


def _reach_along(direction: NDArray[np.float64], geometry: Geometry) -> float:
    """Return how far a voxel reaches along a direction of length 1: the length of its box's cut."""
    in_voxels = np.abs(np.linalg.inv(geometry.ijk_to_ras[:3, :3]) @ direction)
    return float(1.0 / in_voxels.max())
