"""Which candidates are lesions: logistic regression around a fixed rule.

All of it is ours. The log-odds of a candidate are those of the rule plus a weighted sum of its
features. With few labelled lesions the weights stay near zero, and the rule decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from aslseg.config import CandidatesConfig
from aslseg.errors import WeightsError
from aslseg.inference.candidates import FEATURES, Candidates
from aslseg.networks.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from aslseg.targets import Target

Float64 = NDArray[np.float64]

KIND = "candidates"
RULE_LIMIT = 3.0
"""The rule alone is never surer than this, in log-odds: 0.95."""
LEAST_THRESHOLD, MOST_THRESHOLD = 0.1, 0.9
"""Thresholds that cross-validation over few cases may choose from."""
PATIENTS_OF_RULE = 4
"""That the rule counts as, beside those that a classifier and its threshold were learnt from:
candidates of one patient resemble each other, and many of them say no more than a few."""


def followed_share(patients: int) -> float:
    """Return how much of what so many patients taught is followed, in log-odds beside the rule."""
    return patients / (patients + PATIENTS_OF_RULE)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutScores:
    """Candidates of labelled cases, scored without their case.

    Attributes:
        probability: (m,) by models that were trained on other cases.
        is_lesion: (m,) by the human label.
        cases: How many cases they are of.
        patients: How many patients; 0 for classifiers that were trained before this counted.
        fills_parent: (m,) whether each is too much of its parent to be accepted at any threshold;
            None for classifiers that were trained before this was kept.
    """

    probability: Float64
    is_lesion: NDArray[np.bool_]
    cases: int
    patients: int = 0
    fills_parent: NDArray[np.bool_] | None = None

    def threshold(self, false_per_case: float) -> float:
        """Return the least threshold with at most so many false candidates a case above it.

        It lies half-way between the last false candidate that is too much and the next candidate
        above, within `LEAST_THRESHOLD` and `MOST_THRESHOLD`. Candidates that fill their parent have
        no say, for no threshold accepts them. Of few patients its log-odds are drawn to those of
        the rule, which are 0.
        """
        threshold = self._threshold(false_per_case)
        if not self.patients:
            return threshold
        odds = np.log(threshold / (1 - threshold)) * followed_share(self.patients)
        return float(1 / (1 + np.exp(-odds)))

    def _threshold(self, false_per_case: float) -> float:
        probability, is_lesion = self.probability, self.is_lesion
        if self.fills_parent is not None:
            probability = probability[~self.fills_parent]
            is_lesion = is_lesion[~self.fills_parent]
        false = np.sort(probability[~is_lesion])[::-1]
        allowed = int(np.floor(false_per_case * self.cases + 1e-9))
        if len(false) <= allowed:
            return LEAST_THRESHOLD
        excess = float(false[allowed])
        above = probability[probability > excess]
        middle = (excess + float(above.min())) / 2 if len(above) else excess
        return float(np.clip(middle, LEAST_THRESHOLD, MOST_THRESHOLD))


@dataclass(frozen=True, slots=True, eq=False)
class LesionClassifier:
    """Gives each candidate the probability of being a lesion.

    Attributes:
        weights: (F,) of the standardised features; zeros are the rule alone.
        bias: Added to the log-odds.
        centre: (F,) median of each feature.
        scale: (F,) robust standard deviation of each feature.
        held_out: To choose the threshold on; None for the rule, whose threshold is one half.
        least_threshold: The threshold is never below, whatever `held_out` says.
    """

    weights: Float64
    bias: float
    centre: Float64
    scale: Float64
    held_out: HeldOutScores | None = None
    least_threshold: float = 0.0

    def probability(self, candidates: Candidates, settings: CandidatesConfig) -> Float64:
        """Return (n,) probabilities of the candidates of a volume."""
        return self.of_features(candidates.features, settings)

    def of_features(self, features: Float64, settings: CandidatesConfig) -> Float64:
        """Return (n,) probabilities of (n, F) features."""
        inputs = standardised(features, self.centre, self.scale)
        odds = rule_log_odds(features, settings) + inputs @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-odds)), dtype=np.float64)

    def threshold(self, settings: CandidatesConfig) -> float:
        """Return the probability above which a candidate is accepted."""
        chosen = 0.5 if self.held_out is None else self.held_out.threshold(settings.false_per_case)
        return max(chosen, self.least_threshold)


def fixed_rule() -> LesionClassifier:
    """Return the rule alone."""
    count = len(FEATURES)
    return LesionClassifier(np.zeros(count), 0.0, np.zeros(count), np.ones(count))


def rule_log_odds(features: Float64, settings: CandidatesConfig) -> Float64:
    """Return (n,) log-odds above zero for what the rule keeps, below zero for the rest.

    The lesser of two: how far the log-odds of the peak lie above those of `rule_peak`, and how far
    the logarithm of the volume lies above that of `rule_ml`.
    """
    peak, volume = (features[:, FEATURES.index(name)] for name in ("peak", "volume"))
    least_peak = np.log(settings.rule_peak / (1 - settings.rule_peak))
    lesser = np.minimum(peak - least_peak, volume - np.log(settings.rule_ml))
    return np.asarray(np.clip(lesser, -RULE_LIMIT, RULE_LIMIT), dtype=np.float64)


def standardised(features: Float64, centre: Float64, scale: Float64) -> Float64:
    """Return features as robust deviations in [-3, 3]; what is not known is in the middle."""
    return np.nan_to_num(np.clip((features - centre) / scale, -3.0, 3.0))


def classifier_path(folder: Path, target: Target) -> Path:
    """Return the file of a target's classifier."""
    return folder / f"candidates-{target.name.replace(' ', '_')}.safetensors"


def save_classifier(path: Path, classifier: LesionClassifier, settings: CandidatesConfig) -> None:
    """Write a classifier.

    Raises:
        StorageError: When the place cannot be written.
    """
    arrays = {
        "weights": classifier.weights,
        "bias": np.array([classifier.bias]),
        "least_threshold": np.array([classifier.least_threshold]),
        "centre": classifier.centre,
        "scale": classifier.scale,
    }
    held_out = classifier.held_out
    if held_out is not None:
        arrays["held_out_probability"] = held_out.probability
        arrays["held_out_is_lesion"] = held_out.is_lesion.astype(np.float64)
        if held_out.fills_parent is not None:
            arrays["held_out_fills_parent"] = held_out.fills_parent.astype(np.float64)
    facts = {
        "features": list(FEATURES),
        "candidates": settings.model_dump(mode="json"),
        "cases": 0 if held_out is None else held_out.cases,
        "patients": 0 if held_out is None else held_out.patients,
    }
    tensors = {name: torch.tensor(values) for name, values in arrays.items()}
    save_checkpoint(path, Checkpoint(KIND, tensors, facts))


def load_classifier(path: Path) -> LesionClassifier:
    """Read what `save_classifier` wrote.

    Raises:
        WeightsError: When the file is missing, damaged, or of other features.
    """
    checkpoint = load_checkpoint(path, KIND)
    arrays = {"least_threshold": np.zeros(1)}  # which files of earlier versions do not have
    arrays |= {name: tensor.numpy() for name, tensor in checkpoint.tensors.items()}
    try:
        columns = [list(checkpoint.config["features"]).index(name) for name in FEATURES]
        held_out = None
        if "held_out_probability" in arrays:
            fills_parent = arrays.get("held_out_fills_parent")
            held_out = HeldOutScores(
                arrays["held_out_probability"],
                arrays["held_out_is_lesion"] > 0.5,
                int(checkpoint.config["cases"]),
                int(checkpoint.config.get("patients", 0)),
                None if fills_parent is None else fills_parent > 0.5,
            )
        weights, centre, scale = (arrays[name][columns] for name in ("weights", "centre", "scale"))
        bias, least = (float(arrays[name][0]) for name in ("bias", "least_threshold"))
        return LesionClassifier(weights, bias, centre, scale, held_out, least)
    except (LookupError, TypeError, ValueError) as error:
        msg = (
            f"{path} holds a classifier of other features than this version measures; delete the "
            "file and resume the run, which trains it again."
        )
        raise WeightsError(msg) from error
