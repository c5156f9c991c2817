"""How far the adaptation network is followed: two weights per target, chosen by what they give.

A network trained on two labelled volumes may know their pictures by heart and correct what was
right. So its correction has to earn its place: its strength, and SAM's share beside the specialist,
are the ones with the best Dice on the validation cases, and the plain specialist is among the
choices. Without validation cases `aslseg.cross_validation` chooses them. (Ours.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from aslseg.adaptation import AdaptationNetwork, Lesson
from aslseg.adaptation_views import view_parts
from aslseg.config import AdaptationConfig, SpecialistConfig
from aslseg.metrics import dice
from aslseg.views import Float32
from aslseg.volume import Mask

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
EQUAL_SHARE = 0.5
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
BETTER_BY = 0.002
"""A less simple blend must gain this much Dice."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a blend is made of, for one case: log-odds (d, h, w), and the truth."""

    specialist: Float32
    sam: Float32
    correction: Float32
    truth: Mask

    def blended(self, share: float, strength: float) -> Mask:
        """Return the mask that a blend gives."""
        odds = (1 - share) * self.specialist + share * self.sam + strength * self.correction
        mask: Mask = odds > 0
        return mask


def validated_blend(
    network: AdaptationNetwork,
    lessons: Sequence[Lesson],
    settings: AdaptationConfig,
    view_settings: SpecialistConfig,
) -> tuple[float, float]:
    """Return the blend that is best on validation cases.

    Args:
        network: Of the target.
        lessons: Real voices on the validation cases, with their truth; at least one.
        settings: Of the network.
        view_settings: Of the views.

    Returns:
        SAM's share and the strength of the correction.
    """
    return best_blend([parts_of(network, lesson, settings, view_settings) for lesson in lessons])


def best_blend(parts: Sequence[Parts], shares: Sequence[float] = SHARES) -> tuple[float, float]:
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


def parts_of(
    network: AdaptationNetwork,
    lesson: Lesson,
    settings: AdaptationConfig,
    view_settings: SpecialistConfig,
) -> Parts:
    """Let a network look at a lesson, and return what a blend of its answer is made of."""
    specialist, sam, correction = view_parts(
        network, lesson.view, lesson.voices, settings, view_settings
    )
    return Parts(specialist, sam, correction, lesson.truth)
