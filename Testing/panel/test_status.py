"""What the panel says: the line and the bar of what is going on, and what does not fit."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aslseg.events import Notice
from standin.harness import choose, run_event_loop, wait_until
from standin.pictures import shown

ARROW_PX = 28
"""The arrow of a box, and its margins."""


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


def test_the_name_of_a_run_is_its_day_round_and_dice_and_fits_a_narrow_panel(
    open_module: Callable[..., Any], trained: Path
) -> None:
    from aslseg.project.run_folder import runs_of

    note_time(runs_of(trained)[0].path, "2026-11-21T12:03:00+00:00")
    widget = open_module()
    panel = widget.panel
    panel.ui.reviewSection.collapsed = False
    panel.logic.open_project(trained)
    with shown(widget.parent, 350, 1800):
        box = panel.ui.runBox
        latest, name = box.itemText(0), box.itemText(1)
        assert re.fullmatch(r"21 Nov, round 1, tumour Dice 0\.\d\d", name)
        assert latest == f"{name} (latest)"
        assert box.fontMetrics().horizontalAdvance(name) < box.width - ARROW_PX


def test_runs_of_one_day_have_their_time(trained: Path) -> None:
    from aslseg.project.project import open_project
    from aslseg.project.run_folder import runs_of
    from aslseg.project.run_list import list_runs
    from ASLsegLib.logic.project_data import run_names

    (run,) = runs_of(trained)
    times = {"a": "2026-11-21T12:03:00+00:00", "b": "2026-11-21T12:40:00+00:00",
             "c": "2026-11-19T12:00:00+00:00", "d": ""}  # fmt: skip
    for name, time in times.items():
        shutil.copytree(run.path, run.path.with_name(name))
        note_time(run.path.with_name(name), time)
    runs = {one.run_id: one for one in list_runs(trained)}
    names = run_names(open_project(trained), [runs[name] for name in times])
    clock = [datetime.fromisoformat(times[name]).astimezone().strftime("%H:%M") for name in "ab"]
    starts = [names[name].split(",")[0] for name in times]
    assert starts == [f"21 Nov {clock[0]}", f"21 Nov {clock[1]}", "19 Nov", "d"]


@pytest.mark.parametrize(("years_ago", "ending"), [(0, ""), (1, " {year}")])
def test_the_day_of_a_label_has_its_year_when_that_is_another(
    scene: Any, years_ago: int, ending: str
) -> None:
    from aslseg.project.case_reports import CaseReport
    from ASLsegLib.logic.project_data import date_of

    now = datetime.now()
    written = now.replace(year=now.year - years_ago, month=2, day=3)
    report = CaseReport("c", "train", "labelled", None, None, written_s=written.timestamp())
    assert date_of(report) == "3 Feb" + ending.format(year=written.year)
    assert date_of(replace(report, written_s=None)) == ""


@pytest.mark.parametrize(("rounds", "words"), [(1, "1 round,"), (2, "2 rounds,")])
def test_the_estimate_counts_rounds(
    open_module: Callable[..., Any], rounds: int, words: str
) -> None:
    from aslseg.engine.facts import EstimateFacts

    panel = open_module().panel
    section = next(one for one in panel.sections if type(one).__name__ == "TrainingSection")
    section.on_answer(EstimateFacts(rounds=rounds, steps=12, seconds=100.0))
    assert f"here: {words} 12 steps." in panel.ui.trainingLabel.text


def test_an_estimate_is_of_the_settings_and_the_project_that_it_was_made_for(
    open_module: Callable[..., Any], project: Path
) -> None:
    from aslseg.engine.facts import EstimateFacts

    panel = open_module().panel
    logic, ui = panel.logic, panel.ui
    choose_device = sys.modules["ASLsegLib.parameters"].choose_device
    logic.estimate = SimpleNamespace(begin=lambda *_, **__: None)
    section = next(one for one in panel.sections if type(one).__name__ == "TrainingSection")

    def estimate() -> None:
        section.estimate()
        section.on_answer(EstimateFacts(rounds=2, steps=900, seconds=400.0))
        run_event_loop(0.1)
        assert "2 rounds, 900 steps." in ui.trainingLabel.text

    for change in (
        lambda: choose(ui.presetBox, "standard"),
        lambda: logic.open_project(project),
        lambda: logic.rename_case("p1", "other"),
        lambda: choose_device("cpu"),
        lambda: choose_device("auto"),
    ):
        estimate()
        change()
        panel.update()
        run_event_loop(0.1)
        assert ui.trainingLabel.text == ""


def test_the_table_of_rounds_is_that_of_the_run_that_is_chosen(
    open_module: Callable[..., Any], trained: Path
) -> None:
    panel = open_module().panel
    logic, table = panel.logic, panel.ui.roundsTable
    logic.open_project(trained)
    latest = logic.trainings()[0]
    before = replace(latest, run_id="before")
    logic.trainings = lambda: [latest, before]
    shutil.copytree(trained / "runs" / latest.run_id, trained / "runs" / "before")
    rounds = trained / "runs" / "before" / "round-01"
    shutil.copytree(rounds, rounds.with_name("round-02"))
    counts = []
    for run_id in (latest.run_id, "before", ""):
        panel.parameters.run = run_id
        panel.update()
        counts.append(table.rowCount)
    assert counts == [1, 2, 1]


def test_a_training_without_a_case_to_check_on_says_that_it_measures_no_dice(
    open_module: Callable[..., Any], trained: Path
) -> None:
    panel = open_module().panel
    panel.logic.open_project(trained)
    label = panel.ui.labelledShareLabel
    assert label.text == "1 of 3 cases to train on are labelled (33%)."
    checked = panel.logic.project.validation[0].id
    panel.logic.set_split(checked, "train")
    run_event_loop(0.1)
    assert label.text.endswith("No labelled case is there to check on, so no Dice is measured.")


def test_notes_of_a_training_are_gone_when_the_next_one_begins(
    open_module: Callable[..., Any],
) -> None:
    panel = open_module().panel
    trainer = panel.logic.trainer

    def begin() -> None:
        trainer.start(sys.modules["ASLsegLib.engine.client"].Job("describe", {"device": "cpu"}))

    begin()
    wait_until(lambda: not trainer.is_busy, 60.0)
    trainer.event.emit(Notice("a note"))
    run_event_loop(0.1)
    assert "a note" in panel.ui.trainingLabel.text
    begin()  # by the process that is there
    wait_until(lambda: not trainer.is_busy, 60.0)
    run_event_loop(0.1)
    assert "a note" not in panel.ui.trainingLabel.text


def note_time(run: Path, time: str) -> None:
    """Let a run have been worked on at a time."""
    path = run / "status.json"
    status = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**status, "updated": time}), "utf-8")
