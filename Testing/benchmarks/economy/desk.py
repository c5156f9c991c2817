"""A case as the panel shows it, and what its buttons and keys do.

These are the library's calls that the panel's logic makes: a key of the review writes a
`LesionDecision` by `put_lesion`, "No more lesions" is `finish_case`, the Segment Editor changes
what is shown, "Save label" is `review.draw` or `review.correct`, a box is `grow_lesion`, "Fill
between repaired slices" is `fill_between_slices`, and a mark on a slice `mark_slice_complete`.
Around them the panel moves voxels between nodes and asks questions:
`Testing/panel/measure_daily_job.py` does the same by its very buttons and keys.

All masks here are (D, H, W) on the slice grid of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aslseg.data.images import read_labelmap
from aslseg.data.masks import label_components
from aslseg.data.orientation import to_slices
from aslseg.data.volume import Labelmap, Labels, Mask
from aslseg.engine.filling import DrawnLesion
from aslseg.evaluation.lesion_review import ReviewedLesion, read_review
from aslseg.project import review
from aslseg.project.complete_slices import mark_all_complete, mark_slice_complete
from aslseg.project.lesion_decisions import BoxedMask, LesionDecision, What, boxed, put_lesion
from aslseg.project.lesion_labels import finish_case
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.prompts import box_around
from aslseg.targets import Target, lesion_targets, region_mask
from economy.filling import Filler
from economy.growing import Grower


@dataclass(frozen=True)
class Row:
    """A lesion that is offered to decide about.

    Attributes:
        target: Its target.
        mask: Where it is.
        lesion: As the review lists it; None in the Segment Editor.
    """

    target: Target
    mask: Mask
    lesion: ReviewedLesion | None = None


class Desk:
    """A case in the Segment Editor: a label map is shown, and drawn in.

    Args:
        project: The case's.
        case_id: The case.
        labels: What is shown at first, as the file is stored; None for nothing.
        grower: Lets lesions grow from boxes; None where that is not offered.
        filler: Fills organs between repaired slices by image; None where shapes alone do.
    """

    deleted_by, accepted_by, edited_by = ("click", 1), ("click", 0), ("click", 0)

    def __init__(
        self,
        project: Project,
        case_id: str,
        labels: Labelmap | None = None,
        grower: Grower | None = None,
        filler: Filler | None = None,
    ) -> None:
        self.project, self.case_id = project, case_id
        self.grower, self.filler = grower, filler
        self.targets = project.targets
        self.volume = project.load_image(project.case(case_id))
        self._turn = to_slices(self.volume.geometry)
        self.geometry = self._turn.geometry(self.volume.geometry)
        empty = np.zeros(self.geometry.shape, np.uint8)
        self.shown: Labels = empty if labels is None else self.seen(labels.labels).copy()
        self.given = tuple(self.volume.given)
        for name in self.given:
            self.paint(self._target(name), self.seen(self.volume.given[name]))

    def rows(self) -> list[Row]:
        """Return the lesions that are shown, largest first."""
        found = []
        for target in lesion_targets(self.targets):
            numbered, count = label_components(self.shown == target.value)
            found += [Row(target, numbered == n + 1) for n in range(count)]
        return sorted(found, key=lambda row: -int(row.mask.sum()))

    def region(self, target: Target) -> Mask:
        """Return what is shown of a target, with what lies in it."""
        return region_mask(self.shown, target, self.targets)

    def parent(self, target: Target) -> Target:
        """Return the target that a lesion lies in."""
        return self._target(target.inside or "")

    def accept(self, row: Row) -> None:
        """Let a lesion be right."""
        self.shown[row.mask] = row.target.value

    def delete(self, row: Row) -> None:
        """Let it be none."""
        self.shown[row.mask & (self.shown == row.target.value)] = self.parent(row.target).value

    def edit(self, row: Row, mask: Mask) -> None:
        """Let it be another mask."""
        Desk.delete(self, row)
        self.shown[mask] = row.target.value

    def add(self, target: Target, mask: Mask) -> None:
        """Add a lesion that was missed."""
        self.shown[mask] = target.value

    def paint(self, target: Target, region: Mask) -> None:
        """Let an organ be another mask; lesions stay."""
        was = self.region(target)
        self.shown[was & ~region & (self.shown == target.value)] = 0
        self.shown[region & ~was] = target.value

    def grow(self, target: Target, k: int, section: Mask) -> Mask:
        """Return what grows from a box around a section (H, W) of slice k, a pixel wider."""
        if self.grower is None:
            msg = "Nothing grows at this desk."
            raise ValueError(msg)
        stored = Labelmap(self.stored(self.shown), self.volume.geometry)
        box = box_around(section, margin_px=1.0)
        return self.grower.grow(self.volume, stored, self.targets, target.name, (k, box))

    def fill(self, target: Target, region: Mask, slices: Sequence[int]) -> Mask:
        """Return an organ filled between repaired slices.

        Args:
            target: The organ.
            region: As it is shown now, (D, H, W).
            slices: Numbers of the repaired slices.
        """
        if self.filler is None:
            msg = "Nothing is filled at this desk."
            raise ValueError(msg)
        self.paint(target, region)
        stored = Labelmap(self.stored(self.shown), self.volume.geometry)
        filled = self.seen(self.filler.fill(self.volume, stored, slices).labels)
        return region_mask(filled, target, self.targets)

    def fill_lesion(self, target: Target, lesion: Mask, slices: Sequence[int]) -> Mask | None:
        """Return a lesion filled between drawn slices; None where shape does that better.

        Args:
            target: Its target.
            lesion: As it is shown now, (D, H, W).
            slices: Numbers of the drawn slices.
        """
        if self.filler is None:
            return None
        others = (self.shown == target.value) & ~lesion
        labels = np.where(lesion, np.uint8(target.value), self.shown)
        stored = Labelmap(self.stored(labels), self.volume.geometry)
        mask = Labelmap(self.stored(lesion.astype(np.uint8)), self.volume.geometry)
        drawn = DrawnLesion(target.name, stored, mask)
        filled = self.filler.fill_lesion(self.volume, self.targets, drawn, slices)
        return None if filled is None else (self.seen(filled.labels) == target.value) & ~others

    def save(self) -> Labels:
        """Keep what is shown as the label map of the case, and return it."""
        labels, case = self._labelmap(), self.project.case(self.case_id)
        if case.label is None:
            review.draw(self.project, self.case_id, labels)
        else:
            saved = review.correct(self.project, self.case_id, labels)
            mark_all_complete(saved, self.case_id)
        return self.shown

    def save_slices(self, slices: Sequence[int]) -> Labels:
        """Keep what is drawn, and mark slices as complete."""
        project = review.draw(self.project, self.case_id, self._labelmap())
        for k in slices:
            project = mark_slice_complete(project, self.case_id, k)
        return self.shown

    def seen(self, stored: Labels | Mask) -> Labels:
        """Return an array of the file as the slices show it."""
        return np.ascontiguousarray(self._turn.array(stored))

    def stored(self, seen: Labels | Mask) -> Labels:
        """Return an array of the slices as the file has it."""
        return np.ascontiguousarray(self._turn.inverse.array(seen))

    def _labelmap(self) -> Labelmap:
        return Labelmap(self.stored(self.shown), self.volume.geometry)

    def _target(self, name: str) -> Target:
        return next(one for one in self.targets if one.name == name)


class ReviewDesk(Desk):
    """A case in the review, lesion by lesion: the candidates of a run, and keys to decide.

    Args:
        project: The case's.
        case_id: The case.
        run: Whose candidates are reviewed, in its best round.
        rejected: Whether candidates that the run rejected are looked at too; the panel lists them
            last, and waits for no decision about them.
        grower: As for `Desk`.
        filler: As for `Desk`.
    """

    deleted_by, accepted_by, edited_by = ("key", 1), ("key", 1), ("key", 2)

    def __init__(
        self,
        project: Project,
        case_id: str,
        run: RunFolder,
        *,
        rejected: bool = False,
        grower: Grower | None = None,
        filler: Filler | None = None,
    ) -> None:
        refined = read_labelmap(review.refined_path(run, case_id))
        super().__init__(project, case_id, refined, grower, filler)
        self.run, self.rejected = run, rejected

    def rows(self) -> list[Row]:
        """Return the lesions to decide about, the most doubtful first."""
        lesions, _ = read_review(self.project, self.run, self.case_id, self.volume)
        return [
            Row(self._target(one.target), self._whole(one.voxels), one)
            for one in lesions
            if one.state == "undecided" and (one.shown or self.rejected)
        ]

    def accept(self, row: Row) -> None:
        """Let a lesion be right; key A."""
        super().accept(row)
        self._put("accepted", row, row.mask)

    def delete(self, row: Row) -> None:
        """Let it be none; key D."""
        super().delete(row)
        self._put("deleted", row, None)

    def edit(self, row: Row, mask: Mask) -> None:
        """Let it be as it was drawn; key E, and A."""
        super().edit(row, mask)
        self._put("edited", row, mask)

    def add(self, target: Target, mask: Mask) -> None:
        """Add a lesion that was missed; key E, and A."""
        super().add(target, mask)
        self._put("added", Row(target, mask), mask)

    def save(self) -> Labels:
        """Say that there are no more lesions."""
        project = open_project(self.project.folder)
        finish_case(project, self.run, self.case_id, labels=self._labelmap())
        return self.shown

    def _put(self, what: What, row: Row, mask: Mask | None) -> None:
        best = self.run.best_round
        lesion = row.lesion
        decision = LesionDecision(
            what,
            row.target.name,
            None if lesion is None else lesion.found,
            None if mask is None else boxed(self.stored(mask)),
            self.run.run_id,
            best,
            0 if lesion is None else lesion.candidate,
        )
        put_lesion(self.project, self.case_id, decision)

    def _whole(self, voxels: BoxedMask) -> Mask:
        mask = np.zeros(self.volume.geometry.shape, np.bool_)
        voxels.write(mask, 1)
        return self.seen(mask)
