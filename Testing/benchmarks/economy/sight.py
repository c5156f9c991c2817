"""What an eye sees: whether a shape is right, where it is not, and how much is to be drawn.

Masks are (D, H, W) on the slice grid of the file (`data.orientation`), the truth is what the eye
knows. All rules are ours but the surface Dice, which is that of Nikolov et al. (arXiv 1809.04430).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from aslseg.data.masks import label_components
from aslseg.data.volume import Geometry, Labels, Mask, Spacing3
from aslseg.evaluation.lesion_matching import LEAST_LESION_ML, match_lesions
from aslseg.evaluation.metrics import surface_distances
from aslseg.targets import Target, lesion_targets, region_mask
from economy.prices import Act, seconds_of


@dataclass(frozen=True)
class Standard:
    """What a label map has to be, whichever way it was made.

    Attributes:
        tolerance_mm: So far from the true surface is near enough.
        least_surface_dice: Part of both surfaces that has to be near enough, of each target.
        least_lesion_ml: Smaller lesions may be left out.
    """

    tolerance_mm: float = 3.0
    least_surface_dice: float = 0.9
    least_lesion_ml: float = LEAST_LESION_ML


def surface_dice(first: Mask, second: Mask, spacing_mm: Spacing3, tolerance_mm: float) -> float:
    """Return the part of both surfaces that is near the other; 1 of two empty masks."""
    found = surface_distances(first, second, spacing_mm)
    distances = np.concatenate([found.to_truth, found.to_predicted])
    return float((distances <= tolerance_mm).mean()) if distances.size else 1.0


@dataclass(frozen=True)
class SliceCheck:
    """A section beside what it should be.

    Attributes:
        surface_dice: Of both outlines.
        strokes: How many pieces of outline are to be drawn; none where all is to be taken away.
        length_mm: Their length.
    """

    surface_dice: float
    strokes: int
    length_mm: float

    @property
    def acts(self) -> tuple[Act, ...]:
        """What makes it right: nothing if it is; a click where all is to be taken away."""
        if self.surface_dice == 1.0:
            return ()
        if not self.strokes:
            return (Act("click"),)
        return Act("stroke", self.strokes), Act("draw", self.length_mm)

    @property
    def seconds(self) -> float:
        """What that costs."""
        return seconds_of(self.acts)


def check_slice(
    shown: Mask, goal: Mask, pixel_mm: tuple[float, float], tolerance_mm: float
) -> SliceCheck:
    """Compare a section (H, W) with what it should be.

    What is to be drawn is the outline that lies too far from the other one: of what should be, or
    of what should not, whichever is longer; or the whole outline, if that costs less. Pieces with
    less than twice the tolerance between them are one stroke.
    """
    anew = SliceCheck(0.0, label_components(goal)[1], outline_mm(goal, pixel_mm))
    if not goal.any() or not shown.any():
        return replace(anew, surface_dice=float(goal.any() == shown.any()))
    outlines = [_outline(mask) for mask in (shown, goal)]
    far = [
        line & (ndimage.distance_transform_edt(~other, sampling=pixel_mm) > tolerance_mm)
        for line, other in zip(outlines, outlines[::-1], strict=True)
    ]
    wrong, all_ = sum(int(one.sum()) for one in far), sum(int(one.sum()) for one in outlines)
    away = ndimage.distance_transform_edt(~(far[0] | far[1]), sampling=pixel_mm)
    _, strokes = label_components(away <= tolerance_mm) if wrong else (None, 0)
    lengths = [
        outline_mm(mask, pixel_mm) * float(one.sum()) / float(line.sum())
        for mask, one, line in zip((shown, goal), far, outlines, strict=True)
    ]
    mended = SliceCheck(1 - wrong / all_, strokes, max(lengths))
    anew = replace(anew, surface_dice=mended.surface_dice)
    return anew if anew.seconds < mended.seconds else mended


def _outline(mask: Mask) -> Mask:
    line: Mask = mask & ~ndimage.binary_erosion(mask)
    return line


def outline_mm(mask: Mask, pixel_mm: tuple[float, float]) -> float:
    """Return the length of the outline of a section (H, W): edges of pixels times pi / 4 (Crofton).

    Args:
        mask: The section.
        pixel_mm: Height and width of a pixel.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    height, width = pixel_mm
    upright = np.count_nonzero(np.diff(padded, axis=1)) * height
    level = np.count_nonzero(np.diff(padded, axis=0)) * width
    return float(np.pi / 4 * (upright + level))


def filled_between(mask: Mask, slices: list[int]) -> Mask:
    """Fill the slices between drawn ones, by the mean of their signed distances (in pixels).

    Args:
        mask: (D, H, W) drawn in some slices.
        slices: Which, ascending.
    """
    filled = mask.copy()
    signed = {k: _signed(mask[k]) for k in slices}
    for first, last in itertools.pairwise(slices):
        for k in range(first + 1, last):
            share = (k - first) / (last - first)
            filled[k] = (1 - share) * signed[first] + share * signed[last] > 0
    return filled


def _signed(section: Mask) -> np.ndarray:
    inside = ndimage.distance_transform_edt(section)
    return np.asarray(inside - ndimage.distance_transform_edt(~section))


@dataclass(frozen=True)
class Quality:
    """How a label map compares with the truth.

    Attributes:
        lesions: True ones that count.
        found: Of them.
        false: Lesions where there is none.
        lesion_surface_dice: Least of the lesion targets; 1 without any.
        organ_surface_dice: Least of the other targets.
    """

    lesions: int
    found: int
    false: int
    lesion_surface_dice: float
    organ_surface_dice: float

    def meets(self, standard: Standard) -> bool:
        """Tell whether it is good enough."""
        shapes = min(self.lesion_surface_dice, self.organ_surface_dice)
        is_complete = self.found == self.lesions and not self.false
        return is_complete and shapes >= standard.least_surface_dice

    @property
    def surface_dice(self) -> float:
        """Mean of lesions and organs."""
        return (self.lesion_surface_dice + self.organ_surface_dice) / 2


def quality_of(
    labels: Labels, truth: Labels, targets: tuple[Target, ...], on: Geometry, standard: Standard
) -> Quality:
    """Compare a label map with the truth, both (D, H, W) on one grid."""
    lesions = lesion_targets(targets)
    counts, shapes = np.zeros(3, int), {True: [1.0], False: [1.0]}
    for target in targets:
        is_lesion = target in lesions
        shown, true = (region_mask(one, target, targets) for one in (labels, truth))
        if is_lesion:
            matches = match_lesions(shown.astype(np.float32), true, on.voxel_ml)
            counts += matches.counts(0.5)
            true = true & ~may_be_missing(shown, true, standard.least_lesion_ml / on.voxel_ml)
        shapes[is_lesion].append(surface_dice(shown, true, on.spacing_mm, standard.tolerance_mm))
    found, missed, false = (int(n) for n in counts)
    return Quality(found + missed, found, false, min(shapes[True]), min(shapes[False]))


def may_be_missing(shown: Mask, true: Mask, least_voxels: float) -> Mask:
    """Return the true lesions that are too small to count and of which nothing is shown."""
    numbered, count = label_components(true)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    seen = np.bincount(numbered[shown], minlength=count + 1)
    small = (sizes < least_voxels) & (seen == 0)
    small[0] = False
    return np.asarray(small[numbered])
