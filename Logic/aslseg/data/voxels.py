"""The voxels of an image file: unpacked, counted, and with the checksum of their stream."""

from __future__ import annotations

import bz2
import io
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from aslseg.data.image_header import Header, check_memory, refuse

_CHUNK_BYTES, _PACKED_BYTES = 1 << 22, 1 << 18
_GZIP = zlib.MAX_WBITS + 16  # tells zlib that a header and a checksum of gzip are around it
_AGAIN = "copy or export it again"


def read_voxels(header: Header) -> NDArray[Any]:
    """Read the voxels that a header describes.

    Args:
        header: Of a file that is checked; nothing in it is trusted but what the file then holds.

    Returns:
        (D, H, W) in the machine's order of bytes, scaled to true values.

    Raises:
        ImageError: When the file is shorter or longer than the header says, the checksum of its
            compressed stream is wrong, or it would take too much memory.
    """
    result = _result_type(header)
    voxels = header.data_bytes // header.dtype.itemsize
    check_memory(header.path, voxels, max(result.itemsize, header.dtype.itemsize))
    if header.encoding == "raw":
        _check_length(header)
    try:
        array = np.empty(voxels, header.dtype)
        with header.data.open("rb") as file:
            file.seek(header.start)
            with _STREAMS[header.encoding](file) as stream:
                _fill(stream, array.view(np.uint8).data, header)
        return _true_values(array, header, result).reshape(header.shape)
    except EOFError:
        refuse(header.path, "is cut off: its voxels end too early", _AGAIN)
    except (zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the stream
        refuse(header.path, "is damaged: its voxels cannot be unpacked", _AGAIN)


def _check_length(header: Header) -> None:
    length = header.data.stat().st_size - header.start - header.skip
    if length < header.data_bytes:
        refuse(header.path, "is cut off: it is shorter than its header says", _AGAIN)
    if length > header.data_bytes:
        refuse(header.path, "is damaged: it is longer than its header says", _AGAIN)


def _fill(stream: BinaryIO, target: memoryview, header: Header) -> None:
    """Unpack voxels to their place, and to the end of the stream, where its checksum is."""
    if header.skip and len(stream.read(header.skip)) < header.skip:
        refuse(header.path, "is cut off: it is shorter than its header says", _AGAIN)
    at = 0
    while at < len(target):
        count = stream.readinto(target[at : at + _CHUNK_BYTES])  # type: ignore[attr-defined]
        if not count:
            refuse(header.path, "is cut off: it is shorter than its header says", _AGAIN)
        at += count
    if stream.read(1):
        refuse(header.path, "is damaged: it is longer than its header says", _AGAIN)


class _Unpacked(io.RawIOBase):
    """The zlib or gzip stream that is the rest of a file.

    It reads as Python's `gzip` does, in larger pieces and so a third faster, and checks the same.
    """

    def __init__(self, file: BinaryIO, *, is_gzip: bool) -> None:
        self._file = file
        self._is_gzip = is_gzip
        self._decoder = zlib.decompressobj(_GZIP if is_gzip else zlib.MAX_WBITS)
        self._packed = b""

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def readinto(self, target: Any) -> int:
        """Unpack up to the length of `target`; 0 is the end, whose checksum was right."""
        while not self._decoder.eof or self._has_another():
            self._packed = self._packed or self._file.read(_PACKED_BYTES)
            if not self._packed:
                raise EOFError
            piece = self._decoder.decompress(self._packed, len(target))
            self._packed = self._decoder.unconsumed_tail
            if piece:
                target[: len(piece)] = piece
                return len(piece)
        return 0

    def _has_another(self) -> bool:
        """Begin the next member of a gzip file; zeros at its end are none."""
        rest = self._decoder.unused_data + self._file.read(_PACKED_BYTES)
        while self._is_gzip and rest and not rest.strip(b"\0"):
            rest = self._file.read(_PACKED_BYTES)
        if not rest:
            return False
        if not self._is_gzip:
            msg = "there are bytes after the end of the stream"
            raise zlib.error(msg)
        self._packed = rest.lstrip(b"\0")
        self._decoder = zlib.decompressobj(_GZIP)
        return True


_STREAMS: Mapping[str, Callable[[Any], Any]] = {
    "raw": lambda file: file,
    "gzip": lambda file: _Unpacked(file, is_gzip=True),
    "zlib": lambda file: _Unpacked(file, is_gzip=False),
    "bzip2": bz2.BZ2File,
}


def _result_type(header: Header) -> np.dtype[Any]:
    """Type of true values: scaled ones are float, double only where double was stored."""
    if not header.is_scaled:
        return header.dtype.newbyteorder("=")
    return np.dtype(np.float64 if header.dtype.str.endswith("f8") else np.float32)


def _true_values(array: NDArray[Any], header: Header, result: np.dtype[Any]) -> NDArray[Any]:
    if not array.dtype.isnative:
        array = array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))
    if not header.is_scaled:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: NDArray[Any] = array.astype(result, copy=False)
        scaled *= header.slope
        scaled += header.intercept
    return scaled
