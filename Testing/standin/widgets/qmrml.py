"""qMRML's base widgets and the combo box of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from standin.pythonqt.base import InnerComboBox, Property, Widget, observe
from standin.pythonqt.signals import NodeSignal, Signal


class qSlicerWidget(Widget):
    """A widget that knows the scene."""

    mrmlSceneChanged = Signal("mrmlSceneChanged(vtkMRMLScene*)")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self._scene_set()
            self.mrmlSceneChanged(scene)

    def _scene_set(self) -> None:
        """Follow a new scene."""


class qMRMLWidget(qSlicerWidget):
    """A widget that knows the scene and tells which."""

    def mrmlScene(self) -> Any:
        return self._scene


class SceneWatch:
    """Calls back on what happens to the nodes of a scene, outside of its closing and importing."""

    def __init__(
        self, widget: Any, added: Callable[[Any], None], removed: Callable[[Any], None]
    ) -> None:
        self._widget = widget
        self._scene: Any = None
        self._tags: list[int] = []
        self._events = {  # with qMRMLSceneModel's priorities
            slicer.vtkMRMLScene.NodeAddedEvent: (added, 10.0),
            slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent: (removed, -10.0),
        }

    def watch(self, scene: Any, changed: Callable[[], None]) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is None:
            return
        for event, (callback, priority) in self._events.items():
            told = observe(self._widget, scene, event, _with_node(callback), priority)
            self._tags.append(told)
        for event in (scene.EndBatchProcessEvent, scene.EndCloseEvent, scene.EndImportEvent):
            self._tags.append(observe(self._widget, scene, event, lambda *_: changed()))


def _with_node(callback: Callable[[Any], None]) -> Any:
    def observer(_caller: Any, _event: str, node: Any) -> None:
        callback(node)

    observer.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return observer


class qMRMLNodeComboBox(Widget):
    """Offers the nodes of some types; the same rules as the real one for what is current.

    When the current node is removed, Qt makes the one before it current. A change is told when the
    text changes, as in Slicer 5.12 and newer: not between two nodes of one name, but when the
    current node gets another name.
    """

    currentNodeChanged = NodeSignal("currentNodeChanged(vtkMRMLNode*)", "currentNodeChanged(bool)")
    currentNodeIDChanged = Signal("currentNodeIDChanged(QString)")
    nodeActivated = Signal("nodeActivated(vtkMRMLNode*)")
    nodeAdded = Signal("nodeAdded(vtkMRMLNode*)")
    nodeAddedByUser = Signal("nodeAddedByUser(vtkMRMLNode*)")
    nodeAboutToBeRemoved = Signal("nodeAboutToBeRemoved(vtkMRMLNode*)")
    nodeTypes = Property((), lambda self: self._refill())
    showHidden = Property(False, lambda self: self._refill())
    showChildNodeTypes = Property(True, lambda self: self._refill())
    hideChildNodeTypes = Property((), lambda self: self._refill())
    noneEnabled = Property(False, lambda self: self._refill())
    noneDisplay = Property("None", lambda self: self._refill())
    addEnabled = Property(True)
    removeEnabled = Property(True)
    editEnabled = Property(False)
    renameEnabled = Property(False)
    selectNodeUponCreation = Property(True)
    baseName = Property("")
    interactionNodeSingletonTag = Property("")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(*([parent] if parent is not None else []))
        self._scene: Any = None
        self._node: Any = None
        self._told = ""
        self._filters: list[tuple[str, str, str | None]] = []
        self._name_tags: dict[str, tuple[Any, int]] = {}
        self._combo = InnerComboBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._combo.currentIndexChanged.connect(lambda _: self._index_changed())
        self._combo.activated.connect(lambda _: self.nodeActivated(self._node))
        self._watch = SceneWatch(self, self._node_added, self._node_removed)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self._watch.watch(scene, self._refill)
            self._refill()

    def mrmlScene(self) -> Any:
        return self._scene

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._filters.append((node_type, name, None if value is None else str(value)))
        self._refill()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._filters = [kept for kept in self._filters if kept[:2] != (node_type, name)]
        self._refill()

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int) -> Any:
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def currentNode(self) -> Any:
        return self._node

    @property
    def currentNodeID(self) -> str:
        return self._node.GetID() if self._node is not None else ""

    @currentNodeID.setter
    def currentNodeID(self, node_id: str) -> None:
        self.setCurrentNodeID(node_id)

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else node.GetID() if node else "")

    def setCurrentNodeID(self, node_id: str | None) -> None:
        index = self._combo.findData(node_id or "")
        if index >= 0:
            self._combo.setCurrentIndex(index)
        elif not node_id:
            self._combo.setCurrentIndex(-1)

    def setCurrentNodeIndex(self, index: int) -> None:
        node = self.nodeFromIndex(index)
        self.setCurrentNode(node)

    def addNode(self, node_type: str | None = None) -> Any:
        kind = node_type or self.nodeTypes[0]
        name = self._scene.GenerateUniqueName(self.baseName or kind.removeprefix("vtkMRML"))
        node = self._scene.AddNewNodeByClass(kind, name)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._node is not None:
            self._scene.RemoveNode(self._node)

    def _shown(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        fits = node.IsA if self.showChildNodeTypes else lambda kind: node.GetClassName() == kind
        if not any(fits(kind) for kind in self.nodeTypes):
            return False
        if any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        return all(self._passes(node, *each) for each in self._filters if node.IsA(each[0]))

    @staticmethod
    def _passes(node: Any, _kind: str, name: str, value: str | None) -> bool:
        found = node.GetAttribute(name)
        return found is not None and value in (None, found)

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        count = self._scene.GetNumberOfNodes()
        return [n for n in map(self._scene.GetNthNode, range(count)) if self._shown(n)]

    def _refill(self) -> None:
        """Show the nodes that are there now, and keep the current one if it is among them."""
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        nodes = self._nodes()
        blocker = QtCore.QSignalBlocker(self._combo)
        self._combo.clear()
        if self.noneEnabled:
            self._combo.addItem(self.noneDisplay, "")
        for node in nodes:
            self._combo.addItem(node.GetName() or "", node.GetID())
        self._watch_names(nodes)
        kept = self._combo.findData(self._node.GetID()) if self._node in nodes else -1
        default = 0 if self._combo.count() else -1
        self._combo.setCurrentIndex(kept if kept >= 0 else default)
        del blocker
        self._index_changed()

    def _watch_names(self, nodes: list[Any]) -> None:
        for node, tag in self._name_tags.values():
            node.RemoveObserver(tag)
        self._name_tags = {
            node.GetID(): (node, observe(self, node, vtk.vtkCommand.ModifiedEvent, self._renamed))
            for node in nodes
        }

    def _renamed(self, node: Any, _event: str) -> None:
        index = self._combo.findData(node.GetID())
        if index >= 0:
            self._combo.setItemText(index, node.GetName() or "")
            self._index_changed()

    def _index_changed(self, *_: int) -> None:
        node_id = self._combo.currentData()
        node = self._scene.GetNodeByID(node_id) if self._scene is not None and node_id else None
        self._node = node
        if self._combo.currentText() != self._told:
            self._told = self._combo.currentText()
            self.currentNodeChanged(node)
            self.currentNodeIDChanged(self.currentNodeID)

    def _node_added(self, node: Any) -> None:
        if node is not None and self._shown(node):
            self._refill()
            self.nodeAdded(node)

    def _node_removed(self, node: Any) -> None:
        index = -1 if node is None else self._combo.findData(node.GetID())
        if index >= 0:
            self.nodeAboutToBeRemoved(node)
            _, tag = self._name_tags.pop(node.GetID())
            node.RemoveObserver(tag)
            self._combo.removeItem(index)
            if self._node is None:
                self.setCurrentNode(None)


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Offers nodes of which any number is ticked."""

    checkedNodesChanged = Signal("checkedNodesChanged()")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._checked: set[str] = set()

    def checkedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self._nodes() if node.GetID() in self._checked)

    def uncheckedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self._nodes() if node.GetID() not in self._checked)

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node: Any) -> int:
        return 2 if node.GetID() in self._checked else 0

    def setCheckState(self, node: Any, state: int) -> None:
        change = self._checked.add if int(state) else self._checked.discard
        change(node.GetID())
        self.checkedNodesChanged()

    def check(self, node: Any) -> None:
        self.setCheckState(node, 2)

    def uncheck(self, node: Any) -> None:
        self.setCheckState(node, 0)
