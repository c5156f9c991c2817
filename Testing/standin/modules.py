"""slicer.modules, the module manager, and the model of the installed extensions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from .pythonqt.base import Property, StandinWidget, mark_offered
from .pythonqt.present import present
from .pythonqt.signals import Signal
from .widgets.qmrml import qSlicerWidget

_Object = present(QtCore.QObject)


class ModuleNamespace:
    """slicer.modules: modules by lower-case name, and the widgets of the scripted ones."""


class LoadableModule:
    """A module of C++ of which the stand-in has the logic."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self._logic = name, logic

    def logic(self) -> Any:
        return self._logic


class qSlicerScriptedLoadableModule(_Object):  # type: ignore[misc,valid-type]
    """A module written in Python: the object that its class gets as `parent`."""

    _TEXTS = ("title", "helpText", "acknowledgementText", "path", "name")
    _LISTS = ("categories", "contributors", "dependencies", "associatedNodeTypes")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._representation: Any = None
        self.path, self.name = str(path), path.stem

    title, helpText, acknowledgementText, path, name = (Property("") for _ in range(5))
    categories, contributors, dependencies = (Property(()) for _ in range(3))
    associatedNodeTypes = Property(())
    hidden, widgetRepresentationCreationEnabled = Property(False), Property(True)
    index = Property(-1)
    icon = Property(None)

    def widgetRepresentation(self) -> Any:
        if self._representation is None:
            self._representation = qSlicerScriptedLoadableModuleWidget(self)
            self._representation.standin_setup()
        return self._representation


mark_offered(qSlicerScriptedLoadableModule)


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """What holds the widget of a scripted module: the `parent` of the Python class."""

    moduleName = Property("")
    isEntered = Property(False)

    def __init__(self, module: qSlicerScriptedLoadableModule) -> None:
        super().__init__()
        self._module, self._self = module, None
        self.moduleName = module.name
        column = present(QtWidgets.QVBoxLayout)(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.setMRMLScene(slicer.mrmlScene)

    def standin_setup(self) -> None:
        """Make the Python object of the module's widget, and set it up, as Slicer does."""
        code = sys.modules[self._module.name]
        self._self = getattr(code, f"{self._module.name}Widget")(self)
        setattr(slicer.modules, f"{self._module.name}Widget", self._self)
        self._self.setup()

    def self(self) -> Any:
        return self._self

    def reload(self) -> None:
        self.standin_setup()

    def enter(self) -> None:
        self.isEntered = True
        if hasattr(self._self, "enter"):
            self._self.enter()

    def exit(self) -> None:
        if self.isEntered:
            self.isEntered = False
            if hasattr(self._self, "exit"):
                self._self.exit()

    def showEvent(self, event: Any) -> None:
        """The application calls enter() when it shows a module; here open_module() does."""


class ModuleManager(StandinWidget, _Object):  # type: ignore[misc,valid-type]
    """The loaded modules."""

    moduleLoaded = Signal("moduleLoaded(QString)")
    moduleAboutToBeUnloaded = Signal("moduleAboutToBeUnloaded(QString)")

    def __init__(self, logics: dict[str, Any]) -> None:
        super().__init__()
        self._modules: dict[str, Any] = {}
        self._opened_nodes: list[Any] = []
        slicer.modules = ModuleNamespace()
        for name, logic in logics.items():
            self.add(name, LoadableModule(name, logic))

    def add(self, name: str, module: Any) -> None:
        """Let a module be found by its name (not part of Slicer's API)."""
        self._modules[name.lower()] = module
        setattr(slicer.modules, name.lower(), module)

    def module(self, name: str) -> Any:
        return self._modules.get(name.lower())

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in self._modules.values())

    def load_scripted(self, path: Path) -> qSlicerScriptedLoadableModule:
        """Import a module's file afresh and make its module object (not part of Slicer's API)."""
        self.unload(path.stem)
        folder = str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        code = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = code
        spec.loader.exec_module(code)
        module = qSlicerScriptedLoadableModule(path)
        code_object = getattr(code, path.stem)(module)
        module._python = code_object
        setattr(slicer.modules, f"{path.stem}Instance", code_object)
        self.add(path.stem, module)
        self.moduleLoaded(path.stem)
        return module

    def unload(self, name: str) -> None:
        """Take a scripted module away, as at the end of the application."""
        if isinstance(self.module(name), qSlicerScriptedLoadableModule):
            self.moduleAboutToBeUnloaded(name)
            del self._modules[name.lower()]
            for left in (name.lower(), f"{name}Widget", f"{name}Instance"):
                if hasattr(slicer.modules, left):
                    delattr(slicer.modules, left)
            sys.modules.pop(name, None)


mark_offered(ModuleManager)


class ExtensionsManagerModel:
    """The installed extensions: none but those that a test names in `installed`."""

    def __init__(self) -> None:
        self.installed: set[str] = set()
        self.asked_for: list[str] = []

    def isExtensionInstalled(self, name: str) -> bool:
        return name in self.installed

    def installExtensionFromServer(self, name: str, *_: Any) -> bool:
        self.asked_for.append(name)
        return False
