"""Strong changes of training pictures: holes and elastic warps, the draw apart from its effect.

Batches are `(B, C, *spatial)`; of a block, all planes are changed alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LARGEST_HOLE = 1 / 16
"""Edge of a hole, as a part of the patch's."""
CONTROL_POINTS = 5
WARP = 0.03
"""Standard deviation of the control points' way, as a part of the patch's edge."""


@dataclass(frozen=True, slots=True)
class Holes:
    """Which pixels of a plane are hidden: (B, h, w) bool."""

    hidden: Tensor


@dataclass(frozen=True, slots=True)
class Warp:
    """How far pixels move: (B, h, w, 2) of (x, y), in units of half the patch's edge."""

    offsets: Tensor


def draw_holes(
    shape: torch.Size, generator: torch.Generator, count: tuple[int, int], chance: float
) -> Holes:
    """Draw square holes.

    Args:
        shape: (B, C, *spatial) of the batch.
        generator: Source of randomness.
        count: Fewest and most holes of a patch that has any.
        chance: Part of the patches that have any.
    """
    height, width = shape[-2:]
    hidden = torch.zeros(shape[0], height, width, dtype=torch.bool)
    for plane in hidden:
        if float(torch.rand((), generator=generator)) >= chance:
            continue
        number = int(torch.randint(count[0], count[1] + 1, (), generator=generator))
        for size, row, column in torch.rand(number, 3, generator=generator).tolist():
            edge = max(1, round(LARGEST_HOLE * height * (0.5 + size / 2)))
            top, left = int(row * height), int(column * width)
            plane[top : top + edge, left : left + edge] = True
    return Holes(hidden)


def apply_holes(image: Tensor, holes: Holes) -> Tensor:
    """Return (B, C, *spatial) with the hidden pixels as dark as the patch's darkest."""
    hidden = holes.hidden.to(image.device)
    hidden = hidden.reshape(len(image), *[1] * (image.ndim - 3), *hidden.shape[-2:])
    darkest = image.flatten(1).amin(1).view(-1, *[1] * (image.ndim - 1))
    return torch.where(hidden, darkest, image)


def draw_warp(shape: torch.Size, generator: torch.Generator, chance: float) -> Warp:
    """Draw a smooth displacement.

    Args:
        shape: (B, C, *spatial) of the batch.
        generator: Source of randomness.
        chance: Part of the patches that are moved at all.
    """
    size = (shape[0], 2, CONTROL_POINTS, CONTROL_POINTS)
    moved = torch.rand(shape[0], 1, 1, 1, generator=generator) < chance
    ways = torch.randn(size, generator=generator) * 2 * WARP * moved
    smooth = F.interpolate(ways, tuple(shape[-2:]), mode="bicubic", align_corners=True)
    return Warp(smooth.movedim(1, -1))


def apply_warp(inputs: Tensor, warp: Warp) -> Tensor:
    """Return the batch with its pixels moved; the border is repeated beyond the patch."""
    batch, (height, width) = len(inputs), inputs.shape[-2:]
    rows = (torch.arange(height, device=inputs.device) * 2 + 1) / height - 1
    columns = (torch.arange(width, device=inputs.device) * 2 + 1) / width - 1
    here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    flat = inputs.reshape(batch, -1, height, width)
    moved = F.grid_sample(
        flat,
        (here + warp.offsets.to(inputs.device)).to(flat),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return moved.reshape(inputs.shape)
