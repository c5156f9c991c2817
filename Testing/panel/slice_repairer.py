"""A person who repairs the liver of a case in some slices, and lets those between be filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
from harness import read_mask, wait_for_engine, wait_for_files, write_mask

from standin.harness import click, run_event_loop, wait_until

CASE = "c2"
FIRST, LAST = 3, 8
BETWEEN = [4, 5, 6, 7]


class Repairer:
    """A person who repairs the liver of a case, in front of the panel with the case loaded."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        for name in ("cases", "review"):
            getattr(self.ui, f"{name}Section").collapsed = False
        self.logic.open_project(folder)
        self.panel.case_chosen.emit(CASE)
        wait_for_files(self.logic)
        wait_until(lambda: self.logic.refined_node(CASE) is not None, 60.0, "the label is shown")
        self.volume, self.node = self.logic.case_node(CASE), self.logic.refined_node(CASE)
        self.look()

    def look(self) -> None:
        """Come back from the Segment Editor, and wait until the panel has looked."""
        slicer.util.selectModule("Data")
        slicer.util.selectModule("ASLseg")
        run_event_loop(0.7)

    def segment(self, name: str) -> str:
        return str(self.node.GetSegmentation().GetSegmentIdBySegmentName(name))

    def mask(self, name: str = "liver") -> np.ndarray:
        return np.asarray(read_mask(self.node, self.segment(name), self.volume)).copy()

    def draw(self, *slices: int, rows: slice = slice(10, 30)) -> None:
        """Draw a square of liver around its lesions in some slices, as a brush would."""
        liver, tumour = self.mask(), self.mask("tumour")
        for k in slices:
            liver[k] = False
            liver[k, rows, 10:30] = True
        write_mask(self.node, self.segment("liver"), liver & ~tumour, self.volume)

    def fill(self) -> None:
        click(self.ui.fillButton)
        wait_for_engine(self.logic, 0.7)

    def type_slices(self, text: str) -> None:
        """Type slices in place of those that are shown, as a person with a keyboard does."""
        from PySide6 import QtCore, QtTest

        edit = self.ui.repairedSlicesEdit
        edit.selectAll()
        QtTest.QTest.keyClick(edit, QtCore.Qt.Key.Key_Delete)
        QtTest.QTest.keyClicks(edit, text)
        QtTest.QTest.keyClick(edit, QtCore.Qt.Key.Key_Return)
        run_event_loop(0.5)

    def changed(self, before: np.ndarray) -> list[int]:
        """Return the slices in which the liver differs from a mask."""
        found = (before != self.mask()).any(axis=(1, 2))
        return np.flatnonzero(found).tolist()  # type: ignore[no-any-return]
