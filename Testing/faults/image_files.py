"""Image files for the campaign: whole ones of every kind, damaged ones, hostile ones."""

from __future__ import annotations

import bz2
import gzip
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from hypothesis import strategies as st

SHAPE, SPACING = (5, 12, 14), (4.0, 1.5, 1.25)
VOXELS = (np.arange(5 * 12 * 14).reshape(SHAPE) * 7 % 251).astype("<i2")

# A set of files by name, of which the first is the one to read.
Files = dict[str, bytes]


def nifti(
    voxels: np.ndarray = VOXELS, *, version: int = 1, order: str = "<", packed: bool = False
) -> bytes:
    """Write a NIfTI file by hand, with a qform and an sform that agree."""
    size, first = (348, 352) if version == 1 else (540, 544)
    header = bytearray(first)
    code = {"i2": 4, "f4": 16, "u1": 2, "f8": 64}[voxels.dtype.str[1:]]
    sizes = (3, *voxels.shape[::-1], 1, 1, 1, 1)
    edges = (1.0, *SPACING[::-1], 0, 0, 0, 0)
    rows = (-1.25, 0, 0, 30, 0, -1.5, 0, 40, 0, 0, 4, -50)
    places = {
        1: "i 0 8h 40 h 70 h 72 8f 76 f 108 2f 112 B 123 2h 252 6f 256 12f 280",
        2: "i 0 8q 16 h 12 h 14 8d 104 q 168 2d 176 i 500 2i 344 6d 352 12d 400",
    }
    quaternion = (0, 0, 1, 30, 40, -50)
    values: list[Any] = [
        [size], sizes, [code], [voxels.itemsize * 8], edges, [first], (1, 0), [2], (1, 1),
        quaternion, rows,
    ]  # fmt: skip
    parts = places[version].split()
    for kind, at, numbers in zip(parts[::2], parts[1::2], values, strict=True):
        struct.pack_into(order + kind, header, int(at), *numbers)
    if version == 1:
        header[344:348] = b"n+1\0"
    else:
        header[4:12] = b"n+2\0\r\n\x1a\n"
    whole = bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()
    return gzip.compress(whole) if packed else whole


def nrrd(encoding: str = "gzip", *, more: str = "", data: str | None = None) -> tuple[bytes, bytes]:
    """Write an NRRD header and its voxels by hand."""
    lines = [
        "NRRD0004", "# made by hand", "type: short", "dimension: 3",
        "space: left-posterior-superior", "sizes: 14 12 5",
        "space directions: (1.25,0,0) (0,1.5,0) (0,0,4)", "kinds: domain domain domain",
        "endian: little", f"encoding: {encoding}", "space origin: (-30,-40,-50)",
    ]  # fmt: skip
    lines += [more] if more else []
    lines += [f"data file: {data}"] if data else []
    pack = {"gzip": gzip.compress, "bzip2": bz2.compress, "raw": bytes}[encoding]
    return ("\n".join(lines) + "\n\n").encode(), pack(VOXELS.tobytes())


def metaimage(*, packed: bool = True, data: str = "LOCAL") -> tuple[bytes, bytes]:
    """Write a MetaImage header and its voxels by hand."""
    voxels = zlib.compress(VOXELS.tobytes()) if packed else VOXELS.tobytes()
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
        f"CompressedData = {packed}", f"CompressedDataSize = {len(voxels)}",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = -30 -40 -50", "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI", "ElementSpacing = 1.25 1.5 4", "DimSize = 14 12 5",
        "ElementType = MET_SHORT", f"ElementDataFile = {data}",
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode(), voxels


def element(tag: int, kind: str, value: bytes | str, *, explicit: bool = True) -> bytes:
    """Write one DICOM element, little endian."""
    content = value.encode() if isinstance(value, str) else value
    content += b" " * (len(content) % 2) if kind not in ("OW", "UI") else b"\0" * (len(content) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(content)) + content
    if kind in ("OW", "SQ", "OB", "UN"):
        return head + kind.encode() + struct.pack("<HI", 0, len(content)) + content
    return head + kind.encode() + struct.pack("<H", len(content)) + content


def dicom_slice(number: int, *, explicit: bool = True, **changes: str | int | None) -> bytes:
    """Write one slice of the volume as a DICOM file.

    Args:
        number: Of the slice, from below.
        explicit: Whether elements name their kinds.
        changes: Other values of `spacing`, `orientation`, `position`, `rows`, `frames`, `slope`,
            `series`, `modality`; None leaves the element out.
    """
    values = {
        "modality": "CT", "series": "1.2.826.0.1.3680043.2.1125.5", "position":
        f"-30\\-40\\{-50 + 4 * number}", "orientation": "1\\0\\0\\0\\1\\0", "spacing": "1.5\\1.25",
        "rows": 12, "frames": None, "slope": "1",
    } | changes  # fmt: skip
    syntax = "1.2.840.10008.1.2.1" if explicit else "1.2.840.10008.1.2"
    meta = element(0x00020010, "UI", syntax)
    listed = [
        (0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2"),
        (0x00080018, "UI", f"1.2.826.0.1.3680043.2.1125.5.{number + 1}"),
        (0x00080060, "CS", values["modality"]),
        (0x00081140, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, 0)),
        (0x00100010, "PN", "Name^Of A Patient"),
        (0x00180050, "DS", "4"),
        (0x0020000D, "UI", "1.2.826.0.1.3680043.2.1125.4"),
        (0x0020000E, "UI", values["series"]),
        (0x00200013, "IS", str(number)),
        (0x00200032, "DS", values["position"]),
        (0x00200037, "DS", values["orientation"]),
        (0x00280002, "US", struct.pack("<H", 1)),
        (0x00280004, "CS", "MONOCHROME2"),
        (0x00280008, "IS", values["frames"]),
        (0x00280010, "US", struct.pack("<H", int(values["rows"] or 0))),
        (0x00280011, "US", struct.pack("<H", 14)),
        (0x00280030, "DS", values["spacing"]),
        (0x00280100, "US", struct.pack("<H", 16)),
        (0x00280101, "US", struct.pack("<H", 16)),
        (0x00280102, "US", struct.pack("<H", 15)),
        (0x00280103, "US", struct.pack("<H", 1)),
        (0x00281052, "DS", "0"),
        (0x00281053, "DS", values["slope"]),
        (0x7FE00010, "OW", VOXELS[number].tobytes()),
    ]
    body = b"".join(
        element(tag, kind, value, explicit=explicit)
        for tag, kind, value in listed
        if value is not None
    )
    head = element(0x00020000, "UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + head + meta + body


def dicom_folder(*, explicit: bool = True) -> Files:
    """Write the slices of the volume."""
    return {f"{number}.dcm": dicom_slice(number, explicit=explicit) for number in range(5)}


@cache
def packed_dicom_folder(compressor: str) -> Files:
    """Let ITK write the slices with compressed pixels, without loss."""
    files = {}
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    with TemporaryDirectory() as folder:
        for number in range(5):
            image = sitk.GetImageFromArray(VOXELS[number].astype(np.int16))
            image.SetSpacing((1.25, 1.5))
            root = "1.2.826.0.1.3680043.2.1125.6"
            for tag, value in {
                "0008|0060": "CT", "0008|0018": f"{root}.{number + 1}", "0020|000e": root,
                "0020|0013": str(number), "0020|0032": f"-30\\-40\\{-50 + 4 * number}",
                "0020|0037": "1\\0\\0\\0\\1\\0",
            }.items():  # fmt: skip
                image.SetMetaData(tag, value)
            path = Path(folder, f"{number}.dcm")
            writer.SetFileName(str(path))
            writer.Execute(image)
            files[path.name] = path.read_bytes()
    return files


def whole(kind: str) -> list[Files]:
    """Return undamaged files of a kind, all of the same voxels at the same place."""
    if kind == "nifti":
        return [
            {"a.nii.gz": nifti(packed=True)},
            {"a.nii": nifti()},
            {"a.nii": nifti(order=">")},
            {"a.nii.gz": nifti(version=2, packed=True)},
        ]
    if kind == "nrrd":
        both = nrrd("gzip", data="a.raw.gz")
        attached = [{"a.nrrd": b"".join(nrrd(name))} for name in ("gzip", "raw", "bzip2")]
        return [*attached, {"a.nhdr": both[0], "a.raw.gz": both[1]}]
    if kind == "metaimage":
        both = metaimage(data="a.zraw")
        attached = [{"a.mha": b"".join(metaimage(packed=packed))} for packed in (True, False)]
        return [*attached, {"a.mhd": both[0], "a.zraw": both[1]}]
    packed = [packed_dicom_folder(name) for name in ("JPEG", "JPEG2000")]
    return [dicom_folder(), dicom_folder(explicit=False), *packed]


_HOSTILE_TEXTS = [
    "", "-1", "0", "99", "nan", "inf", "-inf", "1e400", "1e-400", "%s%s%s%n", "a%d.raw 0 15 1",
    "LIST", "LIST 2", "../../etc/passwd", "/dev/zero", "/etc/hostname", "2000000000 1 1", "1 1 1",
    "0 0 0", "14 12", "14 12 5 1", "14 12 5 9999999999", "99999999999999999999 1 1", "x" * 5000,
    "9" * 400, "\0", "(0,0,0) (0,0,0) (0,0,0)", "(1,0,0) (1,0,0) (0,0,1)", "none none none",
    "(1000,0,0) (0,1000,0) (0,0,1000)", "(1,0) (0,1) (0,0)", "0 0 0 0 0 0 0 0 0", "double",
    "MET_DOUBLE", "MET_OTHER", "MET_FLOAT_ARRAY", "True", "False", "raw", "gzip", "bzip2", "ascii",
    "hex", "big", "1 0 0 0 1 0 0 0 nan", "1000 1000 1000", "0.001 0.001 0.001", "5 12 14", "0x10",
    "\N{ARABIC-INDIC DIGIT THREE}", "1_0", "1;2;3", "10 10 10 10",
]  # fmt: skip
_HOSTILE_NUMBERS = {
    "h": [-32768, -1, 0, 1, 3, 8, 32767, 128, 1792], "i": [-1, 0, 1, 2**31 - 1, 348, 540],
    "f": [0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 1e5, 351.0, 353.0],
    "q": [-1, 0, 2**62, 2**31], "d": [0.0, float("nan"), 1e300, -1.0],
}  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> tuple[Files, str]:
    """Draw a damaged set of files, and what was done to it."""
    files = dict(draw(st.sampled_from(whole(kind))))
    name = draw(st.sampled_from(sorted(files)))
    ways = {"nifti": [_in_header], "nrrd": [_in_text], "metaimage": [_in_text], "dicom": [_in_tags]}
    how = draw(st.sampled_from([_flipped, _cut, _stretched, _zeroed, *(ways[kind] * 4)]))
    packed = name.endswith(".gz") and how is _in_header
    content = gzip.decompress(files[name]) if packed else files[name]
    content, what = draw(how(content))
    files[name] = gzip.compress(content) if packed else content
    return files, f"{name}: {what}"


@st.composite
def _flipped(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    changed = bytearray(content)
    for at in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        changed[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed), "bits flipped"


@st.composite
def _cut(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    return content[: draw(st.integers(0, len(content) - 1))], "cut off"


@st.composite
def _stretched(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    at, more = draw(st.integers(0, len(content))), draw(st.binary(min_size=1, max_size=40))
    return content[:at] + more + content[at:], "bytes put in"


@st.composite
def _zeroed(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    at, length = draw(st.integers(0, len(content) - 1)), draw(st.integers(1, 200))
    fill = draw(st.sampled_from([b"\0", b"\xff"]))
    rest = content[at : at + length]
    return content[:at] + fill * len(rest) + content[at + length :], "bytes wiped"


@st.composite
def _in_header(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    """Put hostile numbers into a NIfTI header."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(_HOSTILE_NUMBERS)))
        at = draw(st.integers(0, min(348, len(content) - 8) // 2)) * 2
        struct.pack_into("<" + kind, changed, at, draw(st.sampled_from(_HOSTILE_NUMBERS[kind])))
    return bytes(changed), "header numbers"


@st.composite
def _in_text(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    """Change, double, swap or leave out lines of a header of text."""
    end = content.find(b"\n\n") + 1 or content.find(b"ElementDataFile")
    head, rest = content[: max(end, 0)], content[max(end, 0) :]
    lines = head.decode("latin-1").split("\n")
    at = draw(st.integers(0, len(lines) - 1))
    way = draw(st.sampled_from(["value", "value", "value", "double", "leave out", "noise", "swap"]))
    mark = ": " if ": " in lines[at] else " = "
    if way == "value":
        value = draw(st.sampled_from(_HOSTILE_TEXTS) | st.text(max_size=20))
        lines[at] = lines[at].partition(mark)[0] + mark + value
    elif way == "double":
        lines.insert(at, lines[at])
    elif way == "leave out":
        del lines[at]
    elif way == "noise":
        lines.insert(at, draw(st.text(max_size=600)))
    else:
        lines[at - 1], lines[at] = lines[at], lines[at - 1]
    return "\n".join(lines).encode("utf-8", "surrogatepass") + rest, f"header text, {way}"


@st.composite
def _in_tags(draw: st.DrawFn, content: bytes) -> tuple[bytes, str]:
    """Put hostile bytes or texts into the elements of a DICOM file before its pixels."""
    changed = bytearray(content)
    end = content.rfind(b"\xe0\x7f\x10\x00")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(132, end + 8))
        text = draw(
            st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"SQ", b"UN\0\0\xff\xff\xff\xff"])
            | st.sampled_from([b"nan", b"1e9", b"-1", b"\\\\", b"100000", b"\xfe\xff\x00\xe0"])
            | st.binary(min_size=1, max_size=6)
        )
        changed[at : at + len(text)] = text
    return bytes(changed), "tags"


def hostile(kind: str) -> Iterator[tuple[str, Files]]:
    """Return files by hand that must be refused, each with what is wrong with it."""
    yield from {
        "nifti": _hostile_nifti, "nrrd": _hostile_nrrd, "metaimage": _hostile_metaimage,
        "dicom": _hostile_dicom,
    }[kind]()  # fmt: skip


def _hostile_nifti() -> Iterator[tuple[str, Files]]:
    def changed(*fields: tuple[str, int, float]) -> bytes:
        content = bytearray(nifti())
        for kind, at, value in fields:
            struct.pack_into("<" + kind, content, at, value)
        return bytes(content)

    for value in (0, -1, 4, 7, 32767):
        yield f"dim[3] = {value}", {"a.nii": changed(("h", 46, value))}
    for value in (0, 351, 353, -1, float("nan"), float("inf"), 1e9):
        yield f"vox_offset = {value}", {"a.nii": changed(("f", 108, value))}
    for value in (0, float("nan"), float("inf"), -1, 1e5, 1e-5):
        yield f"pixdim[1] = {value}", {"a.nii": changed(("f", 80, value))}
    for value in (float("nan"), 1e38):
        yield f"slope = {value}", {"a.nii": changed(("f", 112, value))}
    yield "metres", {"a.nii": changed(("B", 123, 1))}
    yield "sheared sform", {"a.nii": changed(("f", 284, 0.5), ("h", 252, 0))}
    zeros = nifti(np.zeros((1, 1, 1), "<i2"))[:352]
    large = bytearray(zeros)
    struct.pack_into("<8h", large, 40, 3, 1400, 1400, 1400, 1, 1, 1, 1)
    yield "1400^3 voxels", {"a.nii.gz": gzip.compress(bytes(large) + bytes(1 << 22))}
    yield "no voxels", {"a.nii.gz": gzip.compress(zeros)}
    yield "empty", {"a.nii.gz": b""}
    yield (
        "wrong checksum",
        {"a.nii.gz": nifti(packed=True)[:-8] + b"\1\2\3\4" + nifti(packed=True)[-4:]},
    )


def _hostile_nrrd() -> Iterator[tuple[str, Files]]:
    head, body = nrrd("raw")
    for sizes in ("2000000000 1 1", "0 12 5", "-14 -12 5", "14 12", "14 12 5 2", "1e3 1e3 1e9"):
        yield sizes, {"a.nrrd": head.replace(b"14 12 5", sizes.encode()) + body}
    for vectors in (
        "(0,0,0) (0,1,0) (0,0,1)",
        "(1,0,0) (1,0,0) (0,0,1)",
        "(1000,0,0) (0,9,0) (0,0,9)",
    ):
        changed = head.replace(b"(1.25,0,0) (0,1.5,0) (0,0,4)", vectors.encode())
        yield vectors, {"a.nrrd": changed + body}
    for name in ("a%03d.raw 0 15 1", "LIST", "/etc/hostname", "../a.raw", "absent.raw"):
        yield name, {"a.nhdr": nrrd("raw", data=name)[0], "b.raw": body}
    yield "bzip2 of zeros", {"a.nrrd": nrrd("bzip2")[0] + bz2.compress(bytes(1 << 24))}
    yield "header without end", {"a.nrrd": head[:-1] + b"# " + b"x" * (2 << 20)}


def _hostile_metaimage() -> Iterator[tuple[str, Files]]:
    head, body = metaimage(packed=False)
    for before, after in (
        ("NDims = 3", "NDims = 99"), ("NDims = 3", "NDims = -1"), ("DimSize = 14", "DimSize = 0"),
        ("= 14 12 5", "= 0 80 16"), ("= 14 12 5", "= 9999 9999 9999"),
        ("ElementSpacing = 1.25", "ElementSpacing = 0"), ("1.25 1.5 4", "1250 1500 4000"),
        ("Matrix = 1 0 0", "Matrix = 0 0 0"), ("Matrix = 1 0 0", "Matrix = 1 1 0"),
        ("MET_SHORT", "MET_" + "X" * 3000), ("Offset = -30", "Offset = nan"),
        ("ObjectType = Image", "Comment = " + "%n" * 9000 + "\nElementSpacing = 1 1 1"),
    ):  # fmt: skip
        yield after[:40], {"a.mha": head.replace(before.encode(), after.encode()) + body}
    for name in ("%s%s%n.raw 0 15 1", "LIST", "a%d.raw 1 5 1", "/dev/zero", "../a.raw", "none.raw"):
        yield name, {"a.mhd": metaimage(data=name)[0], "b.raw": body}


def _hostile_dicom() -> Iterator[tuple[str, Files]]:
    folder = dicom_folder()
    for what, changes in (
        ("no spacing", {"spacing": None}), ("spacing 0", {"spacing": "0\\0"}),
        ("spacing < 0", {"spacing": "-1.5\\1.25"}), ("metres", {"spacing": "0.0015\\0.00125"}),
        ("other spacing", {"spacing": "1.6\\1.25"}), ("no orientation", {"orientation": None}),
        ("orientation 0", {"orientation": "0\\0\\0\\0\\0\\0"}), ("nan", {"spacing": "nan\\inf"}),
        ("oblique", {"orientation": "1\\0\\0\\0.7\\0.7\\0"}), ("no position", {"position": None}),
        ("other orientation", {"orientation": "0\\1\\0\\1\\0\\0"}), ("rows", {"rows": 6000}),
        ("100000 frames", {"frames": "100000"}), ("slope 0", {"slope": "0"}),
        ("frames", {"frames": "-5"}), ("slope nan", {"slope": "nan"}),
    ):  # fmt: skip
        for number in (0, 4):
            yield (
                f"{what} in slice {number}",
                folder | {f"{number}.dcm": dicom_slice(number, **changes)},
            )
        if changes.get("spacing", "") is None or "metres" in what:
            yield f"{what} in all", {n: dicom_slice(int(n[0]), **changes) for n in folder}
    for number in (0, 4):
        content = folder[f"{number}.dcm"]
        yield f"slice {number} cut off", folder | {f"{number}.dcm": content[:-40]}
        yield f"slice {number} empty", folder | {f"{number}.dcm": b""}
        yield f"slice {number} of text", folder | {f"{number}.dcm": b"404 not found" * 30}
        yield (
            f"slice {number} unmarked",
            folder | {f"{number}.dcm": content.replace(b"DICM", b"DICX")},
        )
    yield "slice 2 missing", {name: folder[name] for name in folder if name != "2.dcm"}
    yield "nothing else", {"a.dcm": b"DICM" * 100}


def write(files: Files, folder: Path, *, is_folder: bool) -> Path:
    """Write files to a new folder and return what is to be read."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder if is_folder else folder / next(iter(files))
