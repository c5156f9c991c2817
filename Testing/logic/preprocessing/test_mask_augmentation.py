"""Holes and warps: how many, how large, where, and what they leave alone."""

from __future__ import annotations

import pytest
import torch

from aslseg.preprocessing.augmentation import (
    Holes,
    Warp,
    apply_holes,
    apply_warp,
    sample_holes,
    sample_warp,
)

FLAT, BLOCK = torch.Size((3, 2, 64, 64)), torch.Size((3, 1, 5, 64, 64))


def a_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_holes_are_as_many_as_wanted_and_no_larger_than_a_sixteenth() -> None:
    hidden = sample_holes(torch.Size((400, 1, 64, 64)), a_generator(), (5, 8), 0.5).hidden
    share = float(hidden.flatten(1).any(1).float().mean())
    assert share == pytest.approx(0.5, abs=0.08)
    assert hidden.sum((1, 2)).max() <= 8 * 4 * 4
    one = sample_holes(torch.Size((50, 1, 64, 64)), a_generator(), (1, 1), 1.0).hidden
    assert one.any(2).sum(1).max() <= 4
    assert one.flatten(1).any(1).all()


@pytest.mark.parametrize("shape", [FLAT, BLOCK], ids=["2d", "3d"])
def test_holes_are_as_dark_as_the_darkest_and_the_rest_stays(shape: torch.Size) -> None:
    image = torch.randn(shape, generator=a_generator())
    holes = sample_holes(shape, a_generator(1), (2, 4), 1.0)
    changed = apply_holes(image, holes)
    hidden = holes.hidden.view(3, *[1] * (len(shape) - 3), 64, 64).expand(shape)
    for n in range(3):
        assert (changed[n][hidden[n]] == image[n].min()).all()
    assert torch.equal(changed[~hidden], image[~hidden])


def test_no_holes_change_nothing() -> None:
    image = torch.randn(FLAT)
    assert torch.equal(apply_holes(image, Holes(torch.zeros(3, 64, 64, dtype=torch.bool))), image)
    assert not sample_holes(FLAT, a_generator(), (5, 8), 0.0).hidden.any()


@pytest.mark.parametrize("shape", [FLAT, BLOCK], ids=["2d", "3d"])
def test_no_way_moves_nothing(shape: torch.Size) -> None:
    image = torch.randn(shape)
    still = sample_warp(shape, a_generator(), 0.0)
    assert not still.offsets.any()
    torch.testing.assert_close(apply_warp(image, still), image, atol=1e-4, rtol=0)


def test_a_way_of_a_pixel_to_the_right_shows_the_pixel_to_the_right() -> None:
    image = torch.arange(64.0).expand(1, 1, 64, 64).clone()
    offsets = torch.zeros(1, 64, 64, 2)
    offsets[..., 0] = 2 / 64  # x, in halves of the edge
    moved = apply_warp(image, Warp(offsets))
    torch.testing.assert_close(moved[0, 0, :, :63], image[0, 0, :, 1:], atol=1e-3, rtol=0)


def test_all_channels_and_planes_move_alike() -> None:
    plane = torch.randn(3, 1, 1, 64, 64)
    moved = apply_warp(plane.expand(3, 2, 5, 64, 64), sample_warp(BLOCK, a_generator(), 1.0))
    assert torch.equal(moved[:, 0, 0], moved[:, 1, 4])
    assert not torch.equal(moved[:, 0, 0], plane[:, 0, 0])


def test_a_draw_depends_on_its_generator_alone() -> None:
    first, again, other = (sample_warp(FLAT, a_generator(seed), 1.0).offsets for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.01 < float(first.std()) < 0.1
