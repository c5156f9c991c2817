"""An image whose voxels lie beside its header is known by both files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.data.images import digest_of_image, files_of_image
from aslseg.errors import ImageError, ProjectError
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.image_digests import check_images, digest_of
from aslseg.project.project import Project, open_project
from aslseg.project.relocate import relocate_images
from aslseg.project.renew_image import renew_image
from aslseg.storage import sha256_of

SHAPE = (3, 4, 5)


@pytest.fixture(params=["a.mhd", "a.nhdr"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def project(tmp_path: Path, name: str) -> Project:
    files = CaseFiles("a", write_apart(tmp_path / "ct" / name, 1))
    return create_project(tmp_path / "project", [files])


def write_apart(path: Path, value: int) -> Path:
    """Write a header, which is the same for all values, and voxels of one value beside it."""
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.full(SHAPE, value, np.int16)), str(path))
    return path


def test_voxels_that_are_replaced_are_noticed_until_a_person_takes_them(
    project: Project, tmp_path: Path, name: str
) -> None:
    header = (tmp_path / "ct" / name).read_bytes()
    case = project.case("a")
    assert project.load_image(case).voxels.max() == 1
    write_apart(tmp_path / "ct" / name, 2)
    assert (tmp_path / "ct" / name).read_bytes() == header
    with pytest.raises(ProjectError, match="is not the one that was brought in"):
        check_images(project.folder, project.cases)
    with pytest.raises(ProjectError, match="is not the one that was brought in"):
        project.load_image(case)
    renewed = renew_image(project, "a")
    assert renewed.case("a").image_sha256 != case.image_sha256
    assert open_project(project.folder).load_image(renewed.case("a")).voxels.max() == 2


def test_other_voxels_in_the_new_place_are_not_taken(
    project: Project, tmp_path: Path, name: str
) -> None:
    shutil.copytree(tmp_path / "ct", tmp_path / "same")
    write_apart(tmp_path / "other" / name, 2)
    with pytest.raises(ProjectError, match="another content"):
        relocate_images(project, tmp_path / "ct", tmp_path / "other")
    moved, _ = relocate_images(project, tmp_path / "ct", tmp_path / "same")
    assert moved.load_image(moved.case("a")).voxels.max() == 1


def test_images_of_one_header_are_told_apart_by_their_voxels(tmp_path: Path, name: str) -> None:
    paths = [write_apart(tmp_path / f"p{value}" / name, value) for value in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    files = [CaseFiles(path.parent.name, path) for path in paths]
    project = create_project(tmp_path / "project", files)
    assert [project.load_image(case).voxels.max() for case in project.cases] == [1, 2]
    again = CaseFiles("again", write_apart(tmp_path / "p3" / name, 2))
    with pytest.raises(ProjectError, match="same image"):
        create_project(tmp_path / "second", [*files, again])


def test_a_header_without_its_voxels_is_told(project: Project, tmp_path: Path, name: str) -> None:
    files_of_image(tmp_path / "ct" / name)[1].unlink()
    with pytest.raises(ImageError, match="which is absent; restore that file"):
        project.load_image(project.case("a"))


def test_an_image_that_is_absent_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        digest_of(tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_an_image_of_one_file_has_the_digest_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = write_apart(tmp_path / f"a{suffix}", 1)
    assert digest_of_image(path) == sha256_of(path)
