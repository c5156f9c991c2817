"""What SAM sees of a slice for targets that lie inside of another: its parent, in its intensities.

A lesion of 10 mm is 13 pixels of a whole abdominal slice in SAM's input of 512, and 30 of its
liver's crop. The crop is one for the whole volume, so that a slice has one embedding in it; its
edges and window are rounded, so that parents that differ little share embeddings on disk (ours).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aslseg.config import SamConfig, SamCropConfig
from aslseg.data.masks import box_of, parent_mask
from aslseg.data.volume import Float32, Mask, Volume
from aslseg.preprocessing.intensity import centre_and_spread
from aslseg.prompts import XY, BoxPrompt, SliceCrop, SlicePrompts
from aslseg.targets import Target

GRID_PX = 8
"""Edges of crops lie on multiples of this, or on the edge of the slice."""
GRID_HU = 10.0
"""Ends of windows are multiples of this."""


def crops_in_parents(
    volume: Volume,
    probabilities: Mapping[str, Float32],
    targets: Sequence[Target],
    settings: SamConfig,
) -> dict[str, SliceCrop]:
    """Return the crops of the targets whose parent is predicted.

    Args:
        volume: The image, on its axial grid.
        probabilities: By target name, (D, H, W).
        targets: All targets.
        settings: Of SAM.

    Returns:
        By target name; targets that SAM sees on whole slices are missing.
    """
    if settings.crop.region == "slice":
        return {}
    parents = {t.inside for t in targets if t.inside is not None and t.inside in probabilities}
    bodies = {name: parent_mask(volume, name, probabilities[name]) for name in parents}
    return crops_of(volume, bodies, targets, settings)


def crops_of(
    volume: Volume, parents: Mapping[str, Mask], targets: Sequence[Target], settings: SamConfig
) -> dict[str, SliceCrop]:
    """Return the crops of the targets whose parent has a mask that is not empty.

    Args:
        volume: The image, on its axial grid.
        parents: By name of the parent target, (D, H, W).
        targets: All targets.
        settings: Of SAM.
    """
    if settings.crop.region == "slice":
        return {}
    found = {name: _crop(volume, mask, settings) for name, mask in parents.items() if mask.any()}
    return {t.name: found[t.inside] for t in targets if t.inside in found}


def _crop(volume: Volume, parent: Mask, settings: SamConfig) -> SliceCrop:
    spacing_mm = volume.geometry.spacing_mm
    box = box_of(parent, margin_mm=settings.crop.margin_mm, spacing_mm=spacing_mm)
    if box is None:
        msg = "A mask that is not empty must have a box."
        raise ValueError(msg)
    height, width = parent.shape[1:]
    left, top = (start // GRID_PX * GRID_PX for start in (box.start[2], box.start[1]))
    right, bottom = (-(-stop // GRID_PX) * GRID_PX for stop in (box.stop[2], box.stop[1]))
    return SliceCrop(
        (left, top, min(right, width), min(bottom, height)), _window(volume, parent, settings)
    )


def _window(volume: Volume, parent: Mask, settings: SamConfig) -> tuple[float, float]:
    crop: SamCropConfig = settings.crop
    if crop.spreads is None:
        return settings.window_hu
    centre, spread = centre_and_spread(volume.voxels, parent)
    reach = crop.spreads * max(spread, crop.least_spread_hu)
    low, high = (centre - reach) / GRID_HU, (centre + reach) / GRID_HU
    return math.floor(low) * GRID_HU, math.ceil(high) * GRID_HU


def with_crops(
    prompts: Iterable[SlicePrompts], crops: Mapping[str, SliceCrop]
) -> list[SlicePrompts]:
    """Return prompts with the crop of their target; those outside of it see the whole slice."""
    return [_with_crop(prompt, crops.get(prompt.target)) for prompt in prompts]


def _with_crop(prompt: SlicePrompts, crop: SliceCrop | None) -> SlicePrompts:
    held = crop is not None and all(crop.holds(xy) for xy in _marks(prompt))
    return replace(prompt, crop=crop if held else None)


def _marks(prompt: SlicePrompts) -> list[XY]:
    """Return the points of a prompt, and the middle of its box or else of its mask."""
    points = [point.xy for point in prompt.points]
    if prompt.box is not None:
        left, top, right, bottom = prompt.box.xyxy
        return [*points, ((left + right) / 2, (top + bottom) / 2)]
    if prompt.mask_logits is not None and (prompt.mask_logits > 0).any():
        row, column = np.argwhere(prompt.mask_logits > 0).mean(axis=0) + 0.5
        return [*points, (float(column), float(row))]
    return points


def in_crop(prompt: SlicePrompts) -> SlicePrompts:
    """Return a prompt in pixels of its crop; one without a crop as it is.

    What of a box lies outside of the crop is cut off.
    """
    if prompt.crop is None:
        return prompt
    left, top, right, bottom = prompt.crop.xyxy

    def moved(xy: XY) -> XY:
        return min(max(xy[0], left), right) - left, min(max(xy[1], top), bottom) - top

    box, mask = prompt.box, prompt.mask_logits
    if box is not None:
        (x0, y0), (x1, y1) = moved(box.xyxy[:2]), moved(box.xyxy[2:])
        box = BoxPrompt((x0, y0, x1, y1))
    return replace(
        prompt,
        box=box,
        points=tuple(replace(point, xy=moved(point.xy)) for point in prompt.points),
        mask_logits=None if mask is None else mask[prompt.crop.slices],
    )
