from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.evaluation.measurements import (
    axial_diameters_mm,
    longest_diameter_mm,
    measure_lesions,
    measure_targets,
)
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
    assert found[0].centroid_ras == pytest.approx((-21.0, -21.0, 24.0))


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


def ellipse(
    geometry: Geometry, centre_ijk: tuple[float, float, float], radii_mm: tuple[float, float, float]
) -> np.ndarray:
    """Draw an ellipsoid along the stored axes i, j, k."""
    k, j, i = np.indices(geometry.shape)
    sizes = geometry.spacing_mm[::-1]
    parts = [
        (index - centre) * size / radius
        for index, centre, size, radius in zip((i, j, k), centre_ijk, sizes, radii_mm, strict=True)
    ]
    return np.asarray(sum(part**2 for part in parts) <= 1)


def turned(geometry: Geometry) -> Geometry:
    """Turn a grid by 25 degrees about the patient's left-right axis: a tilted stack."""
    cos, sin = np.cos(np.radians(25)), np.sin(np.radians(25))
    turn = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1.0]])
    return Geometry(geometry.shape, turn @ geometry.ijk_to_ras)


def test_axial_diameters_are_those_of_the_largest_slice_in_mm() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[2, 4:6, 10:13] = True  # 4 x 3 mm
    mask[3, 4:14, 10:13] = True  # 20 x 3 mm
    long_mm, short_mm, index = axial_diameters_mm(mask, GRID)
    # corner to corner: centres 18 and 2 mm apart, and a voxel of 2 x 1 mm along that direction
    diagonal = np.hypot(18, 2)
    assert long_mm == pytest.approx(diagonal + 2 * diagonal / 18)
    assert 3.0 <= short_mm <= 4.0
    assert index == 3


def test_axial_diameters_of_an_ellipse_are_its_axes_on_any_grid() -> None:
    upright = Geometry.axis_aligned((6, 80, 90), (5.0, 0.8, 0.7))
    mask = ellipse(upright, (44, 40, 3), (25.0, 12.0, 8.0))
    for geometry in (upright, turned(upright)):
        long_mm, short_mm, index = axial_diameters_mm(mask, geometry)
        assert long_mm == pytest.approx(50.0, abs=0.8)
        assert short_mm == pytest.approx(24.0, abs=0.9)
        assert index == 3


def test_axial_diameters_of_a_sheared_grid_are_in_the_space_of_the_patient() -> None:
    affine = np.diag([-1.0, -1.0, 4.0, 1.0])
    affine[0, 1] = 1.0  # rows are shifted: a square becomes a rhomb
    mask = np.zeros((3, 12, 12), bool)
    mask[1, 1:11, 1:11] = True
    long_mm, _, _ = axial_diameters_mm(mask, Geometry(mask.shape, affine))
    # centres of opposite corners: (9, 9) voxels are (18, 9) mm, (9, -9) voxels (0, 9) mm apart
    assert long_mm == pytest.approx(np.hypot(18, 9) * 10 / 9)


def test_axial_slices_of_a_sagittal_stack_are_those_of_the_patient() -> None:
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -1.0, 2.0, -3.0, 1.0
    mask = np.zeros((10, 20, 30), bool)
    mask[2:6, 7, 5:9] = True  # k runs to the left by 3 mm, i to the back by 1 mm
    mask[2, 3:12, 5] = True
    long_mm, short_mm, index = axial_diameters_mm(mask, Geometry(mask.shape, affine))
    assert index == 7
    assert long_mm == pytest.approx(np.hypot(9, 3) * 4 / 3)
    assert short_mm < 7


def test_a_bent_lesion_is_as_wide_as_it_is_at_one_place() -> None:
    geometry = Geometry.axis_aligned((1, 40, 40))
    mask = np.zeros(geometry.shape, bool)
    mask[0, 5:35, 5:8] = True
    mask[0, 5:8, 5:12] = True  # a hook at the end
    _, short_mm, _ = axial_diameters_mm(mask, geometry)
    assert 7 <= short_mm <= 9


def test_of_two_parts_in_a_slice_the_larger_is_measured() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[3, 2:4, 2:5] = mask[3, 2:4, 20:28] = True
    mask[4, 2:4, 2:3] = mask[4, 2:4, 27:28] = True
    long_mm, _, _ = axial_diameters_mm(mask, GRID)
    assert long_mm < 10


def test_a_large_section_is_measured_by_its_hull() -> None:
    geometry = Geometry.axis_aligned((2, 900, 900), (5.0, 0.5, 0.5))
    disc = ellipse(geometry, (450, 450, 0), (220.0, 180.0, 1.0))
    ragged = disc & (np.indices(disc.shape).sum(axis=0) % 2 == 0)  # every voxel is at the surface
    for mask in (disc, ragged):
        long_mm, short_mm, _ = axial_diameters_mm(mask, geometry)
        assert long_mm == pytest.approx(440.0, abs=1.0)
        assert short_mm == pytest.approx(360.0, abs=1.5)


def test_a_single_voxel_has_its_edges_as_diameters() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[9, 19, 29] = True
    assert axial_diameters_mm(mask, GRID) == (2.0, 1.0, 9)


def test_hu_are_those_of_the_lesions_voxels() -> None:
    labelmap = labelled((slice(1, 2), slice(2, 3), slice(4, 6)))
    voxels = np.full(GRID.shape, 100, np.int16)
    voxels[1, 2, 4], voxels[1, 2, 5] = 30, 50
    found = measure_lesions(labelmap, LIVER_TARGETS, image=Volume(voxels, GRID))[0]
    assert (found.mean_hu, found.sd_hu) == (40.0, 10.0)
    assert measure_lesions(labelmap, LIVER_TARGETS)[0].mean_hu is None


def test_an_image_of_another_size_is_refused() -> None:
    other = Geometry.axis_aligned((3, 3, 3))
    with pytest.raises(ValueError, match="differ"):
        measure_lesions(
            labelled(), LIVER_TARGETS, image=Volume(np.zeros((3, 3, 3), np.int16), other)
        )


def test_the_slice_of_a_lesions_diameter_is_one_of_the_whole_volume() -> None:
    box = (slice(5, 8), slice(10, 12), slice(20, 23))
    assert measure_lesions(labelled(box), LIVER_TARGETS)[0].slice_index == 5


def test_a_targets_volume_has_what_lies_inside_of_it() -> None:
    labelmap = labelled(
        (slice(1, 2), slice(2, 3), slice(4, 6)), (slice(5, 8), slice(10, 12), slice(20, 23))
    )
    lesions = measure_lesions(labelmap, LIVER_TARGETS)
    liver, tumour = measure_targets(labelmap, LIVER_TARGETS, lesions)
    assert liver.volume_ml == pytest.approx(6000 * 8 / 1000)
    assert (liver.percent_of_parent, liver.lesions, liver.longest_axial_mm) == (None, None, None)
    assert tumour.volume_ml == pytest.approx(20 * 8 / 1000)
    assert tumour.percent_of_parent == pytest.approx(100 * 20 / 6000)
    assert tumour.lesions == 2
    assert tumour.longest_axial_mm == lesions[0].axial_long_mm


def test_burden_of_an_empty_parent_is_unknown() -> None:
    labelmap = Labelmap(np.zeros(GRID.shape, np.uint8), GRID)
    _, tumour = measure_targets(labelmap, LIVER_TARGETS, [])
    assert tumour.percent_of_parent is None
    assert (tumour.volume_ml, tumour.lesions, tumour.longest_axial_mm) == (0.0, 0, None)
