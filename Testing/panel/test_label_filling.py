"""The first labels: an organ drawn in some slices is filled between them, before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from harness import read_mask, use_brief_engine, wait_for_engine, wait_for_files, write_mask

from aslseg.evaluation.metrics import dice
from standin.harness import choose_node, click, run_event_loop, wait_until

CASE = "p1"
DRAWN = [1, 4, 6]
BETWEEN = [2, 3, 5]
CLOSER = [1, 3, 4, 6]
"""Of `DRAWN`, slice 3 has a Dice of 0.74 on processors without bfloat16."""
LEARNING = "Learning the drawn slices"


class Beginner:
    """A person in front of a project without any run, who draws a liver in some slices."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        self.ui.casesSection.collapsed = False
        self.logic.open_project(folder)
        self.panel.case_chosen.emit(CASE)
        wait_for_files(self.logic)
        self.volume = self.logic.case_node(CASE)
        _, labels = a_phantom()
        self.truth = labels > 0
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        self.node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        for name in ("liver", "tumour"):
            self.node.GetSegmentation().AddEmptySegment(name, name)
        choose_node(self.ui.labelSegmentationSelector, self.node)
        run_event_loop(0.3)

    def mask(self, name: str = "liver") -> np.ndarray:
        return np.asarray(read_mask(self.node, name, self.volume)).copy()

    def draw(self, *slices: int, name: str = "liver") -> None:
        liver = self.mask(name)
        for k in slices:
            liver[k] = self.truth[k]
        write_mask(self.node, name, liver, self.volume)

    def made_by(self) -> str:
        """Return what a DICOM file would say of how the liver was made."""
        kind = vtk.reference("")
        segment = self.node.GetSegmentation().GetSegment("liver")
        return str(kind) if segment.GetTag("DICOM.SegmentAlgorithmType", kind) else ""

    def fill(self) -> None:
        click(self.ui.fillLabelButton)
        wait_for_engine(self.logic, 0.5)


def a_phantom() -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels and the label map of the case, as `make_project` makes it."""
    from aslseg.data.phantom.dataset import make_phantom

    volume, labels = make_phantom(1, (8, 40, 48), (20.0, 8.0, 8.0))
    return volume.voxels, labels.labels


@pytest.fixture
def person(open_module: Callable[..., Any], project: Path) -> Beginner:
    return Beginner(open_module(), project)


@pytest.mark.slow
def test_a_first_label_is_drawn_in_some_slices_filled_taken_back_and_saved(
    person: Beginner,
) -> None:
    logic, ui = person.logic, person.ui
    person.draw(*CLOSER)
    before = person.mask()
    assert logic.drawn_slices(person.node) == CLOSER
    assert logic.usable_run() is None
    person.node.CreateDefaultDisplayNodes()
    person.node.GetDisplayNode().SetVisibility(False)
    person.fill()
    assert person.node.GetDisplayNode().GetVisibility(), "what was filled is shown"
    filled = person.mask()
    kept = [k for k in range(8) if k not in [2, 5]]
    np.testing.assert_array_equal(filled[kept], before[kept])
    for k in (2, 5):
        assert dice(filled[k], person.truth[k]) > 0.75
    said = "Filled 2 slices between those that you drew (1, 3, 4, 6)"
    assert ui.filledLabel.text.startswith(said)
    assert not person.mask("tumour").any()
    assert ui.labelSegmentationSelector.currentNode() is person.node
    assert logic.to_undo == "fill liver between slices 1 and 6"
    assert person.made_by() == "SEMIAUTOMATIC"
    logic.undo()
    assert person.made_by() == ""
    np.testing.assert_array_equal(person.mask(), before)
    assert logic.drawn_slices(person.node) == CLOSER
    logic.redo()
    np.testing.assert_array_equal(person.mask(), filled)
    assert logic.drawn_slices(person.node) == CLOSER
    person.draw(2)
    assert logic.drawn_slices(person.node) == [1, 2, 3, 4, 6]
    shown = person.mask()
    click(ui.saveLabelButton)
    wait_for_files(logic)
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    np.testing.assert_array_equal(saved == 1, shown)


def test_what_cannot_be_filled_is_refused_in_words(person: Beginner, dialogs: Any) -> None:
    from ASLsegLib.scene.volumes import SceneError

    logic, ui = person.logic, person.ui
    assert ui.fillLabelButton.enabled
    person.fill()
    dialogs.take("mine shows no organ yet: draw it in some slices")
    person.draw(4)
    person.fill()
    dialogs.take("Nothing lies between the drawn slices (4)")
    person.draw(5)
    with pytest.raises(SceneError, match=r"between the drawn slices \(4, 5\)"):
        logic.fill_between(person.volume, segmentation=person.node)
    person.node.GetSegmentation().RemoveSegment("liver")
    run_event_loop(0.3)
    person.panel.update()
    assert not ui.fillLabelButton.enabled
    assert "mine has no segment of liver" in ui.fillLabelButton.toolTip
    choose_node(ui.labelSegmentationSelector, None)
    run_event_loop(0.3)
    assert "Choose a segmentation" in ui.fillLabelButton.toolTip
    assert not logic.engine.is_busy


def test_an_organ_whose_mask_was_given_is_not_filled_before_any_training(
    person: Beginner, dialogs: Any
) -> None:
    logic = person.logic
    given = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "given")
    given.CreateDefaultDisplayNodes()
    given.SetReferenceImageGeometryParameterFromVolumeNode(person.volume)
    given.GetSegmentation().AddEmptySegment("liver", "liver")
    write_mask(given, "liver", person.truth, person.volume)
    logic.save_organ_mask(given, "liver")
    person.draw(*DRAWN)
    before = person.mask()
    assert logic.usable_run() is None
    click(person.ui.fillLabelButton)
    run_event_loop(0.1)
    is_busy = logic.engine.is_busy
    logic.cancel()
    wait_for_engine(logic)
    assert not is_busy
    dialogs.take("The mask of liver was given and stays, so nothing is filled")
    np.testing.assert_array_equal(person.mask(), before)


def test_an_organ_on_other_voxels_is_refused_for_its_drawn_slices_would_change(
    person: Beginner,
) -> None:
    from aslseg.data.volume import Geometry, Volume
    from ASLsegLib.scene.segments import part_of, write_part
    from ASLsegLib.scene.volumes import SceneError, add_volume, geometry_of

    coarse = geometry_of(person.volume)
    fine_matrix = coarse.ijk_to_ras @ np.diag([0.5, 0.5, 1.0, 1.0])
    depth, height, width = coarse.shape
    fine = Geometry((depth, 2 * height, 2 * width), fine_matrix)
    other = add_volume(Volume(np.zeros(fine.shape, np.int16), fine), "finer")
    mask = person.truth.repeat(2, axis=1).repeat(2, axis=2)
    mask[BETWEEN] = False
    write_part(person.node, "liver", part_of(mask), other)
    with pytest.raises(SceneError, match="liver was drawn on other voxels than those of"):
        person.logic.fill_between(person.volume, [1, 4, 6], segmentation=person.node)


def press_and_wait_for_learning(person: Beginner) -> None:
    events: list[Any] = []
    person.logic.engine.event.connect(events.append)
    click(person.ui.fillLabelButton)
    wait_until(lambda: any(getattr(e, "task", "") == LEARNING for e in events), 60.0, "it learns")


@pytest.mark.slow
def test_what_is_drawn_meanwhile_is_kept(person: Beginner, dialogs: Any) -> None:
    use_brief_engine(person.logic)
    person.draw(*DRAWN)
    press_and_wait_for_learning(person)
    person.draw(2)
    shown = person.mask()
    wait_for_engine(person.logic, 0.3)
    dialogs.take("You drew in liver while it was filled")
    np.testing.assert_array_equal(person.mask(), shown)
    assert not person.ui.filledLabel.text


def test_a_segmentation_may_be_removed_meanwhile(person: Beginner) -> None:
    person.draw(*DRAWN)
    press_and_wait_for_learning(person)
    slicer.mrmlScene.RemoveNode(person.node)
    person.logic.cancel()
    wait_for_engine(person.logic, 0.3)
    assert not person.ui.fillLabelButton.enabled


def test_what_was_filled_is_said_until_something_else_is_shown(person: Beginner) -> None:
    from aslseg.engine.filling import NEW_NETWORK
    from aslseg.engine.protocol import Done

    choose_node(person.ui.labelSegmentationSelector, person.node)
    person.draw(*DRAWN)
    person.logic.filling = person.node
    person.logic.engine.event.emit(Done(facts=NEW_NETWORK))
    run_event_loop(0.3)
    assert "between those that you drew (1, 4, 6)" in person.ui.filledLabel.text
    person.draw(3)  # or Undo
    person.panel.update()
    assert person.ui.filledLabel.text == ""


def test_what_is_chosen_as_a_label_stays_so_until_a_prediction_comes(person: Beginner) -> None:
    """Else the next press would save another label, which the case has already."""
    from aslseg.engine.facts import EstimateFacts, PredictionFacts, RemovalFacts
    from aslseg.engine.filling import NEW_NETWORK
    from aslseg.engine.protocol import Done

    logic, choice = person.logic, person.ui.labelSegmentationSelector
    person.panel.case_chosen.emit("p0")
    wait_for_files(logic)
    label = wait_until(lambda: logic.refined_node("p0"), 30.0, "the label is shown")
    logic.working_on = logic.case_node("p0")
    choose_node(choice, person.node)
    estimate = EstimateFacts(rounds=1, steps=10, seconds=60.0)
    for facts in (NEW_NETWORK, estimate, RemovalFacts(removed=[])):
        logic.engine.event.emit(Done(facts=facts))
        run_event_loop(0.3)
        assert choice.currentNode() is person.node, type(facts).__name__
    predicted = PredictionFacts(
        run=None, method="sam", round=0, weights="", note="", device="cpu", slice_index=None,
        targets=[], unmet_clicks=[],
    )  # fmt: skip
    logic.engine.event.emit(Done(facts=predicted))
    run_event_loop(0.3)
    assert choice.currentNode() is label
