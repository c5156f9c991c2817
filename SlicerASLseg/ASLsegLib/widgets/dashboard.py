"""The overview of cases: a window with a table that stays open beside the views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ASLsegLib.widgets.section import Section, show_cell

if TYPE_CHECKING:
    from aslseg.project.overview import CaseOverview

THUMBNAIL_PX = 56
ROWS_AT_ONCE = 25
_DIGITS = "0123456789."


class DashboardSection(Section):
    """Opens the overview, and keeps it true while it is open."""

    def connect_widgets(self) -> None:
        """Connect the button; the window is made when it is first wanted."""
        self._window: Any = None
        self._table: Any = None
        self._shown: object = None
        self._drawn: dict[int, CaseOverview] = {}
        self._numbers: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._show_some)
        self.on_click(self.ui.overviewButton, self.open)
        self.logic.overview.changed.connect(self._case_measured)

    def update(self) -> None:
        """Show whether there is something to look over, and the cases as they are now."""
        project = self.logic.project
        cases = project is not None and len(project.cases) > 0
        self.gate(
            self.ui.overviewButton,
            self.panel.missing if not cases else "",
            "" if project else _("Open a project first."),
            "" if cases else _("The project has no cases yet."),
        )
        if self._window is not None and self._window.visible:
            self._show()

    def open(self) -> None:
        """Open the window, or bring it to the front."""
        if self._window is None:
            self._make()
        self._shown = None
        self._show()
        self._window.show()
        self._window.raise_()

    def close(self) -> None:
        """Close the window with the panel."""
        self._timer.stop()
        if self._window is not None:
            self._window.close()
            self._window.deleteLater()
            self._window = self._table = None
            self._due.clear()

    def _make(self) -> None:
        self._window = qt.QDialog(slicer.util.mainWindow())
        self._window.setWindowTitle(_("ASLseg: overview of cases"))
        self._table = qt.QTableWidget()
        self._table.setToolTip(_("Double-click a case to open it in Review."))
        self._table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self._table.setIconSize(qt.QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self._table.setSortingEnabled(False)
        self._table.verticalHeader().setVisible(False)
        self._table.verticalHeader().setDefaultSectionSize(THUMBNAIL_PX + 4)
        layout = qt.QVBoxLayout(self._window)
        layout.addWidget(self._table)
        self.on_signal(self._table, "cellDoubleClicked(int,int)", self._open_case)
        self.on_return(self._table, self._open_case)
        self._window.resize(900, 520)

    def _show(self) -> None:
        """Begin to show the rows; only what has changed since is drawn anew."""
        from aslseg.project.overview import overview_head

        state = self.logic.state
        if state is self._shown:
            return
        self._shown = state
        rows = [] if state is None else self.logic.overview.rows(state)
        table, head = self._table, overview_head(self._targets)
        if table.columnCount != len(head):
            self._drawn.clear()
        table.setColumnCount(len(head))
        table.setHorizontalHeaderLabels(head)
        table.setRowCount(len(rows))
        self._drawn = {number: row for number, row in self._drawn.items() if number < len(rows)}
        self._numbers = {row.report.case_id: number for number, row in enumerate(rows)}
        self._due = dict(self._numbers)
        for number, row in enumerate(rows):
            show_cell(table, number, 0, row.report.case_id, row.report.reason)
        self._fit_columns()
        self._show_some()
        self.logic.overview.measure()

    def _show_some(self) -> None:
        """Show some rows that have changed: a thousand at once would hold everything up."""
        for case_id in list(self._due)[:ROWS_AT_ONCE]:
            row, number = self.logic.overview.row(case_id), self._due.pop(case_id)
            if row is not None and self._drawn.get(number) != row:
                self._show_row(number, row)
        if self._due:
            self._timer.start(0)
        else:
            self._fit_columns()

    def _fit_columns(self) -> None:
        self._table.resizeColumnsToContents()
        self._table.setColumnWidth(0, 2 * THUMBNAIL_PX + 40)

    def _show_row(self, number: int, row: CaseOverview) -> None:
        from aslseg.project.overview import overview_cells

        before, self._drawn[number] = self._drawn.get(number), row
        for column, text in enumerate(overview_cells(row, self._targets)):
            item = show_cell(self._table, number, column, text, row.report.reason)
            if text and all(letter in _DIGITS for letter in text):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        is_same = before is not None and before.report.case_id == row.report.case_id
        if before is None or not is_same or before.facts != row.facts:
            picture = self.logic.overview.thumbnail(row.report.case_id)
            self._table.item(number, 0).setIcon(qt.QIcon() if picture is None else _icon(picture))

    def _case_measured(self, case_id: str) -> None:
        if self._window is not None and case_id in self._numbers:
            self._due[case_id] = self._numbers[case_id]
            self._timer.start(0)

    @property
    def _targets(self) -> list[str]:
        project = self.logic.project
        return [] if project is None else [target.name for target in project.targets]

    def _open_case(self) -> None:
        """Open the case of the chosen row in Review."""
        item = self._table.item(self._table.currentRow(), 0)
        if item is not None:
            self.ui.reviewSection.collapsed = False
            self.panel.case_chosen.emit(item.text())


def _icon(path: Path) -> Any:
    return qt.QIcon(qt.QPixmap(str(path)))
