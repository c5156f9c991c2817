"""Organs are filled between repaired slices: what is remembered, shown, taken back, and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import (
    put_under,
    shift_up,
    show_slice_of,
    use_brief_engine,
    wait_for_engine,
    wait_for_files,
    write_labels,
    write_mask,
)
from slice_repairer import BETWEEN, CASE, FIRST, LAST, Repairer

from aslseg.data.volume import Geometry, Volume
from aslseg.targets import LIVER_TARGETS, Target
from standin.harness import click, run_event_loop, wait_until


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Repairer:
    repairer = Repairer(open_module(), trained)
    use_brief_engine(repairer.logic)
    return repairer


# --- Which slices are repaired ------------------------------------------------------------------


def test_the_panel_says_which_slices_count_as_repaired(person: Repairer) -> None:
    ui = person.ui
    assert (ui.repairedSlicesEdit.text, ui.fillLabel.text) == ("", "No slice is repaired yet.")
    assert not ui.fillButton.enabled
    assert "Repair the organ in some slices first" in ui.fillButton.toolTip
    person.draw(FIRST)
    person.look()
    assert ui.repairedSlicesEdit.text == "3"
    assert ui.fillLabel.text == "Slices between them: 0."
    assert "Nothing lies between the repaired slices (3)" in ui.fillButton.toolTip
    person.draw(LAST)
    person.look()
    assert ui.repairedSlicesEdit.text == "3, 8"
    assert ui.fillLabel.text == "Slices between them: 4."
    assert ui.fillButton.enabled


def test_a_lesion_in_the_organ_is_no_repair_of_it(person: Repairer) -> None:
    liver, tumour = person.mask(), person.mask("tumour")
    assert person.logic.repaired_slices(person.volume) == []
    k = int(np.argmax(liver.sum(axis=(1, 2))))
    j, i = np.argwhere(liver[k])[0]
    for name, mask, value in (("tumour", tumour, True), ("liver", liver, False)):
        mask[k, j, i] = value
        write_mask(person.node, person.segment(name), mask, person.volume)
    assert person.logic.repaired_slices(person.volume) == []
    liver[k, j, i] = True
    liver[k + 1] = False
    write_mask(person.node, person.segment("liver"), liver, person.volume)
    assert person.logic.repaired_slices(person.volume) == [k + 1]


def test_a_new_prediction_forgets_what_was_repaired(person: Repairer) -> None:
    from ASLsegLib.scene.provenance import Provenance

    person.draw(FIRST, LAST)
    labels = np.zeros(person.mask().shape, np.uint8)
    labels[2:9, 5:20, 5:20] = 1
    provenance = Provenance("refined", "aslseg")
    write_labels(person.volume, labels, LIVER_TARGETS, provenance, may_replace=lambda _: True)
    assert person.logic.repaired_slices(person.volume) == []


def test_slices_that_were_repaired_are_remembered_with_the_segmentation(
    person: Repairer, tmp_path: Path
) -> None:
    from ASLsegLib.scene.provenance import REPAIRED, SLICES, tag
    from ASLsegLib.scene.repaired_slices import note_slices

    person.draw(FIRST, LAST)
    note_slices(person.node, person.segment("liver"), {4: "0badcafe"}, [8, 3])
    path = str(tmp_path / "kept.seg.nrrd")
    assert slicer.util.saveNode(person.node, path)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(path)
    again = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "again")
    assert storage.ReadData(again)
    segmentation = again.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("liver"))
    assert (tag(segment, SLICES), tag(segment, REPAIRED)) == ("4-0badcafe", "3 8")


@pytest.mark.parametrize("words", ["7", "x-y", "-", "9999999999-0a", "٣-0a"])
def test_what_a_scene_says_of_slices_may_be_anything(person: Repairer, words: str) -> None:
    from ASLsegLib.scene.provenance import REPAIRED, SLICES, set_tags

    segment = person.node.GetSegmentation().GetSegment(person.segment("liver"))
    set_tags(segment, {SLICES: words, REPAIRED: f"3 {words}"})
    assert 3 in person.logic.repaired_slices(person.volume)


@pytest.mark.usefixtures("panel")
def test_slices_are_told_apart_along_the_axis_of_a_volume() -> None:
    from ASLsegLib.scene.repaired_slices import slice_digests
    from ASLsegLib.scene.segments import part_of

    rng = np.random.default_rng(0)
    mask = np.zeros((7, 8, 9), bool)
    mask[2:5, 3:6, 1:7] = rng.random((3, 3, 6)) > 0.4
    mask[3, 3:6, 1:7] = True
    for axis in range(3):
        before = slice_digests(part_of(mask), axis)
        assert list(before) == np.flatnonzero(np.moveaxis(mask, axis, 0).any(axis=(1, 2))).tolist()
        other = mask.copy()
        other[3, 7, 8] = True  # makes the box larger
        now = slice_digests(part_of(other), axis)
        differing = {k for k in now.keys() | before.keys() if now.get(k) != before.get(k)}
        assert differing == {(3, 7, 8)[axis]}
        moved = slice_digests(part_of(np.roll(mask, 1, (axis + 1) % 3)), axis)
        assert not set(moved.values()) & set(before.values())
    assert slice_digests(None, 0) == {}


def test_lesions_that_are_decided_about_leave_the_organ_as_it_was(reviewer: Any) -> None:
    volume = reviewer.logic.case_node("c2")
    assert reviewer.logic.repaired_slices(volume) == []
    reviewer.logic.delete_lesion(0)
    reviewer.logic.accept_lesion(1)
    assert reviewer.logic.repaired_slices(volume) == []


@pytest.mark.usefixtures("panel")
@pytest.mark.parametrize("axis", [0, 2])
def test_slices_are_filled_along_the_axis_of_the_volume_below_what_lies_in_the_organ(
    axis: int,
) -> None:
    from ASLsegLib.logic.slice_filling import DrawnOrgan, DrawnSlices
    from ASLsegLib.scene.segments import part_of

    liver, tumour = LIVER_TARGETS
    grid = Geometry.axis_aligned((6, 7, 8), (1.0, 1.0, 1.0))
    before = np.zeros(grid.shape, bool)
    before[1:5, 1:5, 1:5] = True  # with what a grown lesion covers of it
    lesion = np.zeros(grid.shape, bool)
    lesion[2:4, 2:4, 2:4] = True
    organ = DrawnOrgan(liver, "liver", (1, 2), part_of(before))
    parts = [(liver, part_of(before)), (tumour, part_of(lesion))]
    drawn = DrawnSlices(None, None, (1, 4), [organ], parts, grid, axis)  # type: ignore[arg-type]
    labels = np.where(before, 1, 0).astype(np.uint8)
    np.moveaxis(labels, axis, 0)[2:4] = 0
    np.moveaxis(labels, axis, 0)[2:4, 0:6, 0:6] = 1
    labels[lesion] = 2
    (found,) = drawn.filled(labels, [2, 3])
    mask = np.zeros(grid.shape, bool)
    assert found.part is not None
    mask[found.part.place] = found.part.values
    expected = before.copy()
    np.moveaxis(expected, axis, 0)[2:4, 0:6, 0:6] = True
    np.testing.assert_array_equal(mask, expected)
    assert list(found.digests) == [1, 2, 3, 4]
    assert found.lost is None


@pytest.mark.usefixtures("panel")
def test_organs_that_overlap_are_not_repaired_by_filling_them() -> None:
    from ASLsegLib.logic.slice_filling import DrawnOrgan, DrawnSlices
    from ASLsegLib.scene.repaired_slices import slice_digests
    from ASLsegLib.scene.segments import part_of

    organs = [Target(name="liver", value=1), Target(name="spleen", value=2)]
    grid = Geometry.axis_aligned((6, 7, 8), (1.0, 1.0, 1.0))
    masks = np.zeros((2, *grid.shape), bool)
    masks[0, :, 1:5, 1:5] = True
    masks[1, :, 3:6, 3:6] = True  # lies on top
    parts = [(one, part_of(mask)) for one, mask in zip(organs, masks, strict=True)]
    asked = [DrawnOrgan(one, one.name, (one.value,), part) for one, part in parts]
    drawn = DrawnSlices(None, None, (1, 4), asked, parts, grid, 0)  # type: ignore[arg-type]
    labels = np.where(masks[1], 2, np.where(masks[0], 1, 0)).astype(np.uint8)
    liver, spleen = drawn.filled(labels, [2, 3])
    for found in (liver, spleen):
        assert found.digests == slice_digests(found.part, 0)
    assert liver.digests[1] != liver.digests[2]
    assert spleen.lost is None


# --- Slices that a person names -----------------------------------------------------------------


def smooth(person: Repairer) -> None:
    """Change the organ a little in most slices, as effects of the Segment Editor do."""
    liver = person.mask()
    liver[2:11, 10:12, 10:12] ^= True
    write_mask(person.node, person.segment("liver"), liver, person.volume)
    person.look()


def test_slices_that_are_typed_count_and_no_others_until_more_is_drawn(person: Repairer) -> None:
    logic, ui = person.logic, person.ui
    smooth(person)
    assert ui.repairedSlicesEdit.text == "2-10"
    person.type_slices("8, 3")
    assert ui.repairedSlicesEdit.text == "3, 8"
    assert "Slices between them: 4." in ui.fillLabel.text
    assert logic.repaired_slices(person.volume) == [3, 8]
    person.draw(6)
    person.look()
    assert ui.repairedSlicesEdit.text == "3, 6, 8"
    person.type_slices("")
    assert ui.repairedSlicesEdit.text == "2-10"
    assert not logic.are_slices_named(person.volume)


def test_named_slices_are_learnt_and_then_count_as_any_others(person: Repairer) -> None:
    logic = person.logic
    smooth(person)
    before = person.mask()
    person.type_slices("3, 8")
    person.fill()
    assert set(person.changed(before)) <= set(BETWEEN)
    assert "Filled 4 slices" in person.ui.fillLabel.text
    assert not logic.are_slices_named(person.volume)
    assert logic.repaired_slices(person.volume) == [3, 8]
    logic.undo()
    assert logic.are_slices_named(person.volume)
    assert logic.repaired_slices(person.volume) == [3, 8]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3; 8", "'3; 8' are no slices; write numbers and ranges such as 4,8,12-15"),
        ("3, 12", "There is no slice 12; the volume has 0 to 11."),
    ],
)
def test_what_is_typed_wrongly_is_said_beside_it(person: Repairer, text: str, reason: str) -> None:
    ui = person.ui
    person.draw(FIRST, LAST)
    person.look()
    person.type_slices(text)
    assert ui.repairedSlicesEdit.text == text
    assert reason in ui.fillLabel.text
    assert not ui.fillButton.enabled
    assert person.logic.repaired_slices(person.volume) == [FIRST, LAST]
    person.type_slices("3, 7")
    assert ui.fillButton.enabled
    assert person.logic.repaired_slices(person.volume) == [3, 7]


def test_the_slice_that_is_shown_counts_or_does_not_at_a_press(person: Repairer) -> None:
    ui = person.ui
    person.draw(FIRST)
    person.look()
    for k, counted, expected in ((7, False, [3, 7]), (3, True, [7]), (7, True, [])):
        show_slice_of(person.volume, k)
        run_event_loop(0.5)
        assert ui.countSliceButton.checked == counted
        click(ui.countSliceButton)
        assert ui.countSliceButton.checked != counted
        assert ui.repairedSlicesEdit.text == ", ".join(map(str, expected))
        assert person.logic.repaired_slices(person.volume) == expected


def test_a_new_prediction_forgets_which_slices_were_named(person: Repairer) -> None:
    from ASLsegLib.scene.provenance import Provenance

    person.type_slices("3, 8")
    labels = np.zeros(person.mask().shape, np.uint8)
    labels[2:9, 5:20, 5:20] = 1
    provenance = Provenance("refined", "aslseg")
    write_labels(person.volume, labels, LIVER_TARGETS, provenance, may_replace=lambda _: True)
    person.look()
    assert person.ui.repairedSlicesEdit.text == ""
    assert person.logic.repaired_slices(person.volume) == []


def test_a_volume_that_is_under_a_transform_no_more_is_looked_at_itself(person: Repairer) -> None:
    from ASLsegLib.scene.volumes import working_volume

    person.draw(FIRST, LAST)
    transform = put_under(person.volume, shift_up(20.0))
    assert working_volume(person.volume) is not person.volume
    person.volume.SetAndObserveTransformNodeID(None)
    slicer.mrmlScene.RemoveNode(transform)
    person.look()
    assert person.ui.repairedSlicesEdit.text == "3, 8"
    assert person.ui.fillButton.enabled


def test_what_was_typed_about_a_case_is_not_about_the_next_one(person: Repairer) -> None:
    person.type_slices("x")
    person.panel.case_chosen.emit("c3")
    wait_for_files(person.logic)
    person.look()
    assert person.ui.repairedSlicesEdit.text == ""
    assert person.ui.fillLabel.text == "No slice is repaired yet."


def test_where_very_many_slices_differ_it_is_said_that_some_should_be_named(
    person: Repairer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.widgets import slice_filling

    monkeypatch.setattr(slice_filling, "MANY", 8)
    smooth(person)
    assert "9 slices differ, as after smoothing: name those" in person.ui.fillLabel.text
    person.type_slices("2-10")
    assert "Slices between them: 0." in person.ui.fillLabel.text
    person.type_slices("")
    monkeypatch.setattr(slice_filling, "MANY", 9)
    person.look()
    person.panel.update()
    assert "Slices between them: 0." in person.ui.fillLabel.text


# --- Filling ------------------------------------------------------------------------------------


def test_slices_between_are_filled_taken_back_and_done_again(person: Repairer) -> None:
    from ASLsegLib.scene.segmentations import holds_unsaved

    logic, ui = person.logic, person.ui
    person.draw(FIRST, LAST)
    person.look()
    before, tumour = person.mask(), person.mask("tumour")
    person.fill()
    filled = person.mask()
    changed = person.changed(before)
    assert changed
    assert set(changed) <= set(BETWEEN)
    np.testing.assert_array_equal(person.mask("tumour"), tumour)
    assert ui.repairedSlicesEdit.text == "3, 8"
    assert "Slices between them: 4. Filled 4 slices" in ui.fillLabel.text
    assert holds_unsaved(person.node, person.volume)
    assert logic.to_undo == "fill liver between slices 3 and 8"
    logic.undo()
    np.testing.assert_array_equal(person.mask(), before)
    assert logic.repaired_slices(person.volume) == [FIRST, LAST]
    assert logic.redo() == "fill liver between slices 3 and 8"
    np.testing.assert_array_equal(person.mask(), filled)
    assert logic.repaired_slices(person.volume) == [FIRST, LAST]


def test_what_is_repaired_after_a_filling_counts_beside_what_was_before(person: Repairer) -> None:
    logic = person.logic
    person.draw(FIRST, LAST)
    facts = logic.fill_between(person.volume)
    assert facts.filled_slices == BETWEEN
    person.draw(6, rows=slice(12, 26))
    assert logic.repaired_slices(person.volume) == [FIRST, 6, LAST]
    before = person.mask()
    facts = logic.fill_between(person.volume, [FIRST, 6, LAST, 9])  # 9 is right as it is
    assert facts.filled_slices == [4, 5, 7]
    assert set(person.changed(before)) <= {4, 5, 7}
    assert logic.repaired_slices(person.volume) == [FIRST, 6, LAST, 9]
    project = logic.accept(CASE)
    liver = project.load_labels(project.case(CASE)).labels
    np.testing.assert_array_equal(liver == 1, person.mask())
    assert next(r for r in logic.case_reports() if r.case_id == CASE).state == "corrected"


def test_what_is_drawn_while_the_engine_fills_is_kept_and_nothing_is_shown(
    person: Repairer, dialogs: Any
) -> None:
    logic = person.logic
    person.draw(FIRST, LAST)
    word = logic.to_undo
    logic.fill_between.begin(person.volume)
    person.draw(6)
    drawn = person.mask()
    wait_for_engine(logic)
    dialogs.take("You drew in liver while it was filled")
    np.testing.assert_array_equal(person.mask(), drawn)
    assert logic.to_undo == word
    assert logic.repaired_slices(person.volume) == [FIRST, 6, LAST]


def test_filling_is_cancelled_and_nothing_has_changed(person: Repairer) -> None:
    logic = person.logic
    person.draw(FIRST, LAST)
    person.look()
    before, word = person.mask(), logic.to_undo
    events: list[Any] = []
    logic.engine.event.connect(events.append)
    click(person.ui.fillButton)
    assert not person.ui.fillButton.enabled
    learning = "Learning the drawn slices"
    wait_until(lambda: any(getattr(e, "task", "") == learning for e in events), 60.0, "it learns")
    logic.cancel()
    wait_for_engine(logic)
    assert events[-1].event == "cancelled"
    np.testing.assert_array_equal(person.mask(), before)
    assert logic.to_undo == word
    assert person.ui.fillButton.enabled


# --- Refusals -----------------------------------------------------------------------------------


def test_what_cannot_be_filled_is_refused_in_words(person: Repairer) -> None:
    from ASLsegLib.scene.volumes import SceneError, add_volume

    logic, volume = person.logic, person.volume
    for slices, reason in (
        ([], "Repair the organ in some slices first, about 15 mm apart"),
        ([5], r"Nothing lies between the repaired slices \(5\)"),
        ([5, 6, 6], r"Nothing lies between the repaired slices \(5, 6\)"),
        ([5, 12], "There is no slice 12; the volume has 0 to 11"),
        ([-1, 5], "There is no slice -1"),
    ):
        with pytest.raises(SceneError, match=reason):
            logic.fill_between(volume, slices)
    voxels = np.zeros((4, 5, 6), np.int16)
    other = add_volume(Volume(voxels, Geometry.axis_aligned(voxels.shape, (1.0,) * 3)), "other")
    with pytest.raises(SceneError, match="No final label of other is in the scene"):
        logic.fill_between(other, [1, 3])
    assert not logic.engine.is_busy


def test_a_given_mask_and_changed_segments_and_voxels_are_refused(person: Repairer) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, volume, segmentation = person.logic, person.volume, person.node.GetSegmentation()
    logic._files_of[volume.GetID()] = {"liver": "liver.nii.gz"}
    with pytest.raises(SceneError, match="The mask of liver was given and stays"):
        logic.fill_between(volume, [3, 8])
    logic._files_of.clear()
    second = segmentation.AddEmptySegment("", "Liver")
    with pytest.raises(SceneError, match=r"liver has several segments \(liver, Liver\)"):
        logic.fill_between(volume, [3, 8])
    segmentation.RemoveSegment(second)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    person.node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(SceneError, match="is under a transform; harden it"):
        logic.fill_between(volume, [3, 8])
    person.node.SetAndObserveTransformNodeID(None)
    segmentation.RemoveSegment(person.segment("liver"))
    with pytest.raises(SceneError, match="has no segment of liver"):
        logic.fill_between(volume, [3, 8])
    slicer.util.arrayFromVolume(volume)[:] = 0
    with pytest.raises(SceneError, match="not those of case c2 any more"):
        logic.fill_between(volume, [3, 8])


def test_where_the_run_is_gone_a_new_network_learns(person: Repairer) -> None:
    logic = person.logic
    person.draw(FIRST, LAST)
    shutil.rmtree(logic.project.folder / "runs")
    logic.refresh()
    person.look()
    assert logic.usable_run() is None
    events: list[Any] = []
    logic.engine.event.connect(events.append)
    click(person.ui.fillButton)
    learning = "Learning the drawn slices"
    wait_until(lambda: any(getattr(e, "task", "") == learning for e in events), 60.0, "it learns")
    logic.cancel()
    wait_for_engine(logic)
    assert events[-1].event == "cancelled"
