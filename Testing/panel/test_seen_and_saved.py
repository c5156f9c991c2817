"""What is saved was seen, is whole, and is not what was shown before something was drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import put_under, read_labels, read_mask, write_mask
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


def hide_segments_by_opacity(_: Any, display: Any) -> None:
    """As by the opacity of each in the table of segments."""
    for name in ("liver", "tumour"):
        display.SetSegmentOpacity(name, 0.0)


def hide_by_opacity_in_slices(_: Any, display: Any) -> None:
    display.SetOpacity2DFill(0.0)
    display.SetOpacity2DOutline(0.0)


def hide_outline_and_opacity_of_fill(_: Any, display: Any) -> None:
    display.SetVisibility2DOutline(False)
    display.SetSegmentOpacity2DFill("tumour", 0.0)


@pytest.mark.parametrize(
    ("hide", "names"),
    [
        (hide_by_the_box, "liver, tumour"),
        (hide_the_segment, "tumour"),
        (hide_fill_and_outline, "liver"),
        (hide_by_opacity, "liver, tumour"),
        (hide_segments_by_opacity, "liver, tumour"),
        (hide_by_opacity_in_slices, "liver, tumour"),
        (hide_outline_and_opacity_of_fill, "tumour"),
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


@pytest.mark.parametrize(
    ("hide", "names"), [(hide_the_segment, "tumour"), (hide_fill_and_outline, "liver")]
)
def test_a_script_accepts_no_case_of_which_a_part_is_hidden(
    person: Person, hide: Callable[..., None], names: str
) -> None:
    from ASLsegLib.logic.questions import Questions
    from ASLsegLib.scene.volumes import SceneError

    case_id, logic = person.chosen(), person.logic
    hide(person, final_label(person, case_id).GetDisplayNode())
    with pytest.raises(
        SceneError, match=rf"is hidden \({names}\), and what is saved has to be seen"
    ):
        logic.accept(case_id)
    assert logic.project.case(case_id).label is None
    asked: list[Any] = []

    def may_hide(*what: Any) -> bool:
        asked.append(what)
        return True

    logic.accept(case_id, questions=Questions(may_hide=may_hide))
    assert asked == [(f"{case_id} - final label", [names])]
    assert logic.project.case(case_id).status == "accepted"


@pytest.mark.parametrize("hide", [hide_by_the_box, hide_by_opacity])
def test_a_script_accepts_a_case_that_nobody_looks_at(
    person: Person, hide: Callable[..., None]
) -> None:
    case_id = person.chosen()
    hide(person, final_label(person, case_id).GetDisplayNode())
    person.logic.accept(case_id)
    assert person.logic.project.case(case_id).status == "accepted"


def test_a_script_finishes_no_lesions_of_which_a_part_is_hidden(reviewer: Reviewer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic = reviewer.logic
    for _ in range(3):
        reviewer.press(reviewer.ui.lesionAcceptButton)
    display = final_label(reviewer, CASE).GetDisplayNode()
    display.SetSegmentVisibility("liver", False)
    with pytest.raises(SceneError, match=r"is hidden \(liver\)"):
        logic.finish_lesions()
    assert logic.project.case(CASE).label is None
    display.SetSegmentVisibility("liver", True)
    logic.finish_lesions()
    assert logic.project.case(CASE).label is not None


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
    with pytest.raises(SceneError, match="any more; add an empty segment of that name"):
        logic.accept(CASE)
    dialogs.answer(question, yes())
    reviewer.press(ui.acceptButton)
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    assert np.array_equal(saved == LIVER, a_lesion_label() == LIVER)
    assert saved.max() == LIVER


def test_a_case_of_which_a_segment_was_removed_is_kept_as_one_that_was_drawn_in(
    person: Person,
) -> None:
    """The run's segment came back without a word."""
    case_id, volume = person.chosen(), person.panel.volume
    node = final_label(person, case_id)
    node.GetSegmentation().RemoveSegment("tumour")
    person.press(person.ui.nextButton)
    assert person.chosen() != case_id
    assert slicer.mrmlScene.IsNodePresent(volume)
    person.load(case_id)
    assert node.GetSegmentation().GetSegment("tumour") is None
    dialogs.answer(f"{node.GetName()} has no segment of tumour any more", yes())
    person.press(person.ui.acceptButton)
    assert (person.saved(case_id) > 0).any()
    assert person.logic.last_decision() == f"{case_id}: corrected"
    person.press(person.ui.undoButton)
    assert not person.logic.release_case(case_id)
    slicer.mrmlScene.RemoveNode(node)  # as the question says
    person.load(case_id)
    assert final_label(person, case_id).GetSegmentation().GetSegment("tumour") is not None


def test_a_case_that_was_saved_without_a_removed_segment_can_be_left(person: Person) -> None:
    case_id, volume = person.chosen(), person.panel.volume
    final_label(person, case_id).GetSegmentation().RemoveSegment("tumour")
    dialogs.answer("has no segment of tumour any more", yes())
    person.press(person.ui.acceptButton)
    assert person.logic.release_case(case_id)
    assert not slicer.mrmlScene.IsNodePresent(volume)


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


def test_what_was_drawn_is_kept_when_its_label_is_taken_back(person: Person) -> None:
    from ASLsegLib.scene.segmentations import holds_unsaved

    case_id, volume, ui = person.chosen(), person.panel.volume, person.ui
    node = final_label(person, case_id)
    draw_more(node, volume)
    drawn = read_mask(node, "liver", volume)
    for save in (ui.acceptButton, ui.redoButton):
        person.press(save)
        assert not holds_unsaved(node, volume)
        person.press(ui.undoButton)
        assert holds_unsaved(node, volume)
    assert not person.logic.release_case(case_id)
    person.load(case_id)
    assert np.array_equal(read_mask(node, "liver", volume), drawn)
    person.press(ui.acceptButton)
    assert person.logic.last_decision() == f"{case_id}: corrected"


def exchange_names(node: Any, _: Any) -> None:
    segments = [node.GetSegmentation().GetSegment(one) for one in ("liver", "tumour")]
    for segment, name in zip(segments, ("tumour", "liver"), strict=True):
        segment.SetName(name)


def shift(node: Any, volume: Any) -> None:
    matrix = np.eye(4)
    matrix[0, 3] = 3 * volume.GetSpacing()[0]
    put_under(node, matrix)


@pytest.mark.parametrize("change", [exchange_names, shift])
def test_names_and_place_of_a_label_are_a_persons_work(
    person: Person, change: Callable[[Any, Any], None]
) -> None:
    from ASLsegLib.scene.segmentations import holds_unsaved

    case_id, volume, logic = person.chosen(), person.panel.volume, person.logic
    node, targets = final_label(person, case_id), logic.targets()
    change(node, volume)
    shown = read_labels(node, volume, targets)
    assert holds_unsaved(node, volume)
    assert not logic.release_case(case_id)
    person.press(person.ui.acceptButton)
    assert logic.last_decision() == f"{case_id}: corrected"
    np.testing.assert_array_equal(person.saved(case_id), shown)
    assert not holds_unsaved(node, volume)
    person.load(case_id)
    np.testing.assert_array_equal(read_labels(node, volume, targets), shown)


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
    drawn.GetSegmentation().AddEmptySegment("", "tumour")
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


# As decided.


def decide_elsewhere(reviewer: Reviewer, **numbers: list[int]) -> None:
    """Decide as `aslseg lesions` does; its numbers go by place: 1 and 3 are rows 1 and 3."""
    from aslseg.evaluation.lesions_by_number import decide_lesions

    review = reviewer.logic.lesion_review
    project = reviewer.logic.project
    decide_lesions(project, review.run, CASE, round_number=review.round, **numbers)


@pytest.fixture
def drawing(reviewer: Reviewer) -> Reviewer:
    """A person who drew in the liver of case c2, and did not save it."""
    draw_more(final_label(reviewer, CASE), reviewer.logic.case_node(CASE))
    return reviewer


OTHERWISE = "shows lesions 3 otherwise than decided about"


def as_drawn() -> np.ndarray:
    labels = a_lesion_label()
    labels[0, :3, :3] = LIVER
    return labels


def test_lesions_decided_elsewhere_are_offered_beside_what_was_drawn(drawing: Reviewer) -> None:
    decide_elsewhere(drawing, accept=[1], delete=[2])
    drawing.press(drawing.ui.lesionAcceptButton)
    dialogs.take("were decided about elsewhere meanwhile; load the case again")
    dialogs.answer(OTHERWISE, no())
    drawing.load(CASE)
    drawing.rest()
    assert drawing.rows[1:] == ["accepted", "deleted"]
    assert "Shown otherwise than decided about: lesions 3. " in drawing.ui.lesionLabel.text
    np.testing.assert_array_equal(drawing.shown, as_drawn())
    dialogs.answer(OTHERWISE, yes())
    drawing.load(CASE)
    drawing.rest()
    expected = as_drawn()
    expected[5:8, 20:23, 20:23] = LIVER
    np.testing.assert_array_equal(drawing.shown, expected)
    assert "otherwise" not in drawing.ui.lesionLabel.text
    assert drawing.ui.undoButton.toolTip == "Undo: show lesions as decided"
    for button, shown in ((drawing.ui.undoButton, as_drawn()), (drawing.ui.redoButton, expected)):
        drawing.press(button)
        np.testing.assert_array_equal(drawing.shown, shown)
    drawing.press(drawing.ui.lesionAcceptButton)
    drawing.press(drawing.ui.lesionsDoneButton)
    saved = drawing.logic.project.load_labels(drawing.logic.project.case(CASE)).labels
    np.testing.assert_array_equal(saved, expected)


def test_a_case_that_is_loaded_again_lists_what_was_decided_elsewhere(reviewer: Reviewer) -> None:
    decide_elsewhere(reviewer, delete=[1])
    reviewer.press(reviewer.ui.lesionAcceptButton)
    dialogs.take("were decided about elsewhere meanwhile; load the case again")
    reviewer.load(CASE)
    assert reviewer.rows[-1] == "deleted"
    reviewer.press(reviewer.ui.lesionAcceptButton)
    assert sorted(reviewer.on_disk().values()) == ["accepted", "deleted"]


@pytest.mark.parametrize("button", ["acceptButton", "lesionsDoneButton"])
def test_nothing_is_saved_otherwise_than_decided_elsewhere_without_a_question(
    drawing: Reviewer, button: str
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic = drawing.logic
    while logic.lesion_review.undecided:
        drawing.press(drawing.ui.lesionAcceptButton)
    decide_elsewhere(drawing, delete=[2])  # after they were listed
    question = "shows lesions 2 otherwise than decided about"
    dialogs.answer(question, no())
    drawing.press(getattr(drawing.ui, button))
    assert logic.project.case(CASE).label is None
    with pytest.raises(SceneError, match="does not show lesions 2 as decided about"):
        logic.accept(CASE)
    dialogs.answer(question, yes())
    drawing.press(getattr(drawing.ui, button))
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    np.testing.assert_array_equal(saved, as_drawn())


def test_a_lesion_that_is_shown_again_as_decided_is_where_it_was(reviewer: Reviewer) -> None:
    """It was drawn over, within the liver and outside of it, after it was accepted."""
    logic, volume = reviewer.logic, reviewer.logic.case_node(CASE)
    reviewer.press(reviewer.ui.lesionAcceptButton)
    node = final_label(reviewer, CASE)
    mask = read_mask(node, "tumour", volume)
    mask[3:6, 10:12, 10:14] = False
    write_mask(node, "tumour", mask, volume)
    liver = read_mask(node, "liver", volume)
    liver[3:6, 10, 10:14] = True
    write_mask(node, "liver", liver, volume)
    drawn = reviewer.shown
    dialogs.answer("shows lesions", yes())
    reviewer.load(CASE)
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, a_lesion_label())
    assert not read_mask(node, "liver", volume)[3:6, 10:14, 10:14].any()
    reviewer.press(reviewer.ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, drawn)
    assert logic.lesion_review.otherwise  # what was drawn counts as drawn again, and stays
    dialogs.answer("shows lesions", no())
    reviewer.load(CASE)
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, drawn)


@pytest.mark.parametrize("row", ["accepted", "deleted"])
def test_a_lesion_that_was_drawn_larger_than_decided_is_asked_about(
    reviewer: Reviewer, row: str
) -> None:
    """An accepted one that a person lets grow, a deleted one that comes back larger."""
    logic, volume = reviewer.logic, reviewer.logic.case_node(CASE)
    button = reviewer.ui.lesionAcceptButton if row == "accepted" else reviewer.ui.lesionDeleteButton
    decided = reviewer.logic.lesion_review.rows[0].voxels
    reviewer.press(button)
    as_decided, node = reviewer.shown, final_label(reviewer, CASE)
    mask = read_mask(node, "tumour", volume)
    k, j, i = (int(n) for n in decided.box.start)
    mask[k - 1 : k + 2, j : j + 2, i - 1 : i + 2] = True
    write_mask(node, "tumour", mask, volume)
    drawn = reviewer.shown
    dialogs.answer("shows lesions", yes())
    reviewer.load(CASE)
    reviewer.rest()
    np.testing.assert_array_equal(reviewer.shown, as_decided)
    reviewer.press(reviewer.ui.undoButton)
    np.testing.assert_array_equal(reviewer.shown, drawn)
    assert logic.lesion_review.otherwise
