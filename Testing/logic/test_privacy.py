"""No name of a patient goes from a header into anything that is written."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.config import parse_config
from aslseg.data.images import write_labelmap
from aslseg.storage import write_json_atomic
from support.dicom_slices import write_slice
from support.tiny_project import a_patient, tiny_config

NAME = "SENTINEL^PATIENT"
OF_A_PERSON = {
    "0010|0010": NAME, "0010|0020": f"ID{NAME}", "0010|0030": "19010203", "0010|1040": f"St {NAME}",
    "0008|0090": f"Dr {NAME}", "0008|0080": f"Clinic {NAME}", "0008|1030": f"CT of {NAME}",
    "0008|103e": f"Series {NAME}", "0010|4000": f"About {NAME}", "0008|0050": "ACC SENTINEL",
}  # fmt: skip
HEADER = {"descrip": NAME, "aux_file": NAME[:20], "intent_name": NAME[:15], "PatientName": NAME}


def images(folder: Path) -> None:
    """Write patients as DICOM, NIfTI with an extension, NRRD and MetaImage, all full of names."""
    folder.mkdir()
    for number, name in enumerate(("dicom", "b.nii.gz", "c.nrrd", "d.mha")):
        volume, labels = a_patient(number)
        image = sitk.GetImageFromArray(volume.voxels.round().astype(np.int16))
        image.SetSpacing(volume.geometry.spacing_mm[::-1])
        if name == "dicom":
            _write_slices(image, folder / "a")
        else:
            for key, value in HEADER.items():
                image.SetMetaData(key, value)
            sitk.WriteImage(image, str(folder / name))
        if name == "b.nii.gz":
            _add_extension(folder / name)
        if name in ("dicom", "b.nii.gz"):
            (folder.parent / "labels").mkdir(exist_ok=True)
            write_labelmap(
                type(labels)(labels.labels, _geometry(folder / ("a" if name == "dicom" else name))),
                folder.parent / "labels" / f"{'a' if name == 'dicom' else 'b'}.nii.gz",
            )


def _geometry(path: Path) -> object:
    from aslseg.data.images import read_geometry

    return read_geometry(path)


def _write_slices(image: sitk.Image, folder: Path) -> None:
    folder.mkdir()
    for k in range(image.GetSize()[2]):
        part = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {
            "0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": "1.2.4", "0020|0013": str(k + 1),
            "0008|0018": f"1.2.3.4.{k + 1}", "0020|0052": "1.2.9",
            "0020|0032": "\\".join(map(str, place)), "0020|0037": "1\\0\\0\\0\\1\\0",
        }  # fmt: skip
        write_slice(folder / f"{k:03d}.dcm", part, OF_A_PERSON | tags)


def _add_extension(path: Path) -> None:
    """Put a DICOM header into the extension of a NIfTI file, as converters do."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    name = (NAME * 4).encode().ljust(88, b"\0")
    extension = b"\1\0\0\0" + (96).to_bytes(4, "little") + (2).to_bytes(4, "little") + name
    offset = int(np.frombuffer(bytes(content[108:112]), "<f4")[0])
    content[108:112] = np.float32(348 + len(extension)).tobytes()
    path.write_bytes(gzip.compress(bytes(content[:348]) + extension + bytes(content[offset:])))


def naming(folder: Path) -> list[str]:
    """List the files whose name or content, unpacked, has a name of a patient."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        path.relative_to(folder).as_posix()
        for path in files
        if b"SENTINEL" in unpacked(path.read_bytes()) or "SENTINEL" in path.name
    ]


def unpacked(content: bytes) -> bytes:
    """Return the content of a file, also of a compressed one."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


@pytest.fixture
def given(tmp_path: Path) -> Path:
    images(tmp_path / "images")
    assert len(naming(tmp_path / "images")) >= 12 + 3
    return tmp_path


def command(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_names_in_headers_reach_nothing_that_is_written(
    given: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "aslseg")
    monkeypatch.setenv("ASLSEG_CACHE", str(given / "made" / "cache"))
    made, images_ = given / "made", given / "images"
    config = tiny_config(rounds=1).model_dump(mode="json")
    write_json_atomic(given / "config.json", parse_config(config).model_dump(mode="json"))
    shown = command("init", made / "project", images_, "--labels", given / "labels")
    shown += command("train", made / "project", "--config", given / "config.json", "--run", "one")
    shown += command("segment", made / "project", images_ / "a", images_ / "b.nii.gz", "-o", made)
    words = ("export", made / "project", made / "Dataset001_A", "--labels", "all")
    shown += command(*words, "--format", "nnunet")
    shown += command("status", made / "project", "--report")
    assert len(list((made / "Dataset001_A").rglob("*.nii.gz"))) == 8
    assert (made / "project" / "runs" / "one" / "report.html").exists()
    assert naming(made) == []
    assert "SENTINEL" not in shown
    assert "SENTINEL" not in caplog.text


def test_a_damaged_header_full_of_names_is_refused_without_them(given: Path) -> None:
    for path in (given / "images").rglob("*.*"):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2])
    result = CliRunner().invoke(app, ["init", str(given / "project"), str(given / "images")])
    assert result.exit_code == 1
    assert "SENTINEL" not in result.output
    assert not (given / "project").exists()
