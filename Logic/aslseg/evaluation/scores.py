"""Score label maps against the truth, as rows of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aslseg.data.geometry import fit_labels
from aslseg.data.images import read_segments
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Labelmap, SameSize
from aslseg.errors import ImageError
from aslseg.evaluation.metrics import score_labels
from aslseg.events import Monitor
from aslseg.project.labels import labels_by_name
from aslseg.targets import Target

LABEL_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


def score_rows(
    predicted: Labelmap, truth: Labelmap, targets: Sequence[Target], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one row per target.

    Args:
        predicted: Label map to score.
        truth: Label map on the same grid.
        targets: Classes to score, each with what lies inside of it.
        facts: Further columns, put first (round, stage, split, case).
    """
    scores = score_labels(predicted, truth, targets)
    return [{**facts, **_rounded(asdict(score))} for score in scores]


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over cases or seeds.

    Attributes:
        value: The mean, NaN of nothing.
        sd: Standard deviation, NaN of fewer than two values.
        count: How many values there were.
    """

    value: float
    sd: float
    count: int


def mean_of(values: Iterable[float]) -> Mean:
    """Return the mean and the standard deviation of the finite values."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Mean(math.nan, math.nan, 0)
    sd = statistics.stdev(known) if len(known) > 1 else math.nan
    return Mean(statistics.fmean(known), sd, len(known))


def mean_dice(scores: Iterable[Any], **wanted: Any) -> Mean:
    """Average the Dice of the scores with given values.

    Args:
        scores: Rows of a table, or objects with its columns as attributes.
        wanted: Values of columns, compared as text.
    """
    rows = (score if isinstance(score, Mapping) else asdict(score) for score in scores)
    return mean_of(
        float(row["dice"])
        for row in rows
        if all(str(row[key]) == str(value) for key, value in wanted.items())
    )


def evaluate_folder(
    predictions: Path,
    truths: Path,
    targets: Sequence[Target],
    monitor: Monitor | None = None,
    *,
    same_size: SameSize = "refuse",
) -> list[dict[str, Any]]:
    """Score every label map of a folder against the one of the same name in another.

    Names are compared without ending; a truth on another grid is resampled if it overlaps.

    Raises:
        ImageError: When a folder holds no label map, or no name is in both.
    """
    found, wanted = _label_files(predictions), _label_files(truths)
    names = sorted(found.keys() & wanted.keys())
    if not names:
        msg = (
            f"No label map in {predictions} has the name of one in {truths}; "
            "predictions and truths must be named alike."
        )
        raise ImageError(msg)
    rows: list[dict[str, Any]] = []
    for name in (monitor or Monitor()).track(names, "Scoring"):
        predicted, truth = (_read(files[name], targets) for files in (found, wanted))
        truth = fit_labels(truth, predicted.geometry, str(wanted[name]), same_size=same_size)
        predicted, truth = axial_labelmap(predicted), axial_labelmap(truth)
        rows += score_rows(predicted, truth, targets, {"case": name})
    return rows


def _read(path: Path, targets: Sequence[Target]) -> Labelmap:
    labelmap, segments = read_segments(path)
    return labels_by_name(labelmap, segments, targets, str(path), leave_others=True)


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        ending = next((e for e in LABEL_ENDINGS if path.name.endswith(e)), None)
        if ending is not None:
            files[path.name[: -len(ending)]] = path
    if not files:
        msg = f"{folder} holds no label map ({', '.join(LABEL_ENDINGS)}); check the path."
        raise ImageError(msg)
    return files


def _rounded(score: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in score.items()}
