"""A ROI cut into tiles of the size of a network's training patches, and put together again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.data.volume import Float32
from aslseg.preprocessing.roi import Roi


@dataclass(frozen=True, slots=True)
class Tile:
    """A square of a ROI's plane; it may reach beyond a ROI that is smaller than itself.

    Attributes:
        row: Of the ROI, where the tile begins.
        column: Of the ROI, where the tile begins.
        edge: In pixels.
    """

    row: int
    column: int
    edge: int

    def cut(self, plane: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return (edge, edge) of a plane (h, w), whose border is repeated beyond it."""
        rows = np.clip(np.arange(self.row, self.row + self.edge), 0, plane.shape[0] - 1)
        columns = np.clip(np.arange(self.column, self.column + self.edge), 0, plane.shape[1] - 1)
        return plane[np.ix_(rows, columns)]

    def inside(self, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of a plane (h, w) under the tile, and the tile's part on the plane."""
        spans = []
        for start, length in zip((self.row, self.column), shape, strict=True):
            first, last = max(start, 0), min(start + self.edge, length)
            spans.append((slice(first, last), slice(first - start, last - start)))
        return (spans[0][0], spans[1][0]), (spans[0][1], spans[1][1])

    def to_slice(self, xy: tuple[float, float], roi: Roi) -> tuple[float, float]:
        """Map a point of the tile to the volume's slice; centres of pixels are at half numbers."""
        x, y = xy[0] + self.column, xy[1] + self.row
        return _stretch(x, roi, 2), _stretch(y, roi, 1)

    def from_slice(self, xy: tuple[float, float], roi: Roi) -> tuple[float, float]:
        """Map a point of the volume's slice to the tile."""
        x, y = _shrink(xy[0], roi, 2), _shrink(xy[1], roi, 1)
        return x - self.column, y - self.row

    def holds(self, xy: tuple[float, float]) -> bool:
        """Tell whether a point of the tile's coordinates lies on it."""
        return all(0 <= at < self.edge for at in xy)


def tiles_of(roi: Roi, edge: int) -> list[Tile]:
    """Cover the planes of a ROI with as few tiles as possible, evenly spread."""
    rows, columns = (_starts(length, edge) for length in roi.image.shape[1:])
    return [Tile(row, column, edge) for row in rows for column in columns]


def slice_of(plane: int, roi: Roi) -> int:
    """Return the volume's slice that the middle of a ROI's plane lies in."""
    return math.floor(_stretch(plane + 0.5, roi, 0))


def planes_on(k: int, roi: Roi) -> list[int]:
    """Return the planes of a ROI that lie on a slice of the volume, or else the nearest one."""
    planes = range(roi.image.shape[0])
    on_it = [plane for plane in planes if slice_of(plane, roi) == k]
    return on_it or [min(planes, key=lambda plane: abs(slice_of(plane, roi) - k))]


class TileAggregator:
    """Class probabilities of a ROI, averaged where tiles overlap.

    Args:
        roi: Whose planes are put together.
        classes: How many, the background included.
    """

    def __init__(self, roi: Roi, classes: int) -> None:
        self._sum = np.zeros((classes, *roi.image.shape), np.float32)
        self._count = np.zeros(roi.image.shape, np.float32)

    def add(self, plane: int, tile: Tile, probability: Float32) -> None:
        """Add (classes, edge, edge) of a tile."""
        there, here = tile.inside(self._count.shape[1:])
        self._sum[(slice(None), plane, *there)] += probability[(slice(None), *here)]
        self._count[(plane, *there)] += 1

    def mean(self) -> Float32:
        """Return (classes, d, h, w); zero where no tile was added."""
        return np.divide(self._sum, np.maximum(self._count, 1), dtype=np.float32)


def _starts(length: int, edge: int) -> list[int]:
    if length <= edge:
        return [-((edge - length) // 2)]
    return [round(at) for at in np.linspace(0, length - edge, math.ceil(length / edge))]


def _stretch(at: float, roi: Roi, axis: int) -> float:
    part = roi.box.slices[axis]
    return float(part.start + at * (part.stop - part.start) / roi.image.shape[axis])


def _shrink(at: float, roi: Roi, axis: int) -> float:
    part = roi.box.slices[axis]
    return float((at - part.start) * roi.image.shape[axis] / (part.stop - part.start))
