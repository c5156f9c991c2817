"""Each error of a synthetic pseudo-label does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.masks import label_components
from aslseg.data.volume import Mask
from aslseg.training.mask_corruption import (
    WEIGHTS,
    MaskCorruption,
    MaskError,
    apply_corruption,
    sample_corruption,
)

SHAPE = (8, 40, 40)
SPACING = (4.0, 1.0, 1.0)


def cubes(*corners: tuple[int, int, int], edge: int = 6) -> Mask:
    """Return cubes of 2 slices and `edge` x `edge` pixels."""
    mask = np.zeros(SHAPE, bool)
    for k, j, i in corners:
        mask[k : k + 2, j : j + edge, i : i + edge] = True
    return mask


INSIDE = np.zeros(SHAPE, bool)
INSIDE[:, 2:36, 2:36] = True
TRUTH = cubes((1, 5, 5), (4, 5, 25), (4, 25, 5))


def flawed(
    mask_error: MaskError,
    *,
    size_mm: float = 2.0,
    seed: int = 0,
    mask: Mask = TRUTH,
    spacing: tuple[float, float, float] = SPACING,
) -> Mask:
    return apply_corruption(mask, MaskCorruption((mask_error,), size_mm, seed), spacing, INSIDE)


def parts(mask: Mask) -> int:
    return label_components(mask)[1]


@pytest.mark.parametrize("mask_error", list(MaskError))
@pytest.mark.parametrize("mask", [TRUTH, np.zeros(SHAPE, bool)], ids=["three lesions", "none"])
def test_a_mask_error_is_the_same_for_the_same_draw_and_leaves_the_truth_alone(
    mask_error: MaskError, mask: Mask
) -> None:
    before = mask.copy()
    first = flawed(mask_error, mask=mask)
    assert first.dtype == np.bool_
    np.testing.assert_array_equal(first, flawed(mask_error, mask=mask))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize(
    "mask_error", [MaskError.MISSED, MaskError.INVENTED, MaskError.SHIFTED, MaskError.RAGGED]
)
def test_other_seeds_give_other_mask_errors(mask_error: MaskError) -> None:
    seen = {flawed(mask_error, seed=seed, size_mm=3.0).tobytes() for seed in range(12)}
    assert len(seen) > 2


def test_no_mask_error_is_the_truth() -> None:
    np.testing.assert_array_equal(flawed(MaskError.NONE), TRUTH)


def test_an_empty_label_is_empty() -> None:
    assert not flawed(MaskError.EMPTY).any()


@pytest.mark.parametrize(("lesions", "missed"), [(1, 1), (3, 1), (5, 1), (6, 2)])
def test_a_third_of_the_components_is_missed_and_at_least_one(lesions: int, missed: int) -> None:
    corners = [(1 + 4 * (n // 3), 5, 3 + 11 * (n % 3)) for n in range(lesions)]
    mask = cubes(*corners)
    for seed in range(5):
        kept = flawed(MaskError.MISSED, mask=mask, seed=seed)
        assert parts(kept) == lesions - missed
        assert not (kept & ~mask).any()
        assert kept.sum() == 72 * (lesions - missed)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_invented_lies_inside_and_the_truth_stays(seed: int) -> None:
    damaged = flawed(MaskError.INVENTED, seed=seed)
    added = damaged & ~TRUTH
    assert added.any()
    assert not (added & ~INSIDE).any()
    assert (damaged & TRUTH).sum() == TRUTH.sum()
    assert parts(added) <= 3


def test_a_truth_that_leaves_its_parent_roi_is_not_cut_by_an_invention() -> None:
    outside = cubes((1, 33, 33))
    assert (flawed(MaskError.INVENTED, mask=outside) & outside).sum() == outside.sum()


def test_where_there_is_no_room_nothing_is_invented() -> None:
    corruption = MaskCorruption((MaskError.INVENTED,), 2.0, 0)
    nowhere = np.zeros(SHAPE, bool)
    np.testing.assert_array_equal(apply_corruption(TRUTH, corruption, SPACING, nowhere), TRUTH)
    np.testing.assert_array_equal(apply_corruption(TRUTH, corruption, SPACING, TRUTH), TRUTH)


def test_what_is_invented_has_a_size_in_millimetres() -> None:
    """Of 3 to 15 mm radius; slices of 4 mm reach at most 3 to either side of the centre's."""
    mask, room = np.zeros((21, 60, 60), bool), np.zeros((21, 60, 60), bool)
    room[10, 30, 30] = True
    everywhere = np.ones_like(room)
    for seed in range(10):
        corruption = MaskCorruption((MaskError.INVENTED,), 2.0, seed)
        found = np.argwhere(apply_corruption(mask, corruption, SPACING, everywhere))
        extent_mm = (np.ptp(found, axis=0) + 1) * SPACING
        assert len(found) >= 9
        assert extent_mm.min() >= 4.0
    only_there = apply_corruption(
        mask, MaskCorruption((MaskError.INVENTED,), 2.0, 0), SPACING, room
    )
    assert only_there.sum() == 1


@pytest.mark.parametrize(
    ("mask_error", "size_mm", "spacing", "edge"),
    [
        pytest.param(MaskError.ERODED, 1.0, (4.0, 1.0, 1.0), 4, id="eroded by a pixel"),
        pytest.param(MaskError.ERODED, 2.0, (4.0, 1.0, 1.0), 2, id="eroded by two"),
        pytest.param(MaskError.ERODED, 2.0, (4.0, 2.0, 2.0), 4, id="of coarse pixels by one"),
        pytest.param(MaskError.ERODED, 4.0, (4.0, 1.0, 1.0), 0, id="eroded away"),
    ],
)
def test_erosion_takes_millimetres_from_each_side_in_plane(
    mask_error: MaskError, size_mm: float, spacing: tuple[float, float, float], edge: int
) -> None:
    mask = cubes((3, 15, 15))
    damaged = flawed(mask_error, size_mm=size_mm, mask=mask, spacing=spacing)
    assert damaged.sum() == 2 * edge * edge
    assert not (damaged & ~mask).any()


@pytest.mark.parametrize(
    ("size_mm", "spacing", "columns"),
    [
        pytest.param(1.0, (4.0, 1.0, 1.0), 8, id="by a pixel"),
        pytest.param(2.0, (4.0, 1.0, 1.0), 10, id="by two"),
        pytest.param(2.0, (4.0, 2.0, 2.0), 8, id="of coarse pixels by one"),
    ],
)
def test_dilation_adds_millimetres_to_each_side_in_plane(
    size_mm: float, spacing: tuple[float, float, float], columns: int
) -> None:
    mask = cubes((3, 15, 15))
    damaged = flawed(MaskError.DILATED, size_mm=size_mm, mask=mask, spacing=spacing)
    assert damaged[3, 17].sum() == damaged[3, :, 17].sum() == columns
    assert (damaged & mask).sum() == mask.sum()
    assert np.flatnonzero(damaged.any((1, 2))).tolist() == [3, 4]


@pytest.mark.parametrize("seed", range(6))
def test_a_shift_moves_all_by_one_way_in_plane(seed: int) -> None:
    mask = cubes((3, 15, 15))
    moved = flawed(MaskError.SHIFTED, size_mm=4.0, mask=mask, seed=seed)
    offset = np.argwhere(moved).min(0) - np.argwhere(mask).min(0)
    assert moved.sum() == mask.sum()
    assert offset[0] == 0
    assert np.hypot(*offset[1:]) == pytest.approx(4.0, abs=0.75)


def test_a_ragged_boundary_goes_both_in_and_out_but_not_far() -> None:
    mask = cubes((3, 10, 10), edge=20)
    ragged = flawed(MaskError.RAGGED, size_mm=3.0, mask=mask)
    assert (ragged & ~mask).any()
    assert (mask & ~ragged).any()
    overlap = 2 * (ragged & mask).sum() / (ragged.sum() + mask.sum())
    assert 0.7 < overlap < 1.0
    assert not ragged[[0, 1, 2, 5, 6, 7]].any()


def test_mask_errors_follow_each_other_in_their_order() -> None:
    empty_then_invented = apply_corruption(
        TRUTH, MaskCorruption((MaskError.EMPTY, MaskError.INVENTED), 2.0, 0), SPACING, INSIDE
    )
    assert empty_then_invented.any()
    invented_then_empty = apply_corruption(
        TRUTH, MaskCorruption((MaskError.INVENTED, MaskError.EMPTY), 2.0, 0), SPACING, INSIDE
    )
    assert not invented_then_empty.any()


def test_draws_repeat_with_their_seed_and_stay_in_range() -> None:
    first, again = (sample_corruption(np.random.default_rng(5)) for _ in range(2))
    assert first == again
    drawn = [sample_corruption(np.random.default_rng(seed)) for seed in range(200)]
    assert {len(c.errors) for c in drawn} == {1, 2, 3}
    assert all(len(set(c.errors)) == len(c.errors) for c in drawn)
    assert all(1.0 <= c.size_mm <= 5.0 for c in drawn)
    assert {mask_error for c in drawn for mask_error in c.errors} == set(MaskError) == set(WEIGHTS)


@pytest.mark.parametrize("mask_error", [MaskError.ERODED, MaskError.DILATED, MaskError.RAGGED])
def test_a_slice_that_is_full_of_target_is_no_trouble(mask_error: MaskError) -> None:
    """Where the whole slice is target there is no boundary to move."""
    mask = np.zeros(SHAPE, bool)
    mask[3] = True
    np.testing.assert_array_equal(flawed(mask_error, mask=mask), mask)
