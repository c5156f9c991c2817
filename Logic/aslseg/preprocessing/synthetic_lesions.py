"""Lesions that are drawn into healthy tissue of training patches, with their labels.

A few patients show few lesions. What is known to be healthy can show others: balls with waves in
their outlines, mostly darker than the organ, with some of its texture and soft borders. Lesions
made by rules taught networks to find real ones in Hu et al., CVPR 2023; these are simpler, and
their shapes and ranges are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aslseg.preprocessing.augmentation import blur

RADII_PX = (2.0, 12.0)
MOST_LESIONS = 3
DARKER_SPREADS, LEAST_SPREADS = (1.3, 1.0), 0.5
"""Mean and deviation of how much darker than the organ lesions are, and the least, in the units of
the networks' intensities: spreads of the organ."""
BRIGHT_SHARE, BRIGHTER_SPREADS = 0.1, (0.5, 1.2)
BORDERS_SD_PX, GRAINS_SD_PX = (0.5, 1.4), (1.0, 2.5)
MOST_GRAIN = 0.4
TISSUE_REACH, TISSUE_SD_PX = 1.5, 1.5
"""Smoothed tissue is within so many spreads of its organ: else it is a vessel, or no organ."""
LEAST_TISSUE_PX = 100
WAVES = 4
TEXTURE_SD_PX = 2.0


@dataclass(frozen=True, slots=True)
class SyntheticLesion:
    """One lesion to be drawn.

    Attributes:
        place: In [0, 1): which pixel of the tissue is the centre.
        radius_px: Of a sphere of its size.
        stretch: Factor of its height and, inverted, of its width.
        waves: (WAVES, 2) amplitudes, as parts of the radius, and phases of its outline.
        difference: From the tissue, in units of the image.
        border_sd_px: Standard deviation of the Gaussian that softens the border.
        kept_texture: Part of the tissue's texture that is left.
        grain: Standard deviation of its own texture.
        grain_sd_px: Of the Gaussian that its texture is smoothed by.
        seed: Of its texture.
    """

    place: float
    radius_px: float
    stretch: float
    waves: tuple[tuple[float, float], ...]
    difference: float
    border_sd_px: float
    kept_texture: float
    grain: float
    grain_sd_px: float
    seed: int


def sample_lesions(rng: np.random.Generator, chance: float) -> list[SyntheticLesion]:
    """Sample the lesions of one patch: none, or with that chance one to `MOST_LESIONS`."""
    if rng.random() >= chance:
        return []
    return [_sample_lesion(rng) for _ in range(int(rng.integers(MOST_LESIONS)) + 1)]


def _sample_lesion(rng: np.random.Generator) -> SyntheticLesion:
    bright = rng.random() < BRIGHT_SHARE
    darker = max(abs(rng.normal(*DARKER_SPREADS)), LEAST_SPREADS)
    return SyntheticLesion(
        place=float(rng.random()),
        radius_px=math.exp(rng.uniform(math.log(RADII_PX[0]), math.log(RADII_PX[1]))),
        stretch=math.exp(rng.normal(0.0, 0.25)),
        waves=tuple(
            (rng.normal(0.0, 0.12) / n, rng.uniform(0.0, math.tau)) for n in range(1, WAVES + 1)
        ),
        difference=rng.uniform(*BRIGHTER_SPREADS) if bright else -darker,
        border_sd_px=rng.uniform(*BORDERS_SD_PX),
        kept_texture=rng.uniform(0.5, 1.0),
        grain=rng.uniform(0.0, MOST_GRAIN),
        grain_sd_px=rng.uniform(*GRAINS_SD_PX),
        seed=int(rng.integers(2**62)),
    )


def healthy_tissue(image: Tensor, organ: Tensor, classes: Tensor) -> Tensor:
    """Return where lesions may be drawn.

    Args:
        image: (*spatial) intensities, as deviations from the organ's own.
        organ: (*spatial) mask of the organ, in [0, 1].
        classes: (*spatial) class numbers: 0 is known to be healthy.

    Returns:
        (*spatial) bool.
    """
    smooth = blur(image[None], TISSUE_SD_PX)[0]
    return (organ > 0.5) & (classes == 0) & (smooth.abs() < TISSUE_REACH)


def draw_lesions(
    planes: Tensor, depths_px: Tensor, tissue: Tensor, lesions: Sequence[SyntheticLesion]
) -> tuple[Tensor, Tensor]:
    """Draw lesions into tissue.

    Args:
        planes: (d, h, w) intensities.
        depths_px: (d,) where each plane lies, in pixels.
        tissue: (d, h, w) bool; lesions are cut off where it ends.
        lesions: Drawn one after the other; none where there is little tissue.

    Returns:
        (d, h, w) intensities, and (d, h, w) bool: what shows a drawn lesion.
    """
    drawn = torch.zeros_like(tissue)
    if int(tissue.sum()) < LEAST_TISSUE_PX:
        return planes, drawn
    places = tissue.nonzero()
    level = planes[tissue].median()
    texture = planes - blur(planes, TEXTURE_SD_PX)
    for lesion in lesions:
        centre = places[int(lesion.place * len(places))]
        shape = _shape_of(lesion, centre, depths_px, planes.shape[1:]) & tissue
        inside = blur(shape.to(planes), lesion.border_sd_px)
        shown = level + lesion.difference + lesion.kept_texture * texture
        planes = torch.lerp(planes, shown + _grain(lesion, planes), inside)
        drawn |= shape
    return planes, drawn


def _shape_of(
    lesion: SyntheticLesion, centre: Tensor, depths_px: Tensor, size: Sequence[int]
) -> Tensor:
    """Return (d, h, w) bool: a stretched ball around a voxel, with waves in its outline."""
    rows = (torch.arange(size[0], device=centre.device) - centre[1]) * lesion.stretch
    columns = (torch.arange(size[1], device=centre.device) - centre[2]) / lesion.stretch
    angle = torch.atan2(rows[:, None].expand(*size), columns[None].expand(*size))
    outline = torch.ones_like(angle)
    for n, (amplitude, phase) in enumerate(lesion.waves, 1):
        outline += amplitude * torch.cos(n * angle + phase)
    in_plane = rows[:, None] ** 2 + columns[None] ** 2
    depth = (depths_px - depths_px[centre[0]]) ** 2
    return in_plane[None] + depth[:, None, None] < (lesion.radius_px * outline[None]) ** 2


def _grain(lesion: SyntheticLesion, planes: Tensor) -> Tensor:
    """Return (d, h, w): the lesion's own texture."""
    noise = torch.randn(planes.shape, generator=torch.Generator().manual_seed(lesion.seed))
    smooth = blur(noise, lesion.grain_sd_px)
    grain: Tensor = smooth * (lesion.grain / smooth.std().clamp(min=1e-6))
    return grain.to(planes)
