"""Selection of reliable refined labels: a score per case, and the decisions of a round.

Two measures are averaged (the average is ours). A case on which the training's
earlier checkpoints already agreed with the last one is easy (the rule of ST++, Yang et al., CVPR
2022, with Dice for mIoU); a case on which specialist and refined label agree was not in dispute.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from aslseg.config import ReliabilityConfig
from aslseg.data.volume import Labelmap, Mask
from aslseg.evaluation.metrics import dice
from aslseg.inference.ensemble import Segmentation
from aslseg.targets import Target, region_mask

REJECTED = "rejected by a person"


@dataclass(frozen=True, slots=True)
class Reliability:
    """How reliable a case's refined label is.

    Attributes:
        case_id: The case.
        checkpoint_agreement: Mean Dice of earlier checkpoints with the last, over targets.
        prediction_agreement: Mean Dice of specialist and refined label, over targets; None for a
            method with one prediction.
        empty_in_one: Names of targets that one of the two predictions leaves empty, not the other.
        is_empty: Whether the refined label is empty: two empty predictions agree, but are
            no label to train on.
    """

    case_id: str
    checkpoint_agreement: float
    prediction_agreement: float | None
    empty_in_one: tuple[str, ...] = ()
    is_empty: bool = False

    @property
    def score(self) -> float:
        """Mean of both agreements, in [0, 1]; with one prediction, the checkpoints' alone."""
        both = (self.checkpoint_agreement, self.prediction_agreement)
        known = [value for value in both if value is not None]
        return sum(known) / len(known)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a case is accepted, and the reason for a person to read."""

    reliability: Reliability
    accepted: bool
    reason: str


def agreement(first: Mapping[str, Mask], second: Mapping[str, Mask]) -> float:
    """Return the mean Dice of two sets of regions over their targets."""
    return sum(dice(first[name], second[name]) for name in first) / len(first)


def checkpoint_agreement(earlier: Sequence[Mapping[str, Mask]], last: Mapping[str, Mask]) -> float:
    """Return the mean agreement of earlier checkpoints with the last; 1 without earlier ones."""
    if not earlier:
        return 1.0
    return sum(agreement(target_regions, last) for target_regions in earlier) / len(earlier)


def targets_empty_in_one(first: Mapping[str, Mask], second: Mapping[str, Mask]) -> tuple[str, ...]:
    """Return the targets that exactly one of two predictions leaves empty."""
    return tuple(name for name in first if bool(first[name].any()) != bool(second[name].any()))


def select(
    cases: Sequence[Reliability],
    settings: ReliabilityConfig,
    round_number: int,
    rejected: Collection[str] = (),
) -> list[Decision]:
    """Accept the most reliable cases of a round; the accepted share grows over the rounds.

    Never accepted: a case below the least score, a case with a target that one prediction alone
    leaves empty, a case in which nothing at all is found, and a case that a person rejected.

    Args:
        cases: All unlabelled cases.
        settings: Shares and least score.
        round_number: From 1.
        rejected: Ids of cases that a person rejected.

    Returns:
        One decision per case, most reliable first.
    """
    share = min(1.0, settings.first_share + settings.growth * (round_number - 1))
    quota = math.floor(share * len(cases) + 1e-9)
    decisions: list[Decision] = []
    for case in sorted(cases, key=lambda c: (-c.score, c.case_id)):
        reason = REJECTED if case.case_id in rejected else _objection(case, settings)
        if not reason and quota == 0:
            reason = f"beyond the {share:.0%} that round {round_number} accepts"
        accepted = not reason
        quota -= accepted
        decisions.append(Decision(case, accepted, reason or "reliable"))
    return decisions


def _objection(case: Reliability, settings: ReliabilityConfig) -> str:
    if case.empty_in_one:
        return f"one prediction has {', '.join(case.empty_in_one)} and the other has none"
    if case.is_empty:
        return "no target is found"
    if case.score < settings.min_score:
        return f"score {case.score:.2f} is below {settings.min_score:.2f}"
    return ""


def target_regions(labels: Labelmap, targets: Sequence[Target]) -> dict[str, Mask]:
    """Return each target's region in a label map."""
    return {t.name: region_mask(labels.labels, t, targets) for t in targets}


def reliability_of(
    case_id: str,
    segmentation: Segmentation,
    earlier: Sequence[Labelmap],
    targets: Sequence[Target],
) -> Reliability:
    """Measure how reliable a case's refined label is.

    Args:
        case_id: The case.
        segmentation: The predictions of this round.
        earlier: The specialist's label maps with earlier weights.
        targets: All targets.
    """
    last = target_regions(segmentation.specialist, targets)
    refined = target_regions(segmentation.refined, targets)
    return Reliability(
        case_id,
        checkpoint_agreement([target_regions(labels, targets) for labels in earlier], last),
        None if segmentation.specialist_alone else agreement(last, refined),
        targets_empty_in_one(last, refined),
        is_empty=not any(mask.any() for mask in refined.values()),
    )
