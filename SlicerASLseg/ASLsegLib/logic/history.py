"""Undo and redo: one stack of everything that a person or an answer did in the panel.

Slicer's segmentations have no undo outside of the Segment Editor, so each entry keeps what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from ASLsegLib.engine.background import Signal

MOST_CHANGES, MOST_BYTES = 200, 256 * 2**20
"""The oldest ones beyond are forgotten."""


def _nothing() -> int:
    return 0


@dataclass(eq=False)
class Change:
    """Something that was done.

    Attributes:
        word: For a person: "delete lesion 3".
        undo: Brings back what was before.
        redo: Does it again.
        case_id: Case that it is about; empty when nothing was decided about one.
        lesions_of: Run and round whose lesions of that case have to be listed for both; None where
            none have to.
        volume_id: MRML id of the volume that it is about; empty when it is about none of the scene.
        slice_index: The axial slice where it shows; None for no slice.
        size_bytes: Returns how much memory it takes, about.
        then: What followed from it by itself, and is taken back with it.
        is_open: Whether an answer to it is still awaited.
    """

    word: str
    undo: Callable[[], object]
    redo: Callable[[], object]
    case_id: str = ""
    lesions_of: tuple[str, int] | None = None
    volume_id: str = ""
    slice_index: int | None = None
    size_bytes: Callable[[], int] = _nothing
    then: list[Change] = field(default_factory=list)
    is_open: bool = False

    def take_back(self) -> None:
        """Bring back what was before it and all that followed."""
        for change in reversed(self.then):
            change.undo()
        self.undo()

    def do_again(self) -> None:
        """Do it again, with all that followed."""
        self.redo()
        for change in self.then:
            change.redo()


class History:
    """What was done, and what of it was taken back.

    Attributes:
        changed: Emits when there is something else to undo or redo.
    """

    def __init__(self) -> None:
        self.changed = Signal()
        self._done: list[Change] = []
        self._undone: list[Change] = []
        self._is_applying = False

    @property
    def done(self) -> tuple[Change, ...]:
        """What was done and is not taken back, in its order."""
        return tuple(self._done)

    @property
    def last_done(self) -> Change | None:
        """What `undo` would take back."""
        return self._done[-1] if self._done else None

    @property
    def last_undone(self) -> Change | None:
        """What `redo` would do again."""
        return self._undone[-1] if self._undone else None

    def latest(self, volume_id: str) -> Change | None:
        """Return the last change about a volume of the scene that is not taken back."""
        return next(self._about(volume_id), None)

    def cause(self, volume_id: str, slice_index: int | None) -> Change | None:
        """Return the change that an answer about a slice follows from.

        Args:
            volume_id: MRML id of the volume.
            slice_index: The axial slice; None for all.

        Returns:
            The last of the changes since the last answer that shows on that slice; where none does,
            the last change about the volume.
        """
        waiting = takewhile(lambda one: not (one.then or one.is_open), self._about(volume_id))
        there = [one for one in waiting if one.slice_index == slice_index]
        return there[0] if there and slice_index is not None else self.latest(volume_id)

    def add(self, change: Change, to: Change | None = None) -> None:
        """Note what was done; what was taken back before cannot be done again.

        Args:
            change: What was done.
            to: What it followed from by itself, if that is not taken back or forgotten: then it
                counts as a part of that.
        """
        if self._is_applying:
            return
        if to in self._done:
            to.then.append(change)
        else:
            self._done.append(change)
            self._undone.clear()
        while len(self._done) > MOST_CHANGES or self._takes_too_much():
            self._done.pop(0)
        self.changed.emit()

    def fold(self, change: Change) -> None:
        """Let a change be a part of the one before it, if both are about one volume."""
        place = self._done.index(change)
        before = self._done[place - 1] if place else None
        if before is not None and before.volume_id == change.volume_id:
            before.then.append(self._done.pop(place))
            self.changed.emit()

    def replace(self, changes: Sequence[Change], by: Change) -> None:
        """Do something in place of what was done, which is a part of it from now on.

        Args:
            changes: Forgotten as changes of their own.
            by: Its `redo` is called now, and has to take them back; its `undo` does them again.
        """
        self._is_applying = True
        try:
            by.do_again()
        finally:
            self._is_applying = False
        self._done = [one for one in self._done if one not in changes]
        self.add(by)

    def discard(self, change: Change) -> None:
        """Forget something that has not happened after all."""
        for one in [*self._done, *self._undone]:
            one.then = [other for other in one.then if other is not change]
        self._keep(lambda one: one is not change)

    def keep(self, changes: Sequence[Change]) -> None:
        """Forget everything but some changes."""
        self._keep(lambda change: change in changes)

    def forget_volume(self, volume_id: str) -> None:
        """Forget what was done about a volume that is not in the scene any more."""
        self._keep(lambda change: change.volume_id != volume_id)

    def forget_case(self, case_id: str) -> None:
        """Forget what was decided about lesions and slices of a case that left the project."""
        self._keep(lambda change: change.case_id != case_id)

    def forget_lesions_of(self, case_id: str, lesions_of: tuple[str, int]) -> None:
        """Forget what was decided about lesions of a case that a run found in one of its rounds."""
        self._keep(lambda change: (change.case_id, change.lesions_of) != (case_id, lesions_of))

    def forget_decisions(self) -> None:
        """Forget all but what was done about volumes: the project was changed elsewhere."""
        self._keep(lambda change: bool(change.volume_id))

    def undo(self) -> str:
        """Take back the last change, and return its word; empty for nothing.

        An entry that fails stays where it is.
        """
        return self._move(self._done, self._undone, lambda change: change.take_back())

    def redo(self) -> str:
        """Do the last change that was taken back again, and return its word."""
        return self._move(self._undone, self._done, lambda change: change.do_again())

    def clear(self) -> None:
        """Forget everything: the scene or the project is another one."""
        self._done.clear()
        self._undone.clear()
        self.changed.emit()

    def _about(self, volume_id: str) -> Iterator[Change]:
        """Give what was done about a volume, the latest first."""
        return (change for change in reversed(self._done) if change.volume_id == volume_id)

    def _keep(self, stays: Callable[[Change], bool]) -> None:
        before = len(self._done) + len(self._undone)
        self._done = [change for change in self._done if stays(change)]
        self._undone = [change for change in self._undone if stays(change)]
        if len(self._done) + len(self._undone) != before:
            self.changed.emit()

    def _takes_too_much(self) -> bool:
        changes = [one for change in self._done for one in (change, *change.then)]
        return len(self._done) > 1 and sum(one.size_bytes() for one in changes) > MOST_BYTES

    def _move(
        self, source: list[Change], goal: list[Change], apply: Callable[[Change], object]
    ) -> str:
        if not source:
            return ""
        change, self._is_applying = source[-1], True
        try:
            apply(change)
        finally:
            self._is_applying = False
        goal.append(source.pop())
        self.changed.emit()
        return change.word
