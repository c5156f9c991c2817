"""The panel in every state: empty scenes, typed paths, colour pictures, failing installers."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import sys
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from harness import close_project, press_all, reload_module
from test_bare import make_project
from trained import UNLABELLED

from aslseg.data.volume import Geometry, Volume
from aslseg.errors import AslsegError
from standin.harness import click, run_event_loop, wait_until

LEFT_OUT = ("demoButton", "downloadButton", "startButton")  # a long wait, the network


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    return open_module().panel


@pytest.fixture
def ct(panel: Any) -> Any:
    """A small volume in the scene."""
    from ASLsegLib.scene.volumes import add_volume

    geometry = Geometry((4, 20, 20), np.diag([-2.0, -2.0, 4.0, 1.0]))
    node = add_volume(Volume(np.zeros(geometry.shape, np.int16), geometry), "ct")
    slicer.app.processEvents()
    return node


@pytest.fixture
def photo(panel: Any) -> Any:
    """A colour picture in the scene: in MRML it derives from a scalar volume."""
    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    node.SetAndObserveImageData(image)
    slicer.app.processEvents()
    return node


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path / "project")
    return tmp_path / "project"


# -- everything that is enabled --------------------------------------------------------------------


def test_every_enabled_button_can_be_pressed_without_anything(panel: Any) -> None:
    pressed = press_all(panel, LEFT_OUT)
    assert {"addDicomButton", "presetBox", "deviceBox", "methodBox"} <= set(pressed)


def test_every_enabled_button_can_be_pressed_with_a_project_and_in_an_empty_scene_after(
    panel: Any, ct: Any, project: Path, dialogs: Any
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    panel.ui.casesTable.selectRow(0)
    left_out = (*LEFT_OUT, "addVolumeButton")  # would add a case twice, which is refused in words
    with_project = press_all(panel, left_out)
    assert {"loadCaseButton", "splitBox", "addBoxButton", "addCasesButton"} <= set(with_project)
    wait_until(lambda: not panel.logic.background.is_busy)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    press_all(panel, left_out)
    wait_until(lambda: not panel.logic.background.is_busy)
    close_project(panel.logic)
    press_all(panel, left_out)
    run_event_loop(0.4)


def test_every_enabled_button_can_be_pressed_after_leaving_and_after_a_reload(
    panel: Any, ct: Any
) -> None:
    slicer.util.selectModule("Data")
    slicer.mrmlScene.Clear(0)
    slicer.util.selectModule("ASLseg")
    press_all(panel, LEFT_OUT)
    press_all(reload_module().panel, LEFT_OUT)


@pytest.mark.parametrize(
    "name",
    ["loadCaseButton", "saveLabelButton", "segmentButton", "refineButton", "measureButton",
     "exportNiftiButton"],
)  # fmt: skip
def test_the_scene_may_be_closed_right_after_a_button(
    panel: Any, trained: Path, dialogs: Any, tmp_path: Path, name: str
) -> None:
    from ASLsegLib.scene.prompts import add_point

    ui, logic = panel.ui, panel.logic
    ui.projectFolderEdit.currentPath = str(trained)
    click(ui.openProjectButton)
    table = ui.casesTable
    rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == UNLABELLED[0]]
    table.selectRow(rows[0])
    click(ui.loadCaseButton)
    wait_until(lambda: panel.volume is not None and not logic.background.is_busy)
    refined = logic.predictions(panel.volume)["refined"]
    panel.parameters.resultSegmentation = panel.parameters.labelSegmentation = refined
    add_point(panel.volume, "tumour", (20.0, 20.0), 3)
    slicer.app.processEvents()
    if name == "exportNiftiButton":
        dialogs.answer("Save", str(tmp_path / "refined.nii.gz"))
    button = getattr(ui, name)
    assert button.isEnabledTo(panel.widget), button.toolTip
    button.click()
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.2)
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    wait_until(lambda: not (logic.background.is_busy or logic.engine.is_busy), 60.0)
    run_event_loop(0.1)
    assert panel.volume is None
    assert not ui.segmentButton.enabled


def test_the_reload_button_leaves_nothing_of_the_panel_before_listening(
    panel: Any, ct: Any
) -> None:
    before, looked = panel, []
    panel.logic.poll = lambda: looked.append("poll")
    panel.update = lambda: looked.append("update")
    old_library = sys.modules["ASLsegLib.widgets.panel"]
    slicer.modules.ASLsegWidget.onReload()
    looked.clear()
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.2)
    after = slicer.modules.ASLsegWidget.panel
    assert after is not before
    assert looked == []
    assert sys.modules["ASLsegLib.widgets.panel"] is not old_library
    press_all(after, LEFT_OUT)


# -- the folder of the project ---------------------------------------------------------------------


def test_the_folder_is_empty_at_first_and_stays_empty_when_it_is_emptied(panel: Any) -> None:
    edit = panel.ui.projectFolderEdit
    assert edit.currentPath == ""
    edit.currentPath = "/data"
    edit.currentPath = ""
    slicer.app.processEvents()
    assert (edit.currentPath, panel.parameters.projectFolder) == ("", "")
    assert panel.ui.openProjectButton.toolTip == "Choose a folder above."


@pytest.mark.parametrize("typed", ["home/x", "x", "./x", "../x"])
def test_a_path_that_begins_nowhere_is_refused_and_left_as_it_was_typed(
    panel: Any, ct: Any, typed: str
) -> None:
    ui = panel.ui
    ui.projectFolderEdit.currentPath = typed
    assert not ui.openProjectButton.enabled
    assert "Give the whole path of the folder" in ui.openProjectButton.toolTip
    for button in (ui.addVolumeButton, ui.addCasesButton):
        assert not button.enabled
    assert ui.projectFolderEdit.currentPath == typed


def test_the_home_folder_may_be_written_short(panel: Any) -> None:
    from ASLsegLib.parameters import project_folder

    panel.ui.projectFolderEdit.currentPath = "~/livers"
    assert project_folder(panel.parameters) == Path.home() / "livers"
    assert panel.ui.openProjectButton.enabled


def test_a_scene_that_an_older_version_saved_without_a_folder_names_none(panel: Any) -> None:
    panel.parameters.projectFolder = "."
    assert panel.ui.openProjectButton.toolTip == "Choose a folder above."


def test_a_folder_in_which_a_project_was_opened_is_offered_again(panel: Any, project: Path) -> None:
    edit = panel.ui.projectFolderEdit
    edit.currentPath = "/nowhere/at/all"
    edit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    assert edit.currentPath == str(project)
    after = reload_module().panel.ui.projectFolderEdit
    boxes = after.comboBox()
    assert [boxes.itemText(row) for row in range(boxes.count)] == [str(project)]


def test_the_folder_of_the_session_before_is_offered_but_not_chosen(
    panel: Any, project: Path
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    close_project(panel.logic)
    slicer.mrmlScene.Clear(0)
    again = reload_module().panel
    assert again.ui.projectFolderEdit.currentPath == ""
    assert again.ui.projectFolderEdit.comboBox().itemText(0) == str(project)
    assert again.logic.project is None


def test_a_project_that_stays_open_keeps_its_folder_when_the_scene_is_closed(
    panel: Any, project: Path
) -> None:
    panel.ui.projectFolderEdit.currentPath = str(project)
    click(panel.ui.openProjectButton)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert panel.ui.projectFolderEdit.currentPath == str(project)
    assert panel.ui.addCasesButton.enabled


# -- colour pictures -------------------------------------------------------------------------------


def test_a_colour_picture_is_never_the_volume_to_segment(panel: Any, photo: Any) -> None:
    assert panel.volume is None
    assert panel.ui.inputVolumeSelector.currentNode() is None
    assert panel.ui.segmentButton.toolTip == "Choose a volume."
    panel.parameters.inputVolume = photo  # by a script, or a scene of an older version
    assert panel.volume is None
    assert not panel.ui.addVolumeButton.enabled


def test_the_ct_beside_a_colour_picture_is_chosen(panel: Any, photo: Any, ct: Any) -> None:
    assert panel.volume is ct
    assert panel.ui.inputVolumeSelector.currentNode() is ct


def test_a_script_that_gives_a_colour_picture_is_told_what_to_choose(
    panel: Any, photo: Any, tmp_path: Path
) -> None:
    for action in (
        lambda: panel.logic.segment(photo),
        lambda: panel.logic.refine(photo),
        lambda: panel.logic.add_volume(photo, folder=tmp_path),
    ):
        with pytest.raises(AslsegError, match="photo is no scalar volume"):
            action()


def test_a_run_that_is_named_and_cannot_be_used_is_not_replaced_by_another(
    panel: Any, ct: Any
) -> None:
    for action in (panel.logic.segment, panel.logic.refine):
        with pytest.raises(AslsegError, match="Run gone cannot be used"):
            action(ct, run_id="gone", wait=False)
    assert not panel.logic.engine.is_busy


# -- settings of another version -------------------------------------------------------------------

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


# -- leaving while something is placed -------------------------------------------------------------


@pytest.mark.parametrize("button", ["addPositiveButton", "addBoxButton"])
def test_leaving_the_module_ends_placing(panel: Any, ct: Any, button: str) -> None:
    click(getattr(panel.ui, button))
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    slicer.util.selectModule("Data")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    slicer.util.selectModule("ASLseg")
    slicer.app.processEvents()
    assert not getattr(panel.ui, button).checked
    click(getattr(panel.ui, button))
    assert interaction.GetCurrentInteractionMode() == interaction.Place


def test_placing_that_another_module_begins_and_ends_does_not_concern_the_panel(
    panel: Any, ct: Any
) -> None:
    click(panel.ui.addPositiveButton)
    slicer.util.selectModule("Markups")
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.Place)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    run_event_loop(0.1)


# -- the phantom project ---------------------------------------------------------------------------


def test_the_phantom_project_is_trained_by_the_preset_that_is_shown(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.engine.settings import config_of
    from aslseg.presets import read_preset
    from ASLsegLib.parameters import settings_changes

    monkeypatch.setattr(panel.logic, "create_phantom_project", lambda *_, **__: None)
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


# -- what is shown while time goes on --------------------------------------------------------------


@pytest.fixture
def open_dialogs(panel: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Dialogs stay open for a while; the list says how often the panel looked meanwhile."""
    counts: list[int] = []
    looked = 0
    real = panel.logic.poll

    def poll() -> None:
        nonlocal looked
        looked += 1
        real()

    def stay_open(*_: Any, **__: Any) -> bool:
        before = looked
        run_event_loop(0.4)
        counts.append(looked - before)
        return False

    monkeypatch.setattr(panel.logic, "poll", poll)
    monkeypatch.setattr(slicer.util, "errorDisplay", stay_open)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", stay_open)
    return counts


def test_progress_goes_on_while_a_message_of_the_background_is_open(
    panel: Any, open_dialogs: list[int]
) -> None:
    def fails(_: Any) -> None:
        raise AslsegError("the disk is full")

    panel.logic.background.start("saving", fails, lambda _: None, panel.logic.failed.emit)
    wait_until(lambda: open_dialogs, 10.0, "the message was shown")
    assert open_dialogs[0] >= 5


def test_progress_goes_on_while_a_question_of_the_background_is_open(
    panel: Any, open_dialogs: list[int]
) -> None:
    panel.logic.background.start(
        "reading", lambda _: None, lambda _: panel.may_replace(["liver"]), panel.logic.failed.emit
    )
    wait_until(lambda: open_dialogs, 10.0, "the question was asked")
    assert open_dialogs[0] >= 5


def test_a_question_that_a_result_brings_neither_repeats_nor_breaks_its_import(
    panel: Any, open_dialogs: list[int]
) -> None:
    from ASLsegLib.engine.client import Job

    steps: list[str] = []
    events: list[str] = []

    def show(_: Any) -> Any:
        for name in ("first", "second"):
            panel.may_replace([name])
            steps.append(name)
            yield name

    panel.logic.engine.event.connect(lambda event: events.append(event.event))
    panel.logic.engine.start(Job("describe", {"device": "cpu"}, show=show))
    wait_until(lambda: not panel.logic.engine.is_busy, 120.0, "the engine rests")
    assert steps == ["first", "second"]
    assert [e for e in events if e in ("done", "failed")] == ["done"]
    assert min(open_dialogs) >= 5


# -- installers that fail --------------------------------------------------------------------------

FAILURES = [
    CalledProcessError(1, ["python", "-m", "light_the_torch"]),
    ImportError("DLL load failed while importing _C"),
    ValueError("Failed to get computation backend"),
    OSError(28, "No space left on device"),
    RuntimeError("Another installation is under way"),
]


def raising(error: Exception) -> Callable[..., Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    return fails


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide packages from those that are installed; hides none when called without names."""
    real = importlib.metadata.version
    hidden: set[str] = set()

    def version(name: str) -> str:
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    def hide(*names: str) -> None:
        hidden.clear()
        hidden.update(names)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return hide


@pytest.fixture
def pytorch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Say what the extension PyTorch does when it is asked to install."""

    def use(installer: Callable[..., Any]) -> None:
        extension = types.ModuleType("PyTorchUtils")
        logic = types.SimpleNamespace(installTorch=installer)
        extension.PyTorchUtilsLogic = lambda: logic  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "PyTorchUtils", extension)

    return use


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failing_installation_of_pytorch_says_what_failed_and_what_to_do(
    open_module: Any, without: Any, pytorch: Any, dialogs: Any, error: Exception
) -> None:
    without("torch", "torchvision")
    ui = open_module().panel.ui
    pytorch(raising(error))
    click(ui.installButton)
    text = dialogs.take("Installing PyTorch failed").text
    assert "press Install again" in text
    assert ("code 1" if isinstance(error, CalledProcessError) else str(error)) in text
    assert not ui.requirementsFrame.isHidden()
    assert ui.installButton.enabled


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failing_pip_says_what_failed_and_what_to_do(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    without("monai")
    ui = open_module().panel.ui
    monkeypatch.setattr(slicer.packaging, "pip_install", raising(error))
    dialogs.answer("install 1 Python packages: monai", 0x400)
    click(ui.installButton)
    assert "press Install again" in dialogs.take("Installing monai failed").text
    assert "monai" in ui.requirementsLabel.text


def test_what_was_installed_before_the_person_stopped_is_not_asked_for_again(
    open_module: Any, without: Any, pytorch: Any, dialogs: Any
) -> None:
    without("torch", "torchvision", "monai")
    ui = open_module().panel.ui

    def install(**_: Any) -> types.ModuleType:
        without("monai")
        return types

    pytorch(install)
    dialogs.answer("install 1 Python packages", 0x00400000)  # Cancel
    click(ui.installButton)
    dialogs.take("Nothing was installed")
    assert ui.requirementsLabel.text.endswith("are needed: monai.")


def test_an_installer_that_installs_nothing_is_not_believed(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("monai")
    ui = open_module().panel.ui
    monkeypatch.setattr(slicer.packaging, "pip_install", lambda *_, **__: None)
    dialogs.answer("install 1 Python packages", 0x400)
    click(ui.installButton)
    dialogs.take("monai cannot be found; restart Slicer")


def test_a_slicer_without_its_packaging_module_installs_by_pip(
    open_module: Any, without: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("monai", "segment-anything")
    for name in ("monai", "segment_anything"):  # other tests of this process may have used them
        monkeypatch.delitem(sys.modules, name, raising=False)
    ui = open_module().panel.ui
    asked: list[str] = []

    def pip_install(requirements: str) -> None:
        asked.append(requirements)
        without()

    monkeypatch.delitem(sys.modules, "slicer.packaging")
    monkeypatch.delattr(slicer, "packaging")
    monkeypatch.setattr(slicer.util, "pip_install", pip_install)
    dialogs.answer("install 2 Python packages", 0x400)
    click(ui.installButton)
    assert asked == ['"segment-anything==1.0" "monai>=1.4"']
    assert ui.requirementsFrame.isHidden()


@pytest.mark.parametrize("hidden", [None, ModuleNotFoundError("blocked")])
def test_a_package_that_is_listed_but_cannot_be_found_counts_as_missing(
    open_module: Any, monkeypatch: pytest.MonkeyPatch, hidden: Exception | None
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name != "pydantic":
            return real(name, package)
        if hidden is not None:
            raise hidden
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    ui = open_module().panel.ui
    assert "pydantic" in ui.requirementsLabel.text
    assert not ui.demoButton.enabled


def test_a_package_that_is_too_old_counts_as_missing(
    open_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    old = {"pydantic": "1.10.2"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name) or real(name))
    ui = open_module().panel.ui
    assert "pydantic" in ui.requirementsLabel.text
    assert not ui.demoButton.enabled


def test_a_package_in_use_that_was_replaced_asks_for_a_restart(
    open_module: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    importlib.import_module("pydantic")
    real = importlib.metadata.version
    versions = {"pydantic": "1.10.2"}
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or real(name)
    )
    ui = open_module().panel.ui
    monkeypatch.setattr(
        slicer.packaging, "pip_install", lambda *_, **__: versions.update(pydantic="2.12.0")
    )
    dialogs.answer("install 1 Python packages: pydantic", 0x400)
    click(ui.installButton)
    dialogs.take("Restart Slicer now: it still uses the old pydantic")
    assert ui.requirementsFrame.isHidden()


def test_packages_that_came_by_another_way_are_seen_when_the_module_is_entered(
    open_module: Any, without: Any
) -> None:
    without("torch", "torchvision")
    ui = open_module().panel.ui
    assert not ui.requirementsFrame.isHidden()
    without()
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    assert ui.requirementsFrame.isHidden()


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
