"""What ITK does not tell about NIfTI files.

It reads a file that was cut off without a word and gives zeros for what is missing; it makes zeros
of NaN and infinity; and when the disk is full, it writes half a file without a word. So length and
numbers are checked here.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.errors import ImageError

_CHUNK_BYTES = 1 << 22
_FLOAT_BYTES = {16: 4, 64: 8}  # of the data types of NIfTI
_HEADER_SIZES = (348, 540)  # of NIfTI-1 and NIfTI-2; they also tell the order of bytes


def check_complete(path: Path, reader: Any) -> None:
    """Refuse a NIfTI file that is shorter than its header says; other formats tell by themselves.

    Args:
        path: The file.
        reader: A SimpleITK reader that has read its header.

    Raises:
        ImageError: When the file is cut off.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    if not _holds(path, _expected_bytes(reader)):
        msg = f"{path} is cut off: it is shorter than its header says; copy or export it again."
        raise ImageError(msg)


def check_finite(path: Path, reader: Any) -> None:
    """Refuse a NIfTI file with NaN or infinity in it; other formats give them as they are.

    Args:
        path: A file that is complete.
        reader: A SimpleITK reader that has read its header.

    Raises:
        ImageError: When there is such a voxel.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    width = _FLOAT_BYTES.get(int(reader.GetMetaData("datatype")))
    if width is not None and not _all_finite(path, reader, width):
        msg = f"{path} holds voxels that are no numbers (NaN or infinity); repair or leave it out."
        raise ImageError(msg)


def _expected_bytes(reader: Any) -> int:
    voxels = 1
    for axis in range(1, 1 + int(reader.GetMetaData("dim[0]"))):
        voxels *= max(int(reader.GetMetaData(f"dim[{axis}]")), 1)
    return _header_bytes(reader) + voxels * int(reader.GetMetaData("bitpix")) // 8


def _header_bytes(reader: Any) -> int:
    return int(float(reader.GetMetaData("vox_offset")))


def _holds(path: Path, expected: int) -> bool:
    if not _is_compressed(path):
        return path.stat().st_size >= expected
    # The last four bytes of a whole gzip file are its length; other bytes hardly ever equal it.
    # A file in several gzip members is read to its end instead.
    return _gzip_trailer(path) == expected % (1 << 32) or _unpacked_bytes(path) >= expected


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _all_finite(path: Path, reader: Any, width: int) -> bool:
    left = _expected_bytes(reader)
    with gzip.open(path) if _is_compressed(path) else path.open("rb") as stream:
        start = stream.read(_header_bytes(reader))
        order = "<" if int.from_bytes(start[:4], "little") in _HEADER_SIZES else ">"
        left -= len(start)
        while chunk := stream.read(min(_CHUNK_BYTES, left)):
            left -= len(chunk)
            if not np.isfinite(np.frombuffer(chunk, f"{order}f{width}")).all():
                return False
    return True


def _gzip_trailer(path: Path) -> int:
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(4), "little")


def _unpacked_bytes(path: Path) -> int:
    total = 0
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                total += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return -1
    return total
