"""How far to follow the adaptation network when no labelled case was kept for validation.

Who has outlined two volumes keeps none of them back. So the labelled cases are divided into two
folds, a network is trained on the lessons of each, and judged on those of the other; the blend that
is best there is given to the network that is trained on all of them (two-fold cross-validation:
Stone, Journal of the Royal Statistical Society B 36, 1974).

SAM was tuned on all labelled cases, so what it says about them is better than what it will say
about others. It is therefore given no more than an equal say beside the specialist. (Ours.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslseg.adaptation import AdaptationNetwork, Lesson, Voices
from aslseg.blending import EQUAL_SHARE, SHARES, Parts, best_blend, parts_of
from aslseg.config import AdaptationConfig, SpecialistConfig
from aslseg.crossfit import groups_of

FOLDS = 2
ALLOWED_SHARES = tuple(share for share in SHARES if share <= EQUAL_SHARE)

TrainFold = Callable[[int, list[Lesson]], AdaptationNetwork]
"""Trains the network of a fold, by its number from 1, on lessons."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseLessons:
    """What a labelled case teaches about one target.

    Attributes:
        case_id: The case.
        learn: All its lessons.
        judge: Those that a network is judged by: what a specialist says that never saw the case;
            if there is none, what an unripe one says; if there is none, all lessons.
    """

    case_id: str
    learn: list[Lesson]
    judge: list[Lesson]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Lessons to train on, and lessons of other pictures to judge by."""

    learn: list[Lesson]
    judge: list[Lesson]


def fold_steps(iterations: int) -> int:
    """Return how many steps a fold's network trains: it sees each of half the lessons as often."""
    return max(1, iterations // FOLDS)


def cross_validated_blend(
    cases: Sequence[CaseLessons],
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
    parts: list[Parts] = []
    for number, fold in enumerate(folds_of(cases), start=1):
        network = train(number, fold.learn)
        parts += [parts_of(network, lesson, settings, view_settings) for lesson in fold.judge]
    return best_blend(parts, ALLOWED_SHARES) if parts else (EQUAL_SHARE, 0.0)


def folds_of(cases: Sequence[CaseLessons]) -> list[Fold]:
    """Divide lessons into two folds that have no picture in common.

    Cases are divided into groups. If one group shows nothing of the target, or there is one case
    only, each case is divided into its lower and its upper slices.

    Args:
        cases: Lessons of the labelled cases, about one target.

    Returns:
        Folds that show the target on both sides; none if it is on no two slices.
    """
    return _useful(_groups(cases)) or _useful(_halves(cases))


def _useful(folds: Sequence[Fold]) -> list[Fold]:
    return [fold for fold in folds if _shows_target(fold.learn) and _shows_target(fold.judge)]


def _groups(cases: Sequence[CaseLessons]) -> list[Fold]:
    folds = []
    for group in groups_of([case.case_id for case in cases]):
        learn = [lesson for case in cases if case.case_id not in group for lesson in case.learn]
        judge = [lesson for case in cases if case.case_id in group for lesson in case.judge]
        folds.append(Fold(learn, judge))
    return folds


def _halves(cases: Sequence[CaseLessons]) -> list[Fold]:
    """Divide each case that shows the target at the middle of the slices that do."""
    folds = [Fold([], []), Fold([], [])]
    for case in cases:
        shown = [k for lesson in case.learn for k in _slices(lesson)[lesson.truth.any((1, 2))]]
        if not shown:
            continue
        middle = float(np.median(shown))
        for fold, upper in zip(folds, (True, False), strict=True):
            fold.learn.extend(_part(case.learn, middle, upper=upper))
            fold.judge.extend(_part(case.judge, middle, upper=not upper))
    return folds


def _part(lessons: Sequence[Lesson], middle: float, *, upper: bool) -> list[Lesson]:
    """Return lessons of some slices alone; their views still name the box of the whole crop."""
    found = []
    for lesson in lessons:
        view, voices = lesson.view, lesson.voices
        kept = (_slices(lesson) > middle) == upper
        if not kept.any():
            continue
        fewer = replace(
            view,
            image=view.image[kept],
            organ=None if view.organ is None else view.organ[kept],
            labels=None if view.labels is None else view.labels[kept],
        )
        said = Voices(voices.specialist[kept], voices.sam[kept])
        found.append(Lesson(fewer, said, lesson.number))
    return found


def _slices(lesson: Lesson) -> NDArray[np.int64]:
    """Return which slices of the volume a view has; in depth a lesson is never resampled."""
    return np.arange(len(lesson.view.image)) + lesson.view.box.start[0]


def _shows_target(lessons: Sequence[Lesson]) -> bool:
    return any(lesson.truth.any() for lesson in lessons)
