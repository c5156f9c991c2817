"""A simulated person: looks at a case, and does what it takes until the label map is right.

The truth is the person's eye, and nothing else is known to it than what the desk shows. Eye and
hand are perfect: what is wrong is seen, what is drawn is the truth. That makes every way cheaper
than it is, and the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from even_slices import even_slices
from numpy.typing import NDArray

from aslseg.data.masks import label_components
from aslseg.data.volume import Labels, Mask
from aslseg.targets import Target, lesion_targets, region_mask
from economy.desk import Desk, Row
from economy.filling import Filler
from economy.prices import Act
from economy.sight import (
    SliceCheck,
    Standard,
    check_slice,
    filled_between,
    may_be_missing,
    outline_mm,
    quality_of,
    surface_dice,
)

Fill: TypeAlias = Callable[[Target, Mask, Sequence[int]], Mask | None]
"""Takes a target, what is shown of it, and the slices that were repaired; None where it cannot."""
HALF = 0.5
LEAST_SHARE = 0.1
"""A lesion is meant by what is shown of it if that is so much of the lesion, or half of itself."""
SHAPE_APART_MM = 16.0
"""A region that is filled by shape is first repaired in slices about so far apart, then in those
half-way between; one that is filled by the image in slices `Filler.apart_mm` apart."""


def label_case(desk: Desk, truth: Labels, standard: Standard) -> list[Act]:
    """Bring the label map of a case to the standard, save it, and return what was done.

    Args:
        desk: The case.
        truth: Its label map (D, H, W), on the slice grid.
        standard: When it is good enough.
    """
    visit = _Visit(desk, truth, standard)
    visit.do("open")
    visit.review_lesions()
    visit.go_through_slices()
    visit.add_missed()
    visit.look_again()
    visit.repair_organs()
    visit.about = ""
    visit.do("save")
    desk.save()
    return visit.acts


def label_slices(desk: Desk, truth: Labels, standard: Standard, count: int) -> list[Act]:
    """Draw some slices of a case, evenly over what there is, and mark them as complete.

    Args:
        desk: The case, with nothing shown.
        truth: Its label map (D, H, W), on the slice grid.
        standard: Of no meaning here, for what is drawn is the truth.
        count: How many slices.
    """
    visit = _Visit(desk, truth, standard)
    visit.do("open")
    slices = even_slices(truth.any(axis=(1, 2)), count)
    for k in slices:
        for target in desk.targets:
            region = region_mask(truth, target, desk.targets)[k]
            if region.any() and target.name not in desk.given:
                visit.about = target.name
                _, strokes = label_components(region)
                visit.draw(strokes, outline_mm(region, visit.pixel_mm))
        desk.shown[k] = truth[k]
        visit.about = ""
        visit.do("scroll")
        visit.do("click")  # the mark
    visit.do("save")
    desk.save_slices(slices)
    return visit.acts


@dataclass(frozen=True)
class _WrongSlice:
    """A slice to be repaired: its number, and how it is."""

    k: int
    check: SliceCheck


class _Visit:
    """A case while a person is at it."""

    def __init__(self, desk: Desk, truth: Labels, standard: Standard) -> None:
        self.desk, self.truth, self.standard = desk, truth, standard
        self.spacing_mm = desk.geometry.spacing_mm
        self.pixel_mm = (self.spacing_mm[1], self.spacing_mm[2])
        self.acts: list[Act] = []
        self.about = ""
        lesions = lesion_targets(desk.targets)
        self.organs = [one for one in desk.targets if one not in lesions]
        self.numbered = {one.name: label_components(truth == one.value)[0] for one in lesions}
        self.done: dict[str, set[int]] = {one.name: set() for one in lesions}

    def do(self, name: str, amount: float = 1.0) -> None:
        if amount:
            self.acts.append(Act(name, amount, self.about))

    def draw(self, strokes: int, length_mm: float) -> None:
        self.do("stroke", strokes)
        self.do("draw", length_mm)

    # -- lesions -------------------------------------------------------------------------------

    def review_lesions(self) -> None:
        """Decide about all lesions that are offered, the pieces of a lesion together."""
        for rows, meant in self._offered():
            self.about = rows[0].target.name
            self.do("look", len(rows))
            goal = np.isin(self.numbered[self.about], sorted(meant))
            kept = self._kept(rows, goal) if meant else []
            for row in rows:
                if all(row is not one for one in kept):
                    self.do(*self.desk.deleted_by)
                    self.desk.delete(row)
            if kept:
                shown = _together(kept, goal)
                right = self._mended(rows[0].target, shown, goal)
                self._take(kept, right)
                self.done[self.about] |= meant

    def _offered(self) -> list[tuple[list[Row], set[int]]]:
        """Return the rows with the true lesions that they are about; those of one are together."""
        groups: list[tuple[list[Row], set[int]]] = []
        for row in self.desk.rows():
            meant = self._meant(row)
            same = [one for one in groups if one[0][0].target is row.target and one[1] & meant]
            groups = [one for one in groups if all(one is not other for other in same)]
            rows = [*(each for one in same for each in one[0]), row]
            groups.append((rows, meant.union(*(one[1] for one in same))))
        return groups

    def _meant(self, row: Row) -> set[int]:
        """Return the true lesions that a row is about."""
        numbered = self.numbered[row.target.name]
        sizes = np.bincount(numbered.ravel())
        common = np.bincount(numbered[row.mask], minlength=len(sizes))
        is_meant = (common >= LEAST_SHARE * sizes) | (common >= HALF * row.mask.sum())
        is_meant &= common > 0
        return {int(n) for n in np.flatnonzero(is_meant) if n}

    def _kept(self, rows: Sequence[Row], goal: Mask) -> list[Row]:
        """Return the rows that save time together: what costs most is left out first."""
        kept, pieces = list(rows), np.zeros(goal.shape, np.uint8)
        for row in rows:
            pieces += row.mask
        while kept:
            costs = [self._cost_s(row.mask, pieces, goal) for row in kept]
            most = int(np.argmax(costs))
            if costs[most] < 0:
                break
            pieces -= kept.pop(most).mask
        return kept

    def _cost_s(self, piece: Mask, pieces: NDArray[np.uint8], goal: Mask) -> float:
        """Return how much longer repairing takes with a piece than without; negative if it saves.

        Args:
            piece: One of the pieces of a lesion.
            pieces: How many of all pieces hold each voxel.
            goal: What the lesion should be.
        """
        k = np.flatnonzero(piece.any(axis=(1, 2)))
        with_it, without = pieces[k] > 0, (pieces[k] - piece[k]) > 0
        return self._seconds(with_it, goal[k]) - self._seconds(without, goal[k])

    def _take(self, rows: Sequence[Row], mask: Mask) -> None:
        """Let the lesion of some rows be a mask: each keeps its part, the first has the rest."""
        rest = mask.copy()
        for row in rows[1:]:
            rest &= ~row.mask
        for row, part in [*((one, one.mask & mask) for one in rows[1:]), (rows[0], rest)]:
            if (part == row.mask).all():
                self.do(*self.desk.accepted_by)
                self.desk.accept(row)
            elif part.any():
                self.do(*self.desk.edited_by)
                self.desk.edit(row, part)
            else:
                self.do(*self.desk.deleted_by)
                self.desk.delete(row)

    def add_missed(self) -> None:
        """Add the lesions that nothing was shown of."""
        least_voxels = self.standard.least_lesion_ml / self.desk.geometry.voxel_ml
        for target in lesion_targets(self.desk.targets):
            self.about = target.name
            numbered = self.numbered[target.name]
            sizes = np.bincount(numbered.ravel())
            for n in np.argsort(-sizes):
                if n and sizes[n] >= least_voxels and n not in self.done[target.name]:
                    self.do("look")
                    self.do(*self.desk.edited_by)
                    self.desk.add(target, self._made(target, numbered == n))

    def _made(self, target: Target, goal: Mask) -> Mask:
        """Return a region that was not there: grown from a box if that helps, else drawn."""
        if self.desk.grower is not None:
            grown = self._grown(target, goal)
            if self._is_right(grown, goal) or not self._saves_nothing(grown, goal):
                return self._mended(target, grown, goal)
            self.do("key")  # not so
        return self._mended(target, np.zeros_like(goal), goal)

    def _grown(self, target: Target, goal: Mask) -> Mask:
        k = int(goal.sum(axis=(1, 2)).argmax())
        self.do("box")
        self.do("wait")
        self.do("look")
        return self.desk.grow(target, k, goal[k])

    def look_again(self) -> None:
        """Repair lesions that were right one by one and are not together, the worst slices first.

        Within the tolerance two lesions may touch, and a stack of nearly right sections be wrong.
        """
        for target in lesion_targets(self.desk.targets):
            self.about = target.name
            shown = self.desk.shown == target.value
            wanted = self._wanted(target, shown)
            wrong = sorted(self._wrong_slices(shown, wanted, least=1.0), key=_shape_of)
            for one in wrong:
                if self._lesions_are_right():
                    break
                self._repair(one)
                section = self.desk.shown[one.k]
                section[shown[one.k]] = self.desk.parent(target).value
                section[wanted[one.k]] = target.value

    def _lesions_are_right(self) -> bool:
        found = quality_of(
            self.desk.shown, self.truth, self.desk.targets, self.desk.geometry, self.standard
        )
        return replace(found, organ_surface_dice=1.0).meets(self.standard)

    def _wanted(self, target: Target, shown: Mask) -> Mask:
        """Return the true lesions, but small ones of which nothing is shown."""
        true = self.truth == target.value
        least_voxels = self.standard.least_lesion_ml / self.desk.geometry.voxel_ml
        wanted: Mask = true & ~may_be_missing(shown, true, least_voxels)
        return wanted

    # -- organs --------------------------------------------------------------------------------

    def go_through_slices(self) -> None:
        """Look at each slice once, for what is missing and for organs."""
        self.about = ""
        self.do("scroll", int(np.count_nonzero((self.truth | self.desk.shown).any(axis=(1, 2)))))

    def repair_organs(self) -> None:
        """Repair the slices of all organs that were not given, or draw these."""
        for target in self.organs:
            if target.name not in self.desk.given:
                self.about = target.name
                goal = region_mask(self.truth, target, self.desk.targets)
                self.desk.paint(target, self._organ(target, goal))

    def _organ(self, target: Target, goal: Mask) -> Mask:
        """Return an organ as it should be, from what is shown of it or grows."""
        shown = self.desk.region(target)
        if not shown.any() and self.desk.grower is not None:
            shown = self._grown(target, goal)
        return self._mended(target, shown, goal)

    # -- both ----------------------------------------------------------------------------------

    def _mended(self, target: Target, shown: Mask, goal: Mask) -> Mask:
        """Repair a region in more and more slices, filled between, until it meets the standard."""
        if self._is_right(shown, goal):
            return shown
        slices = [int(k) for k in np.flatnonzero(goal.any(axis=(1, 2)))]
        beyond = [int(k) for k in np.flatnonzero(shown.any(axis=(1, 2))) if k not in slices]
        result, drawn = self.repaired(shown, goal, beyond), set[int]()
        filler = self._filler_of(target)
        apart_mm = SHAPE_APART_MM if filler is None else filler.apart_mm
        step = first_step(self.spacing_mm[0], apart_mm, len(slices))
        while step and not self._is_right(result, goal):
            chosen = {*slices[::step], slices[-1]}
            result = self.repaired(result, goal, sorted(chosen - drawn))
            drawn |= chosen
            result = self._filled(target, result, goal, sorted(drawn))
            step //= 2
        return result

    def _filled(self, target: Target, shown: Mask, goal: Mask, drawn: Sequence[int]) -> Mask:
        """Return a region filled between repaired slices, unless it was better before.

        An organ is filled by its image where that is offered, else by shape; a lesion by its image
        only where shape is not enough, for the one takes a minute and the other none.
        """
        between = len(range(drawn[0], drawn[-1] + 1)) - len(drawn)
        for fill in self._fillings(target):
            if between and not self._is_right(shown, goal):
                filled = fill(target, shown, drawn)
                if filled is not None:
                    self.do("click")
                    self.do("scroll", between)
                    if self._surface_dice(filled, goal) > self._surface_dice(shown, goal):
                        shown = filled
                    else:
                        self.do("key")  # not so
        return shown

    def _fillings(self, target: Target) -> list[Fill]:
        """Return what fills a region between repaired slices; one after the other is tried."""
        if self._filler_of(target) is not None:
            return [self._organ_by_image]
        return [self._by_shape, self._lesion_by_image]

    def _by_shape(self, target: Target, shown: Mask, drawn: Sequence[int]) -> Mask:
        return filled_between(shown, list(drawn))

    def _organ_by_image(self, target: Target, shown: Mask, drawn: Sequence[int]) -> Mask:
        if self.desk.filler is not None:
            self.do(self.desk.filler.act)
        return self.desk.fill(target, shown, drawn)

    def _lesion_by_image(self, target: Target, shown: Mask, drawn: Sequence[int]) -> Mask | None:
        filled = None if target in self.organs else self.desk.fill_lesion(target, shown, drawn)
        if filled is not None:
            self.do("fill anew")
        return filled

    def _filler_of(self, target: Target) -> Filler | None:
        """Return what fills a target by its image; None where shapes do."""
        return self.desk.filler if target in self.organs else None

    def _is_right(self, shown: Mask, goal: Mask) -> bool:
        return self._surface_dice(shown, goal) >= self.standard.least_surface_dice

    def _surface_dice(self, shown: Mask, goal: Mask) -> float:
        return surface_dice(shown, goal, self.spacing_mm, self.standard.tolerance_mm)

    def repaired(self, shown: Mask, goal: Mask, chosen: Sequence[int] | None = None) -> Mask:
        """Return a region after its slices were repaired that do not meet the standard.

        Args:
            shown: (D, H, W).
            goal: What it should be.
            chosen: Only these slices; all when None.
        """
        result = shown.copy()
        for one in self._wrong_slices(shown, goal):
            if chosen is None or one.k in chosen:
                self._repair(one)
                result[one.k] = goal[one.k]
        return result

    def _repair(self, wrong: _WrongSlice) -> None:
        for act in wrong.check.acts:
            self.do(act.name, act.amount)

    def _saves_nothing(self, shown: Mask, goal: Mask) -> bool:
        """Tell whether repairing a region takes as long as drawing it anew."""
        nothing = np.zeros_like(goal)
        return self._seconds(shown, goal) >= self._seconds(nothing, goal)

    def _seconds(self, shown: Mask, goal: Mask) -> float:
        return sum(one.check.seconds for one in self._wrong_slices(shown, goal))

    def _wrong_slices(
        self, shown: Mask, goal: Mask, least: float | None = None
    ) -> Iterator[_WrongSlice]:
        """Yield slices below a surface Dice; below that of the standard when None."""
        least = self.standard.least_surface_dice if least is None else least
        for k in np.flatnonzero((shown | goal).any(axis=(1, 2))):
            check = check_slice(shown[k], goal[k], self.pixel_mm, self.standard.tolerance_mm)
            if check.surface_dice < least:
                yield _WrongSlice(int(k), check)


def first_step(depth_mm: float, apart_mm: float, count: int) -> int:
    """Return how many slices lie from one that is repaired first to the next: a power of two.

    Args:
        depth_mm: Between slices.
        apart_mm: Most between repaired ones.
        count: Of slices: at least three are repaired.
    """
    step = 1
    while 2 * step * depth_mm <= apart_mm and 4 * step <= count:
        step *= 2
    return step


def _shape_of(wrong: _WrongSlice) -> float:
    return wrong.check.surface_dice


def _together(rows: Sequence[Row], like: Mask) -> Mask:
    """Return the voxels of all rows, in the shape of another mask."""
    together = np.zeros_like(like)
    for row in rows:
        together |= row.mask
    return together
