"""Volumes on their way to the engine: uncompressed files, written without stopping the application.

NRRD with raw data is what a disk writes fastest, and writing lets go of Python's lock: in a thread
it does not hold up the application, however large the volume is.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from aslseg.errors import StorageError
from aslseg.volume import Volume

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
    flat = memoryview(np.ascontiguousarray(volume.voxels).reshape(-1)).cast("B")
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
