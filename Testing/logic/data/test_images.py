"""Images in and out: nothing moves, nothing damaged passes, nothing half-written stays."""

from __future__ import annotations

import gzip
import logging
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from aslseg.data.dicom import is_dicom_folder, patient_id_of, series_of, slice_files
from aslseg.data.geometry import ijk_to_ras
from aslseg.data.images import (
    read_geometry,
    read_labelmap,
    read_volume,
    stem_of,
    write_labelmap,
    write_volume,
)
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import ImageError, StorageError
from support.dicom_slices import write_slice

FORMATS = [".nii.gz", ".nii", ".nrrd", ".mha"]


def corners(geometry: Geometry) -> np.ndarray:
    extent = np.array(geometry.shape[::-1]) - 1
    return ijk_to_ras(np.array(np.meshgrid(*[(0, 1)] * 3)).reshape(3, -1).T * extent, geometry)


def write(path: Path, array: np.ndarray, *, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.int32])
def test_voxels_and_type_survive(
    tmp_path: Path, a_geometry: Geometry, rng: np.random.Generator, suffix: str, dtype: type
) -> None:
    voxels = rng.integers(0, 200, a_geometry.shape).astype(dtype)
    write_volume(Volume(voxels, a_geometry), tmp_path / f"ct{suffix}")
    read = read_volume(tmp_path / f"ct{suffix}")
    np.testing.assert_array_equal(read.voxels, voxels)
    assert read.voxels.dtype == dtype
    np.testing.assert_allclose(read.geometry.ijk_to_ras, a_geometry.ijk_to_ras, atol=1e-6)


@pytest.mark.parametrize(("dtype", "written"), [(np.bool_, np.uint8), (np.float16, np.float32)])
def test_types_that_no_format_has_become_wider(
    tmp_path: Path, a_geometry: Geometry, dtype: type, written: type
) -> None:
    write_volume(Volume(np.ones(a_geometry.shape, dtype), a_geometry), tmp_path / "a.nrrd")
    assert read_volume(tmp_path / "a.nrrd").voxels.dtype == written


@settings(max_examples=40)
@given(
    suffix=st.sampled_from([".nii.gz", ".nrrd", ".mha"]),
    turn=st.integers(0, 10_000),
    mirror=st.sampled_from([1.0, -1.0]),
    spacing=st.tuples(*[st.floats(0.2, 8.0)] * 3),
    origin=st.tuples(*[st.floats(-900.0, 900.0)] * 3),
)
def test_oblique_mirrored_and_anisotropic_grids_stay_where_they_are(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    turn: int,
    mirror: float,
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=turn).as_matrix() * spacing * [1, mirror, 1]
    affine[:3, 3] = origin
    geometry = Geometry((3, 4, 5), affine)
    path = tmp_path_factory.mktemp("grid") / f"labels{suffix}"
    write_labelmap(Labelmap(np.zeros(geometry.shape, np.uint8), geometry), path)
    read = read_geometry(path)
    # NIfTI keeps single precision: 900 mm to a part of 2^-24. The others keep double precision.
    tolerance_mm = 2e-4 if suffix == ".nii.gz" else 1e-9
    np.testing.assert_allclose(corners(read), corners(geometry), atol=tolerance_mm)
    assert read.matches(geometry)


@pytest.mark.parametrize("degrees", [90, 180, 270, 179.999, 0.001])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_turns_that_a_quaternion_keeps_badly_survive_nifti(
    tmp_path: Path, axis: str, degrees: float
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() * [0.7, 0.7, 5]
    geometry = Geometry((60, 512, 512), affine)
    write_labelmap(Labelmap(np.zeros(geometry.shape, np.uint8), geometry), tmp_path / "a.nii.gz")
    error_mm = np.abs(corners(read_geometry(tmp_path / "a.nii.gz")) - corners(geometry)).max()
    assert error_mm < 1e-3


@pytest.mark.parametrize("suffix", FORMATS)
def test_sheared_axes_are_not_written(tmp_path: Path, suffix: str) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    volume = Volume(np.zeros((2, 3, 4), np.int16), Geometry((2, 3, 4), affine))
    with pytest.raises(ImageError, match="not at right angles; resample"):
        write_volume(volume, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_axes_of_length_one_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nrrd", np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4))
    assert read_volume(path).voxels.shape == read_geometry(path).shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("shape", "vector", "words"),
    [
        pytest.param((2, 3), False, "2 axes", id="a picture"),
        pytest.param((2, 2, 3, 4), False, "4 axes", id="a time series"),
        pytest.param((2, 3, 4, 3), True, "3 values per voxel", id="colour"),
    ],
)
def test_what_is_no_scalar_volume_is_refused(
    tmp_path: Path, shape: tuple[int, ...], vector: bool, words: str
) -> None:
    path = write(tmp_path / "a.nrrd", np.zeros(shape, np.int16), vector=vector)
    for read in (read_volume, read_labelmap, read_geometry):
        with pytest.raises(ImageError, match=rf"a\.nrrd has {words}.*export"):
            read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.nii\.gz does not exist; check the path"):
        read_volume(tmp_path / "nowhere.nii.gz")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("liver")
    with pytest.raises(ImageError, match=r"notes\.txt is no image that can be read"):
        read_volume(tmp_path / "notes.txt")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_text_with_the_name_of_an_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    path.write_text("<html>404 not found</html>")
    with pytest.raises(ImageError, match="damaged or of another format"):
        read_volume(path)


@pytest.mark.parametrize("part", [0.999, 0.5, 0.05])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_cut_off_file_is_refused(
    tmp_path: Path, rng: np.random.Generator, suffix: str, part: float
) -> None:
    path = tmp_path / f"ct{suffix}"
    voxels = rng.integers(-1000, 1000, (20, 30, 40)).astype(np.int16)
    write_volume(Volume(voxels, Geometry.axis_aligned((20, 30, 40))), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ImageError, match=rf"ct{suffix} is (cut off|damaged).*export it again"):
        read_volume(path)


def test_a_gzip_file_of_several_members_is_read(tmp_path: Path, a_small_ct: Volume) -> None:
    write_volume(a_small_ct, tmp_path / "a.nii")
    raw = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw[:5000]) + gzip.compress(raw[5000:]))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").voxels, a_small_ct.voxels)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_holes_in_its_numbers_is_refused(
    tmp_path: Path, suffix: str, dtype: type, value: float
) -> None:
    voxels = np.zeros((2, 3, 4), dtype)
    path = write(tmp_path / f"ct{suffix}", voxels)
    assert not read_volume(path).voxels.any()
    voxels[1, 2, 3] = value
    write(path, voxels)
    with pytest.raises(ImageError, match=rf"ct{suffix} holds voxels that are no numbers"):
        read_volume(path)


def test_numbers_of_a_big_endian_nifti_file_are_checked_too(tmp_path: Path) -> None:
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, 40, 3, 4, 3, 2, 1, 1, 1, 1)
    struct.pack_into(">2h", header, 70, 16, 32)
    struct.pack_into(">9f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0, 352)
    header[344:348] = b"n+1\0"
    path = tmp_path / "ct.nii"
    for last in (1.5, np.inf):
        voxels = np.array([0.0] * 23 + [last], ">f4")
        path.write_bytes(bytes(header) + voxels.tobytes())
        if np.isfinite(last):
            assert read_volume(path).voxels[1, 2, 3] == 1.5
    with pytest.raises(ImageError, match="no numbers"):
        read_volume(path)


@pytest.mark.parametrize("value", [0.5, -1, 256, np.nan, np.inf])
def test_label_values_are_whole_numbers_from_0_to_255(tmp_path: Path, value: float) -> None:
    values = np.zeros((2, 3, 4), np.float64)
    values[1, 2, 3] = value
    path = write(tmp_path / "seg.nrrd", values)
    with pytest.raises(ImageError, match=rf"seg\.nrrd holds the value {value:g}, labels are whole"):
        read_labelmap(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, np.int64])
def test_labels_of_any_type_are_read_as_uint8(tmp_path: Path, dtype: type) -> None:
    values = np.zeros((2, 3, 4), dtype)
    values[0, 0, :3] = (1, 2, 255)
    read = read_labelmap(write(tmp_path / "seg.nrrd", values))
    assert read.labels.dtype == np.uint8
    np.testing.assert_array_equal(read.labels, values)


def test_a_folder_is_no_label_map(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="is a folder"):
        read_labelmap(tmp_path)


def test_only_formats_of_one_file_are_written(tmp_path: Path, a_small_ct: Volume) -> None:
    with pytest.raises(ImageError, match=r"end its name in \.nii\.gz"):
        write_volume(a_small_ct, tmp_path / "ct.mhd")


def test_writing_again_replaces_the_file(tmp_path: Path, a_small_labelmap: Labelmap) -> None:
    path = tmp_path / "labels" / "a.nii.gz"
    empty = Labelmap(np.zeros_like(a_small_labelmap.labels), a_small_labelmap.geometry)
    write_labelmap(empty, path)
    write_labelmap(a_small_labelmap, path)
    np.testing.assert_array_equal(read_labelmap(path).labels, a_small_labelmap.labels)
    assert [file.name for file in path.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ct{suffix}"
    write_volume(Volume(np.ones((2, 3, 4), np.int16), Geometry.axis_aligned((2, 3, 4))), path)
    before = path.read_bytes()
    script = f"""
        import resource, signal, numpy as np
        from pathlib import Path
        from aslseg.errors import StorageError
        from aslseg.data.images import write_volume
        from aslseg.data.volume import Geometry, Volume
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # stands for the end of the disk
        noise = np.random.default_rng(0).integers(0, 9999, (20, 30, 40)).astype(np.int16)
        try:
            write_volume(Volume(noise, Geometry.axis_aligned(noise.shape)), Path({str(path)!r}))
        except StorageError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3] / "Logic",
    )
    assert done.stdout.startswith(f"Cannot write {path}: ")
    assert len(done.stdout.splitlines()) == 1
    assert "choose another folder" in done.stdout
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, a_small_ct: Volume) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write .*ct\.nrrd"):
        write_volume(a_small_ct, tmp_path / "file" / "ct.nrrd")


@pytest.mark.parametrize(
    ("name", "stem"), [("a.b.nii.gz", "a.b"), ("A.NRRD", "A"), ("scan", "scan"), ("x.dcm", "x.dcm")]
)
def test_the_stem_is_the_name_without_the_image_suffix(name: str, stem: str) -> None:
    assert stem_of(Path(name)) == stem


def write_dicom(
    folder: Path, series: str, heights_mm: list[float], *, modality: str = "CT", shift_mm: float = 0
) -> None:
    """Write slices of 4 x 6 pixels whose value is their height."""
    folder.mkdir(exist_ok=True)
    for number, height in enumerate(heights_mm):
        image = sitk.GetImageFromArray(np.full((4, 6), round(height), np.int16))
        image.SetSpacing((0.8, 0.7))
        root = f"1.2.826.0.1.3680043.2.1125.{series}"
        tags = {
            "0008|0060": modality,
            "0008|0018": f"{root}.{number + 1}",
            "0020|000e": root,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
            "0020|0013": str(number),
            "0020|0032": f"-10\\{-20 + shift_mm * number}\\{height}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        write_slice(folder / f"{series}-{len(heights_mm) - number:03}.dcm", image, tags)


def test_slices_are_stacked_by_their_height_not_by_their_name(tmp_path: Path) -> None:
    write_dicom(tmp_path, "7", [30.0, 32.5, 35.0, 37.5])
    volume = read_volume(tmp_path)
    assert volume.voxels[:, 0, 0].tolist() == [30, 32, 35, 38]
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.7, 0.8))
    np.testing.assert_allclose(volume.geometry.ijk_to_ras[:3, 3], [10, 20, 30])
    assert read_geometry(tmp_path).matches(volume.geometry)
    assert is_dicom_folder(tmp_path)


def test_the_largest_ct_series_is_chosen_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_dicom(tmp_path, "2", [0, 1])
    write_dicom(tmp_path, "3", [0, 5, 10])
    write_dicom(tmp_path, "4", [0, 1, 2, 3], modality="MR")
    with caplog.at_level(logging.INFO):
        assert read_volume(tmp_path).voxels.shape == (3, 4, 6)
    assert "CT series with 3 slices is read" in caplog.text
    assert "CT series with 2 slices is left aside" in caplog.text
    assert "MR series with 4 slices is left aside" in caplog.text


def retag(paths: Iterable[Path], **values: str) -> None:
    for path in paths:
        file = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(file, keyword, value)
        file.save_as(path)


def test_slices_of_two_patients_are_no_volume(tmp_path: Path) -> None:
    write_dicom(tmp_path, "2", [*range(12)])
    files = sorted(tmp_path.iterdir())
    retag(files[:6], PatientID="P-1", PatientName="P-1")
    retag(files[6:], PatientID="P-2", PatientName="P-2")
    for read in (read_volume, read_geometry, patient_id_of, slice_files):
        with pytest.raises(ImageError, match=r"2-007\.dcm is of another patient") as refused:
            read(tmp_path)
        assert "P-" not in str(refused.value)
        assert "folder of their own" in str(refused.value)


@pytest.mark.parametrize(
    ("keyword", "words"),
    [("FrameOfReferenceUID", "frame of reference"), ("StudyInstanceUID", "study")],
)
def test_slices_of_two_places_or_studies_are_no_volume(
    tmp_path: Path, keyword: str, words: str
) -> None:
    write_dicom(tmp_path, "2", [0, 1, 2, 3])
    files = sorted(tmp_path.iterdir())
    retag(files[:2], **{keyword: "1.2.3"})
    retag(files[2:], **{keyword: "1.2.4"})
    with pytest.raises(ImageError, match=rf"2-003\.dcm is of another {words} \({keyword}\)"):
        read_volume(tmp_path)


def test_a_study_that_was_made_up_for_each_slice_is_no_other_scan(tmp_path: Path) -> None:
    write_dicom(tmp_path, "2", [0, 1, 2, 3])
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        retag([path], StudyInstanceUID=f"1.2.{number}", FrameOfReferenceUID="1.2.3")
    assert read_volume(tmp_path).voxels.shape == (4, 4, 6)


def test_no_patient_is_chosen_among_the_series_of_several(tmp_path: Path) -> None:
    for series, patient in (("2", "P-1"), ("3", "P-2")):
        write_dicom(tmp_path, series, [0, 1, 2])
        retag(tmp_path.glob(f"{series}-*"), PatientID=patient)
    for read in (read_volume, read_geometry, patient_id_of):
        with pytest.raises(ImageError, match="holds image series of 2 patients") as refused:
            read(tmp_path)
        assert "P-" not in str(refused.value)
    retag(tmp_path.glob("3-*"), PatientID="ANONYMOUS")
    assert read_volume(tmp_path).voxels.shape == (3, 4, 6)


@pytest.mark.parametrize(
    ("heights", "shift", "words"),
    [
        pytest.param([0, 1, 3, 4], 0.0, "missing, doubled or unevenly spaced", id="missing"),
        pytest.param([0, 0, 1, 1], 0.0, "missing, doubled or unevenly spaced", id="doubled"),
        pytest.param([0, 2, 4, 6], 0.5, "tilted", id="gantry tilt"),
    ],
)
def test_an_incomplete_or_tilted_scan_is_refused(
    tmp_path: Path, heights: list[float], shift: float, words: str
) -> None:
    write_dicom(tmp_path, "2", heights, shift_mm=shift)
    with pytest.raises(ImageError, match=words):
        read_volume(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no DICOM image series"):
        read_volume(tmp_path)
    assert not is_dicom_folder(tmp_path)


def test_a_damaged_slice_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path, "2", [0, 1, 2])
    path = tmp_path / "2-002.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"2-002\.dcm is cut off"):
        read_volume(tmp_path)


@pytest.mark.shared
def test_a_real_ct_is_read_from_a_folder_with_other_things_in_it(shared_folder: Path) -> None:
    folder = shared_folder / "data" / "dcmqi_ct_dicom"
    assert [(s.modality, s.slices) for s in series_of(folder)] == [("CT", 3), ("SEG", 3)]
    volume = read_volume(folder)
    labels = read_labelmap(folder / "liver_seg.nrrd")
    assert volume.voxels.shape == (3, 512, 512)
    assert volume.voxels.min() >= -3024
    assert volume.geometry.matches(labels.geometry)
    assert 0 < np.median(volume.voxels[labels.labels > 0]) < 200  # a liver, in HU


@pytest.mark.shared
def test_a_real_full_ct_survives_a_round_trip(shared_folder: Path, tmp_path: Path) -> None:
    volume = read_volume(shared_folder / "data" / "totalseg_example" / "example_ct_sm.nii.gz")
    write_volume(volume, tmp_path / "ct.nii.gz")
    again = read_volume(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(again.voxels, volume.voxels)
    np.testing.assert_array_equal(again.geometry.ijk_to_ras, volume.geometry.ijk_to_ras)
