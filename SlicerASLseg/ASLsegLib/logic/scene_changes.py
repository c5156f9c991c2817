"""What is done in the scene about volumes, prompts above all, as steps that can be undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import slicer

from ASLsegLib.engine.background import Signal
from ASLsegLib.logic.history import Change, History
from ASLsegLib.scene.prompt_states import PromptState, describe, read_state, restore_state

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


class SceneChanges:
    """Notes what changes about volumes of the scene, and what a person did to their prompts.

    Args:
        history: Gets the steps.

    Attributes:
        undoing: Emits a change before it is taken back, or done again.
        undone: Emits it afterwards.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self.undoing, self.undone = Signal(), Signal()
        self._prompts: dict[str, PromptState] = {}

    def are_watched(self, volume: Any) -> bool:
        """Tell whether the prompts about a volume are known."""
        return volume.GetID() in self._prompts

    def watch_prompts(self, volume: Any) -> None:
        """Take the prompts that a volume comes with for given."""
        if not self.are_watched(volume):
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
        self.note(volume, word, PromptSwap(volume, known), slice_index)
        self._prompts[volume.GetID()] = now

    def note_all_prompts(self) -> None:
        """Note what a person did to the prompts about all volumes; see `note_prompts`."""
        self.forget_removed_volumes()
        for volume_id in list(self._prompts):
            self.note_prompts(slicer.mrmlScene.GetNodeByID(volume_id))

    def take_prompts(self, volume: Any) -> None:
        """Know the prompts about a volume as they are, for it was no person that changed them."""
        self._prompts[volume.GetID()] = read_state(volume)

    def note(
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
        self._history.add(change, to)
        self.know_of(volume)
        return change

    def know_of(self, volume: Any) -> None:
        """Let what was done about a volume be forgotten once that is removed."""
        self._prompts.setdefault(volume.GetID(), PromptState())

    def move(self, change: Change, move: Callable[[], Moved]) -> Moved:
        """Take a change back, or do it again, and know the prompts as they are then.

        Args:
            change: What is moved.
            move: Moves it; its result is returned.
        """
        self.undoing.emit(change)
        try:
            return move()
        finally:
            volume = slicer.mrmlScene.GetNodeByID(change.volume_id) if change.volume_id else None
            if volume is not None:
                self.take_prompts(volume)
            self.undone.emit(change)

    def forget_removed_volumes(self) -> None:
        """Forget what was done about volumes that are not in the scene any more."""
        for volume_id in list(self._prompts):
            if slicer.mrmlScene.GetNodeByID(volume_id) is None:
                del self._prompts[volume_id]
                self._history.forget_volume(volume_id)

    def forget_scene(self) -> None:
        """Forget volumes that go away with the scene."""
        self._prompts = {}
