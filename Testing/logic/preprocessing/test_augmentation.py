"""Patches lie where they should, and changes of intensity are those that were drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from aslseg.preprocessing.augmentation import (
    TARGET_SHIFTS,
    IntensityChange,
    PatchTransform,
    apply_intensity,
    bend,
    blur,
    coarsen,
    cut_patches,
    sample_intensity,
    sample_patch_transform,
    sample_target_shifts,
    shift_targets,
)


def cut_patch(
    source: NDArray[np.float32], transform: PatchTransform, edge: int, *, nearest: bool = False
) -> Tensor:
    return cut_patches([source], [transform], edge, nearest=nearest)[0]


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


def test_a_patch_is_the_same_whatever_lies_far_from_it() -> None:
    """Only the part that a patch needs is read: the same part of a larger source gives the same."""
    rng = np.random.default_rng(0)
    large = rng.normal(size=(2, 90, 80)).astype(np.float32)
    transform = PatchTransform((40.0, 30.0), angle=0.4, scale=1.3)
    near = PatchTransform((20.0, 20.0), angle=0.4, scale=1.3)
    torch.testing.assert_close(
        cut_patch(large, transform, 16), cut_patch(large[:, 20:60, 10:60], near, 16)
    )
    beyond = cut_patch(large, PatchTransform((40.5, 400.0)), 4)
    torch.testing.assert_close(beyond, torch.from_numpy(large[:, 39:43, 79:]).expand(2, 4, 4))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("nearest", [False, True])
def test_patches_cut_together_are_those_cut_alone(axes: int, nearest: bool) -> None:
    """From arrays of different sizes, also far beyond their edges; mirrored ones are flipped."""
    rng = np.random.default_rng(0)
    shapes = [(2, *rng.integers(5, 40, axes)) for _ in range(6)]
    sources = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    transforms = [
        PatchTransform(tuple(rng.uniform(-5, 45, axes)), rng.uniform(-1, 1), rng.uniform(0.5, 2))
        for _ in sources
    ]
    mirrored: list[tuple[int, ...]] = [(), (-1,), (-2,), (-1, -2), (), (-1,)]
    together = cut_patches(sources, transforms, 12, mirrored=mirrored, nearest=nearest)
    assert together.shape == (6, 2, *[12] * axes)
    for one, source, transform, flipped in zip(
        together, sources, transforms, mirrored, strict=True
    ):
        alone = cut_patch(source, transform, 12, nearest=nearest)
        torch.testing.assert_close(one, alone.flip(flipped), rtol=1e-4, atol=1e-4)


def a_placement(pixel: tuple[float, ...], edge: int, seed: int) -> PatchTransform:
    return sample_patch_transform(pixel, edge, np.random.default_rng(seed))


def test_a_drawn_placement_keeps_its_pixel_and_repeats_with_its_seed() -> None:
    first = a_placement((3.0, 4.0), 5, 1)
    assert first.centre == (3.0, 4.0)
    assert first == a_placement((3.0, 4.0), 5, 1)
    assert first != a_placement((3.0, 4.0), 5, 2)
    drawn = [a_placement((0.0,), 5, n) for n in range(400)]
    scales, angles = [one.scale for one in drawn], [math.degrees(one.angle) for one in drawn]
    assert 0.7 <= min(scales) < 0.72
    assert 1.37 < max(scales) <= 1.4
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30
    assert 150 < scales.count(1.0) < 250
    assert 150 < angles.count(0.0) < 250


@pytest.mark.parametrize("edge", [4, 5])
def test_pixels_that_are_neither_turned_nor_scaled_are_not_mixed(edge: int) -> None:
    placed = [a_placement((3.0, 3.0), edge, seed) for seed in range(40)]
    unchanged = next(one for one in placed if one.angle == 0 and one.scale == 1)
    patch = cut_patch(PLANE, unchanged, edge)
    torch.testing.assert_close(patch, torch.from_numpy(PLANE[:, 1 : 1 + edge, 1 : 1 + edge]))


def a_change(**values: float) -> IntensityChange:
    """Return a change of the second of two elements."""

    def of(name: str, unchanged: float) -> torch.Tensor:
        return torch.tensor([unchanged, values.get(name, unchanged)])

    return IntensityChange(
        contrast=of("contrast", 1.0),
        brightness=of("brightness", 0.0),
        gamma=of("gamma", 1.0),
        inverted=of("inverted", 0.0).bool(),
        noise=torch.full((2, 1, 4, 4), values.get("noise", 0.0)),
        blur_px=of("blur_px", 0.0),
        resolution=of("resolution", 1.0),
    )


def test_an_intensity_change_does_what_it_says_to_its_element_alone() -> None:
    image = torch.full((2, 1, 4, 4), 3.0)
    changed = apply_intensity(image, a_change(contrast=2.0, brightness=-1.0))
    assert changed[0].unique().tolist() == [3.0]
    assert changed[1].unique().tolist() == [5.0]
    assert image.unique().tolist() == [3.0]


@pytest.mark.parametrize(("inverted", "middle"), [(False, 0.25), (True, 0.75)])
def test_a_power_bends_intensities_and_keeps_mean_and_deviation(
    inverted: bool, middle: float
) -> None:
    """0, 1/2 and 1 become 0, 1/4 and 1, or 0, 3/4 and 1, before mean and deviation are restored."""
    images = torch.tensor([[[-2.0, 0.0, 2.0]], [[1.0, 3.0, 5.0]]])
    both = bend(images, torch.tensor([2.0, 1.0]), torch.tensor([inverted, not inverted]))
    torch.testing.assert_close(both[1], images[1])
    bent = both[:1]
    plain = torch.tensor([0.0, middle, 1.0])
    expected = (plain - plain.mean()) / plain.std() * 2.0
    torch.testing.assert_close(bent[0, 0], expected)
    changed = apply_intensity(
        torch.randn(2, 1, 4, 4), a_change(gamma=2.0, inverted=float(inverted))
    )
    assert changed.shape == (2, 1, 4, 4)


def test_blurring_spreads_a_point_by_a_gaussian_and_leaves_the_flat_flat() -> None:
    image = torch.zeros(1, 9, 9)
    image[0, 4, 4] = 1.0
    smooth = blur(image, 1.0)
    assert float(smooth.sum()) == pytest.approx(1.0, abs=1e-4)
    ratio = float(smooth[0, 4, 5] / smooth[0, 4, 4])
    assert ratio == pytest.approx(math.exp(-0.5), abs=0.05)
    flat = torch.full((2, 5, 6, 7), 3.0)
    torch.testing.assert_close(blur(flat, 0.7), flat)


def test_half_the_resolution_keeps_every_other_pixel_and_interpolates() -> None:
    coarse = coarsen(torch.arange(8.0).view(1, 1, 8).repeat(1, 8, 1), 0.5)
    # nearest pixels 1, 3, 5 and 7 stand for two each: between their middles the ramp is kept
    assert coarse[0, 0].tolist() == [1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.0]
    assert coarsen(torch.randn(2, 4, 6, 6), 0.6).shape == (2, 4, 6, 6)


def test_each_change_reaches_its_element_alone() -> None:
    image = torch.randn(2, 1, 4, 4)
    for name, value in (("gamma", 1.4), ("blur_px", 0.8), ("resolution", 0.5)):
        changed = apply_intensity(image, a_change(**{name: value}))
        assert torch.equal(changed[0], image[0])
        assert not torch.allclose(changed[1], image[1])


def test_chances_and_ranges_are_those_of_nnunet() -> None:
    change = sample_intensity(torch.Size((4000, 1, 1, 1)), torch.Generator().manual_seed(0))
    bent, blurred = change.gamma != 1, change.blur_px > 0
    assert 0.37 < float(bent.float().mean()) < 0.43
    assert 0.7 <= float(change.gamma.min()) < 0.72
    assert 1.45 < float(change.gamma.max()) <= 1.5
    assert 0.22 < float(change.inverted.float().mean()) < 0.28
    assert 0.17 < float(blurred.float().mean()) < 0.23
    assert float(change.blur_px[blurred].min()) >= 0.5
    assert float(change.blur_px.max()) <= 1.0
    coarse = change.resolution < 1
    assert 0.22 < float(coarse.float().mean()) < 0.28
    assert 0.5 <= float(change.resolution.min()) < 0.55


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


def test_another_device_than_cudas_gets_patches_that_the_processor_cut() -> None:
    cut = cut_patches([PLANE], [PatchTransform((2.0, 3.0))], 3, device=torch.device("meta"))
    assert cut.shape == (1, 1, 3, 3)
    assert cut.device.type == "meta"


def test_targets_are_shifted_as_often_and_as_far_as_is_said() -> None:
    shifts = sample_target_shifts(4000, 0.25, np.random.default_rng(0))
    changed = shifts[shifts != 0]
    assert 900 < len(changed) < 1100
    assert TARGET_SHIFTS[0] <= float(changed.min()) < TARGET_SHIFTS[0] + 0.05
    assert TARGET_SHIFTS[1] >= float(changed.max()) > TARGET_SHIFTS[1] - 0.05
    assert not sample_target_shifts(10, 0.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize("spatial", [(12, 12), (12, 12, 12)], ids=["slices", "volumes"])
def test_a_target_is_shifted_in_all_channels_and_nothing_far_from_it(
    spatial: tuple[int, ...],
) -> None:
    image = torch.randn(2, 3, *spatial, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, *spatial, dtype=torch.bool)
    mask[:, 3:9] = True
    before = image.clone()
    change = shift_targets(image, mask, torch.tensor([-0.5, 0.0])) - image
    assert torch.equal(image, before)
    torch.testing.assert_close(change[0, :, 6], torch.full_like(change[0, :, 6], -0.5))
    assert not change[0, :, 0].any()
    border = change[0, :, 2:4].abs()
    assert float(border.min()) > 0.0
    assert float(border.max()) < 0.5
    assert not change[1].any()
