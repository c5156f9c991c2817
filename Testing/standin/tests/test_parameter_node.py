"""Typed parameters live in the scene, follow widgets both ways, and return with a saved scene."""

import enum
import pathlib
from typing import Annotated, Any

import pytest
import slicer

pytestmark = pytest.mark.usefixtures("scene")


class Device(enum.Enum):
    """An enum is kept by name."""

    AUTO = "auto"
    CPU = "cpu"


@pytest.fixture
def parameters(application: Any) -> type:
    from slicer.parameterNodeWrapper import (
        Choice,
        Default,
        WithinRange,
        parameterNodeWrapper,
        parameterPack,
    )

    @parameterPack
    class Training:
        rounds: Annotated[int, WithinRange(1, 50)] = 3
        share: Annotated[float, WithinRange(0, 1)] = 0.5

    @parameterNodeWrapper
    class Parameters:
        inputVolume: slicer.vtkMRMLScalarVolumeNode
        folder: pathlib.Path
        preset: Annotated[str, Choice(["quick", "standard"]), Default("standard")]
        device: Device
        follow: bool = True
        names: list[str]
        training: Training

    return Parameters


@pytest.fixture
def node(scene: Any) -> Any:
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    class ProbeLogic(ScriptedLoadableModuleLogic):
        """A module named Probe."""

    return ProbeLogic().getParameterNode()


def test_every_parameter_has_its_default_at_first(parameters: type, node: Any) -> None:
    found = parameters(node)
    assert found.inputVolume is None
    assert found.folder == pathlib.Path()
    assert (found.preset, found.device, found.follow) == ("standard", Device.AUTO, True)
    assert (found.names, found.training.rounds, found.training.share) == ([], 3, 0.5)


def test_a_value_outside_the_range_or_of_another_type_is_refused(
    parameters: type, node: Any
) -> None:
    found = parameters(node)
    for name, value, error in (
        ("preset", "slow", ValueError),
        ("preset", 3, TypeError),
        ("follow", 1, TypeError),
        ("folder", "livers", TypeError),
        ("inputVolume", node, TypeError),
    ):
        with pytest.raises(error):
            setattr(found, name, value)
    with pytest.raises(ValueError, match="within"):
        found.training.rounds = 51


def test_the_stand_in_refuses_a_name_that_is_no_parameter_which_slicer_would_take(
    parameters: type, node: Any
) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        parameters(node).nothing = 1


def test_a_parameter_may_not_be_named_as_a_method_of_the_wrapper(application: Any) -> None:
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    with pytest.raises(ValueError, match="Modified"):
        parameterNodeWrapper(type("P", (), {"__annotations__": {"Modified": int}}))


@pytest.mark.parametrize("suffix", [".mrb", "/scene.mrml"])
def test_a_reopened_scene_holds_the_same_parameters(
    parameters: type, node: Any, scene: Any, tmp_path: pathlib.Path, suffix: str
) -> None:
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    before = parameters(node)
    before.inputVolume, before.preset, before.device = volume, "quick", Device.CPU
    before.folder, before.follow, before.names = pathlib.Path("/data/livers"), False, ["a", "b"]
    before.training.rounds = 7
    path = str(tmp_path) + ("/scene.mrb" if suffix == ".mrb" else suffix)
    assert slicer.util.saveScene(path)
    scene.Clear(0)
    slicer.util.loadScene(path)

    found = scene.GetSingletonNode("Probe", "vtkMRMLScriptedModuleNode")
    after = parameters(found)
    assert after.inputVolume.GetName() == "CT"
    assert (after.preset, after.device, after.follow) == ("quick", Device.CPU, False)
    assert (after.folder, after.names) == (pathlib.Path("/data/livers"), ["a", "b"])
    assert after.training.rounds == 7


_UI = """<ui version="4.0"><class>Probe</class><widget class="qMRMLWidget" name="Probe"><layout
 class="QVBoxLayout" name="column">{items}</layout></widget><connections><connection>
 <sender>Probe</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal><receiver>volume</receiver>
 <slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""
_ITEM = """<item><widget class="{cls}" name="{name}"><property name="SlicerParameterName"
 stdset="0"><string>{parameter}</string></property></widget></item>"""


@pytest.fixture
def ui(tmp_path: pathlib.Path, scene: Any) -> Any:
    rows = [
        ("ctkPathLineEdit", "folder", "folder"),
        ("QComboBox", "preset", "preset"),
        ("QComboBox", "device", "device"),
        ("QCheckBox", "follow", "follow"),
        ("QSpinBox", "rounds", "training.rounds"),
        ("ctkSliderWidget", "share", "training.share"),
    ]
    return load_ui(tmp_path, rows, scene)


def load_ui(tmp_path: pathlib.Path, rows: list[tuple[str, str, str]], scene: Any) -> Any:
    """Load a panel file with these widgets: class, name and parameter of each."""
    rows = [("qMRMLNodeComboBox", "volume", "inputVolume"), *rows]
    items = "".join(_ITEM.format(cls=c, name=n, parameter=p) for c, n, p in rows)
    path = tmp_path / "Probe.ui"
    path.write_text(_UI.format(items=items))
    widget = slicer.util.loadUI(str(path))
    widget.setMRMLScene(scene)
    return widget


def test_widgets_and_parameters_follow_each_other(
    parameters: type, node: Any, ui: Any, scene: Any
) -> None:
    found, widgets = parameters(node), slicer.util.childWidgetVariables(ui)
    tag = found.connectGui(ui)
    assert [widgets.preset.itemText(i) for i in range(widgets.preset.count)] == [
        "quick",
        "standard",
    ]
    assert (widgets.rounds.value, widgets.rounds.maximum, widgets.share.maximum) == (3, 50, 1)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    widgets.volume.setCurrentNode(volume)
    widgets.folder.currentPath = "/data"
    widgets.preset.currentText = "quick"
    widgets.follow.checked = False
    widgets.rounds.value = 9
    widgets.share.value = 0.25
    assert found.inputVolume is volume
    assert (found.folder, found.preset, found.follow) == (pathlib.Path("/data"), "quick", False)
    assert (found.training.rounds, found.training.share) == (9, 0.25)
    found.training.rounds, found.device = 11, Device.CPU
    assert (widgets.rounds.value, widgets.device.currentText) == (11, "CPU")
    found.disconnectGui(tag)


def test_a_disconnected_gui_follows_no_more(parameters: type, node: Any, ui: Any) -> None:
    found, widgets = parameters(node), slicer.util.childWidgetVariables(ui)
    found.disconnectGui(found.connectGui(ui))
    widgets.rounds.value = 9
    found.follow = False
    assert (found.training.rounds, widgets.follow.checked) == (3, True)


@pytest.mark.parametrize("name", ["round", "training.round", "training.", "rounds"])
def test_a_misspelt_parameter_name_in_a_ui_file_is_refused_as_in_slicer(
    parameters: type, node: Any, scene: Any, tmp_path: pathlib.Path, name: str
) -> None:
    ui = load_ui(tmp_path, [("QSpinBox", "typo", name)], scene)
    with pytest.raises(ValueError, match=r"Cannot find a param|has no member"):
        parameters(node).connectGui(ui)


def test_a_widget_that_cannot_show_a_parameter_is_refused_as_in_slicer(
    parameters: type, node: Any, scene: Any, tmp_path: pathlib.Path
) -> None:
    ui = load_ui(tmp_path, [("QSpinBox", "wrong", "folder")], scene)
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        parameters(node).connectGui(ui)


def test_a_value_of_the_scene_that_is_no_choice_is_read_but_cannot_be_shown_as_in_slicer(
    parameters: type, node: Any, ui: Any
) -> None:
    parameters(node)
    node.SetParameter("preset", "slow")
    found = parameters(node)
    assert found.preset == "slow"
    with pytest.raises(ValueError, match="Unable to find value slow"):
        found.connectGui(ui)


def test_what_a_widget_makes_of_a_value_does_not_come_back_as_in_slicer(
    parameters: type, node: Any, ui: Any
) -> None:
    found, widgets = parameters(node), slicer.util.childWidgetVariables(ui)
    tag = found.connectGui(ui)
    widgets.share.maximum = 0.6
    found.training.share = 0.9  # more than the widget can show
    assert (found.training.share, widgets.share.value) == (0.9, 0.6)
    found.disconnectGui(tag)


def test_disconnecting_twice_is_harmless_as_in_slicer(parameters: type, node: Any, ui: Any) -> None:
    found = parameters(node)
    tag = found.connectGui(ui)
    found.disconnectGui(tag)
    found.disconnectGui(tag)


def test_a_gui_that_is_gone_but_still_connected_raises_as_in_slicer(
    parameters: type, node: Any, ui: Any
) -> None:
    import shiboken6

    found = parameters(node)
    tag = found.connectGui(ui)
    box = slicer.util.childWidgetVariables(ui).follow
    shiboken6.delete(ui)
    with pytest.raises(ValueError, match="destroyed"):
        box.checked  # noqa: B018
    found.parameterNode.RemoveAllObservers()
    assert tag == 0
