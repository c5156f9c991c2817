"""The selectors of nodes: what they choose is what is worked on, also where Qt chooses for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from standin.harness import choose_node, run_event_loop

SEGMENTATIONS = {
    "labelSegmentationSelector": "labelSegmentation",
    "organSegmentationSelector": "organSegmentation",
    "resultSelector": "resultSegmentation",
}


def add_two(kind: str, *names: str) -> tuple[Any, Any]:
    first, second = (slicer.mrmlScene.AddNewNodeByClass(kind, name) for name in names)
    for node in (first, second) if kind == "vtkMRMLScalarVolumeNode" else ():
        slicer.util.updateVolumeFromArray(node, np.zeros((2, 4, 4), np.int16))
    run_event_loop(0.05)
    return first, second


def test_no_other_segmentation_is_chosen_for_one_that_is_removed(panel: Any) -> None:
    """Qt would choose the one before it in the list: of another case, or another organ."""
    _first, second = add_two("vtkMRMLSegmentationNode", "one", "other")
    for selector, name in SEGMENTATIONS.items():
        choose_node(getattr(panel.ui, selector), second)
        assert getattr(panel.parameters, name) is second
    slicer.mrmlScene.RemoveNode(second)
    run_event_loop(0.05)
    for selector, name in SEGMENTATIONS.items():
        assert getattr(panel.ui, selector).currentNode() is None
        assert getattr(panel.parameters, name) is None


def test_of_two_nodes_of_one_name_the_chosen_one_is_worked_on(panel: Any) -> None:
    """Slicer 5.12 and newer tell of no change between them."""
    for node in add_two("vtkMRMLSegmentationNode", "same", "same"):
        for selector, name in SEGMENTATIONS.items():
            choose_node(getattr(panel.ui, selector), node)
            assert getattr(panel.parameters, name) is node
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    for volume in add_two("vtkMRMLScalarVolumeNode", "ct", "ct"):
        choose_node(panel.ui.inputVolumeSelector, volume)
        assert panel.volume is volume
        assert composite.GetBackgroundVolumeID() == volume.GetID()
