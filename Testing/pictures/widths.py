"""Draws the panel's sections at three widths, in light and dark style: one sheet for each style.

    python Testing/pictures/widths.py Docs/screenshots [--project FOLDER]

The sheets are `widths-light.png` and `widths-dark.png`; see `tutorial.py` for the project, without
which the panel shows made-up patients on which nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutorial import SECTIONS, Tour, main, neutral_folder

WIDTHS_PX = (350, 500, 800)
GAP_PX, SCALE = 12, 0.5
PREPARING_S = 2.0
COLOURS = {
    "light": {
        "Window": "#efefef", "Base": "#ffffff", "AlternateBase": "#f7f7f7", "Button": "#efefef",
        "Text": "#000000", "Highlight": "#308cc6", "PlaceholderText": "#808080",
    },
    "dark": {
        "Window": "#323232", "Base": "#242424", "AlternateBase": "#2c2c2c", "Button": "#3c3c3c",
        "Text": "#ffffff", "Highlight": "#2a82da", "PlaceholderText": "#9a9a9a",
    },
}  # fmt: skip
DISABLED = {"light": "#bebebe", "dark": "#7f7f7f"}

FEW_COLOURS = [f"#{level:02x}{level:02x}{level:02x}" for level in range(0, 256, 5)] + [
    "#d4d8de", "#4c5056", "#308cc6", "#98c5e2", "#2a82da", "#95c0ec", "#58a6ff", "#ffbe32",
]  # fmt: skip
"""Greys, heads of sections, what is chosen, and the marks of the segmentations."""


class Widths(Tour):
    """Looks at every section at every width."""

    def take_all(self) -> None:
        """Draw the sheet of each style."""
        from standin.harness import run_event_loop

        if self.project is None:
            self.project = self.place / "liver-study"
            self.logic.create_phantom_project(self.project)
        self._open(self.project)
        self._load(self._cases()[1])
        self._show("train")
        run_event_loop(PREPARING_S)  # it asks the engine, which starts
        for style in COLOURS:
            self._use_style(style)
            self._write_sheet(self.folder / f"widths-{style}.png")

    def _use_style(self, style: str) -> None:
        """Let the application have the colours of a style, as Slicer's settings do."""
        from PySide6 import QtGui, QtWidgets

        roles, palette = QtGui.QPalette.ColorRole, QtGui.QPalette()
        for name, colour in COLOURS[style].items():
            palette.setColor(getattr(roles, name), QtGui.QColor(colour))
        text = QtGui.QColor(COLOURS[style]["Text"])
        for role in (roles.WindowText, roles.ButtonText, roles.ToolTipText):
            palette.setColor(role, text)
        greyed = QtGui.QColor(DISABLED[style])
        for role in (roles.WindowText, roles.ButtonText, roles.Text):
            palette.setColor(QtGui.QPalette.ColorGroup.Disabled, role, greyed)
        QtWidgets.QApplication.setPalette(palette)
        self.widget.parent.setPalette(palette)
        self._rest()

    def _write_sheet(self, path: Path) -> None:
        """Write a row for each section, with its picture at each width."""
        from PySide6 import QtCore, QtGui

        rows = [[self._picture(name, width) for width in WIDTHS_PX] for name in SECTIONS]
        heights = [max(picture.height() for picture in row) + GAP_PX for row in rows]
        width = sum(WIDTHS_PX) + GAP_PX * (len(WIDTHS_PX) - 1)
        sheet = QtGui.QImage(width, sum(heights), QtGui.QImage.Format.Format_RGB32)
        sheet.fill(QtGui.QColor("#7f7f7f"))
        with QtGui.QPainter(sheet) as painter:
            for number, row in enumerate(rows):
                left, top = 0, sum(heights[:number])
                for picture in row:
                    painter.drawPixmap(left, top, picture)
                    left += picture.width() + GAP_PX
        smooth = QtCore.Qt.TransformationMode.SmoothTransformation
        small = sheet.scaledToWidth(round(SCALE * width), smooth)
        few = QtCore.Qt.ImageConversionFlag.ThresholdDither
        table = [QtGui.QColor(colour).rgb() for colour in FEW_COLOURS]
        small = small.convertToFormat(QtGui.QImage.Format.Format_Indexed8, table, few)
        if not small.save(str(path)):
            msg = f"{path} could not be written"
            raise OSError(msg)

    def _picture(self, section: str, width: int) -> Any:
        """Return the panel with one section unfolded, down to its last section."""
        from PySide6 import QtCore

        from standin.pictures import shown

        self._show(section)
        panel = self.widget.parent
        inside = panel.layout()
        height = max(inside.totalHeightForWidth(width), inside.totalMinimumSize().height())
        with neutral_folder(self.widget.panel), shown(panel, width, height):
            last = self.ui.advancedSection
            end = last.mapTo(panel, QtCore.QPoint(0, last.height)).y()
            return panel.grab(QtCore.QRect(0, 0, width, min(height, end + GAP_PX)))


if __name__ == "__main__":
    main(Widths, str(__doc__))
