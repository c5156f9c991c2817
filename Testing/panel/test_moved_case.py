"""The volume of a case is moved in the scene, as by Center Volume or a hardened transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from harness import read_mask, shift_up, wait_for_files, write_mask
from lesion_reviewer import CASE, Reviewer, a_lesion_label
from test_review_section import no, yes

from standin.dialogs import dialogs

SHIFT_MM = 7.0
MOVED = "was moved in the scene, and does not lie where the image of case c2 does; load the case"
QUESTION = f"it lies up to {SHIFT_MM:.1f} mm from where the image of case {CASE} does"


def move(*nodes: Any) -> None:
    """Harden a shift along the patient on nodes."""
    from ASLsegLib.scene.volumes import as_matrix

    for node in nodes:
        node.ApplyTransformMatrix(as_matrix(shift_up(SHIFT_MM)))


@pytest.fixture
def drawing(reviewer: Reviewer) -> Reviewer:
    """A person who drew a corner of the first slice to the liver."""
    volume, node = reviewer.panel.volume, reviewer.logic.refined_node(CASE)
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)
    return reviewer


def as_drawn() -> np.ndarray:
    labels = a_lesion_label()
    labels[0, :3, :3] = 1
    return labels


def load_again(reviewer: Reviewer) -> None:
    reviewer.panel.case_chosen.emit(CASE)
    wait_for_files(reviewer.logic)
    reviewer.rest()


@pytest.mark.parametrize("with_label", [False, True])
def test_a_case_that_was_moved_is_moved_back_with_what_was_drawn(
    drawing: Reviewer, with_label: bool
) -> None:
    logic, volume = drawing.logic, drawing.panel.volume
    origin = volume.GetOrigin()
    move(volume, *([logic.refined_node(CASE)] if with_label else []))
    drawing.press(drawing.ui.acceptButton)
    dialogs.take(MOVED)
    assert logic.project.case(CASE).label is None
    dialogs.answer(QUESTION, yes())
    load_again(drawing)
    assert drawing.panel.volume is volume
    np.testing.assert_allclose(volume.GetOrigin(), origin)
    np.testing.assert_array_equal(drawing.shown, as_drawn())
    drawing.press(drawing.ui.acceptButton)
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    np.testing.assert_array_equal(saved, as_drawn())


def test_a_case_that_stays_where_it_was_moved_to_is_loaded_anew(drawing: Reviewer) -> None:
    logic, moved = drawing.logic, drawing.panel.volume
    label = logic.refined_node(CASE)
    move(moved)
    dialogs.answer(QUESTION, no())
    load_again(drawing)
    assert drawing.panel.volume is logic.case_node(CASE) is not moved
    assert slicer.mrmlScene.IsNodePresent(label)
    np.testing.assert_array_equal(drawing.shown, a_lesion_label())


def test_a_script_lists_no_lesions_of_a_case_that_was_moved(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, moved = reviewer.logic, reviewer.panel.volume
    move(moved)
    for act in (logic.load_lesions, logic.accept):
        with pytest.raises(SceneError, match=MOVED):
            act(CASE)
    assert logic.load_case(CASE) is not moved
    logic.load_lesions(CASE)
    logic.accept(CASE)
    assert logic.project.case(CASE).status == "accepted"
