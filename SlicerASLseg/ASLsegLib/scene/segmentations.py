"""Predictions about a volume as segmentation nodes: prompts, specialist, SAM, refined.

Each node belongs to one volume and is updated in place. What is not ours, and what a person
changed, is never overwritten unless the caller allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.project.run_tables import PREDICTIONS
from ASLsegLib.scene.case_nodes import is_of_project
from ASLsegLib.scene.provenance import (
    GROWTH,
    SAVED,
    Provenance,
    all_tags,
    digest_shown,
    forget_saved_without,
    is_changed,
    is_edited,
    is_prompted,
    is_renamed,
    mark_human,
    note_added,
    note_given,
    note_saved_without,
    note_taken_back,
    read_provenance,
    remove_tags,
    removed_segments,
    restore_tags,
    set_tags,
    source_of,
    tag,
    target_of,
    write_provenance,
    write_source,
    written_digest,
)
from ASLsegLib.scene.repaired_slices import note_written_slices
from ASLsegLib.scene.segments import (
    PackedPart,
    Part,
    Parts,
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
from ASLsegLib.scene.terminology import NEW_SUFFIX, add_segment, style_of_target
from ASLsegLib.scene.volumes import free_name, place_beside, slice_axis_of

if TYPE_CHECKING:
    from aslseg.project.project import Project
    from aslseg.targets import Target

SOURCES = ("prompts", *PREDICTIONS)
"""What segmentation nodes of ours show."""
_IN_NODE_NAMES = {"sam": "SAM", "refined": "final label"}
_OF_PERSON = "label"
OUTLINES = {"prompts": (1.0, 1.0, 1.0), "specialist": (0.35, 0.65, 1.0), "sam": (1.0, 0.75, 0.2)}
"""Colours of predictions shown as outlines; the refined one has its target's colour."""
PARENT_OPACITY_3D = 0.4
"""Of an organ in the 3-D view, so that the tumours in it are seen."""
_VOLUME = "ASLseg.Volume"

Policy = Callable[[Sequence[str]], bool]
"""Asked with the names of segments that a person edited: may they be replaced?"""


@dataclass(frozen=True)
class SegmentEdit:
    """What brings a segment back to how it was, voxel by voxel.

    Voxels that a person drew meanwhile stay as they are.

    Attributes:
        source: Of the prediction that it is a segment of; empty for a segmentation of one's own.
        segment_id: Id of the segment.
        target: What it shows.
        holds_others: Whether other targets lie in it.
        is_there: Whether the segment is there now.
        tags: Its tags as they shall be; None when it shall not be there.
        add: Voxels that it gets.
        remove: Voxels that it loses.
        node_id: Id of the segmentation node, where it is one's own.
    """

    source: str
    segment_id: str
    target: Target
    holds_others: bool
    is_there: bool
    tags: Mapping[str, str] | None
    add: PackedPart | None
    remove: PackedPart | None
    node_id: str = ""

    @property
    def size_bytes(self) -> int:
        """How much memory it takes, about."""
        return sum(len(part.bits) for part in (self.add, self.remove) if part is not None)


def keep_edits(_: Sequence[str]) -> bool:
    """Never replace what a person edited."""
    return False


def find_prediction(volume: Any, source: str) -> Any | None:
    """Return the segmentation node of a source's prediction about a volume, or None."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        is_about = node.GetNodeReferenceID(_VOLUME) == volume.GetID()
        if is_about and source_of(node) == source:
            return node
    return None


def predictions_about(volume: Any) -> dict[str, Any]:
    """Return the segmentation nodes of predictions about a volume in the scene, by source."""
    found = {source: find_prediction(volume, source) for source in SOURCES}
    return {source: node for source, node in found.items() if node is not None}


def drawn_on(volume: Any) -> list[Any]:
    """Return the segmentation nodes that were drawn on a volume, or are predictions about it."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetNodeReferenceID(role) == volume.GetID()]


def prediction_node(volume: Any, source: str) -> Any:
    """Return the segmentation node of a source about a volume; make it when there is none."""
    node = find_prediction(volume, source)
    if node is not None:
        return node
    name = free_name(f"{volume.GetName()} - {_IN_NODE_NAMES.get(source, source)}")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetNodeReferenceID(_VOLUME, volume.GetID())
    write_source(node, source)
    place_beside(node, volume)
    _show_as_outline(node, source)
    return node


def volume_of_prediction(node: Any) -> Any | None:
    """Return the volume that a segmentation node of ours is about, or None."""
    return node.GetNodeReference(_VOLUME)


def volume_drawn_on(node: Any) -> Any | None:
    """Return the volume node that a segmentation was drawn on, or is a prediction about; or None.

    It may be any kind of volume.
    """
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return volume_of_prediction(node) or node.GetNodeReference(role)


def rounds_shown(node: Any) -> set[tuple[str, int]]:
    """Return run and round of our segments of a node: one pair, unless they were mixed."""
    segmentation = node.GetSegmentation()
    found = [read_provenance(segmentation.GetSegment(segment_id)) for segment_id in _ours(node)]
    return {(one.run, one.round) for one in found if one is not None}


def is_as_written(node: Any, volume: Any) -> bool:
    """Tell whether a node holds what was written to it.

    Nothing of it was drawn, prompted, moved or removed, and no segment makes another target.
    """
    segmentation = node.GetSegmentation()
    if removed_segments(node):
        return False
    return len(_ours(node)) == len(segment_ids(node)) and not any(
        is_prompted(segmentation.GetSegment(n))
        or is_changed(segmentation.GetSegment(n), _shown(node, n, volume))
        for n in _ours(node)
    )


def written_to(node: Any) -> dict[str, str]:
    """Return digests of what was last written to our segments of a node, by their ids."""
    segmentation = node.GetSegmentation()
    return {n: written_digest(segmentation.GetSegment(n)) for n in _ours(node)}


def shown_in(node: Any, volume: Any) -> dict[str, str]:
    """Return digests of what our segments and grown lesions of a node show now, by their ids."""
    segmentation, ours = node.GetSegmentation(), _ours(node)
    grown = [n for n in segment_ids(node) if tag(segmentation.GetSegment(n), GROWTH)]
    return {n: _shown(node, n, volume) for n in [*ours, *grown]}


def note_saved(node: Any, volume: Any, saved: Mapping[str, str]) -> None:
    """Note which segments hold what was saved of them; what was drawn since is still unsaved.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        saved: As `shown_in` was when they were saved.
    """
    note_saved_without(node, saved)
    for segment_id, digest in shown_in(node, volume).items():
        if saved.get(segment_id) == digest:
            set_tags(node.GetSegmentation().GetSegment(segment_id), {SAVED: digest})


def is_approved(node: Any) -> bool:
    """Tell whether a person has approved all segments of a prediction."""
    segments = (node.GetSegmentation().GetSegment(n) for n in _ours(node))
    return all(tag(segment, "Human") == "yes" for segment in segments)


def holds_unsaved(node: Any, volume: Any) -> bool:
    """Tell whether a person changed a prediction, or prompted the refined one, and did not save.

    It is changed where something was drawn in it, a segment of it was removed or makes another
    target by its name, or it was moved against its volume.
    """
    if removed_segments(node):
        return True
    segments = {n: node.GetSegmentation().GetSegment(n) for n in segment_ids(node)}
    if any(is_changed(one, _shown(node, n, volume)) for n, one in segments.items()):
        return True
    prompted = any(is_prompted(segments[n]) for n in _ours(node))
    return source_of(node) == "refined" and prompted and not is_approved(node)


def write_prediction(
    volume: Any,
    parts: Parts,
    targets: Sequence[Target],
    provenance: Provenance,
    may_replace: Policy = keep_edits,
    *,
    undo: list[SegmentEdit] | None = None,
    slice_index: int | None = None,
) -> Any:
    """Show a prediction about a volume; no array of the volume's size is made.

    Args:
        volume: Volume node.
        parts: On the volume's grid, of all targets.
        targets: Of the prediction.
        provenance: Written to each segment.
        may_replace: Asked when a person edited segments that would be replaced; where it says no,
            the result goes to a new segment beside them.
        undo: Gets what takes it back.
        slice_index: The only axial slice in which `parts` may differ from what is shown.

    Returns:
        The segmentation node.
    """
    node = prediction_node(volume, provenance.source)
    segmentation = node.GetSegmentation()
    shown = {one: read_part(node, one, volume) for one in _ours(node)}
    kept = _kept(node, volume, shown, provenance, may_replace)
    written: dict[str, str] = {}
    for target in targets:
        segment_id, part = _segment_for(node, target, kept), parts[target.name]
        holds_others = any(other.inside == target.name for other in targets)
        tags = None if segment_id is None else all_tags(segmentation.GetSegment(segment_id))
        if segment_id is None:
            segment_id = _new_segment(node, target, provenance.source, holds_others=holds_others)
        elif is_renamed(node, segment_id):
            segmentation.GetSegment(segment_id).SetName(target.name)
        write_part(node, segment_id, part, volume)
        write_provenance(segmentation.GetSegment(segment_id), target.name, provenance, part)
        written[target.name] = segment_id
        if undo is not None:
            about = (provenance.source, segment_id, target, holds_others, True, tags)
            only = None if tags is None else slice_index
            undo.append(SegmentEdit(*about, *_changed(volume, shown.get(segment_id), part, only)))
    if provenance.source == "refined" and slice_index is None:
        note_written_slices(node, volume, targets, written, parts)
    note_given(node, _ours(node))
    _name_by_who(node)
    return node


def _kept(
    node: Any,
    volume: Any,
    shown: Mapping[str, Part | None],
    provenance: Provenance,
    may_replace: Policy,
) -> list[str]:
    """Return the ids of our segments that stay, for a person has a share in them and says so."""
    edited = _edited(node, volume, shown, replaces_prompted=provenance.prompted)
    names = [node.GetSegmentation().GetSegment(one).GetName() for one in edited]
    return [] if edited and may_replace(names) else edited


def _changed(
    volume: Any, was: Part | None, now: Part | None, slice_index: int | None
) -> tuple[PackedPart | None, PackedPart | None]:
    """Return the voxels that a segment has lost and gained, in one axial slice or in all."""
    if slice_index is not None:
        axis = slice_axis_of(volume)
        was, now = (on_slice(one, slice_index, axis) for one in (was, now))
    return packed(without(was, now)), packed(without(now, was))


def write_prediction_slice(
    volume: Any,
    slice_index: int,
    labels: np.ndarray,
    targets: Sequence[Target],
    provenance: Provenance,
    may_replace: Policy = keep_edits,
    *,
    undo: list[SegmentEdit] | None = None,
) -> Any:
    """Show a prediction about one slice; its other slices stay as they are.

    Args:
        volume: Volume node.
        slice_index: Which axial slice.
        labels: (H, W) uint8.
        targets: Whose values `labels` holds.
        provenance: Written to each segment.
        may_replace: As in `write_prediction`; beside an edited segment goes a copy with the slice.
        undo: Gets what takes it back.

    Returns:
        The segmentation node.
    """
    node = find_prediction(volume, provenance.source)
    latest = {} if node is None else latest_segments(node, targets)
    axis = slice_axis_of(volume)
    parts: dict[str, Part | None] = {}
    for target in targets:
        segment_id = latest.get(target.name)
        part = None if segment_id is None else read_part(node, segment_id, volume)
        parts[target.name] = with_slice(part, slice_index, labels == target.value, axis)
    return write_prediction(
        volume, parts, targets, provenance, may_replace, undo=undo, slice_index=slice_index
    )


def apply_edit(volume: Any, edit: SegmentEdit) -> SegmentEdit:
    """Bring a segment about a volume back to how it was.

    Nothing is done about a segment that a person removed; one that was made by what is taken back
    goes away, unless a person drew in it.

    Returns:
        What takes this back.
    """
    own = slicer.mrmlScene.GetNodeByID(edit.node_id) if edit.node_id else None
    node = find_prediction(volume, edit.source) if edit.source else own
    segment = None if node is None else node.GetSegmentation().GetSegment(edit.segment_id)
    if segment is None and (edit.is_there or edit.tags is None):
        return edit
    tags = None if segment is None else all_tags(segment)
    if node is None or segment is None:
        node = prediction_node(volume, edit.source)
        _new_segment(
            node,
            edit.target,
            edit.source,
            holds_others=edit.holds_others,
            segment_id=edit.segment_id,
        )
    was = read_part(node, edit.segment_id, volume)
    now = together(without(was, unpacked(edit.remove)), unpacked(edit.add))
    goes = edit.tags is None and now is None
    if goes:
        note_taken_back(node, edit.segment_id)
        _remove_segment(node, edit.segment_id)
    else:
        write_part(node, edit.segment_id, now, volume)
        if edit.tags is not None:
            restore_tags(node.GetSegmentation().GetSegment(edit.segment_id), edit.tags)
        if edit.source and segment is None:
            note_added(node, edit.segment_id)
        _name_by_who(node)
    lost, gained = packed(without(was, now)), packed(without(now, was))
    return replace(edit, is_there=not goes, tags=tags, add=lost, remove=gained)


def latest_segments(node: Any, targets: Sequence[Target]) -> dict[str, str]:
    """Return the id of the last of our segments that shows each target."""
    found: dict[str, str] = {}
    for segment_id in _ours(node):
        name = target_of(node.GetSegmentation().GetSegment(segment_id)).lower()
        found |= {target.name: segment_id for target in targets if target.name.lower() == name}
    return found


def accept_prediction(node: Any) -> None:
    """Note that a person approved all segments of a prediction as they are now."""
    _set_human(node, True, "Completed")


def reopen_prediction(node: Any) -> None:
    """Note that a prediction is not approved any more; what a person edited stays protected."""
    forget_saved_without(node)
    for segment_id in segment_ids(node):
        remove_tags(node.GetSegmentation().GetSegment(segment_id), SAVED)
    _set_human(node, False, "Flagged")


def flag_disagreement(nodes: Mapping[str, Any], agreement: Mapping[str, float]) -> None:
    """Set the status of each prediction's segments: flagged where predictions disagree.

    Args:
        nodes: Segmentation nodes by source.
        agreement: By target, the least Dice of two predictions.
    """
    from aslseg.evaluation.metrics import DISPUTED_DICE

    for node in nodes.values():
        for segment_id in _ours(node):
            segment = node.GetSegmentation().GetSegment(segment_id)
            provenance = read_provenance(segment)
            if provenance is not None and not provenance.human:
                disputed = agreement.get(target_of(segment), 1.0) < DISPUTED_DICE
                set_status(segment, "Flagged" if disputed else "InProgress")


def restyle(project: Project) -> None:
    """Show the targets of predictions and labels in the scene as their project says.

    Those about a case of another project stay as they are.
    """
    styles = {target.name: style_of_target(target) for target in project.targets}
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        volume = volume_of_prediction(node)
        if volume is not None and not is_of_project(volume, project):
            continue
        for segment_id in _ours(node):
            segment = node.GetSegmentation().GetSegment(segment_id)
            style = styles.get(target_of(segment))
            if style is None:
                continue
            segment.SetColor(*style.color)
            if style.terminology:
                segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)


def set_status(segment: Any, status: str) -> None:
    """Set a segment's status: `InProgress`, `Completed` or `Flagged`."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(segment, getattr(logic, status))


def _name_by_who(node: Any) -> None:
    """Name the final label as a person's when it is one; another name that it was given stays."""
    volume, ours = volume_of_prediction(node), _ours(node)
    if volume is None or source_of(node) != "refined" or not ours:
        return
    found = [read_provenance(node.GetSegmentation().GetSegment(one)) for one in ours]
    names = [f"{volume.GetName()} - {what}" for what in (_IN_NODE_NAMES["refined"], _OF_PERSON)]
    name = names[all(one is not None and one.human for one in found)]
    if node.GetName() in names and node.GetName() != name:
        node.SetName(free_name(name))


def _ours(node: Any) -> list[str]:
    segmentation = node.GetSegmentation()
    return [n for n in segment_ids(node) if read_provenance(segmentation.GetSegment(n)) is not None]


def _shown(node: Any, segment_id: str, volume: Any) -> str:
    return digest_shown(node, segment_id, volume, read_part(node, segment_id, volume))


def _edited(
    node: Any, volume: Any, shown: Mapping[str, Part | None], *, replaces_prompted: bool = False
) -> list[str]:
    """Return the ids of our segments that a person has a share in.

    Args:
        node: Segmentation node.
        volume: Its volume node.
        shown: What our segments hold, by their ids.
        replaces_prompted: Leave out those that only follow earlier prompts.
    """
    segmentation = node.GetSegmentation()
    found = []
    for segment_id, part in shown.items():
        segment = segmentation.GetSegment(segment_id)
        prompted = is_prompted(segment) and not replaces_prompted
        if prompted or is_edited(segment, digest_shown(node, segment_id, volume, part)):
            found.append(segment_id)
    return found


def _set_human(node: Any, human: bool, status: str) -> None:
    for segment_id in _ours(node):
        segment = node.GetSegmentation().GetSegment(segment_id)
        mark_human(segment, human)
        set_status(segment, status)
    _name_by_who(node)


def _segment_for(node: Any, target: Target, kept: Sequence[str]) -> str | None:
    """Return the id of our segment of a target that may be written, or None."""
    return next((one for one in _of_target(node, target) if one not in kept), None)


def _of_target(node: Any, target: Target) -> list[str]:
    segmentation = node.GetSegmentation()
    return [n for n in _ours(node) if target_of(segmentation.GetSegment(n)) == target.name]


def _new_segment(
    node: Any, target: Target, source: str, *, holds_others: bool, segment_id: str = ""
) -> str:
    segment_id = segment_id or node.GetSegmentation().GenerateUniqueSegmentID(target.name)
    name = f"{target.name}{NEW_SUFFIX}" if _of_target(node, target) else target.name
    segment_id = add_segment(node, segment_id, name, style_of_target(target))
    display = node.GetDisplayNode()
    if source in OUTLINES:
        display.SetSegmentOverrideColor(segment_id, *OUTLINES[source])
    if holds_others:
        display.SetSegmentOpacity3D(segment_id, PARENT_OPACITY_3D)
    return segment_id


def _remove_segment(node: Any, segment_id: str) -> None:
    """Remove a segment, and its node with the last one."""
    node.GetSegmentation().RemoveSegment(segment_id)
    if not segment_ids(node):
        slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
        slicer.mrmlScene.RemoveNode(node)


def _show_as_outline(node: Any, source: str) -> None:
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.35)
    display.SetVisibility2DFill(source not in OUTLINES)
    display.SetSliceIntersectionThickness(2)
    display.SetVisibility(source in ("prompts", "refined"))
