"""A second pass is given how likely intensities are for what the first one found."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.config import RoiConfig
from aslseg.data.masks import BoundingBox
from aslseg.data.volume import Float32, Mask
from aslseg.preprocessing.likelihood import likelihood_roi
from aslseg.preprocessing.roi import Roi

SHAPE = (4, 24, 24)
SETTINGS = RoiConfig(window_hu=(-100.0, 200.0), likelihood_sd_hu=25.0)
UNIT_HU, CENTRE_HU = 75.0, 50.0
"""Of the window's scale: 50 HU is 0, and 200 HU is 2."""


def a_roi(image_hu: Float32) -> Roi:
    image = ((image_hu - CENTRE_HU) / UNIT_HU).astype(np.float32)
    return Roi(image, None, None, BoundingBox((0, 0, 0), SHAPE), SHAPE, 1)


def organ() -> Mask:
    mask = np.zeros(SHAPE, np.bool_)
    mask[:, 4:16, 4:16] = True
    return mask


def an_image(organ_hu: float) -> Float32:
    """An organ, bowel that is 60 HU brighter, tissue 50 HU darker, and a lesion in the organ."""
    image = np.full(SHAPE, organ_hu - 50.0, np.float32)
    image[organ()] = organ_hu
    image[:, 18:22, 4:16] = organ_hu + 60.0
    image[:, 5:8, 5:8] = organ_hu - 40.0
    return image


@pytest.mark.parametrize("organ_hu", [30.0, 110.0])
def test_organ_bright_bowel_and_tissue_are_alike_however_bright_the_organ_is(
    organ_hu: float,
) -> None:
    seen = likelihood_roi(a_roi(an_image(organ_hu)), organ(), SETTINGS)
    at = {"organ": seen.image[0, 12, 12], "bowel": seen.image[0, 20, 8], "fat": seen.image[0, 0, 0]}
    expected = {
        "organ": 2.0,
        "bowel": 4 * np.exp(-0.5 * (60 / 25) ** 2) - 2,
        "fat": 4 * np.exp(-0.5 * (50 / 25) ** 2) - 2,
    }
    assert at == pytest.approx(expected, abs=0.02)
    assert seen.limits == (-2.0, 2.0)
    assert seen.image.dtype == np.float32


def test_the_largest_part_of_what_was_found_says_what_is_likely() -> None:
    found = organ()
    found[0, 18:22, 4:8] = True  # some bowel, apart from the organ
    seen = likelihood_roi(a_roi(an_image(90.0)), found, SETTINGS)
    assert seen.image[0, 12, 12] == pytest.approx(2.0, abs=0.02)


def test_where_nothing_was_found_all_voxels_say_what_is_likely() -> None:
    seen = likelihood_roi(a_roi(an_image(90.0)), np.zeros(SHAPE, np.bool_), SETTINGS)
    assert np.isfinite(seen.image).all()
    assert seen.image[0, 0, 0] > seen.image[0, 20, 8]
