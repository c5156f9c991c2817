"""Take a case out of the scene, with all that was made of it here."""

from __future__ import annotations

from typing import Any

import slicer

from ASLsegLib.scene.case_nodes import is_intact
from ASLsegLib.scene.disagreement import find_overlay
from ASLsegLib.scene.prompts import prompt_nodes, remove_prompt
from ASLsegLib.scene.segmentations import (
    drawn_on,
    find_prediction,
    holds_unsaved,
    is_approved,
    predictions_about,
)


def remove_if_saved(volume: Any) -> bool:
    """Remove the volume node of a case, unless it shows something of a person that is not saved.

    A segmentation of a person's own needs the volume that it was drawn on, which stays then.

    Returns:
        Whether it is gone, with its prompts and predictions.
    """
    if not is_intact(volume):
        return False
    nodes = [*predictions_about(volume).values()]
    if any(holds_unsaved(node, volume) for node in nodes) or {*drawn_on(volume)} - {*nodes}:
        return False
    prompts, refined = prompt_nodes(volume), find_prediction(volume, "refined")
    if prompts and (refined is None or not is_approved(refined)):
        return False
    for prompt in prompts:
        remove_prompt(prompt)
    overlay = find_overlay(volume)
    for node in [*nodes, *([overlay] if overlay else []), volume]:
        slicer.mrmlScene.RemoveNode(node.GetDisplayNode())
        slicer.mrmlScene.RemoveNode(node)
    return True
