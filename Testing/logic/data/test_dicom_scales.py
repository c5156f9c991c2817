"""Slices and frames of DICOM whose stored numbers are scaled each in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from aslseg.data.images import read_volume
from aslseg.errors import ImageError

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
Scales = Sequence[tuple[float, float]]


def an_image(sop_class: str, stored: np.ndarray) -> FileDataset:
    """Return a file of unsigned 16-bit pixels (rows, columns) or (frames, rows, columns)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    file.Modality, file.SamplesPerPixel = "MR", 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.Rows, file.Columns = stored.shape[-2:]
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    file.PixelData = stored.astype(np.uint16).tobytes()
    return file


def write_slices(folder: Path, scales: Scales, stored: int) -> None:
    series = generate_uid()
    for k, (slope, intercept) in enumerate(scales):
        file = an_image(MR, np.full((4, 4), stored))
        file.SeriesInstanceUID, file.InstanceNumber = series, k + 1
        file.PixelSpacing, file.SliceThickness = [1, 1], 2
        file.ImagePositionPatient = [0, 0, 2 * k]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.RescaleSlope, file.RescaleIntercept = str(slope), str(intercept)
        file.save_as(folder / f"{k}.dcm", enforce_file_format=True)


def write_frames(folder: Path, scales: Scales, stored: int) -> None:
    file = an_image(ENHANCED_MR, np.full((len(scales), 4, 4), stored))
    file.SeriesInstanceUID, file.NumberOfFrames = generate_uid(), len(scales)
    measures = a_dataset(PixelSpacing=[1, 1], SliceThickness=2)
    plane = a_dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    file.SharedFunctionalGroupsSequence = [
        a_dataset(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])
    ]
    file.PerFrameFunctionalGroupsSequence = [
        a_dataset(
            PlanePositionSequence=[a_dataset(ImagePositionPatient=[0, 0, 2 * k])],
            PixelValueTransformationSequence=[
                a_dataset(RescaleSlope=str(slope), RescaleIntercept=str(intercept))
            ],
        )
        for k, (slope, intercept) in enumerate(scales)
    ]
    file.save_as(folder / "frames.dcm", enforce_file_format=True)


def a_dataset(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def values_of(scales: Scales, stored: int) -> list[float]:
    return [stored * slope + intercept for slope, intercept in scales]


@pytest.mark.parametrize(
    ("scales", "stored"),
    [
        ([(1, 0), (1, -1024), (1, -1024)], 100),
        ([(1, -1024), (1, 0), (1, 0)], 60_000),
        ([(1, 0), (0.25, 0), (0.5, 0)], 3),
        ([(1, 0), (30, 0), (30, 0)], 3000),
    ],
)
def test_each_slice_is_scaled_as_its_own_file_says(
    tmp_path: Path, scales: Scales, stored: int
) -> None:
    write_slices(tmp_path, scales, stored)
    assert read_volume(tmp_path).voxels[:, 0, 0].tolist() == values_of(scales, stored)


def test_slices_of_one_scale_stay_whole_numbers(tmp_path: Path) -> None:
    write_slices(tmp_path, [(1, -1024)] * 3, 1100)
    voxels = read_volume(tmp_path).voxels
    assert voxels.dtype.kind == "i"
    assert (voxels == 76).all()


def test_a_slice_that_is_decoded_to_another_size_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slices(tmp_path, [(1, 0)] * 3, 100)
    read = sitk.ReadImage

    def shrunk(name: str, **options: Any) -> sitk.Image:
        image = read(name, **options)
        return image[:1, :1, :] if name.endswith("1.dcm") else image

    monkeypatch.setattr(sitk, "ReadImage", shrunk)
    with pytest.raises(ImageError, match=r"1\.dcm holds \(1, 1, 1\) voxels where \(4, 4\)"):
        read_volume(tmp_path)


def test_frames_of_one_scale_are_read(tmp_path: Path) -> None:
    write_frames(tmp_path, [(2, -10)] * 3, 3)
    assert read_volume(tmp_path).voxels[:, 0, 0].tolist() == [-4, -4, -4]


@pytest.mark.parametrize(
    ("scales", "name"), [([(1, 0), (2, 0), (3, 0)], "slope"), ([(1, -1024), (1, 0)], "intercept")]
)
def test_frames_that_are_scaled_differently_are_refused(
    tmp_path: Path, scales: Scales, name: str
) -> None:
    write_frames(tmp_path, scales, 3)
    with pytest.raises(ImageError, match=f"scaled by another {name}; load it in Slicer"):
        read_volume(tmp_path)
