"""All main acts without a mouse: keys as listed, marks of keys, the order of Tab, and the width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import slicer
from harness import press, reload_module
from PySide6 import QtCore, QtGui, QtTest, QtWidgets

from standin.harness import run_event_loop

SECTIONS = ("cases", "train", "review", "results", "advanced")
NARROW_PX = 350


@pytest.fixture
def panel(open_module: Callable[..., Any]) -> Any:
    panel = open_module().panel
    for name in SECTIONS:
        getattr(panel.ui, f"{name}Section").collapsed = False
    run_event_loop(0.1)
    return panel


def section_keys(panel: Any) -> list[tuple[str, Any]]:
    return [pair for section in panel.sections for pair in section.keys]


def test_the_list_of_keys_is_that_of_what_they_do(panel: Any) -> None:
    listed = panel.ui.keysLabel.text.removeprefix("Keys: ").split("; ")
    window = slicer.util.mainWindow()
    shortcuts = [one for one in window.findChildren(QtGui.QShortcut) if one.isEnabled()]
    keys = [QtGui.QShortcut.key(one).toString() for one in shortcuts]
    assert sorted(entry.split(" ")[0] for entry in listed) == sorted(keys)
    assert len(set(keys)) == len(keys) >= 15
    for (key, button), entry in zip(section_keys(panel), listed, strict=True):
        text = button.text.split(":")[0].replace("&", "").rstrip("\N{HORIZONTAL ELLIPSIS}")
        assert entry == f"{key} {text}"


def test_each_key_presses_its_button_and_no_other(panel: Any) -> None:
    pressed: list[str] = []
    panel.attempt = lambda action, update=True: None  # nothing is done
    panel._update = lambda sections: None
    for _key, button in section_keys(panel):
        signal = QtWidgets.QPushButton.clicked.__get__(button)
        signal.connect(lambda *_, name=button.name: pressed.append(name))
    for key, button in section_keys(panel):
        for enabled in (False, True):
            button.setEnabled(enabled)
            press(panel, key)
            assert pressed == [button.name] * enabled, key
            pressed.clear()


def test_keys_leave_other_modules_alone(panel: Any) -> None:
    slicer.util.selectModule("SegmentEditor")
    window = slicer.util.mainWindow()
    assert not [one for one in window.findChildren(QtGui.QShortcut) if one.isEnabled()]
    slicer.util.selectModule("ASLseg")
    assert [one for one in window.findChildren(QtGui.QShortcut) if one.isEnabled()]


def test_keys_of_a_panel_that_is_reloaded_are_gone_with_it(panel: Any) -> None:
    """They belong to the window, and would press buttons that are not there any more."""
    window = slicer.util.mainWindow()
    before = len(window.findChildren(QtGui.QShortcut))
    enabled = sum(one.isEnabled() for one in window.findChildren(QtGui.QShortcut))
    assert reload_module().panel is not panel
    left = window.findChildren(QtGui.QShortcut)
    assert len(left) == before
    assert sum(one.isEnabled() for one in left) == enabled > 0, "Slicer enters no reloaded module"


def test_marks_of_keys_are_unique_and_none_of_slicers_menus(panel: Any) -> None:
    buttons = QtWidgets.QWidget.findChildren(panel.widget, QtWidgets.QAbstractButton)
    texts = [QtWidgets.QAbstractButton.text(one) for one in buttons]
    marks = [m[1].lower() for text in texts if (m := re.search(r"(?<!&)&(\w)", text))]
    assert len(set(marks)) == len(marks) >= 12
    assert not set(marks) & set("fevh"), "File, Edit, View, Help"


def test_alt_and_a_letter_folds_a_section(panel: Any) -> None:
    window = panel.widget.window()
    window.activateWindow()
    slicer.app.processEvents()
    for name, key in (("train", "T"), ("review", "R")):
        section = getattr(panel.ui, f"{name}Section")
        QtTest.QTest.keyClick(window, getattr(QtCore.Qt.Key, f"Key_{key}"), QtCore.Qt.AltModifier)
        run_event_loop(0.15)
        assert section.collapsed, name


def stops(panel: Any) -> Iterator[Any]:
    """What Tab stops at, in its order, from the panel on."""
    widget = QtWidgets.QWidget.nextInFocusChain(panel.widget)
    while widget is not None and widget is not panel.widget:
        policy = QtWidgets.QWidget.focusPolicy(widget)
        is_within = QtWidgets.QWidget.isAncestorOf(panel.widget, widget)
        if is_within and policy & QtCore.Qt.FocusPolicy.TabFocus:
            yield widget
        widget = QtWidgets.QWidget.nextInFocusChain(widget)


def test_tab_goes_through_the_panel_from_top_to_bottom(panel: Any) -> None:
    panel.ui.changesTable.setVisible(True)
    panel.widget.resize(480, 3000)
    run_event_loop(0.1)
    found = [one for one in stops(panel) if not QtWidgets.QWidget.isHidden(one)]
    assert len(found) > 60
    bottom = -1
    for one in found:
        corner = QtWidgets.QWidget.mapTo(one, panel.widget, QtCore.QPoint(0, 0))
        height = QtWidgets.QWidget.height(one)
        assert corner.y() + height > bottom, QtCore.QObject.objectName(one)
        bottom = max(bottom, corner.y())


def test_tab_leaves_a_table(panel: Any) -> None:
    tables = QtWidgets.QWidget.findChildren(panel.widget, QtWidgets.QTableWidget)
    assert len(tables) >= 6
    assert not [
        QtCore.QObject.objectName(one)
        for one in tables
        if QtWidgets.QAbstractItemView.tabKeyNavigation(one)
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_fits_a_narrow_column(panel: Any, name: str) -> None:
    panel.logic.history.add(change("place positive point, slice 123"))
    run_event_loop(0.1)
    section = getattr(panel.ui, f"{name}Section")
    assert QtWidgets.QWidget.minimumSizeHint(panel.widget).width() <= NARROW_PX
    assert QtWidgets.QWidget.minimumSizeHint(section).width() <= NARROW_PX - 12


def test_titles_fit_a_narrow_table_and_long_texts_are_cut_at_a_letter(panel: Any) -> None:
    """A text that is cut at a word leaves nothing but an ellipsis in a narrow column."""
    from ASLsegLib.widgets import lesions, review
    from ASLsegLib.widgets.section import fill_table

    why = "? probability 0.12 is near the limit 0.10"
    lesion = ["1", "45.63", "66 x 24", "118", "0.00", why]
    case = ["phantom_06", "123.4", "0.72", "? liver: beyond the 50% that round 1 accepts"]
    tables = (panel.ui.lesionTable, lesions.HEAD, lesion), (panel.ui.reviewTable, review.HEAD, case)
    for table, titles, row in tables:
        fill_table(table, titles, [row])
    slicer.app.moduleManager().module("ASLseg").widgetRepresentation().resize(NARROW_PX, 2000)
    run_event_loop(0.2)
    for table, titles, _row in tables:
        head, last = table.horizontalHeader(), len(titles) - 1
        text = head.fontMetrics().horizontalAdvance(titles[last])
        assert table.width < NARROW_PX
        assert table.horizontalScrollBar().maximum == 0, "a column is out of sight"
        assert text <= head.sectionSize(last), titles[last]
        assert not table.property("wordWrap")


def change(word: str) -> Any:
    from ASLsegLib.logic.history import Change

    return Change(word, int, int)
