"""Label maps become DICOM segmentations of the series that they were made on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from highdicom.seg import Segmentation, segread
from pydicom import dcmread

from aslseg.data.images import read_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import ImageError
from aslseg.export.dicom_seg import write_dicom_seg
from aslseg.export.project import ExportOptions, export_project
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.review import draw
from aslseg.targets import LIVER_TARGETS, Target
from support.dicom_slices import write_slice

ROOT = "1.2.826.0.1.3680043.2.1125"


def write_series(folder: Path, *, patient: str = "P1", slices: int = 4) -> None:
    """Write slices of 6 x 5 pixels, tilted about the left-right axis; names run against height."""
    folder.mkdir(parents=True)
    for number in range(slices):
        image = sitk.GetImageFromArray(np.full((5, 6), 10 * number, np.int16))
        image.SetSpacing((0.8, 0.7))
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{ROOT}.2.{number + 1}",
            "0020|000d": f"{ROOT}.1",
            "0020|000e": f"{ROOT}.2",
            "0020|0052": f"{ROOT}.3",
            "0010|0010": "Doe^Jane",
            "0010|0020": patient,
            "0020|0013": str(number),
            "0020|0032": f"-10\\{-20 - 1.5 * number}\\{30 + 2.0 * number}",
            "0020|0037": "1\\0\\0\\0\\0.8\\0.6",
        }
        write_slice(folder / f"{slices - number:03}.dcm", image, tags)


def labels_of(folder: Path) -> Labelmap:
    """Draw a liver in two slices, and a tumour in the upper one."""
    geometry = read_volume(folder).geometry
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1:3, 1:4, 2:5] = 1
    labels[2, 2, 3] = 2
    return Labelmap(labels, geometry)


def planes_of(found: Segmentation, number: int) -> dict[float, np.ndarray]:
    """Return the planes of a segment by the height of their first pixel."""
    planes = found.pixel_array.reshape(-1, found.Rows, found.Columns)  # of one frame, too
    return {
        float(frame.PlanePositionSequence[0].ImagePositionPatient[2]): planes[index]
        for index, frame in enumerate(found.PerFrameFunctionalGroupsSequence)
        if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
    }


def test_segments_lie_on_the_slices_that_they_were_drawn_on(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    labelmap = labels_of(tmp_path / "ct")
    path = tmp_path / "out.seg.dcm"
    write_dicom_seg(
        labelmap, tmp_path / "ct", LIVER_TARGETS, path, made_by="ai", algorithm="ASLseg semisam"
    )
    found = segread(path)
    liver, tumour = planes_of(found, 1), planes_of(found, 2)
    assert sorted(liver) == [32.0, 34.0]
    assert list(tumour) == [34.0]
    np.testing.assert_array_equal(liver[34.0], labelmap.labels[2] == 1)
    np.testing.assert_array_equal(tumour[34.0], labelmap.labels[2] == 2)
    shared = found.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.7, 0.8]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 0.8, 0.6]


def test_the_object_belongs_to_its_study_and_says_who_made_it(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    targets = (*LIVER_TARGETS, Target(name="cyst", value=7, inside="liver"))
    labelmap = labels_of(tmp_path / "ct")
    for made_by, kind in (("drawn", "MANUAL"), ("corrected", "SEMIAUTOMATIC"), ("ai", "AUTOMATIC")):
        path = tmp_path / f"{made_by}.seg.dcm"
        write_dicom_seg(
            labelmap, tmp_path / "ct", targets, path, made_by=made_by, algorithm="ASLseg aslseg"
        )
        found = dcmread(path)
        assert (found.PatientID, found.StudyInstanceUID) == ("P1", f"{ROOT}.1")
        referenced = found.ReferencedSeriesSequence[0]
        assert referenced.SeriesInstanceUID == f"{ROOT}.2"
        assert len(referenced.ReferencedInstanceSequence) >= 2
        liver, tumour, cyst = found.SegmentSequence
        assert {segment.SegmentAlgorithmType for segment in found.SegmentSequence} == {kind}
        codes = [
            segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
            for segment in (liver, tumour, cyst)
        ]
        assert codes == ["10200004", "4147007", "cyst"]
    assert liver.SegmentAlgorithmName == "ASLseg aslseg"


@pytest.mark.parametrize(
    ("charset", "patient"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce"),
    ],
)
def test_names_are_written_in_their_letters_whatever_those_of_the_slices(
    tmp_path: Path, charset: str | list[str] | None, patient: str
) -> None:
    write_series(tmp_path / "ct", slices=2)
    for path in (tmp_path / "ct").iterdir():
        slice_ = dcmread(path)
        slice_.SpecificCharacterSet = charset
        slice_.PatientName = patient
        slice_.save_as(path)
    grid = read_volume(tmp_path / "ct").geometry
    drawn = Labelmap(np.ones(grid.shape, np.uint8), grid)
    targets = (Target(name="\u043f\u0435\u0447\u0435\u043d\u044c", value=1),)
    write_dicom_seg(drawn, tmp_path / "ct", targets, tmp_path / "o.seg.dcm", made_by="ai")
    found = dcmread(tmp_path / "o.seg.dcm")
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == patient
    assert found.SegmentSequence[0].SegmentLabel == targets[0].name


def test_slices_that_say_too_little_are_told(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    for path in (tmp_path / "ct").iterdir():
        slice_ = dcmread(path)
        del slice_.StudyInstanceUID
        slice_.save_as(path)
    with pytest.raises(ImageError, match="lack what a DICOM segmentation"):
        write_dicom_seg(
            labels_of(tmp_path / "ct"), tmp_path / "ct", LIVER_TARGETS, tmp_path / "o", made_by="ai"
        )
    assert not (tmp_path / "o").exists()


def test_only_cases_from_dicom_become_dicom(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    sitk.WriteImage(
        sitk.GetImageFromArray(np.zeros((4, 5, 6), np.int16)), str(tmp_path / "other.nii.gz")
    )
    cases = [CaseFiles("ct", tmp_path / "ct"), CaseFiles("other", tmp_path / "other.nii.gz")]
    project = create_project(tmp_path / "project", cases)
    for name, image in (("ct", "ct"), ("other", "other.nii.gz")):
        geometry = read_volume(tmp_path / image).geometry
        drawn = Labelmap(labels_of(tmp_path / "ct").labels, geometry)
        project = draw(project, name, drawn)
    done = export_project(project, tmp_path / "out", ExportOptions(format="dicom_seg"))
    assert (tmp_path / "out" / "ct.seg.dcm").exists()
    assert not list((tmp_path / "out").glob("other*"))
    assert done.notes == (
        "Measured, but not written, for their images are no DICOM folders: other.",
    )


def test_a_target_that_nobody_looked_for_is_no_empty_segment(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", slices=2)
    project = create_project(tmp_path / "project", [CaseFiles("ct", tmp_path / "ct")])
    grid = read_volume(tmp_path / "ct").geometry
    project = draw(project, "ct", Labelmap(np.ones(grid.shape, np.uint8), grid))
    for names, segments in (((), ["liver", "tumour"]), (("liver",), ["liver"])):
        project = project.set_label_targets("ct", names)
        export_project(project, tmp_path / "out", ExportOptions(format="dicom_seg"))
        found = dcmread(tmp_path / "out" / "ct.seg.dcm")
        assert [one.SegmentLabel for one in found.SegmentSequence] == segments


@pytest.mark.shared
def test_a_real_series_gets_its_segmentation(shared_folder: Path, tmp_path: Path) -> None:
    folder = shared_folder / "data" / "dcmqi_ct_dicom"
    geometry = read_volume(folder).geometry
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1, 200:260, 100:180] = 1
    path = tmp_path / "real.seg.dcm"
    write_dicom_seg(Labelmap(labels, geometry), folder, LIVER_TARGETS, path, made_by="drawn")
    (plane,) = planes_of(segread(path), 1).values()
    np.testing.assert_array_equal(plane, labels[1])
