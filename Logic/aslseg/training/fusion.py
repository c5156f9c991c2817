"""Choice of the fusion weights of a target: of SAM beside the specialist, and of the correction.

A network trained on two labelled volumes may overfit and correct what was right. So the weights are
those with the best Dice on the validation cases, with the specialist alone among the choices; where
no validation case is labelled they are chosen by cross-validation. (Ours.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aslseg.config import AdaptationConfig, SpecialistConfig
from aslseg.data.volume import Float32, Mask
from aslseg.evaluation.metrics import dice
from aslseg.inference.refinement import roi_terms
from aslseg.networks.adaptation import AdaptationNetwork, FusionWeights, ProbabilityPair, fuse
from aslseg.training.adaptation_samples import Sample, TrainingSample
from aslseg.training.cross_fitting import FOLDS, folds_of

SAM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


EQUAL_WEIGHT = 0.5


SAM_WEIGHTS_OF_TUNED = tuple(weight for weight in SAM_WEIGHTS if weight <= EQUAL_WEIGHT)
"""Where SAM was tuned on the cases that choose, and may be too good on them."""


CORRECTION_WEIGHTS = (0.0, 0.25, 0.5, 1.0)


PATIENTS_OF_MOST_SAM = 4
"""As much SAM as may be, and no correction, count as the choice of so many cross-validated
patients. With two, each was segmented by networks and a SAM that saw the other one alone: they want
less of SAM and a larger correction than the deployed ones (draw A of LiTS)."""


BETTER_BY = 0.002
"""Dice that weights of a correction, or of more SAM, must gain."""


@dataclass(frozen=True, slots=True, eq=False)
class FusionTerms:
    """What is fused for one case, (d, h, w) log-odds, and the true mask."""

    specialist: Float32
    sam: Float32
    correction: Float32
    truth: Mask

    def fused(self, weights: FusionWeights) -> Mask:
        """Return the (d, h, w) mask that the weights give."""
        odds = fuse(self.specialist, self.sam, weights, self.correction)
        mask: Mask = odds > 0
        return mask


def validated_weights(
    network: AdaptationNetwork,
    samples: Sequence[Sample],
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> FusionWeights:
    """Return the weights that are best on validation cases.

    Args:
        network: Of the target.
        samples: Of the validation cases, at least one.
        settings: Of the network.
        roi_settings: Of the stage.
    """
    return best_weights(terms_of(network, sample, settings, roi_settings) for sample in samples)


def best_weights(terms: Iterable[FusionTerms]) -> FusionWeights:
    """Return the weights with the best mean Dice; the simpler ones where it is close.

    Args:
        terms: Of each case; those of one are in memory at a time.
    """
    return _best(_scores(terms, SAM_WEIGHTS))


def _scores(
    terms: Iterable[FusionTerms], sam_weights: Sequence[float]
) -> dict[FusionWeights, list[float]]:
    """Return the Dice of each case by all weights, from the simplest on."""
    choices = product(CORRECTION_WEIGHTS, sam_weights)
    scores: dict[FusionWeights, list[float]] = {FusionWeights(s, c): [] for c, s in choices}
    for case in terms:
        for weights, found in scores.items():
            found.append(dice(case.fused(weights), case.truth))
    return scores


def _best(scores: Mapping[FusionWeights, Sequence[float]]) -> FusionWeights:
    best, chosen = -1.0, FusionWeights(0.0, 0.0)
    for weights, found in scores.items():
        score = float(np.mean(found))
        if score > best + BETTER_BY:
            best, chosen = score, weights
    return chosen


def terms_of(
    network: AdaptationNetwork,
    sample: Sample,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
) -> FusionTerms:
    """Return the log-odds of a sample that are fused, with the network's correction."""
    sample = sample.opened()
    specialist, sam, correction = roi_terms(
        network, sample.roi, sample.predictions, settings, roi_settings
    )
    known = sample.complete
    return FusionTerms(specialist[known], sam[known], correction[known], sample.truth[known])


TrainFold = Callable[[int, list[Sample]], AdaptationNetwork]
"""Trains the network of a fold (numbered from 1) on its training samples."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseSamples:
    """The samples of a labelled case for one target.

    Attributes:
        patient: Whose case it is.
        train: All of them.
        validation: Those to choose weights on: of the out-of-fold model's prediction, else of the
            first snapshot's, else all.
    """

    patient: str
    train: list[Sample]
    validation: list[Sample]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Samples to train on, and samples of other images to choose the weights on."""

    train: list[Sample]
    validation: list[Sample]


def fold_steps(iterations: int) -> int:
    """Return the steps of a fold's network, which sees each sample as often as the final one."""
    return max(1, iterations // FOLDS)


def cross_validated_weights(
    cases: Sequence[CaseSamples],
    train: TrainFold,
    settings: AdaptationConfig,
    roi_settings: SpecialistConfig,
    sam_weights: Sequence[float] = SAM_WEIGHTS,
) -> FusionWeights:
    """Return the weights that are best on the folds that the networks were not trained on.

    Each weight is its mean over the patients and `PATIENTS_OF_MOST_SAM` more, who choose the last
    weight of SAM and no correction (ours).

    Args:
        cases: Of the labelled cases, for one target.
        train: Trains a network for `fold_steps`, else like the final one.
        settings: Of the network.
        roi_settings: Of the stage.
        sam_weights: Choices for the weight of SAM, from the simplest on.

    Returns:
        The weights; equal ones and no correction where no fold shows the target on both sides.
    """

    def terms() -> Iterator[FusionTerms]:
        for number, fold in enumerate(case_folds(cases), start=1):
            network = train(number, fold.train)
            for sample in fold.validation:
                yield terms_of(network, sample, settings, roi_settings)

    scores = _scores(terms(), sam_weights)
    if not all(scores.values()):
        return FusionWeights(EQUAL_WEIGHT, 0.0)
    best = _best(scores)
    patients = len({case.patient for case in cases})
    share = patients / (patients + PATIENTS_OF_MOST_SAM)
    return FusionWeights(share * best.sam + (1 - share) * sam_weights[-1], share * best.correction)


def case_folds(cases: Sequence[CaseSamples]) -> list[Fold]:
    """Divide samples into two folds that have no image in common.

    Patients are divided. If one fold shows nothing of the target, or there is one patient
    only, each case is divided into its lower and its upper slices.

    Args:
        cases: Of the labelled cases, for one target.

    Returns:
        Folds that show the target on both sides; none if it is on no two slices.
    """
    return _useful(_folds(cases)) or _useful(_halves(cases))


def _useful(folds: Sequence[Fold]) -> list[Fold]:
    return [fold for fold in folds if _shows_target(fold.train) and _shows_target(fold.validation)]


def _folds(cases: Sequence[CaseSamples]) -> list[Fold]:
    folds = []
    for fold in folds_of([case.patient for case in cases]):
        inside = [case for case in cases if case.patient in fold]
        outside = [case for case in cases if case.patient not in fold]
        folds.append(
            Fold(
                [sample for case in outside for sample in case.train],
                [sample for case in inside for sample in case.validation],
            )
        )
    return folds


def _halves(cases: Sequence[CaseSamples]) -> list[Fold]:
    """Divide each case that shows the target at the middle of the slices that do."""
    folds = [Fold([], []), Fold([], [])]
    for case in cases:
        opened = [sample.opened() for sample in case.train]
        shown = [k for sample in opened for k in _slices(sample)[sample.truth.any((1, 2))]]
        if not shown:
            continue
        middle = float(np.median(shown))
        for fold, upper in zip(folds, (True, False), strict=True):
            fold.train.extend(_half(case.train, middle, upper=upper))
            fold.validation.extend(_half(case.validation, middle, upper=not upper))
    return folds


def _half(samples: Sequence[Sample], middle: float, *, upper: bool) -> list[Sample]:
    """Return the samples cut to some slices; the box of their ROI stays that of the whole crop."""
    found: list[Sample] = []
    for sample in (one.opened() for one in samples):
        roi, predictions = sample.roi, sample.predictions
        kept = (_slices(sample) > middle) == upper
        if not kept.any():
            continue
        fewer = replace(
            roi,
            image=roi.image[kept],
            parent=None if roi.parent is None else roi.parent[kept],
            labels=None if roi.labels is None else roi.labels[kept],
        )
        probabilities = ProbabilityPair(predictions.specialist[kept], predictions.sam[kept])
        found.append(TrainingSample(fewer, probabilities, sample.number))
    return found


def _slices(sample: TrainingSample) -> NDArray[np.int64]:
    """Return the slices of the volume in a sample, which is not resampled in depth."""
    return np.arange(len(sample.roi.image)) + sample.roi.box.start[0]


def _shows_target(samples: Sequence[Sample]) -> bool:
    return any(sample.opened().truth.any() for sample in samples)
