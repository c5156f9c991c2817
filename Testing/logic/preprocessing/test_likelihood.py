"""A second pass is given how likely intensities are for what the first one found."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.config import RoiConfig, SpecialistConfig
from aslseg.data.volume import Float32, Geometry, Mask, Volume
from aslseg.preprocessing.likelihood import likelihood_roi
from aslseg.preprocessing.roi import Roi, build_roi
from aslseg.targets import LIVER_TARGETS, cascade_stages

SHAPE = (4, 24, 24)
SETTINGS = SpecialistConfig(roi=RoiConfig(pixel_mm=2.0, window_hu=(-100.0, 200.0)))
STAGE = cascade_stages(LIVER_TARGETS)[0]


def seen(image_hu: Float32, organ: Mask, spacing_mm: float = 2.0, *, is_label: bool = True) -> Roi:
    spacing = (5.0, spacing_mm, spacing_mm)
    volume = Volume(image_hu, Geometry.axis_aligned(image_hu.shape, spacing))
    roi = build_roi(volume, STAGE, SETTINGS)
    return likelihood_roi(roi, volume, organ, SETTINGS.roi, is_label=is_label)


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
    roi = seen(an_image(organ_hu), organ())
    at = {"organ": roi.image[0, 12, 12], "bowel": roi.image[0, 20, 8], "fat": roi.image[0, 0, 0]}
    expected = {
        "organ": 2.0,
        "bowel": 4 * np.exp(-0.5 * (60 / 25) ** 2) - 2,
        "fat": 4 * np.exp(-0.5 * (50 / 25) ** 2) - 2,
    }
    assert at == pytest.approx(expected, abs=0.02)
    assert roi.limits == (-2.0, 2.0)
    assert roi.image.dtype == np.float32


def test_the_largest_part_of_what_was_found_says_what_is_likely() -> None:
    found = organ()
    found[0, 18:22, 4:8] = True  # some bowel, apart from the organ
    roi = seen(an_image(90.0), found)
    assert roi.image[0, 12, 12] == pytest.approx(2.0, abs=0.02)


def test_where_nothing_was_found_all_voxels_say_what_is_likely() -> None:
    roi = seen(an_image(90.0), np.zeros(SHAPE, np.bool_))
    assert np.isfinite(roi.image).all()
    assert roi.image[0, 0, 0] > roi.image[0, 20, 8]


def test_bright_and_dark_voxels_of_one_pixel_are_no_organ() -> None:
    image = np.repeat(np.repeat(an_image(90.0), 2, axis=1), 2, axis=2)
    image[:, 36:44:2, 8:32] = 200.0  # stripes whose mean is the organ's intensity
    image[:, 37:44:2, 8:32] = -20.0
    roi = seen(image, organ(), spacing_mm=1.0)
    assert roi.image.shape == SHAPE
    assert roi.image[0, 12, 12] == pytest.approx(2.0, abs=0.02)
    assert roi.image[0, 19:21, 6:14].max() < -1.9


@pytest.mark.parametrize("organ_hu", [30.0, 110.0])
def test_a_predicted_organ_is_as_likely_and_what_lies_beside_it_less(organ_hu: float) -> None:
    roi = seen(an_image(organ_hu), organ(), is_label=False)
    assert roi.image[0, 12, 12] == pytest.approx(2.0, abs=0.02)
    assert (roi.image[0, 20, 8], roi.image[0, 0, 0]) == pytest.approx((-2.0, -1.8), abs=0.25)
    assert roi.limits == (-2.0, 2.0)
    assert roi.image.dtype == np.float32


def test_lesions_that_fill_a_predicted_organ_are_likely_and_a_little_bowel_in_it_is_not() -> None:
    image, found = an_image(110.0), organ()
    image[:, 4:8, 4:16] = 45.0  # a third of it
    found[:, 16:18, 4:12] = True
    image[:, 16:18, 4:12] = 200.0
    by_label, predicted = (seen(image, found, is_label=flag) for flag in (True, False))
    lesion, bowel = (0, 6, 10), (0, 17, 8)
    assert by_label.image[lesion] < -1.8
    assert predicted.image[lesion] > -0.5
    assert predicted.image[bowel] == -2.0
    assert predicted.image[0, 12, 12] == pytest.approx(2.0, abs=0.02)


def test_where_nothing_was_predicted_all_voxels_say_what_is_likely() -> None:
    roi = seen(an_image(90.0), np.zeros(SHAPE, np.bool_), is_label=False)
    assert np.isfinite(roi.image).all()
    flat = seen(np.full(SHAPE, 7.0, np.float32), organ(), is_label=False)
    assert flat.image == pytest.approx(2.0, abs=0.02)
