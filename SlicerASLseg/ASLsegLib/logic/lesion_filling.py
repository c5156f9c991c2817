"""A lesion between slices in which a person drew it: the engine fills it, a person accepts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslseg.data.slice_numbers import slices_between, write_slices
from aslseg.data.volume import Geometry, Labels, Volume
from ASLsegLib.engine.client import Job
from ASLsegLib.engine.results import ShownAnswer
from ASLsegLib.logic.interactive import Awaited
from ASLsegLib.logic.slice_filling import SliceFillingLogic, read_shown, write_shown
from ASLsegLib.scene.case_nodes import require_intact
from ASLsegLib.scene.lesion_masks import exchange_voxels, target_mask, without
from ASLsegLib.scene.provenance import all_tags
from ASLsegLib.scene.segmentations import SegmentEdit
from ASLsegLib.scene.segments import packed, read_part
from ASLsegLib.scene.segments import without as part_without
from ASLsegLib.scene.shown_labels import choose_segments
from ASLsegLib.scene.volumes import SceneError, geometry_of, slice_axis_of, write_raw

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts
    from aslseg.engine.protocol import Done
    from aslseg.evaluation.lesion_review import ReviewedLesion
    from aslseg.project.lesions import BoxedMask
    from aslseg.targets import Target

FEWEST_SLICES = 5
"""As the library has it (`training.slice_filling.LESION_SLICES`), which imports torch."""
NOT_DRAWN = "Draw the lesion in some of its slices first (Edit…): those between them are filled."
TOO_FEW = (
    "The lesion is drawn in too few slices ({slices}); draw it in {fewest} or more, about 15 mm "
    "apart, or fill a small one by shape (Segment Editor, Fill between slices)."
)
GONE = "The case is not in the scene any more; load it again."
NOTHING_BETWEEN = "Nothing lies between the drawn slices ({slices}); leave some out between them."


@dataclass(frozen=True)
class LesionFill:
    """What a filling has made of a lesion.

    Attributes:
        slices: Those that were drawn.
        before: The lesion as it was.
        after: As it was filled.
    """

    slices: frozenset[int]
    before: BoxedMask = field(repr=False)
    after: BoxedMask | None = field(repr=False)


class LesionFillingLogic(SliceFillingLogic):
    """The part of the logic that fills lesions between slices that a person drew."""

    def __init__(self, python: Any = None) -> None:
        super().__init__(python)
        self._fills: dict[tuple[Path, str, int], LesionFill] = {}  # see `_key_of`

    def drawn_slices_of(self, row: int) -> list[int]:
        """Return the axial slices in which a person drew a lesion.

        Of a lesion that a run found they are those in which it is another one now, of an added one
        all; those that `fill_lesion` has filled are not among them before they are drawn in.
        """
        lesion, review = self._row(row), self._review()
        axis = slice_axis_of(self._shown(review.case_id)[1])
        last = self._fills.get(self._key_of(lesion))
        known = (lesion.found,) if last is None else (last.before, last.after)
        found = set.intersection(*(_differing(lesion.voxels, mask, axis) for mask in known))
        if last is not None:
            found |= last.slices & _differing(lesion.voxels, lesion.found, axis)
        return sorted(found)

    def why_not_filled(self, row: int | None) -> str:
        """Return why a lesion cannot be filled; empty when it can be."""
        if row is None or not self._row(row).shown:
            return NOT_DRAWN
        if self.refined_node(self._review().case_id) is None:
            return GONE
        slices = self.drawn_slices_of(row)
        if not slices:
            return NOT_DRAWN
        if not slices_between(slices):
            return NOTHING_BETWEEN.format(slices=write_slices(slices))
        if len(slices) < FEWEST_SLICES:
            return TOO_FEW.format(slices=write_slices(slices), fewest=FEWEST_SLICES)
        return ""

    def fill_lesion(self, row: int, *, wait: bool = True) -> FillFacts | None:
        """Fill a large lesion between the slices in which a person drew it.

        A network learns this lesion from these slices for a minute, and predicts the others. Drawn
        slices and those beyond them stay, and so does every other lesion. The filled lesion is
        shown as one that is being drawn: nothing is decided before it is accepted.

        Args:
            row: Of the lesion in `lesion_review.rows`.
            wait: Return when it is shown; else None at once.

        Raises:
            SceneError: When it was not drawn in enough slices, or another one is being drawn.
            EngineError: When the engine failed, or the lesion was changed meanwhile.
        """
        review = self._review()
        self.engine.require_free()
        self._require_no_label(review.case_id)
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
        key, geometry = self._key_of(lesion), geometry_of(volume)
        drawn = _DrawnLesion(key, lesion, target, others, slices, shown, geometry)
        arguments, prepare = self._about(volume, None)  # no run takes part
        self._start(self.engine, self._lesion_job(drawn, row, volume, arguments, prepare))
        self.filling = None  # no segmentation as a whole
        if not wait:
            return None
        from aslseg.engine.facts import FillFacts

        return self._wait(self.engine).facts_as(FillFacts)

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

        def show(filled: BoxedMask | None, shown: ShownAnswer) -> Iterator[str]:
            yield "showing the filled lesion"
            self._show_filled(drawn, filled, shown)

        show_it = self._shows(Awaited(), volume, show, f"fill lesion {row + 1}")
        files = {name: str(path) for name, path in paths.items()}
        about = {"organs": {}, "target": drawn.target.name, "slices": drawn.slices}
        return Job("fill_between", {**arguments, **files, **about}, write, drawn.read, show_it)

    def _show_filled(
        self, drawn: _DrawnLesion, filled: BoxedMask | None, shown: ShownAnswer
    ) -> None:
        """Begin to draw a lesion as it was filled; `shown` takes its voxels back.

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
        was = drawn.lesion.voxels
        self._fills[drawn.key] = LesionFill(frozenset(drawn.slices), was, filled)
        self.draw_lesion(row)
        node, volume = self._shown(self._review().case_id)
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

    def _key_of(self, lesion: ReviewedLesion) -> tuple[Path, str, int]:
        """Return the project, the case, and the number of a lesion."""
        return self.opened().folder, self._review().case_id, lesion.number


@dataclass(frozen=True)
class _DrawnLesion:
    """A lesion that is to be filled, as it was when the engine was asked.

    Attributes:
        key: Says which.
        lesion: The lesion.
        target: Its target.
        others: Other lesions of this target.
        slices: In which it was drawn.
        shown: What all segments hold.
        geometry: Of the volume.
    """

    key: tuple[Path, str, int]
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
        from aslseg.data.images import read_labelmap
        from aslseg.project.lesions import boxed

        labels: Labels = read_labelmap(Path(done.files["filled"])).labels
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


def _differing(first: BoxedMask | None, second: BoxedMask | None, axis: int) -> set[int]:
    """Return the numbers of the slices in which two masks differ."""
    found: set[int] = set()
    for mask in (without(first, second), without(second, first)):
        if mask is not None:
            rest = tuple(n for n in range(3) if n != axis)
            found |= {int(k) + mask.box.start[axis] for k in np.flatnonzero(mask.mask.any(rest))}
    return found
