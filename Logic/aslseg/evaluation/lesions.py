"""Lesions one by one: volume, diameter, where they lie; and which of them a prediction finds.

Which candidate finds which lesion (`match_lesions`):

1. Candidates are taken from a probability map by descending peak (`lesion_candidates`, after Bosma
   et al. 2023, Radiology: AI 5:e230031); the peak is a candidate's confidence.
2. Candidates and true lesions whose IoU is at least 0.1 can be a pair. As many pairs as possible
   are made, one to one, and of such pairings the one with the largest sum of IoU is taken.
3. A true lesion of the least volume or more without a partner is missed.
4. A candidate without a partner is false, unless more than half of it is true: it is a further
   piece of a lesion. The partner of a smaller true lesion is neither found nor false.

Numbers of the rule are ours where Bosma et al. have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from aslseg.data.geometry import ijk_to_ras
from aslseg.data.masks import box_of, crop, label_components
from aslseg.data.volume import Float32, Geometry, Labelmap, Mask
from aslseg.targets import Target

LEAST_PEAK = 0.1
"""Of a candidate."""
SHARE_OF_PEAK = 0.4
"""A candidate reaches down to this part of its peak."""
LEAST_CANDIDATE_ML = 0.03
LEAST_LESION_ML = 0.5
LEAST_IOU = 0.1
MOST_CANDIDATES = 100
"""Of a volume: those of the highest peaks."""

_MANY_POINTS = 2000  # beyond, distances are measured among the corners of the convex hull


@dataclass(frozen=True, slots=True)
class LesionMeasurement:
    """One connected part of a target.

    Attributes:
        target: Name of the target.
        number: From 1, largest first.
        volume_ml: Number of voxels times the volume of one.
        longest_diameter_mm: Largest distance of two voxel centres, in three dimensions, plus one
            voxel edge in their direction; one voxel hence has its edge as diameter.
        centre_ras: Mean of the voxel centres.
    """

    target: str
    number: int
    volume_ml: float
    longest_diameter_mm: float
    centre_ras: tuple[float, float, float]


def measure_lesions(
    labelmap: Labelmap, targets: Sequence[Target], names: Sequence[str] | None = None
) -> list[LesionMeasurement]:
    """Measure every connected part of the innermost targets.

    Args:
        labelmap: What to measure.
        targets: All targets.
        names: Of the targets to measure; those that hold no other target when None.

    Returns:
        Target by target, largest first.
    """
    parents = {target.inside for target in targets}
    wanted = names if names is not None else [t.name for t in targets if t.name not in parents]
    found: list[LesionMeasurement] = []
    for target in targets:
        if target.name in wanted:
            found += _lesions_of(labelmap.labels == target.value, target.name, labelmap.geometry)
    return found


def longest_diameter_mm(mask: Mask, geometry: Geometry) -> float:
    """Return the largest distance within a mask: between voxel centres, plus one voxel edge.

    Args:
        mask: (D, H, W), not empty.
        geometry: Where its voxels lie; its shape is not used.
    """
    kji = np.argwhere(mask ^ ndimage.binary_erosion(mask))
    centres = kji[:, ::-1] @ geometry.ijk_to_ras[:3, :3].T
    corners = _hull(centres) if len(centres) > _MANY_POINTS else centres
    if len(corners) < 2:
        return float(max(geometry.spacing_mm))
    distances = pdist(corners)
    first, second = _pair(int(np.argmax(distances)), len(corners))
    direction = corners[first] - corners[second]
    return float(distances.max() + _edge_along(direction, geometry))


def _lesions_of(mask: Mask, target: str, geometry: Geometry) -> list[LesionMeasurement]:
    numbered, _ = label_components(mask)
    boxes = ndimage.find_objects(numbered)
    sizes = np.bincount(numbered.ravel(), minlength=len(boxes) + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    return [
        _lesion(numbered[boxes[n]] == n + 1, boxes[n], target, rank, geometry)
        for rank, n in enumerate(order.tolist(), start=1)
    ]


def _lesion(
    part: Mask, box: tuple[slice, ...], target: str, number: int, geometry: Geometry
) -> LesionMeasurement:
    centre_kji = np.argwhere(part).mean(axis=0) + [axis.start for axis in box]
    r, a, s = ijk_to_ras(centre_kji[None, ::-1], geometry)[0].tolist()
    volume = int(part.sum()) * geometry.voxel_ml
    return LesionMeasurement(target, number, volume, longest_diameter_mm(part, geometry), (r, a, s))


def _hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.asarray(points[ConvexHull(points).vertices])
    except QhullError:  # flat: all in one plane
        return points[:: max(len(points) // _MANY_POINTS, 1)]


def _pair(index: int, count: int) -> tuple[int, int]:
    rows, columns = np.triu_indices(count, 1)
    return int(rows[index]), int(columns[index])


def _edge_along(direction: NDArray[np.float64], geometry: Geometry) -> float:
    """Return how far a voxel reaches along a direction: the length of its box's cut."""
    unit = direction / np.linalg.norm(direction)
    in_voxels = np.abs(np.linalg.inv(geometry.ijk_to_ras[:3, :3]) @ unit)
    return float(1.0 / in_voxels.max())


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
