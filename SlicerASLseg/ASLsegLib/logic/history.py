"""Undo and redo: one stack of everything that a person or an answer did in the panel.

Slicer's segmentations have no undo outside of the Segment Editor, so each entry keeps what changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ASLsegLib.engine.background import Signal

MOST_CHANGES = 200
"""The oldest ones beyond are forgotten."""


@dataclass(frozen=True)
class Change:
    """Something that was done.

    Attributes:
        word: For a person: "delete lesion 3".
        undo: Brings back what was before.
        redo: Does it again.
        case_id: Case that has to be looked at for both; empty when none has to.
    """

    word: str
    undo: Callable[[], object]
    redo: Callable[[], object]
    case_id: str = ""


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
    def to_undo(self) -> str:
        """The word of what `undo` would take back; empty for nothing."""
        return self._done[-1].word if self._done else ""

    @property
    def to_redo(self) -> str:
        """The word of what `redo` would do again; empty for nothing."""
        return self._undone[-1].word if self._undone else ""

    @property
    def undo_case(self) -> str:
        """The case that has to be looked at to undo; empty when none has to."""
        return self._done[-1].case_id if self._done else ""

    @property
    def redo_case(self) -> str:
        """The case that has to be looked at to redo; empty when none has to."""
        return self._undone[-1].case_id if self._undone else ""

    def add(self, change: Change) -> None:
        """Note what was done; what was taken back before cannot be done again."""
        if self._is_applying:
            return
        self._done = [*self._done, change][-MOST_CHANGES:]
        self._undone.clear()
        self.changed.emit()

    def undo(self) -> str:
        """Take back the last change, and return its word; empty for nothing.

        An entry that fails stays where it is.
        """
        return self._move(self._done, self._undone, lambda change: change.undo())

    def redo(self) -> str:
        """Do the last change that was taken back again, and return its word."""
        return self._move(self._undone, self._done, lambda change: change.redo())

    def clear(self) -> None:
        """Forget everything: the scene or the project is another one."""
        self._done.clear()
        self._undone.clear()
        self.changed.emit()

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
