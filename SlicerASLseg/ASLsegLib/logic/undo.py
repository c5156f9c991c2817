"""Undo and redo across everything: prompts, answers, growth, decisions, saved labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import slicer

from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.history import Change
from ASLsegLib.logic.lesion_drawing import Drawing, being_drawn
from ASLsegLib.logic.lesions import LesionLogic
from ASLsegLib.scene.as_decided import AsDecided
from ASLsegLib.scene.lesion_masks import exchange_voxels, target_mask, without
from ASLsegLib.scene.prompt_states import PromptState, describe, read_state, restore_state
from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.project.lesion_decisions import BoxedMask
    from aslseg.targets import Target

Moved = TypeVar("Moved")


class PromptSwap:
    """Other prompts about a volume: a call brings them back, another call those of now.

    Args:
        volume: Volume node.
        state: How the prompts shall be.
    """

    def __init__(self, volume: Any, state: PromptState) -> None:
        self._volume, self._state = volume, state

    def __call__(self) -> None:
        """Bring the prompts back."""
        now = read_state(self._volume)
        restore_state(self._volume, self._state)
        self._state = now


class DrawnVoxels:
    """The voxels that were drawn by hand while a lesion was drawn: taken out, and put in again.

    Args:
        nodes: Refined prediction and volume node.
        targets: Of the project.
        drawing: The lesion, and what the prediction showed before.
    """

    def __init__(self, nodes: tuple[Any, Any], targets: Sequence[Target], drawing: Drawing) -> None:
        self._nodes, self._targets, self._drawing = nodes, targets, drawing
        self._come: BoxedMask | None = None
        self._gone: BoxedMask | None = None
        self._of_parent: BoxedMask | None = None

    def hide(self) -> None:
        """Bring back what was there before the lesion was drawn."""
        drawing, targets = self._drawing, self._targets
        parent = next(one for one in targets if one.name == drawing.target.inside)
        self._come, self._gone = drawing.voxels(*self._nodes, targets)
        of_parent = target_mask(*self._nodes, parent, targets)
        self._of_parent = without(self._gone, without(self._gone, of_parent))
        self._exchange(come=self._gone, gone=self._come, parent_mask=drawing.parent_before)

    def show(self) -> None:
        """Bring back what was drawn."""
        self._exchange(come=self._come, gone=self._gone, parent_mask=self._of_parent)

    def _exchange(self, **masks: BoxedMask | None) -> None:
        exchange_voxels(*self._nodes, self._targets, target=self._drawing.target, **masks)


class UndoLogic(LesionLogic):
    """The part of the logic that takes back and does again, in the order in which it was done.

    Attributes:
        undoing: Emits a change before it is taken back, or done again.
        undone: Emits it afterwards.
        released: Emits a volume whose prompts belong to no lesion any more, as theirs is gone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.undoing, self.undone, self.released = Signal(), Signal(), Signal()
        self._prompts: dict[str, PromptState] = {}

    @property
    def to_undo(self) -> str:
        """What `undo` would take back, in words; empty for nothing."""
        change = self.history.last_done
        return self.last_decision() if change is None else change.word

    @property
    def to_redo(self) -> str:
        """What `redo` would do again, in words; empty for nothing."""
        change = self.history.last_undone
        return "" if change is None else change.word

    def undo(self) -> str:
        """Take back the last prompt, answer, growth, decision or saved label.

        What was saved stays in the project's history, and the label map before it counts again.

        Returns:
            What was taken back, in words; empty when there was nothing.

        Raises:
            SceneError: When it is about a case that has to be loaded first.
        """
        self.note_all_prompts()
        change, last = self.history.last_done, self.last_decision()
        if change is not None:
            return self._move(change, self.history.undo)
        if last:  # of before the project was opened
            self.undo_decision(last)
        return last

    def redo(self) -> str:
        """Do again what was taken back last; see `undo`."""
        self.note_all_prompts()
        change = self.history.last_undone
        return "" if change is None else self._move(change, self.history.redo)

    def take_drawn(self) -> int | None:
        """Decide as was drawn; see `LesionDecisionLogic`. Prompts count as drawn."""
        self.note_all_prompts()
        return super().take_drawn()

    def stop_drawing(self) -> bool:
        """Draw no lesion any more; see `LesionDrawingLogic`. Prompts count as drawn."""
        self.note_all_prompts()
        return super().stop_drawing()

    def show_lesions_as_decided(self) -> None:
        """Let the final label show the lesions of the case as they were decided about.

        Everything else that was drawn stays, and `undo` brings back what was shown.

        Raises:
            SceneError: When no case is looked at, a lesion is being drawn, or the case has a label
                map by now.
        """
        review = self._review()
        self._require_no_drawing()
        self._require_decidable(review.case_id)
        nodes = self._shown(review.case_id)
        shows = AsDecided(*nodes, self.targets(), review.decisions, self._predicted_of_review())

        def swap() -> None:
            shows()
            if self.lesion_review is not None:
                self._look_at_shown()
            self.lesions_changed.emit()

        swap()
        self._note(nodes[1], "show lesions as decided", swap)

    def delete_lesion(self, row: int | None) -> None:
        """Let a candidate be no lesion; one that was added is gone.

        Of a lesion that is being drawn, voxels, prompts and answers since `draw_lesion` go first,
        and come back by an `undo` of their own.

        Args:
            row: Of the lesion; None for a missed one that is being drawn.

        Raises:
            SceneError: When another lesion is being drawn, or none, or the final label was moved.
        """
        drawing = self._drawing
        if drawing is None and row is None:
            msg = "No lesion is being drawn; say which one is to be deleted."
            raise SceneError(msg)
        if drawing is not None:
            if row != self.drawn_row:
                raise being_drawn(self.drawn_row)
            self._require_unmoved(self._review().case_id)
            self._take_out_drawn(drawing)
        if row is not None:
            super().delete_lesion(row)

    def watch_prompts(self, volume: Any) -> None:
        """Take the prompts that a volume comes with for given."""
        if volume.GetID() not in self._prompts:
            self._prompts[volume.GetID()] = read_state(volume)

    def note_prompts(
        self, volume: Any, now: PromptState | None = None, *, is_resting: bool = True
    ) -> None:
        """Note what a person did to the prompts about a volume since the last call.

        Args:
            volume: Volume node.
            now: Its prompts; as they are in the scene when None.
            is_resting: Whether no prompt is being moved; else only what came or went is noted.
        """
        known = self._prompts.get(volume.GetID(), PromptState())
        now = now or read_state(volume)
        if now == known or not (is_resting or len(now.prompts) != len(known.prompts)):
            return
        word, slice_index = describe(known, now)
        self._note(volume, word, PromptSwap(volume, known), slice_index)
        self._prompts[volume.GetID()] = now

    def note_all_prompts(self) -> None:
        """Note what a person did to the prompts about all volumes; see `note_prompts`."""
        self.forget_removed_volumes()
        for volume_id in list(self._prompts):
            self.note_prompts(slicer.mrmlScene.GetNodeByID(volume_id))

    def forget_removed_volumes(self) -> None:
        """Forget what was done about volumes that are not in the scene any more."""
        for volume_id in list(self._prompts):
            if slicer.mrmlScene.GetNodeByID(volume_id) is None:
                del self._prompts[volume_id]
                self.history.forget_volume(volume_id)

    def release_case(self, case_id: str) -> bool:
        """Take a case out of the scene, with what could be undone in its prompts and answers."""
        is_gone = super().release_case(case_id)
        self.forget_removed_volumes()
        return is_gone

    def forget_scene(self) -> None:
        """Forget nodes that go away with the scene."""
        super().forget_scene()
        self._prompts = {}

    def _begin_drawing(self, row: int | None, target: str | None = None) -> None:
        """Begin to draw a lesion; prompts of before are no part of it."""
        self.note_all_prompts()
        super()._begin_drawing(row, target)

    def _take_out_drawn(self, drawing: Drawing) -> None:
        """Bring the prediction back to how it was when a lesion was begun to be drawn."""
        self.note_all_prompts()
        review, targets = self._review(), self.targets()
        nodes = self._shown(review.case_id)
        volume_id = nodes[1].GetID()
        changes = drawing.changes(self.history.done, volume_id)
        drawn = DrawnVoxels(nodes, targets, drawing)

        def hide() -> None:
            for change in reversed(changes):
                change.take_back()
            drawn.hide()
            self._drawing = None
            self.lesions_changed.emit()

        def show() -> None:
            drawn.show()
            for change in changes:
                change.do_again()
            now = self.lesion_review
            if now is not None and now.case_id == review.case_id:
                self._drawing = drawing
            self.lesions_changed.emit()

        def count_bytes() -> int:
            return sum(change.size_bytes() for change in changes)

        what = Change(
            "delete drawn lesion", show, hide, volume_id=volume_id, size_bytes=count_bytes
        )
        self._prompts.setdefault(volume_id, PromptState())  # for `forget_removed_volumes`
        self._move(what, lambda: self.history.replace(changes, what))

    def _note(
        self,
        volume: Any,
        word: str,
        swap: Callable[[], None],
        slice_index: int | None = None,
        *,
        to: Change | None = None,
        size_bytes: Callable[[], int] = int,
    ) -> Change:
        """Note a change of the scene, which the same call takes back and does again."""
        known = {"volume_id": volume.GetID(), "slice_index": slice_index, "size_bytes": size_bytes}
        change = Change(word, swap, swap, **known)
        self.history.add(change, to)
        self._prompts.setdefault(volume.GetID(), PromptState())  # for `forget_removed_volumes`
        return change

    def _prompts_changed(self, volume: Any) -> None:
        """Know the prompts about a volume as they are, for it was no person that changed them."""
        self._prompts[volume.GetID()] = read_state(volume)

    def _stop_answer(self, change: Change) -> None:
        """Let no answer come that would show what is being taken back."""

    def _move(self, change: Change, move: Callable[[], Moved]) -> Moved:
        self.undoing.emit(change)
        self._stop_answer(change)
        try:
            return move()
        finally:
            volume = slicer.mrmlScene.GetNodeByID(change.volume_id) if change.volume_id else None
            if volume is not None:
                self._prompts_changed(volume)
            self.undone.emit(change)
