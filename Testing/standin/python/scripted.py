"""slicer.ScriptedLoadableModule: the four base classes of a scripted module."""

from __future__ import annotations

import logging
import sys
import unittest
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtWidgets

from standin.pythonqt.present import present


def _resource(path: str, name: str) -> str:
    return str(Path(path).parent / "Resources" / name)


def _run_test(moduleName: str, **keywords: Any) -> None:
    delay = slicer.app.userSettings().value("Developer/SelfTestDisplayMessageDelay", 100)
    slicer.selfTests[moduleName](msec=int(delay), **keywords)


class ScriptedLoadableModule:
    """What the module's file tells about itself."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = ""
        parent.categories, parent.dependencies = (), ()
        parent.contributors = ("Somebody of the template",)
        parent.helpText = "The help of the template."
        parent.acknowledgementText = "The acknowledgement of the template."
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        return _resource(self.parent.path, filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return (
            f'<p>For more information see the <a href="{docPage or self.moduleName}">page</a>.</p>'
        )

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        found = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test", None)
        if found is None:
            raise AssertionError(f"Test case class not found: {self.moduleName}Test")
        case = found()
        case.messageDelay = msec
        case.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The module's widget: `parent` and `layout` are there, `setup` fills them."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue(
            "Developer/DeveloperMode", False, converter=slicer.util.toBool
        )
        if parent is None:
            self.parent = present(QtWidgets.QWidget)()
            self.parent.setLayout(present(QtWidgets.QVBoxLayout)())
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        slicer.app.moduleManager().connect(
            "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
        )

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
            )

    def resourcePath(self, filename: str) -> str:
        return _resource(slicer.util.modulePath(self.moduleName), filename)

    def setup(self) -> None:
        self.setupDeveloperSection()

    def setupDeveloperSection(self) -> None:
        if not self.developerMode:
            return
        import ctk
        import qt

        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        row = qt.QHBoxLayout(self.reloadCollapsibleButton)
        for text, slot in (("Reload", self.onReload), ("Reload and Test", self.onReloadAndTest)):
            button = qt.QPushButton(text)
            button.connect("clicked()", slot)
            row.addWidget(button)

    def cleanup(self) -> None:
        """Overridden by modules that have something to undo."""

    def onReload(self) -> None:
        logging.info("Reloading %s", self.moduleName)
        slicer.util.reloadScriptedModule(self.moduleName)

    def onReloadAndTest(self, **kwargs: Any) -> None:
        with slicer.util.tryWithErrorDisplay("Reload and Test failed."):
            self.onReload()
            _run_test(self.moduleName, **kwargs)

    def onTest(self, **kwargs: Any) -> None:
        with slicer.util.tryWithErrorDisplay("Test failed."):
            _run_test(self.moduleName, **kwargs)


class ScriptedLoadableModuleLogic:
    """The module's logic, with one parameter node per module."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        if not self.isSingletonParameterNode:
            nodes = self.getAllParameterNodes()
            return nodes[0] if nodes else slicer.mrmlScene.AddNode(self.createParameterNode())
        found = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if found is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        if found.GetAttribute("ModuleName") != self.moduleName:  # closing the scene takes it away
            found.SetAttribute("ModuleName", self.moduleName)
        return found

    def getAllParameterNodes(self) -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's own test, as it runs inside Slicer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enableScreenshots, self.screenshotScaleFactor = False, 1.0
        self.moduleTestNames = [n for n in dir(self) if "test" in n and callable(getattr(self, n))]

    def delayDisplay(
        self, message: str, requestedDelay: int | None = None, msec: int | None = None
    ) -> None:
        logging.info(message)
        slicer.app.processEvents()

    def runTest(self) -> None:
        self.setUpClass()
        for name in self.moduleTestNames:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()
