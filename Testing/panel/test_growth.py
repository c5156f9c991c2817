"""A box on one slice becomes a lesion: shown while it grows, corrected, and taken back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import (
    press,
    put_under,
    read_labels,
    read_mask,
    shift_up,
    show_slice_of,
    wait_for_engine,
    write_labels,
    write_mask,
)

from aslseg.data.volume import Geometry, Volume
from aslseg.targets import LIVER_TARGETS
from standin.harness import choose_node, click, run_event_loop, wait_until

SHAPE = (12, 40, 44)
K, J, COLUMN = np.indices(SHAPE)
LIVER = (J - 20) ** 2 + (COLUMN - 22) ** 2 <= 17**2
TILT, TURN = np.deg2rad(12.0), np.deg2rad(8.0)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = (
    np.array([[1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)]])
    @ np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]])
    @ np.diag([-2.0, 2.0, 4.0])  # j runs to anterior: not the axial grid
)
OBLIQUE[:3, 3] = (10.0, -20.0, 5.0)


def ball(k: float, j: float, i: float, radius: float) -> np.ndarray:
    """A ball in voxels, flattened to half along k."""
    return (2 * (K - k)) ** 2 + (J - j) ** 2 + (COLUMN - i) ** 2 <= radius**2


LESION = ball(5, 20, 16, 6.9)  # slices 2 to 8
SECOND = ball(6, 18, 31, 4.9)


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    panel = open_module().panel
    use_engine(panel, 0.0)
    return panel


def use_engine(panel: Any, delay_s: float) -> None:
    engine = panel.logic.engine
    engine.close()
    script = str(Path(__file__).with_name("growing_engine.py"))
    engine._python = [sys.executable, script, str(delay_s)]


@pytest.fixture
def volume(panel: Any) -> Any:
    """An oblique volume with two lesions, which the panel is about."""
    from ASLsegLib.scene.volumes import add_volume

    voxels = np.where(LIVER, 110, -80)
    voxels[(LESION | SECOND) & LIVER] = 60
    node = add_volume(Volume(voxels.astype(np.int16), Geometry(SHAPE, OBLIQUE)), "ct")
    panel.ui.reviewSection.collapsed = False
    run_event_loop(0.1)
    choose_node(panel.ui.inputVolumeSelector, node)
    panel.parameters.followEdits = False
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def add_box(volume: Any, k: int, *xyxy: float) -> Any:
    from ASLsegLib.scene.prompts import box_node

    return box_node(volume, "tumour", xyxy, k)


def rest(panel: Any) -> None:
    run_event_loop(0.1)
    wait_for_engine(panel.logic)


def grow_first(panel: Any, volume: Any) -> Any:
    """Press the button with a box on slice 5, and return what has grown."""
    show_slice_of(volume, 5)
    add_box(volume, 5, 9, 13, 23, 27)
    run_event_loop(0.2)
    panel.update()
    click(panel.ui.growButton)
    rest(panel)
    return panel.logic.growths[-1]


def begin_first(panel: Any, volume: Any, slice_s: float) -> Any:
    """Press the button with a box on slice 5, and return what grows once a section has come."""
    use_engine(panel, slice_s)
    show_slice_of(volume, 5)
    add_box(volume, 5, 9, 13, 23, 27)
    panel.update()
    click(panel.ui.growButton)
    wait_until(lambda: bool(panel.logic.growths[-1].segment.slices), 60.0)
    return panel.logic.growths[-1]


def shown(growth: Any) -> np.ndarray:
    return np.asarray(read_mask(growth.node, growth.segment_id, growth.volume))


def test_the_button_says_what_is_lacking(panel: Any, volume: Any) -> None:
    show_slice_of(volume, 5)
    panel.update()
    assert not panel.ui.growButton.enabled
    assert "Place a box or points" in panel.ui.growButton.toolTip
    assert not panel.ui.undoButton.enabled
    add_box(volume, 5, 9, 13, 23, 27)
    panel.update()
    assert panel.ui.growButton.enabled


def test_the_button_follows_the_slice_that_is_looked_at(panel: Any, volume: Any) -> None:
    show_slice_of(volume, 3)
    add_box(volume, 5, 9, 13, 23, 27)
    for k, expected in ((3, False), (5, True), (6, False)):
        show_slice_of(volume, k)
        run_event_loop(0.4)
        assert panel.ui.growButton.enabled is expected


def test_one_box_and_one_button_make_a_lesion_that_counts_as_its_target(
    panel: Any, volume: Any
) -> None:
    growth = grow_first(panel, volume)
    assert np.array_equal(shown(growth), LESION)
    segment = growth.node.GetSegmentation().GetSegment(growth.segment_id)
    assert segment.GetName() == "tumour 1"
    assert growth.node.GetDisplayNode().GetVisibility()
    assert np.array_equal(read_labels(growth.node, volume, LIVER_TARGETS) == 2, LESION)
    said = panel.ui.growthStatusLabel.text
    assert "slices 2 to 8" in said
    assert "nothing there looks like the lesion" in said


def test_a_prompt_that_has_grown_is_no_prompt_of_its_slice_any_more(
    panel: Any, volume: Any
) -> None:
    grow_first(panel, volume)
    assert panel.logic.prompts(volume) == []


def test_sections_are_shown_while_the_lesion_grows(panel: Any, volume: Any) -> None:
    use_engine(panel, 0.4)
    show_slice_of(volume, 5)
    add_box(volume, 5, 9, 13, 23, 27)
    panel.update()
    click(panel.ui.growButton)
    wait_until(lambda: len(panel.logic.growths[-1].segment.slices) >= 2, 60.0)
    growth = panel.logic.growths[-1]
    assert panel.logic.engine.is_busy
    seen = shown(growth)
    assert seen.any()
    assert not np.array_equal(seen, LESION)
    rest(panel)
    assert np.array_equal(shown(growth), LESION)


def test_what_a_person_drew_and_other_lesions_stay_as_they_are(panel: Any, volume: Any) -> None:
    from ASLsegLib.scene.provenance import Provenance

    labels = np.where(LIVER, 1, 0).astype(np.uint8)
    labels[SECOND & LIVER] = 2
    node = write_labels(volume, labels, LIVER_TARGETS, Provenance("refined", "aslseg"))
    segmentation = node.GetSegmentation()
    drawn = ball(5, 20, 25, 3.0)  # right beside the lesion, by hand
    tumour = segmentation.GetSegmentIdBySegmentName("tumour")
    write_mask(node, tumour, (SECOND & LIVER) | drawn, volume)
    before = read_mask(node, tumour, volume).copy()
    liver = read_mask(node, segmentation.GetSegmentIdBySegmentName("liver"), volume).copy()
    growth = grow_first(panel, volume)
    assert growth.node is node
    assert np.array_equal(read_mask(node, tumour, volume), before)
    assert np.array_equal(
        read_mask(node, segmentation.GetSegmentIdBySegmentName("liver"), volume), liver
    )
    assert not (shown(growth) & before).any()
    assert (shown(growth) & LESION).sum() > 0.8 * LESION.sum()


def test_undo_takes_the_lesion_back_then_its_box_and_redo_brings_both(
    panel: Any, volume: Any
) -> None:
    from ASLsegLib.scene.prompts import POSITIVE, add_point, prompt_nodes

    ui, logic = panel.ui, panel.logic
    add_point(volume, "tumour", (31.5, 18.5), 6, POSITIVE)
    run_event_loop(0.4)
    growth = grow_first(panel, volume)
    assert ui.undoButton.toolTip == "Undo: grow tumour 1, slice 5"
    press(panel, "Ctrl+Z")
    assert growth.node.GetSegmentation().GetSegment(growth.segment_id) is None
    assert logic.growths == []
    assert len(logic.prompts(volume)) == 2  # the box is a prompt of its slice again
    run_event_loop(0.6)
    assert logic.growths == []  # and nothing grows from it by itself
    assert ui.undoButton.toolTip == "Undo: place box, slice 5"
    press(panel, "Ctrl+Z")
    assert [node.GetClassName() for node in prompt_nodes(volume)] == ["vtkMRMLMarkupsFiducialNode"]
    press(panel, "Ctrl+Z")
    assert logic.prompts(volume) == []
    assert ui.undoButton.toolTip == "There is nothing to undo."
    for _ in range(3):
        press(panel, "Ctrl+Y")
    assert logic.growths == [growth]
    assert np.array_equal(shown(growth), LESION)
    assert len(logic.prompts(volume)) == 1
    run_event_loop(0.6)
    assert not logic.engine.is_busy


def test_a_box_that_grows_by_itself_is_one_step_with_its_lesion(panel: Any, volume: Any) -> None:
    panel.parameters.eachBoxGrows = True
    add_box(volume, 5, 9, 13, 23, 27)
    wait_until(lambda: bool(panel.logic.growths), 30.0)
    rest(panel)
    press(panel, "Ctrl+Z")
    assert panel.logic.growths == []
    assert panel.logic.prompts(volume) == []
    run_event_loop(0.6)
    assert panel.logic.growths == []
    press(panel, "Ctrl+Y")
    run_event_loop(0.6)
    (growth,) = panel.logic.growths
    assert np.array_equal(shown(growth), LESION)
    assert not panel.logic.engine.is_busy


def test_a_correction_is_taken_back_with_what_it_did(panel: Any, volume: Any) -> None:
    from ASLsegLib.scene.prompts import NEGATIVE, add_point

    growth = grow_first(panel, volume)
    add_point(volume, "tumour", (16.5, 20.5), 7, NEGATIVE)
    wait_until(lambda: not shown(growth)[7:].any(), 30.0)
    rest(panel)
    assert panel.ui.undoButton.toolTip == "Undo: place negative point, slice 7"
    press(panel, "Ctrl+Z")
    assert np.array_equal(shown(growth), LESION)
    assert len(growth.prompts()) == 1
    press(panel, "Ctrl+Y")
    assert np.array_equal(shown(growth)[:7], LESION[:7])
    assert not shown(growth)[7:].any()
    run_event_loop(0.6)
    assert not panel.logic.engine.is_busy


def test_what_a_person_drew_in_a_lesion_comes_back_with_redo(panel: Any, volume: Any) -> None:
    from ASLsegLib.scene.terminology import terminology_of

    growth = grow_first(panel, volume)
    drawn = LESION | ball(9, 20, 16, 3.0)
    write_mask(growth.node, growth.segment_id, drawn, volume)
    press(panel, "Ctrl+Z")
    press(panel, "Ctrl+Y")
    assert np.array_equal(shown(growth), drawn)
    segment = growth.node.GetSegmentation().GetSegment(growth.segment_id)
    assert "^Mass~" in terminology_of(segment)  # as it is exported to DICOM


def test_what_a_person_drew_in_a_lesion_stays_when_a_prompt_lets_it_grow_again(
    panel: Any, volume: Any
) -> None:
    from ASLsegLib.scene.prompts import NEGATIVE, add_point

    growth = grow_first(panel, volume)
    added, erased = ball(9, 20, 16, 3.0) & ~LESION, ball(4, 20, 12, 2.0)
    write_mask(growth.node, growth.segment_id, (LESION | added) & ~erased, volume)
    add_point(volume, "tumour", (16.5, 20.5), 7, NEGATIVE)
    wait_until(lambda: not shown(growth)[7, 20, 16], 30.0)
    rest(panel)
    shorter = np.where(K < 7, LESION, False)
    assert np.array_equal(shown(growth), (shorter | added) & ~erased)
    assert "What you drew or erased in it is kept." in panel.ui.growthStatusLabel.text
    press(panel, "Ctrl+Z")
    assert np.array_equal(shown(growth), (LESION | added) & ~erased)
    add_point(volume, "tumour", (16.5, 20.5), 6, NEGATIVE)  # and after undo
    wait_until(lambda: not shown(growth)[6, 20, 16], 30.0)
    rest(panel)
    shorter = np.where(K < 6, LESION, False)
    assert np.array_equal(shown(growth), (shorter | added) & ~erased)


def test_what_a_person_draws_while_a_lesion_grows_stays(panel: Any, volume: Any) -> None:
    growth = begin_first(panel, volume, 0.4)
    added = ball(5, 20, 28, 2.0)
    write_mask(growth.node, growth.segment_id, shown(growth) | added, volume)
    rest(panel)
    assert np.array_equal(shown(growth), LESION | added)


def test_a_lesion_that_a_person_erased_wholly_grows_as_if_nothing_was_erased(
    panel: Any, volume: Any
) -> None:
    growth = grow_first(panel, volume)
    write_mask(growth.node, growth.segment_id, np.zeros(SHAPE, bool), volume)
    panel.logic.grow_again(growth)
    assert np.array_equal(shown(growth), LESION)
    assert not growth.segment.has_strokes


def test_undo_while_it_grows_stops_it(panel: Any, volume: Any) -> None:
    growth = begin_first(panel, volume, 0.5)
    press(panel, "Ctrl+Z")
    rest(panel)
    assert growth.node.GetSegmentation().GetSegment(growth.segment_id) is None
    assert panel.logic.growths == []
    press(panel, "Ctrl+Y")  # it had not grown to its end, so it grows again
    wait_until(lambda: np.array_equal(shown(growth), LESION), 30.0)


def test_a_lesion_grows_to_its_end_when_undo_of_something_else_has_stopped_it(
    panel: Any, volume: Any
) -> None:
    from ASLsegLib.scene.prompts import POSITIVE, add_point

    use_engine(panel, 0.2)
    show_slice_of(volume, 5)
    add_box(volume, 5, 9, 13, 23, 27)
    run_event_loop(0.4)
    click(panel.ui.growButton)
    wait_until(lambda: bool(panel.logic.growths[-1].segment.slices), 60.0)
    (growth,) = panel.logic.growths
    add_point(volume, "tumour", (38.5, 35.5), 6, POSITIVE)  # far from it
    wait_until(lambda: panel.logic.to_undo == "place positive point, slice 6", 10.0)
    assert panel.logic.growing is growth
    press(panel, "Ctrl+Z")
    wait_until(lambda: growth.is_whole, 30.0)
    assert np.array_equal(shown(growth), LESION)
    assert len(panel.logic.prompts(volume)) == 0
    press(panel, "Ctrl+Z")
    assert panel.logic.growths == []


def test_a_negative_point_on_another_slice_corrects_the_lesion(panel: Any, volume: Any) -> None:
    from ASLsegLib.scene.prompts import NEGATIVE, add_point

    growth = grow_first(panel, volume)
    add_point(volume, "tumour", (16.5, 20.5), 7, NEGATIVE)
    wait_until(lambda: not shown(growth)[7:].any(), 30.0)
    rest(panel)
    assert np.array_equal(shown(growth)[:7], LESION[:7])
    assert len(panel.logic.growths) == 1


def test_a_moved_box_lets_the_lesion_grow_anew(panel: Any, volume: Any) -> None:
    from ASLsegLib.scene.prompts import place_box, prompt_nodes

    growth = grow_first(panel, volume)
    (node,) = prompt_nodes(volume)
    place_box(node, volume, (27, 14, 36, 23), 6)
    wait_until(lambda: shown(growth)[6, 18, 31], 30.0)
    rest(panel)
    assert np.array_equal(shown(growth), SECOND & LIVER)


def test_what_is_said_of_a_lesion_goes_with_its_volume_and_with_undo(
    panel: Any, volume: Any
) -> None:
    from ASLsegLib.scene.volumes import add_volume

    said = panel.ui.growthStatusLabel
    other = add_volume(Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, OBLIQUE)), "other")
    panel.parameters.inputVolume = volume
    grow_first(panel, volume)
    assert "slices 2 to 8, 0." in said.text or "slices 2 to 8, 1" in said.text
    panel.parameters.inputVolume = other
    run_event_loop(0.2)
    assert said.text == "", "no volume of another patient's lesion"
    panel.parameters.inputVolume = volume
    show_slice_of(volume, 6)
    add_box(volume, 6, 27, 14, 36, 23)
    run_event_loop(0.2)
    click(panel.ui.growButton)
    rest(panel)
    assert "tumour: slices" in said.text
    click(panel.ui.undoButton)
    assert said.text == ""


def test_each_box_grows_where_that_is_chosen_and_no_slice_is_asked_for(
    panel: Any, volume: Any
) -> None:
    panel.parameters.eachBoxGrows = True
    panel.parameters.followEdits = True
    add_box(volume, 5, 9, 13, 23, 27)
    wait_until(lambda: bool(panel.logic.growths), 30.0)
    rest(panel)
    add_box(volume, 6, 27, 14, 36, 23)
    wait_until(lambda: len(panel.logic.growths) == 2, 30.0)
    rest(panel)
    first, second = panel.logic.growths
    assert np.array_equal(shown(first), LESION)
    assert np.array_equal(shown(second), SECOND & LIVER)
    assert panel.ui.promptsStatusLabel.text == ""


def test_a_box_that_cannot_grow_is_said_once_and_left_alone_until_it_changes(
    panel: Any, volume: Any, dialogs: Any
) -> None:
    from ASLsegLib.scene.prompts import place_box

    panel.logic.engine._python = [sys.executable, "-c", "raise SystemExit(3)"]
    panel.parameters.eachBoxGrows = True
    show_slice_of(volume, 5)
    box = add_box(volume, 5, 9, 13, 23, 27)
    wait_until(lambda: bool(dialogs.messages), 30.0)
    run_event_loop(1.5)
    dialogs.take("code 3")
    assert dialogs.errors() == []
    assert "Nothing has grown: move the box" in panel.ui.growthStatusLabel.text
    click(panel.ui.growButton)
    wait_until(lambda: bool(dialogs.messages), 30.0)
    run_event_loop(1.5)
    dialogs.take("code 3")
    assert dialogs.errors() == []
    use_engine(panel, 0.0)
    place_box(box, volume, (9, 12, 23, 27), 5)
    wait_until(lambda: bool(panel.logic.growths), 30.0)
    rest(panel)
    assert np.array_equal(shown(panel.logic.growths[-1]), LESION)


def test_cancel_stops_a_box_from_growing_and_a_new_one_grows(panel: Any, volume: Any) -> None:
    panel.logic.engine._python = [sys.executable, "-c", "import time; time.sleep(60)"]
    panel.parameters.eachBoxGrows = True
    add_box(volume, 5, 9, 13, 23, 27)
    wait_until(lambda: panel.logic.engine.is_busy, 30.0)
    run_event_loop(0.2)
    click(panel.ui.cancelButton)
    wait_until(lambda: not panel.logic.engine.is_busy, 30.0)
    run_event_loop(1.0)
    assert not panel.logic.engine.is_busy
    assert panel.logic.growths == []
    use_engine(panel, 0.0)
    add_box(volume, 6, 27, 14, 36, 23)
    wait_until(lambda: bool(panel.logic.growths), 30.0)
    rest(panel)
    run_event_loop(0.6)
    (growth,) = panel.logic.growths
    assert np.array_equal(shown(growth), SECOND & LIVER)
    assert [prompt.slice_index for prompt in panel.logic.prompts(volume)] == [5]


def test_a_run_that_is_gone_is_said_once_where_each_box_grows(
    panel: Any, volume: Any, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.errors import RunError
    from ASLsegLib.scene.prompts import NEGATIVE, add_point

    def refuse(*_: Any) -> Any:
        raise RunError("Run gone cannot be used.")

    growth = grow_first(panel, volume)
    monkeypatch.setattr(panel.logic, "_about", refuse)
    panel.parameters.eachBoxGrows = True
    add_box(volume, 6, 27, 14, 36, 23)
    run_event_loop(1.0)
    dialogs.take("Run gone cannot be used")
    assert dialogs.errors() == []
    add_point(volume, "tumour", (16.5, 20.5), 7, NEGATIVE)  # nor can it be corrected
    run_event_loop(1.0)
    dialogs.take("Run gone cannot be used")
    assert dialogs.errors() == []
    assert np.array_equal(shown(growth), LESION)


def test_a_lesion_whose_prompts_were_removed_stays_as_it_is(
    panel: Any, volume: Any, dialogs: Any
) -> None:
    from ASLsegLib.scene.prompts import prompt_nodes, remove_prompt

    growth = grow_first(panel, volume)
    (box,) = prompt_nodes(volume)
    remove_prompt(box)
    run_event_loop(0.8)
    assert dialogs.errors() == []
    assert np.array_equal(shown(growth), LESION)


def test_nothing_grows_without_a_run_and_without_sam(panel: Any, volume: Any, dialogs: Any) -> None:
    show_slice_of(volume, 5)
    panel.parameters.samModel = "none"
    add_box(volume, 5, 9, 13, 23, 27)
    panel.update()
    assert not panel.ui.growButton.enabled
    assert "Choose a SAM under Train" in panel.ui.growButton.toolTip
    panel.parameters.eachBoxGrows = True
    run_event_loop(1.0)
    dialogs.take("Choose a SAM under Train")
    assert dialogs.errors() == []
    assert panel.logic.growths == []


def test_prompts_of_a_lesion_that_was_removed_are_prompts_of_their_slice_again(
    panel: Any, volume: Any
) -> None:
    first = grow_first(panel, volume)
    first.node.GetSegmentation().RemoveSegment(first.segment_id)
    panel.parameters.eachBoxGrows = panel.parameters.followEdits = True
    run_event_loop(1.0)
    assert [prompt.slice_index for prompt in panel.logic.prompts(volume)] == [5]
    assert panel.ui.growButton.enabled
    assert panel.logic.growths == []  # nothing grows or is asked for by itself
    assert not panel.logic.engine.is_busy
    add_box(volume, 6, 27, 14, 36, 23)
    wait_until(lambda: bool(panel.logic.growths), 30.0)
    rest(panel)
    (second,) = panel.logic.growths
    assert [prompt.slice_index for prompt in second.prompts()] == [6]
    assert np.array_equal(shown(second), SECOND & LIVER)


def test_a_script_that_removed_a_lesion_grows_the_next_from_its_own_prompts(
    panel: Any, volume: Any
) -> None:
    add_box(volume, 5, 9, 13, 23, 27)
    first = panel.logic.grow(volume, 5, "tumour")
    slicer.mrmlScene.RemoveNode(first.node)
    add_box(volume, 6, 27, 14, 36, 23)
    second = panel.logic.grow(volume, 6, "tumour")
    assert second.name == first.name == "tumour 1"
    assert second.segment_id != first.segment_id
    assert panel.logic.growths == [second]
    assert np.array_equal(shown(second), SECOND & LIVER)


def test_redo_gives_no_prompt_to_a_lesion_that_was_removed_by_hand(panel: Any, volume: Any) -> None:
    add_box(volume, 5, 9, 13, 23, 27)
    growth = panel.logic.grow(volume, 5, "tumour")
    growth.node.GetSegmentation().RemoveSegment(growth.segment_id)
    panel.logic.undo()
    panel.logic.redo()
    assert [prompt.slice_index for prompt in panel.logic.prompts(volume)] == [5]
    assert panel.logic.growths == []


def test_a_lesion_whose_segmentation_is_removed_while_it_grows_is_stopped(
    panel: Any, volume: Any, dialogs: Any
) -> None:
    growth = begin_first(panel, volume, 0.4)
    slicer.mrmlScene.RemoveNode(growth.node)
    rest(panel)
    run_event_loop(0.3)
    assert dialogs.errors() == []
    assert "Nothing has grown" in panel.ui.growthStatusLabel.text
    assert [prompt.slice_index for prompt in panel.logic.prompts(volume)] == [5]


def test_prompts_of_a_lesion_are_prompts_of_their_slice_in_a_scene_that_is_loaded(
    panel: Any, volume: Any, tmp_path: Path
) -> None:
    growth = grow_first(panel, volume)
    panel.parameters.eachBoxGrows = panel.parameters.followEdits = True
    path, segment_id = str(tmp_path / "scene.mrb"), growth.segment_id
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(path)
    run_event_loop(1.0)
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().GetSegment(segment_id) is not None
    (prompt,) = panel.logic.prompts(panel.volume)
    assert panel.logic.growths == []
    assert not panel.logic.engine.is_busy
    show_slice_of(panel.volume, prompt.slice_index)
    click(panel.ui.clearPromptsButton)
    assert panel.logic.prompts(panel.volume) == []


def test_a_script_grows_a_lesion_and_takes_it_back(panel: Any, volume: Any) -> None:
    add_box(volume, 5, 9, 13, 23, 27)
    growth = panel.logic.grow(volume, 5, "tumour")
    assert np.array_equal(shown(growth), LESION)
    assert growth.facts.volume_ml == pytest.approx(
        LESION.sum() * abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000, rel=1e-3
    )
    assert panel.logic.undo() == "grow tumour 1, slice 5"
    assert panel.logic.undo() == "place box, slice 5"
    assert panel.logic.undo() == ""


def test_a_slice_without_a_prompt_or_a_name_that_is_no_target_is_refused(
    panel: Any, volume: Any
) -> None:
    from ASLsegLib.scene.volumes import SceneError

    with pytest.raises(SceneError, match="place one, then grow it"):
        panel.logic.grow(volume, 3, "tumour")
    with pytest.raises(SceneError, match="choose one of liver, tumour"):
        panel.logic.grow(volume, 3, "spleen")
    assert panel.logic.growths == []


def test_prompts_about_a_volume_under_a_transform_are_placed_on_what_is_worked_on(
    panel: Any, volume: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.scene.prompts import add_point, prompt_nodes
    from ASLsegLib.scene.volumes import hardened_copy

    put_under(volume, shift_up(20.0))
    panel.update()
    click(panel.ui.addBoxButton)
    copy = hardened_copy(volume)
    assert panel.volume is copy
    assert len(prompt_nodes(copy)) == 1
    assert panel.ui.addBoxButton.checked
    click(panel.ui.addBoxButton)
    growth = grow_first(panel, copy)
    assert growth.volume is copy
    assert shown(growth).any()
    panel.parameters.inputVolume = volume
    panel.update()
    click(panel.ui.addPositiveButton)
    add_point(panel.volume, "tumour", (31.5, 18.5), 5)
    click(panel.ui.addPositiveButton)
    sent: list[Any] = []
    monkeypatch.setattr(panel.logic.engine, "start", sent.append)
    click(panel.ui.refineButton)
    assert [len(job.arguments["prompts"]) for job in sent] == [1]


def test_prompts_of_a_volume_that_was_moved_since_are_asked_for_anew(
    panel: Any, volume: Any, dialogs: Any
) -> None:
    from ASLsegLib.scene.volumes import hardened_copy

    panel.parameters.eachBoxGrows = True
    put_under(volume, shift_up(4.0))
    add_box(volume, 5, 9, 13, 23, 27)
    wait_until(lambda: panel.volume is not volume, 30.0)
    run_event_loop(0.5)
    dialogs.take("Slice 5 has no box or point for tumour: place one, then grow it")
    assert panel.volume is hardened_copy(volume)
    assert dialogs.errors() == []


def test_a_run_that_cannot_be_used_leaves_the_prompts_and_no_empty_segment(
    panel: Any, volume: Any
) -> None:
    from aslseg.errors import RunError
    from ASLsegLib.scene.prompts import free_prompts
    from ASLsegLib.scene.segmentations import drawn_on

    add_box(volume, 5, 9, 13, 23, 27)
    with pytest.raises(RunError, match="Run gone cannot be used"):
        panel.logic.grow(volume, 5, "tumour", run_id="gone")
    assert drawn_on(volume) == panel.logic.growths == []
    assert len(free_prompts(volume, 5)) == 1
    growth = panel.logic.grow(volume, 5, "tumour")
    done = panel.logic.history.done
    with pytest.raises(RunError, match="Run gone cannot be used"):
        panel.logic.grow_again(growth, "gone")
    assert growth.is_whole
    assert panel.logic.history.done == done


def test_what_fails_leaves_the_prompts_and_no_empty_segment(
    panel: Any, volume: Any, dialogs: Any
) -> None:
    from ASLsegLib.engine.client import EngineError

    panel.logic.engine._python = [sys.executable, "-c", "raise SystemExit(3)"]
    add_box(volume, 5, 9, 13, 23, 27)
    with pytest.raises(EngineError):
        panel.logic.grow(volume, 5, "tumour")
    run_event_loop(0.1)
    dialogs.take("code 3")
    assert panel.logic.growths == []
    assert panel.logic.to_undo == "place box, slice 5"
    assert len(panel.logic.prompts(volume)) == 1
    (node,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert node.GetSegmentation().GetNumberOfSegments() == 0
