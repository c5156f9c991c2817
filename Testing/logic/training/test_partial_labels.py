"""What nobody looked for is neither learnt, nor taken for background, nor counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg.context import RunContext, labelled_volumes
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import ImageError, ProjectError
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED, build_roi
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases, with_label_targets
from aslseg.project.project import Project, open_project
from aslseg.project.review import correct, draw, undo_last
from aslseg.runs import start_run
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages, undecided_mask
from aslseg.training import cascade
from aslseg.training.adaptation_samples import training_samples_of
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade
from support.run_contexts import a_run_context
from support.tiny_project import (
    LABELLED,
    SPECIALIST,
    VALIDATION,
    a_patient,
    tiny_config,
    write_patients,
)
from support.whole_runs import rows_of

SHORT = SPECIALIST.model_copy(update={"iterations": 1})


def only(case: CaseFiles, value: int) -> CaseFiles:
    """Leave one value in the label map of a case."""
    assert case.label is not None
    drawn = read_labelmap(case.label)
    kept = np.where(drawn.labels == value, drawn.labels, 0).astype(np.uint8)
    write_labelmap(Labelmap(kept, drawn.geometry), case.label)
    return case


def a_project(root: Path, of: dict[str, str]) -> Project:
    """Make the tiny project with label maps that decide one target alone, by case."""
    cases = select_cases(
        write_patients(root / "data"), labelled=[*LABELLED, "c2"], validation=VALIDATION
    )
    values = {target.name: target.value for target in LIVER_TARGETS}
    for case_id, name in of.items():
        cases = [only(c, values[name]) if c.id == case_id else c for c in cases]
        cases = with_label_targets(cases, [name], [case_id])
    return create_project(root / "project", cases)


def test_what_is_unknown_may_be_anywhere_in_its_parent() -> None:
    targets = (*LIVER_TARGETS, Target(name="spleen", value=3))
    labels = np.array([0, 1, 2, 3], np.uint8)
    assert undecided_mask(labels, {"tumour"}, targets).tolist() == [False, True, False, False]
    assert undecided_mask(labels, {"spleen"}, targets).tolist() == [True, False, False, False]
    assert undecided_mask(labels, (), targets).tolist() == [False] * 4


def test_what_is_unknown_beside_a_known_target_is_ignored() -> None:
    targets = (*LIVER_TARGETS, Target(name="spleen", value=3))
    volume, labels = a_patient(0)
    stage = cascade_stages(targets)[0]
    ignored = undecided_mask(labels.labels, {"spleen"}, targets)
    roi = build_roi(volume, stage, SHORT, labels=labels, ignored=ignored, targets=targets)
    assert set(np.unique(np.asarray(roi.labels))) == {1, IGNORED}


def test_a_label_map_of_organs_alone_gives_the_organs(tmp_path: Path) -> None:
    drawn = a_patient(1)[1].labels
    project = a_project(tmp_path, {"c1": "liver"})
    case = project.case("c1")
    assert case.label is None
    assert project.known_targets(case) == {"liver"}
    assert np.array_equal(project.load_masks(case)["liver"], drawn == 1)
    assert project.unlabelled[0].id == "c1"


def test_values_that_a_case_does_not_claim_are_refused(tmp_path: Path) -> None:
    cases = [case for case in write_patients(tmp_path / "data") if case.id == "c0"]
    with pytest.raises(ImageError, match=r"has voxels of liver though .* decide tumour alone"):
        create_project(tmp_path / "project", with_label_targets(cases, ["tumour"]))
    with pytest.raises(ProjectError, match="no case 'z'"):
        with_label_targets(cases, ["tumour"], ["z"])
    with pytest.raises(ProjectError, match="'bone', which is no target"):
        create_project(tmp_path / "project", with_label_targets(cases, ["bone"]))
    project = create_project(tmp_path / "project", cases)
    with pytest.raises(ImageError, match="has voxels of tumour"):
        project.set_label_targets("c0", ["liver"])
    assert open_project(project.folder) == project


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    project = a_project(tmp_path, {"c1": "tumour", "c5": "tumour"})
    return a_run_context(project, tiny_config(organ=SHORT, lesion=SHORT))


def test_lesions_of_an_unknown_organ_are_learnt_in_the_predicted_one(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[list[TrainingCase]] = []

    class Recording(BatchSource):
        def __init__(self, cases: list[TrainingCase], *rest: object, **more: object) -> None:
            super().__init__(cases, *rest, **more)  # type: ignore[arg-type]
            given.append([replace(case, source=case.roi) for case in cases])  # files go later

    monkeypatch.setattr(cascade, "BatchSource", Recording)
    train_cascade(context, CascadeTrainingPlan(tmp_path, "supervised", {}, {}))
    of_liver, of_tumour = given
    assert {case.case_id for case in of_liver} == {"c0", "c2"}
    tumours = [np.asarray(c.roi.labels) for c in of_tumour if c.case_id == "c1"]
    assert len(tumours) == 1  # in the liver that is predicted
    assert set(np.unique(tumours[0])) == {0, 1}


def test_unknown_targets_give_no_samples_to_other_networks(context: RunContext) -> None:
    cases = [context.project.case(name) for name in ("c0", "c1")]
    known, partly = labelled_volumes(context, cases, "Reading")
    assert known.unknown == frozenset()
    assert partly.unknown == {"liver"}
    probabilities = {t.name: (partly.labels.labels > 0).astype(np.float32) for t in LIVER_TARGETS}
    of = training_samples_of(partly, context.targets, context.config, probabilities, probabilities)
    assert of == {}
    sure = replace(partly, unknown=frozenset())
    of = training_samples_of(sure, context.targets, context.config, probabilities, probabilities)
    assert of.keys() == {"liver", "tumour"}


def test_unknown_targets_are_not_scored(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    project = a_project(tmp_path, {"c1": "tumour", "c5": "tumour"})
    config = tiny_config(
        method="specialist", rounds=1, organ=SHORT, lesion=SHORT, label_unlabelled=False
    )
    run = start_run(project, config, run_id="a")
    metrics = rows_of(run.round(1) / "metrics.csv")
    assert {(row["case"], row["target"]) for row in metrics} == {("c5", "tumour")}


def test_a_label_map_that_is_saved_again_decides_what_it_did_and_what_it_shows_now(
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path, {"c1": "tumour"})
    whole = a_patient(1)[1]
    more = np.where(whole.labels == 2, whole.labels, 0).astype(np.uint8)
    more[0, 0, 0] = 2
    saved = correct(project, "c1", Labelmap(more, whole.geometry))
    assert saved.case("c1").label_targets == ("tumour",)
    assert saved.unknown_targets(saved.case("c1")) == {"liver"}
    assert draw(saved, "c1", whole).case("c1").label_targets == ()


def test_undo_brings_back_what_a_label_map_decided(tmp_path: Path) -> None:
    project = a_project(tmp_path, {"c1": "tumour"})
    drawn = draw(project, "c1", a_patient(1)[1])
    assert drawn.case("c1").label_targets == ()
    before, _ = undo_last(drawn)
    assert before.case("c1").label_targets == ("tumour",)
