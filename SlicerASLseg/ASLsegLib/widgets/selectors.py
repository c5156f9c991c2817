"""The selectors of nodes: each chooses what a person chose, and nothing where that is gone.

Slicer connects them with the parameters. It tells of no change between two nodes of one name (5.12
and newer), and for a node that is removed Qt chooses the one before it in the list.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

SELECTORS = {
    "labelSegmentationSelector": "labelSegmentation",
    "organSegmentationSelector": "organSegmentation",
    "inputVolumeSelector": "inputVolume",
    "resultSelector": "resultSegmentation",
}
"""Which parameter each selector shows."""


class NodeSelectors:
    """Keeps parameters true to their selectors.

    Args:
        ui: All widgets by name.
        parameters: Returns the scene's parameters; None while the scene is being closed.
    """

    def __init__(self, ui: Any, parameters: Callable[[], Any | None]) -> None:
        self._parameters = parameters
        for selector, name in SELECTORS.items():
            widget = getattr(ui, selector)
            widget.connect("nodeActivated(vtkMRMLNode*)", partial(self._take, name))

    def forget(self, node: Any) -> None:
        """Choose a node no more that is about to leave the scene."""
        for name in SELECTORS.values():
            if getattr(self._parameters(), name, None) is node:
                self._take(name, None)

    def _take(self, name: str, node: Any | None) -> None:
        parameters = self._parameters()
        if parameters is not None and getattr(parameters, name) is not node:
            setattr(parameters, name, node)
