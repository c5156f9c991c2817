"""A large lesion is drawn in some slices, and filled between them; a person accepts it or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import read_mask, use_brief_engine, wait_for_engine, write_mask
from lesion_reviewer import CASE, TUMOUR, Reviewer

from aslseg.data.masks import BoundingBox
from standin.harness import click, run_event_loop, wait_until

DRAWN = [1, 3, 5, 7, 9]
BETWEEN = [2, 4, 6, 8]
LEARNING = "Learning the drawn slices"


def draw(
    reviewer: Reviewer, *slices: int, row: int | None = 0, rows: slice = slice(4, 36)
) -> np.ndarray:
    """Draw the first lesion 64 mm high in some slices, as a person in the Segment Editor does."""
    logic = reviewer.logic
    logic.draw_lesion(row)
    node, volume = logic.refined_node(CASE), logic.case_node(CASE)
    segments = {n: node.GetSegmentation().GetSegmentIdBySegmentName(n) for n in ("liver", "tumour")}
    masks = {name: np.array(read_mask(node, one, volume)) for name, one in segments.items()}
    for k in slices:
        masks["tumour"][k, rows, 4:11] = True
    masks["liver"] &= ~masks["tumour"]
    for name, mask in masks.items():
        write_mask(node, segments[name], mask, volume)
    logic.take_drawn()
    reviewer.rest()
    return reviewer.shown


def a_slice(k: int) -> BoundingBox:
    """Return the box of a slice of the case."""
    return BoundingBox((k, 0, 0), (k + 1, 40, 40))


def fill(reviewer: Reviewer) -> None:
    reviewer.ui.lesionTable.selectRow(0)
    run_event_loop(0.3)
    assert reviewer.ui.lesionFillButton.enabled, reviewer.ui.lesionFillButton.toolTip
    click(reviewer.ui.lesionFillButton)
    wait_for_engine(reviewer.logic, 0.5)


@pytest.mark.slow
def test_a_lesion_is_filled_between_drawn_slices_and_that_is_undone(
    reviewer: Reviewer, tmp_path: Path
) -> None:
    logic = reviewer.logic
    use_brief_engine(logic)
    before = draw(reviewer, *DRAWN)
    assert logic.drawn_slices_of(0) == DRAWN
    fill(reviewer)
    filled = reviewer.shown
    kept = [k for k in range(12) if k not in BETWEEN]
    np.testing.assert_array_equal(filled[kept], before[kept])
    others = (before == TUMOUR).copy()
    others[:, :, :15] = False
    assert (filled[others] == TUMOUR).all()
    for k in BETWEEN:
        assert (filled[k] == TUMOUR)[8:34, 8:11].sum() > 20
    assert reviewer.rows[0] == "edited"
    assert (logic.is_drawing, logic.drawn_row, reviewer.chosen) == (True, 0, 1)
    assert not logic.lesion_review.rows[0].voxels.within(a_slice(2)).any(), "nothing is decided"
    assert logic.drawn_slices_of(0) == DRAWN
    assert logic.to_undo == "fill lesion 1"
    logic.undo()
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, before)
    assert logic.drawn_slices_of(0) == DRAWN
    logic.redo()
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, filled)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert not logic.is_drawing
    np.testing.assert_array_equal(reviewer.shown, filled)
    assert logic.lesion_review.rows[0].voxels.within(a_slice(2)).any()
    draw(reviewer, 6)
    assert set(logic.drawn_slices_of(0)) == {*DRAWN, 6}
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    reviewer.load(CASE)
    (row,) = (n for n, one in enumerate(logic.lesion_review.rows) if one.state == "edited")
    assert set(logic.drawn_slices_of(row)) == {*DRAWN, 6}


def test_what_is_no_lesion_to_fill_is_refused_in_words(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, ui = reviewer.logic, reviewer.ui
    ui.lesionTable.selectRow(0)
    run_event_loop(0.3)
    assert "Draw the lesion in some of its slices first" in ui.lesionFillButton.toolTip
    for slices, reason in (
        ([1], r"Nothing lies between the drawn slices \(1\)"),
        ([3], r"drawn in too few slices \(2\) to teach a network; draw it in 5 or more"),
    ):
        draw(reviewer, *slices)
        with pytest.raises(SceneError, match=reason):
            logic.fill_lesion(0)
    draw(reviewer, 5, 7, 9)
    assert logic.why_not_filled(0) == ""
    logic.draw_lesion(1)
    run_event_loop(0.3)
    reviewer.panel.update()
    assert "Accept the lesion that is drawn first" in ui.lesionFillButton.toolTip
    logic.stop_drawing()
    logic.delete_lesion(0)
    with pytest.raises(SceneError, match="Draw the lesion in some of its slices first"):
        logic.fill_lesion(0)
    assert not logic.engine.is_busy


def test_a_lesion_that_is_too_small_is_refused_before_the_engine_is_asked(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, ui = reviewer.logic, reviewer.ui
    draw(reviewer, *DRAWN, rows=slice(4, 33))
    ui.lesionTable.selectRow(0)
    run_event_loop(0.3)
    assert not ui.lesionFillButton.enabled
    assert "The lesion is 58 mm wide or high; a network fills" in ui.lesionFillButton.toolTip
    with pytest.raises(SceneError, match="of less than 60 mm worse than shape does: fill it by"):
        logic.fill_lesion(0)
    assert not logic.engine.is_busy
    draw(reviewer, 3, rows=slice(4, 34))
    assert logic.why_not_filled(0) == ""


def test_a_lesion_that_is_decided_about_meanwhile_stays_as_it_is(
    reviewer: Reviewer, dialogs: Any
) -> None:
    logic = reviewer.logic
    use_brief_engine(logic)
    draw(reviewer, *DRAWN)
    events: list[Any] = []
    logic.engine.event.connect(events.append)
    reviewer.ui.lesionTable.selectRow(0)
    run_event_loop(0.3)
    click(reviewer.ui.lesionFillButton)
    wait_until(lambda: any(getattr(e, "task", "") == LEARNING for e in events), 60.0, "it learns")
    logic.delete_lesion(0)
    shown = reviewer.shown
    wait_for_engine(logic, 0.5)
    dialogs.take("The lesion was changed while it was filled")
    assert logic.to_undo == "delete lesion 1"
    np.testing.assert_array_equal(reviewer.shown, shown)
    assert reviewer.rows[0] == "deleted"
