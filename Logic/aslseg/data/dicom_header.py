"""The tags of a DICOM file, read without decoding its pixels, and whether the file is whole.

Not by pydicom: what is asked here is also whether all pixels, or all of their compressed pieces,
are in the file, without reading them; and depth and number of elements are bounded.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aslseg.data.image_header import refuse

_MAGIC_AT, _MAGIC = 128, b"DICM"
_IMPLICIT, _DEFLATED, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS, _SYNTAX = 0x7FE00010, 0x00020010
_DEEPEST, _MOST_ELEMENTS = 16, 2_000_000
_LARGEST_DEFLATED = 1 << 30
# What is looked at; the numbers are binary, everything else is text.
_NUMBERS = {
    0x00280002: "samples", 0x00280010: "rows", 0x00280011: "columns", 0x00280100: "bits",
    0x00280101: "bits_stored", 0x00280102: "high_bit",
}  # fmt: skip
_TEXTS = {
    _SYNTAX: "syntax", 0x00080060: "modality",
    0x0020000E: "series", 0x00280004: "photometry", 0x00280008: "frames",
    0x00180050: "thickness", 0x00180088: "between", 0x00280030: "spacing",
    0x00200032: "position", 0x00200037: "orientation", 0x00281052: "intercept",
    0x00281053: "slope", 0x00100020: "patient", 0x00100021: "patient_issuer",
    0x0020000D: "study", 0x00200052: "frame_of_reference",
}  # fmt: skip
# Sequences that hold the place of the frames of a file with several of them.
_FRAMES = {0x52009229, 0x52009230, 0x00209113, 0x00209116, 0x00289110, 0x00289145}
_OF_FRAMES = ("position", "orientation", "spacing", "thickness", "between", "slope", "intercept")


class _MalformedError(Exception):
    """The bytes are no DICOM elements."""


@dataclass(frozen=True, slots=True)
class DicomFile:
    """What a DICOM file says of itself.

    Attributes:
        path: The file.
        texts: Values of text, by name: modality, series, spacing, position and so on.
        numbers: Values of binary numbers, by name: rows, columns, bits, samples.
        frames: The values of each frame of a file with several frames, by name.
        pixel_bytes: Length of the pixels as stored; None without pixels.
        pieces: Number of compressed pieces that the pixels are stored in; 0 when not compressed.
    """

    path: Path
    texts: Mapping[str, str]
    numbers: Mapping[str, int]
    frames: Mapping[str, list[str]]
    pixel_bytes: int | None
    pieces: int

    def text(self, name: str) -> str:
        """Return a value of text; empty when the file does not say."""
        return self.texts.get(name, "")


def read_dicom_file(path: Path) -> DicomFile | None:
    """Read the tags of a file.

    Returns:
        What it says, or None when it is no DICOM file.

    Raises:
        ImageError: When it is a DICOM file that is cut off or damaged.
    """
    if path.stat().st_size <= _MAGIC_AT + 4:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        is_marked = content[_MAGIC_AT : _MAGIC_AT + 4] == _MAGIC
        if not is_marked and content[:2] != b"\x08\0":  # without a preamble, group 8 comes first
            return None
        try:
            return _parsed(path, content, is_marked)
        except (_MalformedError, struct.error, zlib.error):
            if not is_marked:
                return None
            what = "is cut off or damaged"
            refuse(path, what, "copy or export its series again")


def looks_like_dicom(path: Path) -> bool:
    """Tell whether a file has the marks of DICOM, whole or not."""
    with path.open("rb") as stream:
        start = stream.read(_MAGIC_AT + 4)
    return start[_MAGIC_AT:] == _MAGIC or (len(start) > _MAGIC_AT and not any(start[:_MAGIC_AT]))


def _parsed(path: Path, content: Any, is_marked: bool) -> DicomFile:
    meta = _Walk(content, is_explicit=True, order="<")
    at = meta.run_meta(_MAGIC_AT + 4) if is_marked else 0
    syntax = meta.texts.get("syntax", "" if is_marked else _guessed(content))
    if syntax == _DEFLATED:
        content, at = _inflated(content[at:]), 0
    walk = _Walk(content, is_explicit=syntax != _IMPLICIT, order=">" if syntax == _BIG else "<")
    walk.run(at, len(content), 0)
    if walk.at_pixels is None and not walk.texts.get("series") and not is_marked:
        raise _MalformedError
    texts = walk.texts | {"syntax": syntax}
    return DicomFile(path, texts, walk.numbers, walk.frames, walk.at_pixels, walk.pieces)


def _guessed(content: Any) -> str:
    return "" if content[4:6].isalpha() and content[4:6].isupper() else _IMPLICIT


def _inflated(content: bytes) -> bytes:
    decoder = zlib.decompressobj(-15)
    whole = decoder.decompress(content, _LARGEST_DEFLATED)
    if not decoder.eof:
        raise _MalformedError
    return whole


@dataclass(slots=True)
class _Walk:
    """One pass over the elements of a file; every length is held against what is there."""

    content: Any
    is_explicit: bool
    order: str
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    frames: dict[str, list[str]] = field(default_factory=dict)
    at_pixels: int | None = None
    pieces: int = 0
    left: int = _MOST_ELEMENTS

    def run_meta(self, at: int) -> int:
        """Read the elements of group 2 and return where they end."""
        while at + 8 <= len(self.content) and self._tag(at) >> 16 == 2:
            at = self._element(at, len(self.content), 0, in_frames=False)
        return at

    def run(self, at: int, end: int, depth: int, *, in_frames: bool = False) -> int:
        """Read elements up to `end`, or up to the mark that ends an item."""
        while at < end:
            if self._tag(at) == _ITEM_END:
                return at + 8
            at = self._element(at, end, depth, in_frames=in_frames)
        return at

    def _tag(self, at: int) -> int:
        group, element = struct.unpack_from(self.order + "HH", self.content, at)
        return int(group) << 16 | int(element)

    def _length(self, at: int) -> int:
        (length,) = struct.unpack_from(self.order + "I", self.content, at)
        return int(length)

    def _element(self, at: int, end: int, depth: int, *, in_frames: bool) -> int:
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            raise _MalformedError
        tag = self._tag(at)
        kind, length, start = self._head(at)
        if length == _UNDEFINED:
            if tag == _PIXELS:
                return self._pieces(start, end)
            return self._items(tag, start, end, depth, kind == b"UN", in_frames=in_frames)
        if start + length > end:
            raise _MalformedError
        if tag in _FRAMES and kind in (b"SQ", b""):
            self._items(tag, start, start + length, depth, is_unknown=False, in_frames=True)
        else:
            self._keep(tag, start, length, depth, in_frames=in_frames)
        return start + length

    def _head(self, at: int) -> tuple[bytes, int, int]:
        """Return the kind of an element, its length, and where its value begins."""
        if not self.is_explicit:
            return b"", self._length(at + 4), at + 8
        kind = bytes(self.content[at + 4 : at + 6])
        if len(kind) < 2 or not (kind.isalpha() and kind.isupper()):
            raise _MalformedError
        if kind in _LONG:
            return kind, self._length(at + 8), at + 12
        (length,) = struct.unpack_from(self.order + "H", self.content, at + 6)
        return kind, int(length), at + 8

    def _items(
        self, tag: int, at: int, end: int, depth: int, is_unknown: bool, *, in_frames: bool
    ) -> int:
        """Read the items of a sequence and return where it ends."""
        was_explicit = self.is_explicit
        self.is_explicit = was_explicit and not is_unknown
        in_frames = in_frames or tag in _FRAMES
        while at < end:
            mark, length = self._tag(at), self._length(at + 4)
            at += 8
            if mark == _SEQUENCE_END:
                break
            stop = end if length == _UNDEFINED else at + length
            if mark != _ITEM or stop > end:
                raise _MalformedError
            at = self.run(at, stop, depth + 1, in_frames=in_frames)
        self.is_explicit = was_explicit
        return at

    def _pieces(self, at: int, end: int) -> int:
        """Count the pieces of compressed pixels, of which the first is a table of places."""
        first = at
        while True:
            mark, length = self._tag(at), self._length(at + 4)
            at += 8
            if mark == _SEQUENCE_END:
                break
            if mark != _ITEM or at + length > end:
                raise _MalformedError
            at += length
            self.pieces += 1
        self.pieces = max(self.pieces - 1, 0)
        self.at_pixels = at - first
        return at

    def _keep(self, tag: int, start: int, length: int, depth: int, *, in_frames: bool) -> None:
        if tag == _PIXELS and depth == 0:
            self.at_pixels = length
        elif tag in _NUMBERS and depth == 0 and length == 2:
            (number,) = struct.unpack_from(self.order + "H", self.content, start)
            self.numbers[_NUMBERS[tag]] = int(number)
        elif tag in _TEXTS and length <= 1024 and (depth == 0 or in_frames):
            text = bytes(self.content[start : start + length]).decode("latin-1").strip(" \0")
            if depth == 0:
                self.texts[_TEXTS[tag]] = text
            elif _TEXTS[tag] in _OF_FRAMES:
                self.frames.setdefault(_TEXTS[tag], []).append(text)
