"""Organ masks that are there already: from the scene, from a folder, and to the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from harness import (
    put_under,
    read_mask,
    shift_up,
    show_slice_of,
    wait_for_files,
    write_mask,
)

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Volume
from standin.harness import choose, choose_node, click, run_event_loop, wait_until


class Person:
    """A person in front of the panel with a project open."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.logic, self.ui = widget.panel.logic, widget.panel.ui
        self.sections = widget.panel.sections
        self.ui.casesSection.collapsed = False
        self.ui.projectFolderEdit.currentPath = str(folder)
        self.press(self.ui.openProjectButton)

    def press(self, button: Any) -> None:
        click(button)
        wait_for_files(self.logic)

    def mask(self, case_id: str) -> np.ndarray:
        project = self.logic.project
        return project.load_masks(project.case(case_id))["liver"]


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Person:
    return Person(open_module(), trained)


def draw(volume: Any, name: str) -> tuple[Any, np.ndarray]:
    """Draw a box into a new segment on a volume."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = node.GetSegmentation().AddEmptySegment(name, name)
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[1:3, 2:8, 2:9] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    return node, mask > 0


def test_the_organ_of_a_segmentation_becomes_the_mask_of_its_case(person: Person) -> None:
    assert not person.ui.saveOrganMaskButton.enabled
    volume = person.logic.load_case("c2")
    node, mask = draw(volume, "Liver")
    choose_node(person.ui.labelSegmentationSelector, node)
    person.press(person.ui.saveOrganMaskButton)
    assert np.array_equal(person.mask("c2"), mask)
    assert person.logic.project.case("c2").label is None


def test_a_mask_is_replaced_by_another_one_when_a_person_says_so(
    person: Person, dialogs: Any, tmp_path: Path
) -> None:
    import qt

    from ASLsegLib.scene.volumes import SceneError

    node, mask = draw(person.logic.load_case("c2"), "liver")
    person.logic.save_organ_mask(node)
    with pytest.raises(SceneError, match=r"There is a mask of liver already of c2"):
        person.logic.save_organ_mask(node)
    project = person.logic.project
    other = mask.copy()
    other[1] = False
    for name in ("c2", "c3"):
        case = project.case(name)
        labels = Labelmap(other.astype(np.uint8), project.load_image(case).geometry)
        write_labelmap(labels, tmp_path / case.image.name)
    with pytest.raises(SceneError, match=r"already of c2; "):
        person.logic.add_organ_masks("liver", tmp_path)
    assert person.logic.project.case("c3").masks == {}
    for answer, of_c2 in ((qt.QMessageBox.No, mask), (qt.QMessageBox.Yes, other)):
        dialogs.answer("Folder with masks of liver", str(tmp_path))
        dialogs.answer("ASLseg", answer)
        person.press(person.ui.addOrganMasksButton)
        assert np.array_equal(person.mask("c2"), of_c2)
        assert np.array_equal(person.mask("c3"), other)
    choose_node(person.ui.labelSegmentationSelector, node)
    for answer, of_c2 in ((qt.QMessageBox.No, other), (qt.QMessageBox.Yes, mask)):
        dialogs.answer("ASLseg", answer)
        person.press(person.ui.saveOrganMaskButton)
        assert np.array_equal(person.mask("c2"), of_c2)


def test_nothing_is_saved_or_added_when_no_organ_is_chosen(person: Person, dialogs: Any) -> None:
    node, mask = draw(person.logic.load_case("c2"), "liver")
    person.logic.organs = lambda: ("liver", "kidney")
    choose_node(person.ui.labelSegmentationSelector, node)
    for button in (person.ui.saveOrganMaskButton, person.ui.addOrganMasksButton):
        dialogs.answer("Which organ are the masks of?", "")
        person.press(button)
        assert person.logic.project.case("c2").masks == {}
    dialogs.answer("Which organ are the masks of?", "liver")
    person.press(person.ui.saveOrganMaskButton)
    assert np.array_equal(person.mask("c2"), mask)


def test_an_organ_that_is_not_seen_is_not_saved(person: Person, dialogs: Any) -> None:
    from ASLsegLib.scene.volumes import SceneError

    node, mask = draw(person.logic.load_case("c2"), "liver")
    node.GetDisplayNode().SetVisibility(False)
    with pytest.raises(SceneError, match=r"drawn is hidden \(liver\)"):
        person.logic.save_organ_mask(node)
    choose_node(person.ui.labelSegmentationSelector, node)
    person.press(person.ui.saveOrganMaskButton)
    dialogs.take("so nothing was saved. It is shown now")
    assert person.logic.project.case("c2").masks == {}
    assert node.GetDisplayNode().GetVisibility()
    person.press(person.ui.saveOrganMaskButton)
    assert np.array_equal(person.mask("c2"), mask)


def test_an_organ_that_is_not_seen_is_saved_where_a_script_says_so(person: Person) -> None:
    node, mask = draw(person.logic.load_case("c2"), "liver")
    node.GetDisplayNode().SetVisibility(False)
    person.logic.save_organ_mask(node, may_hide=lambda *_: True)
    assert np.array_equal(person.mask("c2"), mask)


def test_a_segmentation_without_the_organ_is_refused(person: Person) -> None:
    from ASLsegLib.scene.volumes import SceneError

    node, _ = draw(person.logic.load_case("c2"), "spleen")
    with pytest.raises(SceneError, match="no segment 'liver'"):
        person.logic.save_organ_mask(node)


def test_a_folder_gives_masks_to_the_cases_that_it_names(
    person: Person, dialogs: Any, tmp_path: Path
) -> None:
    project = person.logic.project
    image = project.load_image(project.case("c3"))
    labels = np.zeros(image.geometry.shape, np.uint8)
    labels[1:3, 2:8, 2:8] = 1
    name = project.case("c3").image.name
    write_labelmap(Labelmap(labels, image.geometry), tmp_path / name.split(".")[0] / "liver.nii.gz")
    dialogs.answer("Folder with masks of liver", str(tmp_path))
    person.press(person.ui.addOrganMasksButton)
    assert np.array_equal(person.mask("c3"), labels > 0)
    assert person.logic.project.case("c2").masks == {}


def test_the_engine_is_told_the_masks_of_a_case_and_of_the_scene(
    person: Person, tmp_path: Path
) -> None:
    volume = person.logic.load_case("c2")
    node, mask = draw(volume, "liver")
    person.logic.save_organ_mask(node)
    own, _ = person.logic._organ_files(volume, None, tmp_path)
    assert np.array_equal(read_labelmap(Path(own["liver"])).labels > 0, mask)
    given, writes = person.logic._organ_files(volume, {"liver": node}, tmp_path)
    for write in writes:
        write()
    assert Path(given["liver"]).parent == tmp_path
    assert np.array_equal(read_labelmap(Path(given["liver"])).labels > 0, mask)
    assert person.logic._organ_files(volume, None, tmp_path) == (given, [])  # as for prompts
    person.logic.save_organ_mask(node, may_replace=lambda *_: True)
    assert person.logic._organ_files(volume, None, tmp_path) == (own, [])


def test_no_volume_gets_the_organ_of_another_one_that_had_its_place_in_the_scene(
    person: Person, tmp_path: Path
) -> None:
    volume = person.logic.load_case("c2")
    node, _ = draw(volume, "liver")
    person.logic._organ_files(volume, {"liver": node}, tmp_path)
    before = volume.GetID()
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.1)
    other = person.logic.load_case("c3")
    assert other.GetID() == before
    assert person.logic._organ_files(other, None, tmp_path) == ({}, [])


def test_the_organ_of_another_case_is_refused_also_when_that_case_is_gone(
    person: Person, tmp_path: Path
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    volume, other = person.logic.load_case("c2"), person.logic.load_case("c3")
    node, _ = draw(volume, "liver")
    with pytest.raises(SceneError, match="drawn was drawn on c2, not on c3"):
        person.logic._organ_files(other, {"liver": node}, tmp_path)
    slicer.mrmlScene.RemoveNode(volume)
    with pytest.raises(SceneError, match="does not say which volume it was made on"):
        person.logic._organ_files(other, {"liver": node}, tmp_path)
    assert person.logic._organ_files(other, None, tmp_path) == ({}, [])


def test_a_volume_is_segmented_with_its_organ_unchanged(person: Person) -> None:
    volume = person.logic.load_case("c2")
    node, mask = draw(volume, "liver")
    shown = person.logic.segment(volume, organs={"liver": node})["refined"]
    labels = person.logic.labelmap_of(shown, volume).labels
    assert (labels[mask] > 0).all()
    assert not (labels[~mask] == 1).any()


def see_slice(person: Person, volume: Any, k: int) -> None:
    show_slice_of(volume, k)
    (section,) = (one for one in person.sections if type(one).__name__ == "OrganMaskSection")
    wait_until(lambda: section._slice == k, 10.0, "the panel has seen the slice")


@pytest.fixture
def labelled_volume(person: Person) -> Any:
    """The volume of c0, which has a label map, chosen and seen."""
    assert not person.ui.completeSliceButton.enabled
    assert person.ui.completeSlicesLabel.isHidden()
    volume = person.logic.load_case("c0")
    choose_node(person.ui.inputVolumeSelector, volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


def complete_slices(person: Person) -> tuple[int, ...] | None:
    return person.logic.project.case("c0").complete_slices


def state_in_the_list(person: Person) -> str:
    table = person.ui.casesTable
    names = [table.item(n, 0).text() for n in range(table.rowCount)]
    return table.item(names.index("c0"), 1).text()


def test_the_slice_that_is_seen_is_marked_as_complete_until_that_is_taken_back(
    person: Person, labelled_volume: Any
) -> None:
    ui, button = person.ui, person.ui.completeSliceButton
    for k in (4, 6):
        see_slice(person, labelled_volume, k)
        assert button.text == "Slice is complete"
        person.press(button)
    assert complete_slices(person) == (4, 6)
    assert state_in_the_list(person) == "labelled (2 slices)"
    assert ui.completeSlicesLabel.text.startswith("2 slices of the label of c0 count;")
    assert button.text == "Slice is not complete"
    see_slice(person, labelled_volume, 5)
    assert button.text == "Slice is complete"
    see_slice(person, labelled_volume, 6)
    person.press(button)
    assert complete_slices(person) == (4,)
    assert ui.undoButton.toolTip == "Undo: slice 6 not complete, c0"
    for expected in ((4, 6), (4,), None):
        person.press(ui.undoButton)
        assert complete_slices(person) == expected
    assert state_in_the_list(person) == "labelled"
    person.press(ui.redoButton)
    assert complete_slices(person) == (4,)


TURNED = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)


@pytest.mark.parametrize(
    ("moved_by", "moved_later_mm"),
    [(shift_up(20.0), 0.0), (shift_up(20.0), 8.0), (TURNED, 0.0)],
    ids=["shifted", "shifted again", "turned"],
)
def test_the_slice_of_a_volume_under_a_transform_that_is_seen_is_marked(
    person: Person, moved_by: np.ndarray, moved_later_mm: float
) -> None:
    from ASLsegLib.scene.volumes import add_volume, as_matrix, slice_axis_of

    logic, geometry = person.logic, Geometry((12, 16, 18), np.diag([-2.0, -2.0, 4.0, 1.0]))
    voxels = np.arange(12 * 16 * 18, dtype=np.int16).reshape(geometry.shape)
    volume = add_volume(Volume(voxels, geometry), "moved")
    transform = put_under(volume, moved_by)
    logic.add_volume(volume, "m1")
    node, _ = draw(logic.case_node("m1"), "liver")
    node.GetSegmentation().AddEmptySegment("", "tumour")
    logic.save_label(node)
    later = shift_up(moved_later_mm) @ moved_by
    transform.SetMatrixTransformToParent(as_matrix(later))
    choose_node(person.ui.inputVolumeSelector, volume)
    kji = np.full(3, 5.0)
    kji[slice_axis_of(logic.case_node("m1"))] = 3
    position = later @ geometry.ijk_to_ras @ [*kji[::-1], 1.0]
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.JumpSliceByCentering(*position[:3].tolist())
    run_event_loop(0.3)
    person.press(person.ui.completeSliceButton)
    assert logic.project.case("m1").complete_slices == (3,)


@pytest.mark.parametrize("whose", ["final label", "own"])
def test_a_slice_in_which_something_is_not_saved_is_not_marked(
    person: Person, labelled_volume: Any, dialogs: Any, whose: str
) -> None:
    from ASLsegLib.logic.questions import Questions

    ui, logic, volume = person.ui, person.logic, labelled_volume
    node, segment = logic.refined_node("c0"), "liver"
    if whose == "own":
        node, _ = draw(volume, segment)
        logic.save_label(node, questions=Questions(may_omit=lambda *_: True))
    choose_node(ui.labelSegmentationSelector, node)
    before = read_mask(node, segment, volume)
    mask = before.copy()
    mask[5, 5:9, 5:9] = ~mask[5, 5:9, 5:9]
    write_mask(node, segment, mask, volume)
    see_slice(person, volume, 5)
    person.press(ui.completeSliceButton)
    dialogs.take("in slice 5 something else than the saved label of case c0")
    assert complete_slices(person) is None
    see_slice(person, volume, 4)  # as it is saved
    person.press(ui.completeSliceButton)
    assert complete_slices(person) == (4,)
    write_mask(node, segment, before, volume)
    see_slice(person, volume, 5)
    person.press(ui.completeSliceButton)
    assert complete_slices(person) == (4, 5)
    person.press(ui.undoButton)
    write_mask(node, segment, mask, volume)
    for button in (ui.redoButton, ui.wholeLabelButton):
        person.press(button)
        dialogs.take("in slice 5 something else than the saved label of case c0")
        assert complete_slices(person) == (4,)
    write_mask(node, segment, before, volume)
    person.press(ui.redoButton)
    assert complete_slices(person) == (4, 5)
    person.press(ui.wholeLabelButton)
    assert complete_slices(person) is None


def test_after_the_last_mark_nothing_counts_until_the_whole_label_is_let_count(
    person: Person, labelled_volume: Any
) -> None:
    ui = person.ui
    see_slice(person, labelled_volume, 4)
    person.press(ui.completeSliceButton)
    person.press(ui.completeSliceButton)
    assert complete_slices(person) == ()  # the mostly empty rest is not taken for background
    assert state_in_the_list(person) == "no complete slice"
    assert ui.completeSlicesLabel.text.startswith("No slice of the label of c0 counts: nothing is")
    person.press(ui.wholeLabelButton)
    assert complete_slices(person) is None
    assert ui.completeSlicesLabel.text.startswith("The whole label of c0 counts")
    assert not ui.wholeLabelButton.enabled
    for expected in ((), (4,)):
        person.press(ui.undoButton)
        assert complete_slices(person) == expected
    assert ui.completeSlicesLabel.text.startswith("1 slice of the label of c0 counts")


def test_a_label_of_which_no_slice_counts_is_not_counted_and_comes_with_next(
    person: Person, labelled_volume: Any
) -> None:
    ui, logic = person.ui, person.logic
    for name in ("train", "review"):
        getattr(ui, f"{name}Section").collapsed = False

    def names() -> list[str]:
        return [ui.reviewTable.item(n, 0).text() for n in range(ui.reviewTable.rowCount)]

    assert ui.labelledShareLabel.text == "1 of 3 cases to train on are labelled (33%)."
    assert ui.startButton.enabled
    assert "c0" not in names()
    see_slice(person, labelled_volume, 4)
    person.press(ui.completeSliceButton)
    assert ui.labelledShareLabel.text.startswith("1 of 3 cases")
    person.press(ui.completeSliceButton)
    assert ui.labelledShareLabel.text.startswith("0 of 3 cases to train on are labelled (0%).")
    assert not ui.startButton.enabled
    assert ui.startButton.toolTip.startswith("No slice of any label counts")
    assert sorted(names()) == ["c0", "c2", "c3"]
    row = names().index("c0")
    assert ui.reviewTable.item(row, 3).text() == "? no slice of its label counts"
    for case in ("c2", "c3"):
        assert logic.next_step().text.startswith("Review ")
        logic.reject(case)
    assert logic.next_step().text == "Labels without a complete slice: 1. Next brings one."
    choose_node(ui.inputVolumeSelector, logic.load_case("c2"))
    person.press(ui.nextButton)
    assert names()[ui.reviewTable.currentRow()] == "c0"
    assert ui.reviewLabel.text == "1 of 3 cases have no decision yet."
    assert not ui.rejectButton.enabled
    person.press(ui.wholeLabelButton)
    assert ui.labelledShareLabel.text == "1 of 3 cases to train on are labelled (33%)."
    assert "c0" not in names()


@pytest.mark.parametrize("answer", ["Yes", "No"])
def test_a_label_of_which_no_slice_counts_is_accepted_as_a_whole_or_not_at_all(
    person: Person, labelled_volume: Any, dialogs: Any, answer: str
) -> None:
    import qt

    from ASLsegLib.scene.volumes import SceneError

    ui, logic = person.ui, person.logic
    ui.reviewSection.collapsed = False
    logic.mark_slice_complete("c0", 4)
    logic.mark_slice_complete("c0", 4, complete=False)
    run_event_loop(0.1)
    with pytest.raises(SceneError, match="No slice of the label of case c0 counts"):
        logic.accept("c0")
    dialogs.answer("No slice of the label of case c0 counts", getattr(qt.QMessageBox, answer))
    if answer == "Yes":
        dialogs.answer("Case c0 has a label already", qt.QMessageBox.Yes)
    person.press(ui.acceptButton)
    assert complete_slices(person) == (None if answer == "Yes" else ())
    assert logic.last_decision() == ("c0: corrected" if answer == "Yes" else "")
    waiting = [one.case_id for one in logic.state.waiting]
    assert ("c0" in waiting) == (answer == "No")
    if answer == "Yes":
        person.press(ui.undoButton)
        assert complete_slices(person) == ()


def test_a_label_to_check_by_of_which_no_slice_counts_measures_no_dice(person: Person) -> None:
    person.ui.trainSection.collapsed = False
    person.logic.mark_slice_complete("c5", 4)
    run_event_loop(0.1)
    assert "no Dice" not in person.ui.labelledShareLabel.text
    person.logic.mark_slice_complete("c5", 4, complete=False)
    run_event_loop(0.1)
    assert "no Dice is measured" in person.ui.labelledShareLabel.text


def test_labels_of_another_model_are_reviewed_under_its_name(
    person: Person, dialogs: Any, tmp_path: Path
) -> None:
    from ASLsegLib.scene.provenance import read_provenance
    from ASLsegLib.scene.segmentations import find_prediction

    project = person.logic.project
    case = project.case("c3")
    labels = np.zeros(project.load_image(case).geometry.shape, np.uint8)
    labels[1:5, 2:8, 2:8] = 1
    labels[2, 3:5, 3:5] = 2
    stem = case.image.name.split(".")[0]
    found = Labelmap(labels, project.load_image(case).geometry)
    write_labelmap(found, tmp_path / f"{stem}.nii.gz")
    trained_run = person.logic.usable_run()
    dialogs.answer("Folder with label maps of another model", str(tmp_path))
    dialogs.answer("Name of the model", "nnU-Net")
    person.press(person.ui.externalLabelsButton)
    assert person.logic.usable_run() == trained_run  # segmenting goes on with what was trained
    volume = person.logic.load_case("c3")
    node = find_prediction(volume, "refined")
    assert np.array_equal(person.logic.labelmap_of(node, volume).labels, labels)
    segmentation = node.GetSegmentation()
    origins = [
        read_provenance(segmentation.GetNthSegment(n))
        for n in range(segmentation.GetNumberOfSegments())
    ]
    assert {(one.run, one.human) for one in origins if one} == {("nnU-Net", False)}
    review = person.logic.load_lesions("c3")
    assert [lesion.target for lesion in review.rows] == ["tumour"]
    person.logic.accept("c3")
    assert person.logic.project.case("c3").status == "accepted"


def test_the_organ_of_one_volume_comes_from_the_segmentation_that_is_chosen(person: Person) -> None:
    ui, logic = person.ui, person.logic
    ui.reviewSection.collapsed = False
    volume = logic.load_case("c2")
    run_event_loop(0.1)
    choose_node(ui.inputVolumeSelector, volume)
    asked: list[Any] = []
    logic.segment = SimpleNamespace(begin=lambda *_, organs, **__: asked.append(organs))
    click(ui.segmentButton)
    node, _ = draw(volume, "Liver")
    choose_node(ui.organSegmentationSelector, node)
    click(ui.segmentButton)
    assert asked == [{}, {"liver": node}]


def test_the_labels_to_start_from_are_those_that_the_project_has(
    person: Person, tmp_path: Path
) -> None:
    from aslseg.project.external_labels import add_external_labels
    from ASLsegLib.parameters import settings_changes

    ui, logic = person.ui, person.logic
    ui.advancedSection.collapsed = False
    assert not ui.startLabelsBox.enabled
    project = logic.project
    image = project.load_image(project.case("c2"))
    labels = np.zeros(image.geometry.shape, np.uint8)
    labels[1:3, 2:8, 2:8] = 1
    write_labelmap(Labelmap(labels, image.geometry), tmp_path / "other" / "c2.nii.gz")
    add_external_labels(project, "other", tmp_path / "other")
    logic.refresh()
    run_event_loop(0.1)
    choose(ui.startLabelsBox, "other")
    widget = slicer.modules.ASLsegWidget
    assert settings_changes(widget.panel.parameters)["start_labels"] == "other"
