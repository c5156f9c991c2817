"""The stand-ins for qMRML's widgets follow the scene by the rules of the real ones."""

from __future__ import annotations

from typing import Any

import pytest
import slicer


@pytest.fixture
def combo(scene: Any) -> Any:
    found = slicer.qMRMLNodeComboBox()
    found.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    found.setMRMLScene(scene)
    return found


def _add(scene: Any, name: str, kind: str = "vtkMRMLScalarVolumeNode") -> Any:
    return scene.AddNewNodeByClass(kind, name)


def test_the_first_node_is_current_unless_none_is_allowed(combo: Any, scene: Any) -> None:
    first = _add(scene, "first")
    _add(scene, "second")
    assert combo.currentNode() is first
    combo.noneEnabled = True
    combo.setCurrentNode(None)
    assert combo.currentNode() is None
    assert combo.currentNodeID == ""


def test_a_change_is_told_as_node_as_bool_and_as_id(combo: Any, scene: Any) -> None:
    got: list[Any] = []
    for signature in (
        "currentNodeChanged(vtkMRMLNode*)",
        "currentNodeChanged(bool)",
        "currentNodeIDChanged(QString)",
    ):
        combo.connect(signature, got.append)
    node = _add(scene, "first")
    assert got == [node, True, node.GetID()]
    scene.RemoveNode(node)
    assert got[3:] == [None, False, ""]


def test_qt_chooses_the_node_before_one_that_is_removed(combo: Any, scene: Any) -> None:
    combo.noneEnabled = True
    first, second = _add(scene, "first"), _add(scene, "second")
    combo.setCurrentNode(second)
    scene.RemoveNode(second)
    assert combo.currentNode() is first
    scene.RemoveNode(first)
    assert combo.currentNode() is None


def test_no_change_is_told_between_nodes_of_one_name(combo: Any, scene: Any) -> None:
    first, second = _add(scene, "same"), _add(scene, "same")
    got: list[Any] = []
    combo.connect("currentNodeChanged(vtkMRMLNode*)", got.append)
    combo.setCurrentNode(second)
    assert (combo.currentNode(), got) == (second, [])
    second.SetName("other")
    assert got == [second]
    combo.setCurrentNode(first)
    assert got == [second, first]


def test_derived_hidden_and_unfitting_nodes_are_left_out_on_demand(combo: Any, scene: Any) -> None:
    _add(scene, "volume")
    _add(scene, "labels", "vtkMRMLLabelMapVolumeNode")
    hidden = _add(scene, "hidden")
    hidden.SetHideFromEditors(1)
    combo.setMRMLScene(None)
    combo.setMRMLScene(scene)
    assert combo.nodeCount() == 2
    combo.showChildNodeTypes = False
    assert combo.nodeCount() == 1
    combo.showHidden = True
    assert combo.nodeCount() == 2
    combo.addAttribute("vtkMRMLScalarVolumeNode", "Probe", "1")
    assert combo.nodeCount() == 0


def test_the_current_node_is_gone_after_the_scene_is_closed(combo: Any, scene: Any) -> None:
    _add(scene, "first")
    scene.Clear(0)
    assert combo.currentNode() is None


def test_a_node_made_by_the_combo_is_chosen_and_told(combo: Any) -> None:
    combo.baseName = "CT"
    got: list[Any] = []
    combo.connect("nodeAddedByUser(vtkMRMLNode*)", got.append)
    node = combo.addNode()
    assert (node.GetName(), combo.currentNode(), got) == ("CT", node, [node])


def test_ticked_nodes(scene: Any) -> None:
    combo = slicer.qMRMLCheckableNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    combo.setMRMLScene(scene)
    first, second = _add(scene, "first"), _add(scene, "second")
    combo.setCheckState(second, 2)
    assert combo.checkedNodes() == (second,)
    assert combo.uncheckedNodes() == (first,)


def test_a_slider_keeps_its_bounds_and_tells_changes_once(scene: Any) -> None:
    import ctk

    slider, got = ctk.ctkSliderWidget(), []
    slider.minimum, slider.maximum, slider.singleStep, slider.decimals = 0, 1, 0.05, 2
    slider.valueChanged.connect(got.append)
    slider.value = 0.5
    slider.value = 0.5
    slider.value = 7
    assert (got, slider.value) == ([0.5, 1.0], 1.0)
    with pytest.raises(AttributeError):
        slider.setMinimum(0)


def test_a_section_folds_with_what_is_in_it(scene: Any) -> None:
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton()
    column = qt.QVBoxLayout(section)
    shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden")
    column.addWidget(shown)
    column.addWidget(hidden)
    hidden.hide()
    got: list[bool] = []
    section.connect("contentsCollapsed(bool)", got.append)
    section.collapsed = True
    assert shown.isHidden()
    section.collapsed = False
    assert not shown.isHidden()
    assert hidden.isHidden()
    assert got == [True, False]


def test_what_is_shown_or_hidden_in_a_folded_section_is_so_when_it_opens(scene: Any) -> None:
    """As CTK's event filter has it, for children that are the section's own."""
    import ctk
    import qt

    section = ctk.ctkCollapsibleButton()
    column = qt.QVBoxLayout(section)
    comes, goes, late = qt.QLabel("comes"), qt.QLabel("goes"), qt.QLabel("late")
    column.addWidget(comes)
    column.addWidget(goes)
    comes.hide()
    section.show()
    section.hide()  # the section's own coming and going is not its children's
    section.show()
    section.collapsed = True
    comes.show()
    goes.hide()
    column.addWidget(late)
    assert comes.isHidden()
    assert late.isHidden()
    section.collapsed = False
    assert not comes.isHidden()
    assert goes.isHidden()
    assert not late.isHidden()


def test_a_path_edit_tells_its_path(scene: Any, tmp_path: Any) -> None:
    import ctk

    edit, got = ctk.ctkPathLineEdit(), []
    edit.connect("currentPathChanged(QString)", got.append)
    edit.currentPath = str(tmp_path)
    assert (edit.currentPath, got) == (str(tmp_path), [str(tmp_path)])


def test_the_segment_editor_opens_with_a_segmentation(scene: Any) -> None:
    segmentation = _add(scene, "labels", "vtkMRMLSegmentationNode")
    segmentation.GetSegmentation().AddEmptySegment("liver", "liver")
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    assert editor.segmentationNode() is segmentation
    assert editor.currentSegmentID() == "liver"
    assert slicer.util.selectedModule() == "SegmentEditor"


def test_placing_points_switches_the_real_interaction_node(scene: Any) -> None:
    points = _add(scene, "points", "vtkMRMLMarkupsFiducialNode")
    place = slicer.qSlicerMarkupsPlaceWidget()
    place.setMRMLScene(scene)
    place.setCurrentNode(points)
    got: list[bool] = []
    place.connect("activeMarkupsPlaceModeChanged(bool)", got.append)
    place.setPlaceModeEnabled(True)
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert got == [True, False]
