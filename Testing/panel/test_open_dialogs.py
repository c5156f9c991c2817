"""What goes on while a message or a question is open."""

from __future__ import annotations

from typing import Any

import pytest
import slicer

from aslseg.errors import AslsegError
from standin.harness import run_event_loop, wait_until


@pytest.fixture
def open_dialogs(panel: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Dialogs stay open for a while; the list says how often the panel looked meanwhile."""
    counts: list[int] = []
    looked = 0
    real = panel.logic.poll

    def poll() -> None:
        nonlocal looked
        looked += 1
        real()

    def stay_open(*_: Any, **__: Any) -> bool:
        before = looked
        run_event_loop(0.4)
        counts.append(looked - before)
        return False

    monkeypatch.setattr(panel.logic, "poll", poll)
    monkeypatch.setattr(slicer.util, "errorDisplay", stay_open)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", stay_open)
    return counts


def test_progress_goes_on_while_a_message_of_the_background_is_open(
    panel: Any, open_dialogs: list[int]
) -> None:
    def fails(_: Any) -> None:
        raise AslsegError("the disk is full")

    panel.logic.background.start("saving", fails, lambda _: None, panel.logic.failed.emit)
    wait_until(lambda: open_dialogs, 10.0, "the message was shown")
    assert open_dialogs[0] >= 5


def test_progress_goes_on_while_a_question_of_the_background_is_open(
    panel: Any, open_dialogs: list[int]
) -> None:
    panel.logic.background.start(
        "reading",
        lambda _: None,
        lambda _: panel.questions.may_replace(["liver"]),
        panel.logic.failed.emit,
    )
    wait_until(lambda: open_dialogs, 10.0, "the question was asked")
    assert open_dialogs[0] >= 5


def test_a_question_that_a_result_brings_neither_repeats_nor_breaks_its_import(
    panel: Any, open_dialogs: list[int]
) -> None:
    from ASLsegLib.engine.client import Job

    steps: list[str] = []
    events: list[str] = []

    def show(_: Any) -> Any:
        for name in ("first", "second"):
            panel.questions.may_replace([name])
            steps.append(name)
            yield name

    panel.logic.engine.event.connect(lambda event: events.append(event.event))
    panel.logic.engine.start(Job("describe", {"device": "cpu"}, show=show))
    wait_until(lambda: not panel.logic.engine.is_busy, 120.0, "the engine rests")
    assert steps == ["first", "second"]
    assert [e for e in events if e in ("done", "failed")] == ["done"]
    assert min(open_dialogs) >= 5
