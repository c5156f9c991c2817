"""Lesions of a final label against what was decided about them: shown otherwise, and as decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ASLsegLib.scene.lesion_masks import exchange_voxels, lacking_segments
from ASLsegLib.scene.provenance import all_tags, restore_tags
from ASLsegLib.scene.segments import segment_ids
from ASLsegLib.scene.shown_labels import voxels_shown

if TYPE_CHECKING:
    from aslseg.project.lesion_decisions import BoxedMask, CaseLesions
    from aslseg.targets import Target


@dataclass(frozen=True)
class _Change:
    """Voxels of a target that come and go; `of_parent` are those that its parent loses or gets."""

    target: Target
    come: BoxedMask | None
    gone: BoxedMask | None
    come_of_parent: BoxedMask | None
    gone_of_parent: BoxedMask | None


def lesions_otherwise(
    node: Any,
    volume: Any,
    targets: Sequence[Target],
    decided: CaseLesions,
    predicted: np.ndarray | None,
) -> list[int]:
    """Return the numbers of lesions that a final label shows otherwise than was decided.

    None are named where a segment is missing: that is told when something is decided or saved.

    Args:
        node: Segmentation node of the final label.
        volume: Its volume node.
        targets: All targets.
        decided: The decisions.
        predicted: What the run predicted, (D, H, W); None where that is not known.
    """
    from aslseg.project.shown_lesions import shown_otherwise

    if not decided.decisions or lacking_segments(node, targets, [one.name for one in targets]):
        return []
    labels = voxels_shown(node, volume, targets)
    return shown_otherwise(decided, labels, targets, predicted)


class AsDecided:
    """Lets a final label show lesions as decided, at a call; another call brings back what was.

    Args:
        node: Segmentation node of the final label.
        volume: Its volume node.
        targets: All targets.
        decided: The decisions.
        predicted: As for `lesions_otherwise`.
    """

    def __init__(
        self,
        node: Any,
        volume: Any,
        targets: Sequence[Target],
        decided: CaseLesions,
        predicted: np.ndarray | None,
    ) -> None:
        from aslseg.project.shown_lesions import as_decided

        self._nodes, self._targets = (node, volume), targets
        labels = voxels_shown(node, volume, targets)
        goal = as_decided(decided, labels, targets, predicted)
        inner = [one for one in targets if one.inside is not None]
        self._changes = [_change_of(one, targets, labels, goal) for one in inner]
        self._is_shown = False
        self._tags: dict[str, dict[str, str]] = {}

    def __call__(self) -> None:
        """Show the lesions as decided, or what was shown before."""
        tags = self._tags_now()
        for one in self._changes:
            if self._is_shown:
                come, gone, of_parent = one.gone, one.come, one.come_of_parent
            else:
                come, gone, of_parent = one.come, one.gone, one.gone_of_parent
            masks = {"come": come, "gone": gone, "parent_mask": of_parent}
            exchange_voxels(*self._nodes, self._targets, target=one.target, **masks)
        for segment_id, known in self._tags.items():  # what was drawn is a person's again
            segment = self._nodes[0].GetSegmentation().GetSegment(segment_id)
            if segment is not None:
                restore_tags(segment, known)
        self._is_shown, self._tags = not self._is_shown, tags

    def _tags_now(self) -> dict[str, dict[str, str]]:
        segmentation = self._nodes[0].GetSegmentation()
        return {n: all_tags(segmentation.GetSegment(n)) for n in segment_ids(self._nodes[0])}


def _change_of(
    target: Target, targets: Sequence[Target], labels: np.ndarray, goal: np.ndarray
) -> _Change:
    from aslseg.project.lesion_decisions import boxed

    parent = next(one for one in targets if one.name == target.inside)
    has, shall_have = labels == target.value, goal == target.value
    come, gone = shall_have & ~has, has & ~shall_have
    return _Change(
        target,
        boxed(come),
        boxed(gone),
        boxed(come & (labels == parent.value)),
        boxed(gone & (goal == parent.value)),
    )
