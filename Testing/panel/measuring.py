"""What the measurements of the panel share: made-up runs, memory, and lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from aslseg.config import RunConfig
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import METRIC_COLUMNS, RELIABILITY_COLUMNS, write_table
from aslseg.storage import write_json_atomic

BELIEVED = 0.6
"""From this score on, a made-up run believes its prediction."""


def write_run(project: Project, labels: Path, scores: Mapping[str, float]) -> None:
    """Write a finished run with one round.

    Args:
        project: Where it goes.
        labels: What the run predicts for every case; its predictions are links to this file.
        scores: What it thinks of its prediction of each case, by id.
    """
    run = RunFolder(project.folder / "runs" / "made-up")
    write_json_atomic(run.path / "config.json", RunConfig().model_dump(mode="json"))
    write_table(run.round(1) / "metrics.csv", METRIC_COLUMNS, [])
    judged = [_judged(*one) for one in scores.items()]
    write_table(run.round(1) / "reliability.csv", RELIABILITY_COLUMNS, judged)
    for case_id in scores:
        place = run.predictions(1, case_id)
        write_json_atomic(place / "prediction.json", {})
        for source in ("refined", "specialist"):
            os.link(labels, place / f"{source}.nii.gz")
    write_json_atomic(run.round(1) / "round.json", {"validation": None})
    run.write_status(state="done", best_round=1, rounds=1, method="aslseg")


def _judged(case_id: str, score: float) -> dict[str, object]:
    values = (1, case_id, score, score, score, score > BELIEVED, f"score {score:.2f}", "", "")
    return dict(zip(RELIABILITY_COLUMNS, values, strict=True))


def memory_mb() -> float:
    """Return the resident memory of this process, without its children."""
    return float(psutil.Process().memory_info().rss / 1e6)


def say(**facts: Any) -> None:
    """Print facts as a line of JSON, rounded."""
    sys.stdout.write(json.dumps(_short(facts)) + "\n")
    sys.stdout.flush()


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value
