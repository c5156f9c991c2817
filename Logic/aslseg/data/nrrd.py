"""Headers of NRRD files, attached (.nrrd) or on their own (.nhdr).

A `.seg.nrrd` file of Slicer also says what the values of its label map are called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.image_header import (
    Encoding,
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

_LONGEST_HEADER = 1 << 20


_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int",
           "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}  # fmt: skip


_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names}


_ENCODINGS: Mapping[str, Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip


# From the axes of each space to RAS. Other spaces are taken for LPS, as ITK and Slicer do.
_TO_RAS = {"right": 1.0, "left": -1.0, "anterior": 1.0, "posterior": -1.0, "superior": 1.0}


_SHORT = {"r": "right", "l": "left", "a": "anterior", "p": "posterior", "s": "superior"}


_NAMES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}


@dataclass(frozen=True, slots=True)
class _Text:
    fields: Mapping[str, str]
    keys: Mapping[str, str]
    end: int


def read_header(path: Path) -> Header:
    """Read and check the header of an NRRD file.

    Returns:
        The header; its `fields` are the file's own `key:=value` pairs.

    Raises:
        ImageError: When it is damaged or describes no 3-D scalar image at a place in a patient.
    """
    text = _text_of(path)
    fields = text.fields
    shape, axes = _shape_of(path, fields)
    encoding = _encoding_of(path, fields)
    dtype = _type_of(path, fields)
    data = data_file(path, fields["data file"]) if "data file" in fields else path
    start = text.end if data is path else 0
    skip = _skip_of(path, fields)
    if skip < 0:  # the voxels are the last bytes
        start, skip = max(start, data.stat().st_size - int(np.prod(shape)) * dtype.itemsize), 0
    return Header(
        path=path,
        shape=shape,
        dtype=dtype,
        ijk_to_ras=_affine_of(path, fields, axes),
        data=data,
        start=start if encoding != "raw" else start + skip,
        encoding=encoding,
        skip=skip if encoding != "raw" else 0,
        fields=text.keys,
    )


def _text_of(path: Path) -> _Text:
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    with path.open("rb") as stream:
        if not stream.readline(16).startswith(b"NRRD000"):
            refuse(path, "cannot be read as an image; it is damaged or of another format")
        while line := stream.readline(_LONGEST_HEADER):
            if stream.tell() > _LONGEST_HEADER:
                refuse(path, "is damaged: its header has no end")
            words = line.decode("utf-8", "replace").strip()
            if not words:
                break
            _take(path, words, fields, keys)
        return _Text(fields, keys, stream.tell())


def _take(path: Path, line: str, fields: dict[str, str], keys: dict[str, str]) -> None:
    if line.startswith("#"):
        return
    name, between, value = line.partition(":")
    if not between:
        refuse(path, f"is damaged: its header has the line {shown(line)}")
    if value.startswith("="):
        keys[name] = value[1:].strip()
        return
    name = _NAMES.get(name.strip().lower(), name.strip().lower())
    if name in fields:
        refuse(path, f"is damaged: its header says {shown(name)} twice")
    fields[name] = value.strip()


def _shape_of(path: Path, fields: Mapping[str, str]) -> tuple[tuple[int, int, int], list[int]]:
    """Return the shape, and which axes of the file the three axes of space are."""
    (count,) = whole_numbers(path, "dimension", needed(path, fields, "dimension"), 1)
    if not 1 <= count <= 16:
        refuse(path, f"is damaged: its header says that it has {count} axes")
    sizes = whole_numbers(path, "sizes", needed(path, fields, "sizes"), count)
    vectors = _vectors(path, fields, count)
    axes = [axis for axis in range(count) if vectors is None or vectors[axis] is not None]
    if vectors is not None and axes != list(range(count)) and len(axes) >= 3:
        others = [sizes[axis] for axis in range(count) if axis not in axes]
        scalar_shape(path, (1, 1, 1), int(np.prod(others)))
    return scalar_shape(path, [sizes[axis] for axis in axes]), axes[:3]


def _vectors(
    path: Path, fields: Mapping[str, str], count: int
) -> list[NDArray[np.float64] | None] | None:
    """Read `space directions`: a vector, or None for an axis that lies in no direction."""
    if "space directions" not in fields:
        return None
    text = fields["space directions"].replace(" ", "").replace(")", ") ").replace("none", "none ")
    parts = text.split()
    if len(parts) != count:
        refuse(path, f"is damaged: it has {count} axes and {len(parts)} directions")
    return [None if part == "none" else _vector(path, "space directions", part) for part in parts]


def _vector(path: Path, name: str, text: str) -> NDArray[np.float64]:
    if not (text.startswith("(") and text.endswith(")")):
        refuse(path, f"is damaged: its header says {shown(f'{name}: {text}')}")
    return np.array(numbers(path, name, text[1:-1].replace(",", " ")))


def _affine_of(path: Path, fields: Mapping[str, str], axes: list[int]) -> NDArray[np.float64]:
    units = fields.get("space units", "mm").replace('"', " ").split()
    if any(unit not in ("mm", "millimeter", "millimetre") for unit in units[:3]):
        refuse(path, f"has its place in {shown(fields['space units'])}, not in mm")
    vectors = _vectors(path, fields, int(float(fields["dimension"])))
    to_ras = np.diag(_signs(fields))
    if vectors is None:
        spacing = numbers(path, "spacings", needed(path, fields, "spacings"))
        if len(spacing) < 3 or "axis mins" in fields or "axis maxs" in fields:
            refuse(path, "does not say where its voxels lie (no space directions)")
        return patient_affine(path, to_ras * spacing[:3], np.zeros(3))
    chosen = [vector[:3] for axis in axes if (vector := vectors[axis]) is not None]
    if any(len(vector) != 3 for vector in chosen):
        refuse(path, "does not say where its voxels lie: its space has less than three axes")
    origin = np.zeros(3)
    if "space origin" in fields:
        origin = _vector(path, "space origin", fields["space origin"].replace(" ", ""))[:3]
    if len(origin) != 3:
        refuse(path, "does not say where its voxels lie: its origin is no point in space")
    return patient_affine(path, to_ras @ np.column_stack(chosen), to_ras @ origin)


def _signs(fields: Mapping[str, str]) -> Sequence[float]:
    name = fields.get("space", "").lower()
    words = name.split("-") if "-" in name else [_SHORT.get(letter, "") for letter in name]
    if len(words) >= 3 and all(word in _TO_RAS for word in words[:3]):
        return [_TO_RAS[word] for word in words[:3]]
    return [-1.0, -1.0, 1.0]


def _type_of(path: Path, fields: Mapping[str, str]) -> np.dtype[Any]:
    name = needed(path, fields, "type").lower()
    if name not in _TYPE_OF:
        refuse(path, f"holds voxels of the type {shown(name)}", "export it as 16-bit or float")
    dtype = np.dtype(_TYPE_OF[name])
    order = fields.get("endian", "").lower()
    if dtype.itemsize == 1:
        return dtype
    if order not in ("little", "big"):
        refuse(path, f"is damaged: its header says {shown(f'endian: {order}')}")
    return dtype.newbyteorder("<" if order == "little" else ">")


def _encoding_of(path: Path, fields: Mapping[str, str]) -> Encoding:
    name = needed(path, fields, "encoding").lower()
    if name not in _ENCODINGS:
        refuse(path, f"has the encoding {shown(name)}", "save it with raw or gzip encoding")
    return _ENCODINGS[name]


def _skip_of(path: Path, fields: Mapping[str, str]) -> int:
    lines = whole_numbers(path, "line skip", fields.get("line skip", "0"), 1)[0]
    skip = whole_numbers(path, "byte skip", fields.get("byte skip", "0"), 1)[0]
    is_raw = fields.get("encoding", "").lower() == "raw"
    if lines != 0 or skip < (-1 if is_raw else 0) or skip > _LONGEST_HEADER:
        refuse(path, "leaves lines or bytes before its voxels out", "save it as one .nrrd file")
    return skip


_FIELD = re.compile(r"^Segment(\d+)_(Name|NameAutoGenerated|LabelValue|Layer|Tags|Color)$")


_TERMINOLOGY = "TerminologyEntry:"


_MOST = 1000


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a file.

    Attributes:
        name: What a person called it.
        value: Of its voxels.
        kind: What its terminology says that it is ("Liver", "Mass"); empty without.
        terminology: Its terminology entry as Slicer writes it; empty without.
        color: As `#rrggbb`; empty without.
    """

    name: str
    value: int
    kind: str = ""
    terminology: str = ""
    color: str = ""


def segments_of(header: Header) -> tuple[Segment, ...]:
    """List the segments that a header names.

    Raises:
        ImageError: When one has no value, or two have the same.
    """
    found: dict[int, dict[str, str]] = {}
    for key, value in header.fields.items():
        match = _FIELD.match(key)
        if match and int(match[1]) < _MOST:
            found.setdefault(int(match[1]), {})[match[2]] = value
    segments = tuple(_segment(header, values) for _, values in sorted(found.items()))
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values):
        remedy = "export its segments without overlap, as a label map"
        refuse(header.path, "has two segments of one value", remedy)
    return segments


def _segment(header: Header, values: Mapping[str, str]) -> Segment:
    name, value = values.get("Name", ""), values.get("LabelValue", "")
    if not (value.isascii() and value.isdigit() and 1 <= int(value[:4]) <= 255):
        what = f"does not say which value its segment {shown(name)} has"
        refuse(header.path, what, "save it with Slicer 5 or newer, or export it as a label map")
    entry = _terminology_of(values.get("Tags", ""))
    return Segment(name, int(value), kind_of(entry), entry, _color_of(values.get("Color", "")))


def _terminology_of(tags: str) -> str:
    """Terminology entry among the tags of a segment; empty without."""
    entries = (tag for tag in tags.split("|") if tag.startswith(_TERMINOLOGY))
    return next(entries, "").removeprefix(_TERMINOLOGY)


def kind_of(entry: str) -> str:
    """Return the type in a terminology entry: context~category~type~..., each code^scheme^name."""
    parts = entry.split("~")
    return parts[2].split("^")[-1] if len(parts) > 2 else ""


def _color_of(text: str) -> str:
    """Colour of three parts in [0, 1], as `#rrggbb`; empty when it is none."""
    try:
        parts = [float(part) for part in text.split()]
    except ValueError:
        return ""
    if len(parts) != 3 or not all(0 <= part <= 1 for part in parts):
        return ""
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
