"""From voxel to patient and back, from grid to grid, and boxes within a grid."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import box_of
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry, Labelmap, SameSize, Shape3
from aslseg.errors import GeometryMismatchError

logger = logging.getLogger(__name__)


Points = NDArray[np.floating[Any]]


def ijk_to_ras(points_ijk: Points, geometry: Geometry) -> NDArray[np.float64]:
    """Map index points to the patient.

    Args:
        points_ijk: (N, 3) points (i, j, k); whole numbers are voxel centres.
        geometry: The grid.

    Returns:
        (N, 3) points in RAS mm.
    """
    return _transformed(points_ijk, geometry.ijk_to_ras)


def ras_to_ijk(points_ras: Points, geometry: Geometry) -> NDArray[np.float64]:
    """Map points of the patient to the index space of a grid.

    Args:
        points_ras: (N, 3) points in RAS mm.
        geometry: The grid.

    Returns:
        (N, 3) points (i, j, k); whole numbers are voxel centres.
    """
    inverse = np.linalg.inv(geometry.ijk_to_ras)
    return _transformed(points_ras, inverse)


def resample_labels(labelmap: Labelmap, geometry: Geometry) -> Labelmap:
    """Carry a label map to another grid: each voxel takes the label that its centre lies in.

    Args:
        labelmap: Labels on their own grid.
        geometry: The grid to carry them to.

    Returns:
        Labels on `geometry`; 0 outside of the old grid.
    """
    # Index space (k, j, i) of the new grid -> that of the old one.
    kji = (np.linalg.inv(labelmap.geometry.ijk_to_ras) @ geometry.ijk_to_ras)[[2, 1, 0, 3]]
    kji = kji[:, [2, 1, 0, 3]]
    labels = ndimage.affine_transform(
        labelmap.labels,
        kji[:3, :3],
        kji[:3, 3],
        output_shape=geometry.shape,
        order=0,
        mode="grid-constant",
    )
    return Labelmap(labels, geometry)


def fit_labels(
    labelmap: Labelmap,
    geometry: Geometry,
    name: str = "The label map",
    *,
    same_size: SameSize = "refuse",
) -> Labelmap:
    """Bring a label map onto the grid of its image.

    Args:
        labelmap: Labels on any grid.
        geometry: The grid of the image.
        name: What messages call the label map, usually its file.
        same_size: What to go by when it has the image's very size and another position.

    Returns:
        The same labels when both grids are one but for the order and sign of axes, else
        nearest-neighbour resampled ones; how much of each label is left then is logged as a
        warning.

    Raises:
        GeometryMismatchError: When it lies elsewhere, no labelled voxel lies in the image, or it
            has the size of the image, another position, and nobody said what to go by.
    """
    require_fit(
        labelmap.geometry,
        geometry,
        name,
        is_empty=not labelmap.labels.any(),
        same_size=same_size,
    )
    if labelmap.geometry.matches(geometry):
        return Labelmap(labelmap.labels, geometry)
    is_ambiguous = labelmap.geometry.shape == geometry.shape and labelmap.labels.any()
    if is_ambiguous and same_size == "voxels":
        difference = difference_of(labelmap.geometry, geometry)
        logger.warning("%s: taken voxel by voxel, not by its header (%s).", name, difference)
        return Labelmap(labelmap.labels, geometry)
    turn = to_axial(labelmap.geometry).then(to_axial(geometry).inverse)
    if turn.geometry(labelmap.geometry).matches(geometry):
        return turn.labelmap(labelmap, geometry)
    fitted = resample_labels(labelmap, geometry)
    if labelmap.labels.any() and not fitted.labels.any():
        msg = f"No labelled voxel of {name} lies within its image; {_REMEDY}."
        raise GeometryMismatchError(msg)
    logger.warning(
        "%s was resampled to the grid of its image%s.", name, _kept_text(labelmap, fitted)
    )
    return fitted


def enlarged(labelmap: Labelmap, other: Labelmap) -> Labelmap:
    """Return a label map whose grid goes on, as background, as far as another one has labels.

    Args:
        labelmap: On any grid.
        other: On the same or another grid, which shares space with it.

    Returns:
        The same labels; `labelmap` itself where it reaches as far.
    """
    box = box_of(other.labels > 0)
    if box is None:
        return labelmap
    edges = np.array([box.start, box.stop]).T[::-1] - 0.5
    reached = _corners_within(edges, other.geometry, labelmap.geometry)[:, ::-1]
    before = np.maximum(0, -np.ceil(reached.min(axis=0) - _ROUNDING)).astype(int)
    last = np.floor(reached.max(axis=0) + _ROUNDING).astype(int)
    after = np.maximum(0, last + 1 - np.array(labelmap.geometry.shape))
    if not before.any() and not after.any():
        return labelmap
    labels = np.pad(labelmap.labels, np.stack([before, after], axis=1))
    first = np.eye(4)
    first[:3, 3] = -before[::-1]
    depth, height, width = labels.shape
    shape: Shape3 = (depth, height, width)
    return Labelmap(labels, Geometry(shape, labelmap.geometry.ijk_to_ras @ first))


_ROUNDING = 1e-3
"""Of voxels: two grids that are one may differ by so much."""


_REMEDY = "choose the image that it was drawn on, or correct its origin and directions"


def require_fit(
    labels: Geometry,
    image: Geometry,
    name: str = "The label map",
    *,
    is_empty: bool = False,
    same_size: SameSize = "refuse",
) -> None:
    """Make sure that a label map can be brought onto its image, as far as their grids tell.

    Args:
        labels: Where the label map lies.
        image: Where the image lies.
        name: What messages call the label map, usually its file.
        is_empty: Whether it holds no label, and so nothing that could lie wrong.
        same_size: What to go by when it has the image's very size and another position.

    Raises:
        GeometryMismatchError: When it lies elsewhere, or has the size of the image and another
            position and nobody said what to go by.
    """
    if labels.matches(image):
        return
    if labels.shape == image.shape and not is_empty and same_size != "header":
        if same_size == "refuse":
            msg = (
                f"{name} has the size of its image but another grid "
                f"({difference_of(labels, image)}); see in a viewer what is right, then go by its "
                "voxels (aslseg init --same-size voxels) or by its header (--same-size header)."
            )
            raise GeometryMismatchError(msg)
        return
    turn = to_axial(labels).then(to_axial(image).inverse)
    if not turn.geometry(labels).matches(image) and not overlap(labels, image):
        msg = f"{name} lies elsewhere in the patient than its image; {_REMEDY}."
        raise GeometryMismatchError(msg)


def difference_of(first: Geometry, second: Geometry) -> str:
    """Say in words how two grids differ: in size, spacing, directions and position."""
    found = []
    for what, one, other in (
        ("voxels", first.shape, second.shape),
        ("mm spacing", first.spacing_mm, second.spacing_mm),
    ):
        if not np.allclose(one, other, rtol=1e-3):
            texts = (" x ".join(f"{n:.4g}" for n in sizes[::-1]) for sizes in (one, other))
            found.append(f"{' against '.join(texts)} {what}")
    one_axes, other_axes = (
        grid.ijk_to_ras[:3, :3] / grid.spacing_mm[::-1] for grid in (first, second)
    )
    if not np.allclose(one_axes, other_axes, atol=1e-3):
        found.append(f"axes {_letters(one_axes)} against {_letters(other_axes)}")
    apart_mm = np.linalg.norm(first.ijk_to_ras[:3, 3] - second.ijk_to_ras[:3, 3])
    if apart_mm > 1e-2 * min(second.spacing_mm):
        found.append(f"first voxels {apart_mm:.4g} mm apart")
    return ", ".join(found) or "rounding"


def _letters(axes: NDArray[np.float64]) -> str:
    """Name where the axes (i, j, k) point, as LPS; a tilt adds its angle."""
    letters, tilts = "", []
    for axis in axes.T:
        at = int(np.abs(axis).argmax())
        letters += ("RAS" if axis[at] > 0 else "LPI")[at]
        tilts.append(np.degrees(np.arccos(min(1.0, abs(axis[at])))))
    return letters if max(tilts) < 0.05 else f"{letters} tilted by {max(tilts):.1f} degrees"


def _kept_text(before: Labelmap, after: Labelmap) -> str:
    """Say how much of each label is left, in percent of its volume."""
    counts = [np.bincount(each.labels.ravel(), minlength=256) for each in (before, after)]
    millilitres = [
        count * each.geometry.voxel_ml for count, each in zip(counts, (before, after), strict=True)
    ]
    texts = [
        f"label {value} keeps {100 * millilitres[1][value] / millilitres[0][value]:.0f} % of its "
        "volume"
        for value in np.flatnonzero(counts[0])
        if value
    ]
    return "".join(f"; {text}" for text in texts)


def overlap(first: Geometry, second: Geometry) -> bool:
    """Tell whether two grids share space.

    Oblique grids that pass each other edge to edge may count as overlapping.
    """
    return _reaches(first, second) and _reaches(second, first)


def _transformed(points: Points, affine: Points) -> NDArray[np.float64]:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        msg = f"Points must be an (N, 3) array, got shape {points.shape}."
        raise ValueError(msg)
    moved: NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return moved


def _reaches(first: Geometry, second: Geometry) -> bool:
    """Whether the box around `first`, in the index space of `second`, meets `second`."""
    edges = np.array([[-0.5, n - 0.5] for n in first.shape[::-1]])
    within = _corners_within(edges, first, second)
    sizes = np.array(second.shape[::-1])
    return bool((within.max(axis=0) > -0.5).all() and (within.min(axis=0) < sizes - 0.5).all())


def _corners_within(edges: Points, first: Geometry, second: Geometry) -> NDArray[np.float64]:
    """Return the corners of a box in `first`, its edges as (3, 2) along (i, j, k), in `second`."""
    corners = np.array(np.meshgrid(*edges)).reshape(3, -1).T  # (8, 3) as (i, j, k)
    return ras_to_ijk(ijk_to_ras(corners, first), second)
