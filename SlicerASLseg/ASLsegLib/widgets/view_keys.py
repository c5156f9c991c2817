"""Keys that mean something of their own in Slicer's slice views."""

from __future__ import annotations

from typing import Any

import qt
import slicer

_DELETE = chr(127)


def slice_view_in_use() -> Any | None:
    """Return the slice view that the pointer is over, else the one that has the focus; or None."""
    layout, focus = slicer.app.layoutManager(), qt.QApplication.focusWidget()
    if layout is None:
        return None
    views = [layout.sliceWidget(name).sliceView() for name in layout.sliceViewNames()]
    under = next((view for view in views if view.underMouse()), None)
    if under is not None or focus is None:
        return under
    # the focus is in the view itself, or in the VTK widget that it holds
    return next((view for view in views if view.hasFocus() or view.isAncestorOf(focus)), None)


def press_delete(view: Any) -> None:
    """Let a slice view have the key Delete, as if no shortcut of the window had taken it.

    In Slicer it deletes the control point under the pointer: `vtkSlicerMarkupsWidget` takes the
    event from the view's interactor, by its code and name.
    """
    interactor = view.interactor()
    interactor.SetKeyEventInformation(0, 0, _DELETE, 1, "Delete")
    for event in ("KeyPressEvent", "KeyReleaseEvent"):
        interactor.InvokeEvent(event)
