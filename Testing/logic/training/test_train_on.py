"""Decisions about lesions teach: labels of cases that are not done, and short rounds of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import read_labelmap
from aslseg.data.masks import BoundingBox
from aslseg.errors import RunError
from aslseg.evaluation.round_changes import read_changes
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.inference.loading import context_of
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.preprocessing.roi import IGNORED
from aslseg.project.lesion_decisions import BoxedMask, LesionDecision, put_lesion
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.runs import start_run, train_on
from aslseg.storage import sha256_of
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training import cascade, stage_cases
from aslseg.training.pseudo_label import PseudoLabel
from aslseg.training.run_plan import planned_steps
from aslseg.training.stage_cases import RoiPreparation
from support.tiny_project import SPECIALIST, a_tiny_project, tiny_config

CASE = "c2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, RunFolder]:
    """A run of one round on the tiny project; each test reads it or goes on with it in order."""
    project = a_tiny_project(tmp_path_factory.mktemp("train_on"))
    settings = tiny_config(rounds=1, patience=1, crossfit_share=0.0)
    return project, start_run(project, settings)


def a_decision(what: str, start: tuple[int, int, int], run: RunFolder) -> LesionDecision:
    k, j, i = start
    box = BoundingBox(start, (k + 2, j + 3, i + 3))
    mask = BoxedMask(box, np.ones(box.shape, np.bool_))
    final = None if what == "deleted" else mask
    return LesionDecision(what, "tumour", mask, final, run.run_id, 1)  # type: ignore[arg-type]


def test_a_review_without_decisions_has_nothing_to_teach(
    trained: tuple[Project, RunFolder],
) -> None:
    with pytest.raises(RunError, match="Nothing was decided since"):
        train_on(trained[0])


def test_decisions_train_the_lesion_stage_alone_and_shortly(
    trained: tuple[Project, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, run = trained
    put_lesion(project, CASE, a_decision("accepted", (5, 17, 18), run))
    put_lesion(project, CASE, a_decision("deleted", (5, 24, 18), run))
    seen: list[TrainingCase] = []
    fit = cascade._fit

    def watched(context, training, ssl_method, cases):  # type: ignore[no-untyped-def]
        seen.extend(replace(case, source=case.roi) for case in cases[0])  # files go later
        assert training.stage.name == "tumour"
        assert training.settings.iterations == SPECIALIST.iterations // 2
        fit(context, training, ssl_method, cases)

    monkeypatch.setattr(cascade, "_fit", watched)
    before = {path.name: sha256_of(path) for path in run.round(1).glob("*.safetensors")}
    told: list[Event] = []
    train_on(project, monitor=Monitor(told.append, interval_s=0.0), share=0.5)
    begun = [(e.round, e.task, e.of) for e in told if isinstance(e, Progress) and e.step == 0]
    rounds = {"retrained_rounds": run.retrained_rounds, "short_rounds": run.short_rounds}
    planned = planned_steps(run.config, project, **rounds)
    short = [(step.round, step.task, step.units) for step in planned if step.round == 2]
    assert short[0] == (2, "specialist-tumour", SPECIALIST.iterations // 2)
    assert [step for step in dict.fromkeys(begun) if step in short] == short
    assert run.state == "done"
    assert run.config.review_share == 0.5
    assert run.short_rounds == (2,)
    assert run.first_folder(2) == run.round(1)
    assert (
        sha256_of(run.round(2) / "specialist-liver.safetensors")
        == before["specialist-liver.safetensors"]
    )
    assert (
        sha256_of(run.round(2) / "specialist-tumour.safetensors")
        != before["specialist-tumour.safetensors"]
    )
    assert not list(run.round(2).glob("adaptation-*"))
    assert {change.case for change in read_changes(run, 2)} == {"c2", "c3", "c4", "c5", "c6"}
    partial = [case for case in seen if case.partial]
    assert [(case.case_id, case.weight) for case in partial] == [(CASE, 1.0)]
    labels = np.asarray(partial[0].roi.labels)
    assert (labels == 1).any()
    assert (labels == 0).any()
    assert (labels == IGNORED).any()
    with pytest.raises(RunError, match="Nothing was decided since"):
        train_on(project)


def test_later_decisions_are_not_those_that_a_run_began_to_learn(
    trained: tuple[Project, RunFolder],
) -> None:
    project, run = trained
    assert run.status.lesion_lines == {CASE: 2}
    put_lesion(project, CASE, a_decision("deleted", (5, 17, 18), run), lesion=1)
    context = context_of(project, run, Monitor())
    assert context.lesions(project.case(CASE)).decisions[1].what == "accepted"


def test_a_method_that_tunes_otherwise_is_refused(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    run = create_run(project.folder, tiny_config(method="specialist"))
    with pytest.raises(RunError, match=f"'{run.run_id}' cannot be trained on from a review"):
        train_on(project)


def test_patches_of_a_partly_labelled_case_show_what_is_known(
    trained: tuple[Project, RunFolder],
) -> None:
    project, run = trained
    context = context_of(project, run, Monitor())
    stage = cascade_stages(LIVER_TARGETS)[1]
    preparation = RoiPreparation(stage, context.config.lesion, run.path / "rois", {})
    (case,) = stage_cases._decided_cases(context, preparation)
    settings = SPECIALIST.model_copy(update={"lesion_share": 0.0, "batch_size": 8})
    classes = BatchSource([case], settings, 0, 0).batch(0).classes
    assert ((classes != IGNORED).flatten(1).sum(1) > 0).all()


def test_a_pseudo_label_has_what_was_decided(trained: tuple[Project, RunFolder]) -> None:
    project, run = trained
    context = context_of(project, run, Monitor())
    path = run.predictions(1, CASE) / "refined.nii.gz"
    labels = stage_cases._decided(
        context, project.case(CASE), PseudoLabel(path, frozenset({"tumour"}))
    )
    assert (labels.labels[5:7, 17:20, 18:21] == 2).all()
    assert not (labels.labels[5:7, 24:27, 18:21] == 2).any()
    assert read_labelmap(path).labels.shape == labels.labels.shape


def test_decisions_whose_run_is_gone_are_told(trained: tuple[Project, RunFolder]) -> None:
    project, run = trained
    put_lesion(project, CASE, a_decision("deleted", (5, 24, 18), run))
    run.write_status(lesion_lines=project.lesion_lines())
    told: list[Event] = []
    context = context_of(project, run, Monitor(told.append))
    stage = cascade_stages(LIVER_TARGETS)[1]
    preparation = RoiPreparation(stage, context.config.lesion, run.path / "rois", {})
    refined = run.predictions(1, CASE) / "refined.nii.gz"
    refined.rename(refined.with_name("away"))
    assert stage_cases._decided_cases(context, preparation) == []
    assert told == [Notice(f"Decisions about lesions of {CASE} are not learnt: their run is gone.")]
