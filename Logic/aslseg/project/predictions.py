"""Label maps that a run has written of a case: they lie on the voxels of its image, or are refused.

Unlike label maps of people they are never fitted: what lies elsewhere is of another volume.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aslseg.data.images import read_labelmap_on
from aslseg.data.volume import Geometry, Labelmap
from aslseg.project.run_tables import PREDICTIONS


def read_prediction(path: Path, geometry: Geometry) -> Labelmap:
    """Read a label map that a run has written of a case.

    Args:
        path: The file.
        geometry: Of the case's image.

    Raises:
        ImageError: When it is missing or damaged.
        GeometryMismatchError: When it lies on other voxels than the image.
    """
    remedy = "restore it, or delete its folder and resume the run"
    return read_labelmap_on(
        path, geometry, otherwise=f"its case, so it is no prediction of it; {remedy}"
    )


def read_predictions(
    folder: Path, geometry: Geometry, sources: Iterable[str] = PREDICTIONS
) -> dict[str, Labelmap]:
    """Read the label maps of a case that there are, by source, in the order they are made in.

    Args:
        folder: Of the case's predictions.
        geometry: Of the case's image.
        sources: Those that are wanted.

    Raises:
        ImageError: As `read_prediction`.
    """
    files = {source: folder / f"{source}.nii.gz" for source in sources}
    return {
        source: read_prediction(path, geometry) for source, path in files.items() if path.exists()
    }
