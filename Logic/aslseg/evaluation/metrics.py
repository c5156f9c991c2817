"""How well a mask agrees with the truth: overlap, surfaces in mm, lesions.

Rules for empty masks, everywhere in this file:

* both empty: they agree; Dice and Jaccard are 1, distances are 0;
* one empty: Dice and Jaccard are 0, and distances are NaN, for no number of mm would be true. Say
  how many cases a mean of distances leaves out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from aslseg.data.masks import box_of, crop, label_components
from aslseg.data.volume import Labelmap, Mask, Spacing3
from aslseg.errors import GeometryMismatchError
from aslseg.project.run_tables import TargetScore
from aslseg.targets import Target, region_mask

DISPUTED_DICE = 0.8
"""A target on which two predictions overlap by a smaller Dice than this is for a person (ours)."""
FOUND_SHARE = 0.1
"""A lesion is found when this part of it is predicted; a touch alone does not count (ours)."""


@dataclass(frozen=True, slots=True)
class LesionDetection:
    """How many lesions were found, and how many invented.

    Attributes:
        true: Connected parts of the truth.
        found: Those of them that the prediction covers sufficiently.
        false_positives: Connected parts of the prediction that lie outside of the truth.
    """

    true: int
    found: int
    false_positives: int


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """How far each surface voxel of one mask lies from the other's surface, in mm.

    Attributes:
        to_truth: (N,) from each surface voxel of the prediction.
        to_predicted: (M,) from each surface voxel of the truth.
    """

    to_truth: NDArray[np.float64]
    to_predicted: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """The greater of the two directed 95th percentiles."""
        return self._of(lambda a, b: max(np.percentile(a, 95), np.percentile(b, 95)))

    @property
    def average_mm(self) -> float:
        """Mean over the voxels of both surfaces."""
        return self._of(lambda a, b: np.concatenate([a, b]).mean())

    def _of(self, reduce: Any) -> float:
        if self.to_truth.size == self.to_predicted.size == 0:
            return 0.0
        if self.to_truth.size == 0 or self.to_predicted.size == 0:
            return float("nan")
        return float(reduce(self.to_truth, self.to_predicted))


def dice(predicted: Mask, truth: Mask) -> float:
    """Twice the common voxels over the sum of both, in [0, 1].

    Args:
        predicted: Any shape.
        truth: The same shape.

    Returns:
        1 where both are empty.

    Raises:
        ValueError: When the shapes differ.
    """
    common, first, second = _counts(predicted, truth)
    return 1.0 if first + second == 0 else 2.0 * common / (first + second)


def least_agreement(
    labels: Sequence[NDArray[np.uint8]], targets: Sequence[Target]
) -> dict[str, float]:
    """Return by target the least Dice of two label maps, each with what lies in it.

    Args:
        labels: Predictions of one volume, all of one shape; with fewer than two, all values are 1.
        targets: Of the label maps.
    """
    least: dict[str, float] = {}
    for target in targets:
        regions = [region_mask(one, target, targets) for one in labels]
        pairs = itertools.combinations(regions, 2)
        least[target.name] = min((dice(first, second) for first, second in pairs), default=1.0)
    return least


def jaccard(predicted: Mask, truth: Mask) -> float:
    """Common voxels over those of the union, in [0, 1].

    Args:
        predicted: Any shape.
        truth: The same shape.

    Returns:
        1 where both are empty.

    Raises:
        ValueError: When the shapes differ.
    """
    common, first, second = _counts(predicted, truth)
    return 1.0 if first + second == 0 else common / (first + second - common)


def surface_distances(predicted: Mask, truth: Mask, spacing_mm: Spacing3) -> SurfaceDistances:
    """Measure how far each surface voxel of one mask lies from the other's surface.

    The surface of a mask is what an erosion by one voxel (faces) takes away. The edge of the array
    is no surface: there the scan ends, not the organ. Distances are between centres of voxels.
    These are the definitions of the CHAOS challenge.

    Args:
        predicted: (D, H, W).
        truth: (D, H, W).
        spacing_mm: Voxel edge along (k, j, i).

    Returns:
        Distances in mm; both arrays are empty when both masks are, else NaN where there is no
        other surface.
    """
    predicted, truth = _cropped(predicted, truth)
    first, second = _surface(predicted), _surface(truth)
    return SurfaceDistances(
        _nearest(first, second, spacing_mm), _nearest(second, first, spacing_mm)
    )


def detect_lesions(predicted: Mask, truth: Mask) -> LesionDetection:
    """Count the lesions that were found and those that were invented.

    A lesion is a connected part; voxels that share a corner are of one. One of the truth is found
    when at least `FOUND_SHARE` of its voxels are predicted; one of the prediction is a false
    positive when a smaller share of its voxels is true. So a vast prediction over a small lesion
    finds it and is false as well. `lesion_matching` has the stricter rule of the benchmark.

    Args:
        predicted: (D, H, W).
        truth: (D, H, W).

    Raises:
        ValueError: When the shapes differ.
    """
    predicted, truth = _cropped(predicted, truth)
    covered, true = _covered_shares(truth, predicted), _covered_shares(predicted, truth)
    found = int(np.count_nonzero(covered >= FOUND_SHARE))
    return LesionDetection(covered.size, found, int(np.count_nonzero(true < FOUND_SHARE)))


def score_labels(
    predicted: Labelmap, truth: Labelmap, targets: Sequence[Target]
) -> list[TargetScore]:
    """Score each target of a label map.

    A target is scored on its region: the liver with the tumours in it, the tumours alone.

    Raises:
        GeometryMismatchError: When the label maps lie on different grids.
    """
    if not predicted.geometry.matches(truth.geometry):
        msg = "Prediction and truth lie on different grids; resample one to the other first."
        raise GeometryMismatchError(msg)
    return [_score(predicted, truth, target, targets) for target in targets]


def _score(
    predicted: Labelmap, truth: Labelmap, target: Target, targets: Sequence[Target]
) -> TargetScore:
    mask, true = _cropped(
        region_mask(predicted.labels, target, targets), region_mask(truth.labels, target, targets)
    )
    distances = surface_distances(mask, true, truth.geometry.spacing_mm)
    lesions = detect_lesions(mask, true)
    return TargetScore(
        target=target.name,
        dice=dice(mask, true),
        jaccard=jaccard(mask, true),
        hd95_mm=distances.hd95_mm,
        assd_mm=distances.average_mm,
        volume_ml=int(np.count_nonzero(mask)) * truth.geometry.voxel_ml,
        lesions_true=lesions.true,
        lesions_found=lesions.found,
        false_positives=lesions.false_positives,
    )


def _counts(predicted: Mask, truth: Mask) -> tuple[int, int, int]:
    """Count the voxels of the intersection and of both masks."""
    _check(predicted, truth)
    common = int(np.count_nonzero(predicted & truth))
    return common, int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))


def _check(predicted: Mask, truth: Mask) -> None:
    if predicted.shape != truth.shape:
        msg = f"Prediction {predicted.shape} and truth {truth.shape} must have one shape."
        raise ValueError(msg)
    if predicted.dtype != np.bool_ or truth.dtype != np.bool_:
        msg = f"Masks must be bool, got {predicted.dtype} and {truth.dtype}."
        raise TypeError(msg)


def _cropped(predicted: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Cut both to a box around their union, which holds all that any score depends on."""
    _check(predicted, truth)
    box = box_of(predicted | truth, margin_mm=1.0)  # one voxel: an edge stays that of the array
    if box is None:
        return predicted[:0], truth[:0]
    return crop(predicted, box), crop(truth, box)


def _surface(mask: Mask) -> Mask:
    """Voxels with a face to the outside; all voxels of a mask that fills the array."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, core = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        core[1:] &= along[:-1]
        core[:-1] &= along[1:]
    border = mask & ~inner
    return border if border.any() else mask


def _nearest(surface: Mask, other: Mask, spacing_mm: Spacing3) -> NDArray[np.float64]:
    if not other.any():
        return np.full(np.count_nonzero(surface), np.nan)
    distances = np.zeros(np.count_nonzero(surface))
    apart = ~other[surface]  # a voxel of both surfaces is at distance 0
    if apart.any():
        tree = KDTree(np.argwhere(other) * spacing_mm, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(surface & ~other) * spacing_mm)[0]
    return distances


def _covered_shares(parts: Mask, cover: Mask) -> NDArray[np.float64]:
    """Share of each connected part of a mask that another mask covers."""
    numbered, count = label_components(parts)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    covered = np.bincount(numbered[cover], minlength=count + 1)[1:]
    shares: NDArray[np.float64] = covered / sizes
    return shares
