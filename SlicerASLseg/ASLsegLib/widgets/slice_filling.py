"""The button that fills organs between the slices that a person repaired, and which those are."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from aslseg.data.slice_numbers import read_slices, slices_between, write_slices
from aslseg.errors import AslsegError
from ASLsegLib.logic.slice_filling import (
    why_no_organ,
    why_nothing_repaired,
)
from ASLsegLib.scene.hidden_segments import show_hidden
from ASLsegLib.scene.repaired_slices import organ_segments, stamp_of
from ASLsegLib.scene.segmentations import find_prediction
from ASLsegLib.scene.slice_views import current_slice
from ASLsegLib.scene.volumes import hardened_copy
from ASLsegLib.widgets.section import Section, not_installed, single_shot

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts

REST_MS = 300
"""How long nothing is drawn before it is looked which slices are repaired."""
MANY = 20
"""If more slices than that, and than half of those they span, differ, nobody drew each of them."""


class SliceFillingSection(Section):
    """Says which slices count as repaired, lets a person name others, and fills between them."""

    shows = ("slice",)
    answers = ("FillFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._timer = single_shot(lambda: self.panel.attempt(self._look, update=False))
        self._seen: tuple[Any, ...] = ()
        self._counted: tuple[Any, ...] = ()
        self._slices: list[int] = []
        self._are_named = self._is_typing = False
        self._problem = ""
        self._filled: tuple[Any, ...] = ()
        self._said = ""
        self._is_open = False
        ui = self.ui
        self.on_signal(ui.repairedSlicesEdit, "textEdited(QString)", self._begin_typing)
        self.on_signal(ui.repairedSlicesEdit, "editingFinished()", self._name_typed)
        self.on_click(ui.countSliceButton, self._name_shown)
        self.on_click(ui.fillButton, self._fill)

    def update(self) -> None:
        """Show what is possible; which slices are repaired is looked at while drawing rests."""
        ui, node = self.ui, self._node
        if node is None or self._counted[:1] != stamp_of(node)[:1]:
            self._forget_slices()
        volume = "" if self.panel.volume is not None else _("Choose a volume.")
        label = _("No final label of this volume is in the scene.")
        if node is not None:
            label = why_no_organ(node, self.logic.targets())
        can = (volume, not_installed(), label)
        between = self._problem or why_nothing_repaired(self._slices)
        for widget in (ui.repairedSlicesEdit, ui.countSliceButton):
            self.gate(widget, *can, needs_engine=True)
        self.gate(ui.fillButton, *can, between, needs_engine=True)
        if not (self._is_typing or self._problem):
            ui.repairedSlicesEdit.setText(write_slices(self._slices))
        is_right = node is not None and current_slice(self._volume) in self._slices
        ui.countSliceButton.setChecked(is_right)
        ui.fillLabel.setText("" if node is None else label or self._about())
        self._look_soon()

    def enter(self) -> None:
        """Look at what was drawn in other modules."""
        self._is_open = True
        self._look_soon()

    def leave(self) -> None:
        """Look at nothing while another module is open."""
        self._is_open = False
        self._timer.stop()

    def close(self) -> None:
        """Look no more."""
        self._timer.stop()

    def forget_scene(self) -> None:
        """Forget what went away with the scene."""
        self._timer.stop()
        self._seen = self._filled = ()
        self._said = ""
        self._forget_slices()

    def on_answer(self, facts: FillFacts) -> None:
        """Let what was filled be seen, and say what it is, until something else is drawn."""
        node = self._node
        if node is None or self.logic.filling is not node:  # another case is shown now
            return
        self.ui.showRefinedBox.checked = True
        show_hidden(node, organ_segments(node, self.logic.targets()))
        text = _("Filled {count} slices: look at them, repair where they are wrong, fill again.")
        self._said = text.format(count=len(facts.filled_slices))
        self._filled = self._stamp
        self.update()

    @property
    def _node(self) -> Any | None:
        return None if self._volume is None else find_prediction(self._volume, "refined")

    @property
    def _volume(self) -> Any | None:
        """The volume that is worked on: a hardened copy of one that is under a transform."""
        volume = self.panel.volume
        if volume is None or volume.GetParentTransformNode() is None:
            return volume  # a copy that was made under a transform before is not about it
        return hardened_copy(volume) or volume

    @property
    def _run(self) -> str | None:
        return self.panel.parameters.run or None

    @property
    def _stamp(self) -> tuple[Any, ...]:
        return () if self._node is None else stamp_of(self._node)

    def _look_soon(self) -> None:
        """Look which slices are repaired, once drawing rests; nothing is read where none was."""
        self._seen = self._stamp
        if self._is_open and self._seen != self._counted:
            self._timer.start(REST_MS)

    def _look(self) -> None:
        if self.panel.parameters is None:  # the scene is being closed
            return
        if self._stamp != self._seen:
            self._look_soon()
            return
        self._problem = ""
        self._count()
        self.update()

    def _count(self) -> None:
        """Look which slices are repaired."""
        self._counted = self._seen = self._stamp
        volume = None if self._node is None else self._volume
        self._slices = [] if volume is None else self.logic.repaired_slices(volume)
        self._are_named = volume is not None and self.logic.are_slices_named(volume)

    def _forget_slices(self) -> None:
        """Forget what was counted and typed about another segmentation."""
        self._counted, self._slices = (), []
        self._are_named = self._is_typing = False
        self._problem = ""

    def _about(self) -> str:
        """Say what lies between the repaired slices, and after a filling what to do next."""
        if self._problem or not self._slices:
            return self._problem or _("No slice is repaired yet.")
        if self._are_many():
            text = _("{count} slices differ, as after smoothing: name those that are correct.")
            return text.format(count=len(self._slices))
        text = _("Slices between them: {count}.")
        about = text.format(count=len(slices_between(self._slices)))
        is_filled = self._said and self._filled == self._counted
        return f"{about} {self._said}" if is_filled else about

    def _are_many(self) -> bool:
        """Whether so many slices differ that something other than a brush has changed them."""
        span = self._slices[-1] - self._slices[0] + 1
        return not self._are_named and len(self._slices) > max(MANY, span // 2)

    def _begin_typing(self) -> None:
        self._is_typing = True

    def _name_typed(self) -> None:
        """Let the slices count that were typed; those that differ when nothing is."""
        if not self._is_typing or self._node is None:
            return
        self._is_typing, self._problem = False, ""
        text = self.ui.repairedSlicesEdit.text.strip()
        try:
            self._name(read_slices(text) if text else None)
        except AslsegError as error:  # said in the line below, where it is put right
            self._problem = str(error)

    def _name_shown(self) -> None:
        """Let the slice that is shown count, or no longer."""
        if self._node is not None:
            self._is_typing, self._problem = False, ""
            self._name({*self.logic.repaired_slices(self._volume)} ^ {current_slice(self._volume)})

    def _name(self, slices: Collection[int] | None) -> None:
        self.logic.name_slices(self._volume, slices)
        self._count()

    def _fill(self) -> None:
        self._name_typed()  # a click takes the cursor out of the line on some systems only
        if self.panel.volume is not None and not self._problem:
            self.logic.fill_between.begin(self.panel.volume, run_id=self._run)
