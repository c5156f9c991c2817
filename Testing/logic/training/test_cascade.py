"""What the specialist is trained on, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aslseg.context import RunContext
from aslseg.events import Event, Metric, Monitor
from aslseg.preprocessing.patches import BatchSource, TrainingCase
from aslseg.project.run_folder import create_run
from aslseg.training import cascade
from aslseg.training.cascade import CascadeTrainingPlan, train_cascade
from tiny_project import SPECIALIST, a_patient, a_tiny_project, tiny_config

SHORT = SPECIALIST.model_copy(update={"iterations": 1})


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    project = a_tiny_project(tmp_path)
    config = tiny_config(organ=SHORT, lesion=SHORT)
    run = create_run(project.folder, config)
    return RunContext(project, config, run, torch.device("cpu"), Monitor())


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[list[TrainingCase]]:
    """Return what each source of labelled batches was given."""
    given: list[list[TrainingCase]] = []

    class Recording(BatchSource):
        def __init__(self, cases: list[TrainingCase], *rest: object, **more: object) -> None:
            super().__init__(cases, *rest, **more)  # type: ignore[arg-type]
            if cases[0].roi.labels is not None:
                given.append(cases)

    monkeypatch.setattr(cascade, "BatchSource", Recording)
    return given


def test_pseudo_labels_are_told_from_those_of_humans(
    context: RunContext, trained_on: list[list[TrainingCase]], tmp_path: Path
) -> None:
    train_cascade(context, CascadeTrainingPlan(tmp_path, "supervised", {"c2": a_patient(2)[1]}, {}))
    for cases in trained_on:
        assert {(case.case_id, case.weight, case.pseudo) for case in cases} == {
            ("c0", 1.0, False), ("c1", 1.0, False), ("c2", 0.5, True)
        }  # fmt: skip


def test_the_share_of_the_unlabelled_term_is_a_metric(context: RunContext, tmp_path: Path) -> None:
    events: list[Event] = []
    context = replace(context, monitor=Monitor(events.append))
    train_cascade(context, CascadeTrainingPlan(tmp_path, "cross_pseudo", {}, {}))
    found = {event.name: event.value for event in events if isinstance(event, Metric)}
    assert found["loss"] == pytest.approx(found["supervised"] + found["unlabelled"], rel=1e-5)
    share = found["unlabelled"] / found["loss"]
    assert found["share_unlabelled"] == pytest.approx(share, rel=1e-4)
    assert 0 < share < 1
