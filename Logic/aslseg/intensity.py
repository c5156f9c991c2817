"""Intensities: CT windows, normalisation to an organ, pictures for SAM."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.volume import Mask

_SD_PER_MAD = 1.4826  # of a normal distribution
_CLIP = 6.0


def window(voxels: NDArray[Any], window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """Map a window of intensities to [0, 1] and cut off the rest.

    Args:
        voxels: Any shape, HU.
        window_hu: The intensities that become 0 and 1.

    Raises:
        ValueError: When the window does not go from low to high.
    """
    low, high = window_hu
    if not low < high:
        msg = f"A window goes from low to high, got {window_hu}."
        raise ValueError(msg)
    scaled: NDArray[np.float32] = np.subtract(voxels, low, dtype=np.float32)
    scaled /= high - low
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def normalise_to_organ(
    voxels: NDArray[Any], organ_mask: Mask, least_scale: float = 1.0
) -> NDArray[np.float32]:
    """Express intensities as robust deviations from those of an organ.

    Contrast phase and scanner shift the organ as a whole; what is left is the lesion in it. The
    centre is the median, the scale 1.4826 times the median absolute deviation.

    Args:
        voxels: Any shape.
        organ_mask: Same shape; an empty mask stands for all voxels.
        least_scale: Smallest scale, in the unit of `voxels`: noise is not blown up.

    Returns:
        float32 in [-6, 6] of the shape of `voxels`.
    """
    if organ_mask.shape != voxels.shape:
        msg = f"Voxels {voxels.shape} and mask {organ_mask.shape} must have one shape."
        raise ValueError(msg)
    inside = voxels[organ_mask] if organ_mask.any() else voxels.ravel()
    centre = float(np.median(inside))
    spread = float(np.median(np.abs(np.subtract(inside, centre, dtype=np.float32))))
    scaled: NDArray[np.float32] = np.subtract(voxels, centre, dtype=np.float32)
    scaled /= max(_SD_PER_MAD * spread, least_scale)
    return np.clip(scaled, -_CLIP, _CLIP, out=scaled)


def slice_to_rgb(slice01: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Turn a slice into the picture that SAM was trained on.

    Args:
        slice01: (H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8 with three equal channels.
    """
    if slice01.ndim != 2:
        msg = f"A slice is an (H, W) array, got shape {slice01.shape}."
        raise ValueError(msg)
    grey = np.rint(np.clip(slice01, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
