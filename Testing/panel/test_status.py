"""What the panel says: the line and the bar of what is going on, and what does not fit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from standin.harness import run_event_loop, wait_until


def test_progress_of_work_that_has_ended_is_not_that_of_the_next(
    open_module: Callable[..., Any],
) -> None:
    from aslseg.events import Monitor

    panel = open_module().panel
    background, gate, failures = panel.logic.background, threading.Event(), list[Exception]()

    def work(monitor: Monitor) -> None:
        list(monitor.track([1, 2], "reading files"))

    background.start("reading files", work, lambda _: None, failures.append)
    wait_until(lambda: not background.is_busy)
    run_event_loop(0.3)
    background.start("something else", lambda _: gate.wait(30), lambda _: None, failures.append)
    run_event_loop(0.3)
    shown = panel.ui.statusLabel.text, panel.ui.progressBar.maximum
    gate.set()
    wait_until(lambda: not background.is_busy)
    assert (shown, failures) == (("Working …", 0), [])


def test_the_tooltip_has_the_whole_name_of_the_run(
    open_module: Callable[..., Any], trained: Path
) -> None:
    panel = open_module().panel
    panel.ui.reviewSection.collapsed = False
    panel.logic.open_project(trained)
    run_event_loop(0.3)
    for row in range(panel.ui.runBox.count):
        panel.ui.runBox.setCurrentIndex(row)
        panel.ui.runBox.activated(row)
        run_event_loop(0.1)
        first, *others = panel.ui.runBox.toolTip.split("\n")
        assert "round 1" in first
        assert first == panel.ui.runBox.itemText(row)
        assert others == [others[0]]
