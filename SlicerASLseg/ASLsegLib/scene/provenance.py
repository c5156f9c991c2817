"""Where a segment comes from, kept as tags of the segment itself, so that it is saved with it.

A segment that is gone says nothing any more: its node notes which segments it was given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from aslseg.data.nrrd import kind_of
from aslseg.project.run_tables import EXTERNAL
from ASLsegLib.scene.segments import Part, segment_ids
from ASLsegLib.scene.terminology import target_named, terminology_of, without_new
from ASLsegLib.scene.volumes import as_array

_PREFIX = "ASLseg."
_DIGEST, _TARGET = "Digest", "Target"
GROWTH = "Growth"
"""Tag of a segment that is a grown lesion; its value is the slice that the lesion begins on."""
SAVED = "Saved"
"""Tag of a segment: digest of what was saved of it, until that decision is taken back."""
SLICES, REPAIRED = "Slices", "Repaired"
AT_NAMING, NAMED = "SlicesAtNaming", "NamedSlices"
"""Tags of an organ's segment, see `scene.repaired_slices`."""
FILLED = "FilledLesions"
"""Tag of the segment of a target with lesions, see `scene.filled_lesions`."""
SOURCE, FORMER_SOURCE = "Source", "Voice"
"""Name of the tag; scenes that were saved before 0.1.0 have the former one."""
_GIVEN, _SAVED_WITHOUT = "ASLseg.GivenSegments", "ASLseg.SavedWithout"
"""Attributes of a prediction's node: ids of segments, as JSON."""
_MOST_DIGITS = 9
_KIND, _ALGORITHM = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
_OURS = (
    SOURCE, FORMER_SOURCE, "Method", "Run", "Round", "Model", "Human", "Prompted", _TARGET, _DIGEST,
    GROWTH, SAVED, SLICES, REPAIRED, AT_NAMING, NAMED, FILLED,
)  # fmt: skip
_ALL_TAGS = (*(_PREFIX + name for name in _OURS), _KIND, _ALGORITHM, "Segmentation.Status")


@dataclass(frozen=True)
class Provenance:
    """Who made a segment.

    Attributes:
        source: `prompts`, `specialist`, `sam` or `refined`.
        method: Such as `aslseg`; `sam` when SAM worked without a trained run.
        run: Id of the run; empty without one.
        round: The run's round; 0 without one.
        model: Digest of the weights.
        human: Whether a person made or accepted it.
        prompted: Whether it follows a person's prompts.
    """

    source: str
    method: str = ""
    run: str = ""
    round: int = 0
    model: str = ""
    human: bool = False
    prompted: bool = False


def write_provenance(segment: Any, target: str, provenance: Provenance, part: Part | None) -> None:
    """Tag a segment that holds `part` as ours."""
    human = "yes" if provenance.human else "no"
    values = {
        SOURCE: provenance.source,
        "Method": provenance.method,
        "Run": provenance.run,
        "Round": str(provenance.round),
        "Model": provenance.model,
        "Human": human,
        "Prompted": "yes" if provenance.prompted else "no",
        _TARGET: target,
        _DIGEST: digest_of(part),
    }
    for name, value in values.items():
        segment.SetTag(_PREFIX + name, value)
    _set_dicom_tags(segment, provenance.human)


def read_provenance(segment: Any) -> Provenance | None:
    """Return where a segment comes from, or None when it is not ours."""
    if not tag(segment, _DIGEST):
        return None
    return Provenance(
        source=tag(segment, SOURCE) or tag(segment, FORMER_SOURCE),
        method=tag(segment, "Method"),
        run=tag(segment, "Run"),
        round=_number(tag(segment, "Round")),
        model=tag(segment, "Model"),
        human=tag(segment, "Human") == "yes",
        prompted=tag(segment, "Prompted") == "yes",
    )


def source_of(node: Any) -> str:
    """Return the source of the prediction that a segmentation node shows; empty for others."""
    names = (_PREFIX + SOURCE, _PREFIX + FORMER_SOURCE)
    return next((found for name in names if (found := node.GetAttribute(name))), "")


def write_source(node: Any, source: str) -> None:
    """Mark a segmentation node as the prediction of a source."""
    node.SetAttribute(_PREFIX + SOURCE, source)


def target_of(segment: Any) -> str:
    """Return the target that one of our segments shows; empty for a foreign segment."""
    return tag(segment, _TARGET)


def is_edited(segment: Any, shown: str) -> bool:
    """Tell whether a person changed one of our segments, or made or accepted it.

    Args:
        segment: One of ours.
        shown: What it shows now, see `digest_shown`.
    """
    return tag(segment, "Human") == "yes" or is_changed(segment, shown)


def is_changed(segment: Any, shown: str) -> bool:
    """Tell whether a segment shows something else than was written to it, or saved of it."""
    return shown not in (written_digest(segment), tag(segment, SAVED))


def written_digest(segment: Any) -> str:
    """Return the digest of what was last written to one of our segments."""
    return tag(segment, _DIGEST)


def is_prompted(segment: Any) -> bool:
    """Tell whether one of our segments follows a person's prompts."""
    return tag(segment, "Prompted") == "yes"


def mark_human(segment: Any, human: bool) -> None:
    """Note whether a person has approved what the segment holds."""
    segment.SetTag(_PREFIX + "Human", "yes" if human else "no")
    _set_dicom_tags(segment, human)


def _number(text: str) -> int:
    """Return a round; a tag that somebody else wrote may hold anything."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS else 0


def _set_dicom_tags(segment: Any, human: bool) -> None:
    """Note who segmented as Slicer's DICOM exporter looks for it; it would say MANUAL else."""
    method = tag(segment, "Method")
    kind = "AUTOMATIC" if not human else "SEMIAUTOMATIC" if method else "MANUAL"
    segment.SetTag(_KIND, kind)
    name = tag(segment, "Run") if method == EXTERNAL else f"ASLseg {method}".strip()
    segment.SetTag(_ALGORITHM, name)


def mark_semiautomatic(segment: Any, algorithm: str) -> None:
    """Note that a person and an algorithm made a segment, as Slicer's exporter looks for it."""
    segment.SetTag(_KIND, "SEMIAUTOMATIC")
    segment.SetTag(_ALGORITHM, f"ASLseg {algorithm}")


def digest_of(part: Part | None) -> str:
    """Return a short digest of what a segment holds and where; `empty` for nothing."""
    if part is None:
        return "empty"
    bits = np.packbits(np.ascontiguousarray(part.values))
    return hashlib.blake2b(bits.data, digest_size=12, key=str(part.extent).encode()).hexdigest()


def digest_shown(node: Any, segment_id: str, volume: Any, part: Part | None) -> str:
    """Return a digest of what a segment shows, and where.

    It is that of the voxels alone (`digest_of`) unless one of ours makes another target than it was
    written for, by its name, or is not shown where the voxels of the volume are.

    Args:
        node: Segmentation node.
        segment_id: Id of the segment.
        volume: Volume node that it is about.
        part: What the segment holds.
    """
    segment = node.GetSegmentation().GetSegment(segment_id)
    name = str(segment.GetName()) if is_renamed(node, segment_id) else ""
    shown, otherwise = digest_of(part), f"{name}\n{moved_against(node, volume)}".strip()
    if otherwise:  # a name could hold what Slicer's files part tags at
        shown += f" {hashlib.blake2b(otherwise.encode(), digest_size=12).hexdigest()}"
    return shown


def is_renamed(node: Any, segment_id: str) -> bool:
    """Tell whether one of our segments makes another target than it was written for, or none."""
    segmentation = node.GetSegmentation()
    segment = segmentation.GetSegment(segment_id)
    own, name = target_of(segment), str(segment.GetName() or "")
    if own in ("", name):
        return False
    targets = {target_of(segmentation.GetSegment(one)) for one in segment_ids(node)} - {""}
    names = (without_new(name), kind_of(terminology_of(segment)))
    return next((one for given in names if (one := target_named(given, [*targets]))), None) != own


def moved_against(node: Any, volume: Any) -> str:
    """Say how a segmentation is moved against its volume; empty where it is not."""
    transforms = node.GetParentTransformNode(), volume.GetParentTransformNode()
    if transforms[0] is transforms[1]:
        return ""
    given = [one for one in transforms if one is not None]
    if not all(one.IsTransformToWorldLinear() for one in given):
        return f"bent {max(one.GetTransformToWorldMTime() for one in given)}"
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*transforms, matrix)
    move = as_array(matrix).round(6)
    return "" if np.array_equal(move, np.eye(4)) else f"moved {move.tolist()}"


def set_tags(segment: Any, tags: Mapping[str, str]) -> None:
    """Change some of our tags of a segment."""
    for name, value in tags.items():
        segment.SetTag(_PREFIX + name, value)


def remove_tags(segment: Any, *names: str) -> None:
    """Remove some of our tags of a segment."""
    for name in names:
        segment.RemoveTag(_PREFIX + name)


def all_tags(segment: Any) -> dict[str, str]:
    """Return what our tags of a segment say, and those for DICOM, to be set by `restore_tags`."""
    return {name: found for name in _ALL_TAGS if (found := _tag(segment, name))}


def restore_tags(segment: Any, tags: Mapping[str, str]) -> None:
    """Let a segment have the tags that `all_tags` returned, and no others of them."""
    for name in _ALL_TAGS:
        if name in tags:
            segment.SetTag(name, tags[name])
        else:
            segment.RemoveTag(name)


def tag(segment: Any, name: str) -> str:
    """Return one of our tags of a segment; empty when it is not there."""
    return _tag(segment, _PREFIX + name)


def note_given(node: Any, given: Collection[str]) -> None:
    """Note which segments a prediction was given, by their ids; none of them is missing."""
    _write_ids(node, _GIVEN, given)
    _write_ids(node, _SAVED_WITHOUT, ())


def note_added(node: Any, segment_id: str) -> None:
    """Note that a prediction was given one segment more."""
    _write_ids(node, _GIVEN, {*_read_ids(node, _GIVEN), segment_id})


def note_taken_back(node: Any, segment_id: str) -> None:
    """Note that a segment was taken back by what had given it, and by no person."""
    _write_ids(node, _GIVEN, {*_read_ids(node, _GIVEN)} - {segment_id})


def note_saved_without(node: Any, saved: Collection[str]) -> None:
    """Note that those segments of a prediction that are not among the saved ones may be missing."""
    _write_ids(node, _SAVED_WITHOUT, {*_read_ids(node, _GIVEN)} - {*saved})


def forget_saved_without(node: Any) -> None:
    """Let segments count as missing again that were missing when a prediction was saved."""
    _write_ids(node, _SAVED_WITHOUT, ())


def removed_segments(node: Any) -> list[str]:
    """Return the ids of segments that a prediction was given and that a person removed.

    Those are left out that were missing when the prediction was last saved.
    """
    there = {*segment_ids(node), *_read_ids(node, _SAVED_WITHOUT)}
    return [one for one in _read_ids(node, _GIVEN) if one not in there]


def _tag(segment: Any, name: str) -> str:
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def _read_ids(node: Any, name: str) -> list[str]:
    try:
        found = json.loads(node.GetAttribute(name) or "[]")
    except ValueError:  # a scene may hold anything
        return []
    return [str(one) for one in found] if isinstance(found, list) else []


def _write_ids(node: Any, name: str, ids: Collection[str]) -> None:
    if ids:
        node.SetAttribute(name, json.dumps(sorted(ids)))
    else:
        node.RemoveAttribute(name)
