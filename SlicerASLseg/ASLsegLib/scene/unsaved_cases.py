"""Which cases show something that a person drew or prompted and did not save."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.provenance import source_of
from ASLsegLib.scene.segmentations import drawn_on, holds_unsaved, predictions_about
from ASLsegLib.scene.segments import read_part
from ASLsegLib.scene.shown_labels import target_segments
from ASLsegLib.scene.volumes import hardened_copy

if TYPE_CHECKING:
    from aslseg.project.project import Project


def unsaved_cases(project: Project, case_ids: Collection[str] | None = None) -> list[str]:
    """Return the cases of a project that show what is in no label map.

    Of a segmentation of a person's own that is only known where its case has no label map.

    Args:
        project: The project.
        case_ids: Of which it is asked; all when None.
    """
    found = set()
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        case_id = case_of(volume, project)
        if not case_id or (case_ids is not None and case_id not in case_ids):
            continue
        shown_on = [one for one in (volume, hardened_copy(volume)) if one is not None]
        if any(_shows_unsaved(one, project, case_id) for one in shown_on):
            found.add(case_id)
    return [case.id for case in project.cases if case.id in found]


def _shows_unsaved(volume: Any, project: Project, case_id: str) -> bool:
    if any(holds_unsaved(node, volume) for node in predictions_about(volume).values()):
        return True
    case = project.case(case_id)
    if case.label is not None:
        return False
    targets = [target for target in project.targets if target.name not in case.masks]
    return any(
        read_part(node, segment_id, volume) is not None
        for node in drawn_on(volume)
        if not source_of(node)
        for segment_id in target_segments(node, targets)
    )
