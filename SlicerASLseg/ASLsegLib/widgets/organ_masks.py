"""Organ masks that are there already, of one case from the scene or of all from a folder."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from ASLsegLib import requirements
from ASLsegLib.widgets.section import Section


class OrganMaskSection(Section):
    """Two buttons: the chosen segmentation's organ, and a folder of masks."""

    def connect_widgets(self) -> None:
        """Connect the section's widgets."""
        self.on_click(self.ui.saveOrganMaskButton, self._save)
        self.on_click(self.ui.addOrganMasksButton, self._add)

    def update(self) -> None:
        """Show which actions are possible."""
        can = "" if requirements.can_open_projects() else self.panel.missing
        closed = "" if self.logic.project else _("Open or make a project first.")
        busy = _("Files are being read; wait.") if self.logic.background.is_busy else ""
        node = None if self.panel.parameters is None else self.panel.parameters.labelSegmentation
        chosen = "" if node is not None else _("Choose a segmentation.")
        organs = "" if closed or self.logic.organs() else _("No target contains another one.")
        self.gate(self.ui.saveOrganMaskButton, can, closed, organs, chosen, busy)
        self.gate(self.ui.addOrganMasksButton, can, closed, organs, busy)

    def _save(self) -> None:
        organ = self._organ()
        if organ:
            node = self.panel.parameters.labelSegmentation
            self.logic.save_organ_mask(node, organ, wait=False)

    def _add(self) -> None:
        organ = self._organ()
        folder = organ and qt.QFileDialog.getExistingDirectory(
            self.panel.widget,
            _("Folder with masks of {organ}").format(organ=organ),
            str(self.logic.opened().folder),
        )
        if folder:
            self.logic.add_organ_masks(organ, folder, wait=False)

    def _organ(self) -> str:
        """Return the organ that is meant; asked for where several contain others."""
        organs = self.logic.organs()
        if len(organs) == 1:
            return organs[0]
        title, text = _("Organ masks"), _("Which organ are the masks of?")
        return str(qt.QInputDialog.getItem(self.panel.widget, title, text, list(organs)))
