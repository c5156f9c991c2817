"""Settings: those of the scene, of another version, and of the presets."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import slicer
from harness import LEFT_OUT, press_all

from standin.harness import click

UNUSABLE = {
    "samModel": "vit_x", "preset": "", "rounds": "many", "seed": "-1", "acceptedPercent": "nan",
    "reliabilityThreshold": "1e999", "inputSize": "511", "baseline": "yes", "method": "nnunet",
}  # fmt: skip


def test_settings_of_the_scene_that_cannot_be_used_are_told_and_the_usual_ones_count(
    panel: Any, dialogs: Any, tmp_path: Path
) -> None:
    node = panel.parameters.parameterNode
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "no segmentation")
    slicer.util.selectModule("Data")
    for name, text in UNUSABLE.items():
        node.SetParameter(name, text)
    node.SetNodeReferenceID("labelSegmentation", model.GetID())
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(0)
    slicer.util.selectModule("ASLseg")
    slicer.util.loadScene(str(path))
    slicer.app.processEvents()
    told = dialogs.take("settings that this version cannot use").text
    assert all(name in told for name in (*UNUSABLE, "labelSegmentation"))
    assert "projectFolder" not in told
    assert panel.parameters.labelSegmentation is None
    assert (panel.ui.samBox.currentText, panel.parameters.samModel) == ("MobileSAM (fast)", "vit_t")
    press_all(panel, LEFT_OUT)


@pytest.mark.parametrize("removes", [True, False], ids=["since 5.12", "5.10"])
def test_leaving_the_module_lets_the_parameters_go_with_all_that_they_observe(
    panel: Any, monkeypatch: pytest.MonkeyPatch, removes: bool
) -> None:
    if not removes:  # what disconnectGui of Slicer 5.10 leaves out
        monkeypatch.setattr(type(panel.parameters), "RemoveObserver", lambda *_: None)
    before = weakref.ref(panel.parameters)
    slicer.util.selectModule("Data")
    gc.collect()
    assert before() is None


def test_settings_that_can_be_used_are_left_alone(panel: Any) -> None:
    from ASLsegLib.parameters import discard_unusable

    panel.parameters.rounds, panel.parameters.acceptedPercent = 20, 100.0
    assert discard_unusable(panel.parameters.parameterNode) == []
    assert (panel.parameters.rounds, panel.parameters.acceptedPercent) == (20, 100.0)


def test_the_phantom_project_is_trained_by_the_preset_that_is_shown(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.engine.settings import config_of
    from aslseg.presets import read_preset
    from ASLsegLib.parameters import settings_changes

    monkeypatch.setattr(
        panel.logic, "create_phantom_project", SimpleNamespace(begin=lambda *_: None)
    )
    panel.ui.presetBox.currentText = "Standard"
    panel.ui.presetBox.activated(panel.ui.presetBox.currentIndex)
    click(panel.ui.demoButton)
    assert panel.ui.presetBox.currentText == "Demo"
    sent = config_of(
        {"preset": panel.parameters.preset, "overrides": settings_changes(panel.parameters)}
    )
    preset = read_preset("demo")
    for name in ("rounds", "paradigm", "baseline"):
        assert getattr(sent, name) == getattr(preset, name)
    assert (sent.sam, sent.reliability) == (preset.sam, preset.reliability)
    assert panel.ui.inputSizeBox.currentText == str(preset.sam.input_size)


def test_at_first_the_settings_are_those_of_the_preset_that_is_shown(panel: Any) -> None:
    from aslseg.engine.settings import config_of
    from aslseg.presets import read_preset
    from ASLsegLib.parameters import settings_changes

    changes = settings_changes(panel.parameters)
    sent = config_of({"preset": panel.parameters.preset, "overrides": changes})
    preset = read_preset(panel.parameters.preset)
    left = sent.model_dump(exclude={"device", "patience", "method", "seed"})
    assert left == preset.model_dump(exclude={"device", "patience", "method", "seed"})


def test_a_method_that_builds_upon_a_teacher_has_one(panel: Any) -> None:
    from ASLsegLib.parameters import METHODS, PRESETS

    ui = panel.ui
    for box, index in (
        (ui.methodBox, METHODS.index("semisam")),
        (ui.presetBox, PRESETS.index("quick")),
    ):
        box.setCurrentIndex(index)
        box.activated(index)
        assert panel.parameters.paradigm == "mean_teacher"
    panel.parameters.paradigm = "uncertainty_aware"
    ui.methodBox.activated(ui.methodBox.currentIndex)
    assert panel.parameters.paradigm == "uncertainty_aware"
