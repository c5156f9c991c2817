"""Sparse labels: slices of a case that a person marked as complete; the others say nothing.

One rule serves all: before any slice is marked, the whole label map counts; from the first mark
on only marked slices do, none where the last mark was taken back. `mark_all_complete` lets the
whole count again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry, Mask
from aslseg.errors import ProjectError
from aslseg.project.case import Case
from aslseg.project.project import Project, change_project


def mark_slice_complete(
    project: Project, case_id: str, slice_index: int, *, complete: bool = True
) -> Project:
    """Say that everything is labelled in a slice, or not; only complete slices are learnt from.

    Before the first slice is marked, all of a label map counts. Once the last mark is taken back,
    nothing of it does, until a slice is marked again or `mark_all_complete` is called.

    Args:
        project: The project.
        case_id: Name of the case.
        slice_index: Axial slice, as the file numbers them.
        complete: Whether it is.

    Raises:
        ProjectError: When there is no such case, slice or label map, or no mark to take away.
        StorageError: When the folder cannot be written.
    """

    def change(current: Project) -> Project:
        case = current.case(case_id)
        _require_slices(current, case, [slice_index])
        if case.complete_slices is None and not complete:
            msg = f"No slice of case {case_id} is marked, so all of it counts; mark one first."
            raise ProjectError(msg)
        marked = {*(case.complete_slices or ()), slice_index}
        marked -= set() if complete else {slice_index}
        return current.with_case(case.model_copy(update={"complete_slices": tuple(sorted(marked))}))

    return change_project(project.folder, change)


def mark_all_complete(project: Project, case_id: str) -> Project:
    """Say that the whole label map of a case counts; see `set_complete_slices`."""
    return set_complete_slices(project, case_id, None)


def set_complete_slices(project: Project, case_id: str, slices: Sequence[int] | None) -> Project:
    """Say which slices of a case are complete, and no others.

    Args:
        project: The project.
        case_id: Name of the case.
        slices: Axial slices, as the file numbers them; None: the whole label map counts, as before
            any slice was marked.

    Raises:
        ProjectError: When there is no such case, slice or label map.
        StorageError: When the folder cannot be written.
    """
    return change_project(
        project.folder, lambda current: with_complete_slices(current, case_id, slices)
    )


def with_complete_slices(project: Project, case_id: str, slices: Sequence[int] | None) -> Project:
    """Return the project that `set_complete_slices` would save.

    Raises:
        ProjectError: As `set_complete_slices`.
    """
    case = project.case(case_id)
    if slices is not None:
        _require_slices(project, case, slices)
    marked = None if slices is None else tuple(sorted(set(slices)))
    return project.with_case(case.model_copy(update={"complete_slices": marked}))


def _require_slices(project: Project, case: Case, slices: Sequence[int]) -> None:
    project.label_path(case)  # which says so when there is none
    depth = _slice_count(project.geometry(case))
    for slice_index in slices:
        if not 0 <= slice_index < depth:
            msg = f"Case {case.id} has no slice {slice_index}; it has 0 to {depth - 1}."
            raise ProjectError(msg)


def _slice_count(geometry: Geometry) -> int:
    return geometry.shape[to_axial(geometry).axes[0]]


def incomplete_voxels(case: Case, geometry: Geometry) -> Mask | None:
    """Return the slices that are not marked as complete, (D, H, W); None where all count.

    Args:
        case: The case.
        geometry: Of its image as it is stored.
    """
    if case.complete_slices is None:
        return None
    axis = to_axial(geometry).axes[0]
    incomplete = np.ones(geometry.shape[axis], np.bool_)
    incomplete[list(case.complete_slices)] = False
    along = [1, 1, 1]
    along[axis] = -1
    return np.broadcast_to(incomplete.reshape(along), geometry.shape)


def axial_incomplete(project: Project, case: Case) -> Mask | None:
    """Return what `incomplete_voxels` does, on the axial grid of the case's image.

    Returns:
        (D, H, W) of the axial grid, or None where all slices are complete.

    Raises:
        ImageError: As `Project.geometry`.
    """
    geometry = project.geometry(case)
    mask = incomplete_voxels(case, geometry)
    return None if mask is None else to_axial(geometry).array(mask)
