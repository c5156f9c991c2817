"""One stack of everything, by keys: prompts, answers of SAM, decisions, in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import press, read_labels, read_mask, show_slice_of, wait_for_engine, write_mask
from trained import UNLABELLED

from standin.harness import click, run_event_loop, wait_until

CASE, K = UNLABELLED[0], 6


class Person:
    """A person who looks at a case that a run has segmented."""

    def __init__(self, widget: Any, folder: Path) -> None:
        from ASLsegLib.widgets.prompts import PromptsSection

        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        self.prompts = next(s for s in self.panel.sections if isinstance(s, PromptsSection))
        self.ui.reviewSection.collapsed = False
        self.logic.open_project(folder)
        self.panel.case_chosen.emit(CASE)
        wait_until(lambda: self.logic.case_node(CASE) is not None, 60.0)
        self.rest()
        self.volume = self.logic.case_node(CASE)
        show_slice_of(self.volume, K)
        self.logic.segment(self.volume)
        self.rest()

    def rest(self) -> None:
        wait_for_engine(self.logic, settle_s=0.4)

    def place(self, *xy: float, k: int = K) -> None:
        from ASLsegLib.scene.prompts import POSITIVE, add_point

        show_slice_of(self.volume, k)
        add_point(self.volume, "tumour", (xy[0], xy[1]), k, POSITIVE)
        run_event_loop(0.4)
        if self.panel.parameters.followEdits:
            wait_until(lambda: self.prompts._changed_at is None, 60.0, "SAM is asked")
        self.rest()

    def press(self, keys: str) -> None:
        press(self.panel, keys)
        self.rest()

    @property
    def says(self) -> str:
        return str(self.ui.undoButton.toolTip)

    def shown(self, source: str = "refined") -> np.ndarray:
        node = self.logic.predictions(self.volume)[source]
        return np.asarray(read_labels(node, self.volume, self.logic.targets()))

    def state(self) -> dict[str, Any]:
        """All that is shown, with where it comes from."""
        from ASLsegLib.scene.disagreement import find_overlay
        from ASLsegLib.scene.prompt_states import read_state
        from ASLsegLib.scene.provenance import all_tags
        from ASLsegLib.scene.segments import segment_ids

        found: dict[str, Any] = {"prompts": read_state(self.volume)}
        for source, node in self.logic.predictions(self.volume).items():
            segmentation = node.GetSegmentation()
            for name in segment_ids(node):
                mask = read_mask(node, name, self.volume)
                found[f"{source} {name}"] = (
                    mask.tobytes(), all_tags(segmentation.GetSegment(name)), node.GetName()
                )  # fmt: skip
        overlay = find_overlay(self.volume)
        found["overlay"] = overlay and slicer.util.arrayFromVolume(overlay).tobytes()
        return found


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Person:
    return Person(open_module(), trained)


@pytest.mark.usefixtures("needs_sam")
def test_prompts_and_answers_go_back_and_forth_with_all_that_they_changed(person: Person) -> None:
    states = [person.state()]
    person.place(12.5, 28.5)
    assert person.says == f"Undo: place positive point, slice {K}"
    states.append(person.state())
    person.place(20.5, 22.5, k=K + 1)
    states.append(person.state())
    assert states[0]["refined tumour"] != states[1]["refined tumour"] != states[2]["refined tumour"]
    node = slicer.util.getNode(states[1]["refined tumour"][2])
    for state in (states[1], states[0]):
        person.press("Ctrl+Z")
        assert person.state() == state
    run_event_loop(0.6)
    assert not person.logic.engine.is_busy  # nothing is asked anew
    from ASLsegLib.scene.slice_views import current_slice

    assert current_slice(person.volume) == K  # the slice that the last undo was about
    assert person.ui.redoButton.toolTip == f"Redo: place positive point, slice {K}"
    for state in states[1:]:
        person.press("Ctrl+Y")
        assert person.state() == state
    assert not person.ui.redoButton.enabled
    assert slicer.mrmlScene.IsNodePresent(node)


@pytest.mark.usefixtures("needs_sam")
def test_what_is_asked_by_the_button_is_a_step_of_its_own(person: Person) -> None:
    person.panel.parameters.followEdits = False
    before = person.shown()
    person.place(12.5, 28.5)
    click(person.ui.refineButton)
    person.rest()
    after = person.shown()
    assert not np.array_equal(before, after)
    assert person.says == f"Undo: answer of SAM, slice {K}"
    person.press("Ctrl+Z")
    np.testing.assert_array_equal(person.shown(), before)
    assert len(person.logic.history._done[-1].then) == 0
    assert person.says == f"Undo: place positive point, slice {K}"
    person.press("Ctrl+Z")
    assert person.says == f"Undo: segment {person.volume.GetName()}"
    person.press("Ctrl+Y")
    person.press("Ctrl+Y")
    np.testing.assert_array_equal(person.shown(), after)


def test_a_segmentation_is_taken_back_as_a_whole(person: Person) -> None:
    from ASLsegLib.scene.disagreement import find_overlay

    state = person.state()
    person.press("Ctrl+Z")
    before = person.state()
    assert find_overlay(person.volume) is None
    assert before["refined tumour"] != state["refined tumour"]  # as it was saved with the run
    person.press("Ctrl+Y")
    assert person.state() == state


@pytest.mark.usefixtures("needs_sam")
def test_undo_while_sam_is_asked_lets_no_answer_come(person: Person) -> None:
    from ASLsegLib.scene.prompts import POSITIVE, add_point

    before = person.state()
    add_point(person.volume, "tumour", (12.5, 28.5), K, POSITIVE)
    slicer.app.processEvents()
    wait_until(lambda: person.logic.engine.is_busy, 10.0)
    press(person.panel, "Ctrl+Z")
    person.rest()
    assert person.state() == before
    press(person.panel, "Ctrl+Y")  # its answer has never come: it is asked for now
    wait_until(lambda: person.logic.engine.is_busy, 10.0)
    person.rest()
    assert person.state()["refined tumour"] != before["refined tumour"]
    person.press("Ctrl+Z")
    assert person.state() == before


def test_moved_deleted_and_cleared_prompts_come_back(person: Person) -> None:
    from ASLsegLib.scene.prompt_states import read_state
    from ASLsegLib.scene.prompts import POSITIVE, box_node, points_node, remove_prompt

    person.panel.parameters.followEdits = False
    box = box_node(person.volume, "tumour", (5, 5, 15, 15), K)
    person.rest()
    person.place(12.5, 28.5)
    states = [read_state(person.volume)]
    where = [0.0, 0.0, 0.0]
    node = points_node(person.volume, "tumour", POSITIVE)
    node.GetNthControlPointPositionWorld(0, where)
    for step in range(1, 4):  # it is dragged: one act
        node.SetNthControlPointPositionWorld(0, where[0] + step, where[1], where[2])
        run_event_loop(0.05)
    person.rest()
    assert person.says == f"Undo: move positive point, slice {K}"
    states.append(read_state(person.volume))
    remove_prompt(box)
    person.rest()
    assert person.says == f"Undo: delete box, slice {K}"
    states.append(read_state(person.volume))
    show_slice_of(person.volume, K)
    click(person.ui.clearPromptsButton)
    person.rest()
    assert person.says == f"Undo: clear slice {K}"
    for state in reversed(states):
        person.press("Ctrl+Z")
        assert read_state(person.volume) == state
    assert points_node(person.volume, "tumour", POSITIVE) is node
    for state in states[1:]:
        person.press("Ctrl+Y")
        assert read_state(person.volume) == state


def test_a_new_act_ends_what_could_be_redone(person: Person) -> None:
    person.panel.parameters.followEdits = False
    person.place(12.5, 28.5)
    person.press("Ctrl+Z")
    assert person.ui.redoButton.enabled
    person.place(14.5, 20.5)
    assert not person.ui.redoButton.enabled


@pytest.mark.usefixtures("needs_sam")
def test_what_a_person_drew_since_stays_when_an_answer_is_taken_back(person: Person) -> None:
    person.place(12.5, 28.5)
    node = person.logic.predictions(person.volume)["refined"]
    mask = read_mask(node, "tumour", person.volume)
    mask[0, 2:5, 2:5] = True
    write_mask(node, "tumour", mask, person.volume)
    person.press("Ctrl+Z")
    assert read_mask(node, "tumour", person.volume)[0, 2:5, 2:5].all()


@pytest.mark.usefixtures("needs_sam")
def test_acts_of_all_kinds_are_taken_back_in_their_order_and_the_saved_label_is_kept(
    person: Person,
) -> None:
    logic, ui = person.logic, person.ui
    person.place(12.5, 28.5)
    table = ui.reviewTable
    names = [table.item(row, 0).text() for row in range(table.rowCount)]
    table.selectRow(names.index(CASE))
    click(ui.acceptButton)
    person.rest()
    saved = logic.project.load_labels(logic.project.case(CASE)).labels
    person.panel.parameters.followEdits = False
    person.place(20.5, 22.5)
    words = []
    while person.says != "There is nothing to undo.":
        words.append(person.says.removeprefix("Undo: "))
        person.press("Ctrl+Z")
    assert words == [
        f"place positive point, slice {K}",
        f"{CASE}: corrected",
        f"place positive point, slice {K}",
        f"segment {person.volume.GetName()}",
    ]
    assert logic.project.case(CASE).label is None
    history = logic.project.folder / "labels" / "history"
    assert any(path.name.startswith(CASE) for path in history.iterdir())
    for _ in words:
        person.press("Ctrl+Y")
    again = logic.project.load_labels(logic.project.case(CASE)).labels
    np.testing.assert_array_equal(again, saved)


@pytest.mark.usefixtures("needs_sam")
def test_a_volume_that_goes_takes_its_acts_with_it(person: Person) -> None:
    person.place(12.5, 28.5)
    slicer.mrmlScene.RemoveNode(person.volume)
    run_event_loop(0.2)
    assert person.says == "There is nothing to undo."


def test_placing_goes_on_after_undo(person: Person) -> None:
    person.panel.parameters.followEdits = False
    click(person.ui.addPositiveButton)
    person.place(12.5, 28.5)
    person.press("Ctrl+Z")
    assert person.ui.addPositiveButton.checked
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place


def test_many_changes_take_no_more_memory_than_is_allowed() -> None:
    from ASLsegLib.logic.history import MOST_BYTES, Change, History

    history = History()
    for number in range(5):
        history.add(Change(str(number), int, int, size_bytes=lambda: MOST_BYTES // 2))
    assert [change.word for change in history._done] == ["3", "4"]


def test_an_answer_belongs_to_the_change_of_its_slice() -> None:
    """Two prompts were placed before SAM was asked about the slice of the first one."""
    from ASLsegLib.logic.history import Change, History

    def change(word: str, slice_index: int | None) -> Change:
        return Change(word, list, list, volume_id="ct", slice_index=slice_index)

    history = History()
    first, fifth, seventh = change("box", 5), change("point", 5), change("point", 7)
    assert history.cause("ct", 5) is None
    for one in (first, fifth, seventh):
        history.add(one)
    assert history.cause("ct", 5) is fifth
    history.add(change("answer", 5), fifth)
    assert history.cause("ct", 7) is seventh
    history.add(change("answer", 7), seventh)
    assert (fifth.then[0].slice_index, seventh.then[0].slice_index) == (5, 7)
    assert history.cause("ct", 5) is seventh, "a moved point changes two slices"
    assert history.cause("ct", None) is seventh
    history.undo()
    assert history.last_done is fifth
