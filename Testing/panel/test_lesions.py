"""A person reviews a case lesion by lesion: list, keys, drawing, undo, and the label at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import press, put_under, read_mask, wait_for_files, write_labels, write_mask
from lesion_reviewer import CASE, LIVER, TUMOUR, Reviewer, a_lesion_label, give_lesions
from PySide6 import QtCore

from standin.dialogs import dialogs
from standin.harness import click, run_event_loop, wait_until


def test_lesions_are_listed_measured_and_shown_large(reviewer: Reviewer) -> None:
    table = reviewer.ui.lesionTable
    assert len(reviewer.rows) == 3
    volumes = [float(table.item(n, 1).text()) for n in range(3)]
    assert volumes == pytest.approx([48 * 0.016, 27 * 0.016, 8 * 0.016], abs=0.01)
    assert reviewer.chosen == 1
    assert "0 of 3 lesions decided" in reviewer.ui.lesionLabel.text
    centre = reviewer.logic.lesion_review.rows[0].size.centre_ras
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        assert min(node.GetFieldOfView()[:2]) == pytest.approx(60.0)
    red = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(centre[2], abs=0.1)


def test_accept_and_delete_go_to_the_next_one_and_are_kept(reviewer: Reviewer) -> None:
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert (reviewer.rows[0], reviewer.chosen) == ("accepted", 2)
    reviewer.press(reviewer.ui.lesionDeleteButton)
    assert (reviewer.rows[1], reviewer.chosen) == ("deleted", 3)
    assert reviewer.on_disk() == {1: "accepted", 2: "deleted"}
    expected = a_lesion_label()
    expected[5:8, 20:23, 20:23] = LIVER
    np.testing.assert_array_equal(reviewer.shown, expected)


def test_everything_is_undone_and_redone(reviewer: Reviewer) -> None:
    reviewer.press(reviewer.ui.lesionDeleteButton)
    assert reviewer.ui.undoButton.text == "Undo: delete lesion 1"
    reviewer.press(reviewer.ui.undoButton)
    assert reviewer.on_disk() == {}
    assert "accepted" not in reviewer.rows
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    assert reviewer.ui.redoButton.text == "Redo: delete lesion 1"
    reviewer.press(reviewer.ui.redoButton)
    assert reviewer.on_disk() == {1: "deleted"}
    assert (reviewer.shown[3:6, 10:14, 10:14] == LIVER).all()


def test_a_decision_is_there_when_the_case_is_loaded_again(reviewer: Reviewer) -> None:
    reviewer.press(reviewer.ui.lesionDeleteButton)
    slicer.mrmlScene.Clear()
    run_event_loop(0.1)
    reviewer.load(CASE)
    assert reviewer.rows[-1] == "deleted"
    assert (reviewer.shown[3:6, 10:14, 10:14] == LIVER).all()


def test_a_lesion_is_edited_in_the_segment_editor_and_the_place_is_kept(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    before = [n.GetFieldOfView()[0] for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    click(reviewer.ui.lesionEditButton)
    assert slicer.util.selectedModule() == "SegmentEditor"
    volume = reviewer.logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    segment = reviewer.logic.segment_of_drawing()
    mask = a_lesion_label() == TUMOUR
    mask[3:6, 10:14, 14] = True
    write_mask(node, segment, mask, volume)
    for view in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        view.SetFieldOfView(500.0, 500.0, 1.0)
    slicer.util.selectModule("ASLseg")
    reviewer.rest()
    assert (reviewer.rows[0], reviewer.chosen) == ("edited", 1)
    assert reviewer.logic.lesion_review.rows[0].voxels.voxels == 48 + 12
    after = [n.GetFieldOfView()[0] for n in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
    assert after == pytest.approx(before)
    reviewer.press(reviewer.ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())


def draw_into(reviewer: Reviewer, mask: np.ndarray) -> None:
    """Let the final label show these tumours, as drawn by Correct…."""
    from ASLsegLib.scene.segmentations import find_prediction, latest_segments

    volume = reviewer.logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    segment = latest_segments(node, reviewer.logic.targets())["tumour"]
    write_mask(node, segment, mask, volume)


def final_voxels(reviewer: Reviewer) -> dict[int, tuple[str, int]]:
    from aslseg.project.lesion_decisions import read_lesions

    found = read_lesions(reviewer.logic.project, CASE).decisions
    return {n: (one.what, one.final.voxels if one.final else 0) for n, one in found.items()}


def test_a_lesion_that_was_corrected_is_accepted_as_it_is_shown(reviewer: Reviewer) -> None:
    drawn = a_lesion_label() == TUMOUR
    drawn[3:6, 10:14, 14:17] = True
    draw_into(reviewer, drawn)
    after = reviewer.shown
    reviewer.press(reviewer.ui.lesionAcceptButton)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert final_voxels(reviewer) == {1: ("edited", 48 + 36), 2: ("accepted", 27)}
    assert reviewer.logic.lesion_review.rows[0].volume_ml == pytest.approx(84 * 0.016)
    for _ in range(2):
        reviewer.press(reviewer.ui.undoButton)
        np.testing.assert_array_equal(reviewer.shown, after)
    assert reviewer.on_disk() == {}
    reviewer.press(reviewer.ui.redoButton)
    assert final_voxels(reviewer) == {1: ("edited", 84)}
    drawn[3:6, 10:14, 10] = False
    draw_into(reviewer, drawn)
    reviewer.ui.lesionTable.selectRow(0)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert final_voxels(reviewer) == {1: ("edited", 72)}


def test_a_lesion_that_was_corrected_is_edited_and_deleted_as_it_is_shown(
    reviewer: Reviewer,
) -> None:
    drawn = a_lesion_label() == TUMOUR
    drawn[3:6, 10:14, 14:17] = True
    draw_into(reviewer, drawn)
    before = reviewer.shown
    reviewer.logic.draw_lesion(0)
    drawn[3:6, 10:14, 17] = True
    draw_into(reviewer, drawn)
    reviewer.logic.take_drawn()
    assert final_voxels(reviewer) == {1: ("edited", 84 + 12)}
    reviewer.logic.undo()
    np.testing.assert_array_equal(reviewer.shown, before)
    reviewer.press(reviewer.ui.lesionDeleteButton)
    assert list(final_voxels(reviewer).values()) == [("deleted", 0)]
    assert (reviewer.shown[3:6, 10:14, 10:18] == LIVER).all()
    reviewer.press(reviewer.ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, before)


def test_a_lesion_of_which_nothing_is_shown_any_more_is_not_accepted(reviewer: Reviewer) -> None:
    drawn = a_lesion_label() == TUMOUR
    drawn[3:6, 10:14, 10:14] = False
    draw_into(reviewer, drawn)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    dialogs.take("shows nothing of lesion 1 any more")
    assert reviewer.on_disk() == {}
    reviewer.press(reviewer.ui.lesionDeleteButton)
    assert reviewer.on_disk() == {1: "deleted"}


def test_a_lesion_is_accepted_as_it_is_shown_also_when_it_was_hidden_or_is_gone(
    reviewer: Reviewer,
) -> None:
    logic, drawn = reviewer.logic, a_lesion_label() == TUMOUR
    drawn[3:6, 10:14, 14:17] = True
    draw_into(reviewer, drawn)
    logic.refined_node(CASE).GetDisplayNode().SetVisibility(False)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    dialogs.take("so nothing was accepted. It is shown now")
    assert reviewer.on_disk() == {}
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert final_voxels(reviewer) == {1: ("edited", 84)}
    slicer.mrmlScene.RemoveNode(logic.refined_node(CASE))
    reviewer.press(reviewer.ui.lesionAcceptButton)
    dialogs.take("is not in the scene any more; load it again")
    assert reviewer.on_disk() == {1: "edited"}


def test_what_another_run_shows_in_place_of_a_lesion_is_accepted_as_shown(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.provenance import read_provenance
    from ASLsegLib.scene.segmentations import latest_segments

    logic, volume = reviewer.logic, reviewer.logic.case_node(CASE)
    segmentation = logic.refined_node(CASE).GetSegmentation()
    segment = latest_segments(logic.refined_node(CASE), logic.targets())["tumour"]
    known = read_provenance(segmentation.GetSegment(segment))
    labels = a_lesion_label()
    labels[3, 10:14, 10:14] = LIVER
    write_labels(volume, labels, logic.targets(), replace(known, run="another"))
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert final_voxels(reviewer) == {1: ("edited", 32)}


def draw_missed(reviewer: Reviewer) -> None:
    """Draw one more lesion, as in the Segment Editor."""
    from ASLsegLib.scene.segmentations import find_prediction

    volume = reviewer.logic.case_node(CASE)
    mask = a_lesion_label() == TUMOUR
    mask[8, 15:18, 30:32] = True
    node = find_prediction(volume, "refined")
    write_mask(node, reviewer.logic.segment_of_drawing(), mask, volume)


def test_a_missed_lesion_is_added_as_drawn(reviewer: Reviewer) -> None:
    click(reviewer.ui.lesionAddButton)
    assert reviewer.panel.parameters.target == "tumour"
    draw_missed(reviewer)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert reviewer.rows[3] == "added"
    assert reviewer.on_disk() == {1: "added"}
    reviewer.press(reviewer.ui.undoButton)
    assert len(reviewer.rows) == 3
    assert (reviewer.shown[8, 15:18, 30:32] == LIVER).all()
    reviewer.press(reviewer.ui.redoButton)
    assert len(reviewer.rows) == 4
    assert (reviewer.shown[8, 15:18, 30:32] == TUMOUR).all()


def test_a_lesion_that_grew_is_added_and_taken_back(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.growths import add_growth
    from ASLsegLib.scene.segmentations import find_prediction

    click(reviewer.ui.lesionAddButton)
    assert reviewer.panel.parameters.eachBoxGrows
    volume = reviewer.logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    grown = np.zeros(a_lesion_label().shape, bool)
    grown[8, 15:18, 30:32] = True
    target = next(one for one in reviewer.logic.targets() if one.name == "tumour")
    write_mask(node, add_growth(node, target, 8), grown, volume)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert reviewer.logic.lesion_review.rows[3].voxels.voxels == 6
    assert (reviewer.shown[grown] == TUMOUR).all()
    reviewer.press(reviewer.ui.undoButton)
    assert (reviewer.shown[grown] == LIVER).all()


@pytest.mark.parametrize("name", ["liver", "tumour"])
def test_lesions_are_decided_in_the_segments_that_are_saved(reviewer: Reviewer, name: str) -> None:
    """Beside what was edited lies what was predicted since, which is not saved."""
    from ASLsegLib.scene.provenance import read_provenance
    from ASLsegLib.scene.segmentations import find_prediction

    volume, targets = reviewer.logic.case_node(CASE), reviewer.logic.targets()
    segmentation = find_prediction(volume, "refined").GetSegmentation()
    segment_id = segmentation.GetSegmentIdBySegmentName(name)
    mask = a_lesion_label() == {"liver": LIVER, "tumour": TUMOUR}[name]
    mask[5, 20, 20:23] = mask[2, 8, 8:11] = False
    write_mask(find_prediction(volume, "refined"), segment_id, mask, volume)
    provenance = read_provenance(segmentation.GetSegment(segment_id))
    write_labels(volume, a_lesion_label(), targets, provenance, may_replace=lambda _: False)
    assert segmentation.GetNumberOfSegments() == 3
    reviewer.panel.update()
    reviewer.press(reviewer.ui.lesionDeleteButton)
    assert (reviewer.shown[3:6, 10:14, 10:14] == LIVER).all()
    reviewer.press(reviewer.ui.undoButton)
    assert (reviewer.shown[3:6, 10:14, 10:14] == TUMOUR).all()
    reviewer.logic.draw_lesion(None)
    drawn_in = segmentation.GetSegment(reviewer.logic.segment_of_drawing())
    assert drawn_in.GetName() == "tumour"


def test_a_case_stays_in_the_scene_while_the_engine_works_on_it(
    reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    logic = reviewer.logic
    volume = logic.working_on = logic.case_node(CASE)
    with monkeypatch.context() as patch:
        patch.setattr(type(logic.engine), "is_busy", property(lambda _: True))
        assert not logic.release_case(CASE)
    assert logic.case_node(CASE) is volume
    assert logic.release_case(CASE)
    assert logic.case_node(CASE) is None


def test_a_run_whose_files_are_gone_is_not_taken_for_one_of_another_round(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    folder = reviewer.logic.project.folder
    folder.rename(folder.with_name("moved"))  # or its network share is not connected
    with pytest.raises(SceneError, match=r"not there any more .*; connect the disk"):
        reviewer.logic.load_lesions(CASE)


def test_no_lesion_is_decided_about_while_an_answer_would_change_it(
    reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segment was pressed before: what comes would count as drawn, or change what is decided."""
    from ASLsegLib.scene.prompts import box_node
    from ASLsegLib.scene.volumes import SceneError

    logic, ui, awaited = reviewer.logic, reviewer.ui, "A result about case c2 is awaited"
    volume = logic.working_on = logic.case_node(CASE)
    logic._asked_to = "segment"
    with monkeypatch.context() as patch:
        patch.setattr(type(logic.engine), "is_busy", property(lambda _: True))
        for act in (logic.draw_lesion, logic.accept_lesion, logic.delete_lesion):
            with pytest.raises(SceneError, match=awaited):
                act(0)
        logic._asked_to = "fill_between"  # which leaves lesions as they are
        logic.accept_lesion(0)
        with pytest.raises(SceneError, match=awaited):
            logic.draw_lesion(1)
    assert (reviewer.on_disk(), logic.is_drawing) == ({1: "accepted"}, False)
    click(ui.lesionAddButton)
    box_node(volume, "tumour", (15.0, 15.0, 19.0, 19.0), 4)
    click(ui.lesionAcceptButton)  # before SAM is asked
    assert "Nothing of the lesion has changed yet" in dialogs.take("changed yet").text
    assert logic.is_drawing
    with monkeypatch.context() as patch:
        patch.setattr(type(logic.engine), "is_busy", property(lambda _: True))
        logic.working_on, logic._asked_to = volume, "refine"
        with pytest.raises(SceneError, match=awaited):
            logic.take_drawn()
    reviewer.press(ui.lesionDeleteButton)
    assert (reviewer.on_disk(), logic.is_drawing) == ({1: "accepted"}, False)


@pytest.mark.parametrize("each_box_grows", [True, False])
def test_no_lesion_is_decided_about_before_its_last_prompt_is_sent(
    reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch, each_box_grows: bool
) -> None:
    """Prompts rest for a moment before SAM is asked: what it says would be painted afterwards."""
    from ASLsegLib.scene.prompts import box_node, remove_prompt
    from ASLsegLib.scene.segmentations import find_prediction

    for section in ("prompts", "growth"):
        monkeypatch.setattr(sys.modules[f"ASLsegLib.widgets.{section}"], "SETTLE_S", 3600.0)
    logic, ui, unsent = reviewer.logic, reviewer.ui, "The last prompts in case c2"
    volume = logic.case_node(CASE)
    for target in ("tumour", ""):  # chosen, and nothing placed
        reviewer.panel.prompt_wanted.emit(target)
    box = box_node(volume, "tumour", (15.0, 15.0, 19.0, 19.0), 4)
    reviewer.panel.parameters.eachBoxGrows = each_box_grows
    reviewer.panel.update()
    for button in (ui.lesionAcceptButton, ui.lesionDeleteButton, ui.lesionAddButton):
        click(button)
        dialogs.take(unsent)
    assert (reviewer.on_disk(), logic.is_drawing) == ({}, False)
    remove_prompt(box)
    run_event_loop(0.05)
    click(ui.lesionAddButton)
    reviewer.panel.parameters.eachBoxGrows = each_box_grows
    mask = a_lesion_label() == TUMOUR
    mask[8, 15:18, 30:32] = True
    write_mask(find_prediction(volume, "refined"), logic.segment_of_drawing(), mask, volume)
    box_node(volume, "tumour", (15.0, 15.0, 19.0, 19.0), 4)
    click(ui.lesionAcceptButton)
    dialogs.take(unsent)
    assert (reviewer.on_disk(), logic.is_drawing) == ({}, True)
    reviewer.panel.parameters.followEdits = reviewer.panel.parameters.eachBoxGrows = False
    reviewer.press(ui.lesionAcceptButton)  # SAM is asked by its button alone
    assert reviewer.on_disk() == {1: "added"}


@pytest.mark.parametrize("is_missed", [True, False])
def test_a_lesion_that_cannot_be_written_is_still_being_drawn(
    reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch, is_missed: bool
) -> None:
    from aslseg.errors import StorageError

    def full(*_: Any, **__: Any) -> None:
        msg = "Cannot write: the disk is full; free some space and try again."
        raise StorageError(msg)

    reviewer.logic.draw_lesion(None if is_missed else 0)
    draw_missed(reviewer)
    before = list(reviewer.logic.lesion_review.rows)
    with monkeypatch.context() as patch:
        patch.setattr("aslseg.project.lesion_decisions.put_lesion", full)
        with pytest.raises(StorageError, match="disk is full"):
            reviewer.logic.take_drawn()
    assert reviewer.logic.is_drawing
    assert reviewer.logic.lesion_review.rows == before
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert list(reviewer.on_disk().values()) == ["added" if is_missed else "edited"]


def test_handles_of_boxes_go_when_their_lesion_or_case_is_decided(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.prompts import box_node

    ui, volume = reviewer.ui, reviewer.logic.case_node(CASE)
    ui.followEditsBox.checked = False

    def has_handles(node: Any) -> bool:
        return bool(node.GetDisplayNode().GetHandlesInteractive())

    reviewer.logic.draw_lesion(None)
    drawn = box_node(volume, "tumour", (30, 15, 32, 18), 8)
    wait_until(lambda: "box, slice 8" in str(ui.undoButton.toolTip), 10.0)
    draw_missed(reviewer)
    assert has_handles(drawn)
    reviewer.press(ui.lesionAcceptButton)
    other = box_node(volume, "liver", (8, 8, 34, 34), 5)
    wait_until(lambda: "box, slice 5" in str(ui.undoButton.toolTip), 10.0)
    assert (has_handles(drawn), has_handles(other)) == (False, True)
    while reviewer.logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    assert has_handles(other)
    reviewer.press(ui.lesionsDoneButton)
    assert (has_handles(drawn), has_handles(other)) == (False, False)
    reviewer.press(ui.undoButton)
    assert (has_handles(drawn), has_handles(other)) == (False, True)
    reviewer.press(ui.redoButton)
    assert not has_handles(other)
    while reviewer.on_disk():
        assert not has_handles(drawn)
        reviewer.press(ui.undoButton)
    assert has_handles(drawn)


def test_a_missed_lesion_that_is_deleted_leaves_nothing_of_what_was_drawn(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.growths import add_growth
    from ASLsegLib.scene.prompts import box_node, read_prompts
    from ASLsegLib.scene.segmentations import find_prediction

    before, ui, logic = reviewer.shown, reviewer.ui, reviewer.logic
    volume = logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    click(ui.lesionAddButton)
    drawn, grown = before == TUMOUR, np.zeros(before.shape, bool)
    drawn[8, 15:18, 4:12] = True  # reaches out of the liver
    drawn[3:6, 10:12, 10:14] = False  # half of another lesion
    grown[8, 24:27, 24:26] = True
    target = next(one for one in logic.targets() if one.name == "tumour")
    write_mask(node, logic.segment_of_drawing(), drawn, volume)
    write_mask(node, add_growth(node, target, 8), grown, volume)
    box_node(volume, "tumour", (24, 24, 26, 27), 8)
    assert len(read_prompts(volume, [])) == 1
    changed = reviewer.shown
    assert (changed[drawn | grown] == TUMOUR).all()

    ui.lesionTable.selectRow(2)
    reviewer.press(ui.lesionDeleteButton)
    np.testing.assert_array_equal(reviewer.shown, before)
    assert (reviewer.on_disk(), len(reviewer.rows), logic.is_drawing) == ({}, 3, False)
    assert read_prompts(volume, []) == []
    assert ui.undoButton.text.startswith("Undo: delete drawn")
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, changed)
    assert logic.is_drawing
    assert len(read_prompts(volume, [])) == 1
    reviewer.press(ui.redoButton)
    np.testing.assert_array_equal(reviewer.shown, before)
    assert read_prompts(volume, []) == []


def test_a_lesion_that_is_deleted_while_it_is_edited_is_gone_as_drawn(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.segmentations import find_prediction
    from ASLsegLib.scene.volumes import SceneError

    before, logic, ui = reviewer.shown, reviewer.logic, reviewer.ui
    logic.draw_lesion(0)
    mask = before == TUMOUR
    mask[3:6, 10:14, 14:17] = True
    volume = logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    write_mask(node, logic.segment_of_drawing(), mask, volume)
    with pytest.raises(SceneError, match="Lesion 1 is being drawn"):
        logic.delete_lesion(1)
    reviewer.press(ui.lesionDeleteButton)
    assert reviewer.on_disk() == {1: "deleted"}
    after = before.copy()
    after[3:6, 10:14, 10:14] = LIVER
    np.testing.assert_array_equal(reviewer.shown, after)
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, before)
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, np.where(mask, TUMOUR, before))
    assert logic.drawn_row == 0


def test_the_key_again_stops_an_empty_drawing_and_loses_no_other(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.prompts import box_node
    from ASLsegLib.scene.segmentations import find_prediction

    ui, logic = reviewer.ui, reviewer.logic
    click(ui.lesionAddButton)
    assert ui.addBoxButton.checked
    click(ui.lesionAddButton)
    assert (logic.is_drawing, ui.addBoxButton.checked) == (False, False)
    click(ui.lesionAddButton)
    volume = logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    mask = a_lesion_label() == TUMOUR
    mask[8, 15:18, 30:32] = True
    write_mask(node, logic.segment_of_drawing(), mask, volume)
    for button in (ui.lesionAddButton, ui.lesionEditButton):
        click(button)
        dialogs.take("A missed lesion is being drawn; accept or delete that first")
    reviewer.press(ui.lesionAcceptButton)
    assert reviewer.logic.lesion_review.rows[3].voxels.voxels == 6
    assert reviewer.on_disk() == {1: "added"}
    click(ui.lesionAddButton)
    box_node(volume, "tumour", (24, 24, 26, 27), 8)
    assert not logic.stop_drawing()  # a box that has not grown is something too


def test_a_lesion_that_is_edited_goes_on_being_edited(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    logic = reviewer.logic
    logic.draw_lesion(0)
    volume = logic.case_node(CASE)
    mask = a_lesion_label() == TUMOUR
    mask[3:6, 10:14, 14] = True
    node = find_prediction(volume, "refined")
    write_mask(node, logic.segment_of_drawing(), mask, volume)
    logic.draw_lesion(0)
    logic.take_drawn()
    assert (reviewer.on_disk(), logic.lesion_review.rows[0].voxels.voxels) == (
        {1: "edited"},
        48 + 12,
    )


@pytest.mark.parametrize("how", ["added", "edited"])
def test_what_was_drawn_outside_of_the_organ_is_none_of_it_when_the_lesion_goes(
    reviewer: Reviewer, how: str
) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    logic, before = reviewer.logic, reviewer.shown
    row = None if how == "added" else 0
    logic.draw_lesion(row)
    volume = logic.case_node(CASE)
    mask = before == TUMOUR
    mask[3:6, 10:14, 4:10] = True  # the liver begins at 8; the first lesion at 10
    node = find_prediction(volume, "refined")
    write_mask(node, logic.segment_of_drawing(), mask, volume)
    row = logic.take_drawn()
    after = np.where(mask, TUMOUR, before)
    gone = before.copy()
    if how == "edited":
        gone[3:6, 10:14, 10:14] = LIVER

    logic.delete_lesion(row)
    np.testing.assert_array_equal(reviewer.shown, gone)
    for act, expected in ((logic.undo, after), (logic.undo, before), (logic.redo, after)):
        act()
        np.testing.assert_array_equal(reviewer.shown, expected)
    slicer.mrmlScene.Clear()
    run_event_loop(0.1)
    reviewer.load(CASE)
    np.testing.assert_array_equal(reviewer.shown, after)
    (row,) = (n for n, one in enumerate(logic.lesion_review.rows) if one.state == how)
    logic.delete_lesion(row)
    np.testing.assert_array_equal(reviewer.shown, gone)


@pytest.mark.parametrize("is_accepted", [True, False])
def test_a_corrected_lesion_that_is_deleted_leaves_no_organ_where_it_stuck_out(
    reviewer: Reviewer, is_accepted: bool
) -> None:
    logic, before = reviewer.logic, reviewer.shown
    mask = before == TUMOUR
    mask[3:6, 10:14, :10] = True  # the liver begins at 8; the first lesion at 10
    draw_into(reviewer, mask)
    drawn = reviewer.shown
    if is_accepted:
        logic.accept_lesion(0)
    logic.delete_lesion(0)
    gone = before.copy()
    gone[3:6, 10:14, 10:14] = LIVER
    np.testing.assert_array_equal(reviewer.shown, gone)
    for act, expected in ((logic.undo, drawn), (logic.redo, gone)):
        act()
        np.testing.assert_array_equal(reviewer.shown, expected)


def test_an_organ_that_was_repaired_stays_where_a_lesion_in_it_is_deleted(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    volume = reviewer.logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    liver = reviewer.shown == LIVER
    liver[2:10, 8:34, 4:8] = True  # before, it began at 8
    write_mask(node, node.GetSegmentation().GetSegmentIdBySegmentName("liver"), liver, volume)
    repaired = reviewer.shown
    mask = repaired == TUMOUR
    mask[3:6, 10:14, 5:10] = True
    mask[7:9, 33:36, 12:14] = True  # below the liver, beside no repaired part of it
    mask[7:9, 30:33, 12:14] = True
    draw_into(reviewer, mask)
    for box in ((3, 10, 10), (7, 28, 12)):
        rows = reviewer.logic.lesion_review.rows
        reviewer.logic.delete_lesion([one.found.box.start for one in rows].index(box))
    repaired[3:6, 10:14, 10:14] = repaired[7:9, 28:30, 12:14] = LIVER
    np.testing.assert_array_equal(reviewer.shown, repaired)


def test_nothing_of_a_grown_lesion_is_kept_when_its_case_is_left(reviewer: Reviewer) -> None:
    from ASLsegLib.logic.growth import Growth
    from ASLsegLib.scene.growths import add_growth
    from ASLsegLib.scene.segmentations import find_prediction

    logic = reviewer.logic
    click(reviewer.ui.lesionAddButton)
    volume = logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    grown = np.zeros(a_lesion_label().shape, bool)
    grown[8, 15:18, 30:32] = True
    target = next(one for one in logic.targets() if one.name == "tumour")
    growth = Growth(volume, node, add_growth(node, target, 8), target, 8)
    write_mask(node, growth.segment_id, grown, volume)
    logic._grown.append(growth)
    while logic.is_drawing or logic.lesion_review.undecided:
        reviewer.press(reviewer.ui.lesionAcceptButton)
    assert logic.growths == [growth]
    assert not logic.release_case(CASE)  # the lesions are kept, the label is not saved yet
    reviewer.press(reviewer.ui.lesionsDoneButton)
    assert logic.release_case(CASE)
    assert logic.growths == []


def test_a_case_is_done_when_there_is_no_more(reviewer: Reviewer) -> None:
    ui, project = reviewer.ui, reviewer.logic.project
    assert not ui.lesionsDoneButton.enabled
    assert "3 lesions are undecided" in ui.lesionsDoneButton.toolTip
    reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.lesionDeleteButton)
    assert project.case(CASE).label is None
    reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.lesionsDoneButton)
    done = reviewer.logic.project
    np.testing.assert_array_equal(done.load_labels(done.case(CASE)).labels, reviewer.shown)
    assert ui.undoButton.text == f"Undo: {CASE}: corrected"
    reviewer.press(ui.undoButton)
    assert reviewer.logic.project.case(CASE).label is None
    reviewer.press(ui.redoButton)
    done = reviewer.logic.project
    np.testing.assert_array_equal(done.load_labels(done.case(CASE)).labels, reviewer.shown)


def test_a_case_that_is_done_is_not_saved_again_before_it_is_drawn_in(reviewer: Reviewer) -> None:
    import qt

    from ASLsegLib.scene.segmentations import find_prediction

    ui, logic = reviewer.ui, reviewer.logic
    while logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.lesionsDoneButton)
    reviewer.press(ui.lesionsDoneButton)
    dialogs.take("Case c2 is done already: what is shown is its label.")
    assert ui.undoButton.text == f"Undo: {CASE}: corrected"
    volume = logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    drawn = reviewer.shown == TUMOUR
    drawn[8, 15:18, 30:32] = True
    write_mask(node, node.GetSegmentation().GetSegmentIdBySegmentName("tumour"), drawn, volume)
    dialogs.answer("has a label already", qt.QMessageBox.Yes)
    reviewer.press(ui.lesionsDoneButton)
    labels = logic.project.load_labels(logic.project.case(CASE)).labels
    assert (labels[8, 15:18, 30:32] == TUMOUR).all()


def test_a_label_with_a_drawn_lesion_is_a_persons_again_when_it_is_done_again(
    reviewer: Reviewer,
) -> None:
    ui = reviewer.ui
    reviewer.logic.draw_lesion(None)
    draw_missed(reviewer)
    reviewer.press(ui.lesionAcceptButton)
    while reviewer.logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.lesionsDoneButton)
    reviewer.press(ui.undoButton)
    reviewer.press(ui.redoButton)
    refined = reviewer.logic.predictions(reviewer.logic.case_node(CASE))["refined"]
    assert refined.GetName() == f"{CASE} - label"
    assert reviewer.logic.release_case(CASE)


@pytest.mark.parametrize("whole", [False, True])
def test_no_lesion_is_decided_about_beside_a_label_that_would_not_change(
    reviewer: Reviewer, whole: bool
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    ui = reviewer.ui
    while not whole and reviewer.logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.acceptButton if whole else ui.lesionsDoneButton)
    decided = reviewer.on_disk()
    for name in ("lesionAccept", "lesionDelete", "lesionEdit", "lesionAdd"):
        button = getattr(ui, f"{name}Button")
        reason = "The case has a label; undo that decision first."
        assert (button.enabled, button.toolTip) == (False, reason), name
    for act in (reviewer.logic.delete_lesion, reviewer.logic.draw_lesion):
        with pytest.raises(SceneError, match="which decisions about lesions do not"):
            act(0)
    assert reviewer.on_disk() == decided
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    reviewer.press(ui.undoButton)
    assert ui.lesionDeleteButton.enabled


def test_what_the_run_left_out_is_listed_last_and_holds_nothing_up(
    open_module: Callable[..., Any], trained: Path
) -> None:
    from aslseg.data.images import read_labelmap
    from aslseg.data.volume import Labelmap
    from aslseg.project.candidate_table import CandidateRow, write_candidates
    from aslseg.project.run_folder import open_run

    run = open_run(give_lesions(trained))
    predictions = run.predictions(run.best_round, CASE)
    geometry = read_labelmap(predictions / "refined.nii.gz").geometry
    cores = np.zeros(geometry.shape, np.uint8)
    cores[4:7, 28:31, 28:31] = 1
    origin = (0.0, 0.0, 0.0)
    row = CandidateRow(CASE, "tumour", 1, origin, origin, 0.4, 0.45, 0.5, accepted=False)
    write_candidates(predictions, [row], Labelmap(cores, geometry), [])
    reviewer = Reviewer(open_module(), trained)
    assert reviewer.rows[3].startswith("left out: probability 0.45 is near the limit 0.50")
    assert "0 of 3 lesions decided. The run left out 1 more" in reviewer.ui.lesionLabel.text
    for _ in range(3):
        reviewer.press(reviewer.ui.lesionAcceptButton)
    assert reviewer.ui.lesionsDoneButton.enabled
    reviewer.ui.lesionTable.selectRow(3)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert "4 of 4 lesions decided" in reviewer.ui.lesionLabel.text
    reviewer.press(reviewer.ui.undoButton)
    reviewer.press(reviewer.ui.lesionsDoneButton)
    done = reviewer.logic.project
    labels = done.load_labels(done.case(CASE)).labels
    np.testing.assert_array_equal(labels, reviewer.shown)
    assert (labels[cores > 0] == LIVER).all()


def test_what_is_done_again_leaves_a_label_that_was_saved_elsewhere_meanwhile(
    reviewer: Reviewer,
) -> None:
    from aslseg.data.volume import Labelmap
    from ASLsegLib.scene.volumes import SceneError

    ui = reviewer.ui
    for button in (*[ui.lesionAcceptButton] * 3, ui.lesionsDoneButton, ui.undoButton):
        reviewer.press(button)
    project = reviewer.logic.project
    geometry = project.load_image(project.case(CASE)).geometry
    theirs = Labelmap(np.ones(geometry.shape, np.uint8), geometry)
    saved = project.save_label(CASE, theirs)
    with pytest.raises(SceneError, match="label of case c2 was changed by another program"):
        reviewer.logic.history.redo()
    np.testing.assert_array_equal(saved.load_labels(saved.case(CASE)).labels, theirs.labels)


def test_the_key_of_the_next_lesion_begins_a_review_too(reviewer: Reviewer) -> None:
    names = [reviewer.ui.reviewTable.item(n, 0).text() for n in range(2)]
    slicer.mrmlScene.Clear()
    run_event_loop(0.1)
    assert reviewer.logic.lesion_review is None
    press(reviewer.panel, "N")
    reviewer.rest()
    assert reviewer.logic.lesion_review.case_id in names


def test_after_the_last_lesion_comes_the_next_case_without_a_decision(reviewer: Reviewer) -> None:
    ui, table = reviewer.ui, reviewer.ui.reviewTable
    names = [table.item(row, 0).text() for row in range(table.rowCount)]
    table.selectRow(names.index(CASE))
    for _ in range(3):
        reviewer.press(ui.lesionAcceptButton)
    reviewer.press(ui.lesionsDoneButton)
    assert table.item(table.rowCount - 1, 0).text() == CASE  # those with a decision come last
    reviewer.press(ui.lesionNextButton)
    other = next(name for name in names if name != CASE)
    wait_until(lambda: reviewer.logic.case_node(other) is not None, 60.0, "the next case is there")


def test_decisions_are_about_the_round_that_is_shown_whatever_is_trained_meanwhile(
    reviewer: Reviewer, trained: Path
) -> None:
    from aslseg.errors import AslsegError
    from aslseg.project.lesion_decisions import read_lesions
    from aslseg.project.run_folder import open_run
    from ASLsegLib.scene.volumes import SceneError

    run = open_run(trained)
    seen = run.best_round
    run.write_status(best_round=seen + 1)  # as a training in the background does
    reviewer.press(reviewer.ui.lesionAcceptButton)
    decisions = read_lesions(reviewer.logic.project, CASE).decisions
    assert {(one.run, one.round) for one in decisions.values()} == {(run.run_id, seen)}
    with pytest.raises(AslsegError, match="2 lesions of case c2 are undecided"):
        reviewer.logic.finish_lesions()
    with pytest.raises(SceneError, match=rf"case c2 as in round {seen} of .* round {seen + 1} "):
        reviewer.logic.load_lesions(CASE)


def test_a_case_is_reviewed_from_the_latest_that_predicted_it(
    reviewer: Reviewer, trained: Path, tmp_path: Path
) -> None:
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.project.lesion_decisions import read_lesions
    from aslseg.project.run_folder import open_run

    logic, ui, run = reviewer.logic, reviewer.ui, open_run(trained)
    before, rows = {one.case_id: one for one in logic.review_queue()}, reviewer.rows
    reviewer.load("c3")
    predicted = read_labelmap(run.predictions(1, "c3") / "refined.nii.gz")
    write_labelmap(predicted, tmp_path / "others" / "c3.nii.gz")
    others = logic.add_external_labels("TotalSegmentator", tmp_path / "others")
    after = {one.case_id: one for one in logic.review_queue()}
    assert after.keys() == before.keys()
    assert after[CASE] == before[CASE]
    assert after["c3"].refined == others.predictions(1, "c3") / "refined.nii.gz"
    folders = {one.report.case_id: one.predictions for one in logic.case_overviews(wait=False)}
    assert [folders[one].parents[2] for one in (CASE, "c3")] == [run.path, others.path]
    reviewer.load(CASE)
    assert reviewer.rows == rows
    reviewer.press(ui.lesionAcceptButton)
    decisions = read_lesions(logic.project, CASE).decisions
    assert {(one.run, one.round) for one in decisions.values()} == {(run.run_id, 1)}
    click(ui.acceptButton)
    reviewer.rest()
    assert logic.last_decision() == f"{CASE}: accepted"


def test_no_lesion_is_decided_about_in_a_label_that_was_moved(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, node = reviewer.logic, reviewer.logic.refined_node(CASE)
    matrix = np.eye(4)
    matrix[0, 3] = 3 * logic.case_node(CASE).GetSpacing()[0]
    reviewer.press(reviewer.ui.lesionAcceptButton)
    transform = put_under(node, matrix)
    decisions: tuple[Callable[[], object], ...] = (
        lambda: logic.accept_lesion(1),
        lambda: logic.draw_lesion(1),
        lambda: logic.delete_lesion(1),
        logic.finish_lesions,
        logic.undo,
    )
    for decide in decisions:
        with pytest.raises(SceneError, match=r"was moved against its volume .* harden"):
            decide()
    assert reviewer.on_disk() == {1: "accepted"}
    node.SetAndObserveTransformNodeID(None)
    click(reviewer.ui.lesionAddButton)
    node.SetAndObserveTransformNodeID(transform.GetID())
    for decide in (logic.take_drawn, lambda: logic.delete_lesion(None)):
        with pytest.raises(SceneError, match=r"was moved against its volume .* harden"):
            decide()
    assert logic.is_drawing
    node.SetAndObserveTransformNodeID(None)
    assert logic.take_drawn() is None
    logic.accept_lesion(1)
    assert reviewer.on_disk() == {1: "accepted", 2: "accepted"}


def test_no_lesions_are_listed_but_those_of_the_case_that_is_shown(
    reviewer: Reviewer, trained: Path
) -> None:
    from aslseg.project.run_folder import open_run

    logic, ui = reviewer.logic, reviewer.ui
    reviewer.load("c3")
    volume = logic.case_node("c3")
    liver = read_mask(logic.refined_node("c3"), "liver", volume)
    liver[0, :3, :3] = True
    write_mask(logic.refined_node("c3"), "liver", liver, volume)
    reviewer.load(CASE)
    run = open_run(trained)
    shutil.copytree(run.round(1), run.round(2))
    run.write_status(best_round=2)  # as a training in the background does
    logic.forget_state()
    reviewer.panel.case_chosen.emit("c3")
    wait_until(lambda: reviewer.panel.volume is volume, 60.0, "c3 is shown")
    reviewer.rest()
    dialogs.take("The scene shows case c3 as in round 1")
    assert logic.lesion_review is None
    assert (ui.lesionTable.rowCount, ui.lesionLabel.text) == (0, "")
    assert ui.lesionDeleteButton.toolTip.startswith("Load a case that a run has segmented")


def test_lesions_that_a_script_lists_wait_until_their_case_is_shown(reviewer: Reviewer) -> None:
    reviewer.load("c3")
    reviewer.logic.load_lesions(CASE)
    run_event_loop(0.1)
    assert reviewer.ui.lesionTable.rowCount == 0
    press(reviewer.panel, "Del")
    assert reviewer.on_disk() == {}


def test_keys_press_the_buttons_while_the_module_is_open(reviewer: Reviewer) -> None:
    assert "A Accept" in reviewer.ui.keysLabel.text
    press(reviewer.panel, "A")
    reviewer.rest()
    assert reviewer.rows[0] == "accepted"
    slicer.util.selectModule("SegmentEditor")
    press(reviewer.panel, "A")
    slicer.util.selectModule("ASLseg")
    assert reviewer.rows[1] != "accepted"


def test_what_training_on_decisions_changed_is_shown_case_by_case(
    reviewer: Reviewer, tmp_path: Path
) -> None:
    from aslseg.evaluation.round_changes import COLUMNS
    from aslseg.project.external_labels import add_external_labels
    from aslseg.project.run_folder import open_run
    from aslseg.project.run_tables import write_table
    from aslseg.storage import copy_atomic

    ui, logic = reviewer.ui, reviewer.logic
    assert ui.changesTable.isHidden()
    assert ui.trainOnButton.enabled
    sent: list[tuple[str, object]] = []
    logic._train = lambda do, arguments: sent.append((do, arguments["share"]))
    click(ui.trainOnButton)
    ui.trainOnShareBox.value = 25
    click(ui.trainOnButton)
    assert sent == [("train_on", 0.1), ("train_on", 0.25)]
    run = open_run(logic.project.folder)
    run.write_status(short_rounds=[2])
    values = (CASE, "tumour", 2, 1, 0, "1.2", "1.5")
    write_table(run.round(2) / "changes.csv", COLUMNS, [dict(zip(COLUMNS, values, strict=True))])
    logic.refresh()
    assert not ui.changesTable.isHidden()
    assert [ui.changesTable.item(0, n).text() for n in range(7)] == [
        CASE, "tumour", "2", "1", "0", "1.2", "1.5"
    ]  # fmt: skip
    copy_atomic(run.predictions(1, CASE) / "refined.nii.gz", tmp_path / "out" / f"{CASE}.nii.gz")
    add_external_labels(logic.project, "other", tmp_path / "out")
    logic.refresh()
    assert not ui.changesTable.isHidden()


def test_the_case_that_is_left_goes_out_of_the_scene_and_comes_back(reviewer: Reviewer) -> None:
    ui = reviewer.ui
    reviewer.press(ui.lesionDeleteButton)
    names = [ui.reviewTable.item(n, 0).text() for n in range(ui.reviewTable.rowCount)]
    row = names.index(CASE)
    ui.reviewTable.selectRow(row)
    reviewer.press(ui.nextButton if row + 1 < len(names) else ui.previousButton)
    run_event_loop(0.3)
    assert reviewer.panel.volume is not None
    assert reviewer.logic.case_node(CASE) is None
    shown = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert not [name for name in shown if name.startswith(CASE)]
    reviewer.press(ui.undoButton)
    wait_until(lambda: reviewer.logic.case_node(CASE) is not None, 60.0, "the case is back")
    wait_until(lambda: not reviewer.on_disk(), 60.0, "the decision is undone")
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())


def leave_deleted(reviewer: Reviewer) -> None:
    """Delete a lesion of the case, and look at another case; this one goes out of the scene."""
    reviewer.press(reviewer.ui.lesionDeleteButton)
    reviewer.load("c3")
    assert reviewer.logic.release_case(CASE)
    reviewer.rest()


def test_an_undo_whose_case_could_not_be_loaded_is_not_done_later(
    reviewer: Reviewer, trained: Path
) -> None:
    image = trained.parent / "data" / "ct2.nii.gz"
    leave_deleted(reviewer)
    away = image.rename(image.with_name("away"))
    reviewer.press(reviewer.ui.undoButton)
    dialogs.take(image.name)
    dialogs.take("'delete lesion 1' was neither undone nor redone: case c2 could not be loaded")
    away.rename(image)
    reviewer.load(CASE)
    assert reviewer.on_disk() == {1: "deleted"}
    reviewer.press(reviewer.ui.undoButton)
    assert reviewer.on_disk() == {}


def test_an_undo_that_waits_for_its_case_takes_back_nothing_done_meanwhile(
    reviewer: Reviewer,
) -> None:
    logic = reviewer.logic
    leave_deleted(reviewer)
    reviewer.panel.case_chosen.connect(lambda _: logic.mark_slice_complete("c0", 3))
    click(reviewer.ui.undoButton)
    wait_until(lambda: logic.lesion_review and logic.lesion_review.case_id == CASE, 60.0)
    reviewer.rest()
    assert reviewer.on_disk() == {1: "deleted"}
    assert logic.project.case("c0").complete_slices == (3,)


def test_a_case_with_unsaved_drawing_stays_in_the_scene(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    volume = reviewer.logic.case_node(CASE)
    node = find_prediction(volume, "refined")
    mask = a_lesion_label() == TUMOUR
    mask[8, 15:18, 30:32] = True
    reviewer.logic.draw_lesion(None)
    write_mask(node, reviewer.logic.segment_of_drawing(), mask, volume)
    assert not reviewer.logic.release_case(CASE)
    assert reviewer.logic.case_node(CASE) is volume


def test_a_case_on_which_a_segmentation_was_drawn_stays_in_the_scene(reviewer: Reviewer) -> None:
    logic, volume = reviewer.logic, reviewer.logic.case_node(CASE)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = node.GetSegmentation().AddEmptySegment("", "liver")
    write_mask(node, segment, a_lesion_label() > 0, volume)
    node.GetSegmentation().AddEmptySegment("", "tumour")
    assert not logic.release_case(CASE)
    logic.save_label(node)
    assert logic.project.case(CASE).label is not None


def test_lesions_are_shown_as_they_were_decided_about_after_the_scene_was_saved(
    reviewer: Reviewer, tmp_path: Path
) -> None:
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    reviewer.press(reviewer.ui.lesionDeleteButton)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path))
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    reviewer.load(CASE)
    assert reviewer.rows[-1] == "deleted"
    expected = a_lesion_label()
    expected[3:6, 10:14, 10:14] = LIVER
    np.testing.assert_array_equal(reviewer.shown, expected)


def test_nothing_is_decided_about_lesions_that_are_not_shown(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.segmentations import find_prediction, latest_segments

    logic, ui = reviewer.logic, reviewer.ui
    reviewer.press(ui.lesionDeleteButton)
    reviewer.press(ui.lesionAcceptButton)
    node = find_prediction(logic.case_node(CASE), "refined")
    node.GetSegmentation().RemoveSegment(latest_segments(node, logic.targets())["tumour"])
    for button in (ui.lesionAcceptButton, ui.undoButton):
        reviewer.press(button)
        dialogs.take("has no segment of tumour; add one of that name, or remove")
    assert reviewer.on_disk() == {1: "deleted", 2: "accepted"}
    slicer.mrmlScene.RemoveNode(node)
    reviewer.load(CASE)
    node = find_prediction(logic.case_node(CASE), "refined")
    expected = a_lesion_label()
    expected[3:6, 10:14, 10:14] = LIVER
    np.testing.assert_array_equal(reviewer.shown, expected)
    while logic.lesion_review.undecided:
        reviewer.press(ui.lesionAcceptButton)
    node.GetSegmentation().RemoveSegment(latest_segments(node, logic.targets())["tumour"])
    reviewer.press(ui.lesionsDoneButton)
    dialogs.take("has no segment of tumour; add one of that name, or remove")
    assert logic.project.case(CASE).label is None


def test_a_project_without_a_target_inside_another_says_that_it_lists_no_lesions(
    open_module: Callable[..., Any], tmp_path: Path
) -> None:
    from aslseg.project.case import CaseFiles
    from aslseg.project.create import create_project
    from aslseg.targets import Target
    from support.tiny_project import write_patients

    image = write_patients(tmp_path / "data")[0].image
    targets = (Target(name="tumour", value=1),)
    project = create_project(tmp_path / "project", [CaseFiles("a", image)], targets)
    panel = open_module().panel
    panel.ui.reviewSection.collapsed = False
    panel.logic.use(project)
    panel.case_chosen.emit("a")
    wait_for_files(panel.logic)
    reason = "No target lies inside another one, so no lesions are listed: decide case by case."
    assert panel.ui.lesionLabel.text == reason
    for name in ("lesionAdd", "lesionAccept", "lesionsDone", "trainOn"):
        button = getattr(panel.ui, f"{name}Button")
        assert (button.enabled, button.toolTip) == (False, reason), name


def point_in_view(volume: Any) -> tuple[Any, Any]:
    """Place a point in the middle of the red view, with the pointer over it; return both."""
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    view.forceRender()
    ras = [view.mrmlSliceNode().GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    point = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "a point")
    point.CreateDefaultDisplayNodes()
    point.AddControlPointWorld(*ras)
    view.forceRender()
    interactor = view.interactor()
    interactor.SetEventInformation(*(size // 2 for size in view.renderWindow().GetSize()))
    for event in ("Enter", "MouseMove"):
        interactor.InvokeEvent(f"{event}Event")
    return view, point


def test_delete_in_a_slice_view_deletes_the_point_there_and_no_lesion(reviewer: Reviewer) -> None:
    view, point = point_in_view(reviewer.panel.volume)
    view.setAttribute(QtCore.Qt.WidgetAttribute.WA_UnderMouse, True)
    press(reviewer.panel, "Del")
    assert reviewer.on_disk() == {}
    assert point.GetNumberOfControlPoints() == 0
    press(reviewer.panel, "Del")
    assert reviewer.on_disk() == {}
    view.setAttribute(QtCore.Qt.WidgetAttribute.WA_UnderMouse, False)
    press(reviewer.panel, "Del")
    reviewer.rest()
    assert reviewer.on_disk() == {1: "deleted"}


def test_delete_is_left_to_a_slice_view_that_has_the_focus(reviewer: Reviewer) -> None:
    from ASLsegLib.widgets.view_keys import slice_view_in_use

    view = slicer.app.layoutManager().sliceWidget("Yellow").sliceView()
    view.setFocusPolicy(QtCore.Qt.FocusPolicy.StrongFocus)
    for widget, found in ((view, view), (reviewer.ui.lesionTable, None)):
        window = widget.window()
        window.show()
        window.activateWindow()
        widget.setFocus()
        run_event_loop(0.1)
        assert slice_view_in_use() is found
    assert "Key: Del; in slice views it deletes points." in reviewer.ui.lesionDeleteButton.toolTip
