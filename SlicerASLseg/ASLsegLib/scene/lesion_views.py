"""The slice views around a lesion: shown large, and brought back to where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer

from ASLsegLib.scene.volumes import as_array, as_matrix

LEAST_FIELD_MM = 60.0
AROUND = 3.0
"""Width of the view as a multiple of the lesion's long diameter (ours)."""

Place = list[tuple[Any, Any, tuple[float, float, float]]]
"""Of each slice node: where its plane lies, and its field of view in mm."""


def show_lesion(centre_ras: Sequence[float], long_mm: float) -> None:
    """Let all slice views show a point in their middle, and a lesion large.

    Args:
        centre_ras: Of the lesion's largest section, in mm.
        long_mm: Its long diameter.
    """
    wanted_mm = max(LEAST_FIELD_MM, AROUND * long_mm)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        width, height, depth = node.GetFieldOfView()
        scale = wanted_mm / min(width, height)
        node.SetFieldOfView(width * scale, height * scale, depth)
        node.JumpSliceByCentering(*centre_ras)


def place_of_views() -> Place:
    """Return where all slice views are."""
    return [
        (node, as_array(node.GetSliceToRAS()), tuple(node.GetFieldOfView()))
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
    ]


def return_to(place: Place) -> None:
    """Bring slice views back to where they were; those that are gone are left out."""
    for node, slice_to_ras, field_mm in place:
        if slicer.mrmlScene.IsNodePresent(node):
            node.GetSliceToRAS().DeepCopy(as_matrix(slice_to_ras))
            node.SetFieldOfView(*field_mm)
            node.UpdateMatrices()
