"""Show a case as a person wants to see it: its image, and what is known about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.scene.segmentations import volume_of_voice
from ASLsegLib.widgets.segment import SegmentSection

if TYPE_CHECKING:
    from ASLsegLib.widgets.panel import Panel


def show_case(panel: Panel, case_id: str) -> None:
    """Load a case into the scene with its label map or its latest voices, and show it.

    Args:
        panel: Gets the case as the volume to segment.
        case_id: Name of the case.
    """

    def show(volume: Any) -> None:
        if panel.parameters is not None:
            panel.parameters.inputVolume = volume
        show_volume(volume)
        panel.section(SegmentSection).show_voices()
        panel.update()

    panel.logic.load_case(case_id, then=show, wait=False)


def show_volume(volume: Any) -> None:
    """Show a volume in all slice views, and hide what was said about other volumes."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if volume_of_voice(node) not in (None, volume):
            node.GetDisplayNode().SetVisibility(False)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
