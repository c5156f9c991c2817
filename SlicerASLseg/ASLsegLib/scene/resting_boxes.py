"""Boxes of prompts that rest: without handles, which would cover what was decided about."""

from __future__ import annotations

from typing import Any

from ASLsegLib.scene.prompts import BOX, KIND, prompt_nodes

_DECISION = "ASLseg.Decision"
"""Attribute of a box: the decision by which it rests."""


def rest_boxes(volume: Any, decision: str) -> None:
    """Take the handles of the boxes about a volume away.

    Args:
        volume: Volume node.
        decision: What `wake_boxes` knows them by; boxes that rest already stay with theirs.
    """
    for node in prompt_nodes(volume):
        if node.GetAttribute(KIND) == BOX and not node.GetAttribute(_DECISION):
            node.SetAttribute(_DECISION, decision)
            node.GetDisplayNode().SetHandlesInteractive(False)


def wake_boxes(volume: Any, decision: str) -> None:
    """Give the boxes that rest by a decision their handles back."""
    for node in prompt_nodes(volume):
        if node.GetAttribute(_DECISION) == decision:
            node.RemoveAttribute(_DECISION)
            node.GetDisplayNode().SetHandlesInteractive(True)
