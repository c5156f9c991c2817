"""The section of a lesion in its box, and what a lesion looks like (ours).

In a box three things make a pixel likely: SAM, the intensities, and the ellipse that fills the box;
people draw boxes around lesions, so the ellipse says more than SAM as it was released does. Their
log-odds are summed with the weights of `GrowthRules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from aslseg.data.masks import keep_largest
from aslseg.data.volume import Float32, Mask
from aslseg.preprocessing.intensity import SD_PER_MAD
from aslseg.prompts import BoxPrompt

LEAST_PIXELS = 5
"""Fewer pixels say nothing about intensities."""
CORE = 0.7
"""Part of the radii of a box's ellipse within which pixels are the lesion's."""
MOST_ALIKE = 1.5
"""Likeness, 0 outside and 1 inside, beyond which a voxel is less and less like the inside."""


@dataclass(frozen=True, slots=True)
class GrowthRules:
    """How a lesion is told from what is around it, and how far it reaches.

    Attributes:
        sam_weight: Of SAM's logits on prompted slices.
        shape_weight: Of the ellipse in a box, and of the ball around a section.
        intensity_weight: Of the intensities.
        most_evidence: Bound of the log-odds of SAM, and of intensities.
        smoothing_mm: Of intensities, in plane.
        ring_mm: Width of the ring around a section that counts as outside.
        least_spread_hu: Of the intensities inside.
        length_mm: How far neighbours count: beyond it shape and intensities decide.
        reach_mm: A lesion reaches so far beyond its prompted sections in plane, or
        reach_share: this part of their diameter, where that is more.
        depth: A lesion reaches at most so many radii of a prompted section above and below it.
    """

    sam_weight: float = 0.25
    shape_weight: float = 2.0
    intensity_weight: float = 0.5
    most_evidence: float = 3.0
    smoothing_mm: float = 1.5
    ring_mm: float = 5.0
    least_spread_hu: float = 4.0
    length_mm: float = 3.0
    reach_mm: float = 4.0
    reach_share: float = 0.25
    depth: float = 1.5


@dataclass(frozen=True, slots=True)
class Appearance:
    """Intensities inside of a lesion and around it: normal distributions of one spread.

    The spread is that inside: a ring mixes what is around a lesion.

    Attributes:
        inside_hu: Median inside.
        outside_hu: Median outside.
        spread_hu: Standard deviation inside, from the median of absolute deviations.
    """

    inside_hu: float
    outside_hu: float
    spread_hu: float

    @property
    def contrast_hu(self) -> float:
        """Difference of both medians, or their spread where that is larger."""
        return max(abs(self.inside_hu - self.outside_hu), self.spread_hu)

    def evidence(self, values_hu: Float32, most: float) -> Float32:
        """Return the log-odds of inside against outside, within +-`most`.

        It falls again where a voxel is as far beyond the inside as that is from the outside: fat in
        a liver is no lesion though it is darker than both.

        Args:
            values_hu: Any shape, in HU.
            most: Bound of what is returned.

        Returns:
            Of the same shape.
        """
        between_hu = self.inside_hu - self.outside_hu
        if between_hu == 0:
            return np.zeros_like(values_hu)
        likeness = (values_hu - self.outside_hu) / between_hu
        folded = np.minimum(likeness, 2 * MOST_ALIKE - likeness)
        ratio = (between_hu / self.spread_hu) ** 2 * (folded - 0.5)
        bounded: Float32 = np.clip(ratio, -most, most).astype(np.float32)
        return bounded


def learn_appearance(
    planes_hu: Sequence[Float32],
    sections: Sequence[Mask],
    rings: Sequence[Mask],
    least_spread_hu: float,
) -> Appearance:
    """Learn how sections differ from the rings around them.

    Args:
        planes_hu: (H, W) each, smoothed.
        sections: (H, W) each, one of them not empty. Their rims are left out where enough is left.
        rings: (H, W) each.
        least_spread_hu: Bound of the spread.
    """
    cores = [ndimage.binary_erosion(section) for section in sections]
    if sum(int(core.sum()) for core in cores) < LEAST_PIXELS:
        cores = list(sections)
    inside = _values(planes_hu, cores)
    outside = _values(planes_hu, rings)
    if len(outside) < LEAST_PIXELS:
        outside = inside
    median_hu = float(np.median(inside))
    spread_hu = SD_PER_MAD * float(np.median(np.abs(inside - median_hu)))
    return Appearance(median_hu, float(np.median(outside)), max(spread_hu, least_spread_hu))


def ring_around(section: Mask, allowed: Mask, width_px: int) -> Mask:
    """Return the ring (H, W) that begins one pixel away from a section, where it may lie."""
    near = ndimage.binary_dilation(section)
    ring: Mask = ndimage.binary_dilation(near, iterations=width_px) & ~near & allowed
    return ring


def boxed_section(
    plane_hu: Float32,
    logits: Float32,
    box: BoxPrompt,
    allowed: Mask,
    *,
    ring_px: int,
    rules: GrowthRules,
) -> Mask:
    """Return the section of a lesion in its box, (H, W); empty if nothing of the box is allowed.

    Args:
        plane_hu: (H, W), smoothed.
        logits: (H, W) of SAM.
        box: Around the section.
        allowed: (H, W) where it may lie.
        ring_px: Width of the ring around the box that counts as outside.
        rules: Weights.
    """
    filled = np.zeros(plane_hu.shape, bool)
    filled[box.region(plane_hu.shape)] = True
    filled &= allowed
    if not filled.any():
        return filled
    radius2 = _ellipse(box, plane_hu.shape)
    core = (radius2 < CORE**2) & filled
    sure = core & (logits > 0)
    core = next((one for one in (sure, core) if one.sum() >= LEAST_PIXELS), filled)
    ring = ring_around(filled, allowed, ring_px)
    looks = learn_appearance([plane_hu], [core], [ring], rules.least_spread_hu)
    most = rules.most_evidence
    evidence = rules.intensity_weight * looks.evidence(plane_hu, most)
    evidence += rules.sam_weight * np.clip(logits, -most, most)
    evidence += rules.shape_weight * (1 - radius2)
    found = filled & (evidence > 0)
    opened = ndimage.binary_opening(found)
    whole = ndimage.binary_fill_holes(opened if opened.any() else found) & filled
    return keep_largest(whole)


def _ellipse(box: BoxPrompt, shape: tuple[int, ...]) -> Float32:
    """Return the squared distance of pixels (H, W) from a box's centre: 1 on its ellipse."""
    left, top, right, bottom = box.xyxy
    y, x = np.ogrid[: shape[0], : shape[1]]
    across = (x + 0.5 - (left + right) / 2) / max((right - left) / 2, 0.5)
    down = (y + 0.5 - (top + bottom) / 2) / max((bottom - top) / 2, 0.5)
    return (across**2 + down**2).astype(np.float32)


def _values(planes_hu: Sequence[Float32], masks: Sequence[Mask]) -> Float32:
    return np.concatenate([plane[mask] for plane, mask in zip(planes_hu, masks, strict=True)])
