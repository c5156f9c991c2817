"""Which slice of a volume a person looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.data.orientation import to_slices
from ASLsegLib.scene.volumes import as_array, geometry_of, shown_geometry_of

if TYPE_CHECKING:
    from aslseg.data.volume import Geometry

_ALONG = 0.9  # cosine between slices of the view and of the volume


def slice_view_of(volume: Any) -> Any | None:
    """Return the slice node whose plane is most nearly that of the volume's axial slices.

    Of views along them one that the layout has comes first: nobody sees the others.
    """

    def rank(node: Any) -> tuple[bool, float]:
        likeness = _likeness(node, volume)
        return bool(node.IsMappedInLayout()) and likeness > _ALONG, likeness

    return max(slicer.util.getNodesByClass("vtkMRMLSliceNode"), key=rank, default=None)


def draw_in_plane(display: Any, volume: Any) -> None:
    """Let something be drawn only in views of the volume's axial slices; everywhere without one.

    Args:
        display: Display node.
        volume: Volume node.
    """
    display.RemoveAllViewNodeIDs()
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if _likeness(node, volume) > _ALONG:
            display.AddViewNodeID(node.GetID())


def current_slice(volume: Any, counted_as: Any | None = None) -> int:
    """Return the volume's axial slice that is shown, or the nearest one.

    Args:
        volume: Volume node.
        counted_as: Volume node of the same voxels, whose axial slices are counted; itself when
            None. Under a transform these may be others.
    """
    geometry = _slices_shown(volume, counted_as)
    node = slice_view_of(volume)
    if node is None:
        return geometry.shape[0] // 2
    centre = as_array(node.GetSliceToRAS())[:, 3]
    k = (np.linalg.inv(geometry.ijk_to_ras) @ centre)[2]
    return int(np.clip(round(float(k)), 0, geometry.shape[0] - 1))


def show_slice(volume: Any, slice_index: int) -> None:
    """Let the view of a volume's axial slices show one of them, if it does not."""
    node, geometry = slice_view_of(volume), _slices_shown(volume)
    if node is not None and current_slice(volume) != slice_index:
        centre = as_array(node.GetSliceToRAS())[:, 3]
        ijk = np.linalg.inv(geometry.ijk_to_ras) @ centre
        ijk[2] = slice_index
        node.JumpSliceByOffsetting(*(geometry.ijk_to_ras @ ijk)[:3].tolist())


def _likeness(node: Any, volume: Any) -> float:
    """Return how nearly the slices of a view are a volume's axial ones: 1 for parallel ones."""
    plane = _slices_shown(volume).ijk_to_ras[:3, :2]
    across = np.cross(plane[:, 0], plane[:, 1])
    return abs(float(across @ as_array(node.GetSliceToRAS())[:3, 2])) / float(
        np.linalg.norm(across)
    )


def _slices_shown(volume: Any, counted_as: Any | None = None) -> Geometry:
    """Return where the axial slices of a volume are shown; see `current_slice`."""
    turn = to_slices(geometry_of(volume if counted_as is None else counted_as))
    return turn.geometry(shown_geometry_of(volume))
