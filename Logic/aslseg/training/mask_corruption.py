"""Synthetic pseudo-labels: true masks with the errors that specialists make.

The paper trains its adaptation network on synthetic pseudo-labels without saying how they are made;
the kinds and ranges below are ours. Sampling (`sample_corruption`) is kept apart from
application (`apply_corruption`), which is deterministic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.config import RunConfig
from aslseg.context import LabelledVolume
from aslseg.data.masks import label_components
from aslseg.data.volume import Float32, Mask, Spacing3
from aslseg.targets import Target, region_mask

RAGGED_GRAIN_MM = 4.0


class MaskError(Enum):
    """A kind of error of a synthetic pseudo-label."""

    NONE = "none"
    MISSED = "missed component"
    INVENTED = "invented component"
    ERODED = "eroded"
    DILATED = "dilated"
    SHIFTED = "shifted"
    RAGGED = "ragged boundary"
    EMPTY = "empty"


WEIGHTS = {
    MaskError.NONE: 2.0,
    MaskError.MISSED: 2.0,
    MaskError.INVENTED: 3.0,
    MaskError.ERODED: 1.5,
    MaskError.DILATED: 1.5,
    MaskError.SHIFTED: 1.0,
    MaskError.RAGGED: 2.0,
    MaskError.EMPTY: 0.5,
}


@dataclass(frozen=True, slots=True)
class MaskCorruption:
    """The errors of one synthetic pseudo-label, and the seed of their random parts.

    Attributes:
        errors: Applied in this order.
        size_mm: How far boundaries move.
        seed: Fixes which component is missed and where one is invented.
    """

    errors: tuple[MaskError, ...]
    size_mm: float
    seed: int


def sample_corruption(rng: np.random.Generator) -> MaskCorruption:
    """Sample one to three errors and their size (1 to 5 mm)."""
    errors = list(WEIGHTS)
    weights = np.array([WEIGHTS[mask_error] for mask_error in errors])
    count = int(rng.integers(1, 4))
    chosen = rng.choice(len(errors), size=count, replace=False, p=weights / weights.sum())
    return MaskCorruption(
        tuple(errors[n] for n in chosen), float(rng.uniform(1.0, 5.0)), int(rng.integers(2**31))
    )


def apply_corruption(
    mask: Mask, corruption: MaskCorruption, spacing_mm: Spacing3, inside: Mask
) -> Mask:
    """Return the mask with the errors of a corruption.

    Args:
        mask: (D, H, W) the truth.
        corruption: Its errors.
        spacing_mm: Voxel edges along (k, j, i).
        inside: (D, H, W) where a component may be invented.
    """
    rng = np.random.default_rng(corruption.seed)
    corrupted = mask.copy()
    for mask_error in corruption.errors:
        corrupted = _ERRORS[mask_error](corrupted, corruption.size_mm, spacing_mm, inside, rng)
    return corrupted


def _same(mask: Mask, *_: object) -> Mask:
    return mask


def _empty(mask: Mask, *_: object) -> Mask:
    return np.zeros_like(mask)


def _missed(
    mask: Mask, _size: float, _spacing: Spacing3, _inside: Mask, rng: np.random.Generator
) -> Mask:
    numbered, count = label_components(mask, connectivity=3)
    if count == 0:
        return mask
    removed = rng.choice(np.arange(1, count + 1), size=max(1, count // 3), replace=False)
    kept: Mask = mask & ~np.isin(numbered, removed)
    return kept


def _invented(
    mask: Mask, _size: float, spacing: Spacing3, inside: Mask, rng: np.random.Generator
) -> Mask:
    corrupted = mask.copy()
    free = np.argwhere(inside & ~mask)
    for _ in range(int(rng.integers(1, 4))):
        if len(free):
            centre = free[rng.integers(len(free))]
            _add_ellipsoid(corrupted, centre, rng.uniform(3.0, 15.0, size=3), spacing)
    return corrupted & (mask | inside)


def _eroded(
    mask: Mask, size: float, spacing: Spacing3, _inside: Mask, _rng: np.random.Generator
) -> Mask:
    return _depth_mm(mask, spacing) > size


def _dilated(
    mask: Mask, size: float, spacing: Spacing3, _inside: Mask, _rng: np.random.Generator
) -> Mask:
    return _depth_mm(mask, spacing) > -size


def _shifted(
    mask: Mask, size: float, spacing: Spacing3, _inside: Mask, rng: np.random.Generator
) -> Mask:
    direction = rng.normal(size=2)
    direction *= size / max(float(np.linalg.norm(direction)), 1e-6)
    steps = (0, round(direction[0] / spacing[1]), round(direction[1] / spacing[2]))
    moved: Mask = ndimage.shift(mask.astype(np.uint8), steps, order=0) > 0
    return moved


def _ragged(
    mask: Mask, size: float, spacing: Spacing3, _inside: Mask, rng: np.random.Generator
) -> Mask:
    grain = [RAGGED_GRAIN_MM / edge for edge in spacing]
    noise = ndimage.gaussian_filter(rng.normal(size=mask.shape).astype(np.float32), grain)
    noise /= max(float(noise.std()), 1e-6)
    ragged: Mask = _depth_mm(mask, spacing) > 0.7 * size * noise
    return ragged


_ERRORS: dict[MaskError, Callable[..., Mask]] = {
    MaskError.NONE: _same,
    MaskError.MISSED: _missed,
    MaskError.INVENTED: _invented,
    MaskError.ERODED: _eroded,
    MaskError.DILATED: _dilated,
    MaskError.SHIFTED: _shifted,
    MaskError.RAGGED: _ragged,
    MaskError.EMPTY: _empty,
}


def _depth_mm(mask: Mask, spacing_mm: Spacing3) -> NDArray[np.float32]:
    """Return the distance to the boundary, positive inside; in plane, as prompts are.

    Slices without a boundary are 1 m away from it.
    """
    full = mask.all(axis=(1, 2))
    depth = np.full(mask.shape, -1e3, np.float32)
    depth[full] = 1e3
    for k in np.flatnonzero(mask.any(axis=(1, 2)) & ~full):
        inner = ndimage.distance_transform_edt(mask[k], spacing_mm[1:])
        outer = ndimage.distance_transform_edt(~mask[k], spacing_mm[1:])
        half = min(spacing_mm[1:]) / 2
        depth[k] = np.where(mask[k], inner - half, half - outer)
    return depth


def _add_ellipsoid(
    mask: Mask, centre: NDArray[np.int64], radii_mm: NDArray[np.float64], spacing_mm: Spacing3
) -> None:
    reach = np.maximum(1, np.ceil(radii_mm / spacing_mm)).astype(int)
    low = np.maximum(centre - reach, 0)
    high = np.minimum(centre + reach + 1, mask.shape)
    axes = [
        (np.arange(a, b) - c) * edge / radius
        for a, b, c, edge, radius in zip(low, high, centre, spacing_mm, radii_mm, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    part = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    part |= sum(axis**2 for axis in grid) <= 1.0


SOFTNESS_PX = 1.0


def synthetic_masks(
    labelled: LabelledVolume, targets: Sequence[Target], rng: np.random.Generator
) -> dict[str, Mask]:
    """Return one synthetic pseudo-label: by target the corrupted region, (D, H, W)."""
    regions = {t.name: region_mask(labelled.labels.labels, t, targets) for t in targets}
    everywhere = np.ones(labelled.labels.labels.shape, bool)
    spacing = labelled.volume.geometry.spacing_mm
    return {
        t.name: apply_corruption(
            regions[t.name],
            sample_corruption(rng),
            spacing,
            everywhere if t.inside is None else regions[t.inside],
        )
        for t in targets
    }


def pseudo_labels_of(
    labelled: LabelledVolume, targets: Sequence[Target], config: RunConfig
) -> list[dict[str, Float32]]:
    """Return the synthetic pseudo-labels of a case, soft probabilities (D, H, W) by target."""
    rng = np.random.default_rng([config.seed, 13, case_number(labelled.case_id)])
    return [
        soften(synthetic_masks(labelled, targets, rng)) for _ in range(config.adaptation.versions)
    ]


def soften(masks: Mapping[str, Mask]) -> dict[str, Float32]:
    """Turn masks (D, H, W) into probabilities in [0.02, 0.98] that are soft at the boundary."""
    blur = (0.0, SOFTNESS_PX, SOFTNESS_PX)
    return {
        name: ndimage.gaussian_filter(mask.astype(np.float32), blur).clip(0.02, 0.98)
        for name, mask in masks.items()
    }


def case_number(case_id: str) -> int:
    """Return a number that is the same for a name in every process, as `hash` is not."""
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big")
