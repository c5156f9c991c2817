"""The engine as the panel sees it: one job at a time, six states, no waiting.

A job is a request with what comes before and after it: files that are written, files that are read,
and what is shown of them. The panel calls `poll` from a timer, and everything is emitted from
there, in the panel's own thread; a script that wants to wait calls `wait`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from aslseg.errors import AslsegError, CancelledError
from aslseg.events import Cancelled, Progress
from aslseg.failures import Failure, as_known, in_two
from ASLsegLib.engine.background import Background, Signal
from ASLsegLib.engine.process import EngineProcess, Item, LogLine, OutputLine, explain

if TYPE_CHECKING:  # pydantic may not be installed before a job is started
    from aslseg.engine.protocol import Done, EngineEvent

    PanelEvent: TypeAlias = "EngineEvent | Silent | Answering"

logger = logging.getLogger(__name__)


class State(str, Enum):
    """What the engine is doing for the panel.

    Between jobs it is idle, or failed when the last job did. A job is starting while its files are
    written or the process starts, running while the engine serves the request, importing while its
    results come into the scene, and cancelling from the wish to stop to the end.
    """

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    IMPORTING = "importing"
    CANCELLING = "cancelling"
    FAILED = "failed"


_FREE = (State.IDLE, State.FAILED)
AT_WORK = (State.STARTING, State.RUNNING)
"""States in which a job can be cancelled."""
GRACE_S = 2.0
"""How long the engine may take to stop by itself before its whole tree is killed."""
HOST_GRACE_S = 45.0
"""The same where another computer works, which has to be told first; see `aslseg.remote.link`."""

POLL_BUDGET_S = 0.05
SILENT_S = 15.0
"""After so long without any line from an engine at work, `Silent` is emitted."""
QUIET_S = 300.0
"""After so long without progress of a living engine, `Silent` is emitted too."""
_NOT_POLLED_S = 1.0
_PAUSE_S = 0.01
_CANCEL, _CLOSE = b'{"id": 0, "do": "cancel"}\n', b'{"id": 0, "do": "close"}\n'
_STOPPED = Cancelled("Stopped on request.")


class EngineBusyError(AslsegError):
    """A job came while another one was under way."""


class EngineError(AslsegError):
    """A job failed; the message says why and what to do."""


@dataclass(frozen=True)
class Silent:
    """The engine at work gives no sign for long: what is known of it, and what can be done."""

    message: str
    remedy: str = "Wait, or stop it; what was finished is kept, and it is started anew when needed."
    event: Literal["silent"] = "silent"

    @property
    def in_words(self) -> str:
        """Message and remedy."""
        return f"{self.message} {self.remedy}"


@dataclass(frozen=True)
class Answering:
    """The engine gives signs again after it was silent."""

    in_words = ""
    event: Literal["answering"] = "answering"


def _nothing(_: Done) -> None:
    return None


@dataclass(frozen=True)
class Job:
    """A request to the engine with what comes before and after it.

    Attributes:
        do: Name of the request.
        arguments: Of the request.
        prepare: Called in a thread before: writes the files that the request names.
        read: Called in a thread with the answer: reads the files that it names.
        show: Called with what `read` gave; each step of the iterator brings a part into the scene.
    """

    do: str
    arguments: Mapping[str, Any]
    prepare: Callable[[], None] | None = None
    read: Callable[[Done], Any] = _nothing
    show: Callable[[Any], Iterator[str]] | None = None


class EngineClient:
    """Does one job at a time; starts the engine when it is needed, and keeps it between jobs.

    Args:
        python: Command of the Python to run it with.
        library: Folder that holds the package `aslseg`.
        environment: Variables of the process; those of this one when not given.

    Attributes:
        changed: Emits the new state.
        event: Emits every event of the engine but `Alive`, and `Silent` and `Answering`. Each job
            ends with one of `Done`, `Failure` and `Cancelled`, unless the client is closed before;
            `Done` comes when its results are in the scene.
        log: Emits what the engine writes besides, line by line.
        state: What is going on.
        host: Name of the computer that works; empty for this one.
    """

    def __init__(
        self,
        python: Sequence[str],
        library: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.changed, self.event, self.log = Signal(), Signal(), Signal()
        self.state = State.IDLE
        self.host = ""
        self._python = list(python)
        self._environment = _environment(library, environment)
        self._background = Background()
        self._process: EngineProcess | None = None
        self._job: Job | None = None
        self._number = 0
        self._is_sent = False
        self._done: Done | None = None  # came before the wish to stop, or while it is shown
        self._steps: Iterator[str] | None = None
        self._outcome: Done | Failure | Cancelled | None = None
        self._last_line_at = self._polled_at = time.monotonic()
        self._quiet_s = 0.0
        self._is_silent = False

    @property
    def is_busy(self) -> bool:
        """Whether a new job has to wait."""
        return self.state not in _FREE

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None when it does not run."""
        return None if self._process is None or self._process.is_gone else self._process.pid

    def work_at(self, host: str) -> None:
        """Let the next jobs be done by another computer, or by this one.

        Args:
            host: As ssh takes it; empty for this computer.

        Raises:
            EngineBusyError: When a job is under way.
        """
        self.require_free()
        if host != self.host:
            self._end_process()
            self.host = host

    def start(self, job: Job) -> None:
        """Begin a job.

        Raises:
            EngineBusyError: When another one is under way.
            RequestError: When the engine would not understand the request; nothing has begun then.
        """
        from aslseg.engine.protocol import check_request, encode

        self.require_free()
        check_request(job.do, job.arguments)
        line = encode({"id": self._number + 1, "do": job.do, **job.arguments})
        self._number += 1
        self._job, self._is_sent, self._done, self._outcome = job, False, None, None
        if job.prepare is None:
            self._send(job, line)
            return
        prepare = job.prepare
        self._become(State.STARTING)
        self._background.start(
            "writing files",
            lambda _: prepare(),
            lambda _: self._send(job, line),
            lambda error: self._fail(job, error),
        )

    def require_free(self) -> None:
        """Do nothing when a job can begin.

        Raises:
            EngineBusyError: When another one is under way.
        """
        if self.is_busy:
            msg = f"The engine is {self.state.value}; wait for it, or cancel first."
            raise EngineBusyError(msg)

    def poll(self, budget_s: float = POLL_BUDGET_S) -> None:
        """Emit what has come in, and go on with what is shown; called by a timer of the panel.

        Args:
            budget_s: After this long the rest is left for the next call.
        """
        until = time.monotonic() + budget_s
        if time.monotonic() - self._polled_at > _NOT_POLLED_S:  # the silence was on this side
            self._last_line_at = time.monotonic()
        self._polled_at = time.monotonic()
        while self._process is not None and not self._process.items.empty():
            self._take(self._process.items.get())
            if time.monotonic() > until:
                return
        self._notice_silence()
        self._background.poll()
        if self._steps is not None:
            self._show_a_part(self._steps)

    def cancel(self) -> None:
        """Ask the engine to stop; after `GRACE_S` its whole tree is killed. `poll` finishes it.

        Without a job under way, or while its results are shown, nothing happens.
        """
        if self.state not in AT_WORK:
            return
        self._become(State.CANCELLING)
        if self._is_sent and self._process is not None:
            self._process.send(_CANCEL)
            self._process.kill_within(HOST_GRACE_S if self.host else GRACE_S)

    def close(self) -> None:
        """End the engine with its whole tree, without waiting; what it was doing stays resumable.

        A training at another computer goes on there.

        Nothing of the job is emitted any more; a later job starts a fresh engine.
        """
        self._job, self._steps = None, None
        self._end_process()
        self._background.close()
        self._become(State.IDLE)

    def wait(self, breathe: Callable[[], None] = lambda: None) -> Done:
        """Wait until the job has ended, and return the engine's answer.

        Args:
            breathe: Called again and again; keeps the application alive.

        Raises:
            EngineError: When it failed.
            CancelledError: When it was cancelled.
        """
        while self.is_busy:
            self.poll()
            breathe()
            time.sleep(_PAUSE_S)
        if isinstance(self._outcome, Failure):
            raise EngineError(self._outcome.in_words)
        if self._outcome is None or isinstance(self._outcome, Cancelled):
            raise CancelledError((self._outcome or _STOPPED).message)
        return self._outcome

    @property
    def _command(self) -> list[str]:
        if self.host:
            return [*self._python, "-m", "aslseg.remote", "relay", "--", self.host]
        return [*self._python, "-m", "aslseg.engine"]

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send(_CLOSE)
            process.end(GRACE_S)

    def _send(self, job: Job, line: bytes) -> None:
        from aslseg.engine.protocol import MAX_LINE_BYTES

        if self._job is not job:  # closed meanwhile
            return
        if self.state is State.CANCELLING:
            self._finish(_STOPPED)
            return
        is_fresh = self._process is None or self._process.is_ending
        if self._process is None or is_fresh:
            self._process = EngineProcess(self._command, self._environment, MAX_LINE_BYTES)
        self._last_line_at, self._quiet_s, self._is_silent = time.monotonic(), 0.0, False
        self._process.send(line)
        self._is_sent = True
        self._become(State.STARTING if is_fresh else State.RUNNING)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self.changed.emit(state)

    def _take(self, item: Item) -> None:
        if isinstance(item, OutputLine):
            self._read(item.text)
        elif isinstance(item, LogLine):
            self.log.emit(item.text)
        else:
            self._process = None
            if self._is_sent and self.state is State.CANCELLING:
                self._end(_STOPPED if self._done is None else self._done)
            elif self._is_sent and self.state in AT_WORK:
                self._end(explain(item.code, item.stderr_tail))

    def _read(self, line: str) -> None:
        from aslseg.engine.protocol import EventError, parse_event

        try:
            read = parse_event(line)
        except EventError as error:
            self.log.emit(f"{error} {line}")
            if error.is_final and error.number == self._number:
                self._on_final(self._number, Failure(*in_two(str(error)), "protocol"))
            return
        if read is None:
            self.log.emit(line)
        else:
            self._on_event(*read)

    def _on_event(self, number: int, event: EngineEvent) -> None:
        self._last_line_at, self._quiet_s = time.monotonic(), 0.0
        if event.event == "alive":
            self._quiet_s = event.quiet_s
        elif event.event == "ready":
            self.log.emit(f"Engine {event.version} is process {event.pid}.")
            if self.state is State.STARTING:
                self._become(State.RUNNING)
        elif event.event in ("done", "failed", "cancelled"):
            self._on_final(number, event)
        else:
            self.event.emit(event)

    def _on_final(self, number: int, event: Done | Failure | Cancelled) -> None:
        unread = number == 0 and event.event == "failed"  # it could not even read our number
        if not (number == self._number or unread) or self.state not in (
            *AT_WORK,
            State.CANCELLING,
        ):
            self.log.emit(
                str(event)
            )  # an end of nothing must not be taken for the end of something
        elif self.state is State.CANCELLING:
            self._done = event if event.event == "done" else None
            if self._process is not None:
                self._process.end(0.0)
        else:
            self._end(event)

    def _end(self, event: Done | Failure | Cancelled) -> None:
        """Show the results of the job, or end it where there are none."""
        if event.event == "done" and self._job is not None and self._job.show is not None:
            self._import(self._job, self._job.show, event)
        else:
            self._finish(event)

    def _import(self, job: Job, show: Callable[[Any], Iterator[str]], done: Done) -> None:
        def steps(value: Any) -> Iterator[str]:
            yield from show(value)  # nothing of it is called before the first step

        def begin(value: Any) -> None:
            if self._job is job:
                self._steps = steps(value)

        self._done = done
        self._become(State.IMPORTING)
        self._background.start(
            "reading results",
            lambda _: job.read(done),
            begin,
            lambda error: self._fail(job, error),
        )

    def _show_a_part(self, steps: Iterator[str]) -> None:
        job, self._steps = self._job, None  # a step may ask a person, and we are polled meanwhile
        try:
            part = next(steps, None)
        except Exception as error:  # the job's edge: a node may be gone, a file may be damaged
            self._fail(job, error)
            return
        if self._job is not job:  # closed while a question was open
            return
        if part is not None:
            self._steps = steps
            self.event.emit(Progress(part, 0, 0))
        elif self._done is not None:
            self._finish(self._done)

    def _fail(self, job: Job | None, error: Exception) -> None:
        if job is None or self._job is not job:
            return
        known = as_known(error, job.do)
        if known is not error:
            logger.error("%s", known)
        self._finish(Failure(str(known), "", "panel"))

    def _finish(self, event: Done | Failure | Cancelled) -> None:
        self._outcome, self._job = event, None
        self._become(State.FAILED if event.event == "failed" else State.IDLE)
        self.event.emit(event)

    def _notice_silence(self) -> None:
        """Emit `Silent` once when the engine gives no sign, `Answering` when it does again."""
        is_quiet = self._quiet_s > QUIET_S
        is_silent = (
            self._is_sent
            and self.state in AT_WORK
            and (is_quiet or time.monotonic() - self._last_line_at > SILENT_S)
        )
        if is_silent == self._is_silent:
            return
        self._is_silent = is_silent
        if is_silent:
            minutes = round(self._quiet_s / 60)
            quiet = f"The engine works without any progress for {minutes} min."
            self.event.emit(Silent(quiet if is_quiet else "The engine does not answer any more."))
        elif self._job is not None:
            self.event.emit(Answering())


def _environment(library: Path, given: Mapping[str, str] | None) -> dict[str, str]:
    values = dict(os.environ if given is None else given)
    known = values.get("PYTHONPATH", "")
    values["PYTHONPATH"] = os.pathsep.join([str(library), known] if known else [str(library)])
    values["PYTHONIOENCODING"] = "utf-8"
    values["PYTHONUNBUFFERED"] = "1"
    return values
