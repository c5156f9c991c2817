"""The overview of cases: a window with what is known of each, which never asks a person to wait."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slicer

from standin.harness import click, wait_until


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
    wait_until(lambda: not widget.logic.background.is_busy, 60.0)
    assert widget.panel.volume is widget.logic.case_node(case_id)
    assert not widget.panel.ui.reviewSection.collapsed


def test_the_console_gets_the_same_rows(widget: Any) -> None:
    rows = widget.logic.case_overviews()
    assert [row.report.case_id for row in rows] == [c.id for c in widget.logic.project.cases]
    assert all(row.facts is not None for row in rows)
    slicer.app.processEvents()


def test_a_decision_reads_the_files_of_no_other_case(
    widget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.project import case_facts, review

    looked_up: list[str] = []
    known, files = case_facts.known_facts, review.refined_files

    def facts_of(project: Any, case: Any, predictions: Path | None) -> Any:
        looked_up.append(case.id)
        return known(project, case, predictions)

    def no_round(run: Any) -> Any:
        looked_up.append("a round")
        return files(run)

    logic = widget.logic
    rows = logic.case_overviews()
    monkeypatch.setattr(case_facts, "known_facts", facts_of)
    monkeypatch.setattr(review, "refined_files", no_round)
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
