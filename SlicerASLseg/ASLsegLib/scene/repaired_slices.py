"""Which axial slices of an organ a person repaired: those that differ from what was written there.

An organ is a target that lies in no other one, with all that lies in it. Its segment has two tags:
digests of the organ's slices as they were written last, by a run or by filling between repaired
slices; and the slices that were repaired before that. Where a person has named the slices that are
right, two more tags count instead: the digests as they were then, and the slices that were named.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ASLsegLib.scene.provenance import (
    AT_NAMING,
    NAMED,
    REPAIRED,
    SLICES,
    remove_tags,
    set_tags,
    source_of,
    tag,
)
from ASLsegLib.scene.segments import Part, Parts, read_part, together
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.scene.volumes import slice_axis_of

if TYPE_CHECKING:
    from aslseg.targets import Target

_NOTHING = "none"
_MOST_DIGITS = 6


def organs_of(targets: Sequence[Target]) -> list[Target]:
    """Return the targets that lie in no other one."""
    from aslseg.targets import organ_targets

    return organ_targets(targets)


def slice_digests(part: Part | None, axis: int) -> dict[int, str]:
    """Return short digests of the slices of a part, without those that hold nothing.

    Args:
        part: On a volume's grid.
        axis: Axis of (D, H, W) arrays along which slices are numbered.
    """
    if part is None:
        return {}
    values, place = np.moveaxis(part.values, axis, 0), list(part.place)
    first = place.pop(axis).start
    top, left = (one.start for one in place)
    rows, columns = (np.asarray(values.any(axis=n)) for n in (2, 1))  # (d, h), (d, w)
    found = {}
    for n, plane in enumerate(values):
        if rows[n].any():
            j, i = np.flatnonzero(rows[n]), np.flatnonzero(columns[n])
            box = plane[j[0] : j[-1] + 1, i[0] : i[-1] + 1]
            where = f"{top + j[0]} {left + i[0]} {box.shape}".encode()
            found[first + n] = f"{zlib.crc32(box.tobytes(), zlib.crc32(where)):08x}"
    return found


def note_written_slices(
    node: Any, volume: Any, targets: Sequence[Target], written: Mapping[str, str], parts: Parts
) -> None:
    """Note the slices of organs as a run has just written them; none of them is repaired.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        targets: Of the prediction.
        written: Ids of the segments that were written, by the names of their targets.
        parts: What was written to them.
    """
    axis, chosen = slice_axis_of(volume), choose_segments(node, targets).by_target
    known = {written[name]: part for name, part in parts.items() if name in written}
    for organ in organs_of(targets):
        shown = {**chosen, organ.name: [written[organ.name]]}
        region = _region(node, volume, organ, targets, shown, known)
        note_slices(node, written[organ.name], slice_digests(region, axis), ())


def note_slices(
    node: Any, segment_id: str, digests: Mapping[int, str], repaired: Collection[int]
) -> None:
    """Note the slices of an organ as they are now.

    Args:
        node: Segmentation node.
        segment_id: Id of the organ's segment.
        digests: See `slice_digests`.
        repaired: Slices that stay repaired.
    """
    segment = node.GetSegmentation().GetSegment(segment_id)
    set_tags(segment, {SLICES: digest_words(digests), REPAIRED: slice_words(repaired)})
    remove_tags(segment, AT_NAMING, NAMED)


def name_slices(
    node: Any, volume: Any, targets: Sequence[Target], slices: Collection[int] | None
) -> None:
    """Let exactly some slices count as repaired, and what is drawn in from now on.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        targets: Of the project.
        slices: The slices; None for those that differ from what was written.
    """
    axis, chosen = slice_axis_of(volume), choose_segments(node, targets).by_target
    for segment_id in organ_segments(node, targets):
        remove_tags(node.GetSegmentation().GetSegment(segment_id), AT_NAMING, NAMED)
    for organ in organs_of(targets) if slices is not None else ():
        digests = slice_digests(_region(node, volume, organ, targets, chosen), axis)
        tags = {AT_NAMING: digest_words(digests), NAMED: slice_words(slices or ())}
        for segment_id in chosen.get(organ.name, ()):
            set_tags(node.GetSegmentation().GetSegment(segment_id), tags)


def are_slices_named(node: Any, targets: Sequence[Target]) -> bool:
    """Tell whether a person has named the slices that are right."""
    segmentation = node.GetSegmentation()
    ids = organ_segments(node, targets)
    return any(tag(segmentation.GetSegment(one), AT_NAMING) for one in ids)


def organ_segments(node: Any, targets: Sequence[Target]) -> list[str]:
    """Return the ids of the segments that make the organs."""
    chosen = choose_segments(node, targets).by_target
    return [one for organ in organs_of(targets) for one in chosen.get(organ.name, ())]


def repaired_slices(node: Any, volume: Any, targets: Sequence[Target]) -> list[int]:
    """Return the numbers of the axial slices in which a person repaired an organ, ascending.

    In a segmentation of one's own that nothing was filled in, those are all with an organ.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        targets: Of the project.
    """
    found, chosen = set[int](), choose_segments(node, targets).by_target
    for organ in organs_of(targets):
        noted = _noted(node, chosen.get(organ.name, ()))
        if noted is None and not source_of(node):
            noted = {}, set()
        if noted is not None:
            before, repaired = noted
            region = _region(node, volume, organ, targets, chosen)
            now = slice_digests(region, slice_axis_of(volume))
            found |= repaired | differing(now, before)
    return sorted(found)


def stamp_of(node: Any) -> tuple[Any, ...]:
    """Return something that is another one when a segmentation may show something else."""
    segmentation, kind = node.GetSegmentation(), "Binary labelmap"
    found: list[Any] = [node.GetID()]
    for n in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(n)
        image = segment.GetRepresentation(kind)
        found.append((segment.GetMTime(), 0 if image is None else image.GetMTime()))
    return tuple(found)


def _noted(node: Any, ids: Sequence[str]) -> tuple[dict[int, str], set[int]] | None:
    """Return what was noted of an organ: digests, and repaired slices; None for nothing.

    A scene may come from anywhere: what cannot be read counts as nothing.
    """
    for segment_id in ids:
        segment = node.GetSegmentation().GetSegment(segment_id)
        for digests, slices in ((AT_NAMING, NAMED), (SLICES, REPAIRED)):
            words = tag(segment, digests)
            if words:
                return read_digests(words), read_numbers(tag(segment, slices))
    return None


def digest_words(digests: Mapping[int, str]) -> str:
    """Return the text that `read_digests` reads."""
    return " ".join(f"{k}-{digest}" for k, digest in digests.items()) or _NOTHING


def read_digests(text: str) -> dict[int, str]:
    """Return the digests of slices in a tag; what is something else counts as nothing."""
    pairs = [word.partition("-")[::2] for word in text.split()]
    return {int(k): digest for k, digest in pairs if _is_number(k)}


def slice_words(slices: Collection[int]) -> str:
    """Return the text that `read_numbers` reads."""
    return " ".join(map(str, sorted({*slices})))


def read_numbers(text: str) -> set[int]:
    """Return the numbers of slices in a tag; what is something else counts as nothing."""
    return {int(word) for word in text.split() if _is_number(word)}


def differing(first: Mapping[int, str], second: Mapping[int, str]) -> set[int]:
    """Return the slices of which two digests are not the same."""
    return {k for k in first.keys() | second.keys() if first.get(k) != second.get(k)}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _region(
    node: Any,
    volume: Any,
    organ: Target,
    targets: Sequence[Target],
    chosen: Mapping[str, Sequence[str]],
    known: Parts | None = None,
) -> Part | None:
    """Return an organ with all that lies in it, of the chosen segments of each target.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        organ: The organ.
        targets: All of them.
        chosen: Ids of the segments of each target, by its name.
        known: What segments hold, by their ids; the others are read.
    """
    from aslseg.targets import region_values

    values, known = region_values(organ, targets), known or {}
    region: Part | None = None
    for target in targets:
        for segment_id in chosen.get(target.name, ()) if target.value in values else ():
            is_known = segment_id in known
            part = known[segment_id] if is_known else read_part(node, segment_id, volume)
            if region is None and part is not None and is_known:
                part = Part(part.extent, part.values.copy())  # the first one is added to
            region = _added(region, part)
    return region


def _added(region: Part | None, part: Part | None) -> Part | None:
    """Return the voxels of both parts; the first one may be changed, which saves time."""
    if region is None or part is None:
        return part if region is None else region
    starts = [a.start - b.start for a, b in zip(part.place, region.place, strict=True)]
    ends = [n + size for n, size in zip(starts, part.values.shape, strict=True)]
    sizes = region.values.shape
    if any(a < 0 or b > n for a, b, n in zip(starts, ends, sizes, strict=True)):
        return together(region, part)
    region.values[tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))] |= part.values
    return region
