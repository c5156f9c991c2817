"""Bodies of 200 x 230 x 300 mm, large enough to be compared for being of one patient."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from aslseg.data.volume import Float32

SPACING_MM = (5.0, 3.0, 3.0)


def a_body(seed: int) -> Float32:
    """Draw (40, 76, 100) voxels of an elliptic body of 40 HU in air, with organs of its own."""
    rng = np.random.default_rng(seed)
    shape = (40, 76, 100)
    grain = ndimage.gaussian_filter(rng.normal(size=shape), 10.0 / np.array(SPACING_MM))
    _, j, i = np.indices(shape)
    body = ((j - 38) / 36) ** 2 + ((i - 50) / 48) ** 2 < 1
    voxels = np.where(body, 40.0 + 60.0 * grain / grain.std(), -1000.0)
    return voxels.astype(np.float32)


def moved(voxels: Float32, degrees: float, shift: tuple[float, float, float]) -> Float32:
    """Turn a body in the plane and shift it by voxels."""
    turned = ndimage.rotate(voxels, degrees, (2, 1), reshape=False, order=1, cval=-1000.0)
    return np.asarray(ndimage.shift(turned, shift, order=1, cval=-1000.0))
