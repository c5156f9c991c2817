"""Folders of DICOM slices: which series to take, whether it is whole, and where it lies.

Every tag that decides is read and checked here; ITK (GDCM) is left the decoding of the pixels of
files that have passed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from aslseg.data.dicom_header import DicomFile, looks_like_dicom, read_dicom_file
from aslseg.data.image_header import (
    check_memory,
    check_name,
    check_spacing,
    numbers,
    patient_affine,
    refuse,
    scalar_shape,
    whole_numbers,
)
from aslseg.data.volume import Geometry, Shape3, Volume
from aslseg.errors import ImageError

logger = logging.getLogger(__name__)

NOT_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "OT")
"""Modalities without intensities of the patient: segmentations, dose, structures, reports."""
_UNEVEN_SHARE, _UNEVEN_MM = 0.05, 0.05
_SAME_SPACING, _SAME_DIRECTION, _UNIT = 1e-3, 1e-3, 1e-2
_VOXEL_BYTES = 4  # of what is decoded: 16 bits, or more where slices are scaled
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_AGAIN = "export the series again"
_NO_PATIENT_IDS = (
    "", "0", "anon", "anonymous", "anonymized", "anonymised", "id", "na", "none", "patient",
    "unknown",
)  # fmt: skip
_OF_ONE_SCAN = {
    "patient": "patient (PatientID)",
    "frame_of_reference": "frame of reference (FrameOfReferenceUID)",
    "study": "study (StudyInstanceUID)",
}


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one DICOM series.

    Attributes:
        uid: Series Instance UID.
        modality: CT, MR, SEG and so on; empty when the file does not say.
        files: Slices by name, or one file with all of them.
        slices: Number of slices.
        rows_by_columns: Pixels of a slice.
    """

    uid: str
    modality: str
    files: tuple[DicomFile, ...]
    slices: int
    rows_by_columns: int

    def __str__(self) -> str:
        # Not what the scanner called it: people put names of patients there, and this is logged.
        return f"{self.modality or 'unnamed'} series with {self.slices} slices"


def is_dicom_folder(folder: Path) -> bool:
    """Tell whether a folder holds a DICOM file."""
    return any(_is_marked(path) for path in _files_in(folder))


def series_of(folder: Path) -> list[Series]:
    """List the series of a folder, in the order in which they are preferred.

    Intensities of the patient come first (CT before others), then what has more voxels.

    Raises:
        ImageError: When a file of a series is damaged, or looks as if it was one of them.
    """
    series: dict[str, list[DicomFile]] = {}
    others = []
    for path in _files_in(folder):
        found = read_dicom_file(path)
        if found is None:
            others.append(path)
        elif found.pixel_bytes is not None or found.text("series"):
            series.setdefault(found.text("series"), []).append(found)
    known = [file for files in series.values() for file in files]
    _refuse_damaged(others, known)
    return sorted((_series(uid, files) for uid, files in series.items()), key=_preference)


def read_folder(folder: Path) -> Volume:
    """Read the largest CT series of a folder, or of other images if there is no CT.

    The log has which series was taken, and what was left aside.

    Raises:
        ImageError: When there is no series, its slices are damaged, missing, tilted, or do not say
            where they lie, or they are of several patients, studies or frames of reference; when
            the image series are of several patients.
    """
    chosen = _choose(folder)
    files, geometry = _placed(chosen, folder)
    voxels = math.prod(geometry.shape)
    check_memory(folder, voxels, _VOXEL_BYTES)
    try:
        return Volume(_decoded(files, geometry, folder), geometry)
    except RuntimeError as error:
        msg = f"{folder}: the slices of its {chosen} are damaged or differ in size; {_AGAIN}."
        raise ImageError(msg) from error


def patient_id_of(folder: Path) -> str | None:
    """Read whose series `read_folder` takes: PatientID, with its issuer where the file names one.

    It is as the hospital knows the patient, so it must reach no file and no message.

    Returns:
        None when the files say nothing, or what anonymisers write in place of an ID.

    Raises:
        ImageError: As `read_folder` does.
    """
    file = _image_series(folder)[0].files[0]
    patient_id = _known_patient(file)
    return f"{file.text('patient_issuer')}\0{patient_id}" if patient_id else None


def read_folder_geometry(folder: Path) -> Geometry:
    """Read where the series that `read_folder` takes lies, without its pixels.

    Raises:
        ImageError: As `read_folder` does.
    """
    return _placed(_choose(folder), folder)[1]


def slice_files(folder: Path) -> list[Path]:
    """Return the files that `read_folder` reads, in the order of its slices; one of all its frames.

    Raises:
        ImageError: As `read_folder` does.
    """
    return _placed(_choose(folder), folder)[0]


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def _refuse_damaged(others: Sequence[Path], known: Sequence[DicomFile]) -> None:
    """Refuse what has lost its marks: without it, a volume would be one slice shorter."""
    endings = {file.path.suffix.lower() for file in known} - {""} | {".dcm"}
    for path in others:
        if known and (path.suffix.lower() in endings or looks_like_dicom(path)):
            remedy = "restore it, or move it away if it belongs to no scan"
            refuse(path, "lies among DICOM files but is none, or a damaged one", remedy)


def _series(uid: str, files: list[DicomFile]) -> Series:
    first = files[0]
    return Series(
        uid=uid,
        modality=first.text("modality"),
        files=tuple(files),
        slices=sum(_frame_count(file) for file in files),
        rows_by_columns=first.numbers.get("rows", 0) * first.numbers.get("columns", 0),
    )


def _preference(series: Series) -> tuple[bool, bool, int, str]:
    size = series.slices * series.rows_by_columns
    return series.modality in NOT_IMAGES, series.modality != "CT", -size, series.uid


def _choose(folder: Path) -> Series:
    chosen, *others = _image_series(folder)
    logger.info("%s: the %s is read.", folder, chosen)
    for other in others:
        logger.warning("%s: the %s is left aside.", folder, other)
    return chosen


def _image_series(folder: Path) -> list[Series]:
    """List the series with pixels; the first one is taken."""
    all_series = [series for series in series_of(folder) if series.rows_by_columns]
    for series in all_series:
        for file in series.files:
            _check_pixels(file)
    if not any(series.modality not in NOT_IMAGES for series in all_series):
        remedy = "choose the folder with the slices of one scan"
        refuse(folder, "holds no DICOM image series", remedy)
    _refuse_several_scans(all_series[0])
    _refuse_several_patients(folder, all_series)
    return all_series


def _known_patient(file: DicomFile) -> str:
    """Return the PatientID of a file; nothing where it says none that tells patients apart."""
    patient_id = file.text("patient")
    return "" if patient_id.lower().strip("_- ") in _NO_PATIENT_IDS else patient_id


def _refuse_several_patients(folder: Path, all_series: Sequence[Series]) -> None:
    """Refuse a choice between patients, which the size of a series or its UID would make.

    No message says a PatientID, see `patient_id_of`.
    """
    images = [series for series in all_series if series.modality not in NOT_IMAGES]
    patients = {_known_patient(file) for series in images for file in series.files} - {""}
    if len(patients) > 1:
        what = f"holds image series of {len(patients)} patients (their PatientIDs differ)"
        refuse(folder, what, "put the series of each patient into a folder of its own")


def _refuse_several_scans(series: Series) -> None:
    """Refuse slices of one SeriesInstanceUID that are of several patients, places or studies.

    A tag that no slice has is no difference. Nor is a study for each slice: SimpleITK makes one up
    for every file that is written without.
    """
    first, *others = series.files
    for name, of_what in _OF_ONE_SCAN.items():
        other = next((file for file in others if file.text(name) != first.text(name)), None)
        count = len({file.text(name) for file in series.files})
        if other is not None and (name != "study" or count < len(series.files)):
            what = f"is of another {of_what} than {first.path.name}, in one series"
            remedy = f"move slices of another scan into a folder of their own, or {_AGAIN}"
            refuse(other.path, what, remedy)


def _frame_count(file: DicomFile) -> int:
    (count,) = whole_numbers(file.path, "NumberOfFrames", file.text("frames") or "1", 1)
    if not 1 <= count <= 1_000_000:
        refuse(file.path, f"is damaged: it says that it has {count} frames", _AGAIN)
    return count


def _check_pixels(file: DicomFile) -> None:
    """Refuse files without all of their pixels: GDCM fills them with zeros, or skips the file."""
    frames = _frame_count(file)
    per_frame = math.prod(file.numbers.get(name, 1) for name in ("rows", "columns", "samples"))
    expected = frames * per_frame * file.numbers.get("bits", 0) // 8
    stored = file.pixel_bytes
    is_short = stored is None or (stored < expected if not file.pieces else file.pieces < frames)
    if is_short and file.text("modality") not in ("SR", "PR", "KO"):
        refuse(file.path, "is cut off", "copy or export its series again")
    if stored is not None and not file.pieces and stored > expected + (expected % 2):
        refuse(file.path, "is damaged: it holds more pixels than it says", _AGAIN)


def _placed(series: Series, folder: Path) -> tuple[list[Path], Geometry]:
    """Return the files in the order of their slices, and the grid of these."""
    for file in series.files:
        _check_kind(file, series.files[0])
    if len(series.files) == 1:
        _refuse_other_scales(series.files[0])
        return [series.files[0].path], _frames_geometry(series.files[0], series, folder)
    if any(_frame_count(file) > 1 for file in series.files):
        refuse(folder, f"holds several files with several frames each in its {series}", _AGAIN)
    in_plane = [_in_plane(file, file.texts) for file in series.files]
    _refuse_other_planes([file.path for file in series.files], in_plane)
    positions = np.array([_vector(file, file.texts, "position", 3) for file in series.files])
    heights = positions @ np.cross(in_plane[0][:3], in_plane[0][3:6])
    order = np.argsort(heights, kind="stable")
    step = _even_step(positions[order], in_plane[0], series, folder)
    files = [series.files[index].path for index in order]
    shape = _shape(series.files[0], len(files))
    return files, _geometry(files[0], shape, in_plane[0], step, positions[order[0]])


def _check_kind(file: DicomFile, first: DicomFile) -> None:
    """Refuse what is no slice of one scalar volume."""
    sizes = [file.numbers.get(name, 0) for name in ("columns", "rows")]
    if sizes != [first.numbers.get(name, 0) for name in ("columns", "rows")]:
        what = f"is not of the size of the slices beside it ({sizes[0]} x {sizes[1]})"
        refuse(file.path, what, _AGAIN)
    scalar_shape(file.path, [*sizes, 1], file.numbers.get("samples", 1))
    bits = file.numbers.get("bits", 0)
    stored, high = file.numbers.get("bits_stored", bits), file.numbers.get("high_bit", bits - 1)
    if bits not in (8, 16, 32) or not 1 <= stored <= bits or not stored - 1 <= high < bits:
        refuse(file.path, f"is damaged: {stored} of {bits} bits of its pixels are used", _AGAIN)
    if not file.text("photometry").startswith("MONOCHROME"):
        what = f"holds no grey values ('{file.text('photometry')[:20]}')"
        refuse(file.path, what, "export it as a scalar volume")
    for name, default in (("slope", "1"), ("intercept", "0")):
        value = numbers(file.path, name, file.text(name) or default, 1)[0]
        if not math.isfinite(value) or (name == "slope" and value == 0) or abs(value) > 1e9:
            refuse(file.path, f"is damaged: it scales its pixels by a {name} of {value:g}", _AGAIN)


def _vector(file: DicomFile, texts: Any, name: str, count: int) -> list[float]:
    text = texts.get(name, "")
    if not text:
        refuse(file.path, f"does not say where it lies (no {_NAMES[name]})", _AGAIN)
    values = numbers(file.path, _NAMES[name], text.replace("\\", " "), count)
    if not np.isfinite(values).all():
        refuse(file.path, f"does not say where it lies ({_NAMES[name]} holds no numbers)", _AGAIN)
    return values


_NAMES = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "spacing": "PixelSpacing",
}


def _in_plane(file: DicomFile, texts: Any) -> list[float]:
    """Read the directions of a row and of a column, then the distances of columns and of rows."""
    directions = _vector(file, texts, "orientation", 6)
    row, column = np.array(directions[:3]), np.array(directions[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if np.abs(lengths - 1).max() > _UNIT or abs(row @ column) > _UNIT:
        what = "does not say where it lies: its ImageOrientationPatient is no pair of directions"
        refuse(file.path, f"{what} at right angles", _AGAIN)
    down, along = _vector(file, texts, "spacing", 2)
    check_spacing(file.path, (along, down))
    return [*(row / lengths[0]), *(column / lengths[1]), along, down]


def _refuse_other_planes(paths: Sequence[Path], in_plane: Sequence[Sequence[float]]) -> None:
    for path, plane in zip(paths, in_plane, strict=True):
        difference = np.abs(np.array(plane) - in_plane[0])
        is_other = difference[:6].max() > _SAME_DIRECTION
        if is_other or (difference[6:] / in_plane[0][6:]).max() > _SAME_SPACING:
            name = _NAMES["orientation" if is_other else "spacing"]
            what = f"has another {name} than the slices beside it"
            refuse(path, what, "export one complete scan")


def _even_step(
    positions: NDArray[np.float64], in_plane: Sequence[float], series: Series, folder: Path
) -> NDArray[np.float64]:
    """Step from slice to slice in mm (LPS), once it is sure that it is the same everywhere."""
    steps = np.diff(positions, axis=0)
    mean: NDArray[np.float64] = steps.mean(axis=0)
    length = float(np.linalg.norm(mean))
    allowed = _UNEVEN_SHARE * length + _UNEVEN_MM
    if np.linalg.norm(steps - mean, axis=1).max() > allowed or length < _UNEVEN_MM:
        msg = (
            f"{folder}: slices of its {series} are missing, doubled or unevenly spaced; "
            "export one complete scan."
        )
        raise ImageError(msg)
    normal = np.cross(in_plane[:3], in_plane[3:6])
    along = float(mean @ normal)
    if np.linalg.norm(mean - normal * along) > allowed:
        msg = (
            f"{folder}: the slices of its {series} are tilted against the table (gantry tilt); "
            "load it in Slicer with regularised geometry and export it as NRRD."
        )
        raise ImageError(msg)
    return normal * math.copysign(length, along)


def _frames_geometry(file: DicomFile, series: Series, folder: Path) -> Geometry:
    """Place the frames of a single file, whether it says so for each of them or once."""
    count = _frame_count(file)
    lists = file.frames
    positions = lists.get("position", [])
    for name in ("orientation", "spacing"):
        if any(_differs(file, name, text) for text in lists.get(name, [])):
            what = f"has frames with another {_NAMES[name]}"
            refuse(file.path, what, "export one complete scan")
    texts = {name: lists[name][0] for name in lists if lists[name]} | {
        name: text for name, text in file.texts.items() if text
    }
    in_plane = _in_plane(file, texts)
    shape = _shape(file, count)
    if len(positions) == count > 1:
        points = np.array([_vector(file, {"position": text}, "position", 3) for text in positions])
        step = _even_step(points, in_plane, series, folder)
        return _geometry(file.path, shape, in_plane, step, points[0])
    text = texts.get("between") or texts.get("thickness") or ""
    if not text:
        refuse(file.path, "does not say how far its slices are apart", _AGAIN)
    (length,) = numbers(file.path, "SpacingBetweenSlices", text, 1)
    step = np.cross(in_plane[:3], in_plane[3:6]) * length
    position = np.array(_vector(file, texts, "position", 3))
    return _geometry(file.path, shape, in_plane, step, position)


def _refuse_other_scales(file: DicomFile) -> None:
    """Refuse frames that are scaled each in its own way: GDCM scales all as the first one."""
    for name in ("slope", "intercept"):
        if len({numbers(file.path, name, text, 1)[0] for text in file.frames.get(name, [])}) > 1:
            what = f"has frames whose pixels are scaled by another {name}"
            refuse(file.path, what, "load it in Slicer and export it as NRRD")


def _differs(file: DicomFile, name: str, text: str) -> bool:
    first = numbers(file.path, name, file.frames[name][0].replace("\\", " "))
    values = numbers(file.path, name, text.replace("\\", " "))
    return len(first) != len(values) or not np.allclose(first, values, atol=1e-4)


def _shape(file: DicomFile, slices: int) -> tuple[int, int, int]:
    return scalar_shape(file.path, (file.numbers["columns"], file.numbers["rows"], slices))


def _geometry(
    path: Path,
    shape: tuple[int, int, int],
    in_plane: Sequence[float],
    step: NDArray[np.float64],
    position: NDArray[np.float64],
) -> Geometry:
    row, column = np.array(in_plane[:3]), np.array(in_plane[3:6])
    axes = np.column_stack([row * in_plane[6], column * in_plane[7], step])
    affine = patient_affine(path, axes * _LPS_TO_RAS[:, None], position * _LPS_TO_RAS)
    return Geometry(shape, affine)


def _decoded(files: Sequence[Path], geometry: Geometry, folder: Path) -> NDArray[Any]:
    """Let ITK decode the pixels.

    Raises:
        RuntimeError: When it cannot.
    """
    for file in files:
        check_name(file)
    if len(files) == 1:
        return _pixels(files[0], geometry.shape)
    return _stacked(files, geometry.shape)


def _pixels(file: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    found: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    if found.size != math.prod(shape):
        refuse(file, f"holds {found.shape} voxels where {shape} are named", _AGAIN)
    return found.reshape(shape)


def _stacked(files: Sequence[Path], shape: Shape3) -> NDArray[Any]:
    """Decode slices one by one: ITK's reader of series casts all to what the first one is of.

    Each may have its own scale, so what is stored as whole numbers may be broken ones in another.
    """
    first = _pixels(files[0], shape[1:])
    stacked = np.empty(shape, first.dtype)
    stacked[0] = first
    for index, file in enumerate(files[1:], start=1):
        pixels = _pixels(file, shape[1:])
        stacked = stacked.astype(np.result_type(stacked, pixels), copy=False)
        stacked[index] = pixels
    return stacked
