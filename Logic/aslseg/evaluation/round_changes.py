"""What a round changed beside the round before: lesions found and dropped, and their volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.data.masks import label_components
from aslseg.data.volume import Labelmap, Mask
from aslseg.errors import RunError, short
from aslseg.project.predictions import read_prediction
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import REFINED, read_table, write_table
from aslseg.targets import Target, lesion_targets

CHANGES = "changes.csv"
COLUMNS = ("case", "target", "kept", "found", "dropped", "before_ml", "after_ml")


@dataclass(frozen=True, slots=True)
class CaseChange:
    """How the lesions of a case changed from one label map to the next.

    Attributes:
        case: Id of the case.
        target: Name of the target.
        kept: Lesions of before that some lesion of after touches.
        found: Lesions of after that touch none of before.
        dropped: Lesions of before that none of after touches.
        before_ml: Volume of all lesions before.
        after_ml: Volume of all lesions after.
    """

    case: str
    target: str
    kept: int
    found: int
    dropped: int
    before_ml: float
    after_ml: float


def changes_of(
    case_id: str, before: Labelmap, after: Labelmap, targets: Sequence[Target]
) -> list[CaseChange]:
    """Compare the lesions of two label maps of a case, target by target.

    Args:
        case_id: The case.
        before: A label map.
        after: Another one on the same grid.
        targets: All targets.
    """
    changes = []
    for target in lesion_targets(targets):
        was, now = (one.labels == target.value for one in (before, after))
        kept, dropped = _touched(was, now)
        _, found = _touched(now, was)
        ml = [round(mask.sum() * before.geometry.voxel_ml, 3) for mask in (was, now)]
        changes.append(CaseChange(case_id, target.name, kept, found, dropped, *ml))
    return changes


def write_changes(project: Project, run: RunFolder, number: int) -> Path:
    """Write what a round changed in the refined labels of the round before; return the table.

    Cases that one of the two rounds did not segment are left out.

    Raises:
        ImageError: When an image is missing, or a label map is damaged.
        GeometryMismatchError: When a label map lies on other voxels than its image.
        StorageError: When the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    for case in project.cases:
        paths = [run.predictions(n, case.id) / REFINED for n in (number - 1, number)]
        if all(path.exists() for path in paths):
            geometry = project.geometry(case)
            before, after = (read_prediction(path, geometry) for path in paths)
            changes = changes_of(case.id, before, after, project.targets)
            rows += [_written(one) for one in changes]
    path = run.round(number) / CHANGES
    write_table(path, COLUMNS, rows)
    return path


def read_changes(run: RunFolder, number: int) -> list[CaseChange]:
    """Read what a round changed; nothing where no table was written.

    Raises:
        RunError: When the table is damaged.
    """
    path = run.round(number) / CHANGES
    if not path.exists():
        return []
    try:
        return [
            CaseChange(
                row["case"],
                row["target"],
                int(row["kept"]),
                int(row["found"]),
                int(row["dropped"]),
                float(row["before_ml"]),
                float(row["after_ml"]),
            )
            for row in read_table(path, COLUMNS)
        ]
    except ValueError as error:
        msg = f"{path} is damaged ({short(error)}); delete it."
        raise RunError(msg) from error


def _written(change: CaseChange) -> dict[str, Any]:
    volumes = {name: f"{getattr(change, name):.3f}" for name in ("before_ml", "after_ml")}
    return {**asdict(change), **volumes}


def _touched(lesions: Mask, others: Mask) -> tuple[int, int]:
    """Return how many connected parts of a mask have a voxel of another mask, and how many none."""
    numbered, count = label_components(lesions)
    touched = len(np.setdiff1d(numbered[others], [0]))
    return touched, count - touched
