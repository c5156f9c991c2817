"""The dialog of a new project: what is found is shown, what is wrong is marked, then it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import wait_for_files

from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.errors import AslsegError
from aslseg.project.plan import Plan, patients_of, with_facts
from standin.harness import choose, click, measured_event_loop
from support import small_images
from support.textured_bodies import SPACING_MM, a_body

GRID = Geometry.axis_aligned((4, 12, 14), (5.0, 2.0, 2.0))
CASE, VOLUME, LABEL, MASKS, ROLE, PATIENT = range(6)
NAME, VALUE, INSIDE, COLOR, TERMINOLOGY = range(5)


def write_image(path: Path) -> Path:
    return small_images.write_image(path, GRID)


def write_label(path: Path, *values: int, geometry: Geometry = GRID) -> Path:
    labels = np.zeros(GRID.shape, np.uint8)
    for row, value in enumerate(values):
        labels[1, 2 * row : 2 * row + 2] = value
    write_labelmap(Labelmap(labels, geometry), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three volumes, two of them with label maps, and a label map of nobody."""
    for name in "abc":
        write_image(tmp_path / "ct" / f"{name}.nii.gz")
    for name in "abz":
        write_label(tmp_path / "labels" / f"{name}.nii.gz", 1, 2)
    return tmp_path


class Person:
    """Who presses the buttons of the dialog and types into its fields."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.logic = panel, panel.logic
        name = "NewProjectDialog"
        self.section = next(s for s in panel.sections if type(s).__name__ == name)

    @property
    def ui(self) -> Any:
        return self.section.ui

    def open(self) -> None:
        click(self.panel.ui.newProjectButton)

    def rest(self) -> None:
        wait_for_files(self.logic)

    def find(self, folder: Path, volumes: Path, labels: Path | None = None) -> None:
        self.ui.folderEdit.currentPath = str(folder)
        self.ui.volumesEdit.currentPath = str(volumes)
        self.ui.labelsEdit.currentPath = "" if labels is None else str(labels)
        click(self.ui.findButton)
        self.rest()

    def create(self) -> None:
        click(self.ui.createButton)
        self.rest()

    def cases(self) -> list[list[str]]:
        return self.texts(self.ui.casesTable)

    def texts(self, table: Any) -> list[list[str]]:
        columns = range(table.columnCount)
        return [[table.item(row, n).text() for n in columns] for row in range(table.rowCount)]

    def type(self, table: Any, row: int, column: int, text: str) -> None:
        table.item(row, column).setText(text)
        slicer.app.processEvents()

    def choose_row(self, table: Any, *rows: int) -> None:
        table.clearSelection()
        table.setCurrentCell(rows[0], 0)
        for row in rows:
            table.item(row, 0).setSelected(True)
        slicer.app.processEvents()

    def is_marked(self, table: Any, row: int, column: int) -> bool:
        return bool(table.item(row, column).background().color().alpha() == 110)


@pytest.fixture
def person(open_module: Callable[..., Any]) -> Person:
    return Person(open_module().panel)


@pytest.fixture
def planning(person: Person, source: Path) -> Person:
    """A person who has found the three volumes, and left the label map of nobody out."""
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    click(person.ui.leaveOutUnpairedButton)
    return person


def test_what_was_found_is_shown_before_anything_is_written(person: Person, source: Path) -> None:
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert [row[:3] for row in person.cases()] == [
        ["a", "a.nii.gz", "a.nii.gz"],
        ["b", "b.nii.gz", "b.nii.gz"],
        ["c", "c.nii.gz", ""],
        ["", "no volume", "z.nii.gz"],
    ]
    assert person.is_marked(person.ui.casesTable, 3, LABEL)
    assert "z.nii.gz belongs to no image" in person.ui.casesProblemLabel.text
    assert not person.ui.createButton.enabled
    assert "belongs to no image" in person.ui.createButton.toolTip
    click(person.ui.leaveOutUnpairedButton)
    assert person.ui.summaryLabel.text.startswith("3 cases of 3 patients, 2 with a label map")
    assert not (source / "project").exists()


def test_a_label_map_that_nobody_has_looked_at_is_told_beside_its_case(
    person: Person, source: Path
) -> None:
    origin = {"b": "refined, round 2"}
    (source / "labels" / "origin.json").write_text(json.dumps(origin), encoding="utf-8")
    (source / "labels" / "z.nii.gz").unlink()
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert person.is_marked(person.ui.casesTable, 1, LABEL)
    assert "b.nii.gz is an AI label map" in person.ui.casesProblemLabel.text
    assert not person.ui.createButton.enabled


def test_a_label_map_among_the_volumes_is_left_out_and_told(person: Person, source: Path) -> None:
    small_images.write_label(source / "ct" / "c_seg.nii.gz", 1)
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert [row[0] for row in person.cases()] == ["a", "b", "c", ""]
    assert "named as a label map: c_seg.nii.gz" in person.ui.summaryLabel.text


def test_an_empty_label_map_is_told_below_the_table(person: Person, source: Path) -> None:
    small_images.write_label(source / "labels" / "c.nii.gz")
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert "The label map of c is empty" in person.ui.summaryLabel.text


def test_one_button_makes_the_project_and_opens_it(planning: Person, source: Path) -> None:
    planning.create()
    project = planning.logic.project
    assert project.folder == source / "project"
    assert [(case.id, case.label is not None) for case in project.cases] == [
        ("a", True), ("b", True), ("c", False),
    ]  # fmt: skip
    assert planning.section.dialog.isHidden()
    assert planning.panel.ui.projectFolderEdit.currentPath == str(source / "project")


def test_names_roles_and_patients_are_typed_and_chosen(planning: Person) -> None:
    table = planning.ui.casesTable
    planning.type(table, 0, CASE, "first")
    planning.type(table, 0, PATIENT, "p1")
    planning.choose_row(table, 1, 2)
    choose(planning.ui.roleBox, planning.ui.roleBox.itemText(1))
    planning.create()
    cases = planning.logic.project.cases
    assert [(case.id, case.patient, case.split) for case in cases] == [
        ("first", "p1", "train"), ("b", "b", "validation"), ("c", "c", "validation"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "column", "text", "words"),
    [
        (1, CASE, "a", "Two cases have the name 'a'"),
        (1, CASE, "a/b", "'a/b' cannot be a name"),
        (1, PATIENT, "?", "'?' cannot be a name"),
    ],
)
def test_a_wrong_cell_is_marked_and_explained_until_it_is_right(
    planning: Person, row: int, column: int, text: str, words: str
) -> None:
    table = planning.ui.casesTable
    before = table.item(row, column).text()
    planning.type(table, row, column, text)
    assert planning.is_marked(table, row, column)
    assert words in table.item(row, column).toolTip()
    assert words in planning.ui.casesProblemLabel.text
    assert not planning.ui.createButton.enabled
    planning.type(table, row, column, before)
    assert not planning.is_marked(table, row, column)
    assert planning.ui.casesProblemLabel.isHidden()
    assert planning.ui.createButton.enabled


def test_targets_are_named_coloured_and_put_inside_of_each_other(
    planning: Person, dialogs: Any
) -> None:
    table = planning.ui.targetsTable
    assert [row[:2] for row in planning.texts(table)] == [["liver", "1"], ["tumour", "2"]]
    assert table.cellWidget(1, INSIDE).currentData == "liver"
    planning.type(table, 0, NAME, "spleen")
    assert table.cellWidget(1, INSIDE).currentData == "spleen"
    planning.choose_row(table, 1)
    dialogs.answer("colour", "#123456")
    click(planning.ui.colorButton)
    planning.create()
    spleen, tumour = planning.logic.project.targets
    assert (spleen.name, spleen.value, tumour.inside) == ("spleen", 1, "spleen")
    assert "SCT^78961009^Spleen" in spleen.terminology
    assert tumour.color == "#123456"


def test_a_colour_is_read_on_itself_in_light_and_in_dark_style(planning: Person) -> None:
    import qt

    table = planning.ui.targetsTable
    for colour, readable in (("#123456", "#ffffff"), ("#f0e68c", "#000000")):
        planning.type(table, 0, COLOR, colour)
        assert table.item(0, COLOR).background().color().name() == colour
        assert table.item(0, COLOR).foreground().color().name() == readable
    planning.type(table, 0, COLOR, "no colour")
    assert planning.is_marked(table, 0, COLOR)
    assert table.item(0, COLOR).foreground() == qt.QBrush(), "that of the style again"


def test_a_target_cannot_lie_inside_itself_or_have_the_value_of_another(planning: Person) -> None:
    table = planning.ui.targetsTable
    click(planning.ui.addTargetButton)
    assert planning.is_marked(table, 2, NAME)
    planning.type(table, 2, NAME, "cyst")
    planning.type(table, 2, VALUE, "2")
    assert planning.is_marked(table, 1, VALUE)
    assert planning.is_marked(table, 2, VALUE)
    assert "Two targets have the value 2" in planning.ui.targetsProblemLabel.text
    planning.type(table, 2, VALUE, "3")
    choose(table.cellWidget(0, INSIDE), "cyst")
    choose(table.cellWidget(2, INSIDE), "tumour")
    assert "inside itself through its parents" in planning.ui.targetsProblemLabel.text
    planning.choose_row(table, 2)
    click(planning.ui.removeTargetButton)
    choose(table.cellWidget(0, INSIDE), "-")
    assert planning.ui.createButton.enabled


def test_a_value_without_a_target_is_refused_until_it_has_one(person: Person, source: Path) -> None:
    write_label(source / "labels" / "c.nii.gz", 1, 7)
    (source / "labels" / "z.nii.gz").unlink()
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    table = person.ui.targetsTable
    assert [row[:2] for row in person.texts(table)] == [["", "1"], ["", "2"], ["", "7"]]
    assert not person.ui.createButton.enabled
    for row, name in enumerate(("liver", "tumour", "cyst")):
        person.type(table, row, NAME, name)
    person.choose_row(table, 2)
    click(person.ui.removeTargetButton)
    assert person.is_marked(person.ui.casesTable, 2, LABEL)
    assert "holds the value 7" in person.ui.casesProblemLabel.text


def test_a_label_map_of_the_same_size_elsewhere_is_asked_about(
    person: Person, source: Path
) -> None:
    moved = np.array(GRID.ijk_to_ras)
    moved[0, 3] += 30.0
    (source / "labels" / "z.nii.gz").unlink()
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert person.ui.sameSizeBox.isHidden()
    click(person.ui.cancelButton)
    write_label(source / "labels" / "b.nii.gz", 1, geometry=Geometry(GRID.shape, moved))
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    assert "another grid" in person.ui.casesProblemLabel.text
    choose(person.ui.sameSizeBox, "voxels")
    person.create()
    assert person.logic.project.case("b").label is not None


def test_a_label_map_is_chosen_for_a_case(person: Person, source: Path, dialogs: Any) -> None:
    person.open()
    person.find(source / "project", source / "ct", source / "labels")
    person.choose_row(person.ui.casesTable, 2)
    dialogs.answer("Label map of c", str(source / "labels" / "z.nii.gz"))
    click(person.ui.labelButton)
    person.rest()
    assert person.cases()[2][LABEL] == "z.nii.gz"
    assert len(person.cases()) == 3
    person.choose_row(person.ui.casesTable, 0)
    click(person.ui.noLabelButton)
    assert [row[LABEL] for row in person.cases()] == ["", "b.nii.gz", "z.nii.gz"]
    click(person.ui.leaveOutButton)
    assert [row[CASE] for row in person.cases()] == ["b", "c"]


def test_organ_masks_are_found_and_named_like_their_target(planning: Person, source: Path) -> None:
    for name in "ac":
        write_label(source / "masks" / f"{name}.nii.gz", 1)
    assert planning.ui.organBox.currentData == "liver"
    assert planning.ui.masksButton.toolTip == "Choose a folder of organ masks."
    planning.ui.masksEdit.currentPath = str(source / "masks")
    click(planning.ui.masksButton)
    planning.rest()
    assert [row[MASKS] for row in planning.cases()] == ["liver", "", "liver"]
    planning.type(planning.ui.targetsTable, 0, NAME, "organ")
    assert [row[MASKS] for row in planning.cases()] == ["organ", "", "organ"]
    planning.create()
    assert [list(case.masks) for case in planning.logic.project.cases] == [["organ"], [], ["organ"]]


def test_a_folder_without_masks_is_told_beside_the_sources(planning: Person, source: Path) -> None:
    (source / "none").mkdir()
    planning.ui.masksEdit.currentPath = str(source / "none")
    click(planning.ui.masksButton)
    assert "holds no mask of liver" in planning.ui.sourceProblemLabel.text


def test_a_source_that_holds_nothing_is_told_beside_it(person: Person, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    person.open()
    person.find(tmp_path / "project", tmp_path / "empty")
    assert "holds no image" in person.ui.sourceProblemLabel.text
    assert not person.ui.sourceProblemLabel.isHidden()


def test_escape_leaves_the_dialog_as_cancel_does(person: Person, source: Path) -> None:
    person.open()
    person.ui.volumesEdit.currentPath = str(source / "ct")
    click(person.ui.findButton)
    person.section.dialog.reject()
    person.rest()
    assert person.section.plan is None
    person.open()
    assert person.cases() == []
    assert "Choose where the volumes are" in person.ui.summaryLabel.text


def test_the_folder_has_to_be_a_new_one(planning: Person, source: Path) -> None:
    planning.create()
    planning.open()
    assert planning.ui.folderEdit.currentPath == ""
    planning.ui.folderEdit.currentPath = str(source / "project")
    assert "holds a project already" in planning.ui.folderProblemLabel.text


@pytest.mark.parametrize(
    ("typed", "words"),
    [("", "Choose a folder for the project."), ("study", "'study' does not say where it begins")],
)
def test_a_folder_that_begins_nowhere_is_refused(planning: Person, typed: str, words: str) -> None:
    planning.ui.folderEdit.currentPath = typed
    assert words in planning.ui.folderProblemLabel.text
    assert not planning.ui.createButton.enabled


def test_an_nnunet_folder_brings_its_targets(person: Person, tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001"
    write_image(folder / "imagesTr" / "x_0000.nii.gz")
    write_label(folder / "labelsTr" / "x.nii.gz", 1, 2)
    dataset = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz", "numTraining": 1}
    labels = {"background": 0, "kidney": [1, 2], "cyst": [2]}
    (folder / "dataset.json").write_text(json.dumps({**dataset, "labels": labels}))
    person.open()
    person.find(tmp_path / "project", folder / "dataset.json")
    person.create()
    assert [(t.name, t.value, t.inside) for t in person.logic.project.targets] == [
        ("kidney", 1, None), ("cyst", 2, "kidney"),
    ]  # fmt: skip


def add_ct(name: str, seed: int) -> Any:
    from ASLsegLib.scene.volumes import add_volume

    voxels = np.random.default_rng(seed).integers(-100, 200, GRID.shape).astype(np.int16)
    return add_volume(Volume(voxels, GRID), name)


def draw(volume: Any, **masks: Any) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in masks.items():
        segment = node.GetSegmentation().AddEmptySegment("", name, (1.0, 0.0, 0.0))
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), node, segment, volume
        )
    return node


def a_mask(row: int) -> Any:
    mask = np.zeros(GRID.shape, bool)
    mask[1:3, row : row + 3, 4:9] = True
    return mask


def test_volumes_and_segmentations_of_the_scene_become_a_project(
    person: Person, tmp_path: Path
) -> None:
    first, second = add_ct("ct 1", 1), add_ct("ct 2", 2)
    draw(first, Kidney=a_mask(1), Cyst=a_mask(5))
    person.open()
    person.ui.folderEdit.currentPath = str(tmp_path / "project")
    click(person.ui.sceneButton)
    person.rest()
    assert [row[:3] for row in person.cases()] == [["ct-1", "ct 1", "drawn"], ["ct-2", "ct 2", ""]]
    targets = person.texts(person.ui.targetsTable)
    assert [(row[NAME], row[VALUE], row[COLOR]) for row in targets] == [
        ("kidney", "1", "#ff0000"), ("cyst", "2", "#ff0000"),
    ]  # fmt: skip
    choose(person.ui.targetsTable.cellWidget(1, INSIDE), "kidney")
    person.create()
    project = person.logic.project
    labels = read_labelmap(project.label_path(project.case("ct-1"))).labels
    assert np.array_equal(labels == 1, a_mask(1))
    assert np.array_equal(labels == 2, a_mask(5))
    assert project.case("ct-2").label is None
    assert person.logic.case_node("ct-1") is first
    assert person.logic.case_node("ct-2") is second
    assert sorted(path.name for path in (tmp_path / "project").iterdir() if path.is_dir()) == [
        "cache", "images", "labels",
    ]  # fmt: skip


def test_of_two_segmentations_of_a_volume_none_is_left_out_without_a_word(
    person: Person, tmp_path: Path
) -> None:
    volume = add_ct("ct", 1)
    organ, other = draw(volume, liver=a_mask(1)), draw(volume, tumour=a_mask(5))
    organ.SetName("organ")
    other.SetName("lesions")
    draw(volume, nothing=np.zeros(GRID.shape, bool))
    person.open()
    person.ui.folderEdit.currentPath = str(tmp_path / "project")
    click(person.ui.sceneButton)
    person.rest()
    assert "organ and lesions were drawn on ct" in person.ui.casesProblemLabel.text
    assert not person.ui.createButton.enabled
    slicer.mrmlScene.RemoveNode(other)
    person.ui.casesTable.selectRow(0)
    click(person.ui.leaveOutButton)
    click(person.ui.sceneButton)
    person.rest()
    assert [row[:3] for row in person.cases()] == [["ct", "ct", "organ"]]


def test_volumes_of_one_patient_of_the_dicom_browser_stay_together(
    person: Person, tmp_path: Path
) -> None:
    volumes = [add_ct(name, seed) for seed, name in enumerate(("early", "late", "other"))]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Doe^Jane")
    study = hierarchy.CreateStudyItem(patient, "CT")
    for volume in volumes[:2]:
        hierarchy.CreateItem(study, volume)
    plan = person.logic.with_scene(Plan(tmp_path / "project"))
    assert patients_of(plan) == ["early", "early", "other"]


def test_a_segment_whose_name_says_nothing_counts_by_its_terminology(
    person: Person, tmp_path: Path
) -> None:
    volume = add_ct("ct", 1)
    node = draw(volume, Segment_1=a_mask(1))
    segment = node.GetSegmentation().GetNthSegment(0)
    entry = "Segmentation~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney~^^~~^^~^^"
    segment.SetTag(segment.GetTerminologyEntryTagName(), entry)
    plan = person.logic.with_scene(Plan(tmp_path / "project"))
    plan = with_facts(plan)
    assert [(row.name, row.terminology) for row in plan.targets] == [("kidney", entry)]
    project = person.logic.write_plan(plan)
    labels = read_labelmap(project.label_path(project.case("ct"))).labels
    assert np.array_equal(labels == 1, a_mask(1))


def test_what_comes_from_the_scene_leaves_nothing_when_it_cannot_be_used(
    person: Person, tmp_path: Path
) -> None:
    first, second = add_ct("a", 1), add_ct("b", 1)  # one content under two names
    plan = with_facts(person.logic.with_scene(Plan(tmp_path / "project"), [first, second]))
    with pytest.raises(AslsegError, match="have the same image"):
        person.logic.write_plan(plan)
    assert not (tmp_path / "project").exists()


def test_an_empty_scene_is_told_beside_the_sources(person: Person) -> None:
    person.open()
    click(person.ui.sceneButton)
    assert "no volume that could be added" in person.ui.sourceProblemLabel.text


def test_a_scene_that_is_closed_takes_its_volumes_out_of_the_plan(
    person: Person, tmp_path: Path
) -> None:
    add_ct("ct", 1)
    person.open()
    person.ui.folderEdit.currentPath = str(tmp_path / "project")
    click(person.ui.sceneButton)
    person.rest()
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert person.cases() == []


def test_cases_are_added_to_the_open_project(planning: Person, source: Path) -> None:
    planning.create()
    write_image(source / "more" / "d.nii.gz")
    write_image(source / "more" / "a.nii.gz")
    click(planning.panel.ui.addCasesButton)
    assert not planning.ui.folderEdit.enabled
    assert not planning.ui.addTargetButton.enabled
    planning.ui.volumesEdit.currentPath = str(source / "more")
    click(planning.ui.findButton)
    planning.rest()
    assert "Two cases have the name 'a'" in planning.ui.casesProblemLabel.text
    planning.choose_row(planning.ui.casesTable, 0)
    click(planning.ui.leaveOutButton)
    planning.create()
    assert [case.id for case in planning.logic.project.cases] == ["a", "b", "c", "d"]


def test_volumes_that_look_like_one_patient_are_named(person: Person, tmp_path: Path) -> None:
    for name in ("a", "b"):
        voxels = a_body(0)
        voxels[0, 0, 0] += len(name)
        write_volume(
            Volume(voxels, Geometry.axis_aligned(voxels.shape, SPACING_MM)),
            tmp_path / "ct" / f"{name}.nii.gz",
        )
    person.open()
    person.find(tmp_path / "project", tmp_path / "ct")
    assert person.ui.alikeLabel.isHidden()
    click(person.ui.compareButton)
    person.rest()
    assert "a and b look like one patient" in person.ui.alikeLabel.text
    person.type(person.ui.casesTable, 1, PATIENT, "a")
    click(person.ui.compareButton)
    person.rest()
    assert "No two volumes" in person.ui.alikeLabel.text


def test_reading_forty_volumes_never_holds_the_panel(person: Person, tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / "ct" / f"ct_{number}.nii.gz")
        write_label(tmp_path / "labels" / f"ct_{number}.nii.gz", 1, 2)
    person.open()
    with measured_event_loop() as blocks:
        person.find(tmp_path / "project", tmp_path / "ct", tmp_path / "labels")
    assert len(person.cases()) == 40
    assert blocks.longest_ms < 250


def test_the_console_makes_the_same_project(person: Person, source: Path) -> None:
    from dataclasses import replace

    plan = person.logic.plan_project(source / "project", source / "ct", source / "labels")
    assert len(plan.unpaired) == 1
    made = person.logic.write_plan(replace(plan, unpaired=()))
    assert [case.id for case in made.cases] == ["a", "b", "c"]
    assert person.logic.project is made
