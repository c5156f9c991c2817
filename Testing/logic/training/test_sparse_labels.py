"""Only complete slices are learnt from and scored; nnU-Net's ignore label says which."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg import runs
from aslseg.context import RunContext, labelled_volumes
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import ImageError, ProjectError
from aslseg.events import Event, Monitor, Notice
from aslseg.project.case import CaseFiles
from aslseg.project.complete_slices import (
    incomplete_voxels,
    mark_all_complete,
    mark_slice_complete,
    set_complete_slices,
)
from aslseg.project.create import create_project
from aslseg.project.more_rounds import lengthen
from aslseg.project.project import Project, open_project
from aslseg.project.review import draw, undo_last
from aslseg.project.run_data import as_begun, data_of_now
from aslseg.project.run_folder import create_run
from aslseg.runs import resume_run, start_run
from aslseg.training.adaptation_samples import AdaptationSampler, training_samples_of
from aslseg.training.stage_cases import _undecided
from support.run_contexts import a_run_context
from support.tiny_project import GEOMETRY, SPECIALIST, a_patient, a_tiny_project, tiny_config
from support.whole_runs import rows_of


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = a_tiny_project(tmp_path)
    return mark_slice_complete(mark_slice_complete(made, "c1", 6), "c1", 5)


def test_slices_are_marked_and_unmarked(project: Project) -> None:
    assert project.case("c1").complete_slices == (5, 6)
    fewer = mark_slice_complete(project, "c1", 5, complete=False)
    assert fewer.case("c1").complete_slices == (6,)
    none = mark_slice_complete(fewer, "c1", 6, complete=False)
    assert none.case("c1").complete_slices == ()
    assert mark_all_complete(none, "c1").case("c1").complete_slices is None
    with pytest.raises(ProjectError, match="No slice of case c0 is marked, so all of it counts"):
        mark_slice_complete(project, "c0", 5, complete=False)
    with pytest.raises(ProjectError, match="no slice 12; it has 0 to 11"):
        mark_slice_complete(project, "c1", 12)
    with pytest.raises(ProjectError, match=r"c2 .* has no label map"):
        mark_slice_complete(project, "c2", 5)


def test_label_maps_of_which_no_slice_counts_are_not_trained_on_unnoticed(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    project = set_complete_slices(a_tiny_project(tmp_path), "c1", ())
    short = SPECIALIST.model_copy(update={"iterations": 1})
    config = tiny_config(
        method="specialist", rounds=1, organ=short, lesion=short, label_unlabelled=False
    )
    told: list[Event] = []
    start_run(project, config, Monitor(told.append))
    notes = [one.message for one in told if isinstance(one, Notice)]
    assert [note for note in notes if "No slice of the label map counts: c1. Nothing" in note]
    with pytest.raises(ProjectError, match=r"No slice of the label map counts: c0, c1\."):
        start_run(set_complete_slices(project, "c0", ()), config)


def test_marks_go_with_the_label_map_that_is_taken_back(project: Project) -> None:
    marked = mark_slice_complete(draw(project, "c2", a_patient(2)[1]), "c2", 5)
    before, _ = undo_last(marked)
    assert before.case("c2").complete_slices is None


def test_a_slice_that_was_marked_on_a_later_label_map_is_not_complete_in_the_one_before(
    project: Project,
) -> None:
    drawn = draw(project, "c1", a_patient(2)[1])
    before, _ = undo_last(mark_slice_complete(drawn, "c1", 7))
    assert before.case("c1").complete_slices == (5, 6)
    before, _ = undo_last(mark_all_complete(draw(before, "c1", a_patient(2)[1]), "c1"))
    assert before.case("c1").complete_slices == (5, 6)
    fewer = mark_slice_complete(draw(before, "c1", a_patient(2)[1]), "c1", 6, complete=False)
    assert undo_last(fewer)[0].case("c1").complete_slices == (5,)


def test_a_run_knows_that_other_slices_count(project: Project) -> None:
    run = create_run(project.folder, tiny_config())
    run.write_status(retrained_rounds=[1], **asdict(data_of_now(project)[1]))
    assert run.status.label_scopes == {"c1": "slices (5, 6)"}
    run.finish(1, 0.5)
    more = mark_slice_complete(project, "c1", 7)
    lengthen(run, 1, data_of_now(more)[1], share=None)
    assert run.retrained_rounds == (1, 2)


def test_a_run_that_goes_on_learns_the_labels_and_slices_that_it_began_with(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project.set_label_targets("c0", ["liver", "tumour"])
    run = create_run(project.folder, tiny_config(), "a")
    project, known = data_of_now(project)
    run.write_status(retrained_rounds=[1], **asdict(known))
    began = [project.load_labels(project.case(name)).labels for name in ("c0", "c1")]

    def resumed() -> tuple[RunContext, list[str]]:
        seen: list[RunContext] = []
        monkeypatch.setattr(runs, "_rounds", lambda context, _: seen.append(context) or 1)
        monkeypatch.setattr(runs, "_write_results", lambda *_: None)
        told: list[Event] = []
        resume_run(open_project(project.folder), "a", Monitor(told.append))
        return seen[0], [one.message for one in told if isinstance(one, Notice)]

    assert resumed()[1] == []
    draw(project, "c1", a_patient(3)[1])
    mark_slice_complete(project, "c1", 7)
    draw(project, "c2", a_patient(2)[1])
    context, notes = resumed()
    assert [case.id for case in context.labelled] == [case.id for case in project.labelled]
    assert context.project.case("c1").complete_slices == (5, 6)
    assert context.project.case("c0").label_targets == ("liver", "tumour")
    assert context.project.case("c2").status == "unlabelled"
    found = [context.labels_in_file(context.project.case(name)).labels for name in ("c0", "c1")]
    assert all(np.array_equal(*pair) for pair in zip(found, began, strict=True))
    assert ["Labels or decisions have changed" in note for note in notes] == [True]


def test_a_label_that_is_taken_back_is_learnt_by_the_run_that_began_with_it(
    project: Project,
) -> None:
    drawn = draw(project, "c2", a_patient(2)[1])
    run = create_run(drawn.folder, tiny_config(), "a")
    run.write_status(retrained_rounds=[1], **asdict(data_of_now(drawn)[1]))
    undo_last(drawn)
    begun = as_begun(open_project(drawn.folder), run, Monitor())
    assert begun.case("c2") in begun.labelled
    context = RunContext(begun, run.config, run, torch.device("cpu"), Monitor())
    assert np.array_equal(context.labels_in_file(begun.case("c2")).labels, a_patient(2)[1].labels)


def test_slices_count_along_the_axial_axis_of_the_file(project: Project) -> None:
    case = project.case("c1")
    sagittal = Geometry((40, 40, 12), GEOMETRY.ijk_to_ras[:, [2, 1, 0, 3]])
    mask = incomplete_voxels(case, sagittal)
    assert mask is not None
    assert np.flatnonzero(~mask.any(axis=(0, 1))).tolist() == [5, 6]
    assert incomplete_voxels(project.case("c0"), GEOMETRY) is None


def test_incomplete_slices_are_ignored_in_training(project: Project) -> None:
    context, case = a_run_context(project, tiny_config()), project.case("c1")
    for stage in context.stages:
        ignored = _undecided(context, stage, case, context.labels(case))
        assert ignored is not None
        assert np.flatnonzero(~ignored.any(axis=(1, 2))).tolist() == [5, 6]


def test_the_adaptation_network_learns_from_complete_slices(project: Project) -> None:
    context = a_run_context(project, tiny_config())
    (labelled,) = labelled_volumes(context, [project.case("c1")], "Reading")
    right = {"liver": labelled.labels.labels > 0, "tumour": labelled.labels.labels == 2}
    found = {name: mask.astype(np.float32) for name, mask in right.items()}
    sample = training_samples_of(labelled, context.targets, context.config, found, found)["liver"]
    assert np.flatnonzero(sample.complete).tolist() == [5, 6]
    settings = context.config.adaptation
    sampler = AdaptationSampler([sample], settings, SPECIALIST, 0)
    truths = torch.cat([sampler.batch(step)[2] for step in range(8)])
    assert truths.any(dim=(1, 2)).float().mean() > 0.5  # those two slices show most of the liver


def test_incomplete_slices_are_not_scored(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    project = a_tiny_project(tmp_path)
    project = mark_slice_complete(project, "c5", 0)  # no liver there
    short = SPECIALIST.model_copy(update={"iterations": 1})
    config = tiny_config(
        method="specialist", rounds=1, organ=short, lesion=short, label_unlabelled=False
    )
    run = start_run(project, config, run_id="a")
    rows = rows_of(run.round(1) / "metrics.csv")
    assert {row["lesions_true"] for row in rows} == {"0"}


def test_the_ignore_label_of_nnunet_says_which_slices_are_complete(tmp_path: Path) -> None:
    volume, labels = a_patient(0)
    write_volume(volume, tmp_path / "a.nii.gz")
    sparse = labels.labels.copy()
    sparse[:4], sparse[9, 0, 0] = 3, 3
    write_labelmap(Labelmap(sparse, GEOMETRY), tmp_path / "a-label.nii.gz")
    files = CaseFiles("a", tmp_path / "a.nii.gz", tmp_path / "a-label.nii.gz", ignored=3)
    project = create_project(tmp_path / "project", [files])
    case = project.case("a")
    assert case.complete_slices == (4, 5, 6, 7, 8, 10, 11)
    kept = project.load_labels(case)
    assert np.array_equal(kept.labels[4:9], labels.labels[4:9])
    incomplete = incomplete_voxels(case, GEOMETRY)
    assert incomplete is not None
    assert np.flatnonzero(incomplete.all(axis=(1, 2))).tolist() == [0, 1, 2, 3, 9]


def test_label_maps_without_a_complete_slice_are_refused(tmp_path: Path) -> None:
    volume, labels = a_patient(0)
    write_volume(volume, tmp_path / "a.nii.gz")
    sparse = labels.labels.copy()
    sparse[:, 0, 0] = 3
    write_labelmap(Labelmap(sparse, GEOMETRY), tmp_path / "a-label.nii.gz")
    files = CaseFiles("a", tmp_path / "a.nii.gz", tmp_path / "a-label.nii.gz", ignored=3)
    with pytest.raises(ImageError, match=r"Each slice of .* nobody looked at"):
        create_project(tmp_path / "project", [files])
