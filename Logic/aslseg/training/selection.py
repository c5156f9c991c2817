"""Selection of reliable refined labels: a score per case and target, and the decisions of a round.

Two measures are averaged (the average is ours). A target on which the training's earlier
checkpoints already agreed with the last one is easy (the rule of ST++, Yang et al., CVPR 2022, with
Dice for mIoU); one on which specialist and refined label agree was not in dispute. Targets are
decided about one by one (ours), and two predictions that find nothing are no agreement (ours): what
was missed would be learnt as missing. Lesions are compared in the surroundings of those that the
lesion stage accepted, for the others are no part of the label.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aslseg.config import ReliabilityConfig
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Labelmap, Mask
from aslseg.evaluation.metrics import dice
from aslseg.inference.ensemble import Segmentation
from aslseg.inference.lesion_stage import ClassifiedCandidates
from aslseg.targets import Target, parents_first, region_mask

REJECTED = "rejected by a person"
RELIABLE = "networks agree"


@dataclass(frozen=True, slots=True)
class TargetReliability:
    """How reliable the refined label of one target is.

    Attributes:
        checkpoint_agreement: Mean Dice of earlier checkpoints with the last; None where no two of
            them find anything, or there are none.
        prediction_agreement: Dice of specialist and refined label; None where both are empty, and
            for a method with one prediction.
        empty_in_one: Whether exactly one of the two predictions is empty.
        is_empty: Whether the refined label is empty.
        is_given: Whether a mask came with the volume, so that nothing was predicted.
    """

    checkpoint_agreement: float | None
    prediction_agreement: float | None
    empty_in_one: bool = False
    is_empty: bool = False
    is_given: bool = False

    @property
    def score(self) -> float | None:
        """Mean of the agreements that are known, in [0, 1]; None if none is."""
        return _mean((self.checkpoint_agreement, self.prediction_agreement))


@dataclass(frozen=True, slots=True)
class Reliability:
    """How reliable a case's refined label is.

    Attributes:
        case_id: The case.
        targets: By name of the target.
        notes: Why else its label may be wrong, in words.
    """

    case_id: str
    targets: dict[str, TargetReliability]
    notes: tuple[str, ...] = ()

    @property
    def checkpoint_agreement(self) -> float | None:
        """Mean over the targets of which it is known."""
        return _mean([one.checkpoint_agreement for one in self.targets.values()])

    @property
    def prediction_agreement(self) -> float | None:
        """Mean over the targets of which it is known."""
        return _mean([one.prediction_agreement for one in self.targets.values()])

    @property
    def score(self) -> float:
        """Mean over the targets of which it is known; 0 if it is of none."""
        return _mean([one.score for one in self.targets.values()]) or 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """Which targets of a case are accepted, and the reasons for a person to read.

    Attributes:
        reliability: Of the case.
        reasons: By name of the target; `RELIABLE` for those that are accepted.
    """

    reliability: Reliability
    reasons: Mapping[str, str]

    @property
    def accepted(self) -> tuple[str, ...]:
        """Names of the accepted targets."""
        return tuple(name for name, reason in self.reasons.items() if reason == RELIABLE)

    @property
    def reason(self) -> str:
        """All reasons and notes in one line; a reason that is that of all targets is said once."""
        distinct = set(self.reasons.values())
        said = [f"{name}: {reason}" for name, reason in self.reasons.items()]
        return "; ".join([*(distinct if len(distinct) == 1 else said), *self.reliability.notes])


def agreement(first: Mask, second: Mask) -> float | None:
    """Return the Dice of two masks of one shape; None where both are empty."""
    return dice(first, second) if first.any() or second.any() else None


def accepted_share(settings: ReliabilityConfig, round_number: int) -> float:
    """Return the part of the unlabelled cases that a round may accept; rounds count from 1."""
    return min(1.0, settings.first_share + settings.growth * (round_number - 1))


def select(
    cases: Sequence[Reliability],
    settings: ReliabilityConfig,
    round_number: int,
    targets: Sequence[Target],
    rejected: Collection[str] = (),
) -> list[Decision]:
    """Accept the most reliable cases of a round, target by target.

    The accepted share grows over the rounds. Never accepted: a score below the least one, a target
    that one prediction alone leaves empty or that is not found at all, one whose parent is not
    accepted, and a case that a person rejected. Given masks are accepted beyond the share.

    Args:
        cases: All unlabelled cases.
        settings: Shares and least score.
        round_number: From 1.
        targets: All targets.
        rejected: Ids of cases that a person rejected.

    Returns:
        One decision per case, most reliable first.
    """
    places = math.floor(accepted_share(settings, round_number) * len(cases) + 1e-9)
    reasons: dict[str, dict[str, str]] = {case.case_id: {} for case in cases}
    for target in parents_first(targets):
        quota = places
        for case in sorted(cases, key=lambda c: (-(_score(c, target) or 0.0), c.case_id)):
            others, is_given = reasons[case.case_id], case.targets[target.name].is_given
            reason = REJECTED if case.case_id in rejected else _objection(case, target, settings)
            if not reason and target.inside is not None and others[target.inside] != RELIABLE:
                reason = f"its {target.inside} is not used"
            if not reason and quota == 0 and not is_given:
                reason = "not needed this round"
            others[target.name] = reason or RELIABLE
            quota -= not reason and not is_given
    order = sorted(cases, key=lambda c: (-c.score, c.case_id))
    return [Decision(case, reasons[case.case_id]) for case in order]


def _score(case: Reliability, target: Target) -> float | None:
    return case.targets[target.name].score


def _objection(case: Reliability, target: Target, settings: ReliabilityConfig) -> str:
    found = case.targets[target.name]
    if found.is_given:
        return ""
    if found.empty_in_one:
        return "one network finds it, the other does not"
    if found.is_empty:
        return "no network finds it"
    score = found.score or 0.0
    if score < settings.min_score:
        return f"networks disagree (reliability {score:.2f}, below {settings.min_score:.2f})"
    return ""


def reliability_of(
    case_id: str,
    segmentation: Segmentation,
    earlier: Sequence[Labelmap],
    targets: Sequence[Target],
    given: Collection[str] = (),
) -> Reliability:
    """Measure how reliable a case's refined label is.

    Args:
        case_id: The case.
        segmentation: The predictions of this round.
        earlier: The specialist's label maps with earlier weights.
        targets: All targets.
        given: Names of targets whose masks came with the volume; no agreement says anything there.
    """
    return Reliability(
        case_id,
        {
            target.name: TargetReliability(None, None, is_given=True)
            if target.name in given
            else _of_target(segmentation, earlier, target, targets)
            for target in targets
        },
    )


def _of_target(
    segmentation: Segmentation,
    earlier: Sequence[Labelmap],
    target: Target,
    targets: Sequence[Target],
) -> TargetReliability:
    refined = region_mask(segmentation.refined.labels, target, targets)
    last = region_mask(segmentation.specialist.labels, target, targets)
    before = [region_mask(labels.labels, target, targets) for labels in earlier]
    classified = segmentation.candidates.get(target.name)
    if classified is not None:
        near = zones_in_file(classified, classified.accepted, segmentation.specialist)
        last, before = last & near, [mask & near for mask in before]
    alone = segmentation.specialist_alone
    return TargetReliability(
        _mean([agreement(mask, last) for mask in before]),
        None if alone else agreement(last, refined),
        empty_in_one=not alone and bool(last.any()) != bool(refined.any()),
        is_empty=not refined.any(),
    )


def doubtful_labels(
    segmentation: Segmentation,
    earlier: Sequence[Labelmap],
    targets: Sequence[Target],
    reach: float,
) -> Labelmap:
    """Return where the refined label is no label to train on.

    Doubtful are: for all targets, what specialist and refined label do not agree about (for a
    method with one prediction, what the specialist and its latest earlier checkpoint do not agree
    about); for lesions, that in the surroundings of accepted candidates only, and the surroundings
    of candidates near the threshold. What is clearly rejected is a label: there is no lesion.

    Args:
        segmentation: The predictions.
        earlier: The specialist's label maps with earlier weights.
        targets: All targets.
        reach: Candidates nearer to the threshold than so many log-odds are doubtful.

    Returns:
        On the grid of the predictions, the value of the outermost target that a voxel's membership
        is in doubt of, and hence of all that lie inside of it; 0 elsewhere.
    """
    specialist, refined = segmentation.specialist, segmentation.refined
    other = refined if not segmentation.specialist_alone else (earlier or [specialist])[-1]
    doubtful = np.zeros_like(refined.labels)
    for target in reversed(parents_first(targets)):
        masks = [region_mask(one.labels, target, targets) for one in (specialist, other)]
        doubt = masks[0] != masks[1]
        classified = segmentation.candidates.get(target.name)
        if classified is not None:
            doubt &= zones_in_file(classified, classified.accepted, specialist)
            doubt |= zones_in_file(classified, classified.doubtful(reach), specialist)
        doubtful[doubt] = target.value
    return Labelmap(doubtful, refined.geometry)


def zones_in_file(
    classified: ClassifiedCandidates, which: NDArray[np.bool_], like: Labelmap
) -> Mask:
    """Return the zones of some candidates on the voxels of a label map as it is stored.

    Args:
        classified: On the axial grid.
        which: (candidates,) which ones.
        like: The label map, as its file has it.

    Returns:
        (D, H, W) of `like`.
    """
    back = to_axial(like.geometry).inverse
    return np.ascontiguousarray(back.array(classified.zones_of(which)))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
