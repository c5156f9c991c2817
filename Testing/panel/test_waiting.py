"""Methods that take time: called they wait for their result, and `begin` leaves them to go on."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aslseg.errors import AslsegError, ProjectError
from standin.harness import wait_until


@pytest.fixture
def logic(open_module: Callable[..., Any]) -> Any:
    kind = type(open_module().logic)
    from ASLsegLib.logic.base import waiting

    class Reading(kind):  # type: ignore[misc]
        @waiting
        def read(self, work: Callable[[], int]) -> Any:
            """Read a number, and add one."""
            return self._in_background("reading", lambda _: work(), lambda found: found + 1)

    logic = Reading()
    yield logic
    logic.close()


def fail() -> int:
    msg = "The file is damaged."
    raise ProjectError(msg)


def test_a_call_waits_for_the_result_and_raises_what_went_wrong(logic: Any) -> None:
    shown: list[Exception] = []
    logic.failed.connect(shown.append)
    assert logic.read(lambda: 4) == 5
    with pytest.raises(AslsegError, match="The file is damaged"):
        logic.read(fail)
    assert shown == [], "whoever waits is told already"


def test_what_is_begun_goes_on_while_the_logic_is_polled(logic: Any) -> None:
    may_read, shown = threading.Event(), []
    logic.failed.connect(shown.append)
    pending = logic.read.begin(lambda: 4 if may_read.wait(30.0) else 0)
    assert logic.background.is_busy
    may_read.set()
    assert pending.result() == 5
    logic.read.begin(fail)
    wait_until(lambda: bool(logic.poll() or shown), 30.0, "nobody waits, so it is told")
    assert [str(error) for error in shown] == ["The file is damaged."]


def test_a_method_that_waits_is_described_as_it_is_written(logic: Any) -> None:
    assert inspect.getdoc(logic.read) == "Read a number, and add one."
    assert list(inspect.signature(logic.read).parameters) == ["work"]
