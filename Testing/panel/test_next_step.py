"""One line says what comes next, from the first volume to the export."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from standin.harness import click, run_event_loop

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("liver", "tumour")


@pytest.fixture
def steps(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "SlicerASLseg"))
    from ASLsegLib.logic import next_step

    yield next_step
    for name in [n for n in sys.modules if n.split(".")[0] == "ASLsegLib"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("known", "text", "section"),
    [
        ({}, "Choose a folder and make a project, or try with made-up patients.", "cases"),
        ({"targets": TARGETS}, "Add the volumes that you have.", "cases"),
        (
            {"targets": TARGETS, "cases": 9, "unlabelled": 9},
            "Outline the tumours of two volumes, then Train.",
            "cases",
        ),
        (
            {"targets": TARGETS, "cases": 9, "unlabelled": 8, "labelled": 1},
            "Outline the tumours of one more volume, then Train.",
            "cases",
        ),
        (
            {"targets": TARGETS, "cases": 9, "unlabelled": 7, "labelled": 2},
            "Train: 2 volumes are labelled, 7 get an AI label.",
            "train",
        ),
        (
            {"targets": TARGETS, "cases": 9, "labelled": 2, "is_training": True},
            "The training goes on by itself; look at cases meanwhile.",
            "review",
        ),
        (
            {"targets": TARGETS, "cases": 9, "labelled": 2, "run_state": "cancelled"},
            "The training was stopped: Resume goes on from there.",
            "train",
        ),
        (
            {"targets": TARGETS, "cases": 9, "has_round": True, "waiting": 4, "decided": 3},
            "Review 4 AI labels: Next brings one after the other.",
            "review",
        ),
        (
            {
                "targets": TARGETS,
                "cases": 9,
                "has_round": True,
                "waiting": 4,
                "review_time": "about 8 min",
            },
            "Review 4 AI labels, about 8 min at your pace: Next brings one.",
            "review",
        ),
        (
            {"targets": TARGETS, "cases": 9, "has_round": True, "incomplete": 2, "decided": 7},
            "Labels without a complete slice: 2. Next brings one.",
            "review",
        ),
        (
            {"targets": TARGETS, "cases": 9, "has_round": True, "decided": 7},
            "All is decided: Resume trains on with it, or export.",
            "train",
        ),
        ({"targets": TARGETS, "cases": 9, "has_round": True}, "Measure and export.", "results"),
    ],
)
def test_the_next_step_follows_from_what_is_known(
    steps: Any, known: dict[str, Any], text: str, section: str
) -> None:
    assert steps.next_step(steps.Situation(**known)) == steps.NextStep(text, section)


@pytest.mark.parametrize(
    ("decided", "trained", "later"),
    [
        ("2026-11-20T09:00:01.500+00:00", "2026-11-20T09:00:01+00:00", True),
        ("2026-11-20T10:00:00+02:00", "2026-11-20T09:00:00+00:00", False),
        ("", "2026-11-20T09:00:00+00:00", True),
        ("2026-11-20T09:00:00", "2026-11-20T09:00:00+00:00", True),
    ],
)
def test_a_decision_of_unknown_time_counts_as_one_that_was_not_learnt_from(
    steps: Any, decided: str, trained: str, later: bool
) -> None:
    assert steps.is_later(decided, trained) == later


def test_decisions_that_were_trained_on_are_no_reason_to_train(
    open_module: Callable[..., Any], trained: Path
) -> None:
    from aslseg.project.run_folder import open_run

    logic = open_module().logic
    logic.open_project(trained)
    for report in logic.review_queue():
        logic.reject(report.case_id)
    assert logic.next_step().text == "All is decided: Resume trains on with it, or export."
    time.sleep(1.0)  # the run notes whole seconds
    open_run(trained).write_status(short_rounds=[2])  # as a training on decisions does
    logic.refresh()
    assert logic.next_step().text == "Measure and export."


def test_labels_of_another_model_hide_no_training_that_was_stopped(
    open_module: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.project.run_folder import open_run

    widget = open_module()
    logic, ui = widget.logic, widget.panel.ui
    ui.trainSection.collapsed = False
    run = open_run(trained)
    run.write_status(state="cancelled")
    logic.open_project(trained)
    before = (logic.next_step(), ui.roundsTable.rowCount)
    labels = read_labelmap(run.predictions(1, "c3") / "refined.nii.gz")
    write_labelmap(labels, tmp_path / "others" / "c3.nii.gz")
    logic.add_external_labels("TotalSegmentator", tmp_path / "others")
    run_event_loop(0.1)
    assert (logic.next_step(), ui.roundsTable.rowCount) == before
    assert before[0].text == "The last training was stopped: Resume finishes it."
    sent: list[str] = []
    logic.resume = SimpleNamespace(begin=lambda run_id, **_: sent.append(run_id))
    click(ui.resumeButton)
    assert sent == [run.run_id]


def test_the_training_of_another_project_is_said_to_be_that(
    open_module: Callable[..., Any], trained: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.events import Cancelled

    widget = open_module()
    from ASLsegLib.engine.client import EngineClient

    logic, ui = widget.logic, widget.panel.ui
    ui.trainSection.collapsed = False
    logic.open_project(trained)
    monkeypatch.setattr(EngineClient, "start", lambda *_: None)
    logic.train.begin()
    monkeypatch.setattr(EngineClient, "is_busy", property(lambda one: one is logic.trainer))
    under_way = logic.next_step().text
    assert under_way.startswith("The training goes on by itself")
    logic.open_project(project)
    run_event_loop(0.1)
    assert logic.next_step().text != under_way
    assert ui.startButton.toolTip == f"{trained}: A training is under way."
    logic.trainer.event.emit(Cancelled("stopped"))
    run_event_loop(0.1)
    assert ui.trainingLabel.text == f"{trained}: Stopped. Resume goes on from there."
    logic.open_project(trained)
    run_event_loop(0.1)
    assert ui.trainingLabel.text == "Stopped. Resume goes on from there."
    assert ui.startButton.toolTip == "A training is under way."
