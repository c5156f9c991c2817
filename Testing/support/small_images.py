"""Images of a few voxels, and label maps of them, in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume

GRID = Geometry.axis_aligned((3, 6, 6), (5.0, 2.0, 2.0))


def write_image(path: Path, geometry: Geometry = GRID) -> Path:
    """Write noise that depends on the name: two volumes of one content are one image."""
    seed = sum(path.name.encode())
    voxels = np.random.default_rng(seed).integers(-100, 200, geometry.shape).astype(np.int16)
    write_volume(Volume(voxels, geometry), path)
    return path


def write_label(path: Path, *values: int, geometry: Geometry = GRID) -> Path:
    """Write a label map with a row of each value in the second slice."""
    labels = np.zeros(geometry.shape, np.uint8)
    for row, value in enumerate(values):
        labels[1, row] = value
    write_labelmap(Labelmap(labels, geometry), path)
    return path
