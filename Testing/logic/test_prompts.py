"""Prompts describe a mask, in pixels whose centres lie at halves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aslseg.config import PromptConfig
from aslseg.data.volume import Mask
from aslseg.prompts import (
    MASK_LOGIT,
    RING_PX,
    BoxPrompt,
    PointPrompt,
    SlicePrompts,
    apply_jitter,
    box_around,
    interior_points,
    outside_points,
    prompts_from_mask,
)

EXACT = PromptConfig(min_area_px=1, box_margin_px=0, positive_points=1, negative_points=0)


def a_rectangle(rows: slice, columns: slice, shape: tuple[int, int] = (20, 30)) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[rows, columns] = True
    return mask


def pixel(xy: tuple[float, float]) -> tuple[int, int]:
    return int(np.floor(xy[1])), int(np.floor(xy[0]))


def test_a_box_spans_the_outer_edges_of_its_pixels() -> None:
    assert box_around(a_rectangle(slice(3, 8), slice(10, 14))).xyxy == (10, 3, 14, 8)


def test_a_margin_widens_the_box_but_not_beyond_the_slice() -> None:
    assert box_around(a_rectangle(slice(1, 20), slice(10, 14)), 3).xyxy == (7, 0, 17, 20)


def test_a_box_of_a_single_pixel_has_an_area() -> None:
    assert box_around(a_rectangle(slice(5, 6), slice(7, 8))).xyxy == (7, 5, 8, 6)


def test_an_empty_mask_has_no_box() -> None:
    with pytest.raises(ValueError, match="no box"):
        box_around(np.zeros((4, 4), np.bool_))


def test_a_box_without_an_area_is_refused() -> None:
    with pytest.raises(ValueError, match="left < right"):
        BoxPrompt((3, 3, 3, 5))


def test_a_prompt_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a box, a point or a mask"):
        SlicePrompts(0, "liver")


def test_an_empty_mask_gives_no_prompts() -> None:
    assert prompts_from_mask(np.zeros((3, 8, 8), np.bool_), target="liver") == []


def test_the_first_interior_point_is_the_centre_of_a_square() -> None:
    assert interior_points(a_rectangle(slice(4, 9), slice(10, 15)), 1) == [(12.5, 6.5)]


def test_interior_points_lie_inside_and_differ() -> None:
    ring = a_rectangle(slice(2, 15), slice(5, 18)) & ~a_rectangle(slice(5, 12), slice(8, 15))
    points = interior_points(ring, 5)
    assert len(set(points)) == 5
    assert all(ring[pixel(xy)] for xy in points)


def test_the_second_point_is_in_the_other_half_of_a_long_object() -> None:
    first, second = interior_points(a_rectangle(slice(5, 10), slice(2, 28)), 2)
    assert abs(first[0] - second[0]) > 8


def test_a_mask_at_the_border_is_deep_away_from_the_border() -> None:
    assert interior_points(a_rectangle(slice(0, 5), slice(0, 5)), 1) == [(2.5, 2.5)]


def test_a_single_pixel_gives_one_point_however_many_are_wanted() -> None:
    assert interior_points(a_rectangle(slice(5, 6), slice(7, 8)), 3) == [(7.5, 5.5)]


def test_outside_points_lie_in_the_ring_around_the_mask() -> None:
    mask = a_rectangle(slice(9, 12), slice(12, 16))
    for x, y in outside_points(mask, 4):
        column_gap = max(12.5 - x, x - 15.5, 0)
        row_gap = max(9.5 - y, y - 11.5, 0)
        assert 1 < np.hypot(column_gap, row_gap) <= RING_PX


def test_a_slice_that_is_full_has_no_outside_points() -> None:
    assert outside_points(np.ones((4, 4), np.bool_), 3) == []


def test_each_part_of_each_slice_is_described_largest_first() -> None:
    volume = np.zeros((4, 20, 30), np.bool_)
    volume[1, 2:4, 2:4] = True
    volume[1, 10:15, 10:15] = True
    volume[3, 5, 5] = True
    prompts = prompts_from_mask(volume, target="tumour", settings=EXACT)
    assert [(p.slice_index, p.component) for p in prompts] == [(1, 0), (1, 1), (3, 0)]
    assert [p.box.xyxy for p in prompts if p.box] == [(10, 10, 15, 15), (2, 2, 4, 4), (5, 5, 6, 6)]
    assert {p.target for p in prompts} == {"tumour"}


def test_parts_that_touch_at_a_corner_are_one() -> None:
    mask = np.eye(6, dtype=np.bool_)
    assert len(prompts_from_mask(mask, target="t", settings=EXACT)) == 1


@pytest.mark.parametrize(("min_area", "count"), [(4, 1), (5, 0)])
def test_small_parts_give_no_prompt(min_area: int, count: int) -> None:
    settings = EXACT.model_copy(update={"min_area_px": min_area})
    mask = a_rectangle(slice(2, 4), slice(2, 4))
    assert len(prompts_from_mask(mask, target="t", settings=settings)) == count


def test_negative_points_are_marked_so() -> None:
    settings = EXACT.model_copy(update={"negative_points": 2})
    (prompt,) = prompts_from_mask(
        a_rectangle(slice(8, 12), slice(8, 12)), target="t", settings=settings
    )
    assert [p.positive for p in prompt.points] == [True, False, False]


@pytest.mark.parametrize("use_mask", [True, False])
def test_the_mask_prompt_is_the_part_alone(use_mask: bool) -> None:
    settings = EXACT.model_copy(update={"use_mask": use_mask})
    mask = a_rectangle(slice(2, 4), slice(2, 4)) | a_rectangle(slice(10, 15), slice(10, 15))
    second = prompts_from_mask(mask, target="t", settings=settings)[1]
    if not use_mask:
        assert second.mask_logits is None
        return
    assert second.mask_logits is not None
    assert (second.mask_logits > 0).sum() == 4
    assert set(np.unique(second.mask_logits)) == {-MASK_LOGIT, MASK_LOGIT}


def test_prompts_without_a_generator_repeat_themselves() -> None:
    mask = a_rectangle(slice(3, 9), slice(4, 19))
    first, second = (
        prompts_from_mask(mask, target="t", settings=EXACT)[0].to_json() for _ in range(2)
    )
    assert first == second


def test_jitter_moves_the_box_and_repeats_with_the_seed() -> None:
    mask = a_rectangle(slice(5, 15), slice(8, 22))
    draws = [
        prompts_from_mask(mask, target="t", settings=EXACT, rng=np.random.default_rng(seed))[0]
        for seed in (1, 1, 2)
    ]
    boxes = [p.box.xyxy for p in draws if p.box]
    assert boxes[0] == boxes[1] != boxes[2]
    assert boxes[0] != (8, 5, 22, 15)


def test_jitter_goes_outward_by_its_share_of_the_edge() -> None:
    box = BoxPrompt((100, 100, 200, 150))
    moved = apply_jitter(box, (1, 1, 1, 1), 0.1, (512, 512))
    assert moved.xyxy == (90, 95, 210, 155)


def test_no_share_keeps_the_box() -> None:
    box = BoxPrompt((1, 2, 3, 4))
    assert apply_jitter(box, (1, 1, 1, 1), 0.0, (9, 9)) is box


@given(
    sides=st.tuples(*[st.floats(-0.5, 1.0)] * 4),
    share=st.floats(0.01, 1.0),
    left=st.integers(0, 40),
    top=st.integers(0, 40),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
)
def test_any_jitter_leaves_a_box_of_half_the_size_at_least(
    sides: tuple[float, float, float, float],
    share: float,
    left: int,
    top: int,
    width: int,
    height: int,
) -> None:
    box = BoxPrompt((left, top, left + width, top + height))
    moved = apply_jitter(box, sides, share, (60, 60)).xyxy
    assert moved[2] - moved[0] >= width / 2 - 1e-9
    assert moved[3] - moved[1] >= height / 2 - 1e-9
    assert min(moved) >= 0
    assert max(moved) <= 60


def test_json_gives_back_boxes_and_points() -> None:
    prompt = SlicePrompts(
        7, "tumour", 2, BoxPrompt((1, 2, 3, 4.5)), (PointPrompt((2.5, 3.5), positive=False),)
    )
    again = SlicePrompts.from_json(json.loads(json.dumps(prompt.to_json())))
    assert again.to_json() == prompt.to_json()
    assert (again.box, again.points) == (prompt.box, prompt.points)


def test_json_of_a_prompt_without_a_box() -> None:
    prompt = SlicePrompts(0, "t", points=(PointPrompt((0.5, 0.5)),))
    again = SlicePrompts.from_json(prompt.to_json())
    assert again.box is None
    assert replace(again, component=0).points == prompt.points


def test_noise_asks_no_more_than_the_largest_parts_of_a_slice() -> None:
    mask = np.zeros((1, 20, 40), bool)
    for number in range(6):  # parts of 4 to 9 pixels in a row
        mask[0, 3 * number, : 4 + number] = True
    few = PromptConfig(most_components=2, min_area_px=1)
    found = prompts_from_mask(mask, target="tumour", settings=few)
    assert [prompt.component for prompt in found] == [0, 1]
    assert [int((prompt.mask_logits > 0).sum()) for prompt in found] == [9, 8]


def test_parts_of_a_slice_that_are_one_body_share_a_box_if_wanted() -> None:
    """A horseshoe: two legs on slice 0 that meet on slice 1, and a body of its own."""
    mask = np.zeros((2, 20, 30), bool)
    mask[0, 5:8, 4:7] = mask[0, 5:8, 12:15] = True
    mask[1, 5:8, 4:15] = True
    mask[0, 15:18, 20:23] = True
    apart = prompts_from_mask(mask, target="t", settings=EXACT)
    settings = EXACT.model_copy(update={"connect": "volume"})
    whole = prompts_from_mask(mask, target="t", settings=settings)
    assert [p.slice_index for p in apart] == [0, 0, 0, 1]
    boxes = [(p.slice_index, p.box.xyxy) for p in whole if p.box is not None]
    assert boxes == [(0, (4, 5, 15, 8)), (0, (20, 15, 23, 18)), (1, (4, 5, 15, 8))]
    logits = whole[0].mask_logits
    assert logits is not None
    np.testing.assert_array_equal(logits > 0, mask[0] & (np.arange(30) < 18))
