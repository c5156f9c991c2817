"""Windows, deviations from an organ, and what is cut off where."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.preprocessing.intensity import IntensityScale, organ_scale, window, window_scale


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


def test_a_windows_scale_goes_from_minus_2_to_2_and_keeps_as_much_on_either_side() -> None:
    scale = window_scale((-100.0, 300.0))
    assert scale == IntensityScale(centre=100.0, unit=100.0, reach=2.0)
    voxels = np.array([-1000, -100, 100, 250, 400, 1000], np.int16)
    assert scale.normalised(voxels).tolist() == [-4.0, -2.0, 0.0, 1.5, 3.0, 4.0]


@pytest.mark.parametrize(
    ("extremes", "limits"),
    [
        pytest.param((-1000.0, 2000.0), (-2.0, 2.0), id="the window's"),
        pytest.param((-50.0, 150.0), (-1.5, 0.5), id="a file that is cut off within the window"),
        pytest.param((-1000.0, 150.0), (-2.0, 0.5), id="one end of either"),
        pytest.param((500.0, 900.0), (-2.0, 2.0), id="a file that the window shows nothing of"),
        pytest.param((100.0, 100.0), (-2.0, 2.0), id="a file without any contrast"),
    ],
)
def test_networks_are_given_what_window_and_file_have(
    extremes: tuple[float, float], limits: tuple[float, float]
) -> None:
    assert window_scale((-100.0, 300.0)).limits(*extremes) == limits


def test_intensities_become_robust_deviations_from_the_organ() -> None:
    voxels = np.array([90, 100, 110, 120, 60, 3000, -1000], np.int16)
    organ = np.array([1, 1, 1, 0, 0, 0, 0], np.bool_)  # median 100, MAD 10
    scale = organ_scale(voxels, organ)
    deviations = scale.normalised(voxels)
    expected = np.array([-10, 0, 10, 20, -40]) / 14.826
    np.testing.assert_allclose(deviations[:5], expected, rtol=1e-6)
    assert deviations[5:].tolist() == [12.0, -12.0]
    assert scale.limits(-1000.0, 3000.0) == (-6.0, 6.0)
    assert deviations.dtype == np.float32


@pytest.mark.parametrize(("least_scale", "expected"), [(1.0, 2.0), (4.0, 0.5)])
def test_a_uniform_organ_is_not_blown_up(least_scale: float, expected: float) -> None:
    voxels = np.array([50.0, 50.0, 52.0])
    organ = np.array([True, True, False])
    scale = organ_scale(voxels, organ, least_scale)
    assert scale.normalised(voxels)[2] == pytest.approx(expected)


def test_without_an_organ_all_voxels_count() -> None:
    voxels = np.array([-10.0, 0.0, 10.0])
    nothing, everything = np.zeros(3, np.bool_), np.ones(3, np.bool_)
    assert organ_scale(voxels, nothing) == organ_scale(voxels, everything)


def test_an_organ_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        organ_scale(np.zeros((2, 2)), np.zeros(2, np.bool_))
