"""Placement points and boxes with the mouse, by Slicer's own place mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from ASLsegLib.scene.prompts import (
    BOX,
    LASSO,
    SHAPES,
    flatten_box,
    is_in_volume,
    new_box,
    new_curve,
    points_node,
    remove_prompt,
)


class Placement:
    """Lets a person place prompts of one kind after the other.

    Attributes:
        kind: What is being placed, or an empty text.
        volume: What it is about; None while nothing is placed.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self.kind = ""
        self._ended = ended
        self.volume: Any | None = None
        self._shape: Any | None = None

    def start(self, volume: Any, target: str, kind: str) -> None:
        """Begin to place points or a shape; a scribble or lasso ends with a right click."""
        self.volume, self.kind = volume, kind
        if kind == BOX:
            node = self._shape = new_box(volume, target)
        elif kind in SHAPES:
            node = self._shape = new_curve(volume, target, kind)
        else:
            node = points_node(volume, target, kind)
        slicer.modules.markups.logic().SetActiveList(node)
        # Not by the logic's StartPlaceMode: that places fiducials, whatever the active node is.
        application = slicer.app.applicationLogic()
        application.GetSelectionNode().SetReferenceActivePlaceNodeClassName(node.GetClassName())
        interaction = application.GetInteractionNode()
        interaction.SetPlaceModePersistence(kind not in SHAPES)
        interaction.SetCurrentInteractionMode(interaction.Place)

    def stop(self) -> None:
        """Go back to looking."""
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if self.kind and interaction is not None:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.mode_changed()

    def mode_changed(self) -> None:
        """Notice that the person, or Slicer after the last point, has ended placing."""
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        if not self.kind or interaction.GetCurrentInteractionMode() == interaction.Place:
            return
        kind, self.kind = self.kind, ""
        self._keep_or_drop_shape(kind)
        self.volume = None  # it may leave the scene, and memory
        self._ended()

    def forget(self) -> None:
        """Forget everything, for the scene was closed."""
        self.kind, self.volume, self._shape = "", None, None

    def _keep_or_drop_shape(self, kind: str) -> None:
        shape, self._shape = self._shape, None
        if shape is None or not slicer.mrmlScene.IsNodePresent(shape):
            return
        placed = shape.GetNumberOfDefinedControlPoints()
        if kind == BOX:
            is_unfinished = placed < shape.GetRequiredNumberOfControlPoints()
            is_empty = is_unfinished or min(shape.GetSize()) <= 0.0
        elif kind == LASSO:
            is_empty = placed < 3
        else:
            is_empty = not is_in_volume(shape, self.volume)
        if is_empty:
            remove_prompt(shape)
        elif kind == BOX:
            flatten_box(shape, self.volume)
