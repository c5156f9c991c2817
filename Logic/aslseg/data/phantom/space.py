"""The drawing board of the phantom: shapes as signed distances in mm, painted with soft edges.

A *field* is an array of distances in mm, negative inside of a shape. Points are `(x, y, z)` in mm
from the middle of the volume: x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aslseg.data.volume import FloatArray, Geometry, Shape3

Field: TypeAlias = FloatArray
Point: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice, slice]

EVERYWHERE: Box = (slice(None), slice(None), slice(None))
EDGE_MM = 2.0
WARP_MM = 7.0
REACH_MM = 3.0 * WARP_MM


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Where each voxel of a grid lies in the body, bent a little so that no shape is a textbook's.

    Attributes:
        x: (D, H, W) mm to the patient's left.
        y: (D, H, W) mm to the back.
        z: (D, H, W) mm to the head.
        axes_mm: The same along each axis (k, j, i), unbent.
    """

    x: Field
    y: Field
    z: Field
    axes_mm: tuple[Field, Field, Field]

    @property
    def shape(self) -> Shape3:
        """(D, H, W)."""
        d, h, w = self.x.shape
        return d, h, w

    def box_around(self, centre: Point, reach_mm: Point) -> Box:
        """Return the part of the grid that a bent shape of this half-size can touch."""
        slices = []
        for axis, middle, reach in zip(self.axes_mm, centre[::-1], reach_mm[::-1], strict=True):
            low, high = np.searchsorted(
                axis, (middle - reach - REACH_MM, middle + reach + REACH_MM)
            )
            slices.append(slice(int(low), int(high)))
        return slices[0], slices[1], slices[2]

    def within(self, box: Box) -> Space:
        """Return the part of the space inside a box."""
        k, j, i = (axis[part] for axis, part in zip(self.axes_mm, box, strict=True))
        return Space(self.x[box], self.y[box], self.z[box], (k, j, i))


def make_space(geometry: Geometry, rng: np.random.Generator) -> Space:
    """Lay the body's coordinates over a grid, bent by a smooth random displacement."""
    axes = [
        ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)
        for count, step in zip(geometry.shape, geometry.spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    bends = [WARP_MM * smooth_noise(rng, axes, scale_mm=110.0) for _ in range(3)]
    return Space(x + bends[0], y + bends[1], z + bends[2], (axes[0], axes[1], axes[2]))


def smooth_noise(
    rng: np.random.Generator, axes_mm: list[Field] | tuple[Field, ...], *, scale_mm: float
) -> Field:
    """Draw a random field of about unit spread that changes over `scale_mm`.

    It is a sum of cosines with Gaussian-damped random weights, so it costs next to nothing.

    Returns:
        (D, H, W) float32.
    """
    bases = [_cosines(axis, scale_mm) for axis in axes_mm]
    field = rng.standard_normal([len(basis) for basis in bases]).astype(np.float32)
    for basis in bases:
        field = np.tensordot(field, basis, axes=(0, 0))  # the contracted axis comes back last
    return np.asarray(field, dtype=np.float32)


def _cosines(axis_mm: Field, scale_mm: float) -> Field:
    # The period is fixed in mm, so that another grid over the same body shows the same shapes.
    span = 400.0
    count = max(2, round(2.0 * span / scale_mm))
    order = np.arange(count, dtype=np.float32)[:, None]
    damping = np.exp(-0.5 * (order * scale_mm / span) ** 2)
    damping /= np.sqrt((damping**2 * np.where(order == 0, 1.0, 0.5)).sum())
    waves = damping * np.cos(np.pi * order * (axis_mm[None] / span + 0.5))
    return np.asarray(waves, dtype=np.float32)


def ellipsoid(space: Space, centre: Point, radii_mm: Point) -> Field:
    """Return the approximate distance in mm from an ellipsoid with axes along x, y and z."""
    offsets = (space.x - centre[0], space.y - centre[1], space.z - centre[2])
    scaled = [offset / radius for offset, radius in zip(offsets, radii_mm, strict=True)]
    near = np.sqrt(sum(part * part for part in scaled) + 1e-9)
    slope = np.sqrt(
        sum((part / radius) ** 2 for part, radius in zip(scaled, radii_mm, strict=True)) + 1e-12
    )
    return np.asarray(near * (near - 1.0) / slope, dtype=np.float32)


def capsule(space: Space, start: Point, end: Point, radius_mm: float) -> Field:
    """Return the distance in mm from a round rod between two points."""
    along = np.subtract(end, start, dtype=np.float32)
    x, y, z = space.x - start[0], space.y - start[1], space.z - start[2]
    share = (x * along[0] + y * along[1] + z * along[2]) / max(float(along @ along), 1e-6)
    share = np.clip(share, 0.0, 1.0)
    away = (x - share * along[0]) ** 2 + (y - share * along[1]) ** 2 + (z - share * along[2]) ** 2
    return np.asarray(np.sqrt(away) - radius_mm, dtype=np.float32)


def union(first: Field, second: Field, blend_mm: float = 0.0) -> Field:
    """Join two shapes; their seam is filled over `blend_mm`."""
    if blend_mm <= 0.0:
        return np.asarray(np.minimum(first, second))
    near = np.maximum(blend_mm - np.abs(first - second), 0.0) / blend_mm
    return np.asarray(np.minimum(first, second) - 0.25 * blend_mm * near**2, dtype=np.float32)


def without(shape: Field, hole: Field, gap_mm: float = 0.0) -> Field:
    """Cut a hole and a gap around it out of a shape."""
    return np.asarray(np.maximum(shape, gap_mm - hole))


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """A CT image in the making.

    Attributes:
        hu: (D, H, W) float32, changed by each stroke.
        space: Where its voxels lie.
    """

    hu: Field
    space: Space

    def paint(self, field: Field, hu: float | NDArray[Any], box: Box = EVERYWHERE) -> None:
        """Fill a shape; voxels that it covers in part get their share of it."""
        cover = np.clip(0.5 - field / EDGE_MM, 0.0, 1.0)
        part = self.hu[box]
        part += cover * (hu - part)

    def ellipsoid(self, centre: Point, radii_mm: Point, hu: float) -> None:
        """Paint an ellipsoid."""
        box = self.space.box_around(centre, radii_mm)
        self.paint(ellipsoid(self.space.within(box), centre, radii_mm), hu, box)

    def rod(self, start: Point, end: Point, radius_mm: float, hu: float) -> None:
        """Paint a round rod."""
        box = self.box_of_rod(start, end, radius_mm)
        self.paint(capsule(self.space.within(box), start, end, radius_mm), hu, box)

    def box_of_rod(self, start: Point, end: Point, radius_mm: float) -> Box:
        """Return the part of the grid that a rod can touch."""
        middle = tuple((a + b) / 2 for a, b in zip(start, end, strict=True))
        reach = tuple(abs(a - b) / 2 + radius_mm for a, b in zip(start, end, strict=True))
        return self.space.box_around(
            (middle[0], middle[1], middle[2]), (reach[0], reach[1], reach[2])
        )
