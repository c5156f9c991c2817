"""Organs between slices that a person drew: the engine fills them, here they are shown.

That is a final label whose organ was repaired in some slices; or a segmentation of one's own, of a
case that nothing was predicted of, with the organ drawn in some slices.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer

from aslseg.data.filling_rules import why_nothing_between
from aslseg.data.volume import Geometry, Labels, Volume
from ASLsegLib.engine.client import Job
from ASLsegLib.engine.results import ShownAnswer, read_answer
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.export import reference_volume
from ASLsegLib.logic.interactive import FILLING, Awaited, InteractiveLogic
from ASLsegLib.scene.case_nodes import case_of, require_intact
from ASLsegLib.scene.provenance import all_tags, digest_of, mark_semiautomatic, source_of
from ASLsegLib.scene.repaired_slices import (
    are_slices_named,
    name_slices,
    note_slices,
    organ_segments,
    organs_of,
    repaired_slices,
    slice_digests,
)
from ASLsegLib.scene.segmentations import SegmentEdit, find_prediction
from ASLsegLib.scene.segments import (
    PackedPart,
    Part,
    lies_on,
    packed,
    part_of,
    read_part,
    without,
    write_part,
)
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.scene.volumes import (
    SceneError,
    geometry_of,
    slice_axis_of,
    working_volume,
    write_raw,
)

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts
    from aslseg.engine.protocol import Done
    from aslseg.targets import Target

NOTHING_REPAIRED = (
    "Repair the organ in some slices first, about 15 mm apart, the first and the last one among "
    "them; or name those that are right."
)
NOTHING_DRAWN = (
    "{name} shows no organ yet: draw it in some slices, about 15 mm apart, the first and the last "
    "one among them."
)


def why_nothing_repaired(slices: Sequence[int]) -> str:
    """Return why nothing can be filled between repaired slices; empty when it can be."""
    return why_nothing_between(slices, are_repaired=True) if slices else NOTHING_REPAIRED


def why_nothing_drawn(slices: Sequence[int], node: Any) -> str:
    """Return why nothing can be filled in a segmentation of one's own; empty when it can be."""
    return why_nothing_between(slices) if slices else NOTHING_DRAWN.format(name=node.GetName())


@dataclass(frozen=True)
class DrawnOrgan:
    """An organ as it was when the engine was asked.

    Attributes:
        target: The organ.
        segment_id: Id of its segment.
        values: Label values of the organ and of what lies in it, its own first.
        part: What its segment held.
    """

    target: Target
    segment_id: str
    values: Sequence[int]
    part: Part | None


@dataclass(frozen=True)
class FilledOrgan:
    """What an organ's segment is to hold.

    Attributes:
        part: The voxels.
        gained: What it has more than before.
        lost: What it has no more.
        digests: Of the organ's slices, see `slice_digests`.
    """

    part: Part | None
    gained: PackedPart | None
    lost: PackedPart | None
    digests: Mapping[int, str]


@dataclass(frozen=True)
class DrawnSlices:
    """What is shown of a volume whose organs are to be filled.

    Attributes:
        node: Segmentation node.
        volume: Its volume node.
        slices: Numbers of the repaired axial slices, ascending.
        organs: To be filled.
        parts: All that is shown of the targets; a later one lies on top.
        geometry: Of the volume.
        axis: Along which axial slices are numbered.
    """

    node: Any
    volume: Any
    slices: Sequence[int]
    organs: Sequence[DrawnOrgan]
    parts: Sequence[tuple[Target, Part]]
    geometry: Geometry
    axis: int

    def write(self, path: Path) -> None:
        """Write the label map of what is shown; work for a thread."""
        write_shown(self.parts, self.geometry, path)

    def filled(self, labels: Labels, slices: Sequence[int]) -> list[FilledOrgan]:
        """Return each organ with some slices of a label map (D, H, W); work for a thread.

        What an organ's segment holds below something that lies in it stays there.
        """
        found, all_filled = np.moveaxis(labels, self.axis, 0), []
        for organ in self.organs:
            mask = np.zeros(self.geometry.shape, bool)
            if organ.part is not None:
                mask[organ.part.place] = organ.part.values
            of_slice = np.moveaxis(mask, self.axis, 0)
            for k in slices:
                below = of_slice[k] & np.isin(found[k], organ.values[1:])
                of_slice[k] = (found[k] == organ.target.value) | below
            part = part_of(mask)
            for target, inside in self.parts:
                if target.value in organ.values[1:]:
                    mask[inside.place] |= inside.values
            region = part_of(mask)
            gained, lost = packed(without(part, organ.part)), packed(without(organ.part, part))
            digests = slice_digests(region, self.axis)
            all_filled.append(FilledOrgan(part, gained, lost, digests))
        return all_filled

    def require_as_drawn(self) -> None:
        """Make sure that the organs are shown as they were when the engine was asked.

        Raises:
            SceneError: When they, or their nodes, are not.
        """
        scene, segmentation = slicer.mrmlScene, self.node.GetSegmentation()
        for organ in self.organs:
            is_there = scene.IsNodePresent(self.volume) and scene.IsNodePresent(self.node)
            if not is_there or segmentation.GetSegment(organ.segment_id) is None:
                msg = (
                    f"{organ.target.name} was removed from the scene meanwhile; nothing is filled. "
                    "Remove what is left of the final label, and load the case again."
                )
                raise SceneError(msg)
            now = digest_of(read_part(self.node, organ.segment_id, self.volume))
            if now != digest_of(organ.part):
                msg = (
                    f"You drew in {organ.target.name} while it was filled, so your drawing is kept "
                    "and nothing is filled; fill again."
                )
                raise SceneError(msg)

    def show(self, filled: Sequence[FilledOrgan], shown: ShownAnswer) -> Iterator[str]:
        """Show filled organs all at once; `shown` takes it back.

        Yields:
            What was done, for a person.
        """
        for organ, now in zip(self.organs, filled, strict=True):
            segment = self.node.GetSegmentation().GetSegment(organ.segment_id)
            shown.edits.append(
                SegmentEdit(
                    source=source_of(self.node),
                    segment_id=organ.segment_id,
                    target=organ.target,
                    holds_others=len(organ.values) > 1,
                    is_there=True,
                    tags=all_tags(segment),
                    add=now.lost,
                    remove=now.gained,
                    node_id="" if source_of(self.node) else self.node.GetID(),
                )
            )
            write_part(self.node, organ.segment_id, now.part, self.volume)
            note_slices(self.node, organ.segment_id, now.digests, self.slices)
            if not source_of(self.node):
                mark_semiautomatic(segment, "filling between slices")
        yield "showing the filled slices"


class SliceFillingLogic(InteractiveLogic):
    """The part of the logic that fills organs between slices that a person drew or repaired."""

    def repaired_slices(self, volume: Any) -> list[int]:
        """Return the axial slices in which a person repaired an organ of a volume's final label.

        Those differ from what was last written there, by a run or by `fill_between`; slices between
        which was filled stay among them until a run predicts the whole volume again. After
        `name_slices` they are those that were named, and what was drawn in since.
        """
        node = find_prediction(volume, "refined")
        return [] if node is None else repaired_slices(node, volume, self.targets())

    def drawn_slices(self, segmentation: Any) -> list[int]:
        """Return the axial slices in which a person drew an organ in a segmentation of their own.

        Those that `fill_between` has filled are not among them, unless they were drawn in since.

        Raises:
            SceneError: When the segmentation does not say on which volume it was drawn.
        """
        volume = working_volume(reference_volume(segmentation))
        return repaired_slices(segmentation, volume, self.targets())

    def name_slices(self, volume: Any, slices: Collection[int] | None) -> None:
        """Let exactly some axial slices of a volume's final label count as repaired.

        What is drawn in from now on counts beside them; a prediction of the whole volume forgets
        them.

        Args:
            volume: Volume node.
            slices: Those that are right; None for those that differ from what was written last.

        Raises:
            SceneError: When there is no final label, or no such slice.
        """
        node = _final_label(volume)
        _require_there(slices or (), volume)
        name_slices(node, volume, self.targets(), slices)

    def are_slices_named(self, volume: Any) -> bool:
        """Tell whether `name_slices` has said which slices of a volume count."""
        node = find_prediction(volume, "refined")
        return node is not None and are_slices_named(node, self.targets())

    @waiting
    def fill_between(
        self,
        volume: Any,
        slices: Collection[int] | None = None,
        *,
        segmentation: Any | None = None,
        run_id: str | None = None,
    ) -> Pending[FillFacts]:
        """Fill the organs of a segmentation between the slices that a person drew or repaired.

        A network of the run learns from these slices for half a minute and predicts the others;
        before any training a new one does, which takes a minute. Drawn slices, those beyond them,
        and lesions stay as they are. `undo` takes it back.

        Args:
            volume: Volume node.
            slices: Axial slices that are right, and no others; those that `repaired_slices` or
                `drawn_slices` returns when None.
            segmentation: Segmentation node of one's own, drawn on the volume; its final label when
                None.
            run_id: As in `segment`.

        Raises:
            SceneError: When there is nothing to fill, or the mask of an organ was given.
            RunError: When the run that is named cannot be used.
            EngineError: When the engine failed, or an organ was drawn in meanwhile.
        """
        from aslseg.engine.facts import FillFacts

        volume = working_volume(volume)
        self.engine.require_free()
        self.changes.note_prompts(volume)
        case_id = case_of(volume, self.project)
        if case_id:
            require_intact(volume, case_id)
        node = _final_label(volume) if segmentation is None else segmentation
        drawn = read_drawn(node, volume, self.targets(), slices)
        _require_predicted(drawn.organs, self._given_organs(volume))
        arguments, prepare = self._about(volume, run_id)
        job = self._fill_job(drawn, arguments, prepare)
        self._start_about(volume, job)
        self.filling = node
        return Pending(lambda: self._wait(self.engine).facts_as(FillFacts))

    def _fill_job(
        self, drawn: DrawnSlices, arguments: dict[str, Any], prepare: Callable[[], None] | None
    ) -> Job:
        path = Path(arguments["output"]) / "drawn.nrrd"

        def write() -> None:
            if prepare is not None:
                prepare()
            drawn.write(path)

        def read(done: Done) -> list[FilledOrgan]:
            from aslseg.engine.facts import FillFacts

            labels = read_answer(Path(done.files["filled"]), drawn.geometry)
            return drawn.filled(labels, done.facts_as(FillFacts).filled_slices)

        names = " and ".join(organ.target.name for organ in drawn.organs)
        word = f"fill {names} between slices {drawn.slices[0]} and {drawn.slices[-1]}"
        show = self._shows(Awaited(), drawn.volume, drawn.show, word)

        def show_unless_drawn_in(filled: list[FilledOrgan]) -> Iterator[str]:
            drawn.require_as_drawn()
            yield from show(filled)

        request = {**arguments, "labels": str(path), "slices": list(drawn.slices)}
        return Job(FILLING, request, write, read, show_unless_drawn_in)


def read_drawn(
    node: Any, volume: Any, targets: Sequence[Target], slices: Collection[int] | None
) -> DrawnSlices:
    """Read what a segmentation shows of a volume, with the slices that a person drew in it.

    Args:
        node: Segmentation node: the final label, or one's own.
        volume: Volume node.
        targets: Of the project.
        slices: Slices that are right; those that were drawn or repaired when None.

    Raises:
        SceneError: When there is nothing to fill, or no such slice, or it lies on other voxels.
    """
    from aslseg.targets import region_values

    if node.GetParentTransformNode() is not None:
        msg = f"{node.GetName()} is under a transform; harden it (Data module), or take it off."
        raise SceneError(msg)
    geometry, axis = geometry_of(volume), slice_axis_of(volume)
    given = repaired_slices(node, volume, targets) if slices is None else slices
    known = sorted({int(k) for k in given})
    _require_there(known, volume)
    between = why_nothing_repaired(known) if source_of(node) else why_nothing_drawn(known, node)
    problem = between or why_no_organ(node, targets)
    if problem:
        raise SceneError(problem)
    _require_on_voxels(node, volume, targets)
    chosen = choose_segments(node, targets).by_target
    parts = _parts_of(node, volume, targets)
    by_id = {segment_id: part for _, segment_id, part in parts}
    organs = []
    for organ in organs_of(targets):
        (segment_id,) = chosen[organ.name]
        values = region_values(organ, targets)
        organs.append(DrawnOrgan(organ, segment_id, values, by_id[segment_id]))
    held = [(target, part) for target, _, part in parts if part is not None]
    return DrawnSlices(node, volume, known, organs, held, geometry, axis)


def read_shown(node: Any, volume: Any, targets: Sequence[Target]) -> list[tuple[Target, Part]]:
    """Return what segments of targets hold on the voxels of a volume; a later one lies on top."""
    parts = _parts_of(node, volume, targets)
    return [(target, part) for target, _, part in parts if part is not None]


def _parts_of(
    node: Any, volume: Any, targets: Sequence[Target]
) -> list[tuple[Target, str, Part | None]]:
    """Return the target, the id, and what it holds, of each segment that makes a target."""
    chosen = choose_segments(node, targets).by_target
    return [
        (target, segment_id, read_part(node, segment_id, volume))
        for target in targets
        for segment_id in chosen.get(target.name, ())
    ]


def write_shown(parts: Sequence[tuple[Target, Part]], geometry: Geometry, path: Path) -> None:
    """Write the label map of what is shown; work for a thread."""
    labels = np.zeros(geometry.shape, np.uint8)
    for target, part in parts:
        labels[part.place][part.values] = target.value
    write_raw(Volume(labels, geometry), path)


def _final_label(volume: Any) -> Any:
    """Return the segmentation node of a volume's final label.

    Raises:
        SceneError: When there is none.
    """
    node = find_prediction(volume, "refined")
    if node is None:
        msg = f"No final label of {volume.GetName()} is in the scene; load the case, or segment it."
        raise SceneError(msg)
    return node


def _require_there(slices: Collection[int], volume: Any) -> None:
    """Make sure that a volume has some axial slices.

    Raises:
        SceneError: When it has not.
    """
    depth = geometry_of(volume).shape[slice_axis_of(volume)]
    wrong = [k for k in slices if not 0 <= k < depth]
    if wrong:
        msg = f"There is no slice {wrong[0]}; the volume has 0 to {depth - 1}."
        raise SceneError(msg)


def _require_on_voxels(node: Any, volume: Any, targets: Sequence[Target]) -> None:
    """Make sure that organs lie on the voxels of a volume, or their drawn slices would change.

    Raises:
        SceneError: When one does not.
    """
    for segment_id in organ_segments(node, targets):
        if not lies_on(node, segment_id, volume):
            name = node.GetSegmentation().GetSegment(segment_id).GetName()
            msg = (
                f"{name} was drawn on other voxels than those of {volume.GetName()}; choose that "
                "volume at Specify geometry in the Segment Editor, and look at it."
            )
            raise SceneError(msg)


def why_no_organ(node: Any, targets: Sequence[Target]) -> str:
    """Return why an organ of a segmentation cannot be filled; empty when each has one segment."""
    chosen, segmentation = choose_segments(node, targets).by_target, node.GetSegmentation()
    for organ in organs_of(targets):
        ids = chosen.get(organ.name, ())
        if not ids:
            return (
                f"{node.GetName()} has no segment of {organ.name}; give a segment that name, or "
                "remove the final label from the scene and load the case again."
            )
        if len(ids) > 1:
            names = ", ".join(segmentation.GetSegment(one).GetName() for one in ids)
            return (
                f"{organ.name} has several segments ({names}); join them in the Segment Editor "
                "first."
            )
    return ""


def _require_predicted(organs: Sequence[DrawnOrgan], given: Mapping[str, str]) -> None:
    """Make sure that no mask of an organ came with the volume.

    Raises:
        SceneError: When one did, for it stays as it is.
    """
    names = ", ".join(one.target.name for one in organs if one.target.name in given)
    if names:
        msg = (
            f"The mask of {names} was given and stays, so nothing is filled; draw in that mask "
            "instead, and give it again."
        )
        raise SceneError(msg)
