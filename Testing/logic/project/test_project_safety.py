"""A project keeps to its folder, knows its images, and loses nothing to two writers at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import ProjectError, RunError, StorageError
from aslseg.inference.loading import load_ensemble
from aslseg.project.case import CaseFiles
from aslseg.project.complete_slices import set_complete_slices
from aslseg.project.create import add_cases, create_project, select_cases
from aslseg.project.image_digests import check_images
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion, read_lesions
from aslseg.project.lock import changing
from aslseg.project.project import Project, change_project, open_project
from aslseg.project.renew_image import renew_image
from aslseg.project.review import correct, decisions, history, undo_last
from aslseg.project.run_folder import RunFolder, check_targets, create_run
from aslseg.runs import resume_run, start_run
from support.tiny_project import GEOMETRY, a_patient, a_tiny_project, tiny_config

CASES = ("c2", "c3", "c4", "c6")
SAVE_LABELS = """
import sys
from pathlib import Path
from aslseg.project.project import open_project
from aslseg.project.review import correct, undo_last
from aslseg.data.volume import Labelmap
from support.tiny_project import GEOMETRY, a_patient
project, what = open_project(Path(sys.argv[1])), sys.argv[2]
labels = Labelmap(a_patient(1)[1].labels, GEOMETRY)
print("ready", flush=True)
sys.stdin.readline()
for case in sys.argv[3:]:
    project.save_label(case, labels) if what == "save" else correct(project, case, labels)
    if what == "undo":
        undo_last(project)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


def at_once(project: Project, *programs: tuple[str, ...]) -> None:
    """Let processes change the project, all from one moment on."""
    testing = Path(__file__).resolve().parents[2]
    paths = [str(testing.parent / "Logic"), str(testing), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", SAVE_LABELS, str(project.folder)]
    children = [
        subprocess.Popen(
            [*command, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )
        for program in programs
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.communicate("go\n", timeout=120)
        assert child.returncode == 0


def test_labels_that_two_programs_save_at_once_are_all_kept(project: Project) -> None:
    for _ in range(3):
        create = project.model_copy()
        change_project(project.folder, lambda _, kept=create: kept)
        at_once(project, ("save", *CASES[:2]), ("save", *CASES[2:]))
        saved = {case.id for case in open_project(project.folder).cases if case.label}
        assert saved >= set(CASES)


def test_decisions_of_two_programs_are_numbered_apart(project: Project) -> None:
    at_once(project, ("correct", *CASES[:2] * 2), ("undo", *CASES[2:] * 2))
    made = history(open_project(project.folder))
    assert [review.number for review in made] == list(range(1, 13))
    assert [case.id for case in open_project(project.folder).unlabelled if case.label] == []


def test_a_thread_may_change_a_project_within_its_own_change(project: Project) -> None:
    labels = Labelmap(a_patient(1)[1].labels, GEOMETRY)
    with changing(project.folder):
        assert project.save_label("c2", labels).case("c2").label is not None


def test_cases_are_added_to_what_the_project_has_become(project: Project, tmp_path: Path) -> None:
    project.save_label("c2", Labelmap(a_patient(1)[1].labels, GEOMETRY))
    write_volume(a_patient(20)[0], tmp_path / "new.nii.gz")
    add_cases(project, [CaseFiles("new", tmp_path / "new.nii.gz")])  # `project` is of before
    assert open_project(project.folder).case("c2").label is not None


def replace_image(project: Project, case_id: str) -> None:
    path = project.image_path(project.case(case_id))
    voxels = a_patient(31)[0].voxels
    write_volume(Volume(voxels, GEOMETRY), path)


def test_a_replaced_image_of_the_same_shape_is_refused(project: Project) -> None:
    replace_image(project, "c0")
    case = project.case("c0")
    labels = Labelmap(a_patient(1)[1].labels, GEOMETRY)
    with pytest.raises(ProjectError, match=r"of case c0, is not the one .* aslseg renew .* c0"):
        start_run(project, tiny_config())
    with pytest.raises(ProjectError, match="its content has changed"):
        project.load_image(case)
    with pytest.raises(ProjectError, match="its content has changed"):
        project.save_label("c0", labels)
    assert not (project.folder / "runs").exists()


def test_a_replaced_image_is_taken_when_a_person_says_so(project: Project) -> None:
    replace_image(project, "c0")
    with pytest.raises(ProjectError, match=r"made on the image of before.*--keep, or --set-aside"):
        renew_image(project, "c0")
    assert open_project(project.folder) == project
    renewed = renew_image(project, "c0", keep=True)
    assert renewed.case("c0").label == project.case("c0").label
    assert renewed.load_image(renewed.case("c0")).geometry.matches(GEOMETRY)
    assert renewed.case("c0").image_sha256 != project.case("c0").image_sha256
    assert open_project(project.folder) == renewed


def test_labels_of_the_image_of_before_can_be_set_aside_and_are_not_lost(project: Project) -> None:
    case = project.case("c0")
    path = project.label_path(case)
    drawn = path.read_bytes()
    decisions = project.lesion_path("c0")
    decisions.parent.mkdir(exist_ok=True)
    decisions.write_text("{}\n", encoding="utf-8")
    replace_image(project, "c0")
    renewed = renew_image(project, "c0", keep=False)
    assert open_project(project.folder) == renewed
    now = renewed.case("c0")
    assert (now.label, now.status, now.masks) == (None, "unlabelled", {})
    assert now.image_sha256 != case.image_sha256
    assert not path.exists()
    assert not decisions.exists()
    (kept,) = (path.parent / "history").glob("c0-*.nii.gz")
    assert kept.read_bytes() == drawn
    assert len(list((decisions.parent / "history").glob("c0-*.jsonl"))) == 1


def crop_image(project: Project, case_id: str) -> None:
    """Replace an image by the same one without its first two slices, where it was."""
    case = project.case(case_id)
    volume = project.load_image(case)
    moved = GEOMETRY.ijk_to_ras.copy()
    moved[:3, 3] += 2 * moved[:3, 2]
    geometry = Geometry((GEOMETRY.shape[0] - 2, *GEOMETRY.shape[1:]), moved)
    write_volume(Volume(volume.voxels[2:], geometry), project.image_path(case))


def test_a_label_stays_where_it_is_in_an_image_of_another_grid(project: Project) -> None:
    drawn = project.load_labels(project.case("c0")).labels
    crop_image(project, "c0")
    renewed = renew_image(project, "c0", keep=True)
    assert (renewed.load_labels(renewed.case("c0")).labels == drawn[2:]).all()


def test_complete_slices_are_not_kept_for_an_image_of_other_slices(project: Project) -> None:
    marked = set_complete_slices(project, "c0", [4, 5])
    crop_image(project, "c0")
    with pytest.raises(ProjectError, match=r"complete slices .* c0 .* other voxels.*--set-aside"):
        renew_image(marked, "c0", keep=True)
    assert open_project(project.folder) == marked
    assert renew_image(marked, "c0", keep=False).case("c0").complete_slices is None


def test_decided_lesions_are_not_kept_for_an_image_of_other_voxels(project: Project) -> None:
    refined = RunFolder(project.folder / "runs" / "a").predictions(1, "c2") / "refined.nii.gz"
    write_labelmap(a_patient(2)[1], refined)
    lesion = boxed(a_patient(2)[1].labels == 2)
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", lesion, None, "a", 1))
    replace_image(project, "c2")
    renew_image(project, "c2", keep=True)  # of the same voxels
    crop_image(open_project(project.folder), "c2")
    with pytest.raises(ProjectError, match=r"decisions about lesions .* c2 .* other voxels"):
        renew_image(project, "c2", keep=True)
    renew_image(project, "c2", keep=False)
    assert read_lesions(open_project(project.folder), "c2").decisions == {}


def test_decided_lesions_are_not_kept_where_no_run_tells_the_voxels_of_before(
    project: Project,
) -> None:
    run = RunFolder(project.folder / "runs" / "a")
    write_labelmap(a_patient(2)[1], run.predictions(1, "c2") / "refined.nii.gz")
    lesion = boxed(a_patient(2)[1].labels == 2)
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", lesion, None, "a", 1))
    shutil.rmtree(run.path)
    renew_image(project, "c2", keep=True)  # the same image
    crop_image(project, "c2")
    with pytest.raises(ProjectError, match=r"lesions of case c2 .* is gone; .*--set-aside"):
        renew_image(project, "c2", keep=True)
    assert open_project(project.folder) == project
    renew_image(project, "c2", keep=False)
    assert read_lesions(open_project(project.folder), "c2").decisions == {}


def test_no_label_of_the_image_of_before_comes_back_by_undoing(project: Project) -> None:
    labels = Labelmap(a_patient(2)[1].labels, GEOMETRY)
    correct(correct(project, "c2", labels), "c2", Labelmap(a_patient(1)[1].labels, GEOMETRY))
    replace_image(project, "c2")
    renewed = renew_image(project, "c2", keep=False)
    assert decisions(renewed) == ()
    with pytest.raises(ProjectError, match="no decision to take back"):
        undo_last(renewed)


@pytest.mark.parametrize("state", ["cancelled", "done"])
def test_a_run_does_not_go_on_with_a_renewed_image(project: Project, state: str) -> None:
    folder = project.folder / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(tiny_config().model_dump(mode="json")))
    images = {case.id: case.image_sha256 for case in project.cases}
    status = json.dumps({"state": state, "images": images})
    (folder / "status.json").write_text(status)
    replace_image(project, "c2")
    renew_image(project, "c2")
    with pytest.raises(RunError, match="seen another image of case c2"):
        resume_run(open_project(project.folder), "a")
    assert (folder / "status.json").read_text() == status  # what is refused changes nothing


def test_a_run_is_used_with_the_targets_that_it_has_learnt_alone(project: Project) -> None:
    run = create_run(project.folder, tiny_config(), "a")
    run.write_status(state="done", best_round=1, targets=["liver=1", "tumour=2:liver"])
    check_targets(project, run)
    path = project.folder / "project.json"
    swapped = json.loads(path.read_text())
    swapped["targets"][0]["value"], swapped["targets"][1]["value"] = 2, 1
    path.write_text(json.dumps(swapped))
    refused = r"are for liver=1, tumour=2:liver, and the project has liver=2, tumour=1:liver by now"
    with pytest.raises(RunError, match=refused):
        load_ensemble(run)
    with pytest.raises(RunError, match=refused):
        resume_run(open_project(project.folder), "a")
    run.write_status(targets=[])  # of an earlier version
    check_targets(open_project(project.folder), run)


def test_digests_are_taken_only_of_files_that_have_changed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(
        "aslseg.project.image_digests.digest_of", lambda path: taken.append(path.name) or ""
    )
    check_images(project.folder, project.cases)
    assert taken == []
    os.utime(project.image_path(project.case("c1")), (1, 1))
    with pytest.raises(ProjectError, match="case c1"):
        check_images(project.folder, project.cases)
    assert taken == ["ct1.nii.gz"]


def test_an_image_that_was_only_touched_is_still_known(project: Project) -> None:
    os.utime(project.image_path(project.case("c1")), (1, 1))
    (project.folder / "cache" / "images.json").write_text("[")
    check_images(project.folder, project.cases)
    assert project.load_image(project.case("c1")).geometry.matches(GEOMETRY)


def edit(project: Project, case_id: str, **changes: Any) -> None:
    path = project.folder / "project.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    next(case for case in values["cases"] if case["id"] == case_id).update(changes)
    path.write_text(json.dumps(values))


def test_two_cases_of_one_label_map_are_refused(project: Project) -> None:
    edit(project, "c1", label="labels/C0.nii.gz")
    with pytest.raises(ProjectError, match=r"the label map 'labels/c0.nii.gz' occurs twice"):
        open_project(project.folder)


@pytest.mark.parametrize(
    "label", ["../x.nii.gz", "/x.nii.gz", "labels/../../x.nii.gz", "labels/history/c0.nii.gz"]
)
def test_a_label_map_elsewhere_is_refused(project: Project, label: str) -> None:
    edit(project, "c0", label=label)
    with pytest.raises(ProjectError, match=r"lies outside of the folder labels/"):
        open_project(project.folder)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_out_of_the_project_is_not_followed(
    project: Project, tmp_path: Path, link: str
) -> None:
    (tmp_path / "victim").mkdir()
    victim = tmp_path / "victim" / "c0.nii.gz"
    inside = project.folder / "labels" / "c0.nii.gz"
    victim.write_bytes(inside.read_bytes())
    before = victim.read_bytes()
    if link == "file":
        inside.unlink()
        inside.symlink_to(victim)
    else:
        (project.folder / "labels").rename(tmp_path / "moved")
        (project.folder / "labels").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="lies outside of"):
        project.load_labels(project.case("c0"))
    with pytest.raises(StorageError, match="put the file itself there instead of a link"):
        project.save_label("c0", Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY))
    assert victim.read_bytes() == before
    assert list((tmp_path / "victim").iterdir()) == [victim]


def test_a_link_within_the_project_is_fine(project: Project) -> None:
    path = project.folder / "labels" / "c0.nii.gz"
    path.rename(path.with_name("kept.nii.gz"))
    path.symlink_to(path.with_name("kept.nii.gz"))
    assert project.load_labels(project.case("c0")).labels.any()


@pytest.mark.parametrize("name", ["a", "A"])
def test_two_images_of_one_name_are_refused_with_both_files(tmp_path: Path, name: str) -> None:
    cases = [CaseFiles("a", tmp_path / "a.nii.gz"), CaseFiles(name, tmp_path / "a.nrrd")]
    with pytest.raises(ProjectError, match=rf"a\.nii\.gz and .*a\.nrrd both give .* '{name}'"):
        select_cases(cases)
    with pytest.raises(ProjectError, match="both give the case name"):
        create_project(tmp_path / "project", cases)
    assert not (tmp_path / "project").exists()


def test_a_label_map_saved_before_stays_in_the_history(project: Project) -> None:
    first = read_labelmap(project.label_path(project.case("c0"))).labels
    project.save_label("c0", Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY))
    kept = list((project.folder / "labels" / "history").glob("c0-*.nii.gz"))
    assert len(kept) == 1
    assert (read_labelmap(kept[0]).labels == first).all()


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "b.nii.gz", "a\0b.nii.gz"])
@pytest.mark.parametrize("what", ["image", "label"])
def test_a_name_that_no_file_can_have_is_refused(project: Project, what: str, name: str) -> None:
    edit(project, "c0", **{what: name if what == "image" else f"labels/{name}"})
    with pytest.raises(ProjectError, match=r"is too long for a path|a character that no file can"):
        open_project(project.folder)
