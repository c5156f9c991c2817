"""What a run folder tells, read for people: its state, scores, reliability, curves and notices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aslseg import run_names
from aslseg.errors import RunError
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_status import RunStatus
from aslseg.project.run_tables import (
    SOURCES,
    HeldOutDice,
    ReliabilityRow,
    Score,
    read_held_out_dice,
    read_reliability,
    read_scores,
    round_number,
)
from aslseg.reading import read_lines, read_object
from aslseg.schema_1 import renamed_config, renamed_metric


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve.

    Attributes:
        name: What was measured.
        line: What it is about: a training task, the source of a prediction, or a case.
        round: Of self-training.
        step: Of the task.
        value: NaN where it was not a number.
    """

    name: str
    line: str
    round: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a run folder says about itself.

    Attributes:
        folder: The run folder.
        config: Settings as in `config.json`.
        status: As in `status.json`.
        state: How it stands, as `RunFolder.state`.
        scores: Rows of all `metrics.csv`.
        reliability: Rows of all `reliability.csv`.
        held_out: Rows of `cross_validation.csv` of each round that has one.
        curves: Metric events.
        notices: Warnings, each once, in order.
    """

    folder: Path
    config: Mapping[str, Any]
    status: RunStatus
    state: str
    scores: tuple[Score, ...]
    reliability: tuple[ReliabilityRow, ...]
    held_out: Mapping[int, Sequence[HeldOutDice]]
    curves: tuple[Point, ...]
    notices: tuple[str, ...]

    @property
    def has_sam(self) -> bool:
        """Whether SAM took part; the status counts, for weights may have been out of reach."""
        sam = self.config.get("sam")
        wanted = sam.get("model", "none") if isinstance(sam, dict) else "none"
        return (self.status.sam or str(wanted)) != "none"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets in the order of the tables."""
        return tuple(dict.fromkeys(score.target for score in self.scores))

    @property
    def sources(self) -> tuple[tuple[int, str], ...]:
        """Rounds and sources that were scored, in the order in which they happen."""
        order = list(SOURCES)
        found = {(score.round, score.source) for score in self.scores}
        last = len(order)
        return tuple(
            sorted(
                found, key=lambda key: (key[0], order.index(key[1]) if key[1] in order else last)
            )
        )


def kept_round(run: RunRecord) -> str:
    """Say which round the label maps are of, in a sentence; empty where there is no choice."""
    rounds = {*(number for number, _ in run.sources), *run.held_out}
    best = run.status.best_round
    if len(rounds) < 2 or not best:
        return ""
    return f"The label maps are those of round {best}, {_why_kept(run, best)}."


def _why_kept(run: RunRecord, best: int) -> str:
    """Return why a round is the one that is kept, as `runs` chooses it."""
    if any(score.split == "validation" for score in run.scores):
        folder = RunFolder(run.folder)
        alike = all(folder.checked_alike(best, number) for number, _ in run.sources)
        among = "" if alike else " of those that were checked on the same label maps"
        return f"whose final labels scored best{among}"
    if best in run.status.taught_rounds:
        return "which learnt from labels or decisions of a person that were newer"
    if best not in run.held_out:
        return "the latest one"
    of = {row.target: row.round for row in run.held_out[best] if row.round != best}
    stages = "".join(f"; its networks for {name} are those of round {n}" for name, n in of.items())
    return f"which cross-validation found best{stages}"


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        RunError: When the folder is no run folder, or one of its files is damaged.
    """
    if not (folder / run_names.CONFIG).is_file():
        msg = (
            f"{folder} holds no run (config.json is absent); give a folder runs/<id> of a project."
        )
        raise RunError(msg)
    remedy = "restore it from a copy, or start a new run"
    points, notices = _told(folder / run_names.EVENTS)
    run = RunFolder(folder)
    rounds = sorted(filter(round_number, folder.glob("round-*")), key=round_number)
    return RunRecord(
        folder=folder,
        config=renamed_config(read_object(folder / run_names.CONFIG, RunError, remedy)),
        status=run.status,
        state=run.state,
        scores=tuple(score for path in rounds for score in read_scores(path)),
        reliability=tuple(judged for path in rounds for judged in read_reliability(path)),
        held_out={
            round_number(path): rows for path in rounds if (rows := read_held_out_dice(path))
        },
        curves=tuple(points),
        notices=tuple(dict.fromkeys(notices)),
    )


def source_name(source: str, *, has_sam: bool) -> str:
    """Name a source of predictions for a person; without SAM the refined label says so."""
    name = SOURCES.get(source, source.replace("_", " ").capitalize())
    return name if has_sam or source != "refined" else f"{name} (without SAM)"


def _told(path: Path) -> tuple[list[Point], list[str]]:
    """Read curves and warnings; lines that are damaged are left out and counted."""
    points, notices, damaged = [], [], 0
    for event in _events(path):
        kind = None if event is None else event.get("event")
        try:
            if event is None:
                damaged += 1
            elif kind == "metric":
                points.append(_point(event))
            elif kind == "warning" and event.get("message"):
                notices.append(str(event["message"]))
        except (TypeError, ValueError, OverflowError):
            damaged += 1
    if damaged:
        notices.append(f"{damaged} lines of {path.name} are damaged and were left out.")
    return points, notices


def _events(path: Path) -> Iterator[Mapping[str, Any] | None]:
    remedy = "move it away: curves and notices of the run so far are lost then, and nothing else"
    return (event for _, event in read_lines(path, RunError, remedy))


def _point(event: Mapping[str, Any]) -> Point:
    event = renamed_metric(event)
    value = event.get("value")
    return Point(
        name=str(event.get("name", "")),
        line=str(event.get("task") or event.get("source") or event.get("case") or ""),
        round=int(event.get("round", 0)),
        step=int(event.get("step", 0)),
        value=math.nan if value is None else float(value),
    )
