"""Images that were moved are found again, if they are the ones that were brought in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import aslseg.project.relocate as relocating
from aslseg.data.images import write_volume
from aslseg.data.volume import Volume
from aslseg.errors import CancelledError, ImageError, ProjectError
from aslseg.events import CancelToken, Monitor
from aslseg.project import image_digests
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project, open_project
from aslseg.project.relocate import Relocation, relocate_images
from aslseg.project.renew_image import renew_image
from support.tiny_project import GEOMETRY, a_patient


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of three images, of which one lies in a folder of its own."""
    places = {"c0": "ct/c0.nii.gz", "c1": "ct/late/c1.nii.gz", "c2": "other/c2.nii.gz"}
    for number, place in enumerate(places.values()):
        write_volume(a_patient(number)[0], tmp_path / place)
    files = [CaseFiles(name, tmp_path / place) for name, place in places.items()]
    return create_project(tmp_path / "project", files)


def test_moved_images_are_found_in_their_new_folder(project: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "disk" / "ct")
    moved, changes = relocate_images(project, tmp_path / "ct", tmp_path / "disk" / "ct")
    assert changes == [
        Relocation("c0", tmp_path / "ct/c0.nii.gz", tmp_path / "disk/ct/c0.nii.gz"),
        Relocation("c1", tmp_path / "ct/late/c1.nii.gz", tmp_path / "disk/ct/late/c1.nii.gz"),
    ]
    assert open_project(project.folder) == moved
    assert [case.image for case in moved.cases] == [
        Path("../disk/ct/c0.nii.gz"), Path("../disk/ct/late/c1.nii.gz"), Path("../other/c2.nii.gz"),
    ]  # fmt: skip
    assert moved.problems() == []
    assert (moved.load_image(moved.case("c0")).voxels == a_patient(0)[0].voxels).all()


def test_what_was_compared_is_not_read_again_for_its_digest(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "moved")
    moved, _ = relocate_images(project, tmp_path / "ct", tmp_path / "moved")
    monkeypatch.setattr(
        image_digests, "digest_of_image", lambda path: pytest.fail(f"{path} is read")
    )
    image_digests.check_images(moved.folder, moved.cases)


def test_one_image_is_found_under_another_name(project: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "other" / "c2.nii.gz", tmp_path / "anna.nii.gz")
    moved, changes = relocate_images(
        project, tmp_path / "other" / "c2.nii.gz", tmp_path / "anna.nii.gz"
    )
    assert [change.case_id for change in changes] == ["c2"]
    assert moved.case("c2").image == Path("../anna.nii.gz")


def test_a_link_to_the_old_folder_names_it_too(project: Project, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "ct", target_is_directory=True)
    shutil.copytree(tmp_path / "ct", tmp_path / "copy")
    assert len(relocate_images(project, tmp_path / "link", tmp_path / "copy")[1]) == 2


def test_a_link_in_the_old_place_does_not_hide_it(project: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "moved")
    (tmp_path / "ct").symlink_to(tmp_path / "moved", target_is_directory=True)
    moved, _ = relocate_images(project, tmp_path / "ct", tmp_path / "ct")
    assert moved.case("c0").image == Path("../moved/c0.nii.gz")


@pytest.mark.parametrize("old", ["snapshot", "snapshot/c.nii.gz", "short/c.nii.gz"])
def test_an_image_that_is_a_link_keeps_its_name_where_it_is_now(tmp_path: Path, old: str) -> None:
    write_volume(a_patient(0)[0], tmp_path / "c.nii.gz")
    blob = (tmp_path / "c.nii.gz").rename(tmp_path / "3fa9")
    for folder in ("snapshot", "later"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.nii.gz").symlink_to(blob)
    (tmp_path / "short").symlink_to(tmp_path / "snapshot", target_is_directory=True)
    files = CaseFiles("c", tmp_path / "snapshot" / "c.nii.gz")
    project = create_project(tmp_path / "project", [files])
    new = tmp_path / "later" / ("c.nii.gz" if old.endswith(".gz") else "")
    moved, changes = relocate_images(project, tmp_path / old, new)
    assert [change.now for change in changes] == [tmp_path / "later" / "c.nii.gz"]
    assert moved.case("c").image == Path("../later/c.nii.gz")
    assert (moved.load_image(moved.case("c")).voxels == a_patient(0)[0].voxels).all()


def test_one_image_that_is_lost_or_another_changes_nothing_and_each_is_named(
    project: Project, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "moved")
    (tmp_path / "moved" / "late" / "c1.nii.gz").rename(tmp_path / "elsewhere.nii.gz")
    with pytest.raises(ProjectError, match=r"1 of 2 .* nothing was changed.*c1\.nii\.gz.*exist"):
        relocate_images(project, tmp_path / "ct", tmp_path / "moved")
    write_volume(Volume(a_patient(9)[0].voxels, GEOMETRY), tmp_path / "moved" / "c0.nii.gz")
    with pytest.raises(ProjectError, match=r"c0\.nii\.gz has another content.*c1\.nii\.gz.*exist"):
        relocate_images(project, tmp_path / "ct", tmp_path / "moved")
    assert open_project(project.folder) == project


def test_an_image_of_which_no_digest_is_known_is_not_taken_unseen(
    project: Project, tmp_path: Path
) -> None:
    text = project.folder / "project.json"
    digest = project.case("c2").image_sha256
    text.write_text(text.read_text().replace(f'"{digest}"', "null"))
    shutil.move(tmp_path / "other", tmp_path / "moved")
    with pytest.raises(ProjectError, match=r"What case c2 .* is not known"):
        relocate_images(project, tmp_path / "other", tmp_path / "moved")


def test_a_folder_without_images_of_the_project_is_refused_with_those_that_have_some(
    project: Project, tmp_path: Path
) -> None:
    folders = re.escape(f"its images are in {tmp_path / 'ct'}, {tmp_path / 'ct' / 'late'}, ")
    with pytest.raises(ProjectError, match=f"no image in .*{folders}"):
        relocate_images(project, tmp_path / "c", tmp_path / "ct")


def test_a_stopped_comparison_changes_nothing(project: Project, tmp_path: Path) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "moved")
    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        relocate_images(project, tmp_path / "ct", tmp_path / "moved", Monitor(token=token))
    assert open_project(project.folder) == project


def test_a_case_whose_image_is_replaced_meanwhile_is_not_overwritten(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "ct", tmp_path / "copy")
    compare = relocating.digest_of

    def compare_slowly(path: Path) -> str:
        digest = compare(path)
        if path.name == "c0.nii.gz":
            write_volume(a_patient(9)[0], tmp_path / "ct" / "c0.nii.gz")
            renew_image(project, "c0")
        return digest

    monkeypatch.setattr(relocating, "digest_of", compare_slowly)
    with pytest.raises(ProjectError, match="image of case c0 was changed meanwhile"):
        relocate_images(project, tmp_path / "ct", tmp_path / "copy")
    assert open_project(project.folder).case("c1") == project.case("c1")


DOORS = [
    pytest.param(lambda project: project.load_image(project.case("c0")), id="image"),
    pytest.param(lambda project: project.geometry(project.case("c0")), id="geometry"),
    pytest.param(lambda project: renew_image(project, "c0"), id="renew"),
]


@pytest.mark.parametrize("use", DOORS)
def test_a_moved_image_is_named_with_the_command_that_says_where_it_is(
    project: Project, tmp_path: Path, use: Callable[[Project], object]
) -> None:
    shutil.move(tmp_path / "ct", tmp_path / "moved")
    remedy = f"aslseg relocate {project.folder} {tmp_path / 'ct'} NEW_FOLDER"
    image = tmp_path / "ct" / "c0.nii.gz"
    with pytest.raises(ImageError, match=f"^{re.escape(str(image))}, .* not .*{re.escape(remedy)}"):
        use(project)
    assert remedy in project.problems()[0]
