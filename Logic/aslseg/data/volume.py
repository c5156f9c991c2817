"""The vocabulary of images: where voxels lie, and what they hold.

Axes, everywhere in this library: arrays are `(D, H, W)`, indexed `(k, j, i)`; `spacing_mm` has the
same order; an index *point* is `(i, j, k)` and a world point is RAS in mm (right, anterior,
superior), both from voxel centres. Tensors are `(B, C, D, H, W)` or `(B, C, H, W)`;
a SAM point is `(x, y)` in pixels.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]


Mask: TypeAlias = NDArray[np.bool_]


Labels: TypeAlias = NDArray[np.uint8]


Shape3: TypeAlias = tuple[int, int, int]


Spacing3: TypeAlias = tuple[float, float, float]


# What to go by when a label map has the size of its image and another position: nothing, so that it
# is refused; its voxels, as if its header was that of the image; or its header.
SameSize: TypeAlias = Literal["refuse", "voxels", "header"]


SAME_CORNER = 0.01
"""Largest distance of two corners of one grid, as a part of the smallest voxel edge."""


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Where the voxels of a volume lie in the patient.

    Attributes:
        shape: Number of voxels along (k, j, i).
        ijk_to_ras: (4, 4) affine from the index (i, j, k, 1) of a voxel's centre to RAS mm.
    """

    shape: Shape3
    ijk_to_ras: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse what is no invertible affine of a non-empty grid."""
        affine = np.array(self.ijk_to_ras, dtype=np.float64)
        if np.shape(affine) != (4, 4) or not np.isfinite(affine).all():
            msg = f"ijk_to_ras must be a finite 4 x 4 matrix, got shape {affine.shape}."
            raise ValueError(msg)
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            msg = "ijk_to_ras is singular: two voxel axes are parallel or a spacing is zero."
            raise ValueError(msg)
        if min(self.shape) < 1:
            msg = f"shape must be three positive numbers (D, H, W), got {self.shape}."
            raise ValueError(msg)
        affine.setflags(write=False)
        object.__setattr__(self, "ijk_to_ras", affine)

    @classmethod
    def axis_aligned(cls, shape: Shape3, spacing_mm: Spacing3 = (1.0, 1.0, 1.0)) -> Geometry:
        """Build the geometry of a grid whose axes are left, posterior and superior (LPS).

        Args:
            shape: (D, H, W).
            spacing_mm: Voxel edge along (k, j, i).
        """
        k, j, i = spacing_mm
        return cls(shape, np.diag([-i, -j, k, 1.0]))

    @property
    def spacing_mm(self) -> Spacing3:
        """Voxel edge lengths along (k, j, i)."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(k), float(j), float(i)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000.0

    def matches(self, other: Geometry) -> bool:
        """Tell whether both grids are the same: no corners lie further apart than `SAME_CORNER`."""
        if self.shape != other.shape:
            return False
        extent = np.array([*(n - 1 for n in self.shape[::-1]), 1.0])
        corners = np.array(np.meshgrid(*[(0, 1)] * 3, [1])).reshape(4, -1) * extent[:, None]
        distance = np.abs((self.ijk_to_ras - other.ijk_to_ras) @ corners).max()
        return bool(distance <= SAME_CORNER * min(self.spacing_mm))


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A scalar image.

    Attributes:
        voxels: (D, H, W), any real dtype; for CT the unit is HU.
        geometry: Where they lie.
        given: By target name, (D, H, W) masks of organs that came with the image: they are not
            predicted, and stay as they are in every result.
    """

    voxels: NDArray[Any]
    geometry: Geometry
    given: Mapping[str, Mask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an array that is not of the geometry's shape."""
        for array in (self.voxels, *self.given.values()):
            _check_shape(array, self.geometry)

    @property
    def is_ct(self) -> bool:
        """Whether values go below zero, as HU do and the grey values of MRI do not."""
        return bool(self.voxels.min() < 0)


@dataclass(frozen=True, slots=True, eq=False)
class Labelmap:
    """One class per voxel.

    Attributes:
        labels: (D, H, W) uint8; 0 is background.
        geometry: Where they lie.
    """

    labels: Labels
    geometry: Geometry

    def __post_init__(self) -> None:
        """Refuse an array of another shape or type."""
        _check_shape(self.labels, self.geometry)
        if self.labels.dtype != np.uint8:
            msg = f"labels must be uint8, got {self.labels.dtype}."
            raise TypeError(msg)

    def without(self, left_out: Mask) -> Labelmap:
        """Return a label map that is empty in a mask of its shape."""
        return Labelmap(np.where(left_out, np.uint8(0), self.labels), self.geometry)


def _check_shape(array: NDArray[Any], geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        msg = f"Array {array.shape} and geometry {geometry.shape} must have one shape."
        raise ValueError(msg)


Float32 = NDArray[np.float32]


Scalar = TypeVar("Scalar", bound=np.generic)


_LARGE_BYTES = 64 << 20


def zeros(shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> NDArray[Any]:
    """Return zeros for a whole volume, which take memory only where they are written.

    A large array is mapped by itself: the system gives its pages as they are written and takes
    them back when it goes, however the allocator of the process is tuned.

    Args:
        shape: Of the array, such as (D, H, W).
        dtype: Of its elements.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE_BYTES:
        return np.zeros(shape, dtype)
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    return np.frombuffer(mmap.mmap(-1, size, **private), dtype).reshape(shape)


def give_back_memory() -> None:
    """Hand freed memory back to the system now; does nothing where there is no glibc.

    Between volumes: what each leaves in pieces between longer-lived objects would add up over many.
    """
    found = ctypes.CDLL(None) if os.name == "posix" else None
    malloc_trim = getattr(found, "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
