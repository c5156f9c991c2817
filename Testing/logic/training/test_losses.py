"""Losses and schedules, against numbers that were computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aslseg.preprocessing.roi import IGNORED
from aslseg.training.losses import (
    average_decay,
    consistency_loss,
    entropy,
    polynomial_decay,
    ramp_up,
    soft_dice_loss,
    supervised_loss,
    uncertainty_threshold,
    update_average,
    warm_up,
    weighted_cross_entropy,
)

# One picture of 2 x 2: the foreground is the upper row.
TRUTH = torch.tensor([[[1, 1], [0, 0]]])


def two_classes(foreground: Tensor) -> Tensor:
    """Return (B, 2, h, w) probabilities from those of the foreground, (B, h, w)."""
    return torch.stack([1 - foreground, foreground], 1)


@pytest.mark.parametrize(
    ("foreground", "expected"),
    [
        # 1 - (2 sum(p y) + 1) / (sum(p^2) + sum(y) + 1)
        pytest.param([[1.0, 1.0], [0.0, 0.0]], 0.0, id="right: 1 - 5/5"),
        pytest.param([[0.0, 0.0], [1.0, 1.0]], 0.8, id="wrong: 1 - 1/5"),
        pytest.param([[1.0, 0.0], [0.0, 0.0]], 0.25, id="half of it: 1 - 3/4"),
        pytest.param([[0.0, 0.0], [0.0, 0.0]], 2 / 3, id="nothing: 1 - 1/3"),
        pytest.param([[0.5, 0.5], [0.5, 0.5]], 0.25, id="undecided: 1 - 3/4"),
    ],
)
def test_dice_of_four_pixels_is_that_of_the_formula(
    foreground: list[list[float]], expected: float
) -> None:
    loss = soft_dice_loss(two_classes(torch.tensor([foreground])), TRUTH)
    assert float(loss) == pytest.approx(expected)


def test_dice_of_an_empty_picture_is_zero_when_nothing_is_found() -> None:
    empty = torch.zeros(1, 2, 2, dtype=torch.long)
    assert float(soft_dice_loss(two_classes(torch.zeros(1, 2, 2)), empty)) == 0.0


def test_dice_is_that_of_the_whole_batch_not_the_mean_over_its_pictures() -> None:
    right, wrong = [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]
    both = two_classes(torch.tensor([right, wrong]))
    # 1 - (2 * 2 + 1) / (4 + 4 + 1); the mean of both pictures would be 0.4
    assert float(soft_dice_loss(both, TRUTH.repeat(2, 1, 1))) == pytest.approx(4 / 9)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        pytest.param([1.0, 1.0], 4 / 9, id="both"),
        pytest.param([1.0, 0.0], 0.0, id="the right one"),
        pytest.param([0.0, 1.0], 0.8, id="the wrong one"),
        pytest.param([1.0, 0.5], 1 - 5 / 7, id="the wrong one half: 1 - 5/(6 + 1)"),
    ],
)
def test_dice_counts_each_picture_by_its_weight(weight: list[float], expected: float) -> None:
    right, wrong = [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]
    both = two_classes(torch.tensor([right, wrong]))
    loss = soft_dice_loss(both, TRUTH.repeat(2, 1, 1), torch.tensor(weight))
    assert float(loss) == pytest.approx(expected)


def test_dice_leaves_the_background_out_and_averages_over_the_other_classes() -> None:
    truth = torch.tensor([[[1, 2], [0, 0]]])
    labels = torch.tensor([[[1, 0], [0, 0]]])  # class 1 right: 0; class 2 missed: 1 - 1/2
    probability = F.one_hot(labels, 3).movedim(-1, 1).float()
    assert float(soft_dice_loss(probability, truth)) == pytest.approx(0.25)


LOGITS = torch.zeros(1, 2, 2, 2)  # p = 1/2 everywhere: cross entropy ln 2
SURE = torch.stack([torch.zeros(2, 2), torch.full((2, 2), math.log(3.0))])[None]  # p = 3/4


def test_cross_entropy_of_four_pixels_is_that_of_the_formula() -> None:
    assert float(weighted_cross_entropy(LOGITS, TRUTH)) == pytest.approx(math.log(2))
    # Two pixels at -ln 3/4, two at -ln 1/4.
    expected = (math.log(4 / 3) + math.log(4)) / 2
    assert float(weighted_cross_entropy(SURE, TRUTH)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        pytest.param([1.0, 1.0], (math.log(2) + math.log(16 / 3) / 2) / 2, id="both"),
        pytest.param([1.0, 0.0], math.log(2) / 2, id="the first"),
        pytest.param([0.0, 1.0], math.log(16 / 3) / 4, id="the second"),
        pytest.param(
            [1.0, 0.5], (math.log(2) + math.log(16 / 3) / 4) / 2, id="the second counts half"
        ),
        pytest.param([0.0, 0.0], 0.0, id="none"),
    ],
)
def test_a_weight_scales_the_cross_entropy_of_its_picture(
    weight: list[float], expected: float
) -> None:
    both, truth = torch.cat([LOGITS, SURE]), TRUTH.repeat(2, 1, 1)
    loss = weighted_cross_entropy(both, truth, torch.tensor(weight))
    assert float(loss) == pytest.approx(expected)


def test_the_supervised_loss_is_cross_entropy_plus_dice() -> None:
    assert float(supervised_loss(LOGITS, TRUTH)) == pytest.approx(math.log(2) + 0.25)


def test_dice_with_the_background_is_the_mean_over_all_classes() -> None:
    probability = two_classes(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    # Foreground 1 - 2/3; background 1 - 2 * 2 / (3 + 2).
    loss = soft_dice_loss(probability, TRUTH, smooth=0.0, background=True)
    assert float(loss) == pytest.approx((1 / 3 + 1 / 5) / 2)


def test_dice_can_leave_out_classes_that_the_target_has_nothing_of() -> None:
    half = F.one_hot(torch.tensor([[[1, 2], [2, 2]]]), 3).movedim(-1, 1).float() / 2
    truth = torch.tensor([[[1, 0], [0, 0]]])
    # Class 1: 1 - (2 * 0.5 + 1) / (0.25 + 1 + 1). Class 2: 1 - 1 / (3 * 0.25 + 1).
    first, second = 1 - 2 / 2.25, 1 - 1 / 1.75
    assert float(soft_dice_loss(half, truth)) == pytest.approx((first + second) / 2)
    assert float(soft_dice_loss(half, truth, absent=False)) == pytest.approx(first)
    nothing = soft_dice_loss(half, torch.zeros_like(truth), absent=False)
    assert float(nothing) == 0.0


def test_losses_take_volumes_as_they_take_slices() -> None:
    flat = supervised_loss(SURE, TRUTH)
    deep = supervised_loss(SURE[:, :, None], TRUTH[:, None])
    assert float(flat) == pytest.approx(float(deep))


def test_consistency_is_the_mean_squared_difference() -> None:
    student = two_classes(torch.tensor([[[0.9, 0.5], [0.5, 0.5]]]))
    teacher = two_classes(torch.full((1, 2, 2), 0.5))
    assert float(consistency_loss(student, teacher)) == pytest.approx(0.16 / 4)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param([[1.0, 0.0], [0.0, 0.0]], 0.16, id="where they differ"),
        pytest.param([[1.0, 1.0], [0.0, 0.0]], 0.08, id="half of it"),
        pytest.param([[0.0, 1.0], [1.0, 1.0]], 0.0, id="where they agree"),
        pytest.param([[0.0, 0.0], [0.0, 0.0]], 0.0, id="nowhere"),
    ],
)
def test_consistency_is_averaged_over_the_certain_pixels(
    mask: list[list[float]], expected: float
) -> None:
    student = two_classes(torch.tensor([[[0.9, 0.5], [0.5, 0.5]]]))
    teacher = two_classes(torch.full((1, 2, 2), 0.5))
    loss = consistency_loss(student, teacher, torch.tensor([[mask]]))
    assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_consistency_moves_the_student_and_not_the_teacher(masked: bool) -> None:
    logits = torch.tensor([[[[0.3, -0.2]], [[-1.0, 0.5]]]], requires_grad=True)
    teacher = torch.full((1, 2, 1, 2), 0.5, requires_grad=True)
    mask = torch.tensor([[[[1.0, 0.0]]]]) if masked else None
    consistency_loss(logits.softmax(1), teacher, mask).backward()
    assert logits.grad is not None
    assert teacher.grad is None
    moved = logits.grad.abs().sum(1)[0, 0] > 0
    assert moved.tolist() == [True, not masked]


def test_entropy_is_ln_2_for_an_even_guess_and_zero_for_a_sure_one() -> None:
    probability = two_classes(torch.tensor([[[0.5, 1.0], [0.25, 0.0]]]))
    found = entropy(probability)
    assert found.shape == (1, 1, 2, 2)
    of_a_quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = torch.tensor([[math.log(2), 0.0], [of_a_quarter, 0.0]])
    torch.testing.assert_close(found[0, 0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 0.00067), (1500, 0.0060), (3000, 0.0287), (4500, 0.0732), (6000, 0.1)],
)
def test_the_ramp_gives_the_published_weights_of_the_mean_teacher(
    iteration: int, expected: float
) -> None:
    """0.1 exp(-5 (1 - min(e / 40, 1))^2) where an epoch e has 150 iterations."""
    epoch = iteration // 150
    assert 0.1 * ramp_up(epoch, 40) == pytest.approx(expected, abs=5e-5)
    assert 0.1 * ramp_up(iteration, 6000) == pytest.approx(expected, abs=5e-5)


def test_the_ramp_stays_at_one_and_has_no_slope_where_it_has_no_length() -> None:
    assert ramp_up(41, 40) == ramp_up(10_000, 40) == 1.0
    assert ramp_up(0, 0) == 1.0
    assert ramp_up(-3, 40) == ramp_up(0, 40) == pytest.approx(math.exp(-5))


def test_the_learning_rate_falls_to_zero() -> None:
    assert polynomial_decay(0, 100) == 1.0
    assert polynomial_decay(50, 100) == pytest.approx(0.5**0.9)
    assert polynomial_decay(50, 100, power=1.0) == 0.5
    assert polynomial_decay(100, 100) == polynomial_decay(130, 100) == 0.0


def test_a_rate_warms_up_in_equal_parts_or_not_at_all() -> None:
    assert [warm_up(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


@pytest.mark.parametrize(
    ("progress", "classes", "expected"),
    [
        pytest.param(0.0, 2, (0.75 + 0.25 * math.exp(-5)) * math.log(2), id="start"),
        pytest.param(0.5, 2, (0.75 + 0.25 * math.exp(-1.25)) * math.log(2), id="middle"),
        pytest.param(1.0, 2, math.log(2), id="end: everything is certain enough"),
        pytest.param(1.0, 3, math.log(3), id="three classes"),
    ],
)
def test_uncertainty_is_borne_ever_more(progress: float, classes: int, expected: float) -> None:
    assert uncertainty_threshold(progress, classes) == pytest.approx(expected)


def test_the_average_follows_by_one_minus_the_decay_and_copies_statistics() -> None:
    kept, new = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    nn.init.constant_(kept.weight, 1.0)
    nn.init.constant_(new.weight, 3.0)
    new.running_mean = torch.tensor([5.0, 7.0])
    update_average(kept, new, 0.75)
    assert kept.weight.tolist() == [1.5, 1.5]
    assert kept.running_mean is not None
    assert kept.running_mean.tolist() == [5.0, 7.0]
    assert new.weight.tolist() == [3.0, 3.0]


def test_the_average_follows_at_once_in_the_first_steps() -> None:
    assert [average_decay(step, 0.99) for step in (0, 1, 3, 98)] == [0.0, 0.5, 0.75, 98 / 99]
    assert average_decay(99, 0.99) == average_decay(5000, 0.99) == 0.99


def test_ignored_voxels_add_nothing_to_the_supervised_losses() -> None:
    logits = torch.tensor([[[[2.0, -1.0], [0.5, 3.0]], [[0.0, 1.0], [0.5, -2.0]]]])
    other = logits.clone()
    other[..., 1, :] = 7.0 * torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[[0, 1], [IGNORED, IGNORED]]])
    assert not torch.equal(logits, other)
    for loss in (supervised_loss, weighted_cross_entropy):
        torch.testing.assert_close(loss(logits, target), loss(other, target))
    upper = weighted_cross_entropy(logits[..., :1, :], target[..., :1, :])
    torch.testing.assert_close(weighted_cross_entropy(logits, target), upper / 2)
    # sum(p y) = 0.5, sum(p^2) = 0.25 + 0.25 and sum(y) = 1 over the two known voxels.
    half = two_classes(torch.full((1, 2, 2), 0.5))
    assert float(soft_dice_loss(half, target)) == pytest.approx(1 - 2 / 2.5)


def test_a_batch_of_ignored_voxels_has_no_loss_and_no_gradient() -> None:
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    loss = supervised_loss(logits, torch.full((1, 2, 2), IGNORED))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()
