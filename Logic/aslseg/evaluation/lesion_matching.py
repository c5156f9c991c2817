"""Which lesions a prediction finds, by the rule of `match_lesions`.

1. Candidates are taken from a probability map by descending peak (`lesion_candidates`, after Bosma
   et al. 2023, Radiology: AI 5:e230031); the peak is a candidate's confidence.
2. Candidates and true lesions whose IoU is at least 0.1 can be a pair. As many pairs as possible
   are made, one to one, and of such pairings the one with the largest sum of IoU is taken.
3. A true lesion of the least volume or more without a partner is missed.
4. A candidate without a partner is false, unless more than half of it is true: it is a further
   piece of a lesion. The partner of a smaller true lesion is neither found nor false.

Numbers of the rule are ours where Bosma et al. have none. The benchmark and the studies of a
person's minutes go by it. `aslseg evaluate` and the `metrics.csv` of a run have another one, that
of `metrics.detect_lesions`: what is found by the one cannot be compared with what is by the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from aslseg.data.masks import box_of, crop, label_components
from aslseg.data.volume import Float32, Mask

LEAST_PEAK = 0.1
"""Of a candidate."""
SHARE_OF_PEAK = 0.4
"""A candidate reaches down to this part of its peak."""
LEAST_CANDIDATE_ML = 0.03
LEAST_LESION_ML = 0.5
LEAST_IOU = 0.1
MOST_CANDIDATES = 100
"""Of a volume: those of the highest peaks."""


@dataclass(frozen=True, slots=True)
class LesionMatches:
    """How the candidates of a volume match its true lesions.

    Attributes:
        true_ml: Volume of each true lesion that counts.
        found_with: Confidence of the candidate that found it; 0 where none did.
        false_with: Confidence of each false candidate.
    """

    true_ml: tuple[float, ...] = ()
    found_with: tuple[float, ...] = ()
    false_with: tuple[float, ...] = ()

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Return found, missed and false ones with candidates from a confidence upward."""
        found = sum(confidence >= threshold for confidence in self.found_with)
        false = sum(confidence >= threshold for confidence in self.false_with)
        return found, len(self.true_ml) - found, false


def lesion_candidates(
    probability: Float32, voxel_ml: float
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Take candidates out of a probability map, by descending peak.

    A candidate is the voxel of the highest probability left, and what is connected with it (by a
    corner) from `SHARE_OF_PEAK` of that upward. What touches an earlier candidate is its slope and
    none of its own; what is smaller than `LEAST_CANDIDATE_ML` is left out.

    Args:
        probability: (D, H, W) in [0, 1].
        voxel_ml: Volume of a voxel.

    Returns:
        (D, H, W) numbers of candidates from 1, 0 outside; and the peak of each.
    """
    numbered = np.zeros(probability.shape, np.int32)
    box = box_of(probability >= LEAST_PEAK)
    peaks: list[float] = []
    if box is None:
        return numbered, np.array(peaks)
    left, inner = crop(probability, box).astype(np.float32), crop(numbered, box)
    while len(peaks) < MOST_CANDIDATES and (peak := float(left.max())) >= LEAST_PEAK:
        parts, _ = label_components(left >= SHARE_OF_PEAK * peak)
        part = parts == parts[np.unravel_index(int(left.argmax()), left.shape)]
        left[part] = 0.0
        touches = ndimage.binary_dilation(part, np.ones((3, 3, 3), bool)) & (inner != 0)
        if part.sum() * voxel_ml >= LEAST_CANDIDATE_ML and not touches.any():
            peaks.append(peak)
            inner[part] = len(peaks)
    return numbered, np.array(peaks)


def match_lesions(probability: Float32, truth: Mask, voxel_ml: float) -> LesionMatches:
    """Match the candidates of a probability map with true lesions, by the rule of this file.

    Args:
        probability: (D, H, W) in [0, 1]; a label map is one of 0 and 1.
        truth: (D, H, W) all lesions; connected parts, by corners too, are one lesion each.
        voxel_ml: Volume of a voxel.
    """
    numbered, peaks = lesion_candidates(probability, voxel_ml)
    lesions, count = label_components(truth)
    sizes = np.bincount(numbered.ravel(), minlength=len(peaks) + 1)[1:]
    common = np.zeros((len(peaks) + 1, count + 1))
    np.add.at(common, (numbered.ravel(), lesions.ravel()), 1)
    common = common[1:, 1:]
    true_sizes = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    volumes = true_sizes * voxel_ml
    partner = _partners(common, sizes, true_sizes)
    found_with = {lesion: float(peaks[n]) for n, lesion in partner.items()}
    false = [n for n in range(len(peaks)) if n not in partner and common[n].sum() <= 0.5 * sizes[n]]
    counted = [n for n in range(count) if volumes[n] >= LEAST_LESION_ML]
    return LesionMatches(
        tuple(float(volumes[n]) for n in counted),
        tuple(found_with.get(n, 0.0) for n in counted),
        tuple(float(peaks[n]) for n in false),
    )


def _partners(
    common: NDArray[np.float64], sizes: NDArray[np.int64], true_sizes: NDArray[np.int64]
) -> dict[int, int]:
    """Return the lesion of each candidate that has one; all counted from 0."""
    if common.size == 0:
        return {}
    iou = common / (sizes[:, None] + true_sizes[None] - common)
    possible = iou >= LEAST_IOU
    # A pair counts more than any sum of overlaps.
    gain = np.where(possible, iou + min(iou.shape) + 1, 0.0)
    pairs = zip(*linear_sum_assignment(gain, maximize=True), strict=True)
    return {int(n): int(lesion) for n, lesion in pairs if possible[n, lesion]}


def f1_of(counts: tuple[float, float, float]) -> float:
    """Return F1 of (found, missed, false) lesions; NaN when there is none of them."""
    found, missed, false = counts
    total = 2 * found + missed + false
    return 2 * found / total if total else float("nan")


def best_threshold(matches: Sequence[LesionMatches]) -> float:
    """Return the confidence from which candidates give the best pooled F1; of equals, the highest.

    Args:
        matches: Of several volumes.
    """
    confidences = sorted({c for m in matches for c in (*m.found_with, *m.false_with) if c > 0})
    best, threshold = -1.0, 1.0
    for confidence in confidences:
        found, missed, false = np.sum([m.counts(confidence) for m in matches], axis=0)
        score = f1_of((found, missed, false))
        if score >= best:
            best, threshold = score, confidence
    return threshold


def sensitivity_at(matches: Sequence[LesionMatches], false_per_case: float) -> float:
    """Return the free-response sensitivity: the part of all lesions found.

    Args:
        matches: Of several volumes.
        false_per_case: Candidates count from the lowest confidence upward at which there are no
            more false ones a volume than this, on average.

    Returns:
        In [0, 1]; NaN when there is no lesion.
    """
    lesions = sum(len(m.true_ml) for m in matches)
    if lesions == 0:
        return float("nan")
    false = np.sort([c for m in matches for c in m.false_with])[::-1]
    allowed = int(false_per_case * len(matches))
    # As soon as the next false candidate would be counted, no further one may be.
    limit = false[allowed] if allowed < len(false) else 0.0
    return sum(c > limit for m in matches for c in m.found_with) / lesions
