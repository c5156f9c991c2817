"""Parts of masks, holes, and what a target contains."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.masks import (
    depth_in_slice,
    drop_small,
    fill_holes_2d,
    keep_largest,
    label_components,
)
from aslseg.data.volume import Labelmap, Mask
from aslseg.targets import LIVER_TARGETS, Target, region_mask, region_values


@pytest.fixture
def two_cubes() -> Mask:
    """Cubes of 8 and 27 voxels that share one corner."""
    mask = np.zeros((6, 6, 6), np.bool_)
    mask[:2, :2, :2] = True
    mask[2:5, 2:5, 2:5] = True
    return mask


@pytest.mark.parametrize(
    ("offset", "counts"),
    [
        pytest.param((0, 0, 1), [1, 1, 1], id="face"),
        pytest.param((0, 1, 1), [2, 1, 1], id="edge"),
        pytest.param((1, 1, 1), [2, 2, 1], id="corner"),
        pytest.param((0, 0, 2), [2, 2, 2], id="gap"),
    ],
)
def test_connectivity_says_which_neighbours_belong_together(
    offset: tuple[int, int, int], counts: list[int]
) -> None:
    mask = np.zeros((3, 3, 3), np.bool_)
    mask[0, 0, 0] = mask[offset] = True
    assert [label_components(mask, c)[1] for c in (1, 2, 3)] == counts


def test_parts_of_a_slice_can_be_numbered_too() -> None:
    numbered, count = label_components(np.eye(3, dtype=np.bool_), 3)
    assert count == 1
    assert numbered.dtype == np.int32
    assert label_components(np.eye(3, dtype=np.bool_), 1)[1] == 3


def test_other_connectivities_do_not_exist(two_cubes: Mask) -> None:
    with pytest.raises(ValueError, match="1, 2 or 3"):
        label_components(two_cubes, 26)


def test_keeping_the_largest_part_drops_the_smaller_cube(two_cubes: Mask) -> None:
    kept = keep_largest(two_cubes, connectivity=1)
    assert np.count_nonzero(kept) == 27
    assert not kept[:2, :2, :2].any()


def test_keeping_the_largest_part_keeps_what_a_corner_joins(two_cubes: Mask) -> None:
    np.testing.assert_array_equal(keep_largest(two_cubes), two_cubes)


def test_of_equal_parts_the_first_is_kept() -> None:
    assert keep_largest(np.array([[True, False, True]])).tolist() == [[True, False, False]]


def test_nothing_stays_nothing() -> None:
    nothing = np.zeros((2, 3, 4), np.bool_)
    for result in (keep_largest(nothing), drop_small(nothing, 1), fill_holes_2d(nothing)):
        assert result.shape == nothing.shape
        assert not result.any()


@pytest.mark.parametrize(("least", "left"), [(8, 35), (9, 27), (27, 27), (28, 0)])
def test_small_parts_are_dropped(two_cubes: Mask, least: int, left: int) -> None:
    assert np.count_nonzero(drop_small(two_cubes, least, connectivity=1)) == left


def test_a_hole_is_filled_within_its_slice_only() -> None:
    mask = np.zeros((3, 7, 7), np.bool_)
    mask[1, 1:6, 1:6] = True
    mask[1, 2:5, 2:5] = False  # a ring: closed in the slice, open above and below
    filled = fill_holes_2d(mask)
    assert np.count_nonzero(filled) == 25
    assert np.count_nonzero(filled[1]) == 25


def test_a_bay_is_no_hole() -> None:
    mask = np.zeros((1, 5, 5), np.bool_)
    mask[0, 1:4, 1:4] = True
    mask[0, 2, 2:] = False
    np.testing.assert_array_equal(fill_holes_2d(mask), mask)


def test_a_ring_that_is_closed_by_corners_holds() -> None:
    mask = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]], np.bool_)
    assert np.count_nonzero(fill_holes_2d(mask)) == 5


def test_the_region_of_the_liver_holds_its_tumours(a_small_labelmap: Labelmap) -> None:
    liver, tumour = LIVER_TARGETS
    labels = a_small_labelmap.labels
    assert np.count_nonzero(region_mask(labels, liver, LIVER_TARGETS)) == 4 * 10 * 12
    assert np.count_nonzero(region_mask(labels, tumour, LIVER_TARGETS)) == 2 * 3 * 3


def test_regions_reach_through_several_levels() -> None:
    targets = [
        Target(name="necrosis", value=9, inside="tumour"),
        Target(name="tumour", value=2, inside="liver"),
        Target(name="liver", value=1),
        Target(name="spleen", value=3),
    ]
    assert sorted(region_values(targets[2], targets)) == [1, 2, 9]
    assert region_values(targets[0], targets) == [9]
    assert region_values(targets[3], targets) == [3]


def test_depth_in_a_slice_is_mm_from_the_edge_and_a_slice_ends_what_fills_it() -> None:
    section = np.zeros((5, 7), bool)
    section[1:4, 2:5] = True
    depth = depth_in_slice(section, (2.0, 1.0))
    assert depth[2, 3] == 2.0
    assert depth[2, 2] == 1.0
    assert depth[2, 0] == -2.0
    assert depth[0, 3] == -2.0
    whole = depth_in_slice(np.ones((5, 7), bool), (1.0, 1.0))
    np.testing.assert_array_equal(whole, whole[::-1, ::-1])
    assert whole.max() == whole[2, 3] == 3.0
