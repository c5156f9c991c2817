"""Work that a host's engine has been given: sent once, followed over as many connections as needed.

The work does not depend on the connection. Where that is lost it is made anew, and events go on
from where they were read last.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar

from aslseg.engine.protocol import Done, EngineEvent, EventError, parse_event
from aslseg.errors import AslsegError, CancelledError
from aslseg.events import Artifact, Cancelled, Event, Monitor, Progress
from aslseg.failures import FailedError, Failure, in_two
from aslseg.remote.connection import Connection, ConnectionLostError
from aslseg.remote.hosts import Host, HostError
from aslseg.remote.wire import SESSIONS, Events, Follow, Ok, Send, Sent, Stop
from aslseg.storage import inside

WAIT_S = 0.5
"""So long the host waits for the next event before it says that there is none."""
KEEP_EVERY_S = 10.0
FIRST_KEPT_S = 2.0
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds between attempts to connect again; the last one is used from then on."""
TOLD_WITHIN_S = 20.0
"""So long a host may take to take in that it shall stop."""
STOPPED_WITHIN_S = 20.0
"""So long its engine may take to stop then; see `engine.server.LAST_RESORT_S`."""
_LOOK_EVERY_S = 0.1

Final: TypeAlias = Done | Failure | Cancelled
Found = TypeVar("Found")


class LeftError(CancelledError):
    """Nobody follows any more; the work goes on at the host."""


@dataclass
class HostSession:
    """An engine of the host, as far as it is known here.

    Attributes:
        key: Its name at the host.
        number: Of the last request.
        sent_bytes: Of all requests.
        offset: Up to where its events were read, in bytes.
    """

    key: str = field(default_factory=lambda: secrets.token_hex(16))
    number: int = 0
    sent_bytes: int = 0
    offset: int = 0

    @property
    def output(self) -> str:
        """Where it writes predictions, in the station's folder."""
        return f"{SESSIONS}/{self.key}/output"


@dataclass
class Work:
    """A request that an engine of the host has been given.

    Attributes:
        session: The engine.
        places: By a folder of the host, the one here that stands for it in answers.
        output: Where files go that the engine writes to its `output`.
        keep: Fetches what else has been made: called now and then, and with True at the end.
        final: How the request ended; None as long as it has not.
        kept_at: When `keep` was called last, by the monotonic clock.
    """

    session: HostSession
    places: Mapping[str, Path] = field(default_factory=dict)
    output: Path | None = None
    keep: Callable[[Connection, bool], None] | None = None
    final: Final | None = None
    kept_at: float = field(default_factory=lambda: time.monotonic() - KEEP_EVERY_S + FIRST_KEPT_S)


class Link:
    """Gives work to the engines of a host and follows it; one request at a time.

    Args:
        host: The computer.
        is_left: Whether whoever asked has gone; what is at work then goes on at the host.
    """

    def __init__(self, host: Host, is_left: Callable[[], bool]) -> None:
        self.host = host
        self._is_left = is_left
        self._connection: Connection | None = None
        self._monitor = Monitor()
        self._is_sent = self._is_over = False
        self._cancelled_at: float | None = None
        self._told_at: float | None = None

    @property
    def was_told_to_stop(self) -> bool:
        """Whether the engine of the last request was told to stop, and so ends."""
        return self._told_at is not None

    def begin(self, monitor: Monitor) -> None:
        """Let what is done next be about another request, whose token it obeys."""
        self._monitor = monitor
        self._is_sent = self._is_over = False
        self._cancelled_at = self._told_at = None

    def expect_work(self) -> None:
        """Note that the request is at work there already."""
        self._is_sent = True

    def do(self, action: Callable[[Connection], Found]) -> Found:
        """Do something with the connection; all of it once more when that is lost.

        Raises:
            HostError: When the host cannot be reached at all.
            CancelledError: When the request was cancelled, or nobody follows any more.
        """
        if self._connection is None:
            self._monitor.listener(Progress(f"connecting to {self.host.name}", 0, 0))
            self._connection = Connection(self.host, self._check)
        found: list[Found] = []
        while not found:
            self._try(action, found)
        return found[0]

    def send(self, connection: Connection, session: HostSession, do: str, fields: Any) -> bool:
        """Give a request to an engine, which is started by the first one.

        Args:
            connection: To the host.
            session: The engine.
            do: Name of the request.
            fields: Its arguments, with the paths of the host.

        Returns:
            Whether the engine has it; not when it has ended before.
        """
        number = session.number + 1
        line = json.dumps({"id": number, "do": do, **fields})
        asked = Send(session=session.key, line=line, after=session.sent_bytes)
        if not connection.ask(asked, Sent).is_taken:
            return False
        session.number, session.sent_bytes = number, session.sent_bytes + len(line) + 1
        self._is_sent = True
        return True

    def finish(self, work: Work) -> Done:
        """Pass on the events of a request until it ends, and fetch what it made.

        Raises:
            FailedError: When it failed there.
            CancelledError: When it was cancelled; `LeftError` when it goes on.
            HostError: When the host cannot be reached any more.
        """
        final = self.do(lambda connection: self._to_the_end(connection, work))
        if isinstance(final, Failure):
            raise FailedError(final)
        if isinstance(final, Cancelled):
            raise CancelledError(final.message)
        return final

    def drop(self) -> None:
        """End the connection; what is at work goes on."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def stop(self, session: HostSession) -> None:
        """Let an engine end if there is a connection; else it does so by itself, later."""
        if self._connection is not None:
            with suppress(AslsegError, ConnectionLostError):
                self._connection.ask(Stop(session=session.key), Ok)

    # -- within

    def _try(self, action: Callable[[Connection], Found], found: list[Found]) -> None:
        try:
            if self._connection is None:
                raise ConnectionLostError
            found.append(action(self._connection))
        except ConnectionLostError:
            self._connect_again()
        except BaseException:  # what comes next would be the rest of an answer
            self.drop()
            raise

    def _to_the_end(self, connection: Connection, work: Work) -> Final:
        while work.final is None:
            self._stop_if_wanted(connection, work.session)
            work.final = self._next_events(connection, work)
            if work.keep and time.monotonic() - work.kept_at > KEEP_EVERY_S:
                work.keep(connection, False)
                work.kept_at = time.monotonic()
        self._is_over = True
        if work.keep is not None:
            work.keep(connection, True)
        if isinstance(work.final, Done):
            return self._fetched(connection, work, work.final)
        return work.final

    def _next_events(self, connection: Connection, work: Work) -> Final | None:
        session = work.session
        asked = Follow(session=session.key, offset=session.offset, wait_s=WAIT_S)
        found = connection.ask(asked, Events)
        session.offset = found.offset
        for line in found.lines:
            event = self._event_in(line, session.number)
            if event is None or event.event == "alive":
                continue
            if isinstance(event, (Done, Failure, Cancelled)):
                return event
            if isinstance(event, Event):
                self._monitor.listener(self._here(event, work))
        if found.lines or found.is_alive:
            return None
        return self._ended(found.log)

    def _event_in(self, line: str, number: int) -> EngineEvent | None:
        try:
            read = parse_event(line)
        except EventError as error:
            if error.number == number and error.is_final:
                return Failure(*in_two(str(error)), "protocol")
            return None
        return read[1] if read is not None and read[0] == number else None

    def _ended(self, log: list[str]) -> Final:
        if self._told_at is not None:
            return Cancelled("Stopped on request.")
        last = f" Its last message: {log[-1]}" if log else ""
        message = f"The engine on {self.host.name} ended unexpectedly.{last}"
        return Failure(message, "Resume the run; what was finished is kept.", "ended")

    def _here(self, event: Event, work: Work) -> Event:
        if isinstance(event, Artifact):
            return replace(event, path=str(_place_here(event.path, work.places)))
        return event

    def _fetched(self, connection: Connection, work: Work, done: Done) -> Done:
        """Return an answer with its files here."""
        files: dict[Any, str] = {}
        wanted: list[tuple[str, Path]] = []
        for name, text in done.files.items():
            folder = f"{connection.root}/{work.session.output}"
            if work.output is not None and text.startswith(f"{folder}/"):
                path = inside(work.output, Path(PurePosixPath(text).name))
                wanted.append((f"{work.session.output}/{path.name}", path))
                files[name] = str(path)
            else:
                files[name] = str(_place_here(text, work.places))
        list(connection.fetch(wanted))
        return done.model_copy(update={"files": files})

    def _stop_if_wanted(self, connection: Connection, session: HostSession) -> None:
        if self._monitor.token.is_cancelled and self._told_at is None:
            self._check()
            connection.ask(Stop(session=session.key), Ok)
            self._told_at = time.monotonic()

    def _check(self) -> None:
        """Give up when that was asked for; called while waiting for the host.

        Raises:
            LeftError: When nobody follows any more.
            CancelledError: When the request was cancelled and the host has not got it yet, or it
                cannot be told.
        """
        if self._is_left():
            msg = f"The work goes on at {self.host.name}."
            raise LeftError(msg)
        if not self._monitor.token.is_cancelled or self._is_over:
            return
        now = time.monotonic()
        if not self._is_sent:
            msg = "Stopped on request before it had begun."
            raise CancelledError(msg)
        self._cancelled_at = self._cancelled_at or now
        if self._told_at is None and now - self._cancelled_at > TOLD_WITHIN_S:
            self._say_untold()
        if self._told_at is not None and now - self._told_at > STOPPED_WITHIN_S:
            msg = f"{self.host.name} was told to stop, and has not said yet that it has."
            raise CancelledError(msg)

    def _say_untold(self) -> None:
        msg = (
            f"{self.host.name} cannot be reached and was not told to stop: the work goes on there. "
            "Follow it and stop it when the host can be reached again."
        )
        self._monitor.warn(msg)
        raise CancelledError(msg)

    def _connect_again(self) -> None:
        """Connect anew, as often as it takes.

        Raises:
            HostError: When trying again is of no use.
        """
        self.drop()
        goes_on = "; the work goes on there" if self._is_sent else ""
        task = f"connection to {self.host.name} is lost{goes_on}; connecting again"
        for attempt in range(2**31):
            self._monitor.listener(Progress(task, 0, 0))
            self._pause(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            try:
                self._connection = Connection(self.host, self._check)
            except HostError as error:
                if error.is_lasting:
                    raise
            else:
                return

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._check()
            if self._monitor.token.is_cancelled:
                self._say_untold()
            time.sleep(_LOOK_EVERY_S)


def _place_here(text: str, places: Mapping[str, Path]) -> PurePosixPath | Path:
    """Return what stands here for a path of the host; itself where nothing does."""
    path = PurePosixPath(text)
    for there, here in places.items():
        if path.is_relative_to(there):
            return here.joinpath(*path.relative_to(there).parts)
    return path
