"""Patches lie where they should, and changes of intensity are those that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aslseg.preprocessing.augmentation import (
    IntensityChange,
    PatchTransform,
    apply_intensity,
    cut_patch,
    sample_intensity,
    sample_patch_transform,
)

PLANE = np.arange(42, dtype=np.float32).reshape(1, 6, 7)
BLOCK = np.arange(5 * 6 * 7, dtype=np.float32).reshape(1, 5, 6, 7)


@pytest.mark.parametrize("nearest", [False, True])
def test_a_patch_that_is_not_turned_is_a_crop(nearest: bool) -> None:
    patch = cut_patch(PLANE, PatchTransform((2.0, 3.0)), 3, nearest=nearest)
    torch.testing.assert_close(patch, torch.from_numpy(PLANE[:, 1:4, 2:5]))
    even = cut_patch(PLANE, PatchTransform((2.5, 3.5)), 4, nearest=nearest)
    torch.testing.assert_close(even, torch.from_numpy(PLANE[:, 1:5, 2:6]))


def test_a_patch_of_a_volume_is_a_crop_too() -> None:
    patch = cut_patch(BLOCK, PatchTransform((2.0, 3.0, 4.0)), 3)
    torch.testing.assert_close(patch, torch.from_numpy(BLOCK[:, 1:4, 2:5, 3:6]), rtol=0, atol=1e-4)


def test_a_quarter_turn_turns_the_plane_and_leaves_slices_in_order() -> None:
    transform = PatchTransform((2.0, 2.0, 3.0), angle=math.pi / 2)
    patch = cut_patch(BLOCK, transform, 3)
    crop = BLOCK[0, 1:4, 1:4, 2:5]
    turned = [np.rot90(part, n) for part in crop for n in (1, 3)]
    assert any(np.allclose(patch[0, 0], part, atol=1e-4) for part in turned[:2])
    np.testing.assert_allclose(patch[0, 2] - patch[0, 0], 2 * 42, atol=1e-3)


def test_image_and_labels_of_one_placement_lie_upon_each_other() -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 12:28, 15:24] = 1.0
    transform = PatchTransform((20.0, 19.0), angle=0.3, scale=1.2)
    smooth = cut_patch(image, transform, 24)
    labels = cut_patch(image, transform, 24, nearest=True)
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    sure = (smooth < 0.05) | (smooth > 0.95)
    assert (smooth[sure].round() == labels[sure]).all()
    assert sure.float().mean() > 0.7


def test_a_scale_of_two_sees_twice_as_far() -> None:
    patch = cut_patch(PLANE, PatchTransform((3.0, 3.0), scale=2.0), 3)
    torch.testing.assert_close(patch, torch.from_numpy(PLANE[:, 1:6:2, 1:6:2].copy()))


def test_beyond_the_edge_images_repeat_their_border_and_labels_are_zero() -> None:
    image = cut_patch(PLANE + 1, PatchTransform((0.0, 0.0)), 3)
    torch.testing.assert_close(image[0], torch.tensor([[1.0, 1, 2], [1, 1, 2], [8, 8, 9]]))
    labels = cut_patch(PLANE + 1, PatchTransform((0.0, 0.0)), 3, nearest=True)
    assert labels[0].tolist() == [[0, 0, 0], [0, 1, 2], [0, 8, 9]]


def test_a_drawn_placement_keeps_its_centre_and_repeats_with_its_seed() -> None:
    first = sample_patch_transform((3.0, 4.0), np.random.default_rng(1))
    assert first.centre == (3.0, 4.0)
    assert first == sample_patch_transform((3.0, 4.0), np.random.default_rng(1))
    assert first != sample_patch_transform((3.0, 4.0), np.random.default_rng(2))
    scales = [sample_patch_transform((0.0,), np.random.default_rng(n)).scale for n in range(200)]
    assert 0.5 < min(scales) < 0.8
    assert 1.2 < max(scales) < 2.0


def a_change(**values: float) -> IntensityChange:
    zeros = torch.zeros(2, 1, 4, 4)
    return IntensityChange(
        contrast=torch.tensor([1.0, values.get("contrast", 1.0)]),
        brightness=torch.tensor([0.0, values.get("brightness", 0.0)]),
        noise=zeros + values.get("noise", 0.0),
        blurred=torch.tensor([False, bool(values.get("blurred", 0))]),
    )


def test_an_intensity_change_does_what_it_says_to_its_element_alone() -> None:
    image = torch.full((2, 1, 4, 4), 3.0)
    changed = apply_intensity(image, a_change(contrast=2.0, brightness=-1.0))
    assert changed[0].unique().tolist() == [3.0]
    assert changed[1].unique().tolist() == [5.0]


def test_smoothing_is_the_mean_of_the_neighbours_that_exist() -> None:
    image = torch.zeros(2, 1, 4, 4)
    image[:, 0, 0, 0] = 36.0
    sharp, smooth = apply_intensity(image, a_change(blurred=1))[:, 0]
    assert sharp[0, 0] == 36.0
    assert smooth[:3, :3].tolist() == [[9, 6, 0], [6, 4, 0], [0, 0, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 6, 8, 8)], ids=["slices", "volumes"])
def test_strength_zero_changes_nothing(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape)
    change = sample_intensity(image.shape, torch.Generator().manual_seed(0), 0.0)
    torch.testing.assert_close(apply_intensity(image, change), image)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 6, 8, 8)], ids=["slices", "volumes"])
def test_a_draw_repeats_with_its_seed(shape: tuple[int, ...]) -> None:
    image = torch.randn(shape)

    def changed(seed: int) -> torch.Tensor:
        return apply_intensity(
            image, sample_intensity(image.shape, torch.Generator().manual_seed(seed))
        )

    assert torch.equal(changed(1), changed(1))
    assert not torch.equal(changed(1), changed(2))
    assert not torch.equal(changed(1), image)
