"""Volumes of cases that were moved in the scene, as Center Volume does, or a hardened transform.

Their voxels are the image's, but what is drawn on them would lie elsewhere than the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk

from aslseg.data.volume import Geometry
from ASLsegLib.scene.segmentations import drawn_on, predictions_about
from ASLsegLib.scene.volumes import SceneError, as_array, as_matrix, geometry_of

if TYPE_CHECKING:
    from aslseg.project.project import Project


def moved_by_mm(node: Any, project: Project, case_id: str) -> float:
    """Return how far a case's volume was moved, in mm at its farthest corner; 0 if it was not.

    It is 0 as well where the image is absent, so that nobody knows.

    Raises:
        ImageError: When the header of the case's image cannot be read.
    """
    case = project.case(case_id)
    if not project.image_path(case).exists():
        return 0.0
    home, now = project.geometry(case), geometry_of(node)
    if now.matches(home):
        return 0.0
    corners = _corners_ijk(now)
    apart = (home.ijk_to_ras - now.ijk_to_ras) @ corners
    return float(np.linalg.norm(apart[:3], axis=0).max())


def require_in_place(node: Any, project: Project, case_id: str) -> None:
    """Make sure that a case's volume lies where its image does.

    Raises:
        SceneError: When it was moved.
        ImageError: When the header of the case's image cannot be read.
    """
    if moved_by_mm(node, project, case_id):
        msg = (
            f"{node.GetName()} was moved in the scene, and does not lie where the image of case "
            f"{case_id} does; load the case again from the table, which moves it back."
        )
        raise SceneError(msg)


def move_back(node: Any, project: Project, case_id: str) -> None:
    """Put a case's volume where its image lies, and its labels that were moved with it.

    Labels lie with the volume when the grid that they are drawn on is that of the moved volume. All
    that was drawn in them stays in them.

    Raises:
        ImageError: When the header of the case's image cannot be read.
    """
    home, moved = project.geometry(project.case(case_id)), geometry_of(node)
    back = as_matrix(home.ijk_to_ras @ np.linalg.inv(moved.ijk_to_ras))
    labels = {one.GetID(): one for one in (*predictions_about(node).values(), *drawn_on(node))}
    for label in labels.values():
        grid = _grid_of(label)
        if grid is not None and grid.matches(moved):
            label.ApplyTransformMatrix(back)
    node.SetIJKToRASMatrix(as_matrix(home.ijk_to_ras))


def _grid_of(label: Any) -> Geometry | None:
    """Return the grid that a segmentation is drawn on; None when it does not say so."""
    converter, image = slicer.vtkSegmentationConverter, slicer.vtkOrientedImageData()
    name = converter.GetReferenceImageGeometryParameterName()
    text = label.GetSegmentation().GetConversionParameter(name)
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        return None
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    columns, rows, slices = image.GetDimensions()
    return Geometry((slices, rows, columns), as_array(matrix))


def _corners_ijk(geometry: Geometry) -> np.ndarray:
    """Return the centres of a grid's corner voxels, (4, 8)."""
    extent = np.array([*(count - 1 for count in reversed(geometry.shape)), 1.0])
    corners = np.array(np.meshgrid(*[(0, 1)] * 3, [1])).reshape(4, -1)
    return np.asarray(corners * extent[:, None])
