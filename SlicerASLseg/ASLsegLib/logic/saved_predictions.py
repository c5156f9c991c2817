"""Saved label maps of a case, by a run or a person, brought into the scene."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.data.orientation import to_slices
from aslseg.errors import ImageError
from ASLsegLib.engine.results import (
    VolumeResult,
    provenance_of,
    show_proposed,
    volume_result,
)
from ASLsegLib.logic import project_data as projects
from ASLsegLib.scene.case_nodes import shown_label
from ASLsegLib.scene.disagreement import restore_overlay
from ASLsegLib.scene.provenance import Provenance, digest_of
from ASLsegLib.scene.segmentations import (
    flag_disagreement,
    is_as_written,
    latest_segments,
    prediction_node,
    rounds_shown,
    shown_in,
    write_prediction,
)

if TYPE_CHECKING:
    from aslseg.data.volume import Geometry
    from aslseg.project.project import Project


@dataclass(frozen=True)
class SavedPredictions:
    """What is on disk about a case.

    Attributes:
        result: What a round wrote, or a person.
        human: Whether the refined prediction is the label map that a person made or accepted.
        label: Digest of that label map; empty without one.
    """

    result: VolumeResult
    human: bool
    label: str = ""


def read_saved_predictions(project: Project, case_id: str) -> SavedPredictions | None:
    """Read a case's own label map and the predictions of the latest run with some.

    Returns:
        None when there is neither.

    Raises:
        ImageError: When a file is damaged, or a prediction lies on other voxels than the image.
    """
    from aslseg.project.lesion_decisions import read_lesions

    case = project.case(case_id)
    geometry = project.geometry(case)
    labels, prompts, origin = _predictions_of_run(project, case_id, geometry)
    if case.label is not None:
        labels["refined"] = project.load_labels(case).labels
    elif "refined" in labels:
        lesions = read_lesions(project, case_id)
        labels["refined"] = lesions.apply(labels["refined"], project.targets)
    if not labels:
        return None
    result = volume_result(
        labels,
        prompts,
        targets=list(project.targets),
        shape=geometry.shape,
        axis=to_slices(geometry).axes[0],
        origin=origin,
    )
    return SavedPredictions(result, case.label is not None, projects.label_digest(project, case_id))


def show_saved_predictions(volume: Any, saved: SavedPredictions) -> bool:
    """Show saved predictions about a volume, and a person's label as the refined one.

    Predictions in the scene are renewed when they show another round, another label map, or lesions
    otherwise than they were decided about; what a person drew or prompted stays as it is.

    Returns:
        Whether others took the place of some that were shown.
    """
    result, nodes, has_replaced = saved.result, {}, False
    for source, parts in result.predictions.items():
        provenance = provenance_of(source, result.origin)
        label = ""
        if source == "refined":
            provenance, label = replace(provenance, human=saved.human), saved.label
        node = prediction_node(volume, source)
        if _is_outdated(node, volume, saved, provenance, label):
            has_replaced |= node.GetSegmentation().GetNumberOfSegments() > 0
            node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            nodes[source] = write_prediction(
                volume, parts, result.targets, provenance, may_replace=lambda _: True
            )
    if result.prompts and "sam" in nodes:
        show_proposed(volume, result)
    flag_disagreement(nodes, result.agreement)
    if has_replaced:
        restore_overlay(volume, None)  # it compares those that were shown
    return has_replaced


def _is_outdated(
    node: Any, volume: Any, saved: SavedPredictions, provenance: Provenance, label: str
) -> bool:
    """Tell whether a node shows something else than what is saved, and nothing of a person."""
    if node.GetSegmentation().GetNumberOfSegments() == 0:
        return True
    if not is_as_written(node, volume):
        return False
    if rounds_shown(node) != {(provenance.run, provenance.round)}:
        return True
    if provenance.source != "refined":
        return False
    return shown_label(volume) != label or _shows_other_voxels(node, volume, saved.result)


def _shows_other_voxels(node: Any, volume: Any, result: VolumeResult) -> bool:
    """Tell whether a refined prediction shows other voxels than are saved.

    Its lesions may have been decided about elsewhere, or after the scene was saved.
    """
    parts, shown = result.predictions["refined"], shown_in(node, volume)
    latest = latest_segments(node, result.targets)
    return any(
        shown.get(latest.get(target.name, "")) != digest_of(parts[target.name])
        for target in result.targets
    )


def _predictions_of_run(
    project: Project, case_id: str, geometry: Geometry
) -> tuple[dict[str, np.ndarray], list[Any], Provenance]:
    from aslseg.project.run_folder import run_named, saw_another
    from aslseg.project.run_list import list_runs
    from aslseg.schema_1 import prediction_file

    case = project.case(case_id)
    for run in list_runs(project.folder):
        opened = run_named(project.folder, run.run_id)
        folder = opened.predictions(run.best_round, case_id)
        if run.best_round == 0 or saw_another(opened.images, case):
            continue
        if prediction_file(folder).exists():
            origin = Provenance("", run.method, run.run_id, run.best_round)
            return *_read_predictions(folder, geometry), origin
    return {}, [], Provenance("")


def _read_predictions(folder: Path, geometry: Geometry) -> tuple[dict[str, np.ndarray], list[Any]]:
    from aslseg.project.predictions import read_predictions
    from aslseg.prompts import read_prompts
    from aslseg.run_names import PROMPTS

    found = read_predictions(folder, geometry)
    labels: dict[str, np.ndarray] = {source: one.labels for source, one in found.items()}
    path = folder / PROMPTS
    if not path.exists():
        return labels, []
    remedy = "delete the folder of the case and resume the run"
    return labels, read_prompts(path, ImageError, remedy)
