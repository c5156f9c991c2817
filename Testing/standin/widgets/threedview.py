"""The 3D view."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from standin.pythonqt.base import InnerLabel

from .qmrml import qMRMLWidget
from .views import _View


class qMRMLThreeDView(_View):
    """A scene of surfaces, drawn by the 3D displayable managers."""

    def __init__(self, node: Any) -> None:
        renderer = vtk.vtkRenderer()
        super().__init__(renderer)
        self._renderer, self._node = renderer, node
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleTrackballCamera())
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory
        self._instantiate_managers(factory, renderer, node)

    def mrmlViewNode(self) -> Any:
        return self._node

    def resetFocalPoint(self) -> None:
        self._renderer.ResetCamera()

    def resetCamera(self) -> None:
        self._renderer.ResetCamera()


class qMRMLThreeDWidget(qMRMLWidget):
    """The 3D view with the bar of its name above it."""

    def __init__(self, scene: Any) -> None:
        super().__init__()
        node = slicer.vtkMRMLViewNode()
        node.SetLayoutName("1")
        node.SetLayoutLabel("1")
        node.SetSingletonTag("1")
        node.SetMappedInLayout(1)
        self._node = scene.AddNode(node)
        self._view = qMRMLThreeDView(self._node)
        bar = InnerLabel("1")
        bar.setFixedHeight(20)
        bar.setStyleSheet("background: rgb(116,116,181); padding-left: 4px; font: 11px")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(bar)
        column.addWidget(self._view, 1)

    def threeDView(self) -> Any:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._node

    def sizeHint(self) -> QtCore.QSize:
        return QtCore.QSize(400, 300)
