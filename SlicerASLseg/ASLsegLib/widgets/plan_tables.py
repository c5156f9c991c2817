"""The tables of a planned project: its cases and its targets, with what is wrong marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from aslseg.data.nrrd import kind_of
from ASLsegLib.scene.terminology import known_terminologies
from ASLsegLib.widgets.section import ROW_PX, as_plain, fill_combo

if TYPE_CHECKING:
    from aslseg.project.plan import Plan
    from aslseg.project.problem import Problem
    from aslseg.project.target_table import TargetRow

CASE_HEAD = [
    _("Case"), _("Volume"), _("Label map"), _("Organ masks"), _("Used to"), _("Patient"),
]  # fmt: skip
CASE_COLUMNS = ["name", "image", "label", "masks", "", "patient"]
TARGET_HEAD = [_("Name"), _("Value"), _("Inside"), _("Colour"), _("Terminology")]
TARGET_COLUMNS = ["name", "value", "inside", "color", "terminology"]
_COMBO_PX = 110
_WRONG = (220, 50, 50, 110)
"""Red, green, blue and opacity: on light and on dark, text stays readable."""
_MIDDLE = 127
"""Lightness above which black is read on a colour, and white below."""


class PlanTable:
    """A table whose cells a person types in, and in which wrong cells are marked.

    Args:
        table: QTableWidget.
        head: Titles of the columns.
        columns: What problems call them.
        changed: Called with row, column and text when a person has typed something.
    """

    def __init__(
        self,
        table: Any,
        head: Sequence[str],
        columns: Sequence[str],
        changed: Callable[[int, int, str], None],
    ) -> None:
        self.table = table
        self._head, self._columns, self._changed = head, columns, changed
        self._slots: list[Any] = []
        table.setColumnCount(len(head))
        table.setHorizontalHeaderLabels(list(head))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_PX)
        table.connect("cellChanged(int,int)", self._cell_changed)

    def fill(self, rows: Sequence[Sequence[str]], editable: Callable[[int, int], bool]) -> None:
        """Show rows of texts; `editable` says of row and column whether a person may type there."""
        was = self.table.blockSignals(True)
        current = self.table.currentRow(), self.table.currentColumn()
        self.table.clearContents()
        self.table.setRowCount(len(rows))
        self._slots.clear()
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if not editable(row, column):
                    item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
                self.table.setItem(row, column, item)
        self.table.setCurrentCell(min(current[0], len(rows) - 1), current[1])
        self._fit()
        self.table.blockSignals(was)

    def set_text(self, row: int, column: int, text: str) -> None:
        """Show another text in a cell, without a word that it has changed."""
        was = self.table.blockSignals(True)
        self.table.item(row, column).setText(text)
        self.table.blockSignals(was)

    def mark(self, problems: Sequence[tuple[int, str, str]], tip: Callable[[int, int], str]) -> str:
        """Mark wrong cells, and let their tool tips say what is wrong.

        Args:
            problems: Row, column as problems call it, and message; an empty column means the first.
            tip: Of other cells, by row and column.

        Returns:
            The problem of the chosen cell, else the first; empty without any.
        """
        wrong: dict[tuple[int, int], str] = {}
        for row, name, message in problems:
            wrong.setdefault((row, self._columns.index(name) if name else 0), message)
        was = self.table.blockSignals(True)
        for row in range(self.table.rowCount):
            for column in range(len(self._head)):
                message = wrong.get((row, column), "")
                item = self.table.item(row, column)
                item.setBackground(qt.QBrush(qt.QColor(*_WRONG)) if message else qt.QBrush())
                item.setForeground(qt.QBrush())  # that of the style
                text = as_plain(message or tip(row, column))
                item.setToolTip(text)
                combo = self.table.cellWidget(row, column)
                if combo is not None:
                    combo.setToolTip(text)
        self.table.blockSignals(was)
        chosen = wrong.get((self.table.currentRow(), self.table.currentColumn()))
        return chosen or next((message for _row, _name, message in problems), "")

    def chosen_rows(self) -> list[int]:
        """Return the rows in which a cell is chosen, else the current one."""
        rows = {item.row() for item in self.table.selectedItems()}
        current = self.table.currentRow()
        return sorted(rows or ({current} if current >= 0 else set()))

    def put_combo(self, row: int, column: int, entries: list[tuple[str, str]], value: str) -> None:
        """Let a person choose the value of a cell among entries of text and value."""
        combo = self.table.cellWidget(row, column)
        if combo is None:
            combo = qt.QComboBox()

            def chosen(_index: int) -> None:
                self._changed(row, column, combo.currentData or "")

            combo.connect("activated(int)", chosen)
            self._slots.append((combo, chosen))
            self.table.setCellWidget(row, column, combo)
        fill_combo(combo, entries, value)
        if column < len(self._head) - 1:  # the last one gets what is left
            self.table.setColumnWidth(column, _COMBO_PX)

    def _cell_changed(self, row: int, column: int) -> None:
        self._changed(row, column, self.table.item(row, column).text())

    def _fit(self) -> None:
        head = self.table.horizontalHeader()
        head.setHighlightSections(False)
        head.setSectionResizeMode(qt.QHeaderView.Interactive)
        self.table.resizeColumnsToContents()
        head.setSectionResizeMode(len(self._head) - 1, qt.QHeaderView.Stretch)


def show_cases(table: PlanTable, plan: Plan, roles: dict[str, str], patients: list[str]) -> None:
    """Show the cases of a plan, and below them the label maps that belong to no volume."""
    rows = [
        [
            case.id,
            case.image.name,
            "" if case.label is None else case.label.name,
            ", ".join(case.masks),
            roles[case.split],
            patient,
        ]
        for case, patient in zip(plan.cases, patients, strict=True)
    ]
    rows += [["", _("no volume"), path.name, "", "", ""] for path in plan.unpaired]
    table.fill(rows, lambda row, column: row < len(plan.cases) and column in (0, 5))


def case_tip(plan: Plan, row: int, column: int) -> str:
    """Return what is known of a file of a plan, by the cell that names it."""
    if row >= len(plan.cases):
        return str(plan.unpaired[row - len(plan.cases)])
    case = plan.cases[row]
    if column == 3:
        return "\n".join(map(str, case.masks.values()))
    path = {1: case.image, 2: case.label}.get(column)
    if path is None:
        return ""
    facts = plan.facts.get(path)
    if facts is None or facts.geometry is None:
        return str(path)
    size = " x ".join(str(n) for n in reversed(facts.geometry.shape))
    spacing = " x ".join(f"{mm:.2f}" for mm in reversed(facts.geometry.spacing_mm))
    lines = [str(path), _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)]
    names = {segment.value: segment.name for segment in facts.segments}
    held = ", ".join(names.get(value, str(value)) for value in facts.values)
    if column == 2:
        lines.append(_("holds {values}").format(values=held or _("no label")))
    return "\n".join(lines)


def show_targets(table: PlanTable, rows: Sequence[TargetRow], *, editable: bool) -> None:
    """Show targets; of those of a project that is there only colour and terminology can change."""
    texts = [[row.name, row.value, "", row.color, ""] for row in rows]
    table.fill(texts, lambda _row, column: column == 3 or (editable and column in (0, 1)))
    show_choices(table, rows, editable=editable)


def show_choices(table: PlanTable, rows: Sequence[TargetRow], *, editable: bool) -> None:
    """Offer parents and terminologies for each target, and show its colour."""
    for number, row in enumerate(rows):
        names = [other.name for n, other in enumerate(rows) if n != number and other.name]
        parents = list(dict.fromkeys([*names, *([row.inside] if row.inside else [])]))
        table.put_combo(number, 2, [("-", ""), *((name, name) for name in parents)], row.inside)
        entries = list(
            dict.fromkeys([*known_terminologies(), *([row.terminology] if row.terminology else [])])
        )
        named = [(kind_of(entry) or entry, entry) for entry in entries]
        table.put_combo(number, 4, [("-", ""), *named], row.terminology)
        table.table.cellWidget(number, 2).setEnabled(editable)


def show_colors(table: PlanTable, rows: Sequence[TargetRow], problems: Sequence[Problem]) -> None:
    """Fill the cells of colours with them; those that are none stay marked."""
    wrong = {problem.row for problem in problems if problem.column == "color"}
    was = table.table.blockSignals(True)
    for number, row in enumerate(rows):
        color = qt.QColor(row.color) if row.color and number not in wrong else None
        if color is not None and color.isValid():
            item = table.table.item(number, 3)
            item.setBackground(qt.QBrush(color))
            readable = "black" if color.lightness() > _MIDDLE else "white"
            item.setForeground(qt.QBrush(qt.QColor(readable)))
    table.table.blockSignals(was)
