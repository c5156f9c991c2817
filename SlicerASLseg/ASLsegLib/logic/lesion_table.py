"""Tables as text: for the clipboard and for CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aslseg.evaluation.lesions import LesionMeasurement

COLUMNS = ("target", "number", "volume_ml", "longest_diameter_mm", "r_mm", "a_mm", "s_mm")


def rows_of(lesions: Sequence[LesionMeasurement]) -> list[tuple[str, ...]]:
    """Return one row of text per lesion, in the order of `COLUMNS`."""
    return [
        (
            lesion.target,
            str(lesion.number),
            f"{lesion.volume_ml:.2f}",
            f"{lesion.longest_diameter_mm:.1f}",
            *(f"{value:.1f}" for value in lesion.centre_ras),
        )
        for lesion in lesions
    ]


def as_text(lesions: Sequence[LesionMeasurement], case: str, separator: str = "\t") -> str:
    """Return the table with its head and the case in the first column, for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(("case", *COLUMNS))
    writer.writerows((case, *row) for row in rows_of(lesions))
    return text.getvalue()
