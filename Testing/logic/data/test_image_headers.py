"""What image files say of themselves: read as ITK reads it, and refused where it cannot be."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from aslseg.data.image_header import MEMORY_SETTING
from aslseg.data.images import read_geometry, read_labelmap, read_volume, write_volume
from aslseg.data.volume import Geometry, Volume
from aslseg.errors import ConfigError, ImageError
from faults.image_files import SPACING, VOXELS, dicom_folder, dicom_slice, metaimage, nifti, nrrd


def by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine to RAS, as ITK reads them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return sitk.GetArrayFromImage(image), affine


def assert_as_itk(path: Path) -> None:
    volume = read_volume(path)
    voxels, affine = by_itk(path)
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.voxels.dtype == voxels.dtype
    np.testing.assert_allclose(volume.geometry.ijk_to_ras, affine, atol=1e-4)


def changed(content: bytes, *fields: tuple[str, int, Any]) -> bytes:
    """Put numbers into a header."""
    copy = bytearray(content)
    for kind, at, value in fields:
        struct.pack_into("<" + kind, copy, at, *(value if isinstance(value, tuple) else [value]))
    return bytes(copy)


@pytest.mark.parametrize(("qform", "sform"), list(itertools.product(range(5), range(5))))
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_of_two_positions_of_a_nifti_file_the_one_of_itk_is_taken(
    tmp_path: Path, qform: int, sform: int, mirror: float
) -> None:
    path = tmp_path / "a.nii"
    codes, other = ("2h", 252, (qform, sform)), ("f", 292, 33.0)  # the sform lies 3 mm apart
    turn, sides = ("3f", 256, (0.1, 0.2, 0.3)), [("f", 76, mirror), ("f", 320, 4.0 * mirror)]
    path.write_bytes(changed(nifti(), codes, other, turn, *sides))
    if qform == sform > 0:
        with pytest.raises(ImageError, match="mm elsewhere by its sform than by its qform"):
            read_volume(path)
    else:
        assert_as_itk(path)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_two_positions_of_one_space_may_differ_by_rounding(tmp_path: Path, code: int) -> None:
    path = tmp_path / "a.nii"
    codes, turn = ("2h", 252, (code, code)), ("3f", 256, (0.001, -0.001, 0.99999))
    path.write_bytes(changed(nifti(), codes, turn, ("f", 292, 30.4)))
    assert_as_itk(path)


def test_a_nifti_file_that_lies_at_two_places_of_one_space_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(changed(nifti(), ("f", 292, 129.0)))
    with pytest.raises(ImageError, match=r"up to 99\.0 mm elsewhere .* the same space; export"):
        read_geometry(path)


@pytest.mark.parametrize("sform", [1, 2, 4])
def test_a_nifti_file_whose_positions_have_other_sides_is_refused(
    tmp_path: Path, sform: int
) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(changed(nifti(), ("2h", 252, (1, sform)), ("f", 280, 1.25)))
    for read in (read_volume, read_geometry):
        with pytest.raises(ImageError, match="left side is on the right by its qform; export"):
            read(path)


@pytest.mark.parametrize("unit", [0, 1, 2, 3])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1)])
def test_units_of_a_nifti_file_count(tmp_path: Path, unit: int, codes: tuple[int, int]) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(changed(nifti(), ("B", 123, unit), ("2h", 252, codes)))
    if unit in (0, 2):
        assert_as_itk(path)
        return
    with pytest.raises(ImageError, match=r"no valid spacing .* with a spacing in mm, from 0\.01"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8"])
@pytest.mark.parametrize(("slope", "intercept"), [(0, 0), (1, 0), (2, 0), (0.5, -3), (0, 5)])
@pytest.mark.parametrize("order", "<>")
def test_voxels_of_a_nifti_file_are_scaled_as_itk_does(
    tmp_path: Path, kind: str, slope: float, intercept: float, order: str
) -> None:
    code = {
        "u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024,
        "u8": 1280,
    }[kind]  # fmt: skip
    voxels = (VOXELS % 120).astype(kind)
    content = bytearray(nifti(VOXELS, order=order)[:352])
    struct.pack_into(order + "2h", content, 70, code, voxels.itemsize * 8)
    struct.pack_into(order + "2f", content, 112, slope, intercept)
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(content) + voxels.astype(order + kind).tobytes())
    assert_as_itk(path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [True, False])
def test_both_versions_of_nifti_are_read(
    tmp_path: Path, version: int, order: str, packed: bool
) -> None:
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(nifti(version=version, order=order, packed=packed))
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    affine = np.diag([-1.25, -1.5, 4.0, 1.0])
    affine[:3, 3] = (30, 40, -50)
    np.testing.assert_allclose(volume.geometry.ijk_to_ras, affine)
    if version == 1:  # ITK does not read version 2
        assert_as_itk(path)


SPOILT = [
    ("dim[3]", "h", 46, (0, -1, 4, 6, 32767)),
    ("vox_offset", "f", 108, (0, 351, 353, -1, float("nan"), float("inf"), 1e9)),
    ("pixdim[1]", "f", 80, (0, -1, float("nan"), float("inf"), 1e5, 2.0, 1e-3)),
    ("slope", "f", 112, (float("nan"), float("inf"))),
    ("bitpix", "h", 72, (8, 32, -1)),
    ("datatype", "h", 70, (0, 1, 32, 128, 1536, -4)),
]


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        pytest.param(kind, at, value, id=f"{name} {value}")
        for name, kind, at, values in SPOILT
        for value in values
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_nifti_header_that_cannot_be_right_is_refused(
    tmp_path: Path, kind: str, at: int, value: float, packed: bool
) -> None:
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    content = changed(nifti(), ("2h", 252, (0, 1)), (kind, at, value))
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ImageError, match=r"a\.nii"):
        read_volume(path)


def test_axes_that_rounding_has_tilted_are_set_upright_and_sheared_ones_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.nii"
    for shear_mm, is_read in ((1.5e-4, True), (1e-3, True), (1.5e-2, False)):
        path.write_bytes(changed(nifti(), ("2h", 252, (0, 1)), ("f", 284, shear_mm)))
        if is_read:
            axes = read_geometry(path).ijk_to_ras[:3, :3] / SPACING[::-1]
            np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-4)
            write_volume(read_volume(path), tmp_path / "b.nii.gz")
            continue
        with pytest.raises(ImageError, match=r"not at right angles .* resample it to a grid at"):
            read_geometry(path)


NRRD_SPACES = [
    "left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS",
    "LAS", "scanner-xyz",
]  # fmt: skip


@pytest.mark.parametrize("space", NRRD_SPACES)
def test_spaces_of_nrrd_are_those_of_itk(tmp_path: Path, space: str) -> None:
    path = tmp_path / "a.nrrd"
    head, body = nrrd()
    path.write_bytes(head.replace(b"left-posterior-superior", space.encode()) + body)
    assert_as_itk(path)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_encodings_of_nrrd_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"".join(nrrd(encoding)))
    assert_as_itk(path) if encoding != "bzip2" else None
    np.testing.assert_array_equal(read_volume(path).voxels, VOXELS)


def test_voxels_at_the_end_of_a_file_are_found(tmp_path: Path) -> None:
    head, body = nrrd("raw", more="byte skip: -1")
    (tmp_path / "a.nrrd").write_bytes(head + b"something else" + body)
    head, packed = metaimage(packed=False, data="a.raw")
    (tmp_path / "a.mhd").write_bytes(head.replace(b"ElementType", b"HeaderSize = -1\nElementType"))
    (tmp_path / "a.raw").write_bytes(b"something else" + packed)
    for name in ("a.nrrd", "a.mhd"):
        assert_as_itk(tmp_path / name)


@settings(max_examples=60)
@given(
    suffix=st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr"]),
    kind=st.sampled_from(["u1", "i2", "u2", "i4", "f4", "f8"]),
    turn=st.integers(0, 10_000),
    is_packed=st.booleans(),
)
def test_what_itk_writes_is_read_as_itk_reads_it(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, kind: str, turn: int, is_packed: bool
) -> None:
    from scipy.spatial.transform import Rotation

    image = sitk.GetImageFromArray((VOXELS % 120).astype(kind))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-11.5, 12.25, 300.125))
    image.SetDirection(Rotation.random(random_state=turn).as_matrix().ravel().tolist())
    path = tmp_path_factory.mktemp("itk") / f"a{suffix}"
    sitk.WriteImage(image, str(path), useCompression=is_packed)
    assert_as_itk(path)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr"])
def test_what_itk_notes_of_the_file_that_it_converted_is_no_damage(
    tmp_path: Path, suffix: str
) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    for name in ("dim[0]", "pixdim[1]", "0008|0060", "0018|9345", "aux file"):
        image.SetMetaData(name, "3")
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path))
    assert_as_itk(path)


PACKED: dict[str, Callable[[], tuple[bytes, bytes]]] = {
    "a.nii.gz": lambda: (b"", nifti(packed=True)),
    "a.nrrd": nrrd,
    "b.nrrd": lambda: nrrd("bzip2"),
    "a.mha": metaimage,
}


@pytest.mark.parametrize("name", PACKED)
def test_a_bit_that_flipped_in_a_compressed_file_changes_no_voxel(
    tmp_path: Path, name: str
) -> None:
    head, body = PACKED[name]()
    path, refused = tmp_path / name, 0
    for at in range(0, 8 * len(body), max(len(body) // 8, 1)):
        flipped = bytearray(body)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(head + bytes(flipped))
        try:
            voxels = read_labelmap(path).labels
        except ImageError:
            refused += 1
        else:
            np.testing.assert_array_equal(voxels, VOXELS)
    assert refused > 40


def test_bytes_after_the_end_are_refused_but_zeros_after_gzip_are_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(nifti(packed=True) + bytes(512))
    np.testing.assert_array_equal(read_volume(path).voxels, VOXELS)
    (tmp_path / "a.mha").write_bytes(b"".join(metaimage()) + b"more")
    path.write_bytes(gzip.compress(nifti() + b"more"))
    (tmp_path / "a.nii").write_bytes(nifti() + b"more")
    for name in ("a.nii.gz", "a.nii", "a.mha"):
        with pytest.raises(ImageError, match="is damaged"):
            read_volume(tmp_path / name)


def test_memory_is_limited_and_the_limit_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii.gz"
    sizes = ("8h", 40, (3, 1400, 1400, 1400, 1, 1, 1, 1))
    path.write_bytes(gzip.compress(changed(nifti(), sizes)))
    with pytest.raises(ImageError, match=rf"take 5\.1 GiB of memory, 1\.5 GiB.*{MEMORY_SETTING}"):
        read_volume(path)
    path.write_bytes(nifti(packed=True))
    monkeypatch.setenv(MEMORY_SETTING, "1e-6")
    with pytest.raises(ImageError, match="crop it, resample it, or set the environment variable"):
        read_volume(path)
    monkeypatch.setenv(MEMORY_SETTING, "0.1")
    assert read_volume(path).voxels.shape == VOXELS.shape
    for nonsense in ("much", "0", "-1", "nan"):
        monkeypatch.setenv(MEMORY_SETTING, nonsense)
        with pytest.raises(ConfigError, match=f"{MEMORY_SETTING} is '{nonsense}'; give a number"):
            read_volume(path)


def test_the_limit_holds_for_dicom_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in dicom_folder().items():
        (tmp_path / name).write_bytes(content)
    assert read_volume(tmp_path).voxels.shape == VOXELS.shape
    monkeypatch.setenv(MEMORY_SETTING, "1e-6")
    with pytest.raises(ImageError, match=MEMORY_SETTING):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("NDims = 3", "NDims = 99", "has 99 axes"),
        ("14 12 5", "0 80 16", "it has 0 x 80 x 16 voxels"),
        ("14 12 5", "14 12", "DimSize: 14 12"),
        ("1.25 1.5 4", "0.00125 0.0015 0.004", "no valid spacing"),
        ("ElementSpacing", "Spacing", "no ElementSpacing"),
        ("CompressedData = True", "CompressedData = Perhaps", "CompressedData = perhaps"),
        ("LOCAL", "%s%s%n.raw 0 15 1", "not by one file; save it as one"),
        ("LOCAL", "LIST", "not by one file; save it as one"),
        ("LOCAL", "/dev/zero", "a file outside of its folder"),
        ("LOCAL", "../a.raw", "a file outside of its folder"),
        ("LOCAL", "none.raw", "'none.raw', which is absent; restore"),
    ],
)
def test_a_metaimage_header_that_cannot_be_right_is_refused(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    path = tmp_path / "a.mha"
    head, body = metaimage()
    path.write_bytes(head.replace(before.encode(), after.encode()) + body)
    with pytest.raises(ImageError, match=words):
        read_volume(path)


NO_TEXT = b"ct-\xff\xfe.mha"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have text for names")
def test_a_name_that_is_no_text_is_refused_before_itk_sees_it(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NO_TEXT))
    path.write_bytes(b"".join(metaimage()))
    with pytest.raises(ImageError, match=r"ct-\\xff\\xfe\.mha has a name that is no UTF-8"):
        read_volume(path)
    voxels = Volume(VOXELS, Geometry.axis_aligned(VOXELS.shape))
    with pytest.raises(ImageError, match="no UTF-8"):
        write_volume(voxels, path)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from aslseg.cli.main import main; main()",
            "init",
            tmp_path / "p",
            tmp_path,
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "Logic")},
    )
    assert done.returncode == 1
    assert b"no UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("value", [0.9999999, 1.0005, 1 - 9.5e-4])
def test_labels_that_are_nearly_whole_numbers_are_taken_as_these(
    tmp_path: Path, value: float
) -> None:
    labels = np.full((5, 12, 14), value, np.float32)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(labels))
    assert (read_labelmap(path).labels == 1).all()


@pytest.mark.parametrize("value", [1.002, -0.01, 255.6])
def test_other_values_are_refused_with_all_of_their_digits(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(np.full((5, 12, 14), value, np.float64).astype("<f8")))
    with pytest.raises(ImageError, match=rf"holds the value {value}, labels are whole"):
        read_labelmap(path)


DICOM_FAULTS = [
    ({"spacing": None}, "no PixelSpacing"),
    ({"spacing": "0\\0"}, "no valid spacing"),
    ({"spacing": "-1.5\\1.25"}, "no valid spacing"),
    ({"spacing": "1.6\\1.25"}, "another PixelSpacing than the slices beside it"),
    ({"orientation": "0\\0\\0\\0\\0\\0"}, "no pair of directions at right angles"),
    ({"orientation": "1\\0\\0\\0.7\\0.7\\0"}, "no pair of directions at right angles"),
    ({"orientation": "0\\1\\0\\1\\0\\0"}, "another ImageOrientationPatient than"),
    ({"position": None}, "no ImagePositionPatient"),
    ({"frames": "100000"}, "is cut off"),
    ({"slope": "0"}, "slope of 0"),
]


@pytest.mark.parametrize(("changes", "words"), DICOM_FAULTS)
@pytest.mark.parametrize("number", [2, 4])
def test_a_slice_that_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str, number: int
) -> None:
    for name, content in dicom_folder().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"{number}.dcm").write_bytes(dicom_slice(number, **changes))
    with pytest.raises(ImageError, match=rf"[{number}0]\.dcm .*{words}"):
        read_volume(tmp_path)


@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-40], id="cut off"),
        pytest.param(lambda content: content[:200], id="header only"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content.replace(b"DICM", b"DICX"), id="unmarked"),
        pytest.param(lambda content: b"<html>404</html>" * 50, id="no DICOM"),
    ],
)
def test_a_damaged_slice_does_not_make_a_shorter_volume(
    tmp_path: Path, number: int, damage: Callable[[bytes], bytes]
) -> None:
    for name, content in dicom_folder().items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / f"{number}.dcm"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageError, match=rf"{number}\.dcm "):
        read_volume(tmp_path)


def test_dicom_lies_where_itk_says_whether_kinds_are_named_or_not(tmp_path: Path) -> None:
    affine = np.diag([-1.25, -1.5, 4.0, 1.0])
    affine[:3, 3] = (30, 40, -50)
    for explicit in (True, False):
        folder = tmp_path / str(explicit)
        folder.mkdir()
        for name, content in dicom_folder(explicit=explicit).items():
            (folder / name).write_bytes(content)
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        image = sitk.ReadImage(names)
        volume = read_volume(folder)
        np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))
        np.testing.assert_allclose(volume.geometry.ijk_to_ras, affine)
        np.testing.assert_allclose(image.GetOrigin(), (-30, -40, -50))
        assert read_geometry(folder).matches(volume.geometry)


def test_a_zlib_stream_that_ends_in_nothing_is_cut_off(tmp_path: Path) -> None:
    head, body = metaimage()
    path = tmp_path / "a.mha"
    path.write_bytes(head + body[: len(body) // 2])
    with pytest.raises(ImageError, match="is cut off: its voxels end too early"):
        read_volume(path)
    path.write_bytes(head + zlib.compress(VOXELS.tobytes()[:-2]))
    with pytest.raises(ImageError, match="is cut off: it is shorter"):
        read_volume(path)
