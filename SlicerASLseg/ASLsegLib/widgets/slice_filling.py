"""The button that fills organs between the slices that a person repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ASLsegLib.logic.slice_filling import NO_RUN, slices_between, why_nothing_between
from ASLsegLib.scene.repaired_slices import stamp_of
from ASLsegLib.scene.segmentations import find_prediction
from ASLsegLib.scene.volumes import hardened_copy
from ASLsegLib.widgets.section import Section, single_shot

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts

REST_MS = 300
"""How long nothing is drawn before it is looked which slices are repaired."""
MOST_NAMED = 12
"""So many repaired slices are named."""


class SliceFillingSection(Section):
    """Says which slices count as repaired, and fills between them."""

    shows = ("slice",)
    answers = ("FillFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._timer = single_shot(lambda: self.panel.attempt(self._look, update=False))
        self._seen: tuple[Any, ...] = ()
        self._counted: tuple[Any, ...] = ()
        self._slices: list[int] = []
        self._filled: tuple[Any, ...] = ()
        self._said = ""
        self._is_open = False
        self.on_click(self.ui.fillButton, self._fill)

    def update(self) -> None:
        """Show what is possible; which slices are repaired is looked at while drawing rests."""
        node = self._node
        volume = "" if self.panel.volume is not None else _("Choose a volume.")
        label = "" if node is not None else _("No final label of this volume is in the scene.")
        run = "" if self.logic.usable_run(self._run) else _(NO_RUN)
        slices = why_nothing_between(self._slices)
        self.gate(
            self.ui.fillButton, volume, self.panel.missing, label, run, slices, needs_engine=True
        )
        self.ui.fillLabel.setText(self._about() if node is not None else "")
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
        self._seen = self._counted = self._filled = ()
        self._slices, self._said = [], ""

    def on_answer(self, facts: FillFacts) -> None:
        """Say what was filled, until something else is drawn."""
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
        return None if volume is None else hardened_copy(volume) or volume

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
        self._counted = self._seen
        self._slices = [] if self._node is None else self.logic.repaired_slices(self._volume)
        self.update()

    def _about(self) -> str:
        """Say which slices are repaired, and after a filling what to do next."""
        if not self._slices:
            return _("Repaired: no slice yet.")
        names = [str(k) for k in self._slices[:MOST_NAMED]]
        more = len(self._slices) - len(names)
        text = _("Repaired: {slices}; {count} slices between them.")
        if more:
            text = _("Repaired: {slices} and {more} more; {count} slices between them.")
        count = len(slices_between(self._slices))
        about = text.format(slices=", ".join(names), more=more, count=count)
        is_filled = self._said and self._filled == self._counted
        return f"{about} {self._said}" if is_filled else about

    def _fill(self) -> None:
        if self.panel.volume is not None:
            self.logic.fill_between(self.panel.volume, run_id=self._run, wait=False)
