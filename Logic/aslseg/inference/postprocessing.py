"""From probabilities to labels: one decoder, `_decoded`, with three rules of cleaning.

`labels_from` is for a whole volume, `label_slice` for a slice of it, `plain_labels` cleans nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce

import numpy as np
from scipy import ndimage

from aslseg.data.masks import (
    clean_parent,
    drop_small,
    label_components,
    mask_where,
    within_reach,
)
from aslseg.data.volume import Float32, Labelmap, Labels, Mask, Volume, zeros
from aslseg.targets import Target, cascade_stages, region_values

Clean = Callable[[Target, Mask, Mask | None], Mask]
"""From a target, its most probable voxels and its parent's cleaned mask (None for a target without
a parent) to the voxels that get its label."""

Order = Callable[[Sequence[Target]], Iterable[Target]]
"""In which order the targets of a stage are written; later ones overwrite earlier ones."""


def labels_from(
    probabilities: Mapping[str, Float32],
    targets: Sequence[Target],
    volume: Volume,
    min_component_ml: float,
) -> Labelmap:
    """Return the label map of a volume.

    A parent is its largest component without holes, or the mask that came with the volume, as it
    is; contents lie within reach of it, and their components below `min_component_ml` are removed.
    Among targets with one parent the most probable one wins.

    Args:
        probabilities: By target, (D, H, W) probability of its region.
        targets: All targets.
        volume: Gives geometry and spacing.
        min_component_ml: Least volume of a component of contents.
    """
    parents = {target.inside for target in targets}
    least = _least_voxels(volume, min_component_ml)

    def clean(target: Target, mask: Mask, parent: Mask | None) -> Mask:
        if target.name in volume.given:
            return volume.given[target.name]
        if parent is not None:
            mask = mask_where(np.logical_and, mask, within_reach(parent, volume))
        return clean_parent(mask) if target.name in parents else drop_small(mask, least)

    labels = _decoded(probabilities, targets, clean, _parents_before_siblings(targets))
    return Labelmap(labels, volume.geometry)


def label_slice(
    planes: Mapping[str, Float32],
    k: int,
    before: Labels,
    targets: Sequence[Target],
    volume: Volume,
    *,
    min_component_ml: float,
) -> Labels:
    """Return the labels of one slice, given those of its neighbours.

    What `labels_from` decides by connected components is decided by contact with the labels around:
    a parent keeps the parts that touch it there, a content those that touch one there or are large
    enough.

    Args:
        planes: By target, (H, W) probability.
        k: Number of the slice.
        before: (D, H, W) label map of the volume as it was.
        targets: All targets.
        volume: Gives spacing.
        min_component_ml: Smaller parts of contents are removed.

    Returns:
        (H, W) uint8.
    """
    parents = {target.inside for target in targets}
    least = _least_voxels(volume, min_component_ml)

    def clean(target: Target, mask: Mask, parent: Mask | None) -> Mask:
        if target.name in volume.given:
            given: Mask = volume.given[target.name][k]
            return given
        if parent is not None:
            mask &= within_reach(parent[None], volume)[0]
        values = region_values(target, targets)
        beside = dilated_in_plane(np.isin(before[max(k - 1, 0) : k + 2], values), None)
        if target.name not in parents:
            return _large_or_touching(mask, beside, least)
        is_first = not beside.any() and not np.isin(before, values).any()
        filled: Mask = ndimage.binary_fill_holes(parts_touching(mask, beside, is_first=is_first))
        return filled

    return _decoded(planes, targets, clean, _parents_before_siblings(targets))


def plain_labels(probabilities: Mapping[str, Float32], targets: Sequence[Target]) -> Labels:
    """Return the most probable target above one half, uint8; contents overwrite their parents.

    Args:
        probabilities: By target, all of one shape, which is that of the result.
        targets: All targets. Of equally probable ones of a stage the first wins.
    """
    return _decoded(probabilities, targets, lambda _, mask, __: mask, reversed)


def _decoded(
    probabilities: Mapping[str, Float32], targets: Sequence[Target], clean: Clean, order: Order
) -> Labels:
    """Return labels, uint8, of the shape of the probabilities.

    Stage after stage, parents before their contents, each target gets the voxels where its
    probability is above one half and the largest of its stage, as far as `clean` keeps them.
    """
    labels: Labels = zeros(next(iter(probabilities.values())).shape, np.uint8)
    cleaned: dict[str, Mask] = {}
    for stage in cascade_stages(targets):
        of_stage = [probabilities[target.name] for target in stage.targets]
        parent = None if stage.inside is None else cleaned[stage.inside.name]
        for target in order(stage.targets):
            mask = clean(target, _most_probable(probabilities[target.name], of_stage), parent)
            cleaned[target.name] = mask
            labels[mask] = target.value
    return labels


def _most_probable(probability: Float32, of_stage: Sequence[Float32]) -> Mask:
    """Return where a target of a stage is above one half and no other one is above it."""

    def is_likely(part: Float32, *of_all: Float32) -> Mask:
        likely: Mask = (part > 0.5) & (part >= reduce(np.maximum, of_all))
        return likely

    return mask_where(is_likely, probability, *of_stage)


def _parents_before_siblings(targets: Sequence[Target]) -> Order:
    """Return the order in which no parent overwrites the sibling that fills one of its holes."""
    parents = {target.inside for target in targets}
    return lambda stage: sorted(stage, key=lambda target: target.name not in parents)


def _least_voxels(volume: Volume, min_component_ml: float) -> int:
    return max(1, round(min_component_ml / volume.geometry.voxel_ml))


def parts_touching(mask: Mask, beside: Mask, *, is_first: bool) -> Mask:
    """Return the parts of a slice's mask that touch a body; the largest part if it is the first.

    Args:
        mask: (H, W).
        beside: (H, W) where the body is, in this slice and its neighbours.
        is_first: There is no body in any slice yet.
    """
    numbered, _ = label_components(mask)
    touching = np.unique(numbered[beside & mask])
    if is_first and mask.any():
        touching = np.array([1 + int(np.argmax(np.bincount(numbered.ravel())[1:]))])
    found: Mask = np.isin(numbered, touching) & mask
    return found


def dilated_in_plane(body: Mask, k: int | None) -> Mask:
    """Return where a body is in slice `k` or beside it (None: in any of its slices), widened.

    Args:
        body: (D, H, W).
        k: Slice, or None.

    Returns:
        (H, W), widened by a pixel.
    """
    part = body if k is None else body[max(k - 1, 0) : k + 2]
    widened: Mask = ndimage.binary_dilation(part.any(axis=0))
    return widened


def _large_or_touching(mask: Mask, beside: Mask, least: int) -> Mask:
    numbered, count = label_components(mask)
    keep = np.bincount(numbered.ravel(), minlength=count + 1) >= least
    keep[np.unique(numbered[beside & mask])] = True
    keep[0] = False
    large_or_touching: Mask = keep[numbered]
    return large_or_touching
