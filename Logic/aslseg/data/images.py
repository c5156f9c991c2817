"""Volumes and label maps in files: checked as they are read, written whole or never.

Headers come from the module of their format; voxels are unpacked here, counted, and compared with
the checksum of their stream.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from aslseg.data import dicom as images_dicom
from aslseg.data import metaimage as images_metaimage
from aslseg.data import nifti as images_nifti
from aslseg.data import nrrd as images_nrrd
from aslseg.data.image_header import Header, check_memory, check_name, refuse
from aslseg.data.nrrd import Segment, segments_of
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import GeometryMismatchError, ImageError
from aslseg.storage import atomic_path, sha256_of, unwritable, visible_files

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".nhdr", ".mhd")


ONE_FILE_SUFFIXES = SUFFIXES[:4]
"""Of images that are one file."""


_MAY_BE_APART = (".mhd", ".nhdr", ".nrrd", ".mha")


_NEARLY = 1e-3


_HEADER_READERS: Mapping[str, Callable[[Path], Header]] = {
    ".ni": images_nifti.read_header,
    ".nr": images_nrrd.read_header,
    ".nh": images_nrrd.read_header,
    ".mh": images_metaimage.read_header,
}


_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


_WRITABLE: Mapping[str, type[np.generic]] = {
    "bool": np.uint8,
    "float16": np.float32,
}


def suffix_of(path: Path) -> str:
    """Return the image suffix of a file name in lower case, or nothing when it is no image's."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """Return the file name without its image suffix; folders keep their name."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_volume(path: Path) -> Volume:
    """Read a scalar image with its exact position.

    Args:
        path: A NIfTI, NRRD or MetaImage file, or a folder of DICOM slices.

    Returns:
        The volume in the file's own data type; oblique and mirrored axes stay as they are.

    Raises:
        ImageError: When it is missing, damaged, not 3-D, not scalar, too large for the memory that
            is allowed, at no possible place, or holds NaN or infinity.
    """
    with _reading(path):
        volume = _volume_of(path)
    if not _is_finite(volume.voxels):
        msg = f"{path} holds voxels that are no numbers (NaN or infinity); repair or leave it out."
        raise ImageError(msg)
    return volume


def read_labelmap(path: Path) -> Labelmap:
    """Read a label map with its exact position.

    Args:
        path: A NIfTI, NRRD or MetaImage file; whole numbers from 0 to 255 in any data type.

    Raises:
        ImageError: When it cannot be read, or holds anything but whole numbers from 0 to 255.
    """
    return read_segments(path)[0]


def read_labelmap_on(path: Path, geometry: Geometry, *, otherwise: str) -> Labelmap:
    """Read a label map that lies on given voxels, or else is refused.

    Args:
        path: As for `read_labelmap`.
        geometry: Of the image that it is of.
        otherwise: What it is no label map of, and the remedy; it ends the sentence.

    Raises:
        ImageError: As `read_labelmap` does.
        GeometryMismatchError: When it lies on other voxels.
    """
    labelmap = read_labelmap(path)
    if not labelmap.geometry.matches(geometry):
        msg = f"{path} lies on other voxels than the image of {otherwise}."
        raise GeometryMismatchError(msg)
    return labelmap


def read_segments(path: Path) -> tuple[Labelmap, tuple[Segment, ...]]:
    """Read a label map, and what its file calls the values.

    Args:
        path: As for `read_labelmap`.

    Returns:
        The label map, and the segments that a `.seg.nrrd` file of Slicer names; none of others.

    Raises:
        ImageError: As `read_labelmap` does, or when the names contradict themselves.
    """
    with _reading(path):
        if path.is_dir():
            what = "is a folder, not a label map"
            refuse(path, what, "export the segmentation as NIfTI or NRRD")
        header = read_header(path)
        labels = _labels_of(read_voxels(header), path)
        segments = segments_of(header) if header.fields else ()
    return Labelmap(labels, Geometry(header.shape, header.ijk_to_ras)), segments


def read_geometry(path: Path) -> Geometry:
    """Read where an image lies; of its files, only the headers are read.

    Raises:
        ImageError: When it is missing, damaged, or not a 3-D scalar image.
    """
    with _reading(path):
        if path.is_dir():
            return images_dicom.read_folder_geometry(path)
        header = read_header(path)
        return Geometry(header.shape, header.ijk_to_ras)


def read_header(path: Path) -> Header:
    """Read and check the header of an image file.

    Raises:
        ImageError: When it is missing, damaged, or not a 3-D scalar image.
    """
    if not path.is_file():
        refuse(path, "does not exist", "check the path, or restore the file")
    reader = _HEADER_READERS.get(suffix_of(path)[:3])
    if reader is None:
        what = "is no image that can be read"
        refuse(path, what, f"give {', '.join(SUFFIXES)}, or a DICOM folder")
    return reader(path)


def files_of_image(path: Path) -> list[Path]:
    """Return the files of an image: its own, and that of its voxels where it is another one.

    Of a DICOM folder, these are all its files that are not hidden.

    Raises:
        ImageError: When a header cannot be read, or the file of its voxels is absent.
    """
    if path.is_dir():
        return visible_files(path)
    if suffix_of(path) not in _MAY_BE_APART:
        return [path]
    header = read_header(path)
    return [path] if header.data == path else [path, header.data]


def digest_of_image(path: Path) -> str:
    """Return the digest that an image is known by.

    A file alone and a DICOM folder have that of `sha256_of`; a header with its voxels in another
    file has that of both, for headers of different patients are often the same.

    Raises:
        ImageError: As `files_of_image`.
        OSError: When a file cannot be read.
    """
    return sha256_of(path) if path.is_dir() else digest_of_all(files_of_image(path))


def digest_of_all(files: Iterable[Path]) -> str:
    """Return the digest of one file, or of several whatever their names.

    Raises:
        OSError: When one cannot be read.
    """
    found = sorted(sha256_of(file) for file in files)
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def stamp_of(path: Path) -> str:
    """Return a text that changes with any file of an image, at no great cost.

    Args:
        path: An image, or another file.

    Raises:
        ImageError: When it is missing or cannot be looked at.
    """
    try:
        files = files_of_image(path) if path.is_dir() else _files_of(path, _stamp(path))
        if files == [path]:
            return _stamp(path)
        whole = "".join(f"{file.name} {_stamp(file)}\n" for file in files)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); restore it, or check its permissions."
        raise ImageError(msg) from error
    return hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(maxsize=64)
def _files_of(path: Path, _stamp_of_header: str) -> list[Path]:
    """Return the files of an image that is one file or a header, which is read once a stamp."""
    return files_of_image(path)


def _stamp(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"


def write_volume(volume: Volume, path: Path) -> None:
    """Write an image, whole or not at all.

    Args:
        volume: What to write; bool becomes uint8 and float16 becomes float32.
        path: Ends in .nii.gz, .nii, .nrrd or .mha.

    Raises:
        StorageError: When the place cannot be written; what was there stays.
        ImageError: When the format cannot hold the volume.
    """
    _write(volume.voxels, volume.geometry, path)


def write_labelmap(labelmap: Labelmap, path: Path) -> None:
    """Write a label map, compressed, whole or not at all.

    Args:
        labelmap: What to write.
        path: Ends in .nii.gz, .nii, .nrrd or .mha.

    Raises:
        StorageError: When the place cannot be written; what was there stays.
        ImageError: When the format cannot hold the label map.
    """
    _write(labelmap.labels, labelmap.geometry, path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the system says about reading `path` into a sentence.

    Raises:
        ImageError: When its name is no text, the disk refuses, or memory is short.
    """
    check_name(path)
    try:
        yield
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})", "check the disk and the permissions")
    except MemoryError:
        refuse(path, "does not fit into the free memory", "close other programs, or resample it")


def _volume_of(path: Path) -> Volume:
    if path.is_dir():
        return images_dicom.read_folder(path)
    header = read_header(path)
    return Volume(read_voxels(header), Geometry(header.shape, header.ijk_to_ras))


def _is_finite(voxels: NDArray[Any]) -> bool:
    """Look at one slice at a time, so that no second large array is made."""
    return voxels.dtype.kind != "f" or all(np.isfinite(plane).all() for plane in voxels)


def _labels_of(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Check and convert values one slice at a time, so that no second large array is made."""
    if values.dtype == np.uint8:
        return values
    labels = np.empty(values.shape, np.uint8)
    for target, plane in zip(labels, values, strict=True):
        rounded = np.rint(plane) if plane.dtype.kind == "f" else plane
        with np.errstate(invalid="ignore"):
            target[...] = rounded.astype(np.uint8)
            # NaN is near to nothing. Scaling leaves 0.9999999 where 1 was drawn.
            wrong = plane[~((np.abs(plane - rounded) <= _NEARLY) & (rounded == target))]
        if wrong.size:
            msg = (
                f"{path} holds the value {wrong[0]:.9g}, labels are whole numbers from 0 to 255; "
                "export it as a label map."
            )
            raise ImageError(msg)
    return labels


def _write(array: NDArray[Any], geometry: Geometry, path: Path) -> None:
    if suffix_of(path) not in ONE_FILE_SUFFIXES:
        msg = f"{path} cannot be written; end its name in {', '.join(ONE_FILE_SUFFIXES)}."
        raise ImageError(msg)
    check_name(path)
    image = _image_of(array, geometry)
    if _is_sheared(geometry):
        msg = f"{path} cannot hold axes that are not at right angles; resample the volume first."
        raise ImageError(msg)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=suffix_of(path) != ".nii")
            _check_written(temporary)
        except (RuntimeError, ImageError) as error:
            raise unwritable(path, error) from error


def _check_written(path: Path) -> None:
    """Refuse half a file: when the disk is full, ITK writes one of NIfTI without a word."""
    header = read_header(path)
    if suffix_of(path).startswith(".nii") and not images_nifti.is_written_whole(path, header):
        refuse(path, "is cut off")


def _image_of(array: NDArray[Any], geometry: Geometry) -> Any:
    array = array.astype(_WRITABLE.get(array.dtype.name, array.dtype), copy=False)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    affine = geometry.ijk_to_ras[:3] * _LPS_TO_RAS[:, None]
    spacing = geometry.spacing_mm[::-1]
    image.SetSpacing(spacing)
    image.SetOrigin(affine[:, 3].tolist())
    image.SetDirection((affine[:, :3] / spacing).ravel().tolist())
    return image


def _is_sheared(geometry: Geometry) -> bool:
    axes = geometry.ijk_to_ras[:3, :3] / geometry.spacing_mm[::-1]
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


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
