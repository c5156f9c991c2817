"""Windows, deviations from an organ, pictures."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.preprocessing.intensity import normalise_to_organ, window


def test_a_window_maps_its_ends_to_0_and_1_and_cuts_the_rest() -> None:
    voxels = np.array([-32768, -100, 75, 250, 32767], np.int16)
    mapped = window(voxels, (-100.0, 250.0))
    assert mapped.dtype == np.float32
    np.testing.assert_allclose(mapped, [0.0, 0.0, 0.5, 1.0, 1.0])


def test_a_window_does_not_touch_its_input() -> None:
    voxels = np.array([1.0, 2.0], np.float32)
    window(voxels, (0.0, 1.0))
    assert voxels.tolist() == [1.0, 2.0]


def test_a_window_that_does_not_open_is_refused() -> None:
    with pytest.raises(ValueError, match="from low to high"):
        window(np.zeros(1), (250.0, -100.0))


def test_intensities_become_robust_deviations_from_the_organ() -> None:
    voxels = np.array([90, 100, 110, 120, 60, 3000, -1000], np.int16)
    organ = np.array([1, 1, 1, 0, 0, 0, 0], np.bool_)  # median 100, MAD 10
    deviations = normalise_to_organ(voxels, organ)
    expected = np.array([-10, 0, 10, 20, -40]) / 14.826
    np.testing.assert_allclose(deviations[:5], expected, rtol=1e-6)
    assert deviations[5:].tolist() == [6.0, -6.0]
    assert deviations.dtype == np.float32


@pytest.mark.parametrize(("least_scale", "expected"), [(1.0, 2.0), (4.0, 0.5)])
def test_a_uniform_organ_is_not_blown_up(least_scale: float, expected: float) -> None:
    voxels = np.array([50.0, 50.0, 52.0])
    organ = np.array([True, True, False])
    assert normalise_to_organ(voxels, organ, least_scale)[2] == pytest.approx(expected)


def test_without_an_organ_all_voxels_count() -> None:
    voxels = np.array([-10.0, 0.0, 10.0])
    nothing, everything = np.zeros(3, np.bool_), np.ones(3, np.bool_)
    np.testing.assert_array_equal(
        normalise_to_organ(voxels, nothing), normalise_to_organ(voxels, everything)
    )


def test_an_organ_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        normalise_to_organ(np.zeros((2, 2)), np.zeros(2, np.bool_))
