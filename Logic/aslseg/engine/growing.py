"""A growing lesion as events: one for each section, as soon as it is there."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aslseg.data.masks import box_of
from aslseg.data.volume import Labelmap, Mask
from aslseg.engine.facts import GrowthFacts, PredictionFacts
from aslseg.events import Monitor, Progress, SliceMask
from aslseg.inference.interactive.propagation import EndReason, GrowthEnd
from aslseg.prompts import SlicePrompts

if TYPE_CHECKING:
    from aslseg.inference.interactive.session import Session

REASONS: Mapping[EndReason, str] = {
    "edge": "the volume ends",
    "appearance": "nothing there looks like the lesion",
    "depth": "the lesion would be much deeper than it is wide",
    "prompt": "the prompts there leave nothing of it",
}


def grown(
    session: Session,
    about: PredictionFacts,
    prompts: Sequence[SlicePrompts],
    labels: Labelmap | None,
    monitor: Monitor,
) -> GrowthFacts:
    """Grow a lesion and tell the monitor of each section.

    Args:
        session: Of the volume.
        about: The models.
        prompts: Of the lesion.
        labels: What there is.
        monitor: Told of the sections; asked whether to stop.

    Raises:
        ConfigError: As `Session.grow`.
        CancelledError: When asked to stop.
    """
    target, areas, ends = prompts[0].target, dict[int, int](), list[str]()
    unmet = {prompt.slice_index: _unmet(prompt, None) for prompt in prompts}
    asked = {prompt.slice_index: prompt for prompt in prompts}
    for found in session.grow(prompts, labels, monitor=monitor):
        if isinstance(found, GrowthEnd):
            ends.append(f"Ends at slice {found.slice_index}: {REASONS[found.reason]}.")
            continue
        areas[found.slice_index] = int(np.count_nonzero(found.mask))
        if found.slice_index in asked:
            unmet[found.slice_index] = _unmet(asked[found.slice_index], found.mask)
        monitor.listener(slice_mask(found.slice_index, target, found.mask))
        monitor.listener(Progress("Growing the lesion", len(areas), 0))
    filled = [k for k, area in areas.items() if area]
    return GrowthFacts(
        **about.model_dump(include={"run", "method", "round", "weights", "device"}),
        target=target,
        first_slice=min(filled, default=None),
        last_slice=max(filled, default=None),
        volume_ml=sum(areas.values()) * session.volume.geometry.voxel_ml,
        ends=[*ends, *(sentence for sentence in unmet.values() if sentence)],
    )


def _unmet(prompt: SlicePrompts, mask: Mask | None) -> str:
    """Say that a positive point is not in a section (H, W); empty when all are."""
    points = [point.xy for point in prompt.points if point.positive]
    if mask is None:
        is_met = not points
    else:
        height, width = mask.shape
        is_met = all(mask[min(int(y), height - 1), min(int(x), width - 1)] for x, y in points)
    if is_met:
        return ""
    return (
        f"A point on slice {prompt.slice_index} is not in the lesion: none may be there, another "
        "lesion is, or a negative point takes its part away."
    )


def slice_mask(slice_index: int, target: str, mask: Mask) -> SliceMask:
    """Return the event of a section.

    Args:
        slice_index: Which slice.
        target: Of the lesion.
        mask: (H, W).
    """
    box = box_of(mask[None])
    if box is None:
        return SliceMask(slice_index, target, (0, 0), (0, 0), "")
    (_, top, left), (_, rows, columns) = box.start, box.shape
    bits = np.packbits(np.ascontiguousarray(mask[box.slices[1:]]))
    text = base64.b64encode(bits.tobytes()).decode("ascii")
    return SliceMask(slice_index, target, (top, left), (rows, columns), text)
