"""A scripted module is opened, left, reloaded and closed as Slicer does it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer

from standin.harness import close_module, open_module, reload_module

SOURCE = """
    import slicer
    from slicer.ScriptedLoadableModule import (
        ScriptedLoadableModule, ScriptedLoadableModuleLogic, ScriptedLoadableModuleWidget
    )
    from slicer.util import VTKObservationMixin

    calls = []


    class Probe(ScriptedLoadableModule):
        def __init__(self, parent):
            super().__init__(parent)
            self.parent.title = "Probe of the stand-in"
            self.parent.categories = ["Testing"]
            slicer.app.connect("startupCompleted()", lambda: calls.append("started"))


    class ProbeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
        def __init__(self, parent=None):
            ScriptedLoadableModuleWidget.__init__(self, parent)
            VTKObservationMixin.__init__(self)

        def setup(self):
            super().setup()
            import qt

            self.logic = ProbeLogic()
            self.button = qt.QPushButton("Go")
            self.layout.addWidget(self.button)
            scene = slicer.mrmlScene
            self.addObserver(scene, scene.EndCloseEvent, self.on_closed)
            calls.append("setup")

        def on_closed(self, caller, event):
            calls.append("closed")

        def enter(self):
            calls.append("enter")

        def exit(self):
            calls.append("exit")

        def cleanup(self):
            self.removeObservers()
            calls.append("cleanup")


    class ProbeLogic(ScriptedLoadableModuleLogic):
        pass
"""


@pytest.fixture
def module(scene: Any, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "Probe.py"
    path.write_text(textwrap.dedent(SOURCE))
    yield path
    close_module("Probe")


def _calls() -> list[str]:
    import sys

    return sys.modules["Probe"].calls  # type: ignore[no-any-return]


def test_opening_imports_sets_up_and_enters(module: Path) -> None:
    widget = open_module(module)
    assert _calls() == ["started", "setup", "enter"]
    assert slicer.modules.probe.title == "Probe of the stand-in"
    assert slicer.modules.ProbeWidget is widget
    assert widget.parent.isEntered
    assert slicer.util.getModuleLogic("Probe") is widget.logic


def test_another_module_is_entered_when_one_is_left(module: Path) -> None:
    widget = open_module(module)
    slicer.util.selectModule("Volumes")
    assert _calls()[-1] == "exit"
    assert not widget.parent.isEntered
    slicer.util.selectModule("Probe")
    assert _calls()[-1] == "enter"


def test_closing_the_scene_reaches_its_observers(module: Path, scene: Any) -> None:
    open_module(module)
    scene.Clear(0)
    assert _calls()[-1] == "closed"


def test_reloading_cleans_up_and_makes_a_new_widget(module: Path) -> None:
    before = open_module(module)
    calls = _calls()
    after = reload_module("Probe")
    assert calls[-1] == "cleanup"
    assert after is not before
    assert slicer.modules.ProbeWidget is after
    assert _calls() == ["setup"]
    assert after.parent.isEntered
    assert after.layout.count() == 1


def test_closing_leaves_no_trace(module: Path) -> None:
    open_module(module)
    calls = _calls()
    close_module("Probe")
    assert calls[-2:] == ["exit", "cleanup"]
    assert not hasattr(slicer.modules, "probe")


def test_the_parameter_node_is_one_per_module_and_lives_in_the_scene(module: Path) -> None:
    logic = open_module(module).logic
    node = logic.getParameterNode()
    assert logic.getParameterNode() is node
    assert (node.GetAttribute("ModuleName"), node.GetModuleName()) == ("Probe", None)
    nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    assert [one for one in nodes if one.GetAttribute("ModuleName") == "Probe"] == [node]
    assert logic.getAllParameterNodes() == [node]


def test_the_parameter_node_gets_its_attribute_back_after_a_closed_scene(
    module: Path, scene: Any
) -> None:
    logic = open_module(module).logic
    logic.getParameterNode()
    scene.Clear(0)
    assert logic.getParameterNode().GetAttribute("ModuleName") == "Probe"


def test_a_new_parameter_node_is_not_in_the_scene_until_it_is_added(module: Path) -> None:
    logic = open_module(module).logic
    assert logic.createParameterNode().GetScene() is None


def test_a_module_without_a_test_class_says_so(module: Path) -> None:
    open_module(module)
    with pytest.raises(AssertionError, match="Test case class not found"):
        slicer.selfTests["Probe"]()
