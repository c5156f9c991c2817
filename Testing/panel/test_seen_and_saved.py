"""What is saved was seen, is whole, and is not what was shown before something was drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import read_labels, read_mask, write_mask
from lesion_reviewer import CASE, LIVER, TUMOUR, Reviewer, a_lesion_label
from test_review_section import Person, no, yes

from standin.dialogs import dialogs
from standin.harness import run_event_loop

HIDDEN = "so nothing was accepted. It is shown now: look at it, and press again"


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Person:
    """A person who looks at the first case of the review."""
    made = Person(open_module(), trained)
    made.press(made.ui.nextButton)
    return made


def final_label(who: Any, case_id: str) -> Any:
    return who.logic.predictions(who.logic.case_node(case_id))["refined"]


def draw_more(node: Any, volume: Any) -> None:
    """Draw a corner of the first slice to the liver."""
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)


# Seen.


def hide_by_the_box(person: Any, _: Any) -> None:
    person.ui.showRefinedBox.checked = False


def hide_the_segment(_: Any, display: Any) -> None:
    display.SetSegmentVisibility("tumour", False)


def hide_fill_and_outline(_: Any, display: Any) -> None:
    display.SetVisibility2DFill(False)
    display.SetSegmentVisibility2DOutline("liver", False)


def hide_by_opacity(_: Any, display: Any) -> None:
    display.SetOpacity(0.0)


@pytest.mark.parametrize(
    ("hide", "names"),
    [
        (hide_by_the_box, "liver, tumour"),
        (hide_the_segment, "tumour"),
        (hide_fill_and_outline, "liver"),
        (hide_by_opacity, "liver, tumour"),
    ],
)
def test_a_case_is_accepted_only_once_its_final_label_was_seen(
    person: Person, hide: Callable[..., None], names: str
) -> None:
    case_id, ui = person.chosen(), person.ui
    node = final_label(person, case_id)
    display = node.GetDisplayNode()
    hide(person, display)
    person.press(ui.acceptButton)
    dialogs.take(f"{node.GetName()} was hidden ({names}), {HIDDEN}")
    assert person.logic.project.case(case_id).label is None
    assert ui.showRefinedBox.checked
    assert display.GetVisibility()
    assert display.GetOpacity() > 0
    assert all(display.GetSegmentVisibility(name) for name in ("liver", "tumour"))
    person.press(ui.acceptButton)
    assert person.logic.project.case(case_id).status == "accepted"


def test_lesions_are_accepted_and_finished_only_once_they_were_seen(reviewer: Reviewer) -> None:
    ui, display = reviewer.ui, final_label(reviewer, CASE).GetDisplayNode()
    display.SetSegmentVisibility("liver", False)  # so that the tumours are seen better
    reviewer.press(ui.lesionAcceptButton)
    assert reviewer.on_disk() == {1: "accepted"}
    display.SetVisibility(False)
    reviewer.press(ui.lesionAcceptButton)
    dialogs.take(f"was hidden (tumour), {HIDDEN}")
    assert reviewer.on_disk() == {1: "accepted"}
    assert display.GetVisibility()
    for _ in range(2):
        reviewer.press(ui.lesionAcceptButton)
    assert reviewer.on_disk() == {1: "accepted", 2: "accepted", 3: "accepted"}
    reviewer.press(ui.lesionsDoneButton)
    dialogs.take(f"was hidden (liver), {HIDDEN}")
    assert reviewer.logic.project.case(CASE).label is None
    reviewer.press(ui.lesionsDoneButton)
    assert reviewer.logic.project.case(CASE).label is not None


def test_a_missed_lesion_that_is_hidden_is_not_taken_as_drawn(reviewer: Reviewer) -> None:
    ui, volume = reviewer.ui, reviewer.logic.case_node(CASE)
    reviewer.logic.draw_lesion(None)
    mask = a_lesion_label() == TUMOUR
    mask[8, 15:18, 30:32] = True
    node = final_label(reviewer, CASE)
    write_mask(node, reviewer.logic.segment_of_drawing(), mask, volume)
    ui.showRefinedBox.checked = False
    reviewer.press(ui.lesionAcceptButton)
    dialogs.take(f"was hidden (tumour), {HIDDEN}")
    assert (reviewer.on_disk(), reviewer.logic.is_drawing) == ({}, True)
    reviewer.press(ui.lesionAcceptButton)
    assert reviewer.on_disk() == {1: "added"}


# Whole.


def test_a_segment_that_was_removed_is_asked_about_before_its_case_is_accepted(
    reviewer: Reviewer,
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, ui = reviewer.logic, reviewer.ui
    node = final_label(reviewer, CASE)
    node.GetSegmentation().RemoveSegment("tumour")
    question = f"{node.GetName()} has no segment of tumour any more. Save a label without any"
    dialogs.answer(question, no())
    reviewer.press(ui.acceptButton)
    assert logic.project.case(CASE).label is None
    with pytest.raises(SceneError, match="no segment of tumour any more; load the case again"):
        logic.accept(CASE)
    dialogs.answer(question, yes())
    reviewer.press(ui.acceptButton)
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    assert np.array_equal(saved == LIVER, a_lesion_label() == LIVER)
    assert saved.max() == LIVER


# Not what was shown before.


def redo(person: Person) -> None:
    assert person.ui.redoButton.enabled
    person.press(person.ui.redoButton)


def test_redo_saves_no_label_of_before_something_was_drawn(person: Person) -> None:
    case_id, volume = person.chosen(), person.panel.volume
    node = final_label(person, case_id)
    person.press(person.ui.acceptButton)
    person.press(person.ui.undoButton)
    before = read_mask(node, "liver", volume)
    draw_more(node, volume)
    redo(person)
    dialogs.take(f"{node.GetName()} was drawn in since that was taken back")
    assert person.logic.project.case(case_id).label is None
    write_mask(node, "liver", before, volume)  # taken back in the Segment Editor
    redo(person)
    assert person.logic.project.case(case_id).status == "accepted"
    person.press(person.ui.undoButton)
    draw_more(node, volume)
    person.press(person.ui.acceptButton)
    assert (person.saved(case_id)[0, :3, :3] == 1).all()


def test_redo_saves_no_label_over_what_was_drawn_in_a_case_that_came_anew(person: Person) -> None:
    case_id = person.chosen()
    person.press(person.ui.acceptButton)
    person.press(person.ui.undoButton)
    assert person.logic.release_case(case_id)
    volume = person.load(case_id)
    redo(person)
    assert person.logic.project.case(case_id).status == "accepted"
    person.press(person.ui.undoButton)
    draw_more(final_label(person, case_id), volume)
    redo(person)
    dialogs.take("was drawn in since that was taken back")
    assert person.logic.project.case(case_id).label is None


def test_redo_of_a_case_that_was_not_in_the_scene_saves_nothing_over_what_was_drawn(
    person: Person,
) -> None:
    other = person.names()[1]
    person.logic.accept(other)
    person.press(person.ui.undoButton)
    volume = person.load(other)
    draw_more(final_label(person, other), volume)
    redo(person)
    dialogs.take("was drawn in since that was taken back")
    assert person.logic.project.case(other).label is None


def test_redo_saves_no_segmentation_of_ones_own_as_it_was_before(person: Person) -> None:
    case_id, volume = person.chosen(), person.panel.volume
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    drawn.CreateDefaultDisplayNodes()
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = drawn.GetSegmentation().AddEmptySegment("", "liver")
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    mask[2:5, 5:15, 5:15] = True
    write_mask(drawn, segment, mask, volume)
    person.logic.save_label(drawn)
    for again in (False, True):
        person.press(person.ui.undoButton)
        assert person.logic.project.case(case_id).label is None
        if again:
            write_mask(drawn, segment, np.roll(mask, 1, axis=0), volume)
        redo(person)
        assert (person.logic.project.case(case_id).label is None) is again
    dialogs.take("mine was drawn in since that was taken back")
    run_event_loop(0.05)
    shown = read_labels(drawn, volume, person.logic.targets())
    assert np.array_equal(shown == 1, np.roll(mask, 1, axis=0))
