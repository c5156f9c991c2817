"""Intensities: CT windows, normalisation to an organ, pictures for SAM."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.volume import Mask

_SD_PER_MAD = 1.4826  # of a normal distribution
_CLIP = 6.0
_FEWEST_FOR_MODE = 1000
_BINS = 64


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
    centre is the organ's most frequent intensity, which a large lesion does not shift as it shifts
    the median; the scale is 1.4826 times the median absolute deviation from it.

    Args:
        voxels: Any shape.
        organ_mask: Same shape; an empty mask stands for all voxels.
        least_scale: Smallest scale, in the unit of `voxels`: noise is not blown up.

    Returns:
        float32 in [-6, 6] of the shape of `voxels`.
    """
    centre, spread = centre_and_spread(voxels, organ_mask)
    scaled: NDArray[np.float32] = np.subtract(voxels, centre, dtype=np.float32)
    scaled /= max(spread, least_scale)
    return np.clip(scaled, -_CLIP, _CLIP, out=scaled)


def centre_and_spread(voxels: NDArray[Any], organ_mask: Mask) -> tuple[float, float]:
    """Return an organ's most frequent intensity, and the robust spread around it.

    Args:
        voxels: Any shape.
        organ_mask: Same shape; an empty mask stands for all voxels.

    Returns:
        Both in the unit of `voxels`; the spread is 1.4826 times the median absolute deviation.
    """
    if organ_mask.shape != voxels.shape:
        msg = f"Voxels {voxels.shape} and mask {organ_mask.shape} must have one shape."
        raise ValueError(msg)
    inside = voxels[organ_mask] if organ_mask.any() else voxels.ravel()
    centre = most_frequent(inside)
    deviations = np.abs(np.subtract(inside, centre, dtype=np.float32))
    return centre, _SD_PER_MAD * float(np.median(deviations))


def most_frequent(values: NDArray[Any]) -> float:
    """Return the mode of a sample by a smoothed histogram; the median of fewer than 1000 values.

    Args:
        values: Any shape, at least one value.
    """
    median = float(np.median(values))
    spread = float(np.median(np.abs(np.subtract(values, median, dtype=np.float32))))
    if values.size < _FEWEST_FOR_MODE or spread == 0:
        return median
    reach = 4 * _SD_PER_MAD * spread
    counts, edges = np.histogram(values, _BINS, (median - reach, median + reach))
    peak = int(np.argmax(ndimage.gaussian_filter1d(counts.astype(np.float64), 2.0)))
    return float(edges[peak] + edges[peak + 1]) / 2
