"""The volume that is decided about is the one that the slice views show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slicer
from test_review_section import Person

from standin.dialogs import dialogs
from standin.harness import choose_node, run_event_loop, wait_until

FIRST, SECOND = "c2", "c3"


class Looker(Person):
    """A person with case c2 in the views, who may leave the module."""

    def __init__(self, widget: Any, folder: Path) -> None:
        super().__init__(widget, folder)
        self.widget = widget
        self.load(FIRST)

    @property
    def in_views(self) -> str:
        """Name of what the red view shows."""
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        return "" if node is None else str(node.GetName())

    def is_seen(self, case_id: str) -> bool:
        """Whether the final label of a case is shown."""
        return bool(self.logic.refined_node(case_id).GetDisplayNode().GetVisibility())

    def label(self, case_id: str) -> Any:
        return self.logic.project.case(case_id).label

    def look_at(self, case_id: str) -> None:
        """Let the views show another volume, as by the menu of a slice view."""
        slicer.util.setSliceViewerLayers(background=self.logic.case_node(case_id))


@pytest.fixture
def looker(open_module: Callable[..., Any], trained: Path) -> Looker:
    return Looker(open_module(), trained)


def test_a_case_that_comes_while_another_module_is_open_is_chosen_on_return(
    looker: Looker,
) -> None:
    looker.panel.case_chosen.emit(SECOND)
    looker.widget.exit()
    wait_until(lambda: not looker.logic.background.is_busy, 60.0, "the case is read")
    run_event_loop(0.1)
    assert (looker.in_views, looker.is_seen(FIRST), looker.is_seen(SECOND)) == (FIRST, True, False)
    looker.widget.enter()
    looker.rest()
    assert looker.panel.volume is looker.logic.case_node(SECOND)
    assert (looker.in_views, looker.is_seen(FIRST), looker.is_seen(SECOND)) == (SECOND, False, True)
    assert looker.ui.caseGroup.title == f"Whole case: {SECOND}"


def test_a_volume_that_is_chosen_comes_into_the_views_with_its_label(looker: Looker) -> None:
    first = looker.panel.volume
    looker.load(SECOND)
    assert looker.in_views == SECOND
    choose_node(looker.ui.inputVolumeSelector, first)
    looker.rest()
    assert (looker.in_views, looker.is_seen(FIRST), looker.is_seen(SECOND)) == (FIRST, True, False)
    looker.press(looker.ui.acceptButton)
    assert looker.label(FIRST) is not None


def test_no_case_is_accepted_while_the_views_show_another_one(looker: Looker) -> None:
    first = looker.panel.volume
    looker.load(SECOND)
    choose_node(looker.ui.inputVolumeSelector, first)
    looker.look_at(SECOND)
    looker.press(looker.ui.acceptButton)
    dialogs.take(f"The slice views showed {SECOND}, not {FIRST}, so nothing was done. {FIRST} is")
    assert (looker.label(FIRST), looker.in_views) == (None, FIRST)
    looker.look_at(SECOND)
    one = slicer.app.layoutManager().sliceWidget("Yellow").mrmlSliceCompositeNode()
    one.SetBackgroundVolumeID(first.GetID())  # one view of it is enough
    looker.press(looker.ui.acceptButton)
    assert looker.label(FIRST) is not None


def test_nothing_is_rejected_or_deleted_while_the_views_show_another_case(looker: Looker) -> None:
    first = looker.panel.volume
    looker.load(SECOND)
    choose_node(looker.ui.inputVolumeSelector, first)
    looker.rest()
    for button in (looker.ui.rejectButton, looker.ui.lesionDeleteButton):
        looker.look_at(SECOND)
        looker.press(button)
        dialogs.take(f"The slice views showed {SECOND}, not {FIRST}, so nothing was done. {FIRST}")
    assert looker.logic.to_undo == ""
    assert looker.in_views == FIRST
    looker.press(looker.ui.lesionDeleteButton)
    assert looker.logic.to_undo == "delete lesion 1"


def test_a_layout_without_slice_views_shows_no_other_case(looker: Looker) -> None:
    first = looker.panel.volume
    looker.load(SECOND)
    choose_node(looker.ui.inputVolumeSelector, first)
    looker.look_at(SECOND)
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    for node in views:
        node.SetMappedInLayout(0)
    looker.press(looker.ui.acceptButton)
    for node in views:
        node.SetMappedInLayout(1)
    assert looker.label(FIRST) is not None


@pytest.mark.parametrize("button", ["addPositiveButton", "addBoxButton"])
def test_no_prompt_is_placed_while_the_views_show_another_volume(
    looker: Looker, button: str
) -> None:
    from ASLsegLib.scene.prompts import prompt_nodes

    first = looker.panel.volume
    looker.load(SECOND)
    choose_node(looker.ui.inputVolumeSelector, first)
    looker.look_at(SECOND)
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    looker.press(getattr(looker.ui, button))
    dialogs.take(f"The slice views showed {SECOND}, not {FIRST}")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert not prompt_nodes(first)
    looker.press(getattr(looker.ui, button))
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert looker.in_views == FIRST
