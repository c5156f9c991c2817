"""The widgets that place and list markups."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from standin.pythonqt.base import Property, observe, setter
from standin.pythonqt.present import present
from standin.pythonqt.signals import Signal

from .qmrml import qMRMLNodeComboBox, qSlicerWidget


class qSlicerMarkupsPlaceWidget(qSlicerWidget):
    """Buttons that place the points of a markups node with the real interaction node."""

    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 0, 1
    ShowPlaceMultipleMarkupsOption, HidePlaceMultipleMarkupsOption = 2, 3
    activeMarkupsPlaceModeChanged = Signal("activeMarkupsPlaceModeChanged(bool)")
    buttonsVisible = Property(True)
    placeMultipleMarkups = Property(2)
    placeModePersistency = Property(False)
    deleteAllControlPointsOptionVisible = Property(True)
    unsetLastControlPointOptionVisible = Property(False)
    defaultNodeColor, nodeColor = Property(None), Property(None)
    setButtonsVisible, setPlaceMultipleMarkups = (
        setter("buttonsVisible"),
        setter("placeMultipleMarkups"),
    )
    setPlaceModePersistency = setter("placeModePersistency")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._node: Any = None
        self._button = present(QtWidgets.QPushButton)()
        self._button.text = "Place"
        self._button.setCheckable(True)
        QtWidgets.QHBoxLayout(self).addWidget(self._button)
        self._button.toggled.connect(self.setPlaceModeEnabled)
        event = slicer.vtkMRMLInteractionNode.InteractionModeChangedEvent
        observe(self, self._interaction(), event, lambda *_: self._mode_changed())

    @staticmethod
    def _interaction() -> Any:
        return slicer.app.applicationLogic().GetInteractionNode()

    def setCurrentNode(self, node: Any) -> None:
        self._node = node

    def currentNode(self) -> Any:
        return self._node

    def placeButton(self) -> Any:
        return self._button

    @property
    def placeModeEnabled(self) -> bool:
        logic = slicer.app.applicationLogic().GetSelectionNode()
        placing = self._interaction().GetCurrentInteractionMode() == self._interaction().Place
        active = self._node is not None and logic.GetActivePlaceNodeID() == self._node.GetID()
        return bool(placing and active)

    @placeModeEnabled.setter
    def placeModeEnabled(self, enabled: bool) -> None:
        self.setPlaceModeEnabled(enabled)

    def setPlaceModeEnabled(self, enabled: bool) -> None:
        if self._node is None or enabled == self.placeModeEnabled:
            return
        if enabled:
            selection = slicer.app.applicationLogic().GetSelectionNode()
            selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            selection.SetActivePlaceNodeID(self._node.GetID())
            self._interaction().SetPlaceModePersistence(int(self.placeMultipleMarkups == 1))
        mode = self._interaction().Place if enabled else self._interaction().ViewTransform
        self._interaction().SetCurrentInteractionMode(mode)

    def _mode_changed(self) -> None:
        enabled = self.placeModeEnabled
        if enabled != self.__dict__.get("_was_enabled", False):
            self.__dict__["_was_enabled"] = enabled
            self._button.setChecked(enabled)
            self.activeMarkupsPlaceModeChanged(enabled)

    def deleteAllPoints(self) -> None:
        self._node.RemoveAllControlPoints()

    def deleteLastPoint(self) -> None:
        count = self._node.GetNumberOfControlPoints()
        if count:
            self._node.RemoveNthControlPoint(count - 1)


class qSlicerSimpleMarkupsWidget(qSlicerWidget):
    """A list of the points of a markups node, with the place widget above it."""

    markupsNodeChanged = Signal("markupsNodeChanged()")
    updateFinished = Signal("updateFinished()")
    activeMarkupsPlaceModeChanged = Signal("activeMarkupsPlaceModeChanged(bool)")
    enterPlaceModeOnNodeChange = Property(True)
    jumpToSliceEnabled = Property(True)
    nodeSelectorVisible = Property(True)
    optionsVisible = Property(True)
    setJumpToSliceEnabled = setter("jumpToSliceEnabled")
    setNodeSelectorVisible = setter("nodeSelectorVisible")
    setEnterPlaceModeOnNodeChange = setter("enterPlaceModeOnNodeChange")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._combo, self._place = qMRMLNodeComboBox(), qSlicerMarkupsPlaceWidget()
        self._combo.nodeTypes = ["vtkMRMLMarkupsFiducialNode"]
        self._combo.noneEnabled = True
        self._table = present(QtWidgets.QTableWidget)(0, 4)
        column = QtWidgets.QVBoxLayout(self)
        for widget in (self._combo, self._place, self._table):
            column.addWidget(widget)
        self._combo.connect("currentNodeChanged(vtkMRMLNode*)", self._node_chosen)
        self._place.connect(
            "activeMarkupsPlaceModeChanged(bool)", self.activeMarkupsPlaceModeChanged
        )

    def _scene_set(self) -> None:
        self._combo.setMRMLScene(self._scene)
        self._place.setMRMLScene(self._scene)

    def setNodeBaseName(self, name: str) -> None:
        self._combo.baseName = name

    def setCurrentNode(self, node: Any) -> None:
        self._combo.setCurrentNode(node)

    def currentNode(self) -> Any:
        return self._combo.currentNode()

    def markupsPlaceWidget(self) -> Any:
        return self._place

    def tableWidget(self) -> Any:
        return self._table

    def markupsSelectorComboBox(self) -> Any:
        return self._combo

    def _node_chosen(self, node: Any) -> None:
        self._place.setCurrentNode(node)
        if node is not None:
            observe(self, node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._refill())
        self._refill()
        self.markupsNodeChanged()
        if node is not None and self.enterPlaceModeOnNodeChange:
            self._place.setPlaceModeEnabled(True)

    def _refill(self) -> None:
        node = self.currentNode()
        points = slicer.util.arrayFromMarkupsControlPoints(node) if node is not None else []
        self._table.rowCount = len(points)
        for row, point in enumerate(points):
            texts = [node.GetNthControlPointLabel(row), *(f"{value:.3f}" for value in point)]
            for column, text in enumerate(texts):
                self._table.setItem(row, column, QtWidgets.QTableWidgetItem(text))
        self.updateFinished()
