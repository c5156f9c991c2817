"""Lesions that grow from prompts: each is a segment of its own beside the other segments.

Its name is that of its target and a number, so it counts as its target wherever segments are read,
and nothing that is drawn or predicted later overwrites it; nor does it change another segment.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from ASLsegLib.scene.provenance import GROWTH, all_tags, mark_semiautomatic, restore_tags
from ASLsegLib.scene.segmentations import find_prediction, prediction_node, set_status
from ASLsegLib.scene.segments import (
    PackedPart,
    Part,
    on_slice,
    packed,
    read_part,
    segment_ids,
    together,
    unpacked,
    with_slice,
    without,
    write_part,
)
from ASLsegLib.scene.shown_labels import choose_segments, read_shown_part
from ASLsegLib.scene.terminology import Style, add_segment, style_of, terminology_of
from ASLsegLib.scene.volumes import slice_axis_of, slice_geometry_of

if TYPE_CHECKING:
    from aslseg.events import SliceMask
    from aslseg.targets import Target

_PREFIX = "ASLseg."


def node_for_growth(volume: Any) -> Any:
    """Return the segmentation node that lesions about a volume grow in; it is shown.

    The refined prediction, else SAM's; one for SAM is made where there is none.
    """
    node = find_prediction(volume, "refined") or prediction_node(volume, "sam")
    node.GetDisplayNode().SetVisibility(True)
    return node


def add_growth(node: Any, target: Target, first: int) -> str:
    """Add an empty segment for a lesion that begins on a slice, and return its id.

    No other lesion has or had that id, also in other scenes: prompts belong to lesions by it.
    """
    segmentation = node.GetSegmentation()
    taken = {segmentation.GetSegment(name).GetName() for name in segment_ids(node)}
    number = next(n for n in range(1, len(taken) + 2) if f"{target.name} {n}" not in taken)
    name = f"{target.name} {number}"
    style = style_of(target.name, target.value)
    segment_id = add_segment(node, f"{name} {uuid4().hex}", name, style)
    segment = segmentation.GetSegment(segment_id)
    segment.SetTag(_PREFIX + GROWTH, str(first))
    mark_semiautomatic(segment, "growth")
    set_status(segment, "InProgress")
    return segment_id


def note_models(node: Any, segment_id: str, **values: str) -> None:
    """Keep with a grown segment what it was predicted by, as tags."""
    segment = node.GetSegmentation().GetSegment(segment_id)
    for name, value in values.items():
        segment.SetTag(_PREFIX + name.title(), value)


def parts_beside(
    node: Any, volume: Any, targets: Sequence[Target], segment_id: str
) -> list[tuple[Target, Part]]:
    """Return what a segmentation shows of the targets, but for one segment; a later one is on top.

    Args:
        node: Segmentation node.
        volume: Volume node.
        targets: Which.
        segment_id: What is left out.
    """
    choice = choose_segments(node, targets)
    found = [
        (target, read_shown_part(node, one, volume)[0])
        for target in targets
        for one in choice.by_target.get(target.name, ())
        if one != segment_id
    ]
    return [(target, part) for target, part in found if part is not None]


@dataclass(frozen=True)
class Strokes:
    """What a person drew by hand in a grown lesion; it stays where the lesion grows again.

    Attributes:
        added: Voxels that they drew; None for none.
        erased: Voxels that they erased; None for none.
    """

    added: Part | None = None
    erased: Part | None = None

    def followed(self, was: Part | None, now: Part | None) -> Strokes:
        """Return them with those that made something else of a lesion.

        One of which nothing is left was taken out: it begins anew, without strokes.

        Args:
            was: The lesion as it was written.
            now: As it is.
        """
        if now is None:
            return Strokes()
        added, erased = without(now, was), without(was, now)
        return Strokes(
            together(without(self.added, erased), added),
            together(without(self.erased, added), erased),
        )

    def over(self, grown: Part | None) -> Part | None:
        """Return what has grown with the strokes over it."""
        return without(together(grown, self.added), self.erased)

    @property
    def are_there(self) -> bool:
        """Whether anything was drawn or erased."""
        return self.added is not None or self.erased is not None


@dataclass(frozen=True)
class KeptSegment:
    """The segment of a lesion as it was.

    Attributes:
        name: Of the segment.
        style: How it is shown, and named in DICOM.
        part: What it held, strokes among it.
        added: Of its strokes; see `Strokes`.
        erased: Of its strokes.
        slices: Those that had come since the last start.
        tags: Of the segment.
    """

    name: str
    style: Style
    part: PackedPart | None
    added: PackedPart | None
    erased: PackedPart | None
    slices: tuple[int, ...]
    tags: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """How much memory it takes, about."""
        parts = (self.part, self.added, self.erased)
        return sum(len(part.bits) for part in parts if part is not None)


class GrownSegment:
    """The segment of a lesion while it grows: each section is shown as it comes.

    When a lesion grows again, a section of before is shown until its slice comes or the end. What
    a person drew or erased in it by hand stays over what grows.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        volume: Volume node.
    """

    def __init__(self, node: Any, segment_id: str, volume: Any) -> None:
        self._node, self._segment_id, self._volume = node, segment_id, volume
        self._axis = slice_axis_of(volume)
        self._plane = slice_geometry_of(volume).shape[1:]
        self._sections: dict[int, np.ndarray] = {}
        self._grown: Part | None = None
        self._strokes = Strokes()
        self._written: Part | None = None

    @property
    def slices(self) -> list[int]:
        """The slices that hold something, in their order."""
        return sorted(k for k, plane in self._sections.items() if plane.any())

    @property
    def extent_px(self) -> tuple[float, float, float, float] | None:
        """Left, top, right and bottom edge of all sections, in pixels of a slice."""
        filled = np.argwhere(np.any(list(self._sections.values()), axis=0)) if self.slices else ()
        if not len(filled):
            return None
        (top, left), (bottom, right) = np.min(filled, axis=0), np.max(filled, axis=0) + 1
        return float(left), float(top), float(right), float(bottom)

    @property
    def has_strokes(self) -> bool:
        """Whether a person drew or erased something in it by hand."""
        return self._strokes.are_there

    def keep(self) -> KeptSegment | None:
        """Return the segment as it is, with what a person drew in it; None when it is gone."""
        segment = self._node.GetSegmentation().GetSegment(self._segment_id)
        if segment is None:
            return None
        self._note_strokes()
        return KeptSegment(
            segment.GetName(),
            Style(segment.GetColor(), terminology_of(segment)),
            packed(self._written),
            packed(self._strokes.added),
            packed(self._strokes.erased),
            tuple(self._sections),
            all_tags(segment),
        )

    def restore(self, kept: KeptSegment | None) -> None:
        """Bring the segment back to how it was; None removes it."""
        segmentation = self._node.GetSegmentation()
        if kept is None:
            segmentation.RemoveSegment(self._segment_id)
            return
        if segmentation.GetSegment(self._segment_id) is None:
            add_segment(self._node, self._segment_id, kept.name, kept.style)
        part = unpacked(kept.part)
        restore_tags(segmentation.GetSegment(self._segment_id), kept.tags)
        write_part(self._node, self._segment_id, part, self._volume)
        self._grown = self._written = part
        self._strokes = Strokes(unpacked(kept.added), unpacked(kept.erased))
        self._sections = {k: self._plane_of(part, k) for k in kept.slices}

    def restart(self) -> None:
        """Begin to grow anew."""
        self._sections = {}

    def add(self, event: SliceMask) -> None:
        """Show a section."""
        plane = section_of(event, self._plane)
        self._sections[event.slice_index] = plane
        self._grown = with_slice(self._grown, event.slice_index, plane, self._axis)
        self._write()

    def finish(self) -> None:
        """Show nothing but the sections that came since the last start, and strokes."""
        self._grown = None
        for k, plane in self._sections.items():
            self._grown = with_slice(self._grown, k, plane, self._axis)
        self._write()

    def _write(self) -> None:
        """Show what has grown, with the strokes over it."""
        self._note_strokes()
        self._written = self._strokes.over(self._grown)
        write_part(self._node, self._segment_id, self._written, self._volume)

    def _note_strokes(self) -> None:
        """Note what a person has drawn and erased since the segment was written."""
        now = read_part(self._node, self._segment_id, self._volume)
        self._strokes = self._strokes.followed(self._written, now)
        self._written = now

    def _plane_of(self, part: Part | None, slice_index: int) -> np.ndarray:
        plane, section = np.zeros(self._plane, bool), on_slice(part, slice_index, self._axis)
        if section is not None:
            place = [one for n, one in enumerate(section.place) if n != self._axis]
            plane[tuple(place)] = section.values.squeeze(self._axis)
        return plane


def section_of(event: SliceMask, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of an event, (H, W) bool.

    Args:
        event: Of the engine.
        shape: Rows and columns of a slice.
    """
    plane = np.zeros(shape, bool)
    rows, columns = event.shape
    bits = np.frombuffer(base64.b64decode(event.bits), np.uint8)
    mask = np.unpackbits(bits, count=rows * columns).reshape(rows, columns)
    top, left = event.first
    plane[top : top + rows, left : left + columns] = mask
    return plane
