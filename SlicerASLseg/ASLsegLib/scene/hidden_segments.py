"""What of a segmentation a person does not see in the slice views, and how it is brought there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_FILL_OPACITY = 0.5
"""Of segments whose fill had none: Slicer's own."""


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
            _make_opaque(display, segment_id)
        if not _is_drawn(display, segment_id):
            display.SetVisibility2DFill(True)
            display.SetSegmentVisibility2DFill(segment_id, True)
    return [str(segmentation.GetSegment(one).GetName()) for one in hidden]


def _is_seen(display: Any, segment_id: str) -> bool:
    is_shown = display.GetVisibility() and display.GetSegmentVisibility(segment_id)
    return bool(is_shown and display.GetOpacity() > 0 and _is_drawn(display, segment_id))


def _is_drawn(display: Any, segment_id: str) -> bool:
    """Tell whether a segment that is shown is filled or outlined.

    Slice views multiply the opacity of all segments with that of each.
    """
    fill = display.GetVisibility2DFill() and display.GetSegmentVisibility2DFill(segment_id)
    fill = fill and display.GetOpacity2DFill() * display.GetSegmentOpacity2DFill(segment_id) > 0
    outline = display.GetVisibility2DOutline() and display.GetSegmentVisibility2DOutline(segment_id)
    opacity = display.GetOpacity2DOutline() * display.GetSegmentOpacity2DOutline(segment_id)
    return bool(fill or (outline and opacity > 0))


def _make_opaque(display: Any, segment_id: str) -> None:
    """Let fill and outline of a segment be seen where they are on, unless they are already."""
    display.SetOpacity2DFill(display.GetOpacity2DFill() or _FILL_OPACITY)
    display.SetOpacity2DOutline(display.GetOpacity2DOutline() or 1.0)
    fill = display.GetSegmentOpacity2DFill(segment_id) or 1.0
    outline = display.GetSegmentOpacity2DOutline(segment_id) or 1.0
    display.SetSegmentOpacity2DFill(segment_id, fill)
    display.SetSegmentOpacity2DOutline(segment_id, outline)
