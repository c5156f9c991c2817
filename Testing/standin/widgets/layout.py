"""The layout manager: slice views, a 3D view and a plot view, as in the layout Four-Up.

A widget that a layout names by the tag of its factory stands below them.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from standin.pythonqt.base import Widget, observe
from standin.pythonqt.signals import Signal

from .plotview import qMRMLPlotWidget
from .threedview import qMRMLThreeDWidget
from .views import qMRMLSliceWidget

SLICES = {
    "Red": ("Axial", "R", (0.953, 0.290, 0.2)),
    "Green": ("Coronal", "G", (0.431, 0.690, 0.294)),
    "Yellow": ("Sagittal", "Y", (0.929, 0.835, 0.298)),
}
_PLACES = {"Red": (0, 0), "Green": (1, 0), "Yellow": (1, 1)}


class qSlicerSingletonViewFactory(QtCore.QObject):
    """Gives a layout the one widget that its tag stands for."""

    def __init__(self) -> None:
        super().__init__()
        self._tag, self._widget = "", None
        self._holder = QtWidgets.QWidget()

    def setTagName(self, tag: str) -> None:
        self._tag = tag

    def tagName(self) -> str:
        return self._tag

    def setWidget(self, widget: Any) -> None:
        """Keep a widget, hidden, until a layout wants it."""
        self._widget = widget
        if widget is not None:
            widget.setParent(self._holder)

    def widget(self) -> Any:
        return self._widget


class qSlicerLayoutManager(Widget):
    """Gives the views by name, and shows them beside each other in its own widget."""

    layoutChanged = Signal("layoutChanged(int)")

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self._application_logic = logic
        self._slices: dict[str, Any] = {}
        self._logics = vtk.vtkCollection()
        self._grid = QtWidgets.QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        logic.SetSliceLogics(self._logics)
        for name, (orientation, label, colour) in SLICES.items():
            self._add_slice(name, orientation, label, colour)
        self._threed = qMRMLThreeDWidget(logic.GetMRMLScene())
        self._grid.addWidget(self._threed, 0, 1)
        self._plot = qMRMLPlotWidget(logic.GetMRMLScene())
        self._grid.addWidget(self._plot, 2, 0, 1, 2)
        for half in (0, 1):
            self._grid.setRowStretch(half, 1)
            self._grid.setColumnStretch(half, 1)
        self._factories: list[qSlicerSingletonViewFactory] = []
        self._shown_layout = ""
        self._layout_logic = slicer.vtkMRMLLayoutLogic()
        self._layout_logic.SetMRMLScene(logic.GetMRMLScene())
        self._node = self._layout_logic.GetLayoutNode()
        observe(self, self._node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._arrange())
        self._node.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._arrange()

    def _add_slice(
        self, name: str, orientation: str, label: str, colour: tuple[float, float, float]
    ) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._application_logic)
        logic.SetMRMLScene(self._application_logic.GetMRMLScene())
        node = logic.AddSliceNode(name)
        node.SetLayoutLabel(label)
        node.SetLayoutColor(*colour)
        node.SetOrientation(orientation)
        node.SetMappedInLayout(1)
        self._logics.AddItem(logic)
        self._slices[name] = qMRMLSliceWidget(logic)
        self._grid.addWidget(self._slices[name], *_PLACES[name])

    def registerViewFactory(self, factory: qSlicerSingletonViewFactory) -> None:
        self._factories.append(factory)

    def _arrange(self) -> None:
        """Show what the layout names beside the four views: the plot view, widgets by their tag."""
        described = self._node.GetCurrentLayoutDescription() or ""
        if described == self._shown_layout:
            return
        self._shown_layout = described
        elements = list(ET.fromstring(described).iter()) if described else []
        self._plot.setVisible(any(e.get("class") == "vtkMRMLPlotViewNode" for e in elements))
        named = {e.get("singletontag") for e in elements if e.get("class") == "vtkMRMLSliceNode"}
        for name, slices in self._slices.items():
            slices.mrmlSliceNode().SetMappedInLayout(name in named)
        tags = {element.tag for element in elements}
        for row, factory in enumerate(self._factories, start=3):
            widget, wanted = factory.widget(), factory.tagName() in tags
            if widget is not None:
                self._grid.addWidget(widget, row, 0, 1, 2)
                widget.setVisible(wanted)
            self._grid.setRowStretch(row, int(wanted))
        self.layoutChanged(self.layout)

    @property
    def layout(self) -> int:
        return int(self._node.GetViewArrangement())

    @layout.setter
    def layout(self, arrangement: int) -> None:
        self._node.SetViewArrangement(int(arrangement))

    def setLayout(self, arrangement: int) -> None:
        self.layout = arrangement

    def layoutLogic(self) -> Any:
        return self._layout_logic

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> Any:
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        return self._logics

    @property
    def threeDViewCount(self) -> int:
        return 1

    @property
    def tableViewCount(self) -> int:
        return 0

    @property
    def plotViewCount(self) -> int:
        return 1

    def threeDWidget(self, index: int) -> Any:
        return self._threed if index == 0 else None

    def plotWidget(self, index: int) -> Any:
        return self._plot if index == 0 else None

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToAll()

    def resetThreeDViews(self) -> None:
        self._threed.threeDView().resetFocalPoint()

    def standin_redraw(self) -> None:
        """Render every visible view once (what follows when rendering is resumed)."""
        for widget in self._slices.values():
            widget.sliceView().scheduleRender()
        self._threed.threeDView().scheduleRender()

    def standin_fit(self) -> None:
        """Put the views back where they were before a scene was closed."""
        for name, (orientation, _, _) in SLICES.items():
            node = self._slices[name].mrmlSliceNode()
            node.SetOrientation(orientation)
            node.SetSliceOffset(0.0)
            node.SetFieldOfView(250.0, 250.0, 1.0)

    def standin_take_down(self) -> None:
        """Let the displayable managers and the render windows go."""
        for view in (*(w.sliceView() for w in self._slices.values()), self._threed.threeDView()):
            view.standin_take_down()
        self._slices.clear()

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(800, 640)
