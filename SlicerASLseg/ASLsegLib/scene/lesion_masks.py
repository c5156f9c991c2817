"""Voxels of single lesions in the segments of a prediction: put in, taken out, compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ASLsegLib.scene.provenance import (
    digest_shown,
    is_changed,
    read_provenance,
    target_of,
    write_provenance,
)
from ASLsegLib.scene.segments import Part, combined, read_part, write_part
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.project.lesion_decisions import BoxedMask
    from aslseg.targets import Target


def mask_of(part: Part | None) -> BoxedMask | None:
    """Return what a segment holds as a mask of the library."""
    from aslseg.data.masks import BoundingBox
    from aslseg.project.lesion_decisions import BoxedMask

    if part is None:
        return None
    i0, i1, j0, j1, k0, k1 = part.extent
    return BoxedMask(BoundingBox((k0, j0, i0), (k1 + 1, j1 + 1, i1 + 1)), part.values)


def part_of_mask(mask: BoxedMask | None) -> Part | None:
    """Return a mask of the library as what a segment holds."""
    if mask is None:
        return None
    (k, j, i), (k1, j1, i1) = mask.box.start, mask.box.stop
    return Part((i, i1 - 1, j, j1 - 1, k, k1 - 1), mask.mask)


def without(first: BoxedMask | None, second: BoxedMask | None) -> BoxedMask | None:
    """Return the voxels of the first mask that the second one does not have."""
    return mask_of(combined(part_of_mask(first), part_of_mask(second), np.greater))


def together(first: BoxedMask | None, second: BoxedMask | None) -> BoxedMask | None:
    """Return the voxels of either mask."""
    return mask_of(combined(part_of_mask(first), part_of_mask(second), np.logical_or))


def shared(first: BoxedMask | None, second: BoxedMask | None) -> BoxedMask | None:
    """Return the voxels of both masks."""
    return mask_of(combined(part_of_mask(first), part_of_mask(second), np.logical_and))


def beyond_organ(
    drawn: BoxedMask | None, predicted: BoxedMask | None, shown: BoxedMask | None
) -> BoxedMask | None:
    """Return what of a drawn lesion was background before it was drawn.

    A part beside what is shown of the organ but was not predicted of it counts as the organ's, as
    it was repaired there.

    Args:
        drawn: Voxels that the lesion has got.
        predicted: The organ with all that lies in it, as a run predicted it.
        shown: The organ itself as it is shown with the lesion.
    """
    from scipy import ndimage

    from aslseg.data.masks import BoundingBox, label_components
    from aslseg.project.lesion_decisions import boxed

    beyond, repaired = without(drawn, predicted), without(shown, predicted)
    if beyond is None or repaired is None:
        return beyond
    (k, j, i), (k1, j1, i1) = beyond.box.start, beyond.box.stop
    start = max(k - 1, 0), max(j - 1, 0), max(i - 1, 0)
    box = BoundingBox(start, (k1 + 1, j1 + 1, i1 + 1))
    parts, _ = label_components(beyond.within(box))
    beside = ndimage.binary_dilation(repaired.within(box))
    of_organ = np.unique(parts[beside])
    return boxed((parts > 0) & ~np.isin(parts, of_organ), box.start)


def require_segments(node: Any, targets: Sequence[Target], names: Collection[str]) -> None:
    """Make sure that a prediction has segments of targets, for they can be removed by hand.

    Raises:
        SceneError: When it has no segment of one.
    """
    lacking = ", ".join(lacking_segments(node, targets, names))
    if lacking:
        name = node.GetName()
        msg = (
            f"{name} has no segment of {lacking}; add one of that name, or remove {name} from the "
            "scene and load the case again."
        )
        raise SceneError(msg)


def lacking_segments(node: Any, targets: Sequence[Target], names: Collection[str]) -> list[str]:
    """Return the names, of those given, of targets that a segmentation has no segment of."""
    return sorted({*names} - choose_segments(node, targets).by_target.keys())


def target_mask(
    node: Any, volume: Any, target: Target, targets: Sequence[Target]
) -> BoxedMask | None:
    """Return what a prediction shows of a target itself, lesions that grew in it among it."""
    found: BoxedMask | None = None
    for segment_id in _segments_of(node, target, targets):
        found = together(found, mask_of(read_part(node, segment_id, volume)))
    return found


def counted_segment(node: Any, target: Target, targets: Sequence[Target]) -> str:
    """Return the id of the segment that what a target gets is drawn in; empty for none.

    It is one that counts as the target, and so is saved: one of ours where there is any.
    """
    ids = _segments_of(node, target, targets)
    segmentation = node.GetSegmentation()
    ours = [n for n in ids if read_provenance(segmentation.GetSegment(n)) is not None]
    return next(reversed(ours or ids), "")


def move_voxels(
    node: Any,
    volume: Any,
    targets: Sequence[Target],
    *,
    out_of: Target,
    into: Target | None,
    voxels: BoxedMask | None,
) -> None:
    """Give voxels of one target of a prediction to another one.

    A segment that held what was written to it by us still counts as that.

    Args:
        node: Segmentation node of the prediction.
        volume: Its volume node.
        targets: All targets.
        out_of: Loses them, if it has them.
        into: Gets them; None for background.
        voxels: On the grid of the volume.

    Raises:
        SceneError: When the prediction has no segment of a target.
    """
    if voxels is None:
        return
    changes: list[tuple[str, Callable[..., Any]]]
    changes = [(n, np.greater) for n in _segments_of(node, out_of, targets)]
    if into is not None:
        require_segments(node, targets, {into.name})
        changes.append((counted_segment(node, into, targets), np.logical_or))
    for segment_id, rule in changes:
        segment = node.GetSegmentation().GetSegment(segment_id)
        before = read_part(node, segment_id, volume)
        is_ours = not is_changed(segment, digest_shown(node, segment_id, volume, before))
        after = combined(before, part_of_mask(voxels), rule)
        write_part(node, segment_id, after, volume)
        provenance = read_provenance(segment)
        if is_ours and provenance is not None:
            write_provenance(segment, target_of(segment), provenance, after)


def exchange_voxels(
    node: Any,
    volume: Any,
    targets: Sequence[Target],
    *,
    target: Target,
    come: BoxedMask | None,
    gone: BoxedMask | None,
    parent_mask: BoxedMask | None,
) -> None:
    """Give voxels to a target that lies in another one, and take others away from it.

    Args:
        node: Segmentation node of the prediction.
        volume: Its volume node.
        targets: All targets.
        target: Which.
        come: What it gets.
        gone: What it loses.
        parent_mask: What its parent gets of `gone`; the rest becomes background.
    """
    parent = next(one for one in targets if one.name == target.inside)
    outside = without(gone, parent_mask)
    for out_of, into, voxels in (
        (parent, target, come),
        (target, parent, without(gone, outside)),
        (target, None, outside),
    ):
        move_voxels(node, volume, targets, out_of=out_of, into=into, voxels=voxels)


def _segments_of(node: Any, target: Target, targets: Sequence[Target]) -> list[str]:
    return choose_segments(node, targets).by_target.get(target.name, [])
