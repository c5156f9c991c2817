"""Training of the lesion stage: on candidates of models that did not see their case.

All of it is ours. Each labelled case is predicted by the specialist (and by the SAM) that was
trained without it. Its candidates, true ones and mistakes, are what the classifier is trained on.
There may be few: so the weights have a normal prior around the fixed rule, and the threshold comes
from scores of classifiers that were fitted without the case.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from aslseg import run_names
from aslseg.config import CandidatesConfig
from aslseg.context import LabelledVolume, RunContext, labelled_volumes
from aslseg.data.volume import Mask
from aslseg.evaluation.metrics import dice
from aslseg.inference.candidates import FEATURES, Candidates, candidate_targets
from aslseg.inference.cascade import Probabilities, Specialist, all_targets
from aslseg.inference.lesion_classifier import (
    Float64,
    HeldOutScores,
    LesionClassifier,
    classifier_path,
    fixed_rule,
    followed_share,
    load_classifier,
    rule_log_odds,
    save_classifier,
    standardised,
)
from aslseg.inference.lesion_stage import (
    LesionStage,
    at_most_doubtful,
    candidates_of,
    fill_parent,
)
from aslseg.inference.loading import load_lesion_stage
from aslseg.inference.postprocessing import labels_from
from aslseg.preprocessing.intensity import SD_PER_MAD
from aslseg.project.run_tables import (
    CROSS_VALIDATION_COLUMNS,
    round_number,
    write_table,
)
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import Target, region_mask
from aslseg.training.cross_fitting import (
    OutOfFoldModel,
    OutOfFoldModels,
    forget_predictions,
)
from aslseg.training.held_out import predict_held_out, predict_sam_held_out
from aslseg.training.sam_tuning import cross_fitted_sam

logger = logging.getLogger(__name__)

MIN_OVERLAP = 0.1
"""Least part of a core that is true for its candidate to be a lesion, as in `detect_lesions`."""
BIAS_SD = 1.0
"""Of the prior of the bias, in log-odds."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseCandidates:
    """The candidates of a target in a labelled case, and which of them are lesions.

    Attributes:
        case_id: The case.
        patient: Whose case it is.
        features: (n, F).
        is_lesion: (n,).
        voxels: (n,) that the specialist labels in the zone of each.
        true_voxels: (n,) of these, how many are true.
        all_true: Voxels of the target in the human label map.
        fills_parent: (n,) whether each is too much of its parent to be accepted.
    """

    case_id: str
    patient: str
    features: Float64
    is_lesion: NDArray[np.bool_]
    voxels: NDArray[np.int64]
    true_voxels: NDArray[np.int64]
    all_true: int
    fills_parent: NDArray[np.bool_]

    def dice(self, accepted: NDArray[np.bool_]) -> float:
        """Return the Dice of the specialist's label with some candidates alone.

        Args:
            accepted: (candidates,) which ones.
        """
        total = int(self.voxels[accepted].sum()) + self.all_true
        return 1.0 if total == 0 else 2 * int(self.true_voxels[accepted].sum()) / total


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutCase:
    """A labelled case as predicted by a specialist that was trained without it.

    Attributes:
        case_id: The case.
        candidates: By name of the lesion targets that its label decides; none where all are kept.
        dice: Of the other targets' regions, by name.
    """

    case_id: str
    candidates: Mapping[str, CaseCandidates]
    dice: Mapping[str, float]


def train_lesion_stage(
    context: RunContext,
    folder: Path,
    earlier: Sequence[Specialist],
    out_of_fold_models: OutOfFoldModels,
    *,
    with_sam: bool = False,
) -> LesionStage | None:
    """Fit the classifiers that the folder does not hold yet, and load all of them.

    The Dice of the out-of-fold specialists, with decisions of classifiers that were fitted without
    the case, is written to `cross_validation.csv`. Where no labelled case has such a specialist,
    the fixed rule stands in for a classifier.

    Args:
        context: Cases and settings.
        folder: Of the classifiers and the table.
        earlier: The deployed specialist at the snapshots of its schedule.
        out_of_fold_models: By case id.
        with_sam: Whether SAM proposes candidates too, and is a feature of them.

    Returns:
        The stage; None if the settings want none, or no target is a lesion.
    """
    table = folder / run_names.CROSS_VALIDATION
    learns = bool(out_of_fold_models) or context.config.lesion_decision == "classifier"
    if learns and not table.exists():
        wanted = candidate_targets(context.targets, context.config)
        cases = _held_out_cases(context, out_of_fold_models, with_sam=with_sam and bool(wanted))
        rows: list[dict[str, Any]] = [
            {"case": case.case_id, "target": name, "dice": value}
            for case in cases
            for name, value in case.dice.items()
        ]
        for target in wanted:
            of_target = [c.candidates[target.name] for c in cases if target.name in c.candidates]
            rows += _train_target(context, target, of_target, classifier_path(folder, target))
        number = round_number(folder)
        rows = [{**row, "dice": round(row["dice"], 4), "round": number} for row in rows]
        write_table(table, CROSS_VALIDATION_COLUMNS, rows)
    forget_predictions(out_of_fold_models)  # all else has learnt from them before
    return load_lesion_stage(context, folder, earlier, with_sam=with_sam)


def _train_target(
    context: RunContext, target: Target, cases: Sequence[CaseCandidates], path: Path
) -> list[dict[str, Any]]:
    """Write the classifier of a target if one is wanted; return the rows of its held-out Dice."""
    settings, classifier = context.config.candidates, fixed_rule()
    if context.config.lesion_decision == "classifier":
        least = _threshold_before(context, path)
        classifier = replace(fit_classifier(cases, settings), least_threshold=least)
        _log(target, cases, classifier, settings)
        save_classifier(path, classifier, settings)
    rows: list[dict[str, Any]] = []
    threshold, start = classifier.threshold(settings), 0
    for case in cases:
        end = start + len(case.is_lesion)
        if classifier.held_out is None:
            probability = classifier.of_features(case.features, settings)
        else:
            probability = classifier.held_out.probability[start:end]
        accepted = at_most_doubtful(probability, case.fills_parent, threshold) > threshold
        rows.append({"case": case.case_id, "target": target.name, "dice": case.dice(accepted)})
        start = end
    return rows


def _threshold_before(context: RunContext, path: Path) -> float:
    """Return the threshold of the round before, under which a later one must not choose its own.

    Which pseudo-labels out-of-fold specialists of later rounds learn from, and which lesions in
    them, was still decided with the case, so fewer of their candidates in it are false than in
    other cases.

    Args:
        context: Of the run.
        path: Of the round's classifier.

    Returns:
        0 where training does not go on from an earlier round.
    """
    before = context.folder.before(path)
    return load_classifier(before).threshold(context.config.candidates) if before else 0.0


def fit_classifier(cases: Sequence[CaseCandidates], settings: CandidatesConfig) -> LesionClassifier:
    """Fit a classifier, with scores of each case by one that was fitted on the others.

    Args:
        cases: Of one target.
        settings: The rule, and how far the weights may move from it.

    Returns:
        The classifier; the fixed rule where there are fewer than two patients.
    """
    patients = len({case.patient for case in cases})
    if patients < 2:
        return fixed_rule()
    scores = []
    for case in cases:
        without = _fitted([c for c in cases if c.patient != case.patient], settings)
        scores.append(without.of_features(case.features, settings))
    is_lesion = np.concatenate([case.is_lesion for case in cases])
    fills_parent = np.concatenate([case.fills_parent for case in cases])
    probability = np.concatenate(scores)
    held_out = HeldOutScores(probability, is_lesion, len(cases), patients, fills_parent)
    final = _fitted(cases, settings)
    return LesionClassifier(final.weights, final.bias, final.centre, final.scale, held_out)


def _fitted(cases: Sequence[CaseCandidates], settings: CandidatesConfig) -> LesionClassifier:
    """Return logistic regression around the rule, drawn to the rule where patients are few.

    Weights and bias are the maximum a posteriori, times the `followed_share` of so many patients.
    """
    features = np.concatenate([case.features for case in cases])
    is_lesion = np.concatenate([case.is_lesion for case in cases])
    if not len(features):
        return fixed_rule()
    centre, scale = _middle_and_spread(features)
    inputs = standardised(features, centre, scale)
    offset = rule_log_odds(features, settings)
    spread = np.array([*[settings.prior_sd] * inputs.shape[1], BIAS_SD])

    def loss(parameters: Float64) -> tuple[float, Float64]:
        odds = offset + inputs @ parameters[:-1] + parameters[-1]
        excess = 1 / (1 + np.exp(-odds)) - is_lesion
        prior = np.square(parameters / spread).sum() / 2
        likelihood = np.logaddexp(0.0, np.where(is_lesion, -odds, odds)).sum()
        gradient = np.append(inputs.T @ excess, excess.sum()) + parameters / np.square(spread)
        return float(likelihood + prior), gradient

    found = optimize.minimize(loss, np.zeros(len(spread)), jac=True, method="L-BFGS-B")
    followed = found.x * followed_share(len({case.patient for case in cases}))
    return LesionClassifier(followed[:-1], float(followed[-1]), centre, scale)


def _middle_and_spread(features: Float64) -> tuple[Float64, Float64]:
    """Return median and robust standard deviation of each feature; 0 and 1 where unknown."""
    centre, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
    for n, values in enumerate(features.T):
        known = values[np.isfinite(values)]
        if len(known):
            centre[n] = np.median(known)
            spread = SD_PER_MAD * float(np.median(np.abs(known - centre[n])))
            scale[n] = spread or float(known.std()) or 1.0
    return centre, scale


def _held_out_cases(
    context: RunContext, out_of_fold_models: OutOfFoldModels, *, with_sam: bool
) -> list[HeldOutCase]:
    found: list[HeldOutCase] = []
    for model in dict.fromkeys(out_of_fold_models.values()):
        sam = cross_fitted_sam(context, model, out_of_fold_models) if with_sam else None
        held_out = [case for case in context.labelled if case.id in model.fold]
        cases = [case for case in held_out if case.complete_slices is None]
        patients = {case.id: case.patient for case in cases}
        found += [
            _held_out_case(context, labelled, patients[labelled.case_id], model, sam)
            for labelled in labelled_volumes(context, cases, "Finding candidates")
        ]
    return found


def _held_out_case(
    context: RunContext,
    labelled: LabelledVolume,
    patient: str,
    model: OutOfFoldModel,
    sam_predictor: VolumeSamPredictor | None,
) -> HeldOutCase:
    volume, targets = labelled.volume, context.targets
    stages = predict_held_out(context, model, labelled)
    probabilities = all_targets(stages)
    sam: Probabilities | None = None
    if sam_predictor is not None:
        sam = predict_sam_held_out(context, model, labelled, probabilities, sam_predictor)
    found = candidates_of(volume, stages, sam, model.cascade.earlier, targets, context.config)
    labels = labels_from(probabilities, targets, volume, context.config.min_component_ml)
    regions = {
        target.name: [region_mask(one.labels, target, targets) for one in (labels, labelled.labels)]
        for target in targets
    }
    candidates = {
        name: _case_candidates(
            labelled.case_id,
            patient,
            one,
            *regions[name],
            fills_parent=fill_parent(one, name, stages, volume),
        )
        for name, one in found.items()
        if name not in labelled.unknown
    }
    others = {
        name: dice(*masks)
        for name, masks in regions.items()
        if name not in {*found, *volume.given, *labelled.unknown}
    }
    return HeldOutCase(labelled.case_id, candidates, others)


def _case_candidates(
    case_id: str,
    patient: str,
    candidates: Candidates,
    predicted: Mask,
    truth: Mask,
    *,
    fills_parent: NDArray[np.bool_],
) -> CaseCandidates:
    zones, count = candidates.zone_map(), len(candidates) + 1
    voxels, true_voxels = (
        np.bincount(zones[mask], minlength=count)[1:] for mask in (predicted, predicted & truth)
    )
    is_lesion = are_lesions(candidates, truth)
    all_true = int(truth.sum())
    return CaseCandidates(
        case_id,
        patient,
        candidates.features,
        is_lesion,
        voxels,
        true_voxels,
        all_true,
        fills_parent,
    )


def are_lesions(candidates: Candidates, truth: Mask) -> NDArray[np.bool_]:
    """Return (n,) whether at least a tenth of a candidate's core is true.

    Args:
        candidates: Of a target.
        truth: (D, H, W) its region in the human label map.
    """
    cores, numbers = candidates.core_map(), len(candidates) + 1
    sizes = np.bincount(cores.ravel(), minlength=numbers)[1:]
    true = np.bincount(cores[truth], minlength=numbers)[1:]
    found: NDArray[np.bool_] = true >= MIN_OVERLAP * sizes
    return found


def _log(
    target: Target,
    cases: Sequence[CaseCandidates],
    classifier: LesionClassifier,
    settings: CandidatesConfig,
) -> None:
    lesions = sum(int(case.is_lesion.sum()) for case in cases)
    weights = (f"{n} {w:+.2f}" for n, w in zip(FEATURES, classifier.weights, strict=True))
    logger.info(
        "%s: %d of %d candidates in %d cases are lesions; threshold %.2f; weights %s",
        target.name,
        lesions,
        sum(len(case.is_lesion) for case in cases),
        len(cases),
        classifier.threshold(settings),
        ", ".join(weights),
    )
