"""The endpoints of Docs/benchmark.md, from the rows of finished experiments."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.benchmark.statistics import (
    NOTHING,
    Estimate,
    Key,
    Values,
    estimate,
    over_patients,
    pooled_f1,
)
from aslseg.evaluation.lesion_matching import LesionMatches, best_threshold, f1_of, sensitivity_at

Row = Mapping[str, Any]
"""Scores of a target in a case, with draw, labelled, seed, case and patient."""

FALSE_PER_CASE = (0.5, 1.0, 2.0)
PRIMARY = {False: "dice", True: "f1"}
"""Endpoint of organs, and of lesions."""
SECONDARY = (
    *(f"sensitivity_{rate:g}" for rate in FALSE_PER_CASE), "dice_with_lesion", "false_ml_without",
)  # fmt: skip
TITLES = {
    "dice": "Dice",
    "f1": "lesion F1",
    **{f"sensitivity_{rate:g}": f"found at {rate:g} false a case" for rate in FALSE_PER_CASE},
    "dice_with_lesion": "Dice, cases with lesions",
    "false_ml_without": "false ml, cases without",
}


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """An endpoint of a row.

    Attributes:
        estimate: Its value.
        values: Of single cases, for the test; empty where there is none.
    """

    estimate: Estimate
    values: Values


def measured(rows: Sequence[Row], endpoint: str) -> Measured:
    """Measure an endpoint on the rows of one method and target.

    Args:
        rows: Of all draws, with one number of labelled cases.
        endpoint: A key of `TITLES`.
    """
    if endpoint == "f1":
        return _f1(rows)
    if endpoint.startswith("sensitivity_"):
        return Measured(_sensitivity(rows, float(endpoint.removeprefix("sensitivity_"))), {})
    values = {_key(row): _value(row, endpoint) for row in rows}
    patients = {str(row["case"]): str(row["patient"]) for row in rows}
    return Measured(estimate(over_patients(values, patients)), values)


def _value(row: Row, endpoint: str) -> float:
    if endpoint == "dice":
        return float(row["dice"])
    if endpoint == "dice_with_lesion":
        return float(row["dice"]) if row["true_ml"] > 0 else math.nan
    return float(row["volume_ml"]) if row["true_ml"] == 0 else math.nan


def _key(row: Row) -> Key:
    return str(row["draw"]), int(row["labelled"]), int(row["seed"]), str(row["case"])


def _matches(row: Row) -> LesionMatches:
    return LesionMatches(**{name: tuple(values) for name, values in row["lesions"].items()})


def _by_experiment(rows: Sequence[Row]) -> list[list[Row]]:
    found: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        found[_key(row)[:3]].append(row)
    return list(found.values())


def _f1(rows: Sequence[Row]) -> Measured:
    """Pool lesions, each patient's at the threshold that is best on all others."""
    pooled: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
    values: dict[Key, float] = {}
    for these in _by_experiment(rows):
        for row in these:
            others = [_matches(o) for o in these if o["patient"] != row["patient"]]
            found, missed, false = _matches(row).counts(best_threshold(others))
            pooled[str(row["patient"])] += (found, missed, false)
            values[_key(row)] = f1_of((found, missed, false))
    counts = {patient: tuple(map(float, three)) for patient, three in pooled.items()}
    return Measured(pooled_f1(counts) if counts else NOTHING, values)


def _sensitivity(rows: Sequence[Row], false_per_case: float) -> Estimate:
    """Average the free-response sensitivity over experiments."""
    found = [
        sensitivity_at([_matches(row) for row in these], false_per_case)
        for these in _by_experiment(rows)
    ]
    known = [value for value in found if math.isfinite(value)]
    patients = len({row["patient"] for row in rows})
    value = float(np.mean(known)) if known else math.nan
    return Estimate(value, math.nan, math.nan, patients)
