"""Boxes that one patch takes from another: their sizes, and that they lie anywhere."""

from __future__ import annotations

import pytest
import torch

from aslseg.preprocessing.mixing import cutmix_boxes, paste_region


def a_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_half_of_the_patches_have_a_box_of_the_released_sizes() -> None:
    boxes = cutmix_boxes(torch.Size([400, 1, 50, 50]), a_generator(), 0.5)
    area = boxes.float().mean((1, 2))
    assert 160 < int((area > 0).sum()) < 240
    assert area[area > 0].min() > 0.015
    assert area.max() <= 0.4
    rows, columns = boxes.any(2).sum(1), boxes.any(1).sum(1)
    assert torch.equal(rows * columns, boxes.sum((1, 2)))  # each is one rectangle
    aspect = (rows / columns)[area > 0]
    assert aspect.min() >= 0.2
    assert aspect.max() <= 5.0
    assert boxes.any(0).float().mean() > 0.95  # boxes lie anywhere


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (1.0, 20)])
def test_a_share_of_none_or_all_is_that(share: float, number: int) -> None:
    boxes = cutmix_boxes(torch.Size([20, 3, 16, 16]), a_generator(), share)
    assert int(boxes.flatten(1).any(1).sum()) == number


def test_a_box_goes_through_all_planes_of_a_block() -> None:
    boxes = cutmix_boxes(torch.Size([4, 1, 6, 16, 16]), a_generator(), 1.0)
    assert boxes.shape == (4, 6, 16, 16)
    assert torch.equal(boxes, boxes[:, :1].expand_as(boxes))


def test_a_pasted_box_has_two_thirds_of_each_edge_and_lies_anywhere() -> None:
    generator = a_generator()
    flat = [paste_region(torch.Size([9, 12]), generator, 2 / 3) for _ in range(100)]
    assert {int(region.sum()) for region in flat} == {6 * 8}
    assert torch.stack(flat).any(0).all()
    deep = paste_region(torch.Size([6, 9, 12]), generator, 2 / 3)
    assert int(deep.sum()) == 4 * 6 * 8
