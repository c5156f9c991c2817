"""How likely an intensity is for an organ: what the second pass of a stage is given (ours).

Organs differ from patient to patient in brightness, and next to one lies what is brighter or darker
than it: bowel with contrast medium, for example. A network with instance normalisation cannot see
that, for the mean of each channel is taken away. The likelihood is no linear function of the
intensity, so normalisation leaves it as it is. It is taken before voxels are averaged to working
pixels: bright and dark ones in one pixel are no organ, though their mean may look like one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.config import RoiConfig
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.preprocessing.intensity import WINDOW_REACH, centre_and_spread, window_scale
from aslseg.preprocessing.roi import Roi, resample

LIMITS = (-WINDOW_REACH, WINDOW_REACH)
"""No likelihood, and the greatest: what a network is given of a window."""


@dataclass(frozen=True, slots=True)
class IntensityLikelihood:
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


def likelihood_roi(roi: Roi, volume: Volume, organ: Mask, settings: RoiConfig) -> Roi:
    """Return a ROI whose image says how likely intensities are for an organ.

    The organ's most frequent intensity is the most likely one.

    Args:
        roi: Of a stage without a parent.
        volume: That it is of.
        organ: (d, h, w) where the organ is, as labelled or as predicted; its largest part counts,
            and an empty mask stands for all voxels.
        settings: Window of the ROI, and the density's standard deviation.
    """
    part = clean_parent(organ) if organ.any() else organ
    centre, _ = centre_and_spread(np.asarray(roi.image), part)
    scale = window_scale(settings.window_hu)
    centre_hu = scale.centre + scale.unit * centre
    likelihood = IntensityLikelihood(centre_hu, settings.likelihood_sd_hu)
    voxels = roi.turn.volume(volume).voxels[roi.box.slices]
    return replace(
        roi, image=resample(voxels, roi.image.shape, "linear", likelihood), limits=LIMITS
    )
