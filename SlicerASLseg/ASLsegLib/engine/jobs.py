"""One job after the other: files written, a request sent, its results shown.

Nothing waits here: the panel's timer calls `poll`, and a script that wants to wait calls `wait`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from aslseg.errors import AslsegError, CancelledError
from aslseg.failures import as_known
from ASLsegLib.engine.background import Background
from ASLsegLib.engine.client import FREE, EngineBusyError, EngineClient, State
from ASLsegLib.engine.signal import Signal

logger = logging.getLogger(__name__)

_PAUSE_S = 0.01


class EngineError(AslsegError):
    """The request to the child process failed; the message says why and what to do."""


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Job:
    """A request to the child with what comes before and after it.

    Attributes:
        do: Name of the request.
        arguments: Of the request.
        prepare: Called in a thread before: writes the files that the request names.
        read: Called in a thread with the `done` event: reads the files that it names.
        show: Called with what `read` gave; each step of the iterator brings a part into the scene.
    """

    do: str
    arguments: dict[str, Any]
    prepare: Callable[[], None] | None = None
    read: Callable[[dict[str, Any]], Any] = _nothing
    show: Callable[[Any], Iterator[str]] | None = None


class EngineJobs:
    """Does one job at a time in the child process.

    Attributes:
        changed: Emits the new state: "idle", "starting", "running", "importing", "cancelling" or
            "failed".
        event: Emits the child's events. `done` comes when its results are in the scene.
        log: Emits lines for the log.
    """

    def __init__(self, client: EngineClient, background: Background) -> None:
        self.changed, self.event, self.log = Signal(), Signal(), client.log
        self._client = client
        self._background = background
        self._job: Job | None = None
        self._preparing = False
        self._stop_asked = self._stepping = False
        self._done: dict[str, Any] = {}
        self._steps: Iterator[str] | None = None
        self._import = ExitStack()
        self._outcome: dict[str, Any] = {}
        client.changed.connect(self._client_changed)
        client.event.connect(self._on_event)

    @property
    def state(self) -> State:
        """What is going on, in one word."""
        return "starting" if self._preparing else self._client.state

    @property
    def is_busy(self) -> bool:
        """Whether a new job has to wait."""
        return self.state not in FREE

    @property
    def doing(self) -> str:
        """Name of the request under way; empty when there is none."""
        return self._job.do if self._job and self.is_busy else ""

    def start(self, job: Job) -> None:
        """Begin a job.

        Raises:
            EngineBusyError: When another one is under way.
        """
        if self.is_busy:
            msg = f"The engine is {self.state}; wait for it, or cancel first."
            raise EngineBusyError(msg)
        self._job, self._outcome, self._stop_asked = job, {}, False
        if job.prepare is None:
            self._request()
            return
        prepare = job.prepare
        self._preparing = True
        self.changed.emit(self.state)
        self._background.start(
            "writing files", lambda _: prepare(), lambda _: self._request(), self._fail
        )

    def poll(self) -> None:
        """Go on with what is under way, for a moment; called by a timer.

        The background's `poll` is called beside it.
        """
        self._client.poll()
        if self._steps is not None and not self._stepping:  # a step may ask, and we are polled then
            self._import_a_part(self._steps)

    def cancel(self) -> None:
        """Ask to stop; whatever runs is gone within seconds."""
        if self._preparing:
            self._stop_asked = True
            self.changed.emit(self.state)
        elif self._client.state in ("starting", "running"):
            self._client.cancel()

    def close(self) -> None:
        """End the child and forget the job, without waiting."""
        self._stop_asked = True
        self._end_import()
        self._job = None
        self._client.close()

    def wait(self, breathe: Callable[[], None]) -> dict[str, Any]:
        """Wait until the job has ended and give its `done` event.

        Args:
            breathe: Called again and again; polls the background, keeps the application alive.

        Raises:
            EngineError: When it failed.
            CancelledError: When it was cancelled.
        """
        while self.is_busy or self._job is not None:
            self.poll()
            breathe()
            time.sleep(_PAUSE_S)
        kind = self._outcome.get("event")
        if kind == "failed":
            raise EngineError(in_words(self._outcome))
        if kind == "cancelled":
            raise CancelledError(str(self._outcome.get("message", "Stopped on request.")))
        return self._outcome

    def _request(self) -> None:
        was_preparing, self._preparing = self._preparing, False
        job = self._job
        if job is None or self._stop_asked:
            self.changed.emit(self.state)
            if was_preparing and job is not None:
                self._finish({"event": "cancelled", "message": "Stopped on request."})
            return
        try:
            from aslseg.engine.requests import check_request  # pydantic may not be installed before

            check_request(job.do, job.arguments)
            self._client.request(job.do, **job.arguments)
        except Exception as error:  # the job's edge: what cannot be sent ends the job too
            self._fail(error)

    def _client_changed(self, _: str) -> None:
        self.changed.emit(self.state)

    def _on_event(self, event: dict[str, Any]) -> None:
        kind, job = event.get("event"), self._job
        if job is None or kind not in ("done", "failed", "cancelled"):
            self.event.emit(event)
        elif kind == "done" and job.show is not None:
            self._begin_import(job, event)
        else:
            self._finish(event)

    def _begin_import(self, job: Job, event: dict[str, Any]) -> None:
        self._done = event
        self._import.enter_context(self._client.importing())
        self._background.start("reading results", lambda _: job.read(event), self._show, self._fail)

    def _show(self, value: Any) -> None:
        if self._job is not None and self._job.show is not None:
            self._steps = self._job.show(value)

    def _import_a_part(self, steps: Iterator[str]) -> None:
        self._stepping = True
        try:
            part = next(steps, None)
        except Exception as error:  # the job's edge: a node may be gone, a file may be damaged
            self._fail(error)
            return
        finally:
            self._stepping = False
        if self._steps is not steps:  # closed while a question was open
            return
        if part is None:
            self._end_import()
            self._finish(self._done)
        else:
            self.event.emit({"event": "progress", "task": part, "step": 0, "of": 0})

    def _end_import(self) -> None:
        self._steps = None
        self._import.close()

    def _fail(self, error: Exception) -> None:
        known = as_known(error, self._job.do if self._job else "the panel's work")
        if known is not error:
            logger.error("%s", known)
        self._preparing = False
        self._end_import()
        self.changed.emit(self.state)
        self._finish({"event": "failed", "message": str(known), "remedy": "", "kind": "panel"})

    def _finish(self, event: dict[str, Any]) -> None:
        self._outcome, self._job = event, None
        self.event.emit(event)


def in_words(failure: dict[str, Any]) -> str:
    """Return the message of a `failed` event with its remedy."""
    return " ".join(str(failure.get(key, "")) for key in ("message", "remedy")).strip()
