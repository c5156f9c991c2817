"""slicer.app: the application object with its scene, its logics and its managers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .dicomdatabase import ctkDICOMDatabase
from .inputoutput import CoreIOManager
from .modules import ExtensionsManagerModel, ModuleManager
from .pythonqt.foreign import adopt
from .pythonqt.present import offer, present
from .pythonqt.qtdialogs import QSettings
from .pythonqt.signals import Signal
from .widgets.layout import qSlicerLayoutManager
from .widgets.views import register_managers

VERSION = (5, 13)
_MODULE_LOGICS = {
    "colors": slicer.vtkSlicerColorLogic,
    "units": slicer.vtkSlicerUnitsLogic,
    "volumes": slicer.vtkSlicerVolumesLogic,
    "models": slicer.vtkSlicerModelsLogic,
    "markups": slicer.vtkSlicerMarkupsLogic,
    "tables": slicer.vtkSlicerTablesLogic,
    "plots": slicer.vtkSlicerPlotsLogic,
    "texts": slicer.vtkSlicerTextsLogic,
    "transforms": slicer.vtkSlicerTransformLogic,
    "terminologies": slicer.vtkSlicerTerminologiesModuleLogic,
    "subjecthierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
    "segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
}
# The name under which the real application keeps a logic for its displayable managers.
_LOGIC_NAMES = {"subjecthierarchy": "SubjectHierarchy"}


class qSlicerApplication(present(QtWidgets.QApplication)):  # type: ignore[misc]
    """The application. `prepare` is not part of Slicer's: it makes the scene and the views."""

    startupCompleted = Signal("startupCompleted()")
    renderPaused = Signal("renderPaused(bool)")
    mrmlSceneChanged = Signal("mrmlSceneChanged(vtkMRMLScene*)")
    majorVersion, minorVersion = (property(lambda self, n=n: VERSION[n]) for n in (0, 1))
    revision = property(lambda self: "0")
    os = property(lambda self: {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux"))
    arch = property(lambda self: "amd64")
    documentationBaseUrl = property(lambda self: "https://slicer.readthedocs.io/")
    temporaryPath = property(lambda self: str(self._folder / "tmp"))
    cachePath = property(lambda self: str(self._folder / "cache"))
    slicerHome = property(lambda self: str(self._folder / "home"))
    isInstalled = property(lambda self: True)

    def prepare(self, folder: Path) -> None:
        """Make the scene, the module logics and the views; files go into a folder."""
        self._folder = folder
        for path in (self.temporaryPath, self.cachePath, self.slicerHome):
            Path(path).mkdir(parents=True, exist_ok=True)
        self._pauses, self._testing = 0, False
        self._scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self._scene
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetHomeDirectory(self.slicerHome)
        self._logic.SetShareDirectory(self.slicerHome)
        self._logic.SetTemporaryPath(self.temporaryPath)
        self._logic.SetMRMLScene(self._scene)
        self._scene.SetCacheManager(slicer.vtkCacheManager())
        self._scene.GetCacheManager().SetRemoteCacheDirectory(self.cachePath)
        self._scene.SetDataIOManager(slicer.vtkDataIOManager())  # reading .mrb asks it for a folder
        self._scene.GetDataIOManager().SetCacheManager(self._scene.GetCacheManager())
        # The wheel has no colour tables and no terminologies: their logics complain about that.
        vtk.vtkObject.GlobalWarningDisplayOff()
        self._modules = ModuleManager(self._make_logics())
        vtk.vtkObject.GlobalWarningDisplayOn()
        self._extensions = ExtensionsManagerModel()
        self._io = CoreIOManager(self._scene, self._logic)
        register_managers(self._logic)
        self._layout = qSlicerLayoutManager(self._logic)
        self._dicom = ctkDICOMDatabase()

    def _make_logics(self) -> dict[str, Any]:
        logics = {}
        for name, cls in _MODULE_LOGICS.items():
            logics[name] = cls()
            self._logic.SetModuleLogic(_LOGIC_NAMES.get(name, name.capitalize()), logics[name])
            logics[name].SetMRMLApplicationLogic(self._logic)
            logics[name].SetMRMLScene(self._scene)
        return logics

    def standin_take_down(self) -> None:
        """Forget the views, the logics and the scene (not part of Slicer's application)."""
        self._layout.standin_take_down()
        self._scene.Clear(1)
        slicer.mrmlScene = slicer.modules = None
        self._layout = self._modules = self._io = self._logic = self._scene = None

    def processEvents(self, *arguments: Any) -> None:
        QtCore.QCoreApplication.processEvents(*arguments)
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.DeferredDelete)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def layoutManager(self) -> Any:
        return self._layout

    def moduleManager(self) -> Any:
        return self._modules

    def moduleLogic(self, name: str) -> Any:
        return self._modules.module(name).logic()

    def extensionsManagerModel(self) -> Any:
        return self._extensions

    def coreIOManager(self) -> Any:
        return self._io

    ioManager = coreIOManager

    def dicomDatabase(self) -> Any:
        return self._dicom

    def settings(self) -> Any:
        return QSettings()

    userSettings = settings

    def testingEnabled(self) -> bool:
        return self._testing

    def commandOptions(self) -> Any:
        return SimpleNamespace(testingEnabled=self._testing, noMainWindow=False)

    def topLevelWidgets(self) -> Any:
        return adopt(QtWidgets.QApplication.topLevelWidgets())

    def pauseRender(self) -> None:
        self._pauses += 1
        self.renderPaused(True)

    def resumeRender(self) -> None:
        self._pauses -= 1
        if self._pauses == 0:
            self._layout.standin_redraw()
        self.renderPaused(self._pauses > 0)

    def setRenderPaused(self, paused: bool) -> None:
        (self.pauseRender if paused else self.resumeRender)()

    def render_paused(self) -> bool:
        """Tell the views whether to wait (not part of Slicer's application)."""
        return self._pauses > 0

    def openNodeModule(self, node: Any, role: str = "", context: str = "") -> None:
        self._modules.opened_nodes.append(node)

    def openExtensionsManagerDialog(self) -> None:
        self._extensions.dialog_opened += 1

    def restart(self) -> None:
        raise SystemExit("the application was asked to restart")


offer(qSlicerApplication)
