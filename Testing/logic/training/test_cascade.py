"""What the specialist is trained on, and what its metrics are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aslseg.context import RunContext
from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.events import Event, Metric, Monitor
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED
from aslseg.project.roles import assign
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages
from aslseg.training import cascade
from aslseg.training.cascade import CascadeTrainingPlan, scheduled, train_cascade
from aslseg.training.pseudo_label import PseudoLabel
from support.run_contexts import a_run_context
from support.tiny_project import SPECIALIST, a_patient, a_tiny_project, tiny_config

SHORT = SPECIALIST.model_copy(update={"iterations": 1})


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return a_run_context(a_tiny_project(tmp_path), tiny_config(organ=SHORT, lesion=SHORT))


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[list[TrainingCase]]:
    """Return what each source of labelled batches was given."""
    given: list[list[TrainingCase]] = []

    class Recording(BatchSource):
        def __init__(self, cases: list[TrainingCase], *rest: object, **more: object) -> None:
            super().__init__(cases, *rest, **more)  # type: ignore[arg-type]
            if cases[0].roi.labels is not None:
                given.append([replace(case, source=case.roi) for case in cases])  # files go later

    monkeypatch.setattr(cascade, "BatchSource", Recording)
    return given


def written(labels: Labelmap, path: Path) -> Path:
    write_labelmap(labels, path)
    return path


def test_pseudo_labels_are_told_from_those_of_humans(
    context: RunContext, trained_on: list[list[TrainingCase]], tmp_path: Path
) -> None:
    labels = written(a_patient(2)[1], tmp_path / "pseudo.nii.gz")
    pseudo = PseudoLabel(labels, frozenset({"liver", "tumour"}))
    train_cascade(context, CascadeTrainingPlan(tmp_path, "supervised", {"c2": pseudo}, {}))
    for cases in trained_on:
        assert {(case.case_id, case.weight, case.pseudo) for case in cases} == {
            ("c0", 1.0, False), ("c1", 1.0, False), ("c2", 0.5, True)
        }  # fmt: skip


def test_a_stage_learns_of_a_pseudo_label_what_is_accepted_and_not_in_doubt(
    context: RunContext, trained_on: list[list[TrainingCase]], tmp_path: Path
) -> None:
    labelmap = a_patient(2)[1]
    doubt = np.zeros(labelmap.labels.shape, np.uint8)
    doubt[5, 10:20, 10:20], doubt[7, 10:20, 10:20] = 1, 2
    labels = written(labelmap, tmp_path / "pseudo.nii.gz")
    doubtful = written(Labelmap(doubt, labelmap.geometry), tmp_path / "doubtful.nii.gz")
    liver_alone = PseudoLabel(labels, frozenset({"liver"}), doubtful)
    both = PseudoLabel(labels, frozenset({"liver", "tumour"}), doubtful)
    plan = CascadeTrainingPlan(tmp_path, "supervised", {"c2": liver_alone, "c3": both}, {})
    train_cascade(context, plan)
    of_liver, of_tumour = trained_on
    assert {case.case_id for case in of_liver} == {"c0", "c1", "c2", "c3"}
    assert {case.case_id for case in of_tumour} == {"c0", "c1", "c3"}
    for case in of_liver:
        ignored = {k for k in range(12) if (np.asarray(case.roi.labels)[k] == IGNORED).any()}
        assert ignored == ({5} if case.pseudo else set())
    for case in of_tumour:
        first = case.roi.box.start[0]
        labels_of = np.asarray(case.roi.labels)
        found = {k + first for k, plane in enumerate(labels_of) if (plane == IGNORED).any()}
        assert found == ({5, 7} if case.pseudo else set())


def test_the_share_of_the_unlabelled_term_is_a_metric(context: RunContext, tmp_path: Path) -> None:
    events: list[Event] = []
    context = replace(context, monitor=Monitor(events.append))
    train_cascade(context, CascadeTrainingPlan(tmp_path, "cross_pseudo", {}, {}))
    found = {event.name: event.value for event in events if isinstance(event, Metric)}
    assert found["loss"] == pytest.approx(found["supervised"] + found["unlabelled"], rel=1e-5)
    share = found["unlabelled"] / found["loss"]
    assert found["share_unlabelled"] == pytest.approx(share, rel=1e-4)
    assert 0 < share < 1


def test_training_cases_carry_their_patient(
    context: RunContext, trained_on: list[list[TrainingCase]], tmp_path: Path
) -> None:
    project = assign(context.project, patients={"c0": "anna", "c1": "anna"})
    plan = CascadeTrainingPlan(tmp_path, "supervised", {}, {})
    train_cascade(replace(context, project=project), plan)
    assert [{case.patient for case in cases} for cases in trained_on] == [{"anna"}, {"anna"}]


def test_lesions_are_drawn_where_they_can_be_of_one_target_only() -> None:
    config = tiny_config(lesion=SPECIALIST.model_copy(update={"synthetic_lesion_chance": 0.5}))
    cyst = Target(name="cyst", value=3, inside="liver")
    for targets, chances in ((LIVER_TARGETS, [0.0, 0.5]), ((*LIVER_TARGETS, cyst), [0.0, 0.0])):
        stages = cascade_stages(targets)
        assert [scheduled(config, one).synthetic_lesion_chance for one in stages] == chances
