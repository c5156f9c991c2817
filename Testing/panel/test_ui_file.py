"""The panel file names parameters that exist, explains each control, and offers what there is."""

from __future__ import annotations

import re
import sys
import typing
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UI = ET.parse(ROOT / "Resources" / "UI" / "ASLseg.ui")
LESIONS = ET.parse(ROOT / "Resources" / "UI" / "Lesions.ui")
CONTROLS = (
    "QPushButton", "QToolButton", "QCheckBox", "QComboBox", "QSpinBox", "QProgressBar",
    "QTableWidget", "QPlainTextEdit", "ctkSliderWidget", "ctkPathLineEdit", "ctkCollapsibleButton",
    "qMRMLNodeComboBox",
)  # fmt: skip


@pytest.fixture
def parameters(scene: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "SlicerASLseg"))
    from ASLsegLib import parameters

    yield parameters
    for name in [n for n in sys.modules if n.split(".")[0] == "ASLsegLib"]:
        del sys.modules[name]


def controls() -> list[tuple[str, ET.Element]]:
    found = [w for ui in (UI, LESIONS) for w in ui.iter("widget") if w.get("class") in CONTROLS]
    return [(str(widget.get("name")), widget) for widget in found]


def text_of(widget: ET.Element, name: str) -> str:
    for entry in widget.findall("property"):
        if entry.get("name") == name:
            return "".join(entry.itertext()).strip()
    return ""


def test_each_bound_widget_names_a_parameter(parameters: Any, scene: Any) -> None:
    node = parameters.ASLsegParameterNode(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    known = node.allParameters
    bound = {text_of(w, "SlicerParameterName") for w in UI.iter("widget")} - {""}
    assert len(bound) >= 20
    assert bound <= set(known)


@pytest.mark.parametrize(("name", "widget"), controls(), ids=[name for name, _ in controls()])
def test_every_control_explains_itself(name: str, widget: ET.Element) -> None:
    tip = text_of(widget, "toolTip")
    assert tip.endswith("."), f"{name} has the tooltip '{tip}'"


def test_a_line_that_wraps_has_the_whole_width_of_its_form() -> None:
    """Beside a label it gets its preferred width, and wraps where there is room."""
    forms = [form for form in UI.iter("layout") if form.get("class") == "QFormLayout"]
    items = [item for form in forms for item in form.findall("item")]
    lines = [(w, item) for item in items if (w := item.find("widget")) is not None]
    wrapping = {w.get("name"): item for w, item in lines if text_of(w, "wordWrap") == "true"}
    assert {"presetLabel", "samLabel", "methodLabel"} <= set(wrapping)
    assert {name for name, item in wrapping.items() if item.get("colspan") != "2"} == set()


def test_the_choices_are_those_of_the_library(parameters: Any) -> None:
    from aslseg.config import RunConfig, SamConfig
    from aslseg.presets import PRESETS

    def choices(model: Any, name: str) -> list[str]:
        return [str(value) for value in typing.get_args(model.model_fields[name].annotation)]

    assert set(parameters.PRESETS) <= set(PRESETS)
    assert sorted(parameters.SAM_MODELS) == sorted(choices(SamConfig, "model"))
    assert sorted(parameters.TUNINGS) == sorted(choices(SamConfig, "tuning"))
    assert sorted(parameters.INPUT_SIZES) == sorted(choices(SamConfig, "input_size"))
    assert sorted(parameters.PARADIGMS) == sorted(choices(RunConfig, "paradigm"))
    assert sorted(parameters.DEVICES) == sorted(choices(RunConfig, "device"))


def test_the_methods_are_those_of_the_registry(parameters: Any) -> None:
    registry = (ROOT / "Logic" / "aslseg" / "methods" / "__init__.py").read_text(encoding="utf-8")
    assert sorted(re.findall(r'"(\w+)": \w+.run_round', registry)) == sorted(parameters.METHODS)


def test_the_settings_that_the_panel_sends_are_settings(parameters: Any, scene: Any) -> None:
    from aslseg.engine.settings import config_of

    node = parameters.ASLsegParameterNode(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    node.rounds, node.samModel, node.reliabilityThreshold = 4, "none", 0.7
    config = config_of({"preset": "quick", "overrides": parameters.settings_changes(node)})
    assert (config.rounds, config.sam.model) == (4, "none")
    assert config.reliability.min_score == 0.7
    assert config.organ.iterations == config_of("quick").organ.iterations


def test_a_preset_sets_the_panels_choices(parameters: Any, scene: Any) -> None:
    node = parameters.ASLsegParameterNode(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    node.preset = "standard"
    parameters.apply_preset(node)
    assert (node.rounds, node.samModel, node.inputSize, node.tuning) == (3, "vit_b", "1024", "lora")
