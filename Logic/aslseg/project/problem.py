"""What is wrong with a project that is planned: where, why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["folder", "cases", "case", "unpaired", "targets", "target"]
Column = Literal[
    "", "name", "image", "label", "masks", "patient", "value", "inside", "color", "terminology"
]


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence about one field of a plan.

    Attributes:
        place: Which part of the plan it is about.
        message: What is wrong, and the remedy.
        row: Which case, label map or target it is, from 0; 0 for what has no rows.
        column: Which field of the row.
    """

    place: Place
    message: str
    row: int = 0
    column: Column = ""
