"""Lesions of a label map that a person looks at, against what was decided about them.

A label map has a lesion otherwise than decided where it lacks voxels of it, where it has some that
were taken out, and where a person added voxels to it: what is connected with a decided lesion,
nearer to it than to any other one, and neither predicted nor decided. A new lesion apart from all
others is none of them, and contradicts no decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aslseg.data.masks import box_of, crop
from aslseg.data.volume import Labels
from aslseg.project.candidate_lesions import nearest_seeds
from aslseg.project.lesion_decisions import BoxedMask, CaseLesions
from aslseg.targets import Target


def shown_otherwise(
    lesions: CaseLesions,
    labels: Labels,
    targets: Sequence[Target],
    predicted: Labels | None = None,
) -> list[int]:
    """Return the numbers of lesions that a label map has otherwise than was decided.

    Args:
        lesions: The decisions.
        labels: (D, H, W) on the voxels of the image.
        targets: All targets.
        predicted: What the run predicted, as `labels`; where None, nothing is known of what was
            added to lesions.

    Raises:
        ProjectError: When a lesion lies outside.
    """
    known = _of_targets(lesions, targets)
    decided = known.apply(labels, targets)
    values = {target.name: target.value for target in targets}
    grown = np.unique(_added_to(known, labels, targets, predicted)).tolist()

    def differs(mask: BoxedMask, value: int) -> bool:
        has, shall_have = (crop(one, mask.box)[mask.mask] == value for one in (labels, decided))
        return bool((has != shall_have).any())

    return [
        number
        for number, one in known.decisions.items()
        if number in grown or any(differs(mask, values[one.target]) for mask in one.masks)
    ]


def as_decided(
    lesions: CaseLesions, labels: Labels, targets: Sequence[Target], predicted: Labels | None = None
) -> Labels:
    """Return a label map with its lesions as decided; what was added to them is as predicted.

    Args:
        lesions: As for `shown_otherwise`.
        labels: As for `shown_otherwise`; stays as it is.
        targets: As for `shown_otherwise`.
        predicted: As for `shown_otherwise`; where None, what was added to lesions stays.

    Raises:
        ProjectError: When a lesion lies outside.
    """
    known = _of_targets(lesions, targets)
    goal = known.apply(labels, targets)
    if predicted is not None:
        added = _added_to(known, labels, targets, predicted) > 0
        goal[added] = known.apply(predicted, targets)[added]
    return goal


def _of_targets(lesions: CaseLesions, targets: Sequence[Target]) -> CaseLesions:
    """Return the decisions about lesions of targets that lie in another one by now."""
    inner = {target.name for target in targets if target.inside is not None}
    kept = {number: one for number, one in lesions.decisions.items() if one.target in inner}
    return replace(lesions, decisions=kept)


def _added_to(
    lesions: CaseLesions, labels: Labels, targets: Sequence[Target], predicted: Labels | None
) -> NDArray[np.int32]:
    """Return which decided lesion each voxel was added to, (D, H, W): its number, 0 for none."""
    owners = np.zeros(labels.shape, np.int32)
    if predicted is None:
        return owners
    expected = lesions.apply(predicted, targets)
    for target in targets:
        ours = {n: one for n, one in lesions.decisions.items() if one.target == target.name}
        shown, known = labels == target.value, expected == target.value
        added = shown & ~known
        for mask in (mask for one in ours.values() for mask in one.masks):
            mask.write(added, 0)
        box = box_of(shown)
        if box is None or not ours or not added.any():
            continue
        other = 1 + max(ours)
        seeds = np.where(crop(known, box), np.int32(other), np.int32(0))
        for number, mask in ((n, mask) for n, one in ours.items() for mask in one.masks):
            seeds[mask.within(box)] = number
        nearest, alone = nearest_seeds(crop(shown, box), seeds)
        is_ours = crop(added, box) & ~np.isin(nearest, [0, other, *alone])
        crop(owners, box)[is_ours] = nearest[is_ours]
    return owners
