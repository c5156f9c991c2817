"""Volumes of the scene as cases of a plan: which there are, what is drawn on them, whose they are.

A volume that a file holds is named by that file. Others, and segmentations, get a path of their own
that says which node is meant, until the project is made and they are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.logic.export import reference_volume
from ASLsegLib.logic.project_data import good_case_id
from ASLsegLib.scene.case_nodes import case_of, other_project, require_free
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.segments import segment_ids
from ASLsegLib.scene.shown_labels import shown_geometry
from ASLsegLib.scene.terminology import as_color, terminology_of, without_new
from ASLsegLib.scene.volumes import (
    SceneError,
    hardened_copy,
    is_scalar,
    own_file,
    working_volume,
)

if TYPE_CHECKING:
    from aslseg.data.nrrd import Segment
    from aslseg.project.case import CaseFiles
    from aslseg.project.file_facts import FileFacts
    from aslseg.project.plan import Plan

_SCENE = "scene"


@dataclass(frozen=True)
class SceneCase:
    """A volume of the scene as a case.

    Attributes:
        case: Its image and label map; a path of a node where no file holds it.
        facts: What is known of both, by path.
        problem: Why it has no label map though something was drawn on it; empty for nothing.
    """

    case: CaseFiles
    facts: dict[Path, FileFacts]
    problem: str = ""


def volumes_to_add(plan: Plan) -> list[Any]:
    """Return the volume nodes that can be cases of a plan and are none of a project yet."""
    nodes = list(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    copies = [hardened_copy(node) for node in nodes]
    return [
        node
        for node in nodes
        if node not in copies
        and is_scalar(node)
        and node.GetImageData()
        and not node.GetAttribute("ASLseg.Overlay")
        and not case_of(node, plan.project)
        and other_project(node, plan.folder) is None
    ]


def with_scene(plan: Plan, volumes: Sequence[Any] | None = None) -> Plan:
    """Add volumes of the scene to a plan, each with the segmentation that was drawn on it.

    Where several were drawn on one volume, a problem of the plan says so: one label map cannot be
    all of them.

    Args:
        plan: Where to; volumes that are in it already are left out.
        volumes: Volume nodes; all that can be cases when None.

    Raises:
        SceneError: When there is none, or one cannot be used, also for it is a case of another
            project.
    """
    from aslseg.project.pairing import FoundCases, PairingProblem
    from aslseg.project.plan import with_found

    nodes = volumes_to_add(plan) if volumes is None else list(volumes)
    if not nodes:
        msg = "The scene has no volume that could be added; load volumes first."
        raise SceneError(msg)
    for node in nodes:
        require_free(working_volume(node), plan.folder)
    patients = _patients(nodes)
    found = [_scene_case(node, patients[node.GetID()]) for node in nodes]
    facts = {path: known for one in found for path, known in one.facts.items()}
    problems = [PairingProblem(one.case.image, one.problem) for one in found if one.problem]
    cases = FoundCases(tuple(one.case for one in found), problems=tuple(problems))
    return with_found(replace(plan, facts={**plan.facts, **facts}), cases)


def is_of_scene(path: Path) -> bool:
    """Tell whether a path of a plan names a node of the scene."""
    return len(path.parts) == 3 and path.parts[0] == _SCENE


def node_of(path: Path) -> Any:
    """Return the node that a path of a plan names.

    Raises:
        SceneError: When it is in the scene no more.
    """
    node = slicer.mrmlScene.GetNodeByID(path.parts[1])
    if node is None:
        msg = f"{path.name} was removed from the scene; leave its case out, or load it again."
        raise SceneError(msg)
    return node


def volume_node_of(case: CaseFiles) -> Any | None:
    """Return the volume node of a case of a plan; None when it is not in the scene."""
    if is_of_scene(case.image):
        return node_of(case.image)
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((node for node in nodes if own_file(node) == case.image), None)


def _scene_case(volume: Any, patient: str | None) -> SceneCase:
    from aslseg.project.case import CaseFiles
    from aslseg.project.file_facts import FileFacts

    image = own_file(working_volume(volume)) or _path_of(volume)
    facts = {}
    if is_of_scene(image):
        facts[image] = FileFacts(shown_geometry(volume))
    drawn = _segmentations_on(volume)
    label = _path_of(drawn[0]) if len(drawn) == 1 else None
    if label is not None:
        segments = _segments(drawn[0])
        values = tuple(segment.value for segment in segments)
        facts[label] = FileFacts(shown_geometry(volume), values, segments)
    name = good_case_id(volume.GetName())
    problem = _several_in_words(volume, drawn) if len(drawn) > 1 else ""
    return SceneCase(CaseFiles(name, image, label, patient=patient), facts, problem)


def _several_in_words(volume: Any, drawn: Sequence[Any]) -> str:
    names = " and ".join(str(node.GetName()) for node in drawn)
    return (
        f"{names} were drawn on {volume.GetName()}, and a case has one label map: move all "
        "segments that count into one of them (Segmentations module, Copy/move segments), leave "
        "the case out and add it from the scene again; or take no label map."
    )


def _path_of(node: Any) -> Path:
    name = str(node.GetName() or node.GetID()).replace("/", "-").replace("\\", "-")
    return Path(_SCENE, node.GetID(), name)


def _segmentations_on(volume: Any) -> list[Any]:
    """Return the segmentations that a person drew on a volume, without those that hold nothing."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if source_of(node) or not _segments(node):
            continue
        try:
            drawn_on = reference_volume(node)
        except SceneError:
            continue
        if drawn_on in (volume, hardened_copy(volume)):
            found.append(node)
    return found


def _segments(node: Any) -> tuple[Segment, ...]:
    """Return the segments of a node that hold something, numbered from 1 as they come."""
    from aslseg.data.nrrd import Segment, kind_of

    found: list[Segment] = []
    for segment_id in segment_ids(node):
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segment_id, image)
        if image.IsEmpty() or image.GetScalarRange()[1] <= 0:
            continue  # nothing was drawn, or all of it was erased
        segment = node.GetSegmentation().GetSegment(segment_id)
        entry, color = terminology_of(segment), as_color(segment.GetColor())
        name = without_new(str(segment.GetName() or ""))
        found.append(Segment(name, len(found) + 1, kind_of(entry), entry, color))
    return tuple(found)


def _patients(nodes: Sequence[Any]) -> dict[str, str | None]:
    """Return the name of the first volume of each patient of the DICOM database, by node id.

    Volumes under one patient of the subject hierarchy are of one patient; of others nothing is
    known. The patient's own name or number is not used.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    items = {}
    for node in nodes:
        item = hierarchy.GetItemByDataNode(node) if hierarchy else 0
        items[node.GetID()] = hierarchy.GetItemAncestorAtLevel(item, level) if item else 0
    count = Counter(items.values())
    first: dict[int, str] = {}
    for node in nodes:
        first.setdefault(items[node.GetID()], good_case_id(node.GetName()))
    return {name: first[item] if item and count[item] > 1 else None for name, item in items.items()}
