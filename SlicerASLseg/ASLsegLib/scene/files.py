"""Which file the engine reads for a volume node: the one it came from, or a copy of its voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np

from aslseg.data.volume import Volume
from aslseg.errors import ImageError, StorageError
from ASLsegLib.scene.volumes import geometry_of, volume_of


def own_file(volume: Any) -> Path | None:
    """Return the file that a volume node was read from, if that is still what the node shows."""
    from aslseg.data.images import read_geometry

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


def file_for(volume: Any, folder: Path) -> tuple[Path, Callable[[], None] | None]:
    """Return the file to read a volume from, and what has to be called in a thread before.

    Args:
        volume: Volume node.
        folder: Where to write its voxels if need be. They are written again when they or their
            place have changed; until then the engine goes on with what it has read.
    """
    own = own_file(volume)
    if own is not None:
        return own, None
    image = volume_of(volume)
    place = crc32(image.geometry.ijk_to_ras.tobytes())
    path = folder / f"image-{volume.GetImageData().GetMTime()}-{place:08x}.nrrd"
    return path, None if path.exists() else lambda: _replace_copies(image, path)


def _replace_copies(volume: Volume, path: Path) -> None:
    from aslseg.storage import atomic_path

    for old in path.parent.glob("image-*.nrrd"):
        old.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        write_raw(volume, temporary)


_TYPES = {
    "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32",
    "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float32": "float",
    "float64": "double",
}  # fmt: skip


_CHUNK_BYTES = 8 << 20


_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def write_raw(volume: Volume, path: Path, *, new: bool = False) -> None:
    """Write a volume as NRRD without compression.

    Args:
        volume: What to write; it must not change meanwhile.
        path: Ends in .nrrd.
        new: Refuse a file that is there; whatever cannot be written whole is deleted again then.

    Raises:
        StorageError: When the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb" if new else "wb") as file:
            _write_into(file, volume)
    except FileExistsError as error:
        msg = f"{path} is there already and is left as it is; choose another name."
        raise StorageError(msg) from error
    except OSError as error:
        if new:
            path.unlink(missing_ok=True)
        msg = f"Cannot write {path}: {error.strerror}; free some space or choose another folder."
        raise StorageError(msg) from error


def _write_into(file: BinaryIO, volume: Volume) -> None:
    flat = np.ascontiguousarray(volume.voxels).reshape(-1).data.cast("B")
    file.write(_header(volume).encode())
    for start in range(0, len(flat), _CHUNK_BYTES):
        file.write(flat[start : start + _CHUNK_BYTES])


def _header(volume: Volume) -> str:
    slices, rows, columns = volume.voxels.shape
    affine = volume.geometry.ijk_to_ras
    axes = [_vector(_RAS_TO_LPS @ affine[:3, axis]) for axis in range(3)]
    lines = [
        "NRRD0004",
        f"type: {_TYPES[volume.voxels.dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {columns} {rows} {slices}",
        f"space directions: {' '.join(axes)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(_RAS_TO_LPS @ affine[:3, 3])}",
    ]
    return "\n".join(lines) + "\n\n"


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
