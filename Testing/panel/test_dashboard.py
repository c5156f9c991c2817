"""The overview of cases: a table below the views, which never asks a person to wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slicer
from harness import wait_for_files
from PySide6 import QtTest

from standin.harness import choose, click, reload_module, wait_until


@pytest.fixture
def widget(open_module: Callable[..., Any], trained: Path) -> Any:
    """The module's widget, with a trained project open."""
    opened = open_module()
    opened.panel.ui.projectFolderEdit.currentPath = str(trained)
    click(opened.panel.ui.openProjectButton)
    return opened


def texts(table: Any, column: int) -> list[str]:
    return [table.item(row, column).text() for row in range(table.rowCount)]


def dashboard(widget: Any) -> Any:
    return next(s for s in widget.panel.sections if type(s).__name__ == "DashboardSection")


def opened(widget: Any) -> Any:
    """The section with its table shown, when everything is measured."""
    click(widget.panel.ui.overviewButton)
    section = dashboard(widget)
    wait_until(lambda: not widget.logic.overview.is_busy, 60.0, "all are measured")
    wait_until(lambda: not section._due, 60.0, "all are shown")
    return section


def layout() -> int:
    return int(slicer.app.layoutManager().layout)


def test_the_overview_shows_all_cases_at_once_and_measures_them_meanwhile(widget: Any) -> None:
    click(widget.panel.ui.overviewButton)
    table = dashboard(widget)._table
    cases = [case.id for case in widget.logic.project.cases]
    assert texts(table, 0) == cases
    assert table.horizontalHeaderItem(4).text() == "liver (ml)"
    wait_until(lambda: not widget.logic.overview.is_busy, 60.0, "all are measured")
    wait_until(lambda: not dashboard(widget)._due, 60.0, "all are shown")
    assert all(float(text) > 0 for text in texts(table, 4) if text)
    labelled = [case.label is not None for case in widget.logic.project.cases]
    assert [bool(text) for text in texts(table, 2)] == labelled
    assert sorted(text for text in texts(table, table.columnCount - 1) if text)[0] == "1."
    assert all(not table.item(row, 0).icon().isNull() for row in range(len(cases)))


def test_a_double_click_opens_the_case_in_review(widget: Any) -> None:
    click(widget.panel.ui.overviewButton)
    table = dashboard(widget)._table
    table.selectRow(1)
    table.cellDoubleClicked(1, 0)
    case_id = widget.logic.project.cases[1].id
    wait_until(lambda: widget.logic.case_node(case_id) is not None, 60.0, "the case is loaded")
    wait_for_files(widget.logic)
    assert widget.panel.volume is widget.logic.case_node(case_id)
    assert not widget.panel.ui.reviewSection.collapsed


def test_a_click_on_a_title_orders_the_cases_by_numbers_and_again_the_other_way(
    widget: Any,
) -> None:
    import qt

    section = opened(widget)
    table, head = section._table, section._table.horizontalHeader()
    place = qt.QPoint(head.sectionViewportPosition(4) + 5, 5)
    QtTest.QTest.mouseClick(head.viewport()._native, qt.Qt.LeftButton, pos=place)
    wait_until(lambda: not section._due, 60.0)
    upwards = [float(text) for text in texts(table, 4) if text]
    assert upwards == sorted(upwards)
    assert len(set(upwards)) > 1
    head.setSortIndicator(4, qt.Qt.DescendingOrder)
    wait_until(lambda: not section._due, 60.0)
    assert [float(text) for text in texts(table, 4) if text] == upwards[::-1]
    rows = {row.report.case_id: row for row in widget.logic.case_overviews()}
    volumes = [rows[case_id].facts.volumes_ml.get("liver") for case_id in texts(table, 0)]
    shown = [None if volume is None else f"{volume:.1f}" for volume in volumes]
    assert shown == [text or None for text in texts(table, 4)], "cells stay with their case"


def test_the_overview_is_filtered_by_text_and_by_state(widget: Any) -> None:
    section = opened(widget)
    every = texts(section._table, 0)
    assert section._count_label.text == f"{len(every)} of {len(every)} cases"
    choose(section._state_box, "labelled")
    assert 0 < section._table.rowCount < len(every)
    assert set(texts(section._table, 1)) == {"labelled"}
    section._search.setText("no such case")
    assert section._table.rowCount == 0
    choose(section._state_box, "All states")
    section._search.setText(every[1].upper())
    assert texts(section._table, 0) == [every[1]]
    assert section._count_label.text == f"1 of {len(every)} cases"
    section._search.setText("")
    assert texts(section._table, 0) == every


def test_the_chosen_case_stays_chosen_when_the_order_changes(widget: Any) -> None:
    import qt

    section = opened(widget)
    table = section._table
    table.selectRow(1)
    chosen = table.item(1, 0).text()
    table.horizontalHeader().setSortIndicator(0, qt.Qt.DescendingOrder)
    assert table.item(table.currentRow(), 0).text() == chosen
    assert table.currentRow() == table.rowCount - 2


def test_the_table_stands_below_the_views_of_before_and_goes_back_to_them(widget: Any) -> None:
    layouts, button = slicer.vtkMRMLLayoutNode, widget.panel.ui.overviewButton
    slicer.app.layoutManager().setLayout(layouts.SlicerLayoutFourUpPlotView)
    section = opened(widget)
    assert button.checked
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    before = node.GetLayoutDescription(layouts.SlicerLayoutFourUpPlotView)
    assert before in node.GetCurrentLayoutDescription()
    assert not section._box.parent().isHidden()
    click(button)
    assert layout() == layouts.SlicerLayoutFourUpPlotView
    assert section._box.parent().isHidden()
    slicer.app.layoutManager().setLayout(layouts.SlicerLayoutFourUpView)
    click(button)
    assert "PlotView" not in node.GetCurrentLayoutDescription(), "the views of now, not of before"
    slicer.app.layoutManager().setLayout(layouts.SlicerLayoutOneUpRedSliceView)
    assert not button.checked, "Slicer's menu of layouts leads out of it too"


def test_a_scene_is_saved_without_a_layout_that_another_slicer_has_not(
    widget: Any, tmp_path: Path
) -> None:
    def saved() -> str:
        slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
        slicer.mrmlScene.Commit()
        return (tmp_path / "scene.mrml").read_text(encoding="utf-8")

    assert "currentViewArrangement" in saved()
    for go_back in (
        lambda: click(widget.panel.ui.overviewButton),
        lambda: slicer.app.layoutManager().setLayout(6),
    ):
        opened(widget)
        assert "currentViewArrangement" not in saved()
        go_back()
        assert f'currentViewArrangement="{layout()}"' in saved()


def test_a_module_that_is_loaded_again_finds_the_place_below_the_views(widget: Any) -> None:
    section = opened(widget)
    shown = layout()
    reload_module("ASLseg")
    assert layout() != shown
    again = slicer.modules.ASLsegWidget
    again.panel.ui.projectFolderEdit.currentPath = str(widget.logic.project.folder)
    click(again.panel.ui.openProjectButton)
    section = opened(again)
    assert layout() == shown
    assert section._box.parent().layout().count() == 1


def test_the_console_gets_the_same_rows(widget: Any) -> None:
    rows = widget.logic.case_overviews()
    assert [row.report.case_id for row in rows] == [c.id for c in widget.logic.project.cases]
    assert all(row.facts is not None for row in rows)
    slicer.app.processEvents()


def test_a_decision_reads_the_files_of_no_other_case(
    widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.project import case_facts, case_reports

    looked_up: list[str] = []
    known, files = case_facts.known_facts, case_reports.refined_files

    def facts_of(project: Any, case: Any, predictions: Path | None) -> Any:
        looked_up.append(case.id)
        return known(project, case, predictions)

    def no_round(run: Any) -> Any:
        looked_up.append("a round")
        return files(run)

    logic = widget.logic
    rows = logic.case_overviews()
    monkeypatch.setattr(case_facts, "known_facts", facts_of)
    monkeypatch.setattr(case_reports, "refined_files", no_round)
    waiting = logic.review_queue()[0].case_id
    logic.reject(waiting)
    now = logic.case_overviews()
    assert looked_up == [waiting]
    assert [row.facts for row in now] == [row.facts for row in rows]
    assert next(row for row in now if row.report.case_id == waiting).report.state == "rejected"
    logic.undo_decision()
    logic.refresh()
    assert logic.review_queue()[0].case_id == waiting
    assert looked_up[1:] == ["a round"], "another program may have changed it"
