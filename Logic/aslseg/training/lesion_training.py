"""Training of the lesion stage: on candidates of models that did not see their case.

All of it is ours. Each labelled case is predicted by the specialist (and by the SAM) that was
trained without it. Its candidates, true ones and mistakes, are what the classifier is trained on.
There may be few: so the weights have a normal prior around the fixed rule, and the threshold comes
from scores of classifiers that were fitted without the case.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from aslseg.config import CandidatesConfig
from aslseg.context import LabelledVolume, RunContext, labelled_volumes
from aslseg.data.volume import Mask
from aslseg.inference.candidates import FEATURES, Candidates, lesion_targets
from aslseg.inference.cascade import Probabilities, Specialist, all_targets
from aslseg.inference.lesion_classifier import (
    Float64,
    HeldOutScores,
    LesionClassifier,
    classifier_path,
    fixed_rule,
    rule_log_odds,
    save_classifier,
    standardised,
)
from aslseg.inference.lesion_stage import LesionStage, candidates_of
from aslseg.inference.loading import load_lesion_stage
from aslseg.sam.predictor import VolumeSamPredictor
from aslseg.targets import Target, region_mask
from aslseg.training.adaptation_samples import sam_probabilities_of
from aslseg.training.cross_fitting import OutOfFoldModel, OutOfFoldModels
from aslseg.training.sam_tuning import cross_fitted_sam

logger = logging.getLogger(__name__)

MIN_OVERLAP = 0.1
"""Least part of a core that is true for its candidate to be a lesion, as in `detect_lesions`."""
BIAS_SD = 1.0
"""Of the prior of the bias, in log-odds."""
_SD_PER_MAD = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class CaseCandidates:
    """The candidates of a target in a labelled case, and which of them are lesions.

    Attributes:
        case_id: The case.
        features: (n, F).
        is_lesion: (n,).
    """

    case_id: str
    features: Float64
    is_lesion: NDArray[np.bool_]


def train_lesion_stage(
    context: RunContext,
    folder: Path,
    earlier: Sequence[Specialist],
    out_of_fold_models: OutOfFoldModels,
    *,
    with_sam: bool = False,
) -> LesionStage | None:
    """Fit the classifiers that the folder does not hold yet, and load all of them.

    Where no labelled case has an out-of-fold model, the fixed rule stands in for a classifier.

    Args:
        context: Cases and settings.
        folder: Of the classifiers.
        earlier: The deployed specialist at the snapshots of its schedule.
        out_of_fold_models: By case id.
        with_sam: Whether SAM proposes candidates too, and is a feature of them.

    Returns:
        The stage; None if the settings want none, or no target is a lesion.
    """
    wanted = lesion_targets(context.targets)
    paths = {target.name: classifier_path(folder, target) for target in wanted}
    missing = not all(path.exists() for path in paths.values())
    if context.config.lesion_decision == "classifier" and missing:
        training = _training_candidates(context, wanted, out_of_fold_models, with_sam=with_sam)
        for target in wanted:
            classifier = fit_classifier(training[target.name], context.config.candidates)
            _log(target, training[target.name], classifier, context.config.candidates)
            save_classifier(paths[target.name], classifier, context.config.candidates)
    return load_lesion_stage(context, folder, earlier, with_sam=with_sam)


def fit_classifier(cases: Sequence[CaseCandidates], settings: CandidatesConfig) -> LesionClassifier:
    """Fit a classifier, with scores of each case by one that was fitted on the others.

    Args:
        cases: Of one target.
        settings: The rule, and how far the weights may move from it.

    Returns:
        The classifier; the fixed rule where there are fewer than two cases.
    """
    if len(cases) < 2:
        return fixed_rule()
    scores = []
    for n, case in enumerate(cases):
        without = _fitted([*cases[:n], *cases[n + 1 :]], settings)
        scores.append(without.of_features(case.features, settings))
    is_lesion = np.concatenate([case.is_lesion for case in cases])
    held_out = HeldOutScores(np.concatenate(scores), is_lesion, len(cases))
    final = _fitted(cases, settings)
    return LesionClassifier(final.weights, final.bias, final.centre, final.scale, held_out)


def _fitted(cases: Sequence[CaseCandidates], settings: CandidatesConfig) -> LesionClassifier:
    """Return the maximum a posteriori of logistic regression around the rule."""
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
    return LesionClassifier(found.x[:-1], float(found.x[-1]), centre, scale)


def _middle_and_spread(features: Float64) -> tuple[Float64, Float64]:
    """Return median and robust standard deviation of each feature; 0 and 1 where unknown."""
    centre, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
    for n, values in enumerate(features.T):
        known = values[np.isfinite(values)]
        if len(known):
            centre[n] = np.median(known)
            spread = _SD_PER_MAD * float(np.median(np.abs(known - centre[n])))
            scale[n] = spread or float(known.std()) or 1.0
    return centre, scale


def _training_candidates(
    context: RunContext,
    wanted: Sequence[Target],
    out_of_fold_models: OutOfFoldModels,
    *,
    with_sam: bool,
) -> dict[str, list[CaseCandidates]]:
    training: dict[str, list[CaseCandidates]] = {target.name: [] for target in wanted}
    for model in {id(m): m for m in out_of_fold_models.values()}.values():
        sam = cross_fitted_sam(context, model, out_of_fold_models) if with_sam else None
        cases = [case for case in context.labelled if case.id in model.fold]
        for labelled in labelled_volumes(context, cases, "Finding candidates"):
            found = _held_out_candidates(context, labelled, model, sam)
            for target in wanted:
                truth = region_mask(labelled.labels.labels, target, context.targets)
                one = found[target.name]
                training[target.name].append(
                    CaseCandidates(labelled.case_id, one.features, are_lesions(one, truth))
                )
    return training


def _held_out_candidates(
    context: RunContext,
    labelled: LabelledVolume,
    model: OutOfFoldModel,
    sam_predictor: VolumeSamPredictor | None,
) -> dict[str, Candidates]:
    stages = model.specialist.predict_stages(labelled.volume, context.monitor)
    sam: Probabilities | None = None
    if sam_predictor is not None:
        sam = sam_probabilities_of(
            sam_predictor, labelled.volume, all_targets(stages), context.targets, context.monitor
        )
    earlier = model.cascade.earlier
    return candidates_of(labelled.volume, stages, sam, earlier, context.targets, context.config)


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
