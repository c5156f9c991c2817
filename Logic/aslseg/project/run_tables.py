"""The tables of a round: scores of each prediction, and what was judged of each unlabelled case."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, TypeVar

from aslseg import run_names, schema_1
from aslseg.errors import RunError, short
from aslseg.reading import read_table as read_checked
from aslseg.storage import atomic_path

T = TypeVar("T")

SOURCES = {
    "supervised": "Supervised specialist",
    "specialist": "Specialist",
    "sam_untrained": "SAM, untrained",
    "sam": "SAM, tuned",
    "refined": "Final label",
}
"""Where a label map comes from, in the order in which they are made: the column `source`, and what
a person reads."""
PREDICTIONS: tuple[Literal["specialist", "sam", "refined"], ...] = ("specialist", "sam", "refined")
"""Sources that an ensemble predicts with; the others are there to compare with."""
EXTERNAL = "external"
"""Method of a folder with label maps of another model in place of a run's predictions, see
`external_labels`."""
REFINED, DOUBTFUL = "refined.nii.gz", "doubtful.nii.gz"
"""Files of a case's predictions."""

RELIABILITY_COLUMNS = (
    "round", "case", "checkpoint_agreement", "prediction_agreement", "score", "accepted", "reason",
    "accepted_targets", "notes",
)  # fmt: skip
CROSS_VALIDATION_COLUMNS = ("case", "target", "dice", "round")
CO_TRAINING_COLUMNS = ("case", "target", "specialist", "sam")

_REMEDY = "restore it, or delete the folder of its round and resume the run"
_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class TargetScore:
    """Scores of one target in one volume; NaN where undefined.

    Attributes:
        target: Name of the target; its region is scored: what lies inside of it counts as its own.
        dice: Overlap, see `evaluation.metrics.dice`.
        jaccard: Overlap, see `evaluation.metrics.jaccard`.
        hd95_mm: The greater of the two directed 95th percentiles of surface distances.
        assd_mm: Average symmetric surface distance.
        volume_ml: Volume of the predicted region.
        lesions_true: Connected parts of the true region.
        lesions_found: Those of them that the prediction covers sufficiently.
        false_positives: Connected parts of the prediction that lie outside of the truth.
    """

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
class Score(TargetScore):
    """Scores of one target in one case, of one prediction of one round."""

    round: int
    source: str
    split: str
    case: str


METRIC_COLUMNS = ("round", "source", "split", "case", *(f.name for f in fields(TargetScore)))


@dataclass(frozen=True, slots=True)
class ReliabilityRow:
    """A row of `reliability.csv`: how reliable a case's label is, and whether it is trained on.

    Attributes:
        round: From 1.
        case: The case.
        checkpoint_agreement: Mean over the targets, in [0, 1]; NaN where nothing is known.
        prediction_agreement: The same of specialist and refined label.
        score: Mean of the scores of the targets, in [0, 1].
        accepted: Whether any target of it is trained on.
        reason: Why, for a person.
        accepted_targets: Names of these targets; empty also in runs of earlier versions, where all
            were accepted or none.
        notes: Why else its label may be wrong, as in `reason`; empty in earlier runs.
    """

    round: int
    case: str
    checkpoint_agreement: float
    prediction_agreement: float
    score: float
    accepted: bool
    reason: str
    accepted_targets: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True, slots=True)
class HeldOutDice:
    """What a specialist predicts of a labelled case that it was not trained on.

    Attributes:
        case: The case.
        target: Name of the target; its region is scored.
        dice: Overlap with the label map of a person, with the lesion stage's decisions.
        round: In which the stage was trained.
    """

    case: str
    target: str
    dice: float
    round: int


@dataclass(frozen=True, slots=True)
class CoTrainingDice:
    """What co-training finds of a labelled case that it was not trained on, and what a specialist.

    Attributes:
        case: The case.
        target: Name of the target; its region is scored.
        specialist: Dice of a specialist that was trained alone.
        sam: Dice of SAM that was trained together with one.
    """

    case: str
    target: str
    specialist: float
    sam: float


def read_scores(round_folder: Path) -> list[Score]:
    """Read the scores of a round; none of one that is not scored yet.

    Raises:
        RunError: When the table is damaged.
    """
    return _read(round_folder / run_names.METRICS, METRIC_COLUMNS[1:], _score)


def read_reliability(round_folder: Path) -> list[ReliabilityRow]:
    """Read what a round judged; nothing of one that has not come that far.

    Raises:
        RunError: When the table is damaged.
    """
    return _read(round_folder / run_names.RELIABILITY, RELIABILITY_COLUMNS[1:-2], _reliability)


def read_cross_validation(round_folder: Path) -> float:
    """Return the mean Dice of a round's out-of-fold specialists over labelled cases and targets.

    NaN where there were none.

    Raises:
        RunError: When the table is damaged.
    """
    values = [row.dice for row in read_held_out_dice(round_folder)]
    return sum(values) / len(values) if values else math.nan


def read_held_out_dice(round_folder: Path) -> list[HeldOutDice]:
    """Read what cross-validation says of a round's stages; nothing where there was none.

    Raises:
        RunError: When the table is damaged.
    """
    path = round_folder / run_names.CROSS_VALIDATION
    return _read(path, CROSS_VALIDATION_COLUMNS[:-1], _held_out_dice)


def read_co_training(round_folder: Path) -> list[CoTrainingDice] | None:
    """Read what was asked before SAM and specialist were trained together; None if it was not.

    Raises:
        RunError: When the table is damaged.
    """
    path = round_folder / run_names.CO_TRAINING
    return _read(path, CO_TRAINING_COLUMNS, _co_training_dice) if path.exists() else None


def is_co_trained(round_folder: Path) -> bool:
    """Return whether SAM and the specialist of a round of SC-SAM were trained together.

    They were if SAM was ahead of the specialist for each target, or if nothing was asked. A round
    that has a SAM was trained so, whatever the rule was then.

    Raises:
        RunError: When the table is damaged.
    """
    rows = read_co_training(round_folder)
    if rows is None or any(round_folder.glob("sam-*.safetensors")):
        return True
    gains = co_training_gains(rows).values()
    return bool(gains) and all(is_ahead(of_target) for of_target in gains)


def is_ahead(gains: Sequence[float]) -> bool:
    """Tell whether SAM is ahead in Dice by more than the standard error of the mean over cases."""
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return fmean(gains) > error


def co_training_gains(rows: Iterable[CoTrainingDice]) -> dict[str, list[float]]:
    """Return, by target, the Dice that SAM has more than the specialist on each case."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        found[row.target].append(row.sam - row.specialist)
    return dict(found)


def co_training_means(rows: Iterable[CoTrainingDice]) -> dict[str, tuple[float, float]]:
    """Return, by target, the mean Dice of a specialist that was trained alone, and of SAM."""
    dice_of: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        dice_of[row.target].append((row.specialist, row.sam))
    return {
        target: (fmean(one for one, _ in values), fmean(sam for _, sam in values))
        for target, values in dice_of.items()
    }


def round_number(round_folder: Path) -> int:
    """Return the number in the name of a round's folder; 0 when there is none."""
    number = round_folder.name.removeprefix("round-")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path, columns: Collection[str] = ()) -> list[dict[str, str]]:
    """Read a CSV file that `write_table` wrote.

    Raises:
        RunError: When it is missing or damaged, or lacks a column.
    """
    return read_checked(path, columns, RunError, _REMEDY, schema_1.COLUMNS)


def _read(
    path: Path, columns: Collection[str], build: Callable[[Mapping[str, str], int], T]
) -> list[T]:
    if not path.exists():
        return []
    number = round_number(path.parent)
    try:
        return [build(row, number) for row in read_table(path, columns)]
    except ValueError as error:
        msg = f"{path} is damaged ({short(error)}); {_REMEDY}."
        raise RunError(msg) from error


def _score(row: Mapping[str, str], number: int) -> Score:
    return Score(
        round=int(row.get("round") or number),
        source=row["source"],
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


def _reliability(row: Mapping[str, str], number: int) -> ReliabilityRow:
    return ReliabilityRow(
        round=int(row.get("round") or number),
        case=row["case"],
        checkpoint_agreement=_number(row["checkpoint_agreement"]),
        prediction_agreement=_number(row["prediction_agreement"]),
        score=_number(row["score"]),
        accepted=truth_of(row["accepted"]),
        reason=row["reason"],
        accepted_targets=tuple(filter(None, row.get("accepted_targets", "").split(";"))),
        notes=row.get("notes", ""),
    )


def _held_out_dice(row: Mapping[str, str], number: int) -> HeldOutDice:
    return HeldOutDice(
        case=row["case"],
        target=row["target"],
        dice=_number(row["dice"]),
        round=int(row.get("round") or number),
    )


def _co_training_dice(row: Mapping[str, str], _: int) -> CoTrainingDice:
    values = {name: float(row[name]) for name in ("specialist", "sam")}
    return CoTrainingDice(row["case"], row["target"], **values)


def _number(text: str) -> float:
    return float(text) if text else math.nan


def truth_of(text: str) -> bool:
    """Return what a column of truths says.

    Raises:
        ValueError: When it says neither.
    """
    known = _WORDS.get(text.strip().lower())
    if known is None:
        msg = f"{text[:20]!r} is neither True nor False"
        raise ValueError(msg)
    return known
