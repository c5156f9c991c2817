from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap
from aslseg.evaluation.lesions import longest_diameter_mm, measure_lesions
from aslseg.targets import LIVER_TARGETS

GRID = Geometry.axis_aligned((10, 20, 30), (4.0, 2.0, 1.0))


def labelled(*boxes: tuple[slice, slice, slice]) -> Labelmap:
    labels = np.ones(GRID.shape, np.uint8)
    for box in boxes:
        labels[box] = 2
    return Labelmap(labels, GRID)


def test_lesions_come_largest_first_with_volume_and_centre() -> None:
    small = (slice(1, 2), slice(2, 3), slice(4, 6))
    large = (slice(5, 8), slice(10, 12), slice(20, 23))
    found = measure_lesions(labelled(small, large), LIVER_TARGETS)
    assert [(lesion.target, lesion.number) for lesion in found] == [("tumour", 1), ("tumour", 2)]
    assert found[0].volume_ml == pytest.approx(18 * 8 / 1000)
    assert found[1].volume_ml == pytest.approx(2 * 8 / 1000)
    # centre of the large one: k = 6, j = 10.5, i = 21 on an LPS grid of 4 x 2 x 1 mm
    assert found[0].centre_ras == pytest.approx((-21.0, -21.0, 24.0))


@pytest.mark.parametrize(
    ("box", "diameter_mm"),
    [
        pytest.param((slice(3, 4), slice(5, 6), slice(7, 12)), 5.0, id="5 voxels of 1 mm in a row"),
        pytest.param((slice(3, 6), slice(5, 6), slice(7, 8)), 12.0, id="3 slices of 4 mm"),
        pytest.param((slice(3, 4), slice(5, 6), slice(7, 8)), 4.0, id="a single voxel"),
    ],
)
def test_the_longest_diameter_reaches_from_edge_to_edge(
    box: tuple[slice, slice, slice], diameter_mm: float
) -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[box] = True
    assert longest_diameter_mm(mask, GRID) == pytest.approx(diameter_mm)


def test_a_diagonal_adds_the_length_of_a_voxel_in_its_direction() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[2, 4, 4] = mask[2, 6, 8] = True  # 4 mm and 4 mm apart: 45 degrees
    # a ray at 45 degrees stays within a voxel of 1 x 2 mm for sqrt(2) mm
    assert longest_diameter_mm(mask, GRID) == pytest.approx(np.sqrt(32) + np.sqrt(2))


def test_a_large_ball_is_measured_by_its_hull() -> None:
    geometry = Geometry.axis_aligned((60, 60, 60), (1.0, 1.0, 1.0))
    k, j, i = np.indices(geometry.shape)
    ball = (k - 30) ** 2 + (j - 30) ** 2 + (i - 30) ** 2 <= 25**2
    assert longest_diameter_mm(ball, geometry) == pytest.approx(51.0, abs=0.5)


def test_turning_the_volume_does_not_change_a_diameter(
    an_oblique_geometry: Geometry, a_geometry: Geometry
) -> None:
    mask = np.zeros(a_geometry.shape, bool)
    mask[1:4, 5:12, 6:18] = True
    upright = longest_diameter_mm(mask, a_geometry)
    assert longest_diameter_mm(mask, an_oblique_geometry) == pytest.approx(upright)


def test_a_parent_is_measured_when_it_is_named() -> None:
    found = measure_lesions(labelled(), LIVER_TARGETS, ["liver"])
    assert [lesion.volume_ml for lesion in found] == [pytest.approx(6000 * 8 / 1000)]


def test_a_label_map_without_lesions_gives_no_rows() -> None:
    assert measure_lesions(labelled(), LIVER_TARGETS) == []
