"""Folders, caches and the log."""

from __future__ import annotations

import shutil

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib.widgets.section import Section, fill_combo, not_installed


class AdvancedSection(Section):
    """What is rarely needed."""

    shows = ("training",)

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self.on_click(self.ui.openFolderButton, self._open_folder)
        self.on_click(self.ui.clearCacheButton, self._clear_cache)
        self.on_click(self.ui.removeWeightsButton, self._remove_weights)
        self.on_signal(self.ui.startLabelsBox, "activated(int)", self._choose_start_labels)

    def update(self) -> None:
        """Show what is possible."""
        project = self.logic.project
        closed = "" if project else _("Open a project first.")
        busy = _("A training is under way.") if self.logic.trainer.is_busy else ""
        empty = "" if project and (project.folder / "cache").exists() else _("There is no cache.")
        self._fill_start_labels()
        self.gate(self.ui.openFolderButton, closed)
        self.gate(self.ui.clearCacheButton, closed, empty, busy, needs_engine=True)
        no_sam = _("No SAM is chosen.") if self.panel.parameters.samModel == "none" else ""
        self.gate(self.ui.removeWeightsButton, not_installed(), no_sam, busy, needs_engine=True)

    def on_log(self, line: str) -> None:
        """Add a line to the log, which keeps the last ones."""
        self.ui.logEdit.appendPlainText(line)

    def _fill_start_labels(self) -> None:
        origins = self.logic.external_origins()
        entries = [(_("none"), ""), *((origin, origin) for origin in origins)]
        box, chosen = self.ui.startLabelsBox, self.panel.parameters.startLabels
        if chosen not in ("", *origins):  # of another project
            chosen = self.panel.parameters.startLabels = ""
        fill_combo(box, entries, chosen)
        none = _("There are no labels of another model; add them under Cases.")
        self.gate(box, "" if origins else none)

    def _choose_start_labels(self) -> None:
        self.panel.parameters.startLabels = self.ui.startLabelsBox.currentData or ""

    def _open_folder(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.opened().folder)))

    def _clear_cache(self) -> None:
        folder = self.logic.opened().folder / "cache"
        question = _("Delete {folder}? Embeddings are made again when they are needed.")
        if slicer.util.confirmOkCancelDisplay(question.format(folder=folder)):
            shutil.rmtree(folder, ignore_errors=True)

    def _remove_weights(self) -> None:
        model = self.panel.parameters.samModel
        question = _("Delete the downloaded weights of {model}? They can be downloaded again.")
        if slicer.util.confirmOkCancelDisplay(question.format(model=model)):
            self.logic.remove_weights.begin(model)
