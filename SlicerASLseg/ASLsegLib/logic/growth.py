"""Lesions that grow in three dimensions from the prompts of one slice.

The engine tells each section as soon as it has it; here it comes into the lesion's segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.data.volume import Volume
from ASLsegLib.engine.client import Job
from ASLsegLib.logic.history import Change
from ASLsegLib.scene.growths import (
    GrownSegment,
    KeptSegment,
    add_growth,
    node_for_growth,
    note_models,
    parts_beside,
)
from ASLsegLib.scene.prompts import (
    claim_prompts,
    read_prompts_of,
    release_prompts,
)
from ASLsegLib.scene.volumes import SceneError, geometry_of, write_raw

if TYPE_CHECKING:
    from aslseg.engine.facts import GrowthFacts
    from aslseg.engine.protocol import Done
    from aslseg.targets import Target
    from ASLsegLib.engine.client import PanelEvent


BESIDE_PX, BESIDE_SLICES = 5, 3
"""A prompt so near to a lesion corrects it."""


@dataclass(frozen=True)
class GrowthState:
    """A lesion that has grown or grows, as it was.

    Attributes:
        segment: What it showed.
        facts: As in `Growth`.
        is_whole: As in `Growth`.
        grown_from: As in `Growth`.
    """

    segment: KeptSegment
    facts: GrowthFacts | None
    is_whole: bool
    grown_from: str


@dataclass(eq=False)
class Growth:
    """One lesion that has grown or grows.

    Attributes:
        volume: Volume node.
        node: Segmentation node that has its segment.
        segment_id: Id of its segment, by which its prompts know it too.
        target: What it is.
        first: Number of the axial slice that it begins on.
        facts: About it as it is now; None before it has grown.
        grown_from: The prompts that it grows or has grown from, as JSON.
        is_whole: Whether it has grown to its end.
        change: What takes it back while it is new.
    """

    volume: Any
    node: Any
    segment_id: str
    target: Target
    first: int
    facts: GrowthFacts | None = None
    grown_from: str = ""
    is_whole: bool = False
    change: Change | None = None
    name: str = field(init=False)
    segment: GrownSegment = field(init=False)

    def __post_init__(self) -> None:
        """Make the segment's view."""
        self.segment = GrownSegment(self.node, self.segment_id, self.volume)
        self.name = str(self.node.GetSegmentation().GetSegment(self.segment_id).GetName())

    def keep(self) -> GrowthState | None:
        """Return the lesion as it is; None when it is not there."""
        kept = self.segment.keep() if self.is_there else None
        if kept is None:
            return None
        return GrowthState(kept, self.facts, self.is_whole, self.grown_from)

    def restore(self, state: GrowthState | None) -> None:
        """Bring the lesion back to how it was; None takes it out of the scene.

        One that had not grown to its end has to grow again. Nothing is done where its node is gone.
        """
        if not slicer.mrmlScene.IsNodePresent(self.node):
            return
        self.segment.restore(None if state is None else state.segment)
        if state is not None:
            self.facts, self.is_whole = state.facts, state.is_whole
            self.grown_from = state.grown_from if state.is_whole else ""

    @property
    def is_there(self) -> bool:
        """Whether volume and segment are still in the scene."""
        scene = slicer.mrmlScene
        return bool(
            scene.IsNodePresent(self.volume)
            and scene.IsNodePresent(self.node)
            and self.node.GetSegmentation().GetSegment(self.segment_id) is not None
        )

    def prompts(self) -> list[Any]:
        """Return its prompts as they are in the scene now, those that it begins with first."""
        return read_prompts_of(self.volume, self.segment_id, self.first)

    @property
    def prompts_text(self) -> str:
        """Its prompts as JSON; another text than `grown_from` when they have changed."""
        return json.dumps([prompt.to_json() for prompt in self.prompts()])


def begin_growth(volume: Any, node: Any | None, target: Target, slice_index: int) -> Growth:
    """Begin a lesion from the prompts of a slice, which belong to it from now on.

    Args:
        volume: Volume node.
        node: Segmentation node to grow in; see `node_for_growth`.
        target: What it is.
        slice_index: Which axial slice.

    Raises:
        SceneError: When there is no prompt about the target on the slice.
    """
    node = node_for_growth(volume) if node is None else node
    growth = Growth(volume, node, add_growth(node, target, slice_index), target, slice_index)
    if not claim_prompts(volume, target.name, growth.segment_id, [slice_index]):
        node.GetSegmentation().RemoveSegment(growth.segment_id)
        msg = f"Slice {slice_index} has no box or point for {target.name}: place one, then grow it."
        raise SceneError(msg)
    return growth


def claim_corrections(growth: Growth) -> bool:
    """Let prompts that lie in a lesion or right beside it belong to it.

    Returns:
        Whether there were any.
    """
    slices, extent = growth.segment.slices, growth.segment.extent_px
    if extent is None:
        return False
    left, top, right, bottom = extent
    within = (left - BESIDE_PX, top - BESIDE_PX, right + BESIDE_PX, bottom + BESIDE_PX)
    near = range(slices[0] - BESIDE_SLICES, slices[-1] + BESIDE_SLICES + 1)
    # One slice at a time, as each has a box of its own; all of them, so no generator.
    claimed = [
        claim_prompts(growth.volume, growth.target.name, growth.segment_id, [k], within)
        for k in near
    ]
    return any(claimed)


def withdraw_growth(growth: Growth) -> None:
    """Remove a lesion that has not begun to grow; its prompts stay, as those of no lesion."""
    if growth.is_there:
        growth.node.GetSegmentation().RemoveSegment(growth.segment_id)
        release_prompts(growth.volume, growth.segment_id)


class GrowthSwap:
    """A lesion as it shall be: a call brings it back, another call how it is now.

    Args:
        growth: The lesion.
        state: How it shall be; None when it shall not be there.
        prompts: Brings its prompts back; None where they stay.
    """

    def __init__(
        self,
        growth: Growth,
        state: GrowthState | None,
        prompts: Callable[[], None] | None = None,
    ) -> None:
        self._growth, self._state, self._prompts = growth, state, prompts

    def __call__(self) -> None:
        """Bring the lesion back."""
        now = self._growth.keep()
        self._growth.restore(self._state)
        self._state = now
        if self._prompts is not None:
            self._prompts()

    def count_bytes(self) -> int:
        """Return how much memory it takes, about."""
        return 0 if self._state is None else self._state.segment.size_bytes


def growth_job(
    growth: Growth,
    targets: Sequence[Target],
    arguments: dict[str, Any],
    prepare: Callable[[], None] | None,
    folder: Path,
) -> Job:
    """Return the job that lets a lesion grow from its prompts as they are now.

    Args:
        growth: The lesion.
        targets: Of the project.
        arguments: About the image and the models.
        prepare: Writes the image, where that is needed.
        folder: Where the label map of what there is goes.
    """
    parts = parts_beside(growth.node, growth.volume, targets, growth.segment_id)
    geometry = geometry_of(growth.volume)
    path = folder / "labels.nrrd"

    def write() -> None:
        if prepare is not None:
            prepare()
        if parts:
            labels = np.zeros(geometry.shape, np.uint8)
            for target, part in parts:
                labels[part.place][part.values] = target.value
            write_raw(Volume(labels, geometry), path)

    def read(done: Done) -> GrowthFacts:
        from aslseg.engine.facts import GrowthFacts

        return done.facts_as(GrowthFacts)

    def show(facts: GrowthFacts) -> Iterator[str]:
        yield "showing the lesion"
        finish_growth(growth, facts)

    growth.segment.restart()
    growth.is_whole = False
    growth.grown_from = growth.prompts_text
    request = {
        **arguments,
        "prompts": json.loads(growth.grown_from),
        "labels": str(path) if parts else None,
    }
    return Job("grow", request, write, read, show)


def finish_growth(growth: Growth, facts: GrowthFacts) -> None:
    """Show a lesion as it has grown, and note by what."""
    if not growth.is_there:
        return
    growth.segment.finish()
    growth.facts, growth.is_whole = facts, True
    note_models(
        growth.node,
        growth.segment_id,
        method=facts.method,
        run=facts.run or "",
        round=str(facts.round),
        model=facts.weights,
        target=facts.target,
    )


def follow(growth: Growth, event: PanelEvent) -> None:
    """Show a section of a lesion that grows."""
    if event.event == "slice_mask" and growth.is_there and event.target == growth.target.name:
        growth.segment.add(event)
