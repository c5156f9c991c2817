"""From a volume to probabilities and labels with the specialist: stage after stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from aslseg.data.masks import clean_parent, drop_small, label_components, within_reach
from aslseg.data.volume import Float32, Labelmap, Labels, Mask, Volume
from aslseg.targets import Target, cascade_stages, region_values


def labels_from(
    probabilities: Mapping[str, Float32],
    targets: Sequence[Target],
    volume: Volume,
    min_component_ml: float,
) -> Labelmap:
    """Turn region probabilities into one label map.

    A container is its largest component without holes; contents lie within reach of it, and their
    components below the least size are dropped. Among targets with one container the more probable
    one wins.
    """
    labels = np.zeros(volume.geometry.shape, np.uint8)
    parents = {target.inside for target in targets}
    least = max(1, round(min_component_ml / volume.geometry.voxel_ml))
    bodies: dict[str, Mask] = {}
    for stage in cascade_stages(targets):
        best = np.max([probabilities[t.name] for t in stage.targets], axis=0)
        # What fills a hole of a container must not be swallowed by it, so containers go first.
        for target in sorted(stage.targets, key=lambda t: t.name not in parents):
            mask = (probabilities[target.name] > 0.5) & (probabilities[target.name] >= best)
            if stage.inside is not None:
                mask &= within_reach(bodies[stage.inside.name], volume)
            if target.name in parents:
                mask = clean_parent(mask)
                bodies[target.name] = mask
            else:
                mask = drop_small(mask, least)
            labels[mask] = target.value
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
    """Turn the probabilities of one slice into labels, in the light of its neighbours.

    What the whole volume decides by connected bodies is decided here by contact with the labels
    around: a parent keeps the parts that touch it there, a content those that touch one there or
    are large enough.

    Args:
        planes: By target, (H, W).
        k: Number of the slice.
        before: (D, H, W) label map of the volume as it was.
        targets: All targets.
        volume: Gives spacing.
        min_component_ml: Smaller parts of contents are dropped.

    Returns:
        (H, W) uint8.
    """
    labels = np.zeros(before.shape[1:], np.uint8)
    parents = {target.inside for target in targets}
    least = max(1, round(min_component_ml / volume.geometry.voxel_ml))
    bodies: dict[str, Mask] = {}
    for stage in cascade_stages(targets):
        best = np.max([planes[t.name] for t in stage.targets], axis=0)
        for target in sorted(stage.targets, key=lambda t: t.name not in parents):
            mask: Mask = (planes[target.name] > 0.5) & (planes[target.name] >= best)
            if stage.inside is not None:
                mask &= within_reach(bodies[stage.inside.name][None], volume)[0]
            values = region_values(target, targets)
            beside = dilated_in_plane(np.isin(before[max(k - 1, 0) : k + 2], values), None)
            if target.name in parents:
                is_first = not beside.any() and not np.isin(before, values).any()
                mask = ndimage.binary_fill_holes(parts_touching(mask, beside, is_first=is_first))
                bodies[target.name] = mask
            else:
                mask = _large_or_touching(mask, beside, least)
            labels[mask] = target.value
    return labels


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
    """Return where a body is in slice `k` or beside it (None: in any of its slices), widened."""
    part = body if k is None else body[max(k - 1, 0) : k + 2]
    widened: Mask = ndimage.binary_dilation(part.any(axis=0))
    return widened


def _large_or_touching(mask: Mask, beside: Mask, least: int) -> Mask:
    numbered, count = label_components(mask)
    keep = np.bincount(numbered.ravel(), minlength=count + 1) >= least
    keep[np.unique(numbered[beside & mask])] = True
    keep[0] = False
    kept: Mask = keep[numbered]
    return kept


def plain_labels(probabilities: Mapping[str, Float32], targets: Sequence[Target]) -> Labels:
    """Return the most probable target above one half; contents go before their containers.

    Args:
        probabilities: By target, all of one shape.
        targets: All targets.
    """
    labels = np.zeros(next(iter(probabilities.values())).shape, np.uint8)
    for stage in cascade_stages(targets):
        best = np.full(labels.shape, 0.5, np.float32)
        for target in stage.targets:
            above = probabilities[target.name] > best
            labels[above] = target.value
            best[above] = probabilities[target.name][above]
    return labels
