"""Headers of MetaImage files, attached (.mha) or on their own (.mhd)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.image_header import (
    Header,
    data_file,
    needed,
    numbers,
    patient_affine,
    refuse,
    scalar_shape,
    shown,
    whole_numbers,
)

_LONGEST_HEADER = 1 << 16
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME = {
    "Rotation": "TransformMatrix", "Orientation": "TransformMatrix", "Position": "Offset",
    "Origin": "Offset", "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Text:
    fields: Mapping[str, str]
    end: int


def read_header(path: Path) -> Header:
    """Read and check the header of a MetaImage file.

    Raises:
        ImageError: When it is damaged or describes no 3-D scalar image at a place in a patient.
    """
    text = _text_of(path)
    fields = text.fields
    count, shape = _shape_of(path, fields)
    dtype = _type_of(path, fields)
    name = fields["ElementDataFile"]
    data = path if name.upper() == "LOCAL" else data_file(path, name)
    is_compressed = _flag(path, fields, "CompressedData", default=False)
    start = text.end if data is path else 0
    (before,) = whole_numbers(path, "HeaderSize", fields.get("HeaderSize", "0"), 1)
    if not -1 <= before <= _LONGEST_HEADER or (before and is_compressed):
        refuse(path, "leaves bytes before its voxels out", "save it as one .mha file")
    if before < 0:  # the voxels are the last bytes
        before = max(data.stat().st_size - start - int(np.prod(shape)) * dtype.itemsize, 0)
    return Header(
        path=path,
        shape=shape,
        dtype=dtype,
        ijk_to_ras=_affine_of(path, fields, count),
        data=data,
        start=start + before,
        encoding="zlib" if is_compressed else "raw",
    )


def _text_of(path: Path) -> _Text:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST_HEADER):
            name, between, value = line.decode("utf-8", "replace").partition("=")
            name = _SAME.get(name.strip(), name.strip())
            if not between or not _is_name(name) or stream.tell() > _LONGEST_HEADER:
                break
            if name in fields:
                refuse(path, f"is damaged: its header says {shown(name)} twice")
            fields[name] = value.strip()
            if name == "ElementDataFile":
                break
        end = stream.tell()
    if not fields:
        refuse(path, "cannot be read as an image; it is damaged or of another format")
    if not fields.get("ElementDataFile"):
        refuse(path, "is damaged: its header does not say where its voxels are")
    return _Text(fields, end)


def _is_name(text: str) -> bool:
    """Tell a field of a header from voxels; ITK notes `dim[0]` of NIfTI, `0008|0060` of DICOM."""
    return text != "" and text.isascii() and text.isprintable()


def _shape_of(path: Path, fields: Mapping[str, str]) -> tuple[int, tuple[int, int, int]]:
    (count,) = whole_numbers(path, "NDims", needed(path, fields, "NDims"), 1)
    if not 1 <= count <= 10:
        refuse(path, f"is damaged: its header says that it has {count} axes")
    sizes = whole_numbers(path, "DimSize", needed(path, fields, "DimSize"), count)
    channels = fields.get("ElementNumberOfChannels", "1")
    (components,) = whole_numbers(path, "ElementNumberOfChannels", channels, 1)
    return count, scalar_shape(path, sizes, components)


def _flag(path: Path, fields: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = fields.get(name, str(default)).lower()
    if text not in ("true", "false", "t", "f", "1", "0"):
        refuse(path, f"is damaged: its header says {shown(f'{name} = {text}')}")
    return text in ("true", "t", "1")


def _type_of(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    name = needed(path, fields, "ElementType")
    if not _flag(path, fields, "BinaryData", default=True):
        refuse(path, "holds its voxels as text", "save it as binary .mha or .nrrd")
    if name.endswith("_ARRAY"):
        scalar_shape(path, (1, 1, 1), 2)
    if name not in _TYPES:
        refuse(path, f"holds voxels of the type {shown(name)}", "export it as 16-bit or float")
    is_big = _flag(path, fields, "BinaryDataByteOrderMSB", default=False)
    return np.dtype((">" if is_big else "<") + _TYPES[name])


def _affine_of(path: Path, fields: Mapping[str, str], count: int) -> NDArray[np.float64]:
    name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    if name not in fields:
        refuse(path, "does not say where its voxels lie (no ElementSpacing)")
    spacing = numbers(path, name, fields[name], count)[:3]
    identity = " ".join(map(str, np.eye(count).ravel()))
    matrix = numbers(path, "TransformMatrix", fields.get("TransformMatrix", identity), count**2)
    offset = numbers(path, "Offset", fields.get("Offset", " ".join(["0"] * count)), count)
    # One row of the file is the direction of one axis.
    axes = np.reshape(matrix, (count, count))[:3, :3].T
    if not np.allclose(np.linalg.norm(axes, axis=0), 1.0, atol=1e-3):
        refuse(path, "does not say where its voxels lie: its axes are not of length one")
    return patient_affine(path, _LPS_TO_RAS @ (axes * spacing), _LPS_TO_RAS @ np.array(offset[:3]))
