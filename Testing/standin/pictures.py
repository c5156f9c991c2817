"""Pictures of the application's window: a module's panel beside the slice views and the 3D view."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtGui

from .harness import run_event_loop

LAYOUTS = {
    "four-up": slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView,
    "four-up plot": slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView,
}
_MENU, _TOOLS, _STATUS = 24, 34, 22
_GREY, _LINE = QtGui.QColor(239, 239, 239), QtGui.QColor(190, 190, 190)


@dataclass(frozen=True)
class WindowSize:
    """Pixels of the window and of its left column, the module panel."""

    width: int = 1480
    height: int = 880
    panel: int = 480


def window_picture(
    panel: Any,
    path: Path,
    *,
    layout: str | None = "four-up",
    title: str = "",
    size: WindowSize | None = None,
    scroll_to: Any | None = None,
) -> QtGui.QImage:
    """Draw panel and views as they stand beside each other in Slicer's window.

    Args:
        panel: The panel's widget (`slicer.modules.MyModuleWidget.parent`); None: views alone.
        path: The PNG file to write.
        layout: One of `LAYOUTS`; as it is when None.
        title: What the module selector shows.
        size: Of the window.
        scroll_to: Widget of the panel that stands at the top as far as the panel scrolls; its
            beginning when None.

    Returns:
        What was written.
    """
    size = size or WindowSize()
    width = size.panel if panel is not None else 0
    body = QtCore.QRect(0, _MENU + _TOOLS, size.width, size.height - _MENU - _TOOLS - _STATUS)
    views = slicer.app.layoutManager()
    if layout is not None:
        views.setLayout(LAYOUTS[layout])
    picture = QtGui.QImage(size.width, size.height, QtGui.QImage.Format.Format_RGB32)
    with shown(views, size.width - width - 2, body.height()), QtGui.QPainter(picture) as painter:
        picture.fill(_GREY)
        _draw_frame(painter, size, title)
        painter.drawPixmap(width + 2, body.top(), views.grab())
    if panel is not None:
        # As the module dock, which scrolls: never lower than wrapped texts need.
        inside = panel.layout()
        needed = 0
        if inside is not None:
            needed = max(inside.totalHeightForWidth(width), inside.totalMinimumSize().height())
        height = max(body.height(), needed)
        with shown(panel, width, height), QtGui.QPainter(picture) as painter:
            at = 0 if scroll_to is None else scroll_to.mapTo(panel, QtCore.QPoint(0, 0)).y()
            part = QtCore.QRect(0, min(at, height - body.height()), width, body.height())
            painter.drawPixmap(QtCore.QPoint(0, body.top()), panel.grab(), part)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not picture.save(str(path)):
        raise OSError(f"{path} could not be written")
    return picture


@contextmanager
def shown(widget: Any, width: int, height: int) -> Iterator[None]:
    """Let a widget be visible and drawn at some size, and as it was afterwards."""
    before, was_shown = widget.size, not widget.isHidden()
    widget.resize(width, height)
    widget.show()
    run_event_loop(0.2)
    slicer.util.forceRenderAllViews()
    yield
    widget.resize(before)
    widget.setVisible(was_shown)


def _draw_frame(painter: QtGui.QPainter, size: WindowSize, title: str) -> None:
    """Draw menu bar, tool bar with the module selector, and status bar."""
    painter.setPen(QtGui.QColor("black"))
    painter.drawText(10, 16, "File     Edit     View     Help")
    painter.setPen(_LINE)
    for y in (_MENU, _MENU + _TOOLS - 1, size.height - _STATUS):
        painter.drawLine(0, y, size.width, y)
    box = QtCore.QRect(78, _MENU + 5, 330, _TOOLS - 11)
    painter.fillRect(box, QtGui.QColor("white"))
    painter.drawRect(box)
    painter.setPen(QtGui.QColor("black"))
    painter.drawText(10, _MENU + 21, "Modules:")
    painter.drawText(box.left() + 8, _MENU + 21, title)
