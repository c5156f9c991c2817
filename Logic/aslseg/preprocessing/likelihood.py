"""How likely an intensity is for an organ: what the second pass of a stage is given (ours).

Organs differ from patient to patient in brightness, and next to one lies what is brighter or darker
than it: bowel with contrast medium, for example. A network with instance normalisation cannot see
that, for the mean of each channel is taken away. The likelihood is no linear function of the
intensity, so normalisation leaves it as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aslseg.config import RoiConfig
from aslseg.data.masks import clean_parent
from aslseg.data.volume import Float32, Mask
from aslseg.preprocessing.intensity import WINDOW_REACH, centre_and_spread, window_scale
from aslseg.preprocessing.roi import Roi


def likelihood_roi(roi: Roi, organ: Mask, settings: RoiConfig) -> Roi:
    """Return a ROI whose image says how likely each intensity is for an organ.

    It is a normal density around the organ's most frequent intensity, stretched so that its
    greatest value is the upper end of what a network is given of a window, and zero the lower one.

    Args:
        roi: Of a stage without a parent.
        organ: (d, h, w) where the organ is, as labelled or as predicted; its largest part counts,
            and an empty mask stands for all voxels.
        settings: Window, and the density's standard deviation.
    """
    image = np.asarray(roi.image)
    centre, _ = centre_and_spread(image, clean_parent(organ) if organ.any() else organ)
    deviation = settings.likelihood_sd_hu / window_scale(settings.window_hu).unit
    likelihood: Float32 = np.exp(-0.5 * ((image - np.float32(centre)) / np.float32(deviation)) ** 2)
    stretched = (2 * WINDOW_REACH) * likelihood - WINDOW_REACH
    return replace(roi, image=stretched, limits=(-WINDOW_REACH, WINDOW_REACH))
