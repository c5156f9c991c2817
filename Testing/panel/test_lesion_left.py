"""A case that is left while a lesion in it is drawn: nothing of that is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from harness import press, write_mask
from lesion_reviewer import CASE, LIVER, TUMOUR, Reviewer, a_lesion_label

from standin.dialogs import dialogs
from standin.harness import click, run_event_loop

OTHER = "c3"
MISSED = (8, slice(15, 18), slice(30, 32))


def draw(reviewer: Reviewer, place: tuple[Any, ...] = MISSED) -> np.ndarray:
    """Draw at a place, as in the Segment Editor; return what is shown then."""
    from ASLsegLib.scene.segmentations import find_prediction

    volume = reviewer.logic.case_node(CASE)
    mask = reviewer.shown == TUMOUR
    mask[place] = True
    node = find_prediction(volume, "refined")
    write_mask(node, reviewer.logic.segment_of_drawing(), mask, volume)
    return reviewer.shown


def leave(reviewer: Reviewer) -> None:
    """Go to the other case with the buttons of the review."""
    table = reviewer.ui.reviewTable
    names = [table.item(n, 0).text() for n in range(table.rowCount)]
    table.selectRow(names.index(CASE))
    forward = names.index(OTHER) > names.index(CASE)
    reviewer.press(reviewer.ui.nextButton if forward else reviewer.ui.previousButton)
    run_event_loop(0.3)
    assert reviewer.logic.lesion_review.case_id == OTHER


def test_each_case_begins_with_its_first_undecided_lesion(reviewer: Reviewer) -> None:
    reviewer.load(OTHER)
    reviewer.load(CASE)
    assert reviewer.chosen == 1
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert reviewer.chosen == 2
    reviewer.load(OTHER)
    reviewer.load(CASE)
    chosen = reviewer.logic.lesion_review.rows[reviewer.chosen - 1]
    assert chosen.state == "undecided"
    assert reviewer.chosen == 1  # what is decided is listed last


def test_a_missed_lesion_that_was_drawn_is_accepted_after_another_case(reviewer: Reviewer) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    click(ui.lesionAddButton)
    drawn = draw(reviewer)
    leave(reviewer)
    assert not logic.is_drawing
    assert "c2" in ui.lesionLabel.text
    assert "is being drawn" in ui.lesionLabel.text
    reviewer.load(CASE)
    assert logic.is_drawing
    assert ui.lesionLabel.text.startswith("Draw the lesion")
    np.testing.assert_array_equal(reviewer.shown, drawn)
    reviewer.press(ui.lesionAcceptButton)
    assert reviewer.on_disk() == {1: "added"}
    assert logic.lesion_review.rows[3].voxels.voxels == 6
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())


def test_a_lesion_that_is_edited_is_still_that_one_where_others_were_decided(
    reviewer: Reviewer,
) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    reviewer.press(ui.lesionAcceptButton)
    lesion = logic.lesion_review.rows[1]
    logic.draw_lesion(1)
    draw(reviewer, (slice(5, 8), slice(20, 23), 23))
    leave(reviewer)
    reviewer.load(CASE)
    row = logic.drawn_row
    assert row is not None
    assert logic.lesion_review.rows[row].voxels.box == lesion.voxels.box
    assert reviewer.chosen - 1 == row
    reviewer.press(ui.lesionAcceptButton)
    assert sorted(reviewer.on_disk().values()) == ["accepted", "edited"]
    assert logic.lesion_review.rows[row].voxels.voxels == 27 + 9


def test_what_was_drawn_is_deleted_after_another_case(reviewer: Reviewer) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    click(ui.lesionAddButton)
    drawn = draw(reviewer)
    leave(reviewer)
    reviewer.load(CASE)
    reviewer.press(ui.lesionDeleteButton)
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    assert (reviewer.on_disk(), logic.is_drawing) == ({}, False)
    reviewer.load(OTHER)
    reviewer.load(CASE)
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, drawn)
    assert logic.is_drawing


def test_a_drawing_that_was_only_begun_leaves_no_trace(reviewer: Reviewer) -> None:
    click(reviewer.ui.lesionAddButton)
    leave(reviewer)
    assert "is being drawn" not in reviewer.ui.lesionLabel.text
    assert reviewer.logic.case_node(CASE) is None
    reviewer.load(CASE)
    assert not reviewer.logic.is_drawing


def test_a_prediction_that_was_removed_while_it_was_drawn_in_holds_no_other_case_up(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    click(reviewer.ui.lesionAddButton)
    draw(reviewer)
    volume = reviewer.logic.case_node(CASE)
    slicer.mrmlScene.RemoveNode(find_prediction(volume, "refined"))
    reviewer.load(OTHER)
    assert reviewer.logic.lesion_review.case_id == OTHER
    assert "is being drawn" not in reviewer.ui.lesionLabel.text


@pytest.mark.parametrize(("kind", "least"), [("Scribble", 2), ("Lasso", 3)])
def test_a_curve_that_is_being_drawn_stays_with_its_case(
    reviewer: Reviewer, kind: str, least: int
) -> None:
    from ASLsegLib.scene.prompts import prompt_nodes

    ui, logic = reviewer.ui, reviewer.logic
    button = getattr(ui, f"add{kind}Button")
    click(button)
    (node,) = prompt_nodes(logic.case_node(CASE))
    for n in range(least):
        node.AddControlPointWorld(vtk.vtkVector3d(-20.0 - 4 * n, -20.0 - 3 * n * n, 8.0))
    leave(reviewer)
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert (button.checked, prompt_nodes(logic.case_node(OTHER))) == (False, [])
    assert prompt_nodes(logic.case_node(CASE)) == [node]
    assert not node.GetDisplayNode().GetVisibility()  # it is about another patient
    reviewer.load(CASE)
    assert node.GetDisplayNode().GetVisibility()
    assert node.GetNumberOfDefinedControlPoints() == least


def test_undo_of_a_decision_takes_nothing_from_what_is_drawn(reviewer: Reviewer) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    reviewer.press(ui.lesionDeleteButton)
    click(ui.lesionAddButton)
    drawn = draw(reviewer)
    reviewer.press(ui.undoButton)
    dialogs.take("A missed lesion is being drawn; accept or delete that first")
    assert (logic.is_drawing, reviewer.on_disk()) == (True, {1: "deleted"})
    np.testing.assert_array_equal(reviewer.shown, drawn)
    reviewer.press(ui.lesionAcceptButton)
    for _ in range(2):
        reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())


@pytest.mark.parametrize("what", ["lesions", "case"])
def test_no_label_is_saved_while_a_lesion_waits_for_its_decision(
    reviewer: Reviewer, what: str
) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    while logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    click(ui.lesionAddButton)
    draw(reviewer)
    ui.reviewTable.selectRow(
        [ui.reviewTable.item(n, 0).text() for n in range(ui.reviewTable.rowCount)].index(CASE)
    )
    button = ui.lesionsDoneButton if what == "lesions" else ui.acceptButton
    reviewer.press(button)
    dialogs.take("A missed lesion is being drawn; accept or delete that first")
    assert logic.project.case(CASE).label is None
    press(reviewer.panel, "A")
    reviewer.rest()
    reviewer.press(button)
    assert logic.project.case(CASE).label is not None
    assert (reviewer.shown[MISSED] == TUMOUR).all()
    assert LIVER in reviewer.shown


@pytest.fixture
def copy(reviewer: Reviewer, tmp_path: Path) -> Path:
    """Folder of a copy of the reviewer's project, in which the same volume is a case too."""
    here = reviewer.logic.project.folder
    shutil.copytree(here.parent, tmp_path / "copy")
    return tmp_path / "copy" / here.name


def open_project(reviewer: Reviewer, folder: Path) -> None:
    """Open a project by its folder, and wait until the lesions of the case shown are listed."""
    reviewer.ui.projectFolderEdit.currentPath = str(folder)
    reviewer.press(reviewer.ui.openProjectButton)
    reviewer.rest()
    assert reviewer.logic.project.folder == folder


def test_what_is_drawn_is_kept_while_another_project_is_open(
    reviewer: Reviewer, copy: Path
) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    folder = logic.project.folder
    click(ui.lesionAddButton)
    drawn = draw(reviewer)
    open_project(reviewer, copy)
    assert not logic.is_drawing
    assert f"A lesion is being drawn in a case of {folder}" in ui.lesionLabel.text
    open_project(reviewer, folder)
    assert logic.is_drawing
    assert "is being drawn" not in ui.lesionLabel.text
    np.testing.assert_array_equal(reviewer.shown, drawn)
    reviewer.press(ui.lesionAcceptButton)
    assert reviewer.on_disk() == {1: "added"}


def test_prompts_of_a_lesion_are_taken_out_after_another_project(
    reviewer: Reviewer, copy: Path
) -> None:
    from ASLsegLib.scene.prompts import add_point, prompt_nodes

    logic, ui = reviewer.logic, reviewer.ui
    folder, volume = logic.project.folder, logic.case_node(CASE)
    reviewer.press(ui.lesionAcceptButton)
    logic.draw_lesion(None)
    ui.followEditsBox.checked = False
    add_point(volume, "tumour", (16.0, 30.0), 8)
    reviewer.rest()
    open_project(reviewer, copy)
    assert [one.word for one in logic.history.done] == ["place positive point, slice 8"]
    open_project(reviewer, folder)
    assert logic.is_drawing
    reviewer.press(ui.lesionDeleteButton)
    assert [node.GetNumberOfControlPoints() for node in prompt_nodes(volume)] in ([], [0])


def test_undo_takes_no_decision_back_in_another_project(reviewer: Reviewer, copy: Path) -> None:
    from aslseg.project.lesion_decisions import read_lesions

    logic, first = reviewer.logic, reviewer.logic.project
    reviewer.press(reviewer.ui.lesionDeleteButton)
    logic.forget_lesions()
    open_project(reviewer, copy)
    assert not reviewer.ui.undoButton.enabled
    assert read_lesions(first, CASE).decisions[1].what == "deleted"
    assert read_lesions(logic.project, CASE).decisions == {}
