"""The label map that decisions about lesions make: of a case that is done, and of one that is not.

A case is done when every lesion that is shown is decided about and the person says that there are
no more: then its label map is a person's like any other. A candidate that the run rejected is not
shown, and is none unless the person accepted it. Before, what is decided is a label already, the
rest is not.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from scipy import ndimage

from aslseg.data.masks import BoundingBox, crop
from aslseg.data.volume import Geometry, Labelmap, Mask
from aslseg.errors import ProjectError
from aslseg.project.candidate_lesions import read_candidate_lesions, undecided
from aslseg.project.lesion_decisions import BoxedMask, CaseLesions, LesionDecision, read_lesions
from aslseg.project.lock import changing
from aslseg.project.predictions import read_prediction
from aslseg.project.project import Project, open_project
from aslseg.project.review import decisions, finish, refined_path
from aslseg.project.roles import refuse_prediction
from aslseg.project.run_folder import RunFolder, run_named
from aslseg.project.run_tables import REFINED


def finish_case(
    project: Project,
    run: RunFolder,
    case_id: str,
    *,
    labels: Labelmap | None = None,
    round_number: int | None = None,
) -> Project:
    """Say that a case has no more lesions than those decided about: its label map is a person's.

    Args:
        project: The project.
        run: Whose candidates were reviewed.
        case_id: The case.
        labels: What the person was shown; the refined label with the decisions when None.
        round_number: Of the candidates; the best round when None.

    Raises:
        ProjectError: When there is no such case, a lesion that is shown is undecided, or the
            refined label would become that of a case to judge by, or replace one that a person may
            have drawn or corrected.
        RunError: When the run has no refined label of the case.
        ImageError: When a label map of the run is damaged, or lies on other voxels than the image.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    path = refined_path(run, case_id, round_number)
    with changing(project.folder):
        current = open_project(project.folder)
        lesions, is_computed = read_lesions(current, case_id), labels is None
        if labels is None:
            require_finishable(current, run, lesions, round_number=round_number)
            refined = read_prediction(path, current.geometry(current.case(case_id)))
            labels = lesions.applied_to(refined, current.targets)
        else:
            _refuse_refined(current, case_id, is_shown=True)
            _require_decided(current, path.parent, lesions)
        return finish(
            current, case_id, labels, run, round_number=round_number, is_computed=is_computed
        )


def require_finishable(
    project: Project, run: RunFolder, lesions: CaseLesions, *, round_number: int | None = None
) -> None:
    """Refuse what `finish_case` without label map refuses, if these are the decisions.

    Args:
        project: As it is now.
        run: Whose candidates were reviewed.
        lesions: The decisions.
        round_number: Of the candidates; the best round when None.

    Raises:
        ProjectError: As `finish_case` without label map.
        RunError: When the run has no refined label of the case.
    """
    path = refined_path(run, lesions.case_id, round_number)
    _refuse_refined(project, lesions.case_id, is_shown=False)
    _require_decided(project, path.parent, lesions)


def _require_decided(project: Project, folder: Path, lesions: CaseLesions) -> None:
    """Refuse to finish a case of which a lesion that is shown is undecided."""
    geometry = project.geometry(project.case(lesions.case_id))
    candidates = read_candidate_lesions(folder, project.targets, geometry)
    left = undecided([one for one in candidates if one.shown], lesions)
    if left:
        msg = (
            f"{len(left)} lesions of case {lesions.case_id} are undecided; accept, edit or delete "
            "them first."
        )
        raise ProjectError(msg)


def _refuse_refined(project: Project, case_id: str, *, is_shown: bool) -> None:
    """Refuse a refined label for a case to judge by, and in the place of a person's own label.

    Args:
        project: As it is now.
        case_id: The case.
        is_shown: Whether the label map is what the person was shown: the case's own, if it has one.
    """
    case = project.case(case_id)
    if is_shown and case.label is not None:
        return
    refuse_prediction(case)
    made_by = [one for one in decisions(project) if one.case_id == case_id]
    if case.label is not None and not (made_by and made_by[-1].is_computed):
        msg = (
            f"Case {case_id} has a label map that was drawn or may have been corrected, and "
            "the run's would take its place; correct that one instead."
        )
        raise ProjectError(msg)


def partial_label(
    project: Project, lesions: CaseLesions, names: Collection[str], margin_mm: float
) -> tuple[Labelmap, Mask] | None:
    """Return what decisions say of a case that is not done, and where they say it (ours).

    A decision is about a lesion and its surroundings: what an accepted lesion has there is lesion,
    all else there is none. Where another lesion was shown that nobody decided about, nothing is
    said. Each decision was made on the refined label of its own run and round, and where that is
    gone it says nothing of the surroundings; parents of lesions are those of the label that the
    last lesion was decided on.

    Args:
        project: The project.
        lesions: Decisions about the case.
        names: Of the targets that are meant.
        margin_mm: How far the surroundings of a lesion reach.

    Returns:
        The label map, and where it is known, (D, H, W), both on the voxels of the image; None
        without a decision about these targets, or where all refined labels are gone.

    Raises:
        ImageError: When a refined label is damaged, or lies on other voxels than the image.
    """
    chosen = [one for one in lesions.decisions.values() if one.target in names]
    places = {one: _refined_path(project, lesions.case_id, one) for one in chosen if one.run}
    there = [path for path in dict.fromkeys(places.values()) if path.exists()]
    if not there:
        return None
    geometry = project.geometry(project.case(lesions.case_id))
    shown = {path: read_prediction(path, geometry) for path in there}
    last = list(shown.values())[-1]
    labels = lesions.apply(last.labels, project.targets)
    decided = np.zeros(labels.shape, np.bool_)
    known = np.zeros(labels.shape, np.bool_)
    for decision, mask in ((one, mask) for one in chosen for mask in one.masks):
        mask.write(decided, 1)
        reach_mm = margin_mm if places.get(decision) in shown else 0.0
        _add_surroundings(known, mask, last.geometry, reach_mm)
    values = [target.value for target in project.targets if target.name in names]
    for others in (labels, *(one.labels for one in shown.values())):
        known &= decided | ~np.isin(others, values)
    return Labelmap(labels, last.geometry), known


def _refined_path(project: Project, case_id: str, decision: LesionDecision) -> Path:
    """Return the refined label that a person decided on, which may be gone."""
    run = run_named(project.folder, decision.run)
    return run.predictions(decision.round, case_id) / REFINED


def _add_surroundings(known: Mask, mask: BoxedMask, geometry: Geometry, margin_mm: float) -> None:
    margins = np.ceil(margin_mm / np.asarray(geometry.spacing_mm)).astype(int)
    k, j, i = (int(n) for n in np.maximum(mask.box.start - margins, 0))
    d, h, w = (int(n) for n in np.minimum(mask.box.stop + margins, known.shape))
    box = BoundingBox((k, j, i), (d, h, w))
    distance_mm = ndimage.distance_transform_edt(~mask.within(box), sampling=geometry.spacing_mm)
    crop(known, box)[distance_mm <= margin_mm] = True
