"""Mask prompts for SAM where a person gives a box or clicks.

SAM is tuned on prompts that come with a mask; without one it often predicts the whole organ for a
click in a lesion. So a person's prompt gets a mask too (ours): what the specialist proposed within
the box, or the pixels around a click that look like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import label_components
from aslseg.data.volume import Mask, Volume
from aslseg.prompts import XY, SlicePrompts, box_around, mask_to_logits

SMOOTHING_PX = 1.0
SEED_MM = 3.0
REACH_MM = 25.0
ALIKE_HU = 20.0
MARGIN_PX = 2.0


def with_mask_prompt(
    prompt: SlicePrompts,
    volume: Volume,
    proposed: Sequence[SlicePrompts],
    *,
    is_parent: bool,
) -> SlicePrompts:
    """Return a person's prompt with a mask, and with a box where there was none.

    Args:
        prompt: Of a person.
        volume: The image.
        proposed: The run's prompts of the same slice and target.
        is_parent: Whether other targets lie inside of this one. An organ is not grown from a click:
            it looks like its neighbours.
    """
    clicked = any(point.positive for point in prompt.points)
    mask = _proposed_mask(prompt, proposed, volume.geometry.shape[1:])
    if not is_parent and (clicked or not mask.any()):
        mask = _grown_mask(prompt, volume)
    for point in prompt.points:
        if not point.positive:
            mask &= ~look_alikes(volume, prompt.slice_index, point.xy)
    if not mask.any():
        return prompt
    box = prompt.box or box_around(mask, MARGIN_PX)
    return replace(prompt, box=box, mask_logits=mask_to_logits(mask))


def look_alikes(volume: Volume, k: int, xy: XY) -> Mask:
    """Return the pixels (H, W) that look like a point and are connected with it.

    Args:
        volume: The image.
        k: Number of the slice.
        xy: The point, in pixels of the slice.
    """
    smooth = ndimage.gaussian_filter(volume.voxels[k].astype(np.float32), SMOOTHING_PX)
    distance = _distance_mm(volume, xy)
    seed = distance <= max(SEED_MM, distance.min())
    alike = (np.abs(smooth - smooth[seed].mean()) <= ALIKE_HU) & (distance <= REACH_MM)
    opened: Mask = ndimage.binary_opening(alike) | seed
    numbered, _ = label_components(opened)
    found: Mask = numbered == numbered[np.unravel_index(int(np.argmin(distance)), distance.shape)]
    return found


def _proposed_mask(
    prompt: SlicePrompts, proposed: Sequence[SlicePrompts], shape: tuple[int, ...]
) -> Mask:
    mask = np.zeros(shape, bool)
    if prompt.box is not None:
        for one in proposed:
            if one.mask_logits is not None:
                mask |= one.mask_logits > 0
        mask &= prompt.box.region(shape)
    return mask


def _grown_mask(prompt: SlicePrompts, volume: Volume) -> Mask:
    shape = volume.geometry.shape[1:]
    seeds: list[XY] = [point.xy for point in prompt.points if point.positive]
    if prompt.box is not None and not seeds:
        left, top, right, bottom = prompt.box.xyxy
        seeds = [((left + right) / 2, (top + bottom) / 2)]
    mask = np.zeros(shape, bool)
    for xy in seeds:
        mask |= look_alikes(volume, prompt.slice_index, xy)
    return mask if prompt.box is None else mask & prompt.box.region(shape)


def _distance_mm(volume: Volume, xy: XY) -> NDArray[np.float64]:
    rows, columns = np.indices(volume.geometry.shape[1:])
    _, row_mm, column_mm = volume.geometry.spacing_mm
    distance: NDArray[np.float64] = np.hypot(
        (rows + 0.5 - xy[1]) * row_mm, (columns + 0.5 - xy[0]) * column_mm
    )
    return distance
