"""A place below Slicer's views: a layout of its own, and the way back to the layout of before.

A scene that is saved meanwhile names no layout: a Slicer that does not know this one would show no
view at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

LAYOUT_ID = 7315  # above those of Slicer and of the scripts that count on from SlicerLayoutUserView
TAG = "aslsegbelowviews"
_LAYOUT = (
    '<layout type="vertical" split="true"><item splitSize="640">{views}</item>'
    '<item splitSize="360"><{tag}></{tag}></item></layout>'
)


class BelowViews:
    """Shows a widget below the views that are shown, whichever these are.

    Args:
        changed: Called when the layout has changed, by this or by Slicer's menu.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._before = 0
        self._manager = slicer.app.layoutManager()
        if self._manager is not None:
            self._manager.connect("layoutChanged(int)", self._layout_changes)

    @property
    def is_possible(self) -> bool:
        """Whether there are views: Slicer may run without its main window."""
        return self._manager is not None

    @property
    def is_shown(self) -> bool:
        """Whether the layout is the one with the widget."""
        return self._manager is not None and self._manager.layout == LAYOUT_ID

    def put(self, widget: Any) -> None:
        """Give the place its widget, which whoever made it takes out again by deleting it."""
        _holder(self._manager).layout().addWidget(widget)

    def show(self) -> None:
        """Show the views of now with the place below them."""
        if self.is_shown:
            return
        self._before = self._manager.layout
        node = self._node
        views = (node.GetCurrentLayoutDescription() or "").strip()
        if not views.startswith("<layout"):  # several windows, or nothing
            self._before = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
            views = node.GetLayoutDescription(self._before)
        described = _LAYOUT.format(views=views, tag=TAG)
        if node.IsLayoutDescription(LAYOUT_ID):
            node.SetLayoutDescription(LAYOUT_ID, described)
        else:
            node.AddLayoutDescription(LAYOUT_ID, described)
        self._manager.setLayout(LAYOUT_ID)
        node.SetSaveWithScene(False)

    def hide(self) -> None:
        """Go back to the layout of before."""
        if self.is_shown:
            self._manager.setLayout(self._before or slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
            self._node.SetSaveWithScene(True)

    def close(self) -> None:
        """Go back to the layout of before, and follow the layout no more."""
        if self._manager is not None:
            self._manager.disconnect("layoutChanged(int)", self._layout_changes)
        self.hide()

    @property
    def _node(self) -> Any:
        return self._manager.layoutLogic().GetLayoutNode()

    def _layout_changes(self, _: int) -> None:
        self._node.SetSaveWithScene(not self.is_shown)
        self._changed()


def _holder(manager: Any) -> Any:
    """Return the widget that the layout holds: one for as long as Slicer runs.

    A layout manager forgets no factory, and one that was made in Python lives as long as something
    in Python refers to it; so a module that is loaded again finds it where Slicer keeps modules.
    """
    factory = getattr(slicer.modules, "ASLsegViewFactory", None)
    if factory is None:
        factory = slicer.qSlicerSingletonViewFactory()
        factory.setTagName(TAG)
        holder = qt.QWidget()
        qt.QVBoxLayout(holder).setContentsMargins(0, 0, 0, 0)
        factory.setWidget(holder)
        manager.registerViewFactory(factory)
        slicer.modules.ASLsegViewFactory = factory
    return factory.widget()
