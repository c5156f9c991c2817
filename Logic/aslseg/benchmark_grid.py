"""Copies of the cases on a coarser grid, made once for all cells: fewer voxels, shorter runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from aslseg.benchmark_data import BenchmarkData
from aslseg.events import Monitor
from aslseg.geometry import resample_labels
from aslseg.images import read_volume, write_labelmap, write_volume
from aslseg.orientation import to_axial
from aslseg.project import CaseFiles
from aslseg.project_labels import load_labels
from aslseg.views import resample
from aslseg.volume import Geometry, Shape3, Volume


def on_grid(
    data: BenchmarkData,
    folder: Path,
    spacing_mm: tuple[float, float, float] | None,
    monitor: Monitor | None = None,
) -> BenchmarkData:
    """Return the cases with voxels of no less than a size, written to a folder.

    Copies that are there already are not made again. Label maps of held-out cases are not copied.

    Args:
        data: Cases as they were given.
        folder: Where the copies go: `images` and, apart from them, `labels`.
        spacing_mm: Least voxel edges along (k, j, i) of the axial grid; None leaves the cases as
            they are.
        monitor: Told of the progress.

    Raises:
        ImageError: When a file cannot be read.
        StorageError: When the folder cannot be written.
    """
    if spacing_mm is None:
        return data
    tracked = (monitor or Monitor()).track(data.cases, "Making coarser copies")
    cases = tuple(_coarser_case(case, data, folder, spacing_mm) for case in tracked)
    return replace(data, cases=cases)


def coarser(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """Return a grid over the same extent whose voxels have no less than these edges.

    Args:
        geometry: The grid to start from; axes that are coarser already stay.
        spacing_mm: Along (k, j, i).
    """
    pairs = zip(geometry.shape, geometry.spacing_mm, spacing_mm, strict=True)
    depth, height, width = (max(1, int(n * min(old / new, 1.0))) for n, old, new in pairs)
    shape: Shape3 = (depth, height, width)
    factors = [old / new for old, new in zip(geometry.shape[::-1], shape[::-1], strict=True)]
    step = np.diag([*factors, 1.0])
    step[:3, 3] = [(factor - 1) / 2 for factor in factors]
    return Geometry(shape, geometry.ijk_to_ras @ step)


def _coarser_case(
    case: CaseFiles, data: BenchmarkData, folder: Path, spacing_mm: tuple[float, float, float]
) -> CaseFiles:
    name = f"{case.id}.nii.gz"
    image, label = folder / "images" / name, folder / "labels" / name
    given = None if case.id in data.held_out else case.label
    made = replace(case, image=image, label=None if given is None else label)
    if image.exists():  # written last
        return made
    stored = read_volume(case.image)
    turn = to_axial(stored.geometry)
    volume, back = turn.volume(stored), turn.inverse
    grid = coarser(volume.geometry, spacing_mm)
    if given is not None:
        labels = load_labels(
            given, stored.geometry, data.targets, same_size=case.same_size, ignored=case.ignored
        )
        write_labelmap(back.labelmap(resample_labels(labels, grid)), label)
    voxels = resample(volume.voxels, grid.shape, "linear")
    if np.issubdtype(volume.voxels.dtype, np.integer):
        voxels = np.rint(voxels).astype(volume.voxels.dtype)
    write_volume(back.volume(Volume(voxels, grid)), image)
    return made
