"""The widgets about segmentations: the editor, the table of segments, the 3D button."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from standin.pythonqt.base import Property, observe, setter
from standin.pythonqt.present import present
from standin.pythonqt.signals import Signal

from .ctkmodule import ctkMenuButton
from .qmrml import qMRMLNodeComboBox, qMRMLWidget

STATUS_NAMES = ("Not started", "In progress", "Completed", "Flagged")


class qMRMLSegmentsTableView(qMRMLWidget):
    """The segments of a segmentation: colour, name and status."""

    selectionChanged = Signal("selectionChanged(QItemSelection,QItemSelection)")
    segmentAboutToBeModified = Signal("segmentAboutToBeModified(QString)")
    selectionMode = Property(3)
    headerVisible, visibilityColumnVisible = Property(True), Property(True)
    colorColumnVisible, opacityColumnVisible = Property(True), Property(True)
    statusColumnVisible, layerColumnVisible = Property(False), Property(False)
    readOnly, filterBarVisible = Property(False), Property(False)
    textFilter = Property("", lambda self: self._refill())
    setReadOnly, setFilterBarVisible = setter("readOnly"), setter("filterBarVisible")
    setTextFilter, setSelectionMode = setter("textFilter"), setter("selectionMode")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._node: Any = None
        self._hidden: tuple[str, ...] = ()
        self._table = present(QtWidgets.QTableWidget)(0, 2)
        QtWidgets.QVBoxLayout(self).addWidget(self._table)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged(None, None))

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        if node is not None:
            kinds = slicer.vtkSegmentation
            for event in (kinds.SegmentAdded, kinds.SegmentRemoved, kinds.SegmentModified):
                observe(self, node.GetSegmentation(), event, lambda *_: self._refill())
        self._refill()

    def segmentationNode(self) -> Any:
        return self._node

    def tableWidget(self) -> Any:
        return self._table

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        if self._node is None:
            return ()
        ids = self._node.GetSegmentation().GetSegmentIDs()
        wanted = self.textFilter.lower()
        return tuple(i for i in ids if i not in self._hidden and wanted in self._name(i).lower())

    def _name(self, segment_id: str) -> str:
        return str(self._node.GetSegmentation().GetSegment(segment_id).GetName())

    def _refill(self) -> None:
        ids = self.displayedSegmentIDs()
        self._table.rowCount = len(ids)
        for row, segment_id in enumerate(ids):
            segment = self._node.GetSegmentation().GetSegment(segment_id)
            status = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(segment)
            for column, text in enumerate((segment.GetName(), STATUS_NAMES[status])):
                self._table.setItem(row, column, QtWidgets.QTableWidgetItem(text))

    def setHideSegments(self, ids: Any) -> None:
        self._hidden = tuple(ids)
        self._refill()

    def hideSegments(self) -> tuple[str, ...]:
        return self._hidden

    def segmentIDForRow(self, row: int) -> str:
        return self.displayedSegmentIDs()[row]

    def rowForSegmentID(self, segment_id: str) -> int:
        ids = self.displayedSegmentIDs()
        return ids.index(segment_id) if segment_id in ids else -1

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        rows = {index.row() for index in self._table.selectedIndexes()}
        return tuple(self.segmentIDForRow(row) for row in sorted(rows))

    def setSelectedSegmentIDs(self, ids: Any) -> None:
        self._table.clearSelection()
        for segment_id in ids:
            self._table.selectRow(self.rowForSegmentID(segment_id))

    def clearSelection(self) -> None:
        self._table.clearSelection()


class qMRMLSegmentationShow3DButton(ctkMenuButton):
    """Shows or hides the surfaces of a segmentation."""

    locked = Property(False)
    setLocked = setter("locked")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._node: Any = None
        self.setCheckable(True)
        self.text = "Show 3D"
        self.toggled.connect(self._show)

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node

    def segmentationNode(self) -> Any:
        return self._node

    def _show(self, shown: bool) -> None:
        if self._node is not None:
            change = (
                "CreateClosedSurfaceRepresentation"
                if shown
                else "RemoveClosedSurfaceRepresentation"
            )
            getattr(self._node, change)()


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The Segment Editor, as far as choosing what is edited goes; it has no effects."""

    currentSegmentIDChanged = Signal("currentSegmentIDChanged(QString)")
    segmentationNodeChanged = Signal("segmentationNodeChanged(vtkMRMLSegmentationNode*)")
    sourceVolumeNodeChanged = Signal("sourceVolumeNodeChanged(vtkMRMLVolumeNode*)")
    segmentationNodeSelectorVisible, sourceVolumeNodeSelectorVisible = (
        Property(True),
        Property(True),
    )
    maskingSectionVisible, specifyGeometryButtonVisible = Property(True), Property(True)
    show3DButtonVisible, addRemoveSegmentButtonsVisible = Property(True), Property(True)
    switchToSegmentationsButtonVisible, undoEnabled = Property(True), Property(True)
    unorderedEffectsVisible, autoShowSourceVolumeNode = Property(True), Property(True)
    jumpToSelectedSegmentEnabled, readOnly = Property(False), Property(False)
    maximumNumberOfUndoStates, effectColumnCount = Property(10), Property(2)
    defaultTerminologyEntrySettingsKey = Property("")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._node: Any = None
        self._segmentations, self._volumes = qMRMLNodeComboBox(), qMRMLNodeComboBox()
        self._segmentations.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._volumes.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self._table = qMRMLSegmentsTableView()
        form = QtWidgets.QFormLayout(self)
        form.addRow("Segmentation:", self._segmentations)
        form.addRow("Source volume:", self._volumes)
        form.addRow(self._table)
        for combo in (self._segmentations, self._volumes):
            combo.noneEnabled = True
        self._segmentations.connect("currentNodeChanged(vtkMRMLNode*)", self._segmentation_chosen)
        self._volumes.connect("currentNodeChanged(vtkMRMLNode*)", self._volume_chosen)

    def _scene_set(self) -> None:
        for widget in (self._segmentations, self._volumes, self._table):
            widget.setMRMLScene(self._scene)

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node
        observe(self, node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._follow_node())
        self._follow_node()

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def _follow_node(self) -> None:
        self._segmentations.setCurrentNode(self._node.GetSegmentationNode())
        self._volumes.setCurrentNode(self._node.GetSourceVolumeNode())

    def setSegmentationNode(self, node: Any) -> None:
        self._segmentations.setCurrentNode(node)

    def segmentationNode(self) -> Any:
        return self._segmentations.currentNode()

    def setSourceVolumeNode(self, node: Any) -> None:
        self._volumes.setCurrentNode(node)

    def sourceVolumeNode(self) -> Any:
        return self._volumes.currentNode()

    def _segmentation_chosen(self, node: Any) -> None:
        self._table.setSegmentationNode(node)
        if self._node is not None:
            self._node.SetAndObserveSegmentationNode(node)
        self.segmentationNodeChanged(node)
        ids = self._table.displayedSegmentIDs()
        self.setCurrentSegmentID(ids[0] if ids else "")

    def _volume_chosen(self, node: Any) -> None:
        if self._node is not None:
            self._node.SetAndObserveSourceVolumeNode(node)
        self.sourceVolumeNodeChanged(node)

    def currentSegmentID(self) -> str:
        return str(self.__dict__.get("_segment_id", ""))

    def setCurrentSegmentID(self, segment_id: str) -> None:
        if segment_id != self.currentSegmentID():
            self.__dict__["_segment_id"] = segment_id
            if self._node is not None:
                self._node.SetSelectedSegmentID(segment_id)
            self.currentSegmentIDChanged(segment_id)

    def availableEffectNames(self) -> tuple[str, ...]:
        return ()

    def activeEffect(self) -> None:
        return None

    def setActiveEffectByName(self, name: str) -> None:
        """Nothing is to be chosen: the effects of the editor are not part of the stand-in."""

    def setupViewObservations(self) -> None:
        """The effects would watch the views."""

    removeViewObservations = installKeyboardShortcuts = uninstallKeyboardShortcuts = (
        setupViewObservations
    )
