"""Headers of NIfTI-1 and NIfTI-2 files, and whether such a file was written whole.

Of the two positions that a header can hold, the one that ITK and so Slicer takes is taken: the
sform if it is that of the scanner, equals the qform, or stands alone; else the qform.

Positions of two codes are of two spaces, as of the scanner and of a template, and may differ; but
for their sides, since no registration mirrors a patient. Positions of one code are of one space.
Rounding (of a qform's quaternion, of numbers written as text) moves nothing by a voxel. A header
that contradicts itself beyond that is refused, not read with a warning: programs go by the one or
the other, so that what is written here would lie elsewhere in some of them.
"""

from __future__ import annotations

import gzip
import logging
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from aslseg.data.image_header import Header, check_spacing, patient_affine, refuse, scalar_shape

logger = logging.getLogger(__name__)

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_COMPONENTS = {128: 3, 2304: 4}  # colours
_COMPLEX = (32, 1792, 2048)
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, metre, millimetre, micrometre
_SCANNER = 1
_LOOK = "export it again, or load it in Slicer, make sure that it lies rightly, and save it anew"
_SAME_SPACING = 0.01
_LARGEST_OFFSET = 1 << 24
_LARGEST_TABLE = 1 << 20
# Place of each field: format of `struct`, then its byte in NIfTI-1 and in NIfTI-2.
_FIELDS = {
    "dim": (("8h", 40), ("8q", 16)),
    "datatype": (("h", 70), ("h", 12)),
    "bitpix": (("h", 72), ("h", 14)),
    "pixdim": (("8f", 76), ("8d", 104)),
    "vox_offset": (("f", 108), ("q", 168)),
    "scale": (("2f", 112), ("2d", 176)),
    "units": (("B", 123), ("i", 500)),
    "codes": (("2h", 252), ("2i", 344)),
    "quaternion": (("6f", 256), ("6d", 352)),
    "rows": (("12f", 280), ("12d", 400)),
}
_VERSIONS = {348: (0, 344, b"n+1\0", 352), 540: (1, 4, b"n+2\0", 544)}


@dataclass(frozen=True, slots=True)
class _Fields:
    values: dict[str, tuple[Any, ...]]
    order: str
    first_offset: int

    def one(self, name: str) -> Any:
        return self.values[name][0]


def read_header(path: Path) -> Header:
    """Read and check the header of a .nii or .nii.gz file.

    Raises:
        ImageError: When it is damaged or describes no 3-D scalar image at a place in a patient.
    """
    is_compressed = _is_compressed(path)
    fields = _fields_of(path, _first_bytes(path, is_compressed))
    dtype = _type_of(path, fields)
    offset = _offset_of(path, fields)
    slope, intercept = _scale_of(path, fields)
    return Header(
        path=path,
        shape=_shape_of(path, fields),
        dtype=dtype,
        ijk_to_ras=_affine_of(path, fields),
        data=path,
        start=0 if is_compressed else offset,
        encoding="gzip" if is_compressed else "raw",
        skip=offset if is_compressed else 0,
        slope=slope,
        intercept=intercept,
    )


_LABEL_TABLE = re.compile(rb'<Label Key="(\d{1,3})"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]{1,99})')


def label_names(path: Path) -> dict[int, str]:
    """Return what a file calls its values, by value; empty where it names none.

    The table of labels of Caret, an extension between header and voxels, is what TotalSegmentator
    writes into its multi-label files.
    """
    is_compressed = _is_compressed(path)
    end = _offset_of(path, _fields_of(path, _first_bytes(path, is_compressed)))
    with gzip.open(path) if is_compressed else path.open("rb") as stream:
        found = _LABEL_TABLE.findall(stream.read(min(end, _LARGEST_TABLE)))
    return {int(key): name.decode("utf-8", "replace").strip() for key, name in found}


def is_written_whole(path: Path, header: Header) -> bool:
    """Tell whether a file that was just written has its full length; nothing is unpacked."""
    expected = header.skip + header.data_bytes
    if header.encoding == "raw":
        return path.stat().st_size == header.start + expected
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        # The last four bytes of a whole gzip file are its length.
        return int.from_bytes(stream.read(4), "little") == expected % (1 << 32)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _first_bytes(path: Path, is_compressed: bool) -> bytes:
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as stream:
            return stream.read(540)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        refuse(path, "is damaged or cut off: its header cannot be unpacked")


def _fields_of(path: Path, content: bytes) -> _Fields:
    for order in "<>":
        size = struct.unpack(order + "i", content[:4])[0] if len(content) >= 348 else 0
        if size in _VERSIONS and len(content) >= size:
            break
    else:
        refuse(path, "cannot be read as an image; it is damaged or of another format")
    version, at, magic, first_offset = _VERSIONS[size]
    found = content[at : at + 4]
    if found == magic.replace(b"+", b"i"):
        refuse(path, "is one half of a pair of header and image", "save it as one .nii.gz file")
    if found != magic:
        refuse(path, "cannot be read as an image; it is damaged or of another format")
    values = {
        name: struct.unpack_from(order + both[version][0], content, both[version][1])
        for name, both in _FIELDS.items()
    }
    return _Fields(values, order, first_offset)


def _type_of(path: Path, fields: _Fields) -> np.dtype[Any]:
    code = fields.one("datatype")
    if code in _COMPLEX:
        refuse(path, "holds complex numbers", "export its magnitude as a scalar volume")
    if code in _COMPONENTS:
        scalar_shape(path, (1, 1, 1), _COMPONENTS[code])
    if code not in _TYPES:
        refuse(path, f"holds voxels of the NIfTI type {code}", "export it as 16-bit or float")
    dtype = np.dtype(fields.order + _TYPES[code])
    if fields.one("bitpix") not in (0, 8 * dtype.itemsize):
        refuse(path, f"is damaged: its voxels have {fields.one('bitpix')} bits and the type {code}")
    return dtype


def _shape_of(path: Path, fields: _Fields) -> tuple[int, int, int]:
    axes, *sizes = fields.values["dim"]
    if not 1 <= axes <= 7:
        refuse(path, f"is damaged: its header says that it has {axes} axes")
    sizes = sizes[:axes]
    components = sizes[4] if axes >= 5 and sizes[4] != 1 else 1
    return scalar_shape(path, sizes if components == 1 else sizes[:3], components)


def _offset_of(path: Path, fields: _Fields) -> int:
    offset = fields.one("vox_offset")
    is_place = fields.first_offset <= offset <= _LARGEST_OFFSET  # NaN is none
    if not is_place or offset != int(offset):
        refuse(path, f"is damaged: it says that its voxels begin at byte {offset:g}")
    return int(offset)


def _scale_of(path: Path, fields: _Fields) -> tuple[float, float]:
    slope, intercept = fields.values["scale"]
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        refuse(path, f"is damaged: it scales its voxels by {slope:g} and {intercept:g}")
    return (float(slope) or 1.0), float(intercept)  # no slope means one


def _affine_of(path: Path, fields: _Fields) -> NDArray[np.float64]:
    unit = _MM_PER_UNIT.get(fields.one("units") & 7, math.nan)
    spacing = np.array(fields.values["pixdim"][1:4], np.float64) * unit
    check_spacing(path, spacing.tolist())
    qform_code, sform_code = fields.values["codes"]
    if qform_code <= 0 and sform_code <= 0:
        logger.warning("%s does not say how the patient lies; head and front are guessed.", path)
        return patient_affine(path, np.diag(spacing * [-1, -1, 1]), np.zeros(3))
    qform = _qform(path, fields, spacing, unit) if qform_code > 0 else None
    if sform_code <= 0 and qform is not None:
        return qform
    rows = np.reshape(fields.values["rows"], (3, 4)).astype(np.float64) * unit
    if qform is not None:
        _check_same_sides(path, rows, qform)
    if qform is None or _takes_sform(rows, qform, sform_code):
        taken = patient_affine(path, rows[:, :3], rows[:, 3])
        _check_same_spacing(path, np.linalg.norm(taken[:3, :3], axis=0), spacing)
    else:
        taken = qform
    if qform is not None and sform_code == qform_code:
        _check_same_place(path, rows, qform, _shape_of(path, fields))
    return taken


def _takes_sform(rows: NDArray[np.float64], qform: NDArray[np.float64], sform_code: int) -> bool:
    return sform_code == _SCANNER or np.allclose(rows, qform[:3], rtol=1e-4, atol=1e-3)


def _check_same_sides(path: Path, rows: NDArray[np.float64], qform: NDArray[np.float64]) -> None:
    """Refuse a header by which left is right in some programs, of whatever two spaces it is."""
    if np.linalg.det(rows[:, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        what = "contradicts itself: by its sform its left side is on the right by its qform"
        refuse(path, what, _LOOK)


def _check_same_place(
    path: Path, rows: NDArray[np.float64], qform: NDArray[np.float64], shape: tuple[int, int, int]
) -> None:
    """Refuse two positions in one space by which a voxel is more than its size apart."""
    corners = np.array([*np.ndindex(2, 2, 2)]) * (np.array(shape[::-1]) - 1)  # (8, 3), ijk
    apart_mm = corners @ (rows[:, :3] - qform[:3, :3]).T + (rows[:, 3] - qform[:3, 3])
    if np.abs(np.linalg.solve(qform[:3, :3], apart_mm.T)).max() > 1:
        most_mm = np.linalg.norm(apart_mm, axis=1).max()
        what = f"lies up to {most_mm:.1f} mm elsewhere by its sform than by its qform"
        refuse(path, f"{what}, though its codes say that both are of the same space", _LOOK)


def _qform(
    path: Path, fields: _Fields, spacing: NDArray[np.float64], unit: float
) -> NDArray[np.float64]:
    b, c, d, *offset = fields.values["quaternion"]
    square = b * b + c * c + d * d
    if not square <= 1.001:  # NaN: neither
        refuse(path, "does not say where its voxels lie: its qform is no rotation")
    turn = Rotation.from_quat([b, c, d, math.sqrt(max(0.0, 1.0 - square))]).as_matrix()
    mirror = -1.0 if fields.one("pixdim") < 0 else 1.0
    return patient_affine(path, turn * spacing * [1, 1, mirror], np.array(offset) * unit)


def _check_same_spacing(
    path: Path, sform: NDArray[np.float64], pixdim: NDArray[np.float64]
) -> None:
    """Refuse a header that contradicts itself: some programs go by the one, some by the other."""
    if np.abs(sform / pixdim - 1).max() > _SAME_SPACING:
        first, second = (" x ".join(f"{edge:.4g}" for edge in edges) for edges in (sform, pixdim))
        refuse(path, f"has two spacings, {first} mm by its sform and {second} mm by its pixdim")
