"""Losses and schedules of semi-supervised segmentation, as pure functions on tensors.

Logits are `(B, C, *spatial)`, class maps `(B, *spatial)` of integers, weights `(B,)`. Voxels of
class `preprocessing.roi.IGNORED` add nothing to the supervised losses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from aslseg.preprocessing.roi import IGNORED


def soft_dice_loss(
    probability: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    smooth: float = 1.0,
    background: bool = False,
    absent: bool = True,
) -> Tensor:
    """Return one minus the Dice overlap of the whole batch, averaged over classes.

    The denominator is squared (Milletari et al., V-Net, 2016); sums run over the batch, so that
    a patch without a lesion cannot dominate.

    Args:
        probability: (B, C, *spatial) in [0, 1].
        target: (B, *spatial) class numbers, or `IGNORED`.
        weight: (B,) weight of each element of the batch.
        smooth: Added above and below.
        background: Whether class 0 is one of the classes that are averaged.
        absent: Whether a class of which the target has no voxel is one of them.
    """
    known = target != IGNORED
    truth = torch.stack([target == n for n in range(probability.shape[1])], 1).to(probability)
    scale = _per_element(weight, probability) * known[:, None].to(probability.dtype)
    axes = (0, *range(2, probability.ndim))
    overlap = (scale * probability * truth).sum(axes)
    total = (scale * (probability.square() + truth)).sum(axes)
    loss = 1 - (2 * overlap + smooth) / (total + smooth)
    counted = torch.full_like(loss, absent, dtype=torch.bool) | ((scale * truth).sum(axes) > 0)
    counted[0] &= background
    return (loss * counted).sum() / counted.sum().clamp(min=1)


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the cross entropy, averaged over voxels; weights scale elements of the batch.

    Ignored voxels count as zeros: a patch has the less weight, the less is known of it.

    Args:
        logits: (B, C, *spatial).
        target: (B, *spatial) class numbers, or `IGNORED`.
        weight: (B,) weight of each element of the batch.

    Returns:
        A scalar.
    """
    per_voxel = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
    per_element = per_voxel.flatten(1).mean(1)
    if weight is None:
        return per_element.mean()
    return (per_element * weight).mean()


def supervised_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return cross entropy plus soft Dice, the sum that all baselines here use.

    Args:
        logits: (B, C, *spatial).
        target: (B, *spatial) class numbers, or `IGNORED`.
        weight: (B,) weight of each element of the batch.

    Returns:
        A scalar.
    """
    logits = logits.float()
    return weighted_cross_entropy(logits, target, weight) + soft_dice_loss(
        logits.softmax(1), target, weight
    )


def consistency_loss(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the squared difference of two probability maps, averaged (over a mask if given).

    Args:
        student: (B, C, *spatial) probabilities, with gradient.
        teacher: The same shape, without.
        mask: (B, 1, *spatial) in [0, 1]: voxels that count. UA-MT keeps the certain ones
            (Yu et al., MICCAI 2019).
    """
    squared = (student - teacher.detach()).square()
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / (student.shape[1] * mask.sum() + 1e-6)


def entropy(probability: Tensor) -> Tensor:
    """Return the entropy in nats over the class axis, keeping that axis: (B, 1, *spatial)."""
    return -(probability * (probability + 1e-6).log()).sum(1, keepdim=True)


def ramp_up(step: float, length: float) -> float:
    """Return exp(-5 (1 - t)^2) with t = step / length cut off at 1 (Laine and Aila, 2017)."""
    if length <= 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(max(step / length, 0.0), 1.0)) ** 2)


def ramp_down(step: float, steps: float, length: float) -> float:
    """Return the ramp seen from the end: 1 until `length` before it, then down to exp(-5)."""
    return ramp_up(steps - step, length)


def polynomial_decay(step: int, steps: int, power: float = 0.9) -> float:
    """Return (1 - step / steps)^power, the factor on the learning rate."""
    return float((1.0 - min(step / steps, 1.0)) ** power)


def warm_up(step: int, length: int) -> float:
    """Return (step + 1) / length cut off at 1, a factor on the learning rate."""
    return min((step + 1) / length, 1.0) if length > 0 else 1.0


def uncertainty_threshold(progress: float, classes: int) -> float:
    """Return UA-MT's entropy threshold (0.75 + 0.25 ramp) ln C at a part of the schedule."""
    return (0.75 + 0.25 * ramp_up(progress, 1.0)) * math.log(classes)


@torch.no_grad()
def update_average(average: torch.nn.Module, current: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards the current ones: a <- decay a + (1 - decay) c.

    Buffers are copied: they are statistics, not weights.
    """
    kept = [p.data for p in average.parameters()]
    new = [p.data for p in current.parameters()]
    torch._foreach_lerp_(kept, new, 1.0 - decay)  # on a card in one call, as torch's own averages
    for statistic, latest in zip(average.buffers(), current.buffers(), strict=True):
        statistic.copy_(latest)


def average_decay(step: int, decay: float) -> float:
    """Return min(1 - 1/(step + 1), decay): early on the average follows at once."""
    return min(1.0 - 1.0 / (step + 1), decay)


def _per_element(weight: Tensor | None, like: Tensor) -> Tensor:
    if weight is None:
        return torch.ones((), dtype=like.dtype, device=like.device)
    return weight.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
