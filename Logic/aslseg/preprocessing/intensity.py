"""Intensities: CT windows for SAM, and the scales that the specialist's inputs are given in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.volume import Mask

SD_PER_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""
WINDOW_REACH, ORGAN_REACH = 2.0, 6.0
"""What networks are given of a window's scale, and of an organ's: that much on either side."""
HEADROOM = 2.0
"""How many times as far intensities are kept for training, which changes them before the cut."""
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


@dataclass(frozen=True, slots=True)
class IntensityScale:
    """Intensities x as (x - centre) / unit, of which a network is given [-reach, reach].

    Attributes:
        centre: In the unit of the voxels, HU for CT.
        unit: In the unit of the voxels.
        reach: In units of the scale.
    """

    centre: float
    unit: float
    reach: float

    def normalised(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 of any shape, cut off at `HEADROOM` times the reach."""
        scaled: NDArray[np.float32] = np.subtract(voxels, self.centre, dtype=np.float32)
        scaled /= self.unit
        return np.clip(scaled, -HEADROOM * self.reach, HEADROOM * self.reach, out=scaled)

    def limits(self, lowest: float, highest: float) -> tuple[float, float]:
        """Return the normalised limits of what networks are given of a volume.

        They are those of the scale, or of the volume where that is narrower: in a file that was
        saturated when it was written, a change of brightness has to saturate at the same level.

        Args:
            lowest: Of the volume's voxels.
            highest: Of the volume's voxels.
        """
        low = max((lowest - self.centre) / self.unit, -self.reach)
        high = min((highest - self.centre) / self.unit, self.reach)
        return (low, high) if low < high else (-self.reach, self.reach)


def window_scale(window_hu: tuple[float, float]) -> IntensityScale:
    """Return the scale on which a window is [-2, 2]."""
    low, high = window_hu
    return IntensityScale((low + high) / 2, (high - low) / (2 * WINDOW_REACH), WINDOW_REACH)


def organ_scale(voxels: NDArray[Any], organ_mask: Mask, least_scale: float = 1.0) -> IntensityScale:
    """Return the scale of robust deviations from the intensities of an organ.

    Contrast phase and scanner shift the organ as a whole; what is left is the lesion in it. The
    centre is the organ's most frequent intensity, which a large lesion does not shift as it shifts
    the median; the unit is 1.4826 times the median absolute deviation from it.

    Args:
        voxels: Any shape.
        organ_mask: Same shape; an empty mask stands for all voxels.
        least_scale: Smallest unit, in that of `voxels`: noise is not blown up.
    """
    centre, spread = centre_and_spread(voxels, organ_mask)
    return IntensityScale(centre, max(spread, least_scale), ORGAN_REACH)


def centre_and_spread(voxels: NDArray[Any], organ_mask: Mask) -> tuple[float, float]:
    """Return an organ's most frequent intensity, and the robust spread around it.

    Args:
        voxels: Any shape.
        organ_mask: Same shape; an empty mask stands for all voxels.

    Returns:
        Both in the unit of `voxels`; the spread is 1.4826 times the median absolute deviation.

    Raises:
        ValueError: When the shapes differ.
    """
    if organ_mask.shape != voxels.shape:
        msg = f"Voxels {voxels.shape} and mask {organ_mask.shape} must have one shape."
        raise ValueError(msg)
    inside = voxels[organ_mask] if organ_mask.any() else voxels.ravel()
    centre = most_frequent(inside)
    return centre, SD_PER_MAD * _median_deviation(inside, centre)


def _median_deviation(values: NDArray[Any], centre: float) -> float:
    deviations: NDArray[np.float32] = np.subtract(values, centre, dtype=np.float32)
    np.abs(deviations, out=deviations)
    return float(np.median(deviations, overwrite_input=True))


def most_frequent(values: NDArray[Any]) -> float:
    """Return the mode of a sample by a smoothed histogram; the median of fewer than 1000 values.

    Args:
        values: Any shape, at least one value.
    """
    median = float(np.median(values))
    spread = _median_deviation(values, median)
    if values.size < _FEWEST_FOR_MODE or spread == 0:
        return median
    reach = 4 * SD_PER_MAD * spread
    counts, edges = np.histogram(values, _BINS, (median - reach, median + reach))
    peak = int(np.argmax(ndimage.gaussian_filter1d(counts.astype(np.float64), 2.0)))
    return float(edges[peak] + edges[peak + 1]) / 2
