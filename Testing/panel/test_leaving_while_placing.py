"""The module is left while prompts are placed."""

from __future__ import annotations

from typing import Any

import pytest
import slicer

from standin.harness import click, run_event_loop


@pytest.mark.parametrize("button", ["addPositiveButton", "addBoxButton"])
def test_leaving_the_module_ends_placing(panel: Any, ct: Any, button: str) -> None:
    click(getattr(panel.ui, button))
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    slicer.util.selectModule("Data")
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    slicer.util.selectModule("ASLseg")
    slicer.app.processEvents()
    assert not getattr(panel.ui, button).checked
    click(getattr(panel.ui, button))
    assert interaction.GetCurrentInteractionMode() == interaction.Place


def test_placing_that_another_module_begins_and_ends_does_not_concern_the_panel(
    panel: Any, ct: Any
) -> None:
    from ASLsegLib.scene.prompts import prompt_nodes

    click(panel.ui.addPositiveButton)
    slicer.util.selectModule("Markups")
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.Place)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    run_event_loop(0.1)
    slicer.util.selectModule("ASLseg")
    assert not panel.ui.addPositiveButton.checked
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert not any(node.GetNumberOfControlPoints() for node in prompt_nodes(ct))
