"""Score label maps against the truth, as rows of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.data.geometry import enlarged, fit_labels, require_fit
from aslseg.data.images import read_segments
from aslseg.data.orientation import axial_labelmap
from aslseg.data.volume import Labelmap, Mask, SameSize
from aslseg.errors import ImageError
from aslseg.evaluation.metrics import score_labels
from aslseg.events import Monitor
from aslseg.project.labels import labels_by_name, present_values
from aslseg.targets import Target, region_values, require_distinct

LABEL_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")


def score_rows(
    predicted: Labelmap, truth: Labelmap, targets: Sequence[Target], facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one row per target.

    Args:
        predicted: Label map to score.
        truth: Label map on the same grid.
        targets: Classes to score, each with what lies inside of it.
        facts: Further columns, put first (round, source, split, case).
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

    Names are compared without ending; a truth on another grid is resampled if it overlaps, and
    counts in whole, also where it reaches beyond the prediction's grid. What is in one folder
    alone, a target that no label map has, and a value that no target has, is told.

    Raises:
        ConfigError: When two targets have one name or value.
        ImageError: When a folder holds no label map or two of one name, or no name is in both.
    """
    monitor = monitor or Monitor()
    require_distinct(targets)
    found, wanted = _label_files(predictions), _label_files(truths)
    names = sorted(found.keys() & wanted.keys())
    if not names:
        msg = (
            f"No label map in {predictions} has the name of one in {truths}; "
            "predictions and truths must be named alike."
        )
        raise ImageError(msg)
    _tell_unpaired(found, wanted, monitor)
    rows: list[dict[str, Any]] = []
    values = np.zeros(256, np.bool_)
    for name in monitor.track(names, "Scoring"):
        predicted, truth = (_read(files[name], targets) for files in (found, wanted))
        values |= present_values(predicted) | present_values(truth)
        predicted, truth = _on_one_grid(predicted, truth, str(wanted[name]), same_size)
        predicted, truth = axial_labelmap(predicted), axial_labelmap(truth)
        rows += score_rows(predicted, truth, targets, {"case": name})
    _tell_absent(targets, values, monitor)
    _tell_strange(targets, values, monitor)
    return rows


def _on_one_grid(
    predicted: Labelmap, truth: Labelmap, name: str, same_size: SameSize
) -> tuple[Labelmap, Labelmap]:
    """Return both on the grid of the prediction, which goes on as far as the truth has labels."""
    grid = predicted.geometry
    if truth.geometry.shape == grid.shape and same_size != "header":
        return predicted, fit_labels(truth, grid, name, same_size=same_size)
    require_fit(truth.geometry, grid, name, is_empty=not truth.labels.any(), same_size=same_size)
    predicted = enlarged(predicted, truth)
    return predicted, fit_labels(truth, predicted.geometry, name, same_size="header")


def _tell_unpaired(found: Mapping[str, Path], wanted: Mapping[str, Path], monitor: Monitor) -> None:
    for missing, names in (("truth", found.keys() - wanted), ("prediction", wanted.keys() - found)):
        if names:
            listed = ", ".join(sorted(names))
            monitor.warn(f"Not scored, for there is no {missing} of these names: {listed}.")


def _tell_absent(targets: Sequence[Target], values: Mask, monitor: Monitor) -> None:
    """Say which targets have no voxel at all: two empty masks are alike, whatever was meant.

    Args:
        targets: That were scored.
        values: (256,) bool, which values occur in a label map.
        monitor: Is told.
    """
    known = ", ".join(str(value) for value in np.flatnonzero(values[1:]) + 1) or "none"
    for target in targets:
        if not values[region_values(target, targets)].any():
            monitor.warn(
                f"No label map of either folder has a voxel of {target.name} (value "
                f"{target.value}); values are {known}. Its scores say nothing; name targets by "
                "their values (--target NAME=VALUE)."
            )


def _tell_strange(targets: Sequence[Target], values: Mask, monitor: Monitor) -> None:
    """Say which values no target has: what lies inside of a target may be meant, or another one."""
    known = {0, *(target.value for target in targets)}
    strange = [str(value) for value in np.flatnonzero(values) if value not in known]
    if strange:
        monitor.warn(
            f"Scored as background, for no target has these values: {', '.join(strange)}. If they "
            "mean something that is scored, name it (--target NAME=VALUE or NAME=VALUE:INSIDE)."
        )


def _read(path: Path, targets: Sequence[Target]) -> Labelmap:
    labelmap, segments = read_segments(path)
    return labels_by_name(labelmap, segments, targets, str(path), leave_others=True)


def _label_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        ending = next((e for e in LABEL_ENDINGS if path.name.endswith(e)), None)
        if ending is not None and not path.name.startswith("."):
            other = files.setdefault(path.name[: -len(ending)], path)
            if other != path:
                msg = f"{other} and {path.name} have one name; leave one of them in the folder."
                raise ImageError(msg)
    if not files:
        msg = f"{folder} holds no label map ({', '.join(LABEL_ENDINGS)}); check the path."
        raise ImageError(msg)
    return files


def _rounded(score: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in score.items()}
