"""Which file the engine reads for a volume node: the one it came from, or a copy of its voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from aslseg.errors import ImageError
from ASLsegLib.handover import write_raw
from ASLsegLib.scene import geometry_of, volume_of


def own_file(volume: Any) -> Path | None:
    """Return the file that a volume node was read from, if that is still what the node shows."""
    from aslseg.images import read_geometry

    storage = volume.GetStorageNode()
    if storage is None or storage.GetNumberOfFileNames() > 1 or volume.GetModifiedSinceRead():
        return None  # more than one file name means a series
    path = Path(storage.GetFileName() or "")
    if not path.is_file():
        return None
    try:
        return path if read_geometry(path).matches(geometry_of(volume)) else None
    except ImageError:
        return None


def file_for(volume: Any, place: Path) -> tuple[Path, Callable[[], None] | None]:
    """Return the file to read a volume from, and what has to be called in a thread before.

    Args:
        volume: Volume node.
        place: Where to write its voxels if need be; ends in .nrrd.
    """
    path = own_file(volume)
    if path is not None:
        return path, None
    image = volume_of(volume)
    return place, lambda: write_raw(image, place)
