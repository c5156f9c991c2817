"""A run folder as the rounds write it, made by hand: for tests of what reads one."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
from scipy import ndimage

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.project.run_folder import RunFolder
from aslseg.storage import write_json_atomic

SOURCES = ("supervised", "specialist", "sam_untrained", "sam", "refined")
LIVER = {
    "supervised": 0.80,
    "specialist": 0.86,
    "sam_untrained": 0.83,
    "sam": 0.90,
    "refined": 0.93,
}
SCORE_FIELDS = [
    "round", "source", "split", "case", "target", "dice", "jaccard", "hd95_mm", "assd_mm",
    "volume_ml", "lesions_true", "lesions_found", "false_positives",
]  # fmt: skip
RELIABILITY_FIELDS = [
    "round", "case", "checkpoint_agreement", "prediction_agreement", "score", "accepted", "reason",
    "accepted_targets",
]  # fmt: skip


def a_finished_run(folder: Path, best_round: int = 1) -> RunFolder:
    """Return a run that is done and holds nothing yet."""
    run = RunFolder(folder)
    write_json_atomic(folder / "config.json", {})
    run.write_status(state="done", best_round=best_round)
    return run


def write_run(
    folder: Path,
    truths: dict[str, Labelmap],
    *,
    sam: str = "vit_t",
    rounds: int = 2,
    state: str = "done",
) -> Path:
    """Write `folder` as a run over validation cases; predictions are moved copies of the truth."""
    folder.mkdir(parents=True)
    sources = [source for source in SOURCES if sam != "none" or not source.startswith("sam")]
    (folder / "config.json").write_text(json.dumps({"seed": 0, "sam": {"model": sam}}))
    status = {"state": state, "task": "refine", "round": rounds, "rounds": rounds, "sam": sam}
    (folder / "status.json").write_text(json.dumps(status))
    _write_events(folder / "events.jsonl", rounds)
    for number in range(1, rounds + 1):
        round_folder = folder / f"round-{number:02d}"
        for case, truth in truths.items():
            _write_predictions(round_folder / "predictions" / case, truth, sam != "none")
        _write_rows(
            round_folder / "metrics.csv",
            SCORE_FIELDS,
            [
                _score_row(number, source, case, target)
                for source in sources
                if source != "supervised" or number == 1
                for case in truths
                for target in ("liver", "tumour")
            ],
        )
        _write_rows(
            round_folder / "reliability.csv",
            RELIABILITY_FIELDS,
            [
                [number, "case_07", 0.91, 0.88, 0.895, True, "among the most reliable", "liver"],
                [number, "case_05", 0.42, 0.31, 0.365, False, "score below 0.5", ""],
            ],
        )
    return folder


def _score_row(number: int, source: str, case: str, target: str) -> list[object]:
    dice = LIVER[source] + 0.01 * number + 0.02 * (case > "v1") - 0.35 * (target == "tumour")
    hd95 = math.nan if source == "supervised" and target == "tumour" else 9.5 - 5 * dice
    return [
        number, source, "validation", case, target, dice, dice / (2 - dice), hd95, hd95 / 4, 1210.5,
        3, 2, 1,
    ]  # fmt: skip


def _write_predictions(folder: Path, truth: Labelmap, with_sam: bool) -> None:
    for source, shift in {"specialist": 3, "sam": 2, "refined": 1}.items():
        if source != "sam" or with_sam:
            moved = ndimage.shift(truth.labels, (0, shift, -shift), order=0).astype(np.uint8)
            write_labelmap(Labelmap(moved, truth.geometry), folder / f"{source}.nii.gz")


def _write_events(path: Path, rounds: int) -> None:
    events: list[dict[str, object]] = [{"event": "warning", "message": "Case <b> has no tumour."}]
    for number in range(1, rounds + 1):
        for task in ("liver", "tumour"):
            for step in range(0, 1000, 2):
                value = math.exp(-step / 300) + 0.1 * math.sin(step) / number
                events.append(_metric("loss", value, step, task, number))
            events += [
                _metric("dice", 1 - math.exp(-step / 300), step, task, number)
                for step in range(100, 1001, 100)
            ]
    text = "\n".join(json.dumps(event) for event in events)
    path.write_text(text + '\n{"event": "metric", "na', encoding="utf-8")  # cut short, as by a kill


def _metric(name: str, value: float, step: int, task: str, number: int) -> dict[str, object]:
    return {
        "event": "metric", "name": name, "value": value, "step": step, "task": task,
        "round": number,
    }  # fmt: skip


def _write_rows(path: Path, fields: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([fields, *rows])
