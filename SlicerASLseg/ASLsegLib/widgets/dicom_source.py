"""The list of series in Slicer's DICOM database, within the dialog of a new project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ASLsegLib.widgets.section import fill_table

if TYPE_CHECKING:
    from ASLsegLib.logic.dicom_cases import DicomSeries

HEAD = [_("Patient"), _("Study"), _("Series"), _("Kind")]


class DicomSource:
    """Lets a person choose series.

    Args:
        ui: Widgets of the dialog.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._uids: list[str] = []
        self.hide()

    def hide(self) -> None:
        """Show no list any more."""
        self._ui.dicomButton.setChecked(False)
        self._ui.dicomBox.setVisible(False)

    def show(self, series: Sequence[DicomSeries]) -> None:
        """List series; none is chosen."""
        self._uids = [one.uid for one in series]
        rows = [[one.patient, one.study, one.series, one.modality] for one in series]
        table = self._ui.dicomTable
        fill_table(table, HEAD, rows)
        table.clearSelection()
        self.filter()
        self._ui.dicomBox.setVisible(True)

    def filter(self) -> None:
        """Show the rows that hold every word that is typed."""
        table = self._ui.dicomTable
        words = self._ui.dicomFilterEdit.text.lower().split()
        for row in range(table.rowCount):
            texts = " ".join(table.item(row, n).text() for n in range(len(HEAD))).lower()
            table.setRowHidden(row, not all(word in texts for word in words))

    @property
    def chosen(self) -> list[str]:
        """UIDs of the series that are chosen and shown, in the order of the list."""
        table = self._ui.dicomTable
        rows = sorted({item.row() for item in table.selectedItems()})
        return [self._uids[row] for row in rows if not table.isRowHidden(row)]
