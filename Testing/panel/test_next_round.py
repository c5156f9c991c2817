"""A round is kept while its case is looked at: what was drawn, decided and compared before."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from harness import write_mask
from lesion_reviewer import CASE, LIVER, TUMOUR, Reviewer, a_lesion_label, keep_next_round

from standin.dialogs import dialogs
from standin.harness import click, run_event_loop

MISSED = (8, slice(15, 18), slice(30, 32))


def next_label() -> np.ndarray:
    """The next round lacks the first lesion, and finds another one."""
    labels = a_lesion_label()
    labels[3:6, 10:14, 10:14] = LIVER
    labels[3:7, 26:31, 26:31] = TUMOUR
    return labels


def load_next_round(reviewer: Reviewer) -> None:
    """Double-click the case after another round is kept."""
    keep_next_round(reviewer.logic.project.folder, next_label())
    reviewer.logic.refresh()
    reviewer.rest()
    table = reviewer.ui.reviewTable
    names = [table.item(n, 0).text() for n in range(table.rowCount)]
    table.selectRow(names.index(CASE))
    table.cellDoubleClicked(table.currentRow(), 0)
    reviewer.rest()
    run_event_loop(0.3)
    reviewer.rest()


def round_listed(reviewer: Reviewer) -> int | None:
    review = reviewer.logic.lesion_review
    return None if review is None else review.round


def draw(reviewer: Reviewer, *, shows: bool = True) -> None:
    """Draw a lesion that was missed, or erase it again."""
    from ASLsegLib.scene.segmentations import latest_segments

    logic = reviewer.logic
    node, volume = logic.refined_node(CASE), logic.case_node(CASE)
    mask = reviewer.shown == TUMOUR
    mask[MISSED] = shows
    write_mask(node, latest_segments(node, logic.targets())["tumour"], mask, volume)


@pytest.mark.parametrize("row", [None, 0])
def test_a_lesion_that_was_only_begun_ends_with_its_round(
    reviewer: Reviewer, row: int | None
) -> None:
    logic = reviewer.logic
    logic.draw_lesion(row)
    load_next_round(reviewer)
    assert (round_listed(reviewer), logic.is_drawing) == (2, False)
    np.testing.assert_array_equal(reviewer.shown, next_label())
    assert reviewer.on_disk() == {}
    assert {one.state for one in logic.lesion_review.rows} == {"undecided"}
    logic.draw_lesion(None)
    draw(reviewer)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert logic.lesion_review.decisions.decisions[1].final.voxels == 6


def test_what_was_drawn_keeps_its_round_until_it_is_taken_back(reviewer: Reviewer) -> None:
    logic = reviewer.logic
    click(reviewer.ui.lesionAddButton)
    draw(reviewer)
    drawn = reviewer.shown
    load_next_round(reviewer)
    dialogs.take("The scene shows case c2 as in round 1")
    np.testing.assert_array_equal(reviewer.shown, drawn)
    assert logic.cases_put_aside == [CASE]
    draw(reviewer, shows=False)
    reviewer.load(CASE)
    assert (round_listed(reviewer), logic.is_drawing, logic.cases_put_aside) == (2, False, [])
    np.testing.assert_array_equal(reviewer.shown, next_label())


def test_no_volume_is_segmented_while_a_lesion_in_it_is_drawn(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, volume = reviewer.logic, reviewer.logic.case_node(CASE)
    click(reviewer.ui.lesionAddButton)
    draw(reviewer)
    drawn = reviewer.shown
    for case_id in (CASE, "c3"):  # there it is put aside
        reviewer.load(case_id)
        with pytest.raises(SceneError, match=r"drawn in .*; accept or delete that lesion first"):
            logic.segment(volume)
    reviewer.load(CASE)
    assert logic.is_drawing
    np.testing.assert_array_equal(reviewer.shown, drawn)
    draw(reviewer, shows=False)
    logic.segment(volume)
    assert not logic.is_drawing
    assert (reviewer.shown != a_lesion_label()).any()
    assert reviewer.on_disk() == {}


def test_a_prompt_of_a_lesion_keeps_its_round_until_it_is_taken_back(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.prompts import add_point

    logic = reviewer.logic
    click(reviewer.ui.lesionAddButton)
    add_point(logic.case_node(CASE), "tumour", (31.0, 16.0), 8)
    load_next_round(reviewer)
    dialogs.take("The scene shows case c2 as in round 1")
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    while logic.to_undo:
        logic.undo()
    reviewer.load(CASE)
    assert (round_listed(reviewer), logic.is_drawing) == (2, False)


def test_no_decision_of_another_round_is_undone_into_this_one(reviewer: Reviewer) -> None:
    ui, logic = reviewer.ui, reviewer.logic
    reviewer.press(ui.lesionDeleteButton)
    reviewer.press(ui.lesionDeleteButton)
    load_next_round(reviewer)
    shown = reviewer.shown
    reviewer.press(ui.undoButton)
    dialogs.take("decided about in round 1")
    np.testing.assert_array_equal(reviewer.shown, shown)
    assert reviewer.on_disk() == {1: "deleted", 2: "deleted"}
    assert logic.to_undo == ""  # nor any other of that round
    ui.lesionTable.selectRow(reviewer.rows.index("deleted"))
    reviewer.press(ui.lesionAcceptButton)  # as the message says
    assert reviewer.on_disk() == {1: "accepted", 2: "deleted"}
    assert (reviewer.shown[3:6, 10:14, 10:14] == TUMOUR).all()
    reviewer.press(ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, shown)


def test_no_decision_of_another_round_is_done_again_in_this_one(reviewer: Reviewer) -> None:
    ui = reviewer.ui
    reviewer.press(ui.lesionDeleteButton)
    reviewer.press(ui.undoButton)
    reviewer.load("c3")
    load_next_round(reviewer)
    reviewer.press(ui.redoButton)
    dialogs.take("decided about in round 1")
    np.testing.assert_array_equal(reviewer.shown, next_label())
    assert reviewer.on_disk() == {}
    assert not ui.redoButton.enabled


def test_what_was_drawn_in_another_round_does_not_come_back_in_this_one(
    reviewer: Reviewer,
) -> None:
    ui, logic = reviewer.ui, reviewer.logic
    click(ui.lesionAddButton)
    draw(reviewer)
    reviewer.press(ui.lesionDeleteButton)
    assert logic.to_undo == "delete drawn lesion"
    load_next_round(reviewer)
    assert logic.to_undo == ""
    np.testing.assert_array_equal(reviewer.shown, next_label())


def test_the_overlay_of_disagreement_is_that_of_the_round_that_is_shown(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.disagreement import find_overlay, image_of, show_disagreement

    box, volume = reviewer.ui.showDisagreementBox, reviewer.logic.case_node(CASE)
    percent = np.full(a_lesion_label().shape, 60, np.uint8)
    show_disagreement(volume, image_of(percent))  # as an answer about probabilities does
    click(box)
    assert slicer.util.arrayFromVolume(find_overlay(volume)).min() == 60
    load_next_round(reviewer)
    assert box.checked
    assert slicer.util.arrayFromVolume(find_overlay(volume)).max() == 0  # all agree
    composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
    assert composite.GetForegroundVolumeID() == find_overlay(volume).GetID()
