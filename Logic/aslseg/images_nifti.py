"""Whether a NIfTI file is whole.

ITK reads a NIfTI file that was cut off without a word and gives zeros for what is missing; and when
the disk is full, it writes such a file without a word. So the length is checked here.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from aslseg.errors import ImageError

_CHUNK_BYTES = 1 << 22


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


def _expected_bytes(reader: Any) -> int:
    voxels = 1
    for axis in range(1, 1 + int(reader.GetMetaData("dim[0]"))):
        voxels *= max(int(reader.GetMetaData(f"dim[{axis}]")), 1)
    header = int(float(reader.GetMetaData("vox_offset")))
    return header + voxels * int(reader.GetMetaData("bitpix")) // 8


def _holds(path: Path, expected: int) -> bool:
    with path.open("rb") as stream:
        is_compressed = stream.read(2) == b"\x1f\x8b"
    if not is_compressed:
        return path.stat().st_size >= expected
    # The last four bytes of a whole gzip file are its length; other bytes hardly ever equal it.
    # A file in several gzip members is read to its end instead.
    return _gzip_trailer(path) == expected % (1 << 32) or _unpacked_bytes(path) >= expected


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
