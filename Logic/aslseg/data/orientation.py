"""One anatomical orientation for all that learns: axial slices, axes left-posterior-superior.

A volume may be stored along any anatomical axes. Networks, SAM and prompts work on its *axial
grid*: k runs to superior, j to posterior, i to left (LPS), each by the stored axis that is nearest.
The way there is a permutation of axes with some of them mirrored: no voxel is interpolated, and the
way back is exact. An oblique volume stays oblique.

What leaves the library is in the voxels of the file again. Numbers of slices and pixels of prompts
there count the file's own voxels, on its *slice grid*: the stored axis nearest to superior comes
first, the other two follow in the stored order, nothing is mirrored. For a file of axial slices
these are its k, j and i.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aslseg.data.volume import Geometry, Labelmap, Shape3, Volume

Scalar = TypeVar("Scalar", bound=np.generic)
Axes = tuple[int, int, int]

ORIENTATION = "LPS"
"""Of the axial grid; a run notes it, for its networks know no other."""

_TIE = 1e-3  # choices nearer to each other than this are equal: headers are rounded


@dataclass(frozen=True, slots=True)
class Turn:
    """An exact change of grid: axes in another order, some of them mirrored.

    Attributes:
        axes: Axis n of the result is axis `axes[n]` of the source; arrays are (k, j, i).
        mirrored: Whether axis n of the result runs against it.
    """

    axes: Axes = (0, 1, 2)
    mirrored: tuple[bool, bool, bool] = (False, False, False)

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.axes == (0, 1, 2) and not any(self.mirrored)

    @property
    def inverse(self) -> Turn:
        """The way back."""
        k, j, i = (self.axes.index(axis) for axis in range(3))
        return Turn((k, j, i), (self.mirrored[k], self.mirrored[j], self.mirrored[i]))

    def then(self, other: Turn) -> Turn:
        """Return this turn followed by another one."""
        k, j, i = (self.axes[axis] for axis in other.axes)
        a, b, c = (
            self.mirrored[axis] != mirrored
            for axis, mirrored in zip(other.axes, other.mirrored, strict=True)
        )
        return Turn((k, j, i), (a, b, c))

    def array(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn a (D, H, W) array; the result shares its memory."""
        steps = tuple(slice(None, None, -1 if mirrored else 1) for mirrored in self.mirrored)
        return array.transpose(self.axes)[steps]

    def shape(self, shape: Shape3) -> Shape3:
        """Return the shape of a turned array."""
        k, j, i = (shape[axis] for axis in self.axes)
        return k, j, i

    def geometry(self, geometry: Geometry) -> Geometry:
        """Return where the turned voxels lie: where they did."""
        if self.is_identity:
            return geometry
        step = np.zeros((4, 4))  # from the index (i, j, k, 1) of the result to that of the source
        step[3, 3] = 1.0
        for n, (axis, mirrored) in enumerate(zip(self.axes, self.mirrored, strict=True)):
            step[2 - axis, 2 - n] = -1.0 if mirrored else 1.0
            step[2 - axis, 3] = geometry.shape[axis] - 1 if mirrored else 0.0
        return Geometry(self.shape(geometry.shape), geometry.ijk_to_ras @ step)

    def volume(self, volume: Volume) -> Volume:
        """Turn an image with its masks; one that need not be turned is returned itself."""
        if self.is_identity:
            return volume
        voxels = np.ascontiguousarray(self.array(volume.voxels))
        given = {n: np.ascontiguousarray(self.array(mask)) for n, mask in volume.given.items()}
        return Volume(voxels, self.geometry(volume.geometry), given)

    def labelmap(self, labelmap: Labelmap, geometry: Geometry | None = None) -> Labelmap:
        """Turn a label map.

        Args:
            labelmap: On the source grid.
            geometry: The result's, where it is known: it need not be computed and rounded again.
        """
        labels = labelmap.labels
        if not self.is_identity:
            labels = np.ascontiguousarray(self.array(labels))
        return Labelmap(labels, geometry or self.geometry(labelmap.geometry))

    def index(self, slice_index: int, depth: int) -> int:
        """Return the number of a slice on the result, if both first axes are one.

        Args:
            slice_index: Number on the source.
            depth: How many slices there are.
        """
        return depth - 1 - slice_index if self.mirrored[0] else slice_index


UNTURNED = Turn()


def to_axial(geometry: Geometry) -> Turn:
    """Return the turn from a volume as it is stored to its axial grid."""
    directions = geometry.ijk_to_ras[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    # Cosines of superior, posterior, left (rows) with the stored axes k, j, i (columns).
    cosines = (directions * [[-1.0], [-1.0], [1.0]])[::-1, ::-1]
    choices = [(k, j, i) for k, j, i in permutations((0, 1, 2))]
    scores = [float(np.abs(cosines[(0, 1, 2), axes]).sum()) for axes in choices]
    axes = next(a for a, s in zip(choices, scores, strict=True) if s >= max(scores) - _TIE)
    s, p, left = (bool(cosines[n, axis] < 0) for n, axis in enumerate(axes))
    return Turn(axes, (s, p, left))


def axis_names(geometry: Geometry) -> str:
    """Return where i, j and k of a volume run to, by the nearest letters: LPS or RAS, say."""
    turn = to_axial(geometry)
    named = {
        axis: pair[mirrored]
        for axis, mirrored, pair in zip(turn.axes, turn.mirrored, ("SI", "PA", "LR"), strict=True)
    }
    return named[2] + named[1] + named[0]


def to_slices(geometry: Geometry) -> Turn:
    """Return the turn from a volume as it is stored to its slice grid."""
    first = to_axial(geometry).axes[0]
    second, third = (axis for axis in range(3) if axis != first)
    return Turn((first, second, third))


def axial_to_slices(geometry: Geometry) -> Turn:
    """Return the turn from a volume's axial grid to its slice grid.

    Args:
        geometry: Of the volume as it is stored.
    """
    return to_axial(geometry).inverse.then(to_slices(geometry))


def axial_volume(volume: Volume) -> Volume:
    """Return a volume on its axial grid; one that is axial already is returned itself."""
    return to_axial(volume.geometry).volume(volume)


def axial_labelmap(labelmap: Labelmap) -> Labelmap:
    """Return a label map on its axial grid."""
    return to_axial(labelmap.geometry).labelmap(labelmap)
