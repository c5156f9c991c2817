"""What of a segmentation a person does not see in the slice views, and how it is brought there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def hidden_segments(node: Any, segment_ids: Sequence[str]) -> list[str]:
    """Return the ids, of those given, of segments that are not seen in the slice views."""
    display = node.GetDisplayNode()
    return [one for one in segment_ids if display is None or not _is_seen(display, one)]


def show_hidden(node: Any, segment_ids: Sequence[str]) -> list[str]:
    """Let segments be seen in the slice views.

    Args:
        node: Segmentation node.
        segment_ids: Those that have to be seen.

    Returns:
        Names of those that were not.
    """
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetVisibility(False)
    display, segmentation = node.GetDisplayNode(), node.GetSegmentation()
    hidden = hidden_segments(node, segment_ids)
    if hidden:
        display.SetVisibility(True)
        display.SetOpacity(display.GetOpacity() or 1.0)
    for segment_id in hidden:
        display.SetSegmentVisibility(segment_id, True)
        if not _is_drawn(display, segment_id):
            display.SetVisibility2DFill(True)
            display.SetSegmentVisibility2DFill(segment_id, True)
    return [str(segmentation.GetSegment(one).GetName()) for one in hidden]


def _is_seen(display: Any, segment_id: str) -> bool:
    is_shown = display.GetVisibility() and display.GetSegmentVisibility(segment_id)
    return bool(is_shown and display.GetOpacity() > 0 and _is_drawn(display, segment_id))


def _is_drawn(display: Any, segment_id: str) -> bool:
    """Tell whether a segment that is shown is filled or outlined."""
    fill = display.GetVisibility2DFill() and display.GetSegmentVisibility2DFill(segment_id)
    outline = display.GetVisibility2DOutline() and display.GetSegmentVisibility2DOutline(segment_id)
    return bool(fill or outline)
