"""The candidates of a case on disk: a table with one row each, and a map of their numbers.

Both lie beside the predictions of a round, for the review of a case lesion by lesion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import RunError, short
from aslseg.project.predictions import read_prediction
from aslseg.project.run_tables import read_table, truth_of, write_table
from aslseg.schema_1 import predictions_folder

CANDIDATES, CANDIDATE_MAP = "candidates.csv", "candidates.nii.gz"
CANDIDATE_COLUMNS = (
    "case", "target", "number", "i", "j", "k", "r_mm", "a_mm", "s_mm", "volume_ml", "probability",
    "threshold", "accepted",
)  # fmt: skip
"""Columns that each table has; those of features follow."""

_REMEDY = "restore it, or delete the folder of its case and resume the run"


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One candidate.

    Attributes:
        case: Id of the case.
        target: Name of the target.
        number: Its value in the map; above 255 it is not shown there.
        centre_ijk: Mean index (i, j, k) of its voxels, in the file of the image.
        centre_ras: The same point, RAS in mm.
        volume_ml: Of the voxels with at least half of its highest probability.
        probability: Of being a lesion.
        threshold: Above which candidates were accepted.
        accepted: Whether it was.
        features: What the decision was made from, by name; NaN where unknown.
    """

    case: str
    target: str
    number: int
    centre_ijk: tuple[float, float, float]
    centre_ras: tuple[float, float, float]
    volume_ml: float
    probability: float
    threshold: float
    accepted: bool
    features: Mapping[str, float] = field(default_factory=dict)


def write_candidates(
    folder: Path, rows: Sequence[CandidateRow], numbers: Labelmap, features: Sequence[str]
) -> None:
    """Write the table and the map of a case.

    Args:
        folder: Of the case's predictions.
        rows: In the order of their numbers.
        numbers: On the grid of the image; 0 is no candidate.
        features: Their names, in the order of the columns.
    """
    values = [dict(zip(CANDIDATE_COLUMNS, _values(row), strict=True)) for row in rows]
    for value, row in zip(values, rows, strict=True):
        value.update({name: _text(row.features.get(name, math.nan)) for name in features})
    write_table(folder / CANDIDATES, [*CANDIDATE_COLUMNS, *features], values)
    write_labelmap(numbers, folder / CANDIDATE_MAP)


def read_candidates(folder: Path) -> list[CandidateRow]:
    """Read the candidates of a case; none where a method decides about none.

    Args:
        folder: Of the case's predictions.

    Raises:
        RunError: When the table is damaged.
    """
    path = folder / CANDIDATES
    if not path.exists():
        return []
    try:
        return [_row(row) for row in read_table(path, CANDIDATE_COLUMNS)]
    except ValueError as error:
        msg = f"{path} is damaged ({short(error)}); {_REMEDY}."
        raise RunError(msg) from error


def expected_volume_ml(folder: Path) -> float | None:
    """Return the expected volume of a case's lesions: of each candidate, times its probability.

    Args:
        folder: Of the case's predictions.

    Returns:
        In ml; None where a method decides about no candidates, 0 where none was found.

    Raises:
        RunError: When the table is damaged.
    """
    if not (folder / CANDIDATES).exists():
        return None
    return sum(row.volume_ml * row.probability for row in read_candidates(folder))


def read_candidate_map(folder: Path, geometry: Geometry) -> Labelmap | None:
    """Read the map of a case's candidates, or None.

    Args:
        folder: Of the case's predictions.
        geometry: Of the case's image.

    Raises:
        ImageError: When the file is damaged, or lies on other voxels than the image.
    """
    path = folder / CANDIDATE_MAP
    return read_prediction(path, geometry) if path.exists() else None


def candidates_of_round(round_folder: Path) -> list[CandidateRow]:
    """Read the candidates of all cases of a round, by case.

    Raises:
        RunError: When a table is damaged.
    """
    folders = sorted(predictions_folder(round_folder).glob(f"*/{CANDIDATES}"))
    return [row for path in folders for row in read_candidates(path.parent)]


def _values(row: CandidateRow) -> list[object]:
    centre = [f"{value:.2f}" for value in (*row.centre_ijk, *row.centre_ras)]
    numbers = [_text(value) for value in (row.volume_ml, row.probability, row.threshold)]
    return [row.case, row.target, row.number, *centre, *numbers, row.accepted]


def _row(row: Mapping[str, str]) -> CandidateRow:
    i, j, k, r, a, s = (float(row[name]) for name in ("i", "j", "k", "r_mm", "a_mm", "s_mm"))
    names = [name for name in row if name not in CANDIDATE_COLUMNS]
    return CandidateRow(
        case=row["case"],
        target=row["target"],
        number=int(row["number"]),
        centre_ijk=(i, j, k),
        centre_ras=(r, a, s),
        volume_ml=float(row["volume_ml"]),
        probability=float(row["probability"]),
        threshold=float(row["threshold"]),
        accepted=truth_of(row["accepted"]),
        features={name: float(row[name]) if row[name] else math.nan for name in names},
    )


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
