"""Scores of the held-out cases of an experiment: here, after the run, their labels are opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.benchmark.data import BenchmarkData
from aslseg.data.geometry import resample_labels
from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.masks import label_components
from aslseg.data.volume import Float32, Labelmap, Mask
from aslseg.evaluation.lesion_matching import match_lesions
from aslseg.evaluation.scores import score_rows
from aslseg.preprocessing.roi import resample
from aslseg.targets import Target, region_mask

RULE_PEAK, RULE_ML = 0.9, 0.15
"""The false-positive rule: a lesion has a peak from this upward and at least this volume."""


@dataclass(frozen=True, slots=True, eq=False)
class CasePrediction:
    """The final prediction of a held-out case.

    Attributes:
        labels: The label map.
        probabilities: By target name, (D, H, W) on its voxels; empty where there are label maps
            alone.
    """

    labels: Labelmap
    probabilities: Mapping[str, Float32]


Predict = Callable[[str], CasePrediction]
"""Predicts a held-out case, by its id."""


def held_out_rows(
    data: BenchmarkData, predict: Predict, folder: Path | None = None
) -> list[dict[str, Any]]:
    """Score predictions of the held-out cases, on the voxels of the images as they were given.

    Voxels that nobody looked at (nnU-Net's ignore label) count as background in both.

    Args:
        data: Cases and their truth.
        predict: Gives the prediction of a case.
        folder: Where the label maps are kept; None keeps none.

    Returns:
        A row per case and target; for targets inside of another with the lesions and how they
        match.
    """
    rows: list[dict[str, Any]] = []
    for case_id in data.held_out:
        prediction = predict(case_id)
        truth = data.truth(case_id)
        # Copies are coarser, and axial.
        labels = resample_labels(prediction.labels, truth.geometry)
        if folder is not None:
            write_labelmap(labels, folder / f"{case_id}.nii.gz")
        prediction, labels = _without_unseen(prediction, labels, data.unseen(case_id))
        facts = {"case": case_id, "patient": data.patients[case_id]}
        for row, target in zip(
            score_rows(labels, truth, data.targets, facts), data.targets, strict=True
        ):
            rows.append({**row, **_lesion_facts(data, prediction, labels, truth, target)})
    return rows


def _without_unseen(
    prediction: CasePrediction, labels: Labelmap, unseen: Mask | None
) -> tuple[CasePrediction, Labelmap]:
    """Leave voxels that nobody looked at out of a prediction and its label map on their grid."""
    if unseen is None:
        return prediction, labels
    resampled = {
        name: np.where(unseen, np.float32(0), resample(probability, unseen.shape, "linear"))
        for name, probability in prediction.probabilities.items()
    }
    return replace(prediction, probabilities=resampled), labels.without(unseen)


def _lesion_facts(
    data: BenchmarkData,
    prediction: CasePrediction,
    labels: Labelmap,
    truth: Labelmap,
    target: Target,
) -> dict[str, Any]:
    true = region_mask(truth.labels, target, data.targets)
    facts: dict[str, Any] = {"true_ml": round(float(true.sum()) * truth.geometry.voxel_ml, 4)}
    if target.inside is None:
        return facts
    shape = truth.geometry.shape
    if prediction.probabilities:
        probability = resample(prediction.probabilities[target.name], shape, "linear")
    else:
        probability = region_mask(labels.labels, target, data.targets).astype(np.float32)
    matches = match_lesions(probability, true, truth.geometry.voxel_ml)
    return {**facts, "lesions": {k: [round(v, 4) for v in vs] for k, vs in asdict(matches).items()}}


def with_lesion_rule(prediction: CasePrediction, targets: tuple[Target, ...]) -> CasePrediction:
    """Drop lesions with a low peak or a small volume, from label map and probabilities.

    Args:
        prediction: With probabilities.
        targets: All targets; those inside of another are lesions.
    """
    labels = prediction.labels.labels.copy()
    probabilities = dict(prediction.probabilities)
    for target in targets:
        if target.inside is None:
            continue
        parent = next(t for t in targets if t.name == target.inside)
        voxel_ml = prediction.labels.geometry.voxel_ml
        kept = _kept(probabilities[target.name], voxel_ml)
        labels[(labels == target.value) & ~kept] = parent.value
        probabilities[target.name] = np.where(kept, probabilities[target.name], np.float32(0))
    return CasePrediction(Labelmap(labels, prediction.labels.geometry), probabilities)


def _kept(probability: Float32, voxel_ml: float) -> Mask:
    numbered, count = label_components(probability > 0.5)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, numbered.ravel(), probability.ravel())
    kept = (peaks >= RULE_PEAK) & (sizes * voxel_ml >= RULE_ML)
    kept[0] = False
    found: Mask = kept[numbered]
    return found


def stored_prediction(folder: Path, case_id: str) -> CasePrediction:
    """Read a label map of a folder.

    Raises:
        ImageError: When it is missing or damaged.
    """
    return CasePrediction(read_labelmap(folder / f"{case_id}.nii.gz"), {})
