"""Which volume the slice views show, and how another one is brought there."""

from __future__ import annotations

from typing import Any

import slicer

from ASLsegLib.scene.disagreement import hide_overlays_of_others
from ASLsegLib.scene.prompts import show_prompts_of
from ASLsegLib.scene.segmentations import volume_of_prediction
from ASLsegLib.scene.volumes import SceneError, hardened_copy


def show_volume(volume: Any) -> None:
    """Show a volume in all slice views, and hide predictions and prompts about other volumes."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if volume_of_prediction(node) not in (None, volume):
            node.GetDisplayNode().SetVisibility(False)
    show_prompts_of(volume)
    hide_overlays_of_others(volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)


def why_not_in_views(volume: Any) -> str:
    """Return what the slice views of the layout show in place of a volume, in a sentence.

    Empty where one of them shows it, or its hardened copy, as its background; and where they show
    nothing, or the layout has none, so that nothing else is taken for it.
    """
    shown = [one for one in _backgrounds() if one is not None]
    if not shown or any(_are_alike(one, volume) for one in shown):
        return ""
    names = sorted({str(one.GetName()) for one in shown})
    return (
        f"The slice views showed {', '.join(names)}, not {volume.GetName()}, so nothing was done. "
        f"{volume.GetName()} is shown now: look at it, and press again."
    )


def require_in_views(volume: Any) -> None:
    """Bring a volume into slice views that show another one.

    Raises:
        SceneError: When they showed another one, at which a person looked.
    """
    why = why_not_in_views(volume)
    if why:
        show_volume(volume)
        raise SceneError(why)


def _backgrounds() -> list[Any | None]:
    """Return the background of each slice view of the layout; None of one that has none."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    by_name = {one.GetLayoutName(): one for one in composites}
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    found = [by_name.get(one.GetLayoutName()) for one in views if one.IsMappedInLayout()]
    ids = [one.GetBackgroundVolumeID() or "" for one in found if one is not None]
    return [slicer.mrmlScene.GetNodeByID(one) for one in ids]


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether two volumes are one, or one of them is the hardened copy of the other."""
    return one is other or hardened_copy(one) is other or hardened_copy(other) is one
