"""The overview of cases: a table below the views, to be ordered and filtered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctk
import qt
from slicer.i18n import tr as _

from ASLsegLib.widgets.below_views import BelowViews
from ASLsegLib.widgets.section import (
    Section,
    cell,
    choose_row,
    fill_combo,
    not_installed,
    show_cell,
    single_shot,
)

if TYPE_CHECKING:
    from aslseg.project.overview import CaseOverview

THUMBNAIL_PX = 56
ROWS_AT_ONCE = 25
_DIGITS = "0123456789."


class DashboardSection(Section):
    """Shows the overview below the views, and keeps it true while it is there."""

    def connect_widgets(self) -> None:
        """Connect the button; the table is made when it is first wanted."""
        self._place = BelowViews(self._layout_changed)
        self._box: Any = None
        self._table: Any = None
        self._shown: object = None
        self._drawn: dict[int, CaseOverview] = {}
        self._numbers: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._order_is_old = False
        self._timer = single_shot(self._show_some)
        self.on_click(self.ui.overviewButton, self._show_or_hide)
        self.logic.overview.changed.connect(self._case_measured)

    def update(self) -> None:
        """Show whether there is something to look over, and the cases as they are now."""
        project = self.logic.project
        cases = project is not None and len(project.cases) > 0
        self.gate(
            self.ui.overviewButton,
            "" if self._place.is_possible else _("Needs the views of Slicer's main window."),
            not_installed() if not cases else "",
            "" if project else _("Open a project first."),
            "" if cases else _("The project has no cases yet."),
        )
        self.ui.overviewButton.setChecked(self._place.is_shown)
        if self._box is not None and self._place.is_shown:
            self._show()

    def close(self) -> None:
        """Take the table away with the panel."""
        self._timer.stop()
        self._place.close()
        if self._box is not None:
            self._box.deleteLater()
            self._box = self._table = None
            self._due.clear()

    def _show_or_hide(self) -> None:
        if self._place.is_shown:
            self._place.hide()
            return
        if self._box is None:
            self._make()
        self._shown = None
        self._place.show()

    def _layout_changed(self) -> None:
        if self._box is not None:  # else nothing of this can be shown
            self.panel.attempt(self.update, update=False)

    # -- making --------------------------------------------------------------------------------

    def _make(self) -> None:
        self._box = qt.QWidget()
        self._table = qt.QTableWidget()
        self._table.setToolTip(_("Double-click a case to open it in Review."))
        self._table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self._table.setIconSize(qt.QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self._table.setSortingEnabled(False)  # Qt would order numbers as texts
        self._table.verticalHeader().setVisible(False)
        self._table.verticalHeader().setDefaultSectionSize(THUMBNAIL_PX + 4)
        head = self._table.horizontalHeader()
        head.setToolTip(_("Click a title to order the cases by it; click again for the other way."))
        head.setSectionsClickable(True)
        head.setSortIndicatorShown(True)
        head.setSortIndicator(-1, qt.Qt.AscendingOrder)  # the order of the project
        layout = qt.QVBoxLayout(self._box)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(self._make_filter())
        layout.addWidget(self._table)
        self.on_signal(self._table, "cellDoubleClicked(int,int)", self._open_case)
        self.on_signal(head, "sortIndicatorChanged(int,Qt::SortOrder)", self._show_anew)
        self.on_return(self._table, self._open_case)
        self._place.put(self._box)

    def _make_filter(self) -> Any:
        """Make the line above the table: what is looked for, how many that is, and the way back."""
        self._search, self._state_box = ctk.ctkSearchBox(), qt.QComboBox()
        self._search.setPlaceholderText(_("Name, state or target"))
        self._search.setToolTip(_("Show cases whose name, state or labelled targets have this."))
        self._state_box.setToolTip(_("Show the cases of one state."))
        self._count_label, close_button = qt.QLabel(), qt.QPushButton(_("Close"))
        close_button.setToolTip(_("Show the views as they were before."))
        line = qt.QHBoxLayout()
        line.addWidget(self._search, 1)
        for widget in (self._state_box, self._count_label, close_button):
            line.addWidget(widget)
        self.on_signal(self._search, "textChanged(QString)", self._show_anew)
        self.on_signal(self._state_box, "currentIndexChanged(int)", self._show_anew)
        self.on_click(close_button, self._place.hide)
        return line

    # -- showing -------------------------------------------------------------------------------

    def _show_anew(self) -> None:
        self._shown = None
        self._show()

    def _show(self) -> None:
        """Begin to show the rows; only what has changed since is drawn anew."""
        from aslseg.project.overview import overview_head

        state = self.logic.state
        if state is self._shown:
            return
        self._shown, self._order_is_old = state, False
        every = [] if state is None else self.logic.overview.rows(state)
        self._fill_states(every)
        rows = self._chosen_rows(every)
        table, head = self._table, overview_head(self._targets)
        if table.columnCount != len(head):
            self._drawn.clear()
        chosen = cell(table)
        table.setColumnCount(len(head))
        table.setHorizontalHeaderLabels(head)
        table.setRowCount(len(rows))
        self._drawn = {number: row for number, row in self._drawn.items() if number < len(rows)}
        self._numbers = {row.report.case_id: number for number, row in enumerate(rows)}
        self._due = dict(self._numbers)
        for number, row in enumerate(rows):
            show_cell(table, number, 0, row.report.case_id, row.report.reason)
        choose_row(table, list(self._numbers), chosen)
        self._count_label.setText(
            _("{shown} of {all} cases").format(shown=len(rows), all=len(every))
        )
        self._fit_columns()
        self._show_some()
        self.logic.overview.measure()

    def _fill_states(self, rows: list[CaseOverview]) -> None:
        """Offer the states that cases have."""
        from aslseg.project.overview import STATES

        present = {row.report.state for row in rows}
        entries = [(_("All states"), "")]
        entries += [(words, state) for state, words in STATES.items() if state in present]
        fill_combo(self._state_box, entries, self._state_box.currentData or "")

    def _chosen_rows(self, rows: list[CaseOverview]) -> list[CaseOverview]:
        """Return the rows that are looked for, in the order of the column that was clicked."""
        from aslseg.project.overview import overview_head, overview_matches, overview_order

        text, state = self._search.text, self._state_box.currentData or ""
        rows = [row for row in rows if overview_matches(row, text, state)]
        head = self._table.horizontalHeader()
        column = head.sortIndicatorSection()
        if not 0 <= column < len(overview_head(self._targets)):  # as in the project
            return rows
        is_descending = head.sortIndicatorOrder() == qt.Qt.DescendingOrder
        return overview_order(rows, self._targets, column, descending=is_descending)

    def _show_some(self) -> None:
        """Show some rows that have changed: a thousand at once would hold everything up."""
        for case_id in list(self._due)[:ROWS_AT_ONCE]:
            row, number = self.logic.overview.row(case_id), self._due.pop(case_id)
            if row is not None and self._drawn.get(number) != row:
                self._show_row(number, row)
        if self._due:
            self._timer.start(0)
        elif self._order_is_old and not self.logic.overview.is_busy:
            self._show_anew()
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
        if self._box is None or not self._place.is_shown:
            return
        self._order_is_old = True
        if case_id in self._numbers:
            self._due[case_id] = self._numbers[case_id]
        self._timer.start(0)

    @property
    def _targets(self) -> list[str]:
        project = self.logic.project
        return [] if project is None else [target.name for target in project.targets]

    def _open_case(self) -> None:
        """Open the case of the chosen row in Review."""
        case_id = cell(self._table)
        if case_id:
            self.ui.reviewSection.collapsed = False
            self.panel.case_chosen.emit(case_id)


def _icon(path: Path) -> Any:
    return qt.QIcon(qt.QPixmap(str(path)))
