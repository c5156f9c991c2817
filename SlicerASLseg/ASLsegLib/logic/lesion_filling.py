"""A lesion between slices in which a person drew it: the engine fills it, a person accepts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.data.filling_rules import across_mm, why_nothing_between, why_too_small
from aslseg.data.volume import Geometry, Volume
from ASLsegLib.engine.client import Job
from ASLsegLib.engine.results import ShownAnswer, read_answer
from ASLsegLib.logic.base import Pending, waiting
from ASLsegLib.logic.interactive import FILLING, Awaited, InteractiveLogic
from ASLsegLib.logic.slice_filling import read_shown, write_shown
from ASLsegLib.scene.case_nodes import require_intact
from ASLsegLib.scene.filled_lesions import (
    LesionFill,
    drawn_slices_of_lesion,
    fill_of,
    note_fill,
)
from ASLsegLib.scene.lesion_masks import exchange_voxels, part_of_mask, target_mask, without
from ASLsegLib.scene.provenance import all_tags
from ASLsegLib.scene.repaired_slices import slice_digests
from ASLsegLib.scene.segmentations import SegmentEdit, latest_segments
from ASLsegLib.scene.segments import packed, read_part
from ASLsegLib.scene.segments import without as part_without
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.scene.volumes import SceneError, geometry_of, slice_axis_of, write_raw

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts
    from aslseg.engine.protocol import Done
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesion_decisions import BoxedMask
    from aslseg.targets import Target

NOT_DRAWN = "Draw the lesion in some of its slices first (Edit…): those between them are filled."
GONE = "The case is not in the scene any more; load it again."


class LesionFillingLogic(InteractiveLogic):
    """The part of the logic that fills lesions between slices that a person drew."""

    def drawn_slices_of(self, row: int) -> list[int]:
        """Return the axial slices in which a person drew a lesion.

        Of a lesion that a run found they are those in which it is another one now, of an added one
        all; those that `fill_lesion` has filled are not among them before they are drawn in. That
        is kept with the final label in the scene, and forgotten when the case is loaded anew.
        """
        lesion = self._row(row)
        node, volume = self._shown(self._review().case_id)
        axis, segment = slice_axis_of(volume), self._segment_with(lesion, node)
        last = None if segment is None else fill_of(segment, lesion.number)
        now, found = (_digests(mask, axis) for mask in (lesion.voxels, lesion.found))
        return drawn_slices_of_lesion(now, found, last)

    def why_not_filled(self, row: int | None) -> str:
        """Return why a lesion cannot be filled; empty when it can be."""
        if row is None or not self._row(row).shown:
            return NOT_DRAWN
        if self.refined_node(self._review().case_id) is None:
            return GONE
        slices = self.drawn_slices_of(row)
        if not slices:
            return NOT_DRAWN
        volume, voxels = self._shown(self._review().case_id)[1], self._row(row).voxels
        wide_mm = _across_mm(voxels, slices, geometry_of(volume), slice_axis_of(volume))
        return why_nothing_between(slices) or why_too_small(len(slices), wide_mm)

    @waiting
    def fill_lesion(self, row: int) -> Pending[FillFacts]:
        """Fill a large lesion between the slices in which a person drew it.

        A network learns this lesion from these slices for a minute, and predicts the others. Drawn
        slices and those beyond them stay, and so does every other lesion. The filled lesion is
        shown as one that is being drawn: nothing is decided before it is accepted.

        Args:
            row: Of the lesion in `lesion_review.rows`.

        Raises:
            SceneError: When it is too small or not drawn in enough slices, or another one is being
                drawn.
            EngineError: When the engine failed, or the lesion was changed meanwhile.
        """
        from aslseg.engine.facts import FillFacts

        review = self._review()
        self.engine.require_free()
        self._require_decidable(review.case_id)
        self._require_no_drawing()
        problem = self.why_not_filled(row)
        if problem:
            raise SceneError(problem)
        node, volume = self._shown(review.case_id)
        require_intact(volume, review.case_id)
        lesion, slices = self._row(row), self.drawn_slices_of(row)
        target = next(one for one in self.targets() if one.name == lesion.target)
        others = without(target_mask(node, volume, target, self.targets()), lesion.voxels)
        shown = read_shown(node, volume, self.targets())
        drawn = _DrawnLesion(lesion, target, others, slices, shown, geometry_of(volume))
        arguments, prepare = self._about(volume, None)  # no run takes part
        self._start_about(volume, self._lesion_job(drawn, row, volume, arguments, prepare))
        self.filling = None  # no segmentation as a whole
        return Pending(lambda: self._wait(self.engine).facts_as(FillFacts))

    def _lesion_job(
        self,
        drawn: _DrawnLesion,
        row: int,
        volume: Any,
        arguments: dict[str, Any],
        prepare: Callable[[], None] | None,
    ) -> Job:
        folder = Path(arguments["output"])
        paths = {name: folder / f"{name}.nrrd" for name in ("labels", "lesion")}

        def write() -> None:
            if prepare is not None:
                prepare()
            drawn.write(paths["labels"], paths["lesion"])

        def show(filled: BoxedMask, shown: ShownAnswer) -> Iterator[str]:
            self._show_filled(drawn, self._require_row(drawn, filled), filled, shown)
            yield "showing the filled lesion"

        show_it = self._shows(Awaited(), volume, show, f"fill lesion {row + 1}")

        def show_unless_changed(filled: BoxedMask | None) -> Iterator[str]:
            self._require_row(drawn, filled)
            yield from show_it(filled)

        files = {name: str(path) for name, path in paths.items()}
        about = {"organs": {}, "target": drawn.target.name, "slices": drawn.slices}
        return Job(FILLING, {**arguments, **files, **about}, write, drawn.read, show_unless_changed)

    def _require_row(self, drawn: _DrawnLesion, filled: BoxedMask | None) -> int:
        """Return the row of a lesion that was filled.

        Raises:
            SceneError: When it is another one by now.
        """
        review = self.lesion_review
        rows = [] if review is None else review.rows
        row = next((n for n, lesion in enumerate(rows) if lesion is drawn.lesion), None)
        if row is None or filled is None or self.is_drawing:
            msg = (
                "The lesion was changed while it was filled, or another one was looked at: it is "
                "kept as it is; fill again."
            )
            raise SceneError(msg)
        return row

    def _show_filled(
        self, drawn: _DrawnLesion, row: int, filled: BoxedMask, shown: ShownAnswer
    ) -> None:
        """Begin to draw a lesion as it was filled; `shown` takes its voxels back."""
        was = drawn.lesion.voxels
        self._begin_drawing(row)
        node, volume = self._shown(self._review().case_id)
        segment, axis = self._segment_with(drawn.lesion, node), slice_axis_of(volume)
        before, after = _digests(was, axis), _digests(filled, axis)
        if segment is not None:
            fill = LesionFill(frozenset(drawn.slices), before, after)
            note_fill(segment, drawn.lesion.number, fill)
        gone = without(was, filled)
        with _noting_edits(node, volume, self.targets(), shown):
            exchange_voxels(
                node,
                volume,
                self.targets(),
                target=drawn.target,
                come=without(filled, was),
                gone=gone,
                parent_mask=without(gone, drawn.lesion.outside),
            )

    def _segment_with(self, lesion: ReviewedLesion, node: Any) -> Any | None:
        """Return the segment of a lesion's target that keeps what is known of its filling."""
        segment_id = latest_segments(node, self.targets()).get(lesion.target)
        return None if segment_id is None else node.GetSegmentation().GetSegment(segment_id)


@dataclass(frozen=True)
class _DrawnLesion:
    """A lesion that is to be filled, as it was when the engine was asked.

    Attributes:
        lesion: The lesion.
        target: Its target.
        others: Other lesions of this target.
        slices: In which it was drawn.
        shown: What all segments hold.
        geometry: Of the volume.
    """

    lesion: ReviewedLesion
    target: Target
    others: BoxedMask | None
    slices: list[int]
    shown: list[Any]
    geometry: Geometry

    def write(self, labels: Path, lesion: Path) -> None:
        """Write what is shown, and the lesion; work for a thread."""
        write_shown(self.shown, self.geometry, labels)
        mask = np.zeros(self.geometry.shape, np.uint8)
        self.lesion.voxels.write(mask, 1)
        write_raw(Volume(mask, self.geometry), lesion)

    def read(self, done: Done) -> BoxedMask | None:
        """Return the filled lesion of an answer; work for a thread."""
        from aslseg.project.lesion_decisions import boxed

        labels = read_answer(Path(done.files["filled"]), self.geometry)
        mask = labels == self.target.value
        if self.others is not None:
            self.others.write(mask, 0)
        return boxed(mask)


@contextmanager
def _noting_edits(
    node: Any, volume: Any, targets: Sequence[Target], shown: ShownAnswer
) -> Iterator[None]:
    """Let what is done to the segments of a final label be taken back by `shown`."""
    chosen, segmentation = choose_segments(node, targets).by_target, node.GetSegmentation()
    before = [
        (target, one, all_tags(segmentation.GetSegment(one)), read_part(node, one, volume))
        for target in targets
        for one in chosen.get(target.name, ())
    ]
    yield
    for target, segment_id, tags, was in before:
        now = read_part(node, segment_id, volume)
        lost, gained = packed(part_without(was, now)), packed(part_without(now, was))
        if lost is not None or gained is not None:
            shown.edits.append(
                SegmentEdit("refined", segment_id, target, False, True, tags, lost, gained)
            )


def _digests(mask: BoxedMask | None, axis: int) -> dict[int, str]:
    """Return the digests of the slices of a lesion, see `slice_digests`."""
    return slice_digests(part_of_mask(mask), axis)


def _across_mm(mask: BoxedMask, slices: Sequence[int], geometry: Geometry, axis: int) -> float:
    """Return how wide or high a lesion is in some slices, as the library measures it."""
    sections, first = np.moveaxis(mask.mask, axis, 0), mask.box.start[axis]
    drawn = [k - first for k in slices if 0 <= k - first < len(sections)]
    return across_mm(sections[drawn], list(np.delete(geometry.spacing_mm, axis)))
