"""How far the adaptation network is followed: two weights per target, chosen by what they give.

A network trained on two labelled volumes may know their pictures by heart and correct what was
right. So its correction has to earn its place: its strength, and SAM's share beside the specialist,
are the ones with the best Dice on the validation cases, and the plain specialist is among the
choices. Without validation cases `aslseg.cross_validation` chooses them. (Ours.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from aslseg.config import AdaptationConfig, SpecialistConfig
from aslseg.data.volume import Float32, Mask
from aslseg.evaluation.metrics import dice
from aslseg.inference.refinement import _roi_parts
from aslseg.networks.adaptation import AdaptationNetwork, ProbabilityPair, fuse
from aslseg.training.adaptation_samples import TrainingSample
from aslseg.training.cross_fitting import folds_of

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


EQUAL_SHARE = 0.5


STRENGTHS = (0.0, 0.25, 0.5, 1.0)


BETTER_BY = 0.002
"""A less simple blend must gain this much Dice."""


@dataclass(frozen=True, slots=True, eq=False)
class FusionWeights:
    """What a blend is made of, for one case: log-odds (d, h, w), and the truth."""

    specialist: Float32
    sam: Float32
    correction: Float32
    truth: Mask

    def blended(self, share: float, strength: float) -> Mask:
        """Return the mask that a blend gives."""
        odds = fuse(self.specialist, self.sam, share, self.correction, strength)
        mask: Mask = odds > 0
        return mask


def validated_weights(
    network: AdaptationNetwork,
    samples: Sequence[TrainingSample],
    settings: AdaptationConfig,
    view_settings: SpecialistConfig,
) -> tuple[float, float]:
    """Return the blend that is best on validation cases.

    Args:
        network: Of the target.
        samples: Real voices on the validation cases, with their truth; at least one.
        settings: Of the network.
        view_settings: Of the views.

    Returns:
        SAM's share and the strength of the correction.
    """
    return best_weights([terms_of(network, sample, settings, view_settings) for sample in samples])


def best_weights(
    parts: Sequence[FusionWeights], shares: Sequence[float] = SHARES
) -> tuple[float, float]:
    """Return the share and strength with the best mean Dice; the simpler one where it is close.

    Args:
        parts: One for each case.
        shares: Of SAM, from the simplest on.
    """
    best, chosen = -1.0, (0.0, 0.0)
    for strength, share in product(STRENGTHS, shares):
        score = float(np.mean([dice(p.blended(share, strength), p.truth) for p in parts]))
        if score > best + BETTER_BY:
            best, chosen = score, (share, strength)
    return chosen


def terms_of(
    network: AdaptationNetwork,
    sample: TrainingSample,
    settings: AdaptationConfig,
    view_settings: SpecialistConfig,
) -> FusionWeights:
    """Let a network look at a lesson, and return what a blend of its answer is made of."""
    specialist, sam, correction = _roi_parts(
        network, sample.roi, sample.predictions, settings, view_settings
    )
    return FusionWeights(specialist, sam, correction, sample.truth)


FOLDS = 2


ALLOWED_SHARES = tuple(share for share in SHARES if share <= EQUAL_SHARE)


TrainFold = Callable[[int, list[TrainingSample]], AdaptationNetwork]
"""Trains the network of a fold, by its number from 1, on lessons."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseSamples:
    """What a labelled case teaches about one target.

    Attributes:
        case_id: The case.
        learn: All its lessons.
        judge: Those that a network is judged by: what a specialist says that never saw the case;
            if there is none, what an unripe one says; if there is none, all lessons.
    """

    case_id: str
    learn: list[TrainingSample]
    judge: list[TrainingSample]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Lessons to train on, and lessons of other pictures to judge by."""

    learn: list[TrainingSample]
    judge: list[TrainingSample]


def fold_steps(iterations: int) -> int:
    """Return how many steps a fold's network trains: it sees each of half the lessons as often."""
    return max(1, iterations // FOLDS)


def cross_validated_weights(
    cases: Sequence[CaseSamples],
    train: TrainFold,
    settings: AdaptationConfig,
    view_settings: SpecialistConfig,
) -> tuple[float, float]:
    """Return SAM's share and the strength of the correction that are best on the other fold.

    Args:
        cases: Lessons of the labelled cases, about one target.
        train: Trains a network for `fold_steps`, else like the one that is to be followed.
        settings: Of the network.
        view_settings: Of the views.

    Returns:
        The blend. Where no fold shows the target on both of its sides, nothing speaks for a
        correction: SAM and the specialist then have an equal say, and there is none.
    """
    parts: list[FusionWeights] = []
    for number, fold in enumerate(case_folds(cases), start=1):
        network = train(number, fold.learn)
        parts += [terms_of(network, sample, settings, view_settings) for sample in fold.judge]
    return best_weights(parts, ALLOWED_SHARES) if parts else (EQUAL_SHARE, 0.0)


def case_folds(cases: Sequence[CaseSamples]) -> list[Fold]:
    """Divide lessons into two folds that have no picture in common.

    Cases are divided into groups. If one group shows nothing of the target, or there is one case
    only, each case is divided into its lower and its upper slices.

    Args:
        cases: Lessons of the labelled cases, about one target.

    Returns:
        Folds that show the target on both sides; none if it is on no two slices.
    """
    return _useful(_folds(cases)) or _useful(_halves(cases))


def _useful(folds: Sequence[Fold]) -> list[Fold]:
    return [fold for fold in folds if _shows_target(fold.learn) and _shows_target(fold.judge)]


def _folds(cases: Sequence[CaseSamples]) -> list[Fold]:
    folds = []
    for group in folds_of([case.case_id for case in cases]):
        learn = [sample for case in cases if case.case_id not in group for sample in case.learn]
        judge = [sample for case in cases if case.case_id in group for sample in case.judge]
        folds.append(Fold(learn, judge))
    return folds


def _halves(cases: Sequence[CaseSamples]) -> list[Fold]:
    """Divide each case that shows the target at the middle of the slices that do."""
    folds = [Fold([], []), Fold([], [])]
    for case in cases:
        shown = [k for sample in case.learn for k in _slices(sample)[sample.truth.any((1, 2))]]
        if not shown:
            continue
        middle = float(np.median(shown))
        for fold, upper in zip(folds, (True, False), strict=True):
            fold.learn.extend(_part(case.learn, middle, upper=upper))
            fold.judge.extend(_part(case.judge, middle, upper=not upper))
    return folds


def _part(samples: Sequence[TrainingSample], middle: float, *, upper: bool) -> list[TrainingSample]:
    """Return lessons of some slices alone; their views still name the box of the whole crop."""
    found = []
    for sample in samples:
        roi, predictions = sample.roi, sample.predictions
        kept = (_slices(sample) > middle) == upper
        if not kept.any():
            continue
        fewer = replace(
            roi,
            image=roi.image[kept],
            organ=None if roi.organ is None else roi.organ[kept],
            labels=None if roi.labels is None else roi.labels[kept],
        )
        probabilities = ProbabilityPair(predictions.specialist[kept], predictions.sam[kept])
        found.append(TrainingSample(fewer, probabilities, sample.number))
    return found


def _slices(sample: TrainingSample) -> NDArray[np.int64]:
    """Return which slices of the volume a view has; in depth a lesson is never resampled."""
    return np.arange(len(sample.roi.image)) + sample.roi.box.start[0]


def _shows_target(samples: Sequence[TrainingSample]) -> bool:
    return any(sample.truth.any() for sample in samples)
