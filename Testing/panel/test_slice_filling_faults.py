"""Filling between repaired slices while a person, the scene or the engine does something else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import (
    close_project,
    show_slice_of,
    start_filling,
    use_brief_engine,
    wait_for_engine,
    wait_for_files,
    write_mask,
)
from slice_repairer import BETWEEN, CASE, FIRST, LAST, Repairer

from aslseg.data.volume import Geometry, Volume
from standin.harness import click, run_event_loop


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Repairer:
    repairer = Repairer(open_module(), trained)
    use_brief_engine(repairer.logic)
    repairer.draw(FIRST, LAST)
    repairer.look()
    return repairer


# --- Undo -------------------------------------------------------------------------------------


def test_undo_of_a_filling_keeps_what_was_drawn_after_it(person: Repairer) -> None:
    logic, before = person.logic, person.mask()
    person.fill()
    filled = person.mask()
    person.draw(6, rows=slice(12, 26))
    drawn = person.mask()
    logic.undo()
    now = person.mask()
    assert not (drawn & ~filled & ~now).any(), "what was drawn stays"
    np.testing.assert_array_equal(now[[4, 5, 7]], before[[4, 5, 7]])
    assert set(logic.repaired_slices(person.volume)) == {FIRST, 6, LAST}
    logic.redo()
    assert set(logic.repaired_slices(person.volume)) == {FIRST, 6, LAST}
    person.look()
    person.fill()
    assert logic.repaired_slices(person.volume) == [FIRST, 6, LAST]


@pytest.mark.nightly
def test_filling_goes_on_after_a_decision_and_its_undo(person: Repairer) -> None:
    logic = person.logic
    person.fill()
    logic.accept(CASE)
    person.look()
    logic.undo()
    person.look()
    assert logic.repaired_slices(person.volume) == [FIRST, LAST]
    person.draw(6, rows=slice(12, 26))
    person.look()
    person.fill()
    assert logic.to_undo == "fill liver between slices 3 and 8"
    logic.undo()
    logic.undo()
    assert logic.repaired_slices(person.volume) == [FIRST, 6, LAST]


# --- The scene and the project meanwhile ---------------------------------------------------------


def test_what_was_filled_of_one_case_is_not_said_of_another(person: Repairer) -> None:
    logic, ui, before = person.logic, person.ui, person.mask()
    start_filling(person.logic, person.ui.fillButton)
    person.panel.case_chosen.emit("c3")
    wait_for_files(logic)
    other = logic.refined_node("c3")
    other_liver = other.GetSegmentation().GetSegmentIdBySegmentName("liver")
    mask = np.zeros(before.shape, bool)
    mask[2:9, 5:20, 5:20] = True
    write_mask(other, other_liver, mask, logic.case_node("c3"))
    wait_for_engine(logic, 0.7)
    assert "Slices between them" in ui.fillLabel.text
    assert "Filled" not in ui.fillLabel.text
    assert not person.node.GetDisplayNode().GetVisibility()
    assert person.changed(before) == BETWEEN


def test_a_case_that_is_removed_while_it_computes_stops_it(person: Repairer) -> None:
    logic = person.logic
    start_filling(person.logic, person.ui.fillButton)
    slicer.mrmlScene.RemoveNode(person.volume)
    wait_for_engine(logic, 0.7)
    assert (logic.engine.state.value, logic.to_undo) == ("idle", "")


@pytest.mark.nightly
def test_a_label_that_is_removed_while_it_computes_is_missed(
    person: Repairer, dialogs: Any
) -> None:
    start_filling(person.logic, person.ui.fillButton)
    slicer.mrmlScene.RemoveNode(person.node)
    wait_for_engine(person.logic, 0.7)
    dialogs.take("liver was removed from the scene meanwhile; nothing is filled")


@pytest.mark.nightly
def test_a_project_that_is_closed_while_it_computes_takes_nothing_back(person: Repairer) -> None:
    logic, before = person.logic, person.mask()
    start_filling(person.logic, person.ui.fillButton)
    close_project(logic)
    wait_for_engine(logic, 0.7)
    assert person.changed(before) == BETWEEN
    logic.undo()
    assert person.changed(before) == []


@pytest.mark.nightly
def test_a_scene_that_is_closed_while_it_computes_leaves_nothing(person: Repairer) -> None:
    start_filling(person.logic, person.ui.fillButton)
    slicer.mrmlScene.Clear(0)
    wait_for_engine(person.logic, 0.7)
    assert (person.ui.fillLabel.text, person.ui.repairedSlicesEdit.text) == ("", "")


def test_which_slices_count_is_known_after_the_scene_was_saved_and_loaded(
    person: Repairer, tmp_path: Path
) -> None:
    logic = person.logic
    person.type_slices("3, 7")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    run_event_loop(1.0)
    person.volume, person.node = logic.case_node(CASE), logic.refined_node(CASE)
    person.panel.parameters.inputVolume = person.volume
    person.look()
    assert person.ui.repairedSlicesEdit.text == "3, 7"
    before = person.mask()
    person.fill()
    assert person.changed(before) == [4, 5, 6]


@pytest.mark.nightly
def test_filling_works_after_it_was_cancelled(person: Repairer) -> None:
    before = person.mask()
    start_filling(person.logic, person.ui.fillButton)
    person.logic.cancel()
    wait_for_engine(person.logic)
    person.fill()
    assert person.changed(before) == BETWEEN


# --- Segments --------------------------------------------------------------------------------


def test_an_organ_without_a_segment_is_named(person: Repairer) -> None:
    ui, segmentation = person.ui, person.node.GetSegmentation()
    segment = segmentation.GetSegment(person.segment("liver"))
    segment.SetName("my organ")  # is still one by its terminology
    person.look()
    assert ui.repairedSlicesEdit.text == "3, 8"
    segment.RemoveTag(segment.GetTerminologyEntryTagName())
    person.look()
    assert "has no segment of liver; give a segment that name" in ui.fillLabel.text
    assert ui.fillLabel.text == ui.fillButton.toolTip == ui.countSliceButton.toolTip
    assert not ui.fillButton.enabled
    segmentation.RemoveSegment(person.segment("my organ"))
    person.look()
    assert "has no segment of liver" in ui.fillLabel.text


def test_what_is_filled_is_seen(person: Repairer) -> None:
    display = person.node.GetDisplayNode()
    display.SetSegmentVisibility(person.segment("liver"), False)
    click(person.ui.showRefinedBox)
    assert not display.GetVisibility()
    person.fill()
    assert display.GetVisibility()
    assert person.ui.showRefinedBox.checked
    assert display.GetSegmentVisibility(person.segment("liver"))


def test_slices_of_a_volume_that_is_stored_in_coronal_slices_are_those_of_the_view(
    person: Repairer,
) -> None:
    from ASLsegLib.scene.slice_views import current_slice
    from ASLsegLib.scene.volumes import add_volume, volume_of

    logic, old = person.logic, volume_of(person.volume)
    voxels = np.ascontiguousarray(old.voxels.transpose(1, 0, 2)[::-1])  # (j, k, i), j mirrored
    rows = old.voxels.shape[1]
    turn = np.array([[1, 0, 0, 0], [0, 0, -1, rows - 1], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    volume = add_volume(
        Volume(voxels, Geometry(voxels.shape, old.geometry.ijk_to_ras @ turn)), "cor"
    )
    logic.segment(volume)
    person.panel.parameters.inputVolume = volume
    person.volume, person.node = volume, logic.predictions(volume)["refined"]
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    liver = person.mask()
    assert liver.any()
    for k in (3, 8):
        liver[:, k] = False
        liver[12:28, k, 12:28] = True
    write_mask(person.node, person.segment("liver"), liver, volume)
    person.look()
    assert person.ui.repairedSlicesEdit.text == "3, 8"
    show_slice_of(volume, 8)
    run_event_loop(0.5)
    assert current_slice(volume) == 8
    assert person.ui.countSliceButton.checked
    before = person.mask()
    person.fill()
    changed = np.flatnonzero((before != person.mask()).any(axis=(0, 2))).tolist()
    assert changed == BETWEEN
    assert logic.repaired_slices(volume) == [3, 8]


# --- The run and the engine ----------------------------------------------------------------------


@pytest.mark.nightly
def test_weights_that_are_gone_are_named(person: Repairer, dialogs: Any) -> None:
    before = person.mask()
    for path in (person.logic.project.folder / "runs").rglob("specialist-liver*.safetensors"):
        path.unlink()
    person.fill()
    assert "specialist-liver" in dialogs.take("There is no weights file").text
    assert person.changed(before) == []


def test_the_engine_is_killed_while_it_learns(person: Repairer, dialogs: Any) -> None:
    before = person.mask()
    start_filling(person.logic, person.ui.fillButton)
    os.kill(person.logic.engine.pid, signal.SIGKILL)
    wait_for_engine(person.logic, 0.7)
    dialogs.take("The engine was killed")
    assert person.changed(before) == []
    person.fill()
    assert person.changed(before) == BETWEEN


@pytest.mark.usefixtures("needs_sam")
def test_a_slice_that_an_answer_to_prompts_has_changed_counts(person: Repairer) -> None:
    from ASLsegLib.scene.prompts import add_point

    logic, before = person.logic, person.mask()
    j, i = np.argwhere(before[6])[0] - 4
    add_point(person.volume, "liver", (float(i), float(j)), 6)
    logic.refine(person.volume, 6, may_replace=lambda _: True)
    changed = person.changed(before)
    person.look()
    assert logic.repaired_slices(person.volume) == sorted({FIRST, LAST, *changed})
    person.fill()
    assert logic.repaired_slices(person.volume) == sorted({FIRST, LAST, *changed})
