"""What a run folder tells, read for people: its state, scores, reliability, curves and notices."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aslseg.errors import RunError

T = TypeVar("T")
Row = Mapping[str, str]

STAGES = {
    "supervised": "Supervised specialist",
    "specialist": "Specialist",
    "sam_untrained": "SAM, untrained",
    "sam": "SAM, tuned",
    "refined": "Refined",
}
VOICES = {"specialist": "Specialist", "sam": "SAM", "refined": "Refined"}


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one target in one case, after one stage of one round; NaN where undefined."""

    round: int
    stage: str
    split: str
    case: str
    target: str
    dice: float
    jaccard: float
    hd95_mm: float
    assd_mm: float
    volume_ml: float
    lesions_true: int
    lesions_found: int
    false_positives: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far a pseudo-label can be trusted, and whether it joined the training set."""

    round: int
    case: str
    checkpoint_agreement: float
    voice_agreement: float
    score: float
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a learning curve."""

    name: str
    stage: str
    round: int
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over cases.

    Attributes:
        value: The mean, NaN without cases.
        spread: Standard deviation over cases, NaN below two of them.
        cases: How many had a value.
    """

    value: float
    spread: float
    cases: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a run folder says about itself.

    Attributes:
        folder: The run folder.
        config: Settings as in `config.json`.
        status: As in `status.json`.
        scores: Rows of all `metrics.csv`.
        reliability: Rows of all `reliability.csv`.
        curves: Metric events.
        notices: Warnings, each once, in order.
    """

    folder: Path
    config: Mapping[str, Any]
    status: Mapping[str, Any]
    scores: tuple[Score, ...]
    reliability: tuple[Reliability, ...]
    curves: tuple[Point, ...]
    notices: tuple[str, ...]

    @property
    def has_sam(self) -> bool:
        """Whether SAM took part; the status counts, for weights may have been out of reach."""
        wanted = self.config.get("sam", {}).get("model", "none")
        return str(self.status.get("sam") or wanted) != "none"

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets in the order of the tables."""
        return tuple(dict.fromkeys(score.target for score in self.scores))

    @property
    def stages(self) -> tuple[tuple[int, str], ...]:
        """Rounds and stages that were scored, in the order in which they happen."""
        order = list(STAGES)
        found = {(score.round, score.stage) for score in self.scores}
        last = len(order)
        return tuple(
            sorted(
                found, key=lambda key: (key[0], order.index(key[1]) if key[1] in order else last)
            )
        )


def read_run(folder: Path) -> RunRecord:
    """Read a run folder, finished or not.

    Raises:
        RunError: When the folder is no run folder, or one of its files is damaged.
    """
    if not (folder / "config.json").is_file():
        msg = (
            f"{folder} holds no run (config.json is absent); give a folder runs/<id> of a project."
        )
        raise RunError(msg)
    events = _events(folder / "events.jsonl")
    points = tuple(_point(event) for event in events if event.get("event") == "metric")
    warnings = (
        str(event.get("message", "")) for event in events if event.get("event") == "warning"
    )
    return RunRecord(
        folder=folder,
        config=_json(folder / "config.json"),
        status=_json(folder / "status.json"),
        scores=_rows(folder, "metrics.csv", _score),
        reliability=_rows(folder, "reliability.csv", _reliability),
        curves=points,
        notices=tuple(dict.fromkeys(filter(None, warnings))),
    )


def mean_of(values: Iterable[float]) -> Mean:
    """Average the finite values."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Mean(math.nan, math.nan, 0)
    mean = sum(known) / len(known)
    if len(known) == 1:
        return Mean(mean, math.nan, 1)
    spread = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return Mean(mean, spread, len(known))


def mean_dice(
    scores: Sequence[Score], *, stage: tuple[int, str], target: str, split: str = "validation"
) -> Mean:
    """Average the Dice of a target over the cases of a split, after a stage of a round."""
    return mean_of(
        score.dice
        for score in scores
        if (score.round, score.stage) == stage and score.target == target and score.split == split
    )


def stage_name(stage: str, *, has_sam: bool) -> str:
    """Name a stage for a person; without SAM the refined label says so."""
    name = STAGES.get(stage, stage.replace("_", " ").capitalize())
    return name if has_sam or stage != "refined" else f"{name} (without SAM)"


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{path} is damaged ({error}); restore it, or resume the run to write it anew."
        raise RunError(msg) from error
    return values if isinstance(values, dict) else {}


def _events(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        return []
    found: list[Mapping[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed may be cut
        if isinstance(event, dict):
            found.append(event)
    return found


def _point(event: Mapping[str, Any]) -> Point:
    return Point(
        name=str(event.get("name", "")),
        stage=str(event.get("stage", "")),
        round=int(event.get("round", 0)),
        step=int(event.get("step", 0)),
        value=_number(event.get("value")),
    )


def _rows(folder: Path, name: str, build: Callable[[Row, int], T]) -> tuple[T, ...]:
    found: list[T] = []
    for path in sorted(folder.glob(f"round-*/{name}")):
        number = int(path.parent.name.rpartition("-")[2])
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                found += [build(row, number) for row in csv.DictReader(stream)]
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            msg = f"{path} is damaged ({error}); restore it, or resume the run to write it anew."
            raise RunError(msg) from error
    return tuple(found)


def _score(row: Row, number: int) -> Score:
    return Score(
        round=int(row.get("round") or number),
        stage=row["stage"],
        split=row["split"],
        case=row["case"],
        target=row["target"],
        dice=_number(row["dice"]),
        jaccard=_number(row["jaccard"]),
        hd95_mm=_number(row["hd95_mm"]),
        assd_mm=_number(row["assd_mm"]),
        volume_ml=_number(row["volume_ml"]),
        lesions_true=int(row["lesions_true"] or 0),
        lesions_found=int(row["lesions_found"] or 0),
        false_positives=int(row["false_positives"] or 0),
    )


def _reliability(row: Row, number: int) -> Reliability:
    return Reliability(
        round=int(row.get("round") or number),
        case=row["case"],
        checkpoint_agreement=_number(row["checkpoint_agreement"]),
        voice_agreement=_number(row["voice_agreement"]),
        score=_number(row["score"]),
        accepted=row["accepted"].strip().lower() in {"1", "true", "yes"},
        reason=row["reason"],
    )


def _number(value: object) -> float:
    return math.nan if value is None or value == "" else float(str(value))
