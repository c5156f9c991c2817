"""A case is a person's when its lesions are decided, and has the label that the decisions make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import write_labelmap
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError
from aslseg.project.candidate_lesions import read_candidate_lesions
from aslseg.project.candidate_table import CandidateRow, write_candidates
from aslseg.project.lesion_decisions import BoxedMask, LesionDecision, put_lesion
from aslseg.project.lesion_labels import finish_case, partial_label
from aslseg.project.project import Project, open_project
from aslseg.project.review import correct, draw, undo_last
from aslseg.project.run_folder import RunFolder
from aslseg.storage import write_json_atomic
from aslseg.targets import LIVER_TARGETS
from support.synthetic_run import a_finished_run
from support.tiny_project import GEOMETRY, a_tiny_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


@pytest.fixture
def run(project: Project) -> RunFolder:
    """A run that found two lesions in case c2, of 8 and of 4 voxels."""
    folder = a_finished_run(project.folder / "runs" / "a")
    labels = np.ones(GEOMETRY.shape, np.uint8)
    labels[2:4, 2:4, 2:4] = 2
    labels[8, 10:12, 10:12] = 2
    write_labelmap(Labelmap(labels, GEOMETRY), folder.predictions(1, "c2") / "refined.nii.gz")
    return folder


def test_a_case_is_done_when_all_is_decided(project: Project, run: RunFolder) -> None:
    large, small = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    accepted = LesionDecision("accepted", "tumour", large.voxels, large.voxels)
    put_lesion(project, "c2", accepted)
    with pytest.raises(ProjectError, match="1 lesions of case c2 are undecided"):
        finish_case(project, run, "c2")
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", small.voxels, None))
    done = finish_case(project, run, "c2")
    labels = done.load_labels(done.case("c2")).labels
    assert (labels == 2).sum() == 8
    assert (labels[8, 10:12, 10:12] == 1).all()
    assert done.case("c2") in done.labelled
    before, undone = undo_last(done)
    assert (before.case("c2").label, undone.case_id) == (None, "c2")


@pytest.mark.parametrize("name", ["c5", "c6"])
def test_a_prediction_becomes_no_label_to_judge_by(
    project: Project, run: RunFolder, name: str
) -> None:
    refined = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(refined, run.predictions(1, name) / "refined.nii.gz")
    with pytest.raises(ProjectError, match=f"Case {name} is there to judge by"):
        finish_case(project, run, name)
    now = open_project(project.folder)
    assert now.case(name) == project.case(name)


def test_a_label_to_judge_by_that_was_shown_is_finished(project: Project, run: RunFolder) -> None:
    refined = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(refined, run.predictions(1, "c5") / "refined.nii.gz")
    shown = project.load_labels(project.case("c5"))
    done = finish_case(project, run, "c5", labels=shown)
    np.testing.assert_array_equal(done.load_labels(done.case("c5")).labels, shown.labels)


def test_a_label_of_a_person_gives_its_place_to_no_prediction(
    project: Project, run: RunFolder
) -> None:
    for one in read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY):
        put_lesion(project, "c2", LesionDecision("deleted", "tumour", one.voxels, None))
    drawn = Labelmap(np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY)
    drawn.labels[5:7, 5:9, 5:9] = 2
    makers: tuple[Callable[[], Project], ...] = (
        lambda: draw(project, "c2", drawn),
        lambda: correct(project, "c2", drawn, run),
        lambda: finish_case(project, run, "c2", labels=drawn),
        lambda: undo_last(project)[0].save_label("c2", drawn),
    )
    for make in makers:
        made = make()
        with pytest.raises(ProjectError, match="was drawn or may have been corrected"):
            finish_case(made, run, "c2")
        np.testing.assert_array_equal(made.load_labels(made.case("c2")).labels, drawn.labels)


def test_a_case_that_a_review_has_finished_is_finished_again(
    project: Project, run: RunFolder
) -> None:
    large, small = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", small.voxels, None))
    _, now = put_lesion(project, "c2", LesionDecision("deleted", "tumour", large.voxels, None))
    done = finish_case(project, run, "c2")
    assert not (done.load_labels(done.case("c2")).labels == 2).any()
    accepted = LesionDecision("accepted", "tumour", large.voxels, large.voxels)
    put_lesion(project, "c2", accepted, lesion=now.latest, seen=now.latest)
    again = finish_case(project, run, "c2")
    assert (again.load_labels(again.case("c2")).labels == 2).sum() == 8


def test_a_case_waits_for_no_candidate_that_its_run_left_out(
    project: Project, run: RunFolder
) -> None:
    cores = np.zeros(GEOMETRY.shape, np.uint8)
    cores[5:7, 5:7, 5:8] = 1
    origin = (0.0, 0.0, 0.0)
    rejected = CandidateRow("c2", "tumour", 1, origin, origin, 0.2, 0.3, 0.5, accepted=False)
    write_candidates(run.predictions(1, "c2"), [rejected], Labelmap(cores, GEOMETRY), [])
    found = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    assert [one.shown for one in found] == [False, True, True]
    for one in found[1:]:
        put_lesion(project, "c2", LesionDecision("accepted", "tumour", one.voxels, one.voxels))
    done = finish_case(project, run, "c2")
    labels = done.load_labels(done.case("c2")).labels
    assert (labels == 2).sum() == 12
    assert (labels[cores > 0] == 1).all()


def test_what_the_person_was_shown_is_what_is_saved(project: Project, run: RunFolder) -> None:
    for one in read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY):
        put_lesion(project, "c2", LesionDecision("deleted", "tumour", one.voxels, None))
    shown = Labelmap(np.full(GEOMETRY.shape, 1, np.uint8), GEOMETRY)
    shown.labels[0] = 0
    done = finish_case(project, run, "c2", labels=shown)
    np.testing.assert_array_equal(done.load_labels(done.case("c2")).labels, shown.labels)


def test_decisions_say_what_is_so_around_them_and_nothing_elsewhere(
    project: Project, run: RunFolder
) -> None:
    large, _ = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    deleted = LesionDecision("deleted", "tumour", large.voxels, None, "a", 1)
    _, lesions = put_lesion(project, "c2", deleted)
    found = partial_label(project, lesions, {"tumour"}, margin_mm=4.0)
    assert found is not None
    labels, known = found
    assert (labels.labels[2:4, 2:4, 2:4] == 1).all()
    assert known[2:4, 2:4, 2:4].all()
    assert known[3, 3, 5]  # 2 voxels of 2 mm away
    assert not known[3, 3, 6]
    assert known[1, 2, 2]  # a slice of 4 mm away
    assert not known[8, 10:12, 10:12].any()
    assert partial_label(project, lesions, {"liver"}, margin_mm=4.0) is None


def test_what_is_undecided_in_the_surroundings_stays_unknown(
    project: Project, run: RunFolder
) -> None:
    large, small = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    accepted = LesionDecision("accepted", "tumour", large.voxels, large.voxels, "a", 1)
    _, lesions = put_lesion(project, "c2", accepted)
    found = partial_label(project, lesions, {"tumour"}, margin_mm=200.0)
    assert found is not None
    known = found[1]
    assert known.sum() == known.size - small.voxels.voxels
    assert not known[8, 10:12, 10:12].any()


def test_without_the_label_that_was_looked_at_nothing_is_said(
    project: Project, run: RunFolder
) -> None:
    large, _ = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    gone = LesionDecision("accepted", "tumour", large.voxels, large.voxels, "b", 1)
    _, lesions = put_lesion(project, "c2", gone)
    assert partial_label(project, lesions, {"tumour"}, margin_mm=4.0) is None


def test_what_another_run_showed_and_nobody_decided_about_stays_unknown(
    project: Project, run: RunFolder
) -> None:
    """Run `a` showed two lesions, the later run `b` none of them: the second is no background."""
    later = RunFolder(run.path.with_name("b"))
    write_json_atomic(later.path / "config.json", {})
    nothing = Labelmap(np.ones(GEOMETRY.shape, np.uint8), GEOMETRY)
    write_labelmap(nothing, later.predictions(1, "c2") / "refined.nii.gz")
    large, small = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    put_lesion(
        project, "c2", LesionDecision("accepted", "tumour", large.voxels, large.voxels, "a", 1)
    )
    missed = BoxedMask(BoundingBox((5, 5, 5), (6, 6, 6)), np.ones((1, 1, 1), np.bool_))
    _, lesions = put_lesion(project, "c2", LesionDecision("added", "tumour", None, missed, "b", 1))
    found = partial_label(project, lesions, {"tumour"}, margin_mm=200.0)
    assert found is not None
    labels, known = found
    assert (labels.labels == 2).sum() == 9
    assert known.sum() == known.size - small.voxels.voxels
    assert not known[8, 10:12, 10:12].any()


def test_a_decision_whose_run_is_gone_says_what_its_own_voxels_are(
    project: Project, run: RunFolder
) -> None:
    large, small = read_candidate_lesions(run.predictions(1, "c2"), LIVER_TARGETS, GEOMETRY)
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", small.voxels, None, "gone", 1))
    accepted = LesionDecision("accepted", "tumour", large.voxels, large.voxels, "a", 1)
    _, lesions = put_lesion(project, "c2", accepted)
    found = partial_label(project, lesions, {"tumour"}, margin_mm=4.0)
    assert found is not None
    labels, known = found
    assert (labels.labels[8, 10:12, 10:12] == 1).all()
    assert known[8].sum() == small.voxels.voxels
    assert known[2:4, 2:4, 2:4].all()
