"""The voices about a volume as segmentation nodes: prompts, specialist, SAM, refined.

Each node belongs to one volume and is updated in place. What is not ours, and what a person
changed, is never overwritten unless that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import slicer

from ASLsegLib.scene.provenance import (
    Provenance,
    is_changed,
    is_edited,
    is_prompted,
    mark_human,
    read_provenance,
    target_of,
    write_provenance,
)
from ASLsegLib.scene.segments import (
    Part,
    Parts,
    Target,
    read_part,
    segment_ids,
    with_slice,
    write_part,
)
from ASLsegLib.scene.terminology import style_of
from ASLsegLib.scene.volumes import free_name, place_beside, slice_axis_of

VOICES = {"prompts": "prompts", "specialist": "specialist", "sam": "SAM", "refined": "refined"}
"""What a voice is called in node names."""
OUTLINES = {"prompts": (1.0, 1.0, 1.0), "specialist": (0.35, 0.65, 1.0), "sam": (1.0, 0.75, 0.2)}
"""Colours of the voices that are shown as outlines; the refined one has its target's colour."""
CONTAINER_OPACITY_3D = 0.4
"""Of an organ in the 3-D view, so that the tumours in it are seen."""
_VOICE, _VOLUME = "ASLseg.Voice", "ASLseg.Volume"

Policy = Callable[[Sequence[str]], bool]
"""Asked with the names of segments that a person edited: may they be replaced?"""


def keep_edits(_: Sequence[str]) -> bool:
    """Never replace what a person edited."""
    return False


def find_voice(volume: Any, voice: str) -> Any | None:
    """Return the segmentation node of a voice about a volume, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        is_about = node.GetNodeReferenceID(_VOLUME) == volume.GetID()
        if is_about and node.GetAttribute(_VOICE) == voice:
            return node
    return None


def voice_node(volume: Any, voice: str) -> Any:
    """Return the segmentation node of a voice about a volume; make it when there is none."""
    node = find_voice(volume, voice)
    if node is not None:
        return node
    name = free_name(f"{volume.GetName()} - {VOICES[voice]}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(_VOLUME, volume.GetID())
    node.SetAttribute(_VOICE, voice)
    place_beside(node, volume)
    _show_as_outline(node, voice)
    return node


def volume_of_voice(node: Any) -> Any | None:
    """Return the volume that a segmentation node of ours is about, or None."""
    return node.GetNodeReference(_VOLUME)


def edited_segments(node: Any, volume: Any) -> list[str]:
    """Return the names of our segments that a person edited, prompted, made or accepted."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetSegment(name).GetName() for name in _edited(node, volume)]


def rounds_shown(node: Any) -> set[tuple[str, int]]:
    """Return run and round of our segments of a node: one pair, unless they were mixed."""
    segmentation = node.GetSegmentation()
    said = [read_provenance(segmentation.GetSegment(segment_id)) for segment_id in _ours(node)]
    return {(one.run, one.round) for one in said if one is not None}


def is_as_written(node: Any, volume: Any) -> bool:
    """Tell whether a node holds what was written to it: nothing of it was drawn or prompted."""
    segmentation = node.GetSegmentation()
    return len(_ours(node)) == len(segment_ids(node)) and not any(
        is_prompted(segmentation.GetSegment(n))
        or is_changed(segmentation.GetSegment(n), read_part(node, n, volume))
        for n in _ours(node)
    )


def write_parts(
    volume: Any,
    parts: Parts,
    targets: Sequence[Target],
    provenance: Provenance,
    may_replace: Policy = keep_edits,
) -> Any:
    """Show what a voice says about a volume; no array of the volume's size is made.

    Args:
        volume: Volume node.
        parts: On the volume's grid, of all targets.
        targets: That the voice speaks about.
        provenance: Written to each segment.
        may_replace: Asked when a person edited segments that would be replaced; where it says no,
            the result goes to a new segment beside them.

    Returns:
        The segmentation node.
    """
    node = voice_node(volume, provenance.voice)
    segmentation = node.GetSegmentation()
    kept = _edited(node, volume, replaces_prompted=provenance.prompted)
    if kept and may_replace([segmentation.GetSegment(name).GetName() for name in kept]):
        kept = []
    for target in targets:
        segment_id, part = _segment_for(node, target, kept), parts[target.name]
        if segment_id is None:
            holds_others = any(other.inside == target.name for other in targets)
            segment_id = _new_segment(node, target, provenance.voice, holds_others=holds_others)
        write_part(node, segment_id, part, volume)
        write_provenance(segmentation.GetSegment(segment_id), target.name, provenance, part)
    return node


def write_voice_slice(
    volume: Any,
    slice_index: int,
    labels: np.ndarray,
    targets: Sequence[Target],
    provenance: Provenance,
    may_replace: Policy = keep_edits,
) -> Any:
    """Show what a voice says about one slice now; its other slices stay as they are.

    Args:
        volume: Volume node.
        slice_index: Which axial slice.
        labels: (H, W) uint8.
        targets: Whose values `labels` holds.
        provenance: Written to each segment.
        may_replace: As in `write_parts`; beside an edited segment goes a copy with the new slice.

    Returns:
        The segmentation node.
    """
    node = find_voice(volume, provenance.voice)
    latest = {} if node is None else latest_segments(node, targets)
    axis = slice_axis_of(volume)
    parts: dict[str, Part | None] = {}
    for target in targets:
        segment_id = latest.get(target.name)
        part = None if segment_id is None else read_part(node, segment_id, volume)
        parts[target.name] = with_slice(part, slice_index, labels == target.value, axis)
    return write_parts(volume, parts, targets, provenance, may_replace)


def latest_segments(node: Any, targets: Sequence[Target]) -> dict[str, str]:
    """Return the id of the last of our segments that shows each target."""
    found: dict[str, str] = {}
    for segment_id in _ours(node):
        name = target_of(node.GetSegmentation().GetSegment(segment_id)).lower()
        found |= {target.name: segment_id for target in targets if target.name.lower() == name}
    return found


def accept_voice(node: Any) -> None:
    """Note that a person answers for all segments of a voice as they are now."""
    _set_human(node, True, "Completed")


def reopen_voice(node: Any) -> None:
    """Note that nobody answers for a voice any more; what a person edited stays protected."""
    _set_human(node, False, "Flagged")


def flag_disagreement(nodes: Mapping[str, Any], agreement: Mapping[str, float]) -> None:
    """Set the status of each voice's segments: flagged where the voices disagree.

    Args:
        nodes: Segmentation nodes by voice.
        agreement: By target, the least Dice of two voices.
    """
    for node in nodes.values():
        for segment_id in _ours(node):
            segment = node.GetSegmentation().GetSegment(segment_id)
            if not read_provenance(segment).human:
                disputed = agreement.get(target_of(segment), 1.0) < DISPUTED_DICE
                set_status(segment, "Flagged" if disputed else "InProgress")


DISPUTED_DICE = 0.8
"""A target on which two voices overlap by a smaller Dice than this is flagged."""


def set_status(segment: Any, status: str) -> None:
    """Set a segment's status: `InProgress`, `Completed` or `Flagged`."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(segment, getattr(logic, status))


def _ours(node: Any) -> list[str]:
    segmentation = node.GetSegmentation()
    return [n for n in segment_ids(node) if read_provenance(segmentation.GetSegment(n)) is not None]


def _edited(node: Any, volume: Any, *, replaces_prompted: bool = False) -> list[str]:
    """Return the ids of our segments that a person has a share in.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        replaces_prompted: Leave out those that only answer to earlier prompts.
    """
    segmentation = node.GetSegmentation()
    found = []
    for segment_id in _ours(node):
        segment = segmentation.GetSegment(segment_id)
        prompted = is_prompted(segment) and not replaces_prompted
        if prompted or is_edited(segment, read_part(node, segment_id, volume)):
            found.append(segment_id)
    return found


def _set_human(node: Any, human: bool, status: str) -> None:
    for segment_id in _ours(node):
        segment = node.GetSegmentation().GetSegment(segment_id)
        mark_human(segment, human)
        set_status(segment, status)


def _segment_for(node: Any, target: Target, kept: Sequence[str]) -> str | None:
    """Return the id of our segment of a target that may be written, or None."""
    return next((one for one in _of_target(node, target) if one not in kept), None)


def _of_target(node: Any, target: Target) -> list[str]:
    segmentation = node.GetSegmentation()
    return [n for n in _ours(node) if target_of(segmentation.GetSegment(n)) == target.name]


def _new_segment(node: Any, target: Target, voice: str, *, holds_others: bool) -> str:
    segmentation, style = node.GetSegmentation(), style_of(target.name, target.value)
    name = f"{target.name} (new)" if _of_target(node, target) else target.name
    segment_id = segmentation.AddEmptySegment(
        segmentation.GenerateUniqueSegmentID(target.name), name, style.color
    )
    if style.terminology:
        segment = segmentation.GetSegment(segment_id)
        segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)
    display = node.GetDisplayNode()
    if voice in OUTLINES:
        display.SetSegmentOverrideColor(segment_id, *OUTLINES[voice])
    if holds_others:
        display.SetSegmentOpacity3D(segment_id, CONTAINER_OPACITY_3D)
    return str(segment_id)


def _show_as_outline(node: Any, voice: str) -> None:
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.35)
    display.SetVisibility2DFill(voice not in OUTLINES)
    display.SetSliceIntersectionThickness(2)
    display.SetVisibility(voice in ("prompts", "refined"))
