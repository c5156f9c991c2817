"""Random changes of training patches: sampling apart from application.

`sample_*` functions take a generator and return values; `apply_*` functions are deterministic. A
patch is `(C, *spatial)`, a batch `(B, C, *spatial)`, with two or three spatial axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ANGLE_SD = 0.15


LOG_SCALE_SD = 0.15


@dataclass(frozen=True, slots=True)
class PatchTransform:
    """Where a patch is cut: its centre in pixels, an in-plane turn and a scale.

    Attributes:
        centre: Index of the patch's centre along each spatial axis of the source.
        angle: Turn in the plane of the last two axes, in radians.
        scale: Source pixels per patch pixel.
    """

    centre: tuple[float, ...]
    angle: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class IntensityChange:
    """One change of contrast, brightness, noise and sharpness for each element of a batch.

    Attributes:
        contrast: (B,) factors.
        brightness: (B,) added values.
        noise: (B, C, *spatial) added noise.
        blurred: (B,) whether the element is smoothed over 3 pixels.
    """

    contrast: Tensor
    brightness: Tensor
    noise: Tensor
    blurred: Tensor


def sample_patch_transform(centre: tuple[float, ...], rng: np.random.Generator) -> PatchTransform:
    """Sample turn and scale around a centre."""
    angle, log_scale = rng.normal(size=2)
    return PatchTransform(
        centre, ANGLE_SD * float(angle), math.exp(LOG_SCALE_SD * float(log_scale))
    )


def cut_patch(
    source: NDArray[np.generic], transform: PatchTransform, edge: int, *, nearest: bool = False
) -> Tensor:
    """Cut a square (cubic) patch out of an array.

    Args:
        source: (C, h, w) or (C, d, h, w).
        transform: Where, how turned, how scaled.
        edge: Pixels along each edge of the patch.
        nearest: For labels: no mixing of values, and zeros outside. Images repeat their border.

    Returns:
        (C, edge, edge) or (C, edge, edge, edge) float32.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(source, dtype=np.float32))[None]
    located = located_pixels(transform, edge)
    sizes = tensor.shape[2:]
    # grid_sample wants (x, y[, z]) in [-1, 1], with -1 and 1 at the outer edges of the pixels.
    grid = torch.stack(
        [(at + 0.5) / size * 2 - 1 for at, size in zip(located[::-1], sizes[::-1], strict=True)], -1
    )
    return F.grid_sample(
        tensor,
        grid[None],
        mode="nearest" if nearest else "bilinear",
        padding_mode="zeros" if nearest else "border",
        align_corners=False,
    )[0]


def located_pixels(transform: PatchTransform, edge: int) -> list[Tensor]:
    """Return where the pixels of a patch lie in its source.

    Returns:
        One tensor per spatial axis, each of the patch's spatial shape: indices of the source.
    """
    steps = (torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2) * transform.scale
    axes = torch.meshgrid(*[steps] * len(transform.centre), indexing="ij")
    cos, sin = math.cos(transform.angle), math.sin(transform.angle)
    rows, columns = axes[-2], axes[-1]
    turned = [*axes[:-2], cos * rows + sin * columns, cos * columns - sin * rows]
    return [axis + centre for axis, centre in zip(turned, transform.centre, strict=True)]


def sample_intensity(
    shape: torch.Size, generator: torch.Generator, strength: float = 1.0
) -> IntensityChange:
    """Sample a change for a batch of `shape` (B, C, *spatial); strength 0 changes nothing."""
    batch = shape[0]

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    amount = 0.25 * torch.rand(batch, generator=generator)
    spread = amount.view(-1, *[1] * (len(shape) - 1))
    return IntensityChange(
        contrast=torch.exp(0.15 * strength * normal(batch)),
        brightness=0.2 * strength * normal(batch),
        noise=strength * spread * torch.randn(shape, generator=generator),
        blurred=torch.rand(batch, generator=generator) < 0.3 * strength,
    )


def apply_intensity(image: Tensor, change: IntensityChange) -> Tensor:
    """Return the changed batch; `image` is (B, C, *spatial)."""
    ones = [1] * (image.ndim - 1)
    changed = image * change.contrast.view(-1, *ones).to(image) + change.brightness.view(
        -1, *ones
    ).to(image)
    changed = changed + change.noise.to(image)
    pool = F.avg_pool2d if image.ndim == 4 else F.avg_pool3d
    smooth = pool(changed, 3, 1, 1, count_include_pad=False)
    return torch.where(change.blurred.view(-1, *ones).to(image.device), smooth, changed)


LARGEST_HOLE = 1 / 16
"""Edge of a hole, as a part of the patch's."""


CONTROL_POINTS = 5


WARP = 0.03
"""Standard deviation of the control points' displacement, as a part of the patch's edge."""


@dataclass(frozen=True, slots=True)
class Holes:
    """Which pixels of a plane are hidden: (B, h, w) bool."""

    hidden: Tensor


@dataclass(frozen=True, slots=True)
class Warp:
    """How far pixels move: (B, h, w, 2) of (x, y), in units of half the patch's edge."""

    offsets: Tensor


def sample_holes(
    shape: torch.Size, generator: torch.Generator, count: tuple[int, int], chance: float
) -> Holes:
    """Sample square holes.

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


def sample_warp(shape: torch.Size, generator: torch.Generator, chance: float) -> Warp:
    """Sample a smooth displacement.

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
