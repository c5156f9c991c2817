"""One volume: segment it, and show or hide the predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib.engine.client import State
from ASLsegLib.scene.case_nodes import case_of
from ASLsegLib.scene.disagreement import can_compare, compare_labels, set_overlay_visible
from ASLsegLib.scene.segmentations import OUTLINES, SOURCES, find_prediction
from ASLsegLib.scene.shown_volume import show_volume
from ASLsegLib.scene.slice_views import draw_in_plane
from ASLsegLib.widgets.section import Section, as_plain, fill_combo, not_installed

if TYPE_CHECKING:
    from ASLsegLib.engine.client import PanelEvent


class SegmentSection(Section):
    """One button, four predictions."""

    shows = ("engine",)
    answers = ("PredictionFacts", "GrowthFacts")

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self._listed: tuple[list[tuple[str, str]], str] = ([], "")
        self._came_late: set[str] = set()
        self._is_coming = False
        self._loaded_late = ""
        self.on_click(self.ui.segmentButton, self.segment)
        self.on_signal(self.ui.runBox, "activated(int)", self._choose_run)
        self._boxes = {source: getattr(self.ui, f"show{source.title()}Box") for source in SOURCES}
        for box in self._boxes.values():
            self.on_signal(box, "toggled(bool)", self.show_predictions)
        for source, color in OUTLINES.items():
            self._boxes[source].setIcon(_swatch(color))
        self.on_signal(self.ui.showDisagreementBox, "toggled(bool)", self._show_overlay)
        self.on_signal(
            self.ui.inputVolumeSelector, "nodeActivated(vtkMRMLNode*)", self._show_chosen
        )
        self.panel.case_chosen.connect(self.show_case)

    @property
    def run_id(self) -> str:
        """The chosen run; empty for the latest."""
        return self.panel.parameters.run if self.panel.parameters else ""

    def update(self) -> None:
        """Show runs and predictions, and whether the volume can be segmented."""
        self._fill_runs()
        self._show_what_came_late()
        volume, usable = self.panel.volume, self.logic.usable_run(self.run_id)
        self.gate(
            self.ui.segmentButton,
            not_installed(),
            "" if volume else _("Choose a volume."),
            "" if usable else self._no_run(),
            needs_engine=True,
        )
        for source, box in self._boxes.items():
            self.gate(box, "" if self._node(source) else _("There is no such prediction yet."))
        overlay = volume is not None and can_compare(volume)
        self.gate(
            self.ui.showDisagreementBox,
            "" if overlay else _("Segment the volume first: there is nothing to compare yet."),
        )

    def on_event(self, event: PanelEvent) -> None:
        """Hide what has come of an answer that failed about another volume than the chosen one."""
        if event.event == "progress" and self.logic.engine.state is State.IMPORTING:
            self._is_coming = True
        elif event.event in ("done", "failed", "cancelled"):
            about = self._late_volume()
            if event.event == "failed" and self._is_coming and about is not None:
                self._hide_until_chosen(about)
            self._is_coming = False

    def on_answer(self, _facts: Any) -> None:
        """Show predictions when they have come, and choose the latest to be measured and saved.

        Those about another volume than the chosen one are shown when that is chosen.
        """
        if self.panel.parameters is None:
            return
        about = self._late_volume()
        if about is not None:
            self._hide_until_chosen(about)
            return
        self.show_predictions()
        refined = self._latest_prediction()
        if refined is not None:
            self.panel.parameters.resultSegmentation = refined
            self.panel.parameters.labelSegmentation = refined

    def forget_scene(self) -> None:
        """Forget volumes that go away with the scene."""
        self._came_late.clear()
        self._is_coming = False
        self._loaded_late = ""

    def enter(self) -> None:
        """Choose a case that was loaded while another module was open."""
        volume_id, self._loaded_late = self._loaded_late, ""
        volume = slicer.mrmlScene.GetNodeByID(volume_id) if volume_id else None
        if volume is not None and case_of(volume, self.logic.project):
            self._choose(volume)

    def _late_volume(self) -> Any | None:
        """Return the volume that the last request is about, if another one is chosen by now."""
        about = self.logic.working_on
        return None if about is self.panel.volume else about

    def _hide_until_chosen(self, volume: Any) -> None:
        """Hide predictions about a volume that is not the chosen one."""
        self._came_late.add(volume.GetID())
        for node in self.logic.predictions(volume).values():
            node.GetDisplayNode().SetVisibility(False)

    def _show_what_came_late(self) -> None:
        """Show predictions about the chosen volume that came while another one was chosen."""
        volume_id = None if self.panel.volume is None else self.panel.volume.GetID()
        if volume_id in self._came_late:
            self._came_late.remove(volume_id)
            self.show_predictions()

    def _latest_prediction(self) -> Any | None:
        """Return the latest prediction about the volume of the last request."""
        volume = self.logic.working_on
        if volume is None or not slicer.mrmlScene.IsNodePresent(volume):
            return None
        return find_prediction(volume, "refined") or find_prediction(volume, "sam")

    def segment(self) -> None:
        """Segment the chosen volume."""
        self.logic.segment.begin(
            self.panel.choose_working_volume(),
            self.run_id or None,
            organs=self._organs(),
            may_replace=self.panel.questions.may_replace,
        )

    def _organs(self) -> dict[str, Any]:
        """Return the organs that the chosen segmentation gives: those that it has a segment of."""
        node, organs = self.panel.parameters.organSegmentation, self.logic.organs()
        if node is None or not organs:
            return {}
        given = self.logic.organs_in(node)
        return dict.fromkeys(given or organs[:1], node)  # without one, the logic says why

    def show_case(self, case_id: str) -> None:
        """Load a case into the scene with its label map or its latest predictions, and show it.

        One that comes while another module is open is shown when this one is opened again.
        """

        def show(volume: Any) -> None:
            if self.panel.parameters is None:
                self._loaded_late = volume.GetID()
                self._hide_until_chosen(volume)
            else:
                self._loaded_late = ""
                self._choose(volume)

        may_move_back = self.panel.questions.may_move_back
        self.logic.load_case.begin(case_id, then=show, may_move_back=may_move_back)

    def _choose(self, volume: Any) -> None:
        """Choose a volume, and show it."""
        self.panel.parameters.inputVolume = volume
        self._show_chosen()
        self.panel.update()

    def _show_chosen(self) -> None:
        """Bring the chosen volume into the slice views, for what is decided is about it."""
        volume = self.panel.volume
        if volume is not None:
            show_volume(volume)
            self.show_predictions()
            self._show_overlay()

    def show_predictions(self) -> None:
        """Show or hide each prediction as its box says; prompts only in views of axial slices."""
        for source, box in self._boxes.items():
            node = self._node(source)
            if node is not None:
                node.GetDisplayNode().SetVisibility(box.checked)
        prompts = self._node("prompts")
        if prompts is not None:  # across the slices they are nothing but dots
            draw_in_plane(prompts.GetDisplayNode(), self.panel.volume)

    def _show_overlay(self) -> None:
        """Show where predictions differ, also of a case that was loaded with them."""
        volume, wanted = self.panel.volume, self.ui.showDisagreementBox.checked
        if volume is None:
            return
        if wanted and can_compare(volume):
            compare_labels(volume, self.logic.targets())
        set_overlay_visible(volume, wanted)

    def _node(self, source: str) -> Any | None:
        volume = self.panel.volume
        return None if volume is None else find_prediction(volume, source)

    def _no_run(self) -> str:
        if self.logic.project is None:
            return _("Open a project with a trained run; or place prompts for SAM alone.")
        return _("Train first: this project has no finished round yet. SAM alone follows prompts.")

    def _fill_runs(self) -> None:
        runs = self.logic.run_names()
        if self.logic.project is not None and self.run_id not in ("", *runs):
            self.panel.parameters.run = ""  # of another project, or deleted
        first = next(iter(runs.values()), "")  # what tells runs apart begins the line
        latest = _("{run} (latest)").format(run=first) if runs else _("none yet")
        entries = [(latest, ""), *((name, run_id) for run_id, name in runs.items())]
        if (entries, self.run_id) != self._listed:
            self._listed = entries, self.run_id
            fill_combo(self.ui.runBox, *self._listed)
        self.gate(self.ui.runBox, "" if runs else self._no_run())
        if runs:  # whole, also where the box is too narrow for it
            shown = as_plain(f"{self.ui.runBox.currentText}\n{self.ui.runBox.toolTip}")
            self.ui.runBox.setToolTip(shown)

    def _choose_run(self) -> None:
        self.panel.parameters.run = self.ui.runBox.currentData or ""


def _swatch(color: tuple[float, float, float]) -> Any:
    """Return a small square in the colour of an outline."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*(round(255 * part) for part in color)))
    return qt.QIcon(pixmap)
