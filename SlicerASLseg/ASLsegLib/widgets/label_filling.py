"""The button that fills an organ of the chosen segmentation between the slices that were drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from aslseg.data.slice_numbers import write_slices
from ASLsegLib.logic.export import volume_of_label
from ASLsegLib.logic.slice_filling import why_no_organ
from ASLsegLib.scene.hidden_segments import show_hidden
from ASLsegLib.scene.repaired_slices import organ_segments, stamp_of
from ASLsegLib.widgets.section import Section, not_installed

if TYPE_CHECKING:
    from aslseg.engine.facts import FillFacts


class LabelFillingSection(Section):
    """Lets the first labels be drawn in a slice every one or two centimetres."""

    answers = ("FillFacts",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._filled: tuple[Any, ...] = ()
        self._said = ""
        self.on_click(self.ui.fillLabelButton, self._fill)

    def update(self) -> None:
        """Show whether the chosen segmentation can be filled, and what was filled."""
        ui, node = self.ui, self._node
        closed = "" if self.logic.project else _("Open or make a project first.")
        chosen = "" if node is not None else _("Choose a segmentation.")
        organ = ""
        if not (closed or chosen):
            organ = why_no_organ(node, self.logic.targets())
        missing = not_installed()
        self.gate(ui.fillLabelButton, missing, closed, chosen, organ, needs_engine=True)
        said = self._said if node is not None and stamp_of(node) == self._filled else ""
        ui.filledLabel.setText(said)
        ui.filledLabel.setVisible(bool(said))

    def forget_scene(self) -> None:
        """Forget what went away with the scene."""
        self._filled = ()

    def on_answer(self, facts: FillFacts) -> None:
        """Let what was filled be seen, and say what it is, until something else is shown."""
        node = self._node
        if node is None or self.logic.filling is not node:  # the final label, or another one
            return
        show_hidden(node, organ_segments(node, self.logic.targets()))
        drawn = write_slices(self.logic.drawn_slices(node))
        text = _(
            "Filled {count} slices between those that you drew ({drawn}): look at them, repair "
            "where they are wrong, fill again."
        )
        self._said = text.format(count=len(facts.filled_slices), drawn=drawn)
        self._filled = stamp_of(node)
        self.update()

    @property
    def _node(self) -> Any | None:
        parameters = self.panel.parameters
        return None if parameters is None else parameters.labelSegmentation

    def _fill(self) -> None:
        node = self._node
        volume = volume_of_label(node)
        run = self.panel.parameters.run or None
        self.logic.fill_between.begin(volume, segmentation=node, run_id=run)
