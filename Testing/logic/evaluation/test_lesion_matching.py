"""Which candidate finds which lesion, on masks made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aslseg.data.volume import Float32, Mask
from aslseg.evaluation.lesion_matching import (
    LesionMatches,
    best_threshold,
    f1_of,
    lesion_candidates,
    match_lesions,
    sensitivity_at,
)

SHAPE = (6, 40, 40)
VOXEL_ML = 0.05  # ten voxels are a lesion that counts


def block(
    row: int, column: int, *, height: int = 4, width: int = 4, first: int = 1, depth: int = 2
) -> Mask:
    mask = np.zeros(SHAPE, bool)
    mask[first : first + depth, row : row + height, column : column + width] = True
    return mask


def probabilities(*parts: tuple[Mask, float]) -> Float32:
    found = np.zeros(SHAPE, np.float32)
    for mask, value in parts:
        found[mask] = value
    return found


def matched(probability: Float32, *truths: Mask) -> LesionMatches:
    truth = np.logical_or.reduce([np.zeros(SHAPE, bool), *truths])
    return match_lesions(probability, truth, VOXEL_ML)


def test_candidates_come_by_descending_peak() -> None:
    numbered, peaks = lesion_candidates(
        probabilities((block(2, 2), 0.3), (block(20, 20), 0.8)), VOXEL_ML
    )
    np.testing.assert_allclose(peaks, [0.8, 0.3])
    assert (numbered[block(20, 20)] == 1).all()
    assert (numbered[block(2, 2)] == 2).all()
    assert (numbered > 0).sum() == 64


def test_a_candidate_reaches_down_to_four_tenths_of_its_peak_and_its_slope_is_none() -> None:
    core, slope = block(10, 10), block(10, 14, width=3)
    numbered, peaks = lesion_candidates(probabilities((core, 0.875), (slope, 0.3)), VOXEL_ML)
    np.testing.assert_allclose(peaks, [0.875])
    assert (numbered > 0).sum() == core.sum()
    numbered, peaks = lesion_candidates(probabilities((core, 0.7), (slope, 0.3)), VOXEL_ML)
    assert (numbered == 1).sum() == core.sum() + slope.sum()  # 0.3 is above 0.28


def test_weak_and_tiny_candidates_are_none() -> None:
    tiny = np.zeros(SHAPE, bool)
    tiny[0, 0, 0] = True
    assert len(lesion_candidates(probabilities((block(2, 2), 0.09)), VOXEL_ML)[1]) == 0
    assert len(lesion_candidates(probabilities((tiny, 0.875)), 0.02)[1]) == 0
    assert len(lesion_candidates(probabilities((tiny, 0.875)), 0.04)[1]) == 1
    assert len(lesion_candidates(np.zeros(SHAPE, np.float32), VOXEL_ML)[1]) == 0


def test_a_lesion_is_found_with_the_peak_of_its_candidate() -> None:
    found = matched(probabilities((block(10, 10), 0.75)), block(10, 10))
    assert found == LesionMatches((pytest.approx(1.6),), (0.75,), ())


def test_a_touch_alone_finds_nothing_and_the_candidate_is_false() -> None:
    # 4 of 32 + 32 - 4 voxels in common: an IoU of 0.067.
    beside = block(12, 13, height=2, width=4, depth=4)
    found = matched(probabilities((beside, 0.5)), block(10, 10))
    assert found.found_with == (0.0,)
    assert found.false_with == (0.5,)


def test_an_iou_of_a_tenth_is_enough() -> None:
    # 8 common voxels of 32 + 56 - 8 = 80.
    found = matched(probabilities((block(10, 13, width=7), 0.5)), block(10, 10))
    assert found.found_with == (0.5,)


def test_one_candidate_over_two_lesions_finds_one_of_them() -> None:
    both = block(10, 10, width=9)
    found = matched(probabilities((both, 0.875)), block(10, 10), block(10, 15))
    assert sorted(found.found_with) == [0.0, 0.875]
    assert found.false_with == ()


def test_further_pieces_of_a_lesion_are_not_false() -> None:
    lesion = block(10, 10, width=10)
    pieces = probabilities((block(10, 10), 0.875), (block(10, 16), 0.625))
    found = matched(pieces, lesion)
    assert found.found_with == (0.875,) or found.found_with == (0.625,)
    assert found.false_with == ()


def test_as_many_lesions_as_possible_find_a_partner() -> None:
    """A overlaps both lesions, more with the one that is B's only chance."""
    first, second = block(10, 10, width=4), block(10, 16, width=8)
    a = block(10, 12, width=10)  # an IoU of 16/96 with the first, of 48/96 with the second
    b = block(10, 23, width=1)  # of 8/64 with the second: both pairs have less than a's best
    found = matched(probabilities((a, 0.875), (b, 0.5)), first, second)
    assert sorted(found.found_with) == [0.5, 0.875]


def test_small_lesions_are_neither_required_nor_false() -> None:
    small = block(10, 10, height=3, width=3, depth=1)  # 0.45 ml
    assert matched(probabilities((small, 0.875)), small) == LesionMatches()
    assert matched(np.zeros(SHAPE, np.float32), small) == LesionMatches()


def test_without_lesions_each_candidate_is_false() -> None:
    found = matched(probabilities((block(2, 2), 0.4), (block(20, 20), 0.875)))
    assert found == LesionMatches((), (), (pytest.approx(0.875), pytest.approx(0.4)))


CASES = (
    LesionMatches((1.0, 2.0), (0.9, 0.4), (0.5,)),
    LesionMatches((3.0,), (0.0,), (0.8, 0.3, 0.2)),
)


def test_counts_depend_on_the_threshold() -> None:
    assert CASES[0].counts(0.45) == (1, 1, 1)
    assert CASES[0].counts(0.4) == (2, 0, 1)
    assert CASES[1].counts(0.1) == (0, 1, 3)


def test_f1_is_that_of_pooled_counts_and_undefined_for_nothing() -> None:
    assert f1_of((2, 1, 1)) == pytest.approx(4 / 6)
    assert f1_of((0, 0, 3)) == 0
    assert math.isnan(f1_of((0, 0, 0)))


def test_the_best_threshold_has_the_best_pooled_f1() -> None:
    # From 0.9: 1 found, 2 missed, 0 false: 2/4. From 0.4: 2, 1, 2: 4/7. From 0.8: 1, 2, 1: 2/5.
    assert best_threshold(CASES) == 0.4
    assert best_threshold([LesionMatches()]) == 1.0
    # From 0.9: 1 found, 1 missed, 0 false: 2/3. From 0.4: 2, 0, 2: 4/6, and the highest counts.
    assert best_threshold([LesionMatches((1.0, 2.0), (0.9, 0.4), (0.5, 0.45))]) == 0.9


def test_sensitivity_is_read_off_at_false_ones_a_case() -> None:
    assert sensitivity_at(CASES, 0.0) == pytest.approx(1 / 3)  # above 0.8
    assert sensitivity_at(CASES, 0.5) == pytest.approx(1 / 3)  # above 0.5
    assert sensitivity_at(CASES, 1.0) == pytest.approx(2 / 3)  # above 0.3
    assert sensitivity_at(CASES, 2.0) == pytest.approx(2 / 3)  # all; one was never found
    assert math.isnan(sensitivity_at([LesionMatches()], 1.0))
