"""A project is whole or absent; bad files leave no trace; what a person drew is never lost."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import (
    AslsegError,
    GeometryMismatchError,
    ImageError,
    ProjectError,
    StorageError,
)
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.project.case import CaseFiles
from aslseg.project.create import add_cases, create_project, select_cases
from aslseg.project.plan import plan_notes, plan_project, with_facts
from aslseg.project.project import Project, change_project, open_project
from aslseg.storage import sha256_of
from aslseg.targets import LIVER_TARGETS, Target

NO_CONTENT = {".project.lock", "images.json"}  # the lock, and what is remembered of images
GEOMETRY = Geometry.axis_aligned((4, 6, 8), (3.0, 1.5, 1.0))


def a_case(folder: Path, name: str, *, value: int | None = None) -> CaseFiles:
    """Write an image that no other name has, and a label map of 8 voxels of `value`."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(name.encode()[:6], "little")
    voxels = np.random.default_rng(seed).integers(-100, 200, GEOMETRY.shape).astype(np.int16)
    write_volume(Volume(voxels, GEOMETRY), folder / f"{name}.nii.gz")
    if value is None:
        return CaseFiles(name, folder / f"{name}.nii.gz")
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[1:3, 2:4, 3:5] = value
    write_labelmap(Labelmap(labels, GEOMETRY), folder / f"{name}-label.nii.gz")
    return CaseFiles(name, folder / f"{name}.nii.gz", folder / f"{name}-label.nii.gz")


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in NO_CONTENT)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def project(tmp_path: Path, images: Path) -> Project:
    cases = [a_case(images, "a", value=1), a_case(images, "b"), a_case(images, "v", value=2)]
    return create_project(tmp_path / "project", select_cases(cases, validation=["v"]))


def test_a_project_on_disk_is_the_project_in_memory(project: Project) -> None:
    assert open_project(project.folder) == project
    assert open_project(project.folder / "project.json") == project
    assert sorted(tree(project.folder)) == ["labels/a.nii.gz", "labels/v.nii.gz", "project.json"]


def test_a_link_to_a_file_without_an_ending_is_read_by_its_own_name(
    tmp_path: Path, images: Path
) -> None:
    a_case(images, "a")
    blob, link = tmp_path / "blobs" / "3fa9", tmp_path / "snapshot" / "ct_1.nii.gz"
    blob.parent.mkdir()
    link.parent.mkdir()
    (images / "a.nii.gz").rename(blob)
    link.symlink_to(Path("../blobs/3fa9"))
    project = create_project(tmp_path / "project", [CaseFiles("ct_1", link)])
    opened = open_project(project.folder)
    assert opened.case("ct_1").image == Path("../snapshot/ct_1.nii.gz")
    assert opened.load_image(opened.case("ct_1")).geometry.matches(GEOMETRY)
    (tmp_path / "again.nii.gz").symlink_to(blob)
    with pytest.raises(ProjectError, match="same image"):
        add_cases(opened, [CaseFiles("again", tmp_path / "again.nii.gz")])


def test_voxels_beside_a_link_to_their_header_are_found_again(tmp_path: Path, images: Path) -> None:
    images.mkdir()
    voxels = np.zeros(GEOMETRY.shape, np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(images / "a.mhd"))
    header = (images / "a.mhd").rename(tmp_path / "header")
    (images / "a.mhd").symlink_to(header)
    project = create_project(tmp_path / "project", [CaseFiles("a", images / "a.mhd")])
    opened = open_project(project.folder)
    assert opened.load_image(opened.case("a")).voxels.shape == GEOMETRY.shape


def test_cases_are_sorted_by_what_they_are_for(project: Project) -> None:
    names = [
        [case.id for case in cases]
        for cases in (project.labelled, project.unlabelled, project.validation, project.test)
    ]
    assert names == [["a"], ["b"], ["v"], []]
    assert [case.status for case in project.cases] == ["labelled", "unlabelled", "labelled"]


def test_images_stay_where_they_are_and_are_named_relative_to_the_project(
    project: Project, images: Path
) -> None:
    case = project.case("a")
    assert case.image == Path("..", "images", "a.nii.gz")
    assert project.image_path(case).resolve() == (images / "a.nii.gz").resolve()
    assert case.image_sha256 is not None
    assert len(case.image_sha256) == 64


def test_images_and_labels_are_read_on_one_grid(project: Project) -> None:
    case = project.case("a")
    image, labels = project.load_image(case), project.load_labels(case)
    assert image.geometry.matches(labels.geometry)
    assert np.count_nonzero(labels.labels == 1) == 8


def test_labels_on_a_finer_grid_are_kept_on_the_grid_of_the_image(
    tmp_path: Path, images: Path
) -> None:
    case = a_case(images, "a", value=1)
    affine = np.diag([-0.5, -1.5, 3.0, 1.0])
    affine[0, 3] = 0.25
    labels = np.ones((4, 6, 16), np.uint8)
    write_labelmap(Labelmap(labels, Geometry((4, 6, 16), affine)), images / "a-label.nii.gz")
    project = create_project(tmp_path / "project", [case])
    assert read_labelmap(project.label_path(project.case("a"))).geometry.matches(GEOMETRY)


def test_hidden_label_maps_are_named_nowhere_in_the_project(tmp_path: Path, images: Path) -> None:
    cases = [a_case(images, name, value=1) for name in ("a", "b", "secret")]
    chosen = select_cases(cases, labelled=["a"], validation=["b"])
    project = create_project(tmp_path / "project", chosen)
    assert [case.id for case in project.unlabelled] == ["secret"]
    assert sorted(path.name for path in (project.folder / "labels").iterdir()) == [
        "a.nii.gz",
        "b.nii.gz",
    ]
    assert "secret-label" not in (project.folder / "project.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        pytest.param({"labelled": ["x"]}, "no case 'x'; choose among a, b", id="unknown"),
        pytest.param({"labelled": ["b"]}, "'b' shall be labelled but has no", id="unlabelled"),
        pytest.param({"labelled": ["a"], "test": ["a"]}, "'a' is named twice", id="two parts"),
        pytest.param({"validation": ["b"], "test": ["b"]}, "'b' is named twice", id="two splits"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(
    images: Path, choice: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(ProjectError, match=words):
        select_cases([a_case(images, "a", value=1), a_case(images, "b")], **choice)


def test_without_a_choice_everything_stays(images: Path) -> None:
    cases = [a_case(images, "a", value=1), a_case(images, "b")]
    assert select_cases(cases) == cases


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def overwrite(path: Path, array: np.ndarray, *, vector: bool = False) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))


def put_elsewhere(path: Path) -> None:
    affine = GEOMETRY.ijk_to_ras.copy()
    affine[0, 3] = 1000.0
    labels = np.ones(GEOMETRY.shape, np.uint8)
    write_labelmap(Labelmap(labels, Geometry(GEOMETRY.shape, affine)), path)


SPOILERS = [
    pytest.param("bad.nii.gz", Path.unlink, "does not exist", id="image missing"),
    pytest.param("bad.nii.gz", cut_off, "cut off", id="image truncated"),
    pytest.param("bad.nii.gz", lambda p: p.write_text("no"), "another format", id="no image"),
    pytest.param(
        "bad.nii.gz",
        lambda p: overwrite(p, np.zeros((4, 6, 8, 3), np.uint8), vector=True),
        "3 values per voxel",
        id="not scalar",
    ),
    pytest.param(
        "bad.nii.gz",
        lambda p: overwrite(p, np.full((4, 6, 8), np.nan, np.float32)),
        "no numbers",
        id="NaN",
    ),
    pytest.param("bad-label.nii.gz", Path.unlink, "does not exist", id="label missing"),
    pytest.param("bad-label.nii.gz", cut_off, "cut off|damaged", id="label truncated"),
    pytest.param(
        "bad-label.nii.gz",
        lambda p: overwrite(p, np.full((4, 6, 8), 7, np.uint8)),
        r"the value 7, which is no target \(liver = 1, tumour = 2\)",
        id="value of no target",
    ),
    pytest.param(
        "bad-label.nii.gz",
        lambda p: overwrite(p, np.full((4, 6, 8), 0.5, np.float32)),
        "value 0.5, labels are whole",
        id="probabilities",
    ),
    pytest.param("bad-label.nii.gz", put_elsewhere, "another grid", id="label elsewhere"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), SPOILERS)
def test_a_bad_file_is_named_and_no_project_is_begun(
    tmp_path: Path, images: Path, name: str, spoil: Any, words: str
) -> None:
    cases = [a_case(images, "a", value=1), a_case(images, "bad", value=1)]
    spoil(images / name)
    with pytest.raises(ImageError, match=words) as caught:
        create_project(tmp_path / "project", cases)
    assert str(images / name) in str(caught.value)
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(("name", "spoil", "words"), SPOILERS)
def test_a_bad_file_leaves_the_project_as_it_was(
    project: Project, images: Path, name: str, spoil: Any, words: str
) -> None:
    before = tree(project.folder)
    cases = [a_case(images, "good", value=1), a_case(images, "bad", value=1)]
    spoil(images / name)
    with pytest.raises(ImageError, match=words):
        add_cases(project, cases)
    assert tree(project.folder) == before


def test_all_bad_files_are_told_at_once(tmp_path: Path, images: Path) -> None:
    cases = [a_case(images, "a", value=1), a_case(images, "b"), a_case(images, "c")]
    cut_off(images / "b.nii.gz")
    (images / "c.nii.gz").unlink()
    with pytest.raises(ProjectError, match=r"2 of 3 cases.*b\.nii\.gz is cut.*c\.nii\.gz does not"):
        create_project(tmp_path / "project", cases)


def test_label_maps_without_any_labelled_voxel_are_refused(tmp_path: Path, images: Path) -> None:
    cases = [a_case(images, "a", value=0), a_case(images, "b", value=0)]
    with pytest.raises(ProjectError, match=r"No label map has a labelled voxel \(a, b\)"):
        create_project(tmp_path / "project", cases)
    assert not (tmp_path / "project").exists()


def test_one_empty_label_map_among_others_is_fine(tmp_path: Path, images: Path) -> None:
    cases = [a_case(images, "a", value=0), a_case(images, "b", value=1)]
    assert len(create_project(tmp_path / "project", cases).labelled) == 2


def test_lesions_without_their_organ_are_named(tmp_path: Path, images: Path) -> None:
    """A label map of lesions alone says that the organ is nowhere else, unless it says less."""
    cases = [a_case(images, "a", value=2), a_case(images, "b", value=1)]
    told: list[Event] = []
    create_project(tmp_path / "all", cases, monitor=Monitor(told.append))
    notes = [event.message for event in told if isinstance(event, Notice)]
    (note,) = [one for one in notes if "no voxel of liver around them (a)" in one]
    plan = with_facts(replace(plan_project(tmp_path / "planned", images), cases=tuple(cases)))
    assert note in plan_notes(plan)
    told.clear()
    alone = [replace(cases[0], label_targets=("tumour",)), cases[1]]
    create_project(tmp_path / "alone", alone, monitor=Monitor(told.append))
    assert not [event for event in told if isinstance(event, Notice) and "around" in event.message]


@pytest.mark.parametrize("repeated", ["a", "A"])
def test_names_occur_once(tmp_path: Path, images: Path, repeated: str) -> None:
    case = a_case(images, "a", value=1)
    with pytest.raises(ProjectError, match=rf"a\.nii\.gz both give the case name '{repeated}'"):
        create_project(tmp_path / "project", [case, CaseFiles(repeated, case.image)])


def test_an_image_occurs_once(project: Project) -> None:
    before = tree(project.folder)
    with pytest.raises(ProjectError, match="Cases a and again have the same image"):
        add_cases(project, [CaseFiles("again", project.image_path(project.case("a")))])
    assert tree(project.folder) == before


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a.", "a b", "x" * 129])
def test_names_are_good_file_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProjectError, match="cannot be a file name; use letters"):
        create_project(tmp_path / "project", [CaseFiles(name, tmp_path / "a.nii.gz")])


def test_a_project_is_not_made_over_another(project: Project) -> None:
    before = tree(project.folder)
    with pytest.raises(ProjectError, match="holds a project already"):
        create_project(project.folder, [])
    assert tree(project.folder) == before


def test_a_label_map_that_is_in_the_way_is_not_replaced(tmp_path: Path, images: Path) -> None:
    mine = tmp_path / "project" / "labels" / "a.nii.gz"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(ProjectError, match=r"a\.nii\.gz exists already; move it away"):
        create_project(tmp_path / "project", [a_case(images, "a", value=1)])
    assert tree(tmp_path / "project") == {"labels/a.nii.gz": b"mine"}


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param([], id="none"),
        pytest.param([Target(name="a", value=1), Target(name="a", value=2)], id="name twice"),
        pytest.param([Target(name="a", value=1), Target(name="b", value=1)], id="value twice"),
        pytest.param([Target(name="a", value=1, inside="b")], id="parent unknown"),
        pytest.param(
            [Target(name="a", value=1, inside="b"), Target(name="b", value=2, inside="a")],
            id="in a circle",
        ),
    ],
)
def test_targets_must_make_sense(tmp_path: Path, targets: list[Target]) -> None:
    with pytest.raises(ProjectError, match="contradicts itself"):
        create_project(tmp_path / "project", [], targets)


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [a_case(images, "a", value=1)]

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "aslseg.project.project.write_json_atomic", lambda *_: _save_fails(tmp_path)
    )
    with pytest.raises(StorageError, match="disk is full"):
        create_project(tmp_path / "project", cases)
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StorageError, match=r"Cannot write .*project: the disk is full"):
        create_project(tmp_path / "project", cases)
    assert not (tmp_path / "project").exists()


def _save_fails(path: Path) -> None:
    raise StorageError(f"Cannot write {path}: the disk is full.")  # noqa: EM102


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_folder_that_is_read_only_is_told(tmp_path: Path, images: Path) -> None:
    case = a_case(images, "a", value=1)
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(StorageError, match="permission is denied"):
        create_project(folder, [case])


def test_a_place_within_a_file_is_told(tmp_path: Path, images: Path) -> None:
    case = a_case(images, "a", value=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder"):
        create_project(tmp_path / "file" / "project", [case])


def test_the_progress_of_an_import_is_told(tmp_path: Path, images: Path) -> None:
    events: list[Event] = []
    cases = [a_case(images, "a", value=1), a_case(images, "b")]
    create_project(tmp_path / "project", cases, monitor=Monitor(events.append))
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert last == Progress("reading images", 2, 2, pytest.approx(0.0))


def test_without_labelled_cases_there_is_nothing_to_learn_from(
    tmp_path: Path, images: Path, project: Project
) -> None:
    project.require_labels()
    bare = create_project(tmp_path / "bare", [a_case(images, "b")])
    with pytest.raises(ProjectError, match="no labelled case to train on; label at least one"):
        bare.require_labels()
    empty = Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)
    with pytest.raises(ProjectError, match=r"has a labelled voxel \(b\); draw the targets"):
        bare.save_label("b", empty).require_labels()


def test_a_saved_label_map_is_there_and_the_one_before_is_kept(project: Project) -> None:
    first = project.load_labels(project.case("a")).labels
    for number in (1, 2):
        labels = np.full(GEOMETRY.shape, number, np.uint8)
        project = project.save_label("a", Labelmap(labels, GEOMETRY))
        np.testing.assert_array_equal(project.load_labels(project.case("a")).labels, labels)
    kept = sorted((project.folder / "labels" / "history").iterdir())
    assert [path.name.split("-")[0] for path in kept] == ["a", "a"]
    np.testing.assert_array_equal(read_labelmap(kept[0]).labels, first)
    assert (read_labelmap(kept[1]).labels == 1).all()


def test_an_accepted_label_map_makes_an_unlabelled_case_labelled(project: Project) -> None:
    labels = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    updated = project.save_label("b", labels, status="accepted")
    assert updated == open_project(project.folder)
    assert updated.case("b").status == "accepted"
    assert [case.id for case in updated.labelled] == ["a", "b"]
    assert not (project.folder / "labels" / "history").exists()


def test_saving_a_label_map_keeps_what_others_changed_meanwhile(project: Project) -> None:
    labels = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    project.save_label("b", labels)
    updated = project.save_label("a", labels)  # by a holder of the older value
    assert updated.case("b").label is not None


@pytest.mark.parametrize(
    ("value", "shift_mm", "error"), [(9, 0.0, ImageError), (1, 1000.0, GeometryMismatchError)]
)
def test_a_label_map_that_does_not_fit_is_not_saved(
    project: Project, value: int, shift_mm: float, error: type[AslsegError]
) -> None:
    before = tree(project.folder)
    affine = GEOMETRY.ijk_to_ras.copy()
    affine[0, 3] += shift_mm
    labels = np.full(GEOMETRY.shape, value, np.uint8)
    with pytest.raises(error, match="The label map of case a"):
        project.save_label("a", Labelmap(labels, Geometry(GEOMETRY.shape, affine)))
    assert tree(project.folder) == before


def test_a_disk_that_is_full_keeps_the_label_map_of_before(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = tree(project.folder)
    monkeypatch.setattr("aslseg.data.images.sitk.WriteImage", full)
    with pytest.raises(StorageError, match="the disk is full"):
        project.save_label("a", Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY))
    after = tree(project.folder)
    assert {name: after[name] for name in before} == before


def test_a_case_that_is_not_there_is_named(project: Project) -> None:
    with pytest.raises(ProjectError, match="no case 'z'"):
        project.case("z")
    with pytest.raises(ProjectError, match=r"Case b .* has no label map"):
        project.load_labels(project.case("b"))


def test_files_that_vanished_are_listed(project: Project, images: Path) -> None:
    assert project.problems() == []
    (images / "b.nii.gz").unlink()
    project.label_path(project.case("a")).unlink()
    problems = project.problems()
    assert ["case a" in problems[0], "case b" in problems[1]] == [True, True]
    with pytest.raises(ImageError, match="does not exist"):
        project.load_image(project.case("b"))


def test_a_status_can_be_changed_and_saved(project: Project) -> None:
    rejected = project.case("b").model_copy(update={"status": "rejected"})
    change_project(project.folder, lambda current: current.with_case(rejected))
    assert open_project(project.folder).case("b").status == "rejected"


def rewrite(project: Project, **changes: Any) -> None:
    path = project.folder / "project.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}))


CASE = {"id": "a", "image": "a.nii.gz", "status": "labelled"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"schema_version": 3}, "has schema version 3, this program reads 1 and 2", id="new"
        ),
        pytest.param({"schema_version": None}, "has schema version None", id="no version"),
        pytest.param({"cases": [CASE | {"label": "../a.nii.gz"}]}, "outside of the f", id="above"),
        pytest.param({"cases": [CASE | {"label": "/etc/a.nii"}]}, "outside of the fo", id="root"),
        pytest.param(
            {"cases": [CASE | {"label": "labels/../../a.nii"}]}, "outside of the fo", id="around"
        ),
        pytest.param(
            {"cases": [CASE | {"label": "labels\\..\\..\\a.nii"}]}, "outside of th", id="backslash"
        ),
        pytest.param({"cases": [CASE]}, "is labelled but names no label map", id="no label"),
        pytest.param(
            {"cases": [{"id": n, "image": "i.nii"} for n in ("a", "a")]}, "'a' occurs twi", id="id"
        ),
        pytest.param(
            {"cases": [{"id": n, "image": "i.nii"} for n in ("jos\u00e9", "jose\u0301")]},
            "'jos\u00e9' occurs twice",
            id="accent",
        ),
        pytest.param({"cases": [{"id": "a"}]}, r"cases\.0\.image", id="no image"),
        pytest.param({"colour": "red"}, "colour", id="unknown key"),
        pytest.param({"targets": []}, "targets", id="no target"),
    ],
)
def test_a_project_file_that_cannot_be_is_refused(
    project: Project, changes: dict[str, Any], words: str
) -> None:
    rewrite(project, **changes)
    with pytest.raises(ProjectError, match=words) as caught:
        open_project(project.folder)
    assert "project.json" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b'{"schema_version": 2,', "is damaged, it is no JSON", id="cut off"),
        pytest.param(b"\xff\xfe\x00", "is damaged, it is no text", id="binary"),
        pytest.param(b"[1]", "holds no JSON object", id="a list"),
    ],
)
def test_a_damaged_project_file_is_told(project: Project, content: bytes, words: str) -> None:
    (project.folder / "project.json").write_bytes(content)
    with pytest.raises(ProjectError, match=words):
        open_project(project.folder)


def test_a_folder_without_project_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"project\.json cannot be read .*create one"):
        open_project(tmp_path)


def test_a_folder_that_is_not_there_is_told(project: Project) -> None:
    project.folder.rename(project.folder.with_name("moved"))
    with pytest.raises(ProjectError, match=r"no folder .*connect the disk .*where the project is"):
        open_project(project.folder)


def test_the_default_targets_are_those_of_the_liver(project: Project) -> None:
    assert project.targets == LIVER_TARGETS


def test_label_maps_replaced_at_one_time_are_all_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clocks tell a time twice: coarse ones within milliseconds, others when they are put back."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5, 678, tz)

    monkeypatch.setattr("aslseg.project.labels.datetime", Stopped)
    for number in (1, 2, 1, 2):
        project = project.save_label(
            "a", Labelmap(np.full(GEOMETRY.shape, number, np.uint8), GEOMETRY)
        )
    kept = [read_labelmap(path) for path in (project.folder / "labels" / "history").iterdir()]
    assert {int(labels.labels.min()) for labels in kept} == {0, 1, 2}
    assert len(kept) >= 3


def test_a_label_map_that_a_run_began_with_is_found_after_it_was_replaced(
    project: Project,
) -> None:
    path = project.label_path(project.case("a"))
    begun, voxels = sha256_of(path), project.load_labels(project.case("a")).labels
    for number in (1, 2):
        labels = np.full(GEOMETRY.shape, number, np.uint8)
        project = project.save_label("a", Labelmap(labels, GEOMETRY))
    case = project.case("a")
    np.testing.assert_array_equal(project.load_labels(case, begun).labels, voxels)
    assert (project.load_labels(case).labels == 2).all()
    path.unlink()
    np.testing.assert_array_equal(project.load_labels(case, begun).labels, voxels)
    with pytest.raises(ImageError, match="the history has no copy of that one"):
        project.load_labels(case, "0" * 64)
