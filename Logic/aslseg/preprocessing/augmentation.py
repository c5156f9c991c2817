"""Random changes of training patches: sampling apart from application.

`sample_*` functions take a generator and return values; `apply_*` functions are deterministic. A
patch is `(C, *spatial)`, a batch `(B, C, *spatial)`, with two or three spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from monai.networks.layers import gaussian_1d, separable_filtering
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aslseg.distributed import WorkPart

MOST_TURNED = math.radians(30)
SCALES = (0.7, 1.4)
CHANGED_IN_PLACE = 0.5
"""Chance that a patch is turned, and that it is scaled: the ranges are nnU-Net's (Isensee et al.,
2021; turns those of its three-dimensional patches), which changes a fifth of its patches (ours)."""


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
    """Changes of intensity for each element of a batch, in the order in which they are applied.

    Attributes:
        contrast: (B,) factors.
        brightness: (B,) added values.
        gamma: (B,) exponents of the intensities within the element's range; 1 changes nothing.
        inverted: (B,) whether the exponent is that of the inverted image.
        noise: (B, C, *spatial) added noise.
        blur_px: (B,) standard deviations of a Gaussian in pixels; 0 changes nothing.
        resolution: (B,) part of the resolution that is left; 1 changes nothing.
    """

    contrast: Tensor
    brightness: Tensor
    gamma: Tensor
    inverted: Tensor
    noise: Tensor
    blur_px: Tensor
    resolution: Tensor


def sample_patch_transform(
    pixel: tuple[float, ...], edge: int, rng: np.random.Generator
) -> PatchTransform:
    """Sample turn and scale around a pixel.

    Args:
        pixel: Index in the source. The pixels of a patch that is neither turned nor scaled lie on
            those of the source, and are not mixed: the centre of an even edge is between two.
        edge: Pixels along each edge of the patch.
        rng: Source of randomness.
    """
    turned, scaled = rng.random(2) < CHANGED_IN_PLACE
    angle = rng.uniform(-MOST_TURNED, MOST_TURNED) if turned else 0.0
    log_scale = rng.uniform(math.log(SCALES[0]), math.log(SCALES[1])) if scaled else 0.0
    centre = tuple(at - 0.5 if edge % 2 == 0 else at for at in pixel)
    return PatchTransform(centre, float(angle), math.exp(log_scale))


CPU = torch.device("cpu")


def cut_patches(
    sources: Sequence[NDArray[np.generic]],
    transforms: Sequence[PatchTransform],
    edge: int,
    *,
    mirrored: Sequence[tuple[int, ...]] = (),
    nearest: bool = False,
    device: torch.device = CPU,
) -> Tensor:
    """Cut a square (cubic) patch out of each of some arrays.

    The parts of them that patches lie in are brought to the device, and cut there all at once; for
    other devices than CUDA's, which may lack what that needs, they are cut on the processor.

    Args:
        sources: Each (C, h, w), or each (C, d, h, w).
        transforms: Where, how turned, how scaled; one for each array.
        edge: Pixels along each edge of a patch.
        mirrored: Axes (-1 columns, -2 rows) that each patch is mirrored along afterwards.
        nearest: For labels: no mixing of values, and zeros outside. Images repeat their border.
        device: Where patches are wanted.

    Returns:
        (B, C, edge, edge) or (B, C, edge, edge, edge) float32.
    """
    at_work = device if device.type == "cuda" else CPU
    parts, places = zip(
        *[_needed_part(*each, edge) for each in zip(sources, transforms, strict=True)], strict=True
    )
    together = _together(parts, pinned=at_work.type == "cuda")
    located = located_pixels(places, edge, mirrored=mirrored, device=at_work)
    if not nearest:
        last = torch.tensor([part.shape[1:] for part in parts]).T.to(at_work) - 1
        located = [
            torch.minimum(at.clamp(min=0), most.view(-1, *[1] * (at.ndim - 1)))
            for at, most in zip(located, last, strict=True)
        ]
    # grid_sample wants (x, y[, z]) in [-1, 1], with -1 and 1 at the outer edges of the pixels.
    lengths = together.shape[:1:-1]
    grid = torch.stack(
        [(at + 0.5) / n * 2 - 1 for at, n in zip(located[::-1], lengths, strict=True)], -1
    )
    return F.grid_sample(
        together.to(at_work, non_blocking=True),
        grid,
        mode="nearest" if nearest else "bilinear",
        padding_mode="zeros" if nearest else "border",
        align_corners=False,
    ).to(device)


def _together(parts: Sequence[NDArray[np.generic]], *, pinned: bool) -> Tensor:
    """Return arrays (C, *spatial) as (B, C, *spatial) float32, with zeros beyond the smaller ones.

    Args:
        parts: With as many channels each.
        pinned: Whether a graphics card shall read them from memory by itself.
    """
    largest = map(max, zip(*[part.shape[1:] for part in parts], strict=True))
    together = torch.zeros(len(parts), len(parts[0]), *largest, pin_memory=pinned)
    for row, part in zip(together.numpy(), parts, strict=True):
        row[(slice(None), *map(slice, part.shape[1:]))] = part
    return together


def _needed_part(
    source: NDArray[np.generic], transform: PatchTransform, edge: int
) -> tuple[NDArray[np.generic], PatchTransform]:
    """Return the part of an array that a patch is interpolated from, and where it lies in that."""
    half = (edge - 1) / 2 * transform.scale
    in_plane = half * (abs(math.cos(transform.angle)) + abs(math.sin(transform.angle)))
    reach = [*[half] * (len(transform.centre) - 2), in_plane, in_plane]
    spans = [
        _span(at - far, at + far, size)
        for at, far, size in zip(transform.centre, reach, source.shape[1:], strict=True)
    ]
    centre = tuple(at - span.start for at, span in zip(transform.centre, spans, strict=True))
    return source[(slice(None), *spans)], replace(transform, centre=centre)


def _span(low: float, high: float, size: int) -> slice:
    """Return the part of an axis that interpolation between pixels needs."""
    start = min(max(math.floor(low) - 1, 0), size - 1)
    return slice(start, max(min(math.ceil(high) + 2, size), start + 1))


def located_pixels(
    transforms: Sequence[PatchTransform],
    edge: int,
    *,
    mirrored: Sequence[tuple[int, ...]] = (),
    device: torch.device = CPU,
) -> list[Tensor]:
    """Return where the pixels of patches lie in their sources.

    Args:
        transforms: Of the patches.
        edge: Pixels along each edge of a patch.
        mirrored: Axes (-1 columns, -2 rows) that each patch is mirrored along afterwards.
        device: Where they are wanted.

    Returns:
        One tensor per spatial axis, (B, edge, edge[, edge]): indices of the source.
    """
    axes = len(transforms[0].centre)
    signs = [tuple(-1.0 if axis in of else 1.0 for axis in (-2, -1)) for of in mirrored]
    facts = torch.tensor(
        [
            (t.scale, math.cos(t.angle), math.sin(t.angle), *sign, *t.centre)
            for t, sign in zip(transforms, signs or [(1.0, 1.0)] * len(transforms), strict=True)
        ],
        dtype=torch.float32,
    ).to(device)
    scale, cos, sin, up, across, *centre = facts.view(len(facts), -1, *[1] * axes).unbind(1)
    steps = torch.arange(edge, dtype=torch.float32, device=device) - (edge - 1) / 2
    *depth, rows, columns = (
        scale * steps.view(-1, *[1] * (axes - 1 - axis)) for axis in range(axes)
    )
    rows, columns = up * rows, across * columns
    turned = [*depth, cos * rows + sin * columns, cos * columns - sin * rows]
    shape = (len(facts), *[edge] * axes)
    return [(at + middle).expand(shape) for at, middle in zip(turned, centre, strict=True)]


GAMMAS, GAMMA_CHANCE, INVERTED_SHARE = (0.7, 1.5), 0.4, 0.25
BLURS_PX, BLUR_CHANCE = (0.5, 1.0), 0.2
RESOLUTIONS, RESOLUTION_CHANCE = (0.5, 1.0), 0.25
"""Ranges and chances of nnU-Net (Isensee et al., 2021, supplement 4); contrast, brightness and
noise, which change each patch, are ours."""


def sample_intensity(
    shape: torch.Size, generator: torch.Generator, strength: float = 1.0
) -> IntensityChange:
    """Sample a change for a batch.

    Args:
        shape: (B, C, *spatial).
        generator: Source of randomness.
        strength: Scales the spread of contrast, brightness and noise, and the chance of all else;
            0 changes nothing.
    """
    batch = shape[0]

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=generator)

    def with_chance(chance: float, value: Tensor, otherwise: float) -> Tensor:
        chosen = torch.rand(batch, generator=generator) < chance * strength
        return torch.where(chosen, value, torch.full_like(value, otherwise))

    spread = uniform(0, 0.25).view(-1, *[1] * (len(shape) - 1))
    return IntensityChange(
        contrast=torch.exp(0.15 * strength * normal(batch)),
        brightness=0.2 * strength * normal(batch),
        gamma=with_chance(GAMMA_CHANCE, uniform(*map(math.log, GAMMAS)).exp(), 1.0),
        inverted=uniform(0, 1) < INVERTED_SHARE,
        noise=strength * spread * normal(*shape),
        blur_px=with_chance(BLUR_CHANCE, uniform(*BLURS_PX), 0.0),
        resolution=with_chance(RESOLUTION_CHANCE, uniform(*RESOLUTIONS), 1.0),
    )


def part_of_change(change: IntensityChange, part: WorkPart) -> IntensityChange:
    """Return the changes of a part of a batch."""
    values: dict[str, Tensor] = {f.name: getattr(change, f.name) for f in fields(change)}
    return IntensityChange(**{n: value[part.number :: part.of] for n, value in values.items()})


def apply_intensity(image: Tensor, change: IntensityChange) -> Tensor:
    """Return the changed batch; `image` is (B, C, *spatial)."""
    ones = [1] * (image.ndim - 1)
    changed = image * change.contrast.view(-1, *ones).to(image)
    changed = changed + change.brightness.view(-1, *ones).to(image)
    bent = (change.gamma != 1).nonzero().flatten()
    if len(bent):
        powers = (change.gamma[bent].to(image), change.inverted[bent].to(image.device))
        changed[bent.tolist()] = bend(changed[bent.tolist()], *powers)
    changed = changed + change.noise.to(image)
    for n in (change.blur_px > 0).nonzero().flatten().tolist():
        changed[n] = blur(changed[n], float(change.blur_px[n]))
    for n in (change.resolution < 1).nonzero().flatten().tolist():
        changed[n] = coarsen(changed[n], float(change.resolution[n]))
    return changed


def bend(images: Tensor, gamma: Tensor, inverted: Tensor) -> Tensor:
    """Return intensities to a power, within their range and with their mean and deviation kept.

    Args:
        images: (B, C, *spatial).
        gamma: (B,) exponents of the intensities of each image, mapped to [0, 1].
        inverted: (B,) whether the exponent is that of one minus the intensities.
    """
    each = tuple(range(1, images.ndim))
    gamma, inverted = (of.view(-1, *[1] * len(each)) for of in (gamma, inverted))
    low = images.amin(each, keepdim=True)
    reach = (images.amax(each, keepdim=True) - low).clamp(min=1e-6)
    part = (images - low) / reach
    bent = torch.where(inverted, 1 - part, part) ** gamma
    bent = torch.where(inverted, 1 - bent, bent)
    sd, mean = torch.std_mean(images, each, keepdim=True)
    sd_bent, mean_bent = torch.std_mean(bent, each, keepdim=True)
    return (bent - mean_bent) * (sd / sd_bent.clamp(min=1e-6)) + mean


TARGET_SHIFTS = (-0.8, 0.5)
"""Least and most that a target is made brighter: -60 to 37 HU where a window of 300 HU is given."""
BORDER_SD_PX = 0.6
"""Standard deviation of the Gaussian that softens the border of what is shifted."""


def sample_target_shifts(count: int, chance: float, rng: np.random.Generator) -> Tensor:
    """Sample how much brighter the targets of each patch are made.

    Args:
        count: Patches.
        chance: Part of the patches that are changed.
        rng: Source of randomness.

    Returns:
        (count,) in the units in which networks are given intensities; 0 changes nothing.
    """
    shifts = rng.uniform(*TARGET_SHIFTS, count) * (rng.random(count) < chance)
    return torch.from_numpy(shifts.astype(np.float32))


def shift_targets(image: Tensor, target_mask: Tensor, shifts: Tensor) -> Tensor:
    """Return images whose targets are brighter or darker, and all else as it was.

    A liver that is fatty, or seen before the contrast agent, differs from others in brightness
    alone; labels of a few patients show a part of that range (ours).

    Args:
        image: (B, C, *spatial).
        target_mask: (B, *spatial) bool; it stands for the targets of all channels.
        shifts: (B,) in units of the image.
    """
    changed = image.clone()
    for n in shifts.nonzero().flatten().tolist():
        inside = blur(target_mask[n][None].to(image), BORDER_SD_PX)
        changed[n] += float(shifts[n]) * inside
    return changed


def blur(image: Tensor, sd_px: float) -> Tensor:
    """Return (C, *spatial) smoothed by a Gaussian; borders are repeated."""
    kernel = gaussian_1d(torch.tensor(sd_px), truncated=3.0).to(image)
    kernel /= kernel.sum()
    kernels = [kernel] * (image.ndim - 1)
    smooth: Tensor = separable_filtering(image[None], kernels, mode="replicate")
    return smooth[0]


def coarsen(image: Tensor, resolution: float) -> Tensor:
    """Return (C, *spatial) as an image of fewer pixels would show it.

    Args:
        image: (C, *spatial).
        resolution: Part of the pixels along each edge.
    """
    spatial = image.shape[1:]
    fewer = [max(1, round(resolution * length)) for length in spatial]
    coarse = F.interpolate(image[None], fewer, mode="nearest-exact")
    how = "bilinear" if len(spatial) == 2 else "trilinear"
    return F.interpolate(coarse, list(spatial), mode=how, align_corners=False)[0]


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
    """Return the batch with its pixels moved; the border is repeated beyond the patch.

    Args:
        inputs: (B, C, *spatial); the last two axes are moved.
        warp: Of as many patches of this size.

    Returns:
        Of the same shape.
    """
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
