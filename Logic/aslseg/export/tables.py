"""`cases.csv` and `lesions.csv`: what label maps measure, one row a case and one a lesion.

Columns of `cases.csv` after `CASE_COLUMNS`, for each target T: `T_ml`; `T_percent_of_P` where it
lies inside P (the tumour burden); and where it holds no other target `T_lesions`, their number, and
`T_longest_axial_mm`, the largest axial diameter among them. T is the target's name with `_` for
spaces, or as it is where another target would have the same columns. The volume of a target has
that of what lies inside of it. `evaluation.measurements` defines them. What is not known is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.masks import crop
from aslseg.data.volume import Labelmap, Volume
from aslseg.evaluation.measurements import (
    LesionMeasurement,
    measure_lesions,
    measure_targets,
    number_lesions,
)
from aslseg.project.lesion_decisions import LesionDecision
from aslseg.project.run_tables import write_table
from aslseg.targets import Target

CASES, LESIONS = "cases.csv", "lesions.csv"
ORIGIN_COLUMNS = ("made_by", "run", "round")
CASE_COLUMNS = ("case", "split", "state", *ORIGIN_COLUMNS)
MEASUREMENT_COLUMNS = (
    "target", "number", "volume_ml", "axial_long_mm", "axial_short_mm", "slice_index",
    "longest_diameter_mm", "mean_hu", "sd_hu", "r_mm", "a_mm", "s_mm",
)  # fmt: skip
LESION_COLUMNS = ("case", *MEASUREMENT_COLUMNS, "decision", *ORIGIN_COLUMNS)

_DIGITS = {"volume_ml": 3, "slice_index": 0, "number": 0}

Row = dict[str, Any]


def case_columns(targets: Sequence[Target]) -> list[str]:
    """Return the columns of `cases.csv`."""
    parents = {target.inside for target in targets}
    columns, words = list(CASE_COLUMNS), _words(targets)
    for target in targets:
        name = words[target.name]
        columns.append(f"{name}_ml")
        if target.inside:
            columns.append(f"{name}_percent_of_{words[target.inside]}")
        if target.name not in parents:
            columns += [f"{name}_lesions", f"{name}_longest_axial_mm"]
    return columns


def measured_rows(
    labelmap: Labelmap,
    image: Volume,
    targets: Sequence[Target],
    facts: Mapping[str, Any],
    decisions: Sequence[LesionDecision] = (),
    *,
    unknown: Collection[str] = (),
) -> tuple[Row, list[Row]]:
    """Measure a case.

    Args:
        labelmap: On the grid of the image.
        image: In HU.
        targets: All targets.
        facts: Values of the other columns of both tables.
        decisions: Of people about lesions of the case.
        unknown: Names of targets that the label map does not decide: nothing is said of them.

    Returns:
        Its row of `cases.csv`, and its rows of `lesions.csv`, target by target, largest first.
    """
    lesions = measure_lesions(labelmap, targets, image=image)
    row: Row = {name: facts.get(name, "") for name in CASE_COLUMNS}
    words = _words(targets)
    for target, one in zip(targets, measure_targets(labelmap, targets, lesions), strict=True):
        if one.target in unknown:
            continue
        name = words[one.target]
        row[f"{name}_ml"] = _text(one.volume_ml, 2)
        if target.inside:
            row[f"{name}_percent_of_{words[target.inside]}"] = _text(one.percent_of_parent, 2)
        if one.lesions is not None:
            row[f"{name}_lesions"] = one.lesions
            row[f"{name}_longest_axial_mm"] = _text(one.longest_axial_mm, 1)
    about = {name: facts.get(name, "") for name in ("case", *ORIGIN_COLUMNS)}
    decided = _decided(labelmap, targets, decisions)
    return row, [
        {**about, **lesion_row(one), "decision": decided.get((one.target, one.number), "")}
        for one in lesions
    ]


def _decided(
    labelmap: Labelmap, targets: Sequence[Target], decisions: Sequence[LesionDecision]
) -> dict[tuple[str, int], str]:
    """Return what was decided about lesions, by target and number.

    A decision is about the lesion that has most of its voxels; the latest one about it counts.
    """
    values = {target.name: target.value for target in targets}
    numbered: dict[str, NDArray[np.int32]] = {}
    found: dict[tuple[str, int], str] = {}
    for decision in decisions:
        if decision.final is None or decision.target not in values:
            continue
        name = decision.target
        if name not in numbered:
            numbered[name] = number_lesions(labelmap.labels == values[name])
        counts = np.bincount(crop(numbered[name], decision.final.box)[decision.final.mask])
        counts[0] = 0
        if counts.any():
            found[name, int(counts.argmax())] = decision.what
    return found


def lesion_row(lesion: LesionMeasurement) -> Row:
    """Return the values of `MEASUREMENT_COLUMNS`, as they are written."""
    r, a, s = lesion.centroid_ras
    values = {**asdict(lesion), "r_mm": r, "a_mm": a, "s_mm": s}
    return {
        name: values[name] if name == "target" else _text(values[name], _DIGITS.get(name, 1))
        for name in MEASUREMENT_COLUMNS
    }


def write_tables(
    folder: Path, targets: Sequence[Target], cases: Iterable[Row], lesions: Iterable[Row]
) -> None:
    """Write both tables."""
    write_table(folder / CASES, case_columns(targets), cases)
    write_table(folder / LESIONS, LESION_COLUMNS, lesions)


def _words(targets: Sequence[Target]) -> dict[str, str]:
    """Return what columns call each target, by its name."""
    words = {target.name: target.name.replace(" ", "_") for target in targets}
    counts = Counter(words.values())
    return {name: word if counts[word] == 1 else name for name, word in words.items()}


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
