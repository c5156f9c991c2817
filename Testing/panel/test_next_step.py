"""One line says what comes next, from the first volume to the export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

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
