"""Undo and redo: two buttons and their keys, for everything that was done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ASLsegLib.scene.slice_views import show_slice
from ASLsegLib.scene.volumes import SceneError
from ASLsegLib.widgets.section import Section, as_plain, shortened

if TYPE_CHECKING:
    from ASLsegLib.logic.history import Change

MOST_LETTERS = 16
"""Of what is undone on a button; the tooltip has all of it."""


class UndoSection(Section):
    """Takes back the last act, and does it again, at the place where it was done."""

    def connect_widgets(self) -> None:
        """Connect both buttons and their keys."""
        self._waiting: Change | None = None
        for button, key, act in (
            (self.ui.undoButton, "Ctrl+Z", self.undo),
            (self.ui.redoButton, "Ctrl+Y", self.redo),
        ):
            self.on_click(button, act)
            self.on_key(key, button)
        self.logic.history.changed.connect(self.update)  # two buttons, and often
        self.logic.lesions_changed.connect(self._case_has_come)
        self.logic.changes.undone.connect(self._show)

    def update(self) -> None:
        """Say what would be undone and redone."""
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        for button, what, name, nothing in (
            (self.ui.undoButton, self.logic.to_undo, _("Undo"), _("There is nothing to undo.")),
            (self.ui.redoButton, self.logic.to_redo, _("Redo"), _("Nothing was undone.")),
        ):
            self.gate(button, "" if what else nothing, busy)
            button.setText(f"{name}: {shortened(what, MOST_LETTERS)}" if what else name)
            if what and not busy:
                button.setToolTip(as_plain(f"{name}: {what}"))

    def undo(self) -> None:
        """Take back the last act."""
        self.logic.changes.note_all_prompts()
        if self._has_come(self.logic.history.last_done):
            self.logic.undo()

    def redo(self) -> None:
        """Do again what was taken back last."""
        if self._has_come(self.logic.history.last_undone):
            self.logic.redo()

    def forget_scene(self) -> None:
        """Wait for no case that goes away with the scene."""
        self._waiting = None

    def tick(self) -> None:
        """Wait no more for a case that did not come: nothing is undone at some later time.

        Raises:
            SceneError: Which says so.
        """
        if self._waiting is None or self.logic.background.is_busy:
            return
        change, self._waiting = self._waiting, None
        text = _(
            "'{what}' was neither undone nor redone: case {case} could not be loaded with its "
            "lesions. Load it from the table, then press Undo or Redo again."
        )
        raise SceneError(text.format(what=change.word, case=change.case_id))

    def _has_come(self, change: Change | None) -> bool:
        """Tell whether the lesions that a change needs are listed; else its case is loaded."""
        review = self.logic.lesion_review
        if change is None or change.lesions_of is None:
            return True
        if review is not None and review.case_id == change.case_id:
            return True
        self._waiting = change
        self.panel.case_chosen.emit(change.case_id)
        return False

    def _case_has_come(self) -> None:
        """Do what waited for a case, unless something else was done since."""
        change, review = self._waiting, self.logic.lesion_review
        if change is None or review is None or review.case_id != change.case_id:
            return
        self._waiting = None
        self.logic.changes.note_all_prompts()
        if change is self.logic.history.last_done:
            self.panel.attempt(self.undo)
        elif change is self.logic.history.last_undone:
            self.panel.attempt(self.redo)

    def _show(self, change: Change) -> None:
        """Show the volume and the slice that something was undone in."""
        volume = slicer.mrmlScene.GetNodeByID(change.volume_id) if change.volume_id else None
        if volume is None:
            return
        if self.panel.volume is not volume and self.panel.parameters is not None:
            self.panel.parameters.inputVolume = volume
            slicer.util.setSliceViewerLayers(background=volume, fit=True)
        if change.slice_index is not None:
            show_slice(volume, change.slice_index)
