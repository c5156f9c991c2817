"""Folders of DICOM slices: which series to take, and whether it is whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from aslseg.errors import ImageError

logger = logging.getLogger(__name__)

_MODALITY, _DESCRIPTION, _POSITION = "0008|0060", "0008|103e", "0020|0032"
# What holds no intensities of the patient: segmentations, dose, structures, reports, presentations.
_NOT_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "OT")
_UNEVEN_SHARE, _UNEVEN_MM = 0.05, 0.05
_PIXELS, _SEQUENCE_END = b"\xe0\x7f\x10\x00", b"\xfe\xff\xdd\xe0"
_UNDEFINED_LENGTH = 0xFFFFFFFF
# Big endian and deflated files: rare, and the tag of the pixels looks otherwise in them.
_UNSEARCHABLE = (b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1.99")


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one DICOM series.

    Attributes:
        uid: Series Instance UID.
        modality: CT, MR, SEG and so on; empty when the file does not say.
        description: What the scanner called it.
        files: Slices in order along the normal of the slices, or one file with all of them.
        slices: Number of slices.
        rows_by_columns: Pixels of a slice.
    """

    uid: str
    modality: str
    description: str
    files: tuple[Path, ...]
    slices: int
    rows_by_columns: int

    def __str__(self) -> str:
        # Not the description: people put names of patients into it, and this goes to logs.
        return f"{self.modality or 'unnamed'} series with {self.slices} slices"


def is_dicom_folder(folder: Path) -> bool:
    """Tell whether a folder holds a DICOM file."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return any(_is_dicom(path) for path in files)


def series_of(folder: Path) -> list[Series]:
    """List the series of a folder, in the order in which they are preferred.

    Intensities of the patient come first (CT before others), then what has more voxels.
    """
    uids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    found = [_series(folder, uid) for uid in uids]
    return sorted(found, key=_preference)


def read_folder(folder: Path) -> Any:
    """Read the largest CT series of a folder, or of other images if there is no CT.

    Which series was taken, and what was left aside, is said in the log.

    Returns:
        The SimpleITK image.

    Raises:
        ImageError: When there is no series, or its slices are damaged, missing or tilted.
    """
    all_series = series_of(folder)
    images = [series for series in all_series if series.modality not in _NOT_IMAGES]
    if not images:
        msg = (
            f"{folder} holds no DICOM image series; choose the folder with the slices of one scan."
        )
        raise ImageError(msg)
    _check_whole(folder, all_series)
    chosen, *others = all_series
    logger.info("%s: the %s is read.", folder, chosen)
    for other in others:
        logger.warning("%s: the %s is left aside.", folder, other)
    try:
        return _read(chosen, folder)
    except RuntimeError as error:
        msg = (
            f"{folder}: the slices of its {chosen} are damaged or differ in size; export it again."
        )
        raise ImageError(msg) from error


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def _series(folder: Path, uid: str) -> Series:
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    reader = _header(files[0])
    columns, rows, frames = (*reader.GetSize(), 1)[:3]
    return Series(
        uid=uid,
        modality=_tag(reader, _MODALITY),
        description=_tag(reader, _DESCRIPTION),
        files=tuple(Path(file) for file in files),
        slices=len(files) * frames,
        rows_by_columns=rows * columns,
    )


def _preference(series: Series) -> tuple[bool, bool, int, str]:
    size = series.slices * series.rows_by_columns
    return series.modality in _NOT_IMAGES, series.modality != "CT", -size, series.uid


def _header(file: str | Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        msg = f"{file} is a damaged DICOM file; export the series again."
        raise ImageError(msg) from error
    return reader


def _tag(reader: Any, key: str) -> str:
    return str(reader.GetMetaData(key)).strip() if reader.HasMetaDataKey(key) else ""


def _read(series: Series, folder: Path) -> Any:
    names = [str(file) for file in series.files]
    if len(names) == 1:
        return sitk.ReadImage(names[0], imageIO="GDCMImageIO")
    step = _even_step(series, folder)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(names)
    image = reader.Execute()
    # ITK takes the distance of the first two slices; the mean of all is free of their rounding.
    image.SetSpacing((*image.GetSpacing()[:2], step))
    return image


def _check_whole(folder: Path, all_series: list[Series]) -> None:
    """Refuse files whose pixels are cut off: GDCM fills them with zeros, or skips the file."""
    known = {file.name for series in all_series for file in series.files}
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        if file.name not in known and not _is_dicom(file):
            continue
        if not _is_whole(file.read_bytes()):
            msg = f"{file} is cut off; copy or export its series again."
            raise ImageError(msg)


def _is_whole(content: bytes) -> bool:
    """Whether there are no pixels, or all of them."""
    if any(syntax in content[:1024] for syntax in _UNSEARCHABLE):
        return True
    at = content.find(_PIXELS)
    if at < 0:
        return True
    while at >= 0:
        is_explicit = content[at + 4 : at + 6] in (b"OW", b"OB")
        start = at + (12 if is_explicit else 8)
        length = int.from_bytes(content[start - 4 : start], "little")
        if length == _UNDEFINED_LENGTH:
            return _SEQUENCE_END in content[-64:]
        if 0 < length <= len(content) - start:
            return True
        at = content.find(_PIXELS, at + 4)
    return False


def _even_step(series: Series, folder: Path) -> float:
    """Distance of neighbouring slices in mm, once it is sure that it is the same everywhere."""
    headers = [_header(file) for file in series.files]
    positions = np.array([_position(header) for header in headers])
    steps = np.diff(positions, axis=0)
    mean = steps.mean(axis=0)
    step = float(np.linalg.norm(mean))
    allowed = _UNEVEN_SHARE * step + _UNEVEN_MM
    if np.linalg.norm(steps - mean, axis=1).max() > allowed or step < _UNEVEN_MM:
        msg = (
            f"{folder}: slices of its {series} are missing, doubled or unevenly spaced; "
            "export one complete scan."
        )
        raise ImageError(msg)
    normal = np.reshape(headers[0].GetDirection(), (3, 3))[:, 2]
    if np.linalg.norm(mean - normal * (mean @ normal)) > allowed:
        msg = (
            f"{folder}: the slices of its {series} are tilted against the table (gantry tilt); "
            "load it in Slicer with regularised geometry and export it as NRRD."
        )
        raise ImageError(msg)
    return step


def _position(header: Any) -> list[float]:
    text = _tag(header, _POSITION)
    return [float(part) for part in text.split("\\")] if text else list(header.GetOrigin()[:3])
