"""How likely an intensity is for an organ: what the second pass of a stage is given (ours).

Organs differ from patient to patient in brightness, and next to one lies what is brighter or darker
than it: bowel with contrast medium, for example. A network with instance normalisation cannot see
that, for the mean of each channel is taken away. The likelihood is no linear function of the
intensity, so normalisation leaves it as it is. It is taken before voxels are averaged to working
pixels: bright and dark ones in one pixel are no organ, though their mean may look like one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.config import RoiConfig
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.preprocessing.intensity import WINDOW_REACH, centre_and_spread, window_scale
from aslseg.preprocessing.roi import Roi, resample

LIMITS = (-WINDOW_REACH, WINDOW_REACH)
"""No likelihood, and the greatest: what a network is given of a window."""
KERNEL = 0.8
"""Deviation of the kernel: with an organ's own spread it is about that of the normal density."""
FLOOR = 0.2
"""Part of the greatest density up to which intensities of what was predicted are not likely."""
_REACH, _BINS, _MOST_BINS = 4.0, 10, 4096
"""Kernels beyond the sample, bins of a kernel, and of a histogram at most."""


@dataclass(frozen=True, slots=True)
class NormalLikelihood:
    """A normal density of intensities, stretched from zero and its greatest value to `LIMITS`.

    Attributes:
        centre: In the unit of the voxels, HU for CT.
        deviation: In the unit of the voxels.
    """

    centre: float
    deviation: float

    def __call__(self, voxels: NDArray[Any]) -> Float32:
        """Return float32 within `LIMITS`, of the shape of the voxels."""
        values: Float32 = np.subtract(voxels, self.centre, dtype=np.float32)
        values /= self.deviation
        np.multiply(values, values, out=values)
        values *= -0.5
        np.exp(values, out=values)
        values *= LIMITS[1] - LIMITS[0]
        values += LIMITS[0]
        return values


@dataclass(frozen=True, slots=True, eq=False)
class SampleLikelihood:
    """The density of a sample of intensities, smoothed by a normal kernel (Parzen, 1962).

    What is less dense than `FLOOR` of the greatest density is not likely: it may be what lies
    beside the organ. The rest is stretched to `LIMITS`.

    Attributes:
        levels: (n,) ascending intensities, in the unit of the voxels, HU for CT.
        likelihoods: (n,) within `LIMITS`; interpolated between levels, lowest beyond them.
    """

    levels: NDArray[np.float64]
    likelihoods: NDArray[np.float64]

    @classmethod
    def of(cls, intensities: NDArray[Any], deviation: float) -> SampleLikelihood:
        """Estimate it.

        Args:
            intensities: Any shape, at least one value.
            deviation: Of the kernel, in the unit of the intensities.
        """
        reach = _REACH * deviation
        first, last = float(intensities.min()) - reach, float(intensities.max()) + reach
        bins = min(math.ceil((last - first) / deviation * _BINS), _MOST_BINS)
        counts, edges = np.histogram(intensities, bins, (first, last))
        kernel = deviation * bins / (last - first)
        density = ndimage.gaussian_filter1d(counts.astype(np.float64), kernel, mode="constant")
        share = np.clip(density / density.max() - FLOOR, 0.0, None) / (1.0 - FLOOR)
        return cls((edges[:-1] + edges[1:]) / 2, LIMITS[0] + (LIMITS[1] - LIMITS[0]) * share)

    def __call__(self, voxels: NDArray[Any]) -> Float32:
        """Return float32 within `LIMITS`, of the shape of the voxels."""
        found = np.interp(voxels, self.levels, self.likelihoods, LIMITS[0], LIMITS[0])
        values: Float32 = found.astype(np.float32)
        return values


def likelihood_roi(
    roi: Roi, volume: Volume, organ: Mask, settings: RoiConfig, *, is_label: bool
) -> Roi:
    """Return a ROI whose image says how likely intensities are for an organ.

    Of a label the most frequent intensity is the most likely one. What was predicted may be full
    of lesions that are darker, and hold some of what lies beside it, so all that is frequent in it
    is likely.

    Args:
        roi: Of a stage without a parent.
        volume: That it is of.
        organ: (d, h, w) where the organ is, as labelled or as predicted; its largest part counts,
            and an empty mask stands for all voxels.
        settings: Window of the ROI, and the density's standard deviation.
        is_label: Whether the organ is labelled, else it is predicted.
    """
    part = clean_parent(organ) if organ.any() else organ
    image, scale = np.asarray(roi.image), window_scale(settings.window_hu)
    likelihood: NormalLikelihood | SampleLikelihood
    if is_label:
        centre, _ = centre_and_spread(image, part)
        centre_hu = scale.centre + scale.unit * centre
        likelihood = NormalLikelihood(centre_hu, settings.likelihood_sd_hu)
    else:
        sample_hu = scale.centre + scale.unit * (image[part] if part.any() else image)
        likelihood = SampleLikelihood.of(sample_hu, KERNEL * settings.likelihood_sd_hu)
    voxels = roi.turn.volume(volume).voxels[roi.box.slices]
    return replace(
        roi, image=resample(voxels, roi.image.shape, "linear", likelihood), limits=LIMITS
    )
