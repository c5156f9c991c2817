"""The main window, its module selector, and the modules of Slicer that a panel may open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import slicer
from PySide6 import QtWidgets

from .modules import qSlicerScriptedLoadableModule
from .pythonqt.base import StandinWidget, Widget
from .pythonqt.present import present
from .widgets.segmentwidgets import qMRMLSegmentEditorWidget

BUILT_IN = ("Data", "DICOM", "SegmentEditor", "Segmentations", "Volumes", "Markups", "SampleData")


class qSlicerModuleSelectorToolBar(StandinWidget, present(QtWidgets.QToolBar)):  # type: ignore[misc]
    """Chooses the module that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self._selected = ""

    @property
    def selectedModule(self) -> str:
        return self._selected

    def selectModule(self, name: str) -> None:
        if slicer.app.moduleManager().module(name) is None:
            raise ValueError(f"there is no module {name}")
        if name != self._selected:
            for module, step in ((self._selected, "exit"), (name, "enter")):
                found = slicer.app.moduleManager().module(module) if module else None
                if isinstance(found, qSlicerScriptedLoadableModule):
                    getattr(found.widgetRepresentation(), step)()
            self._selected = name


class qSlicerMainWindow(StandinWidget, present(QtWidgets.QMainWindow)):  # type: ignore[misc]
    """The main window. It is found by its name, as slicer.util.mainWindow() does."""

    def __init__(self) -> None:
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self.statusBar()
        self._selector = qSlicerModuleSelectorToolBar()
        self.addToolBar(self._selector)
        for name in BUILT_IN:
            if slicer.app.moduleManager().module(name) is None:
                slicer.app.moduleManager().add(name, BuiltInModule(name))
        slicer.app.moduleManager().add("SegmentEditor", SegmentEditorModule())

    def moduleSelector(self) -> Any:
        return self._selector


class BuiltInModule:
    """A module that can be opened, of which the stand-in has nothing else."""

    def __init__(self, name: str) -> None:
        self.name = name


class SegmentEditorModule:
    """Segment Editor: its Python object has the editor's widget."""

    def __init__(self) -> None:
        self.name = "SegmentEditor"
        self._representation: Any = None

    def widgetRepresentation(self) -> Any:
        if self._representation is None:
            self._representation = SegmentEditorRepresentation()
        return self._representation


class SegmentEditorRepresentation(Widget):
    """What holds the Segment Editor's widget."""

    def __init__(self) -> None:
        super().__init__()
        editor = qMRMLSegmentEditorWidget(self)
        editor.setMRMLScene(slicer.mrmlScene)
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag("SegmentEditor")
        editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNode(node))
        self._self = SimpleNamespace(editor=editor)

    def self(self) -> Any:
        return self._self
