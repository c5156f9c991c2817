"""The engine process: requests as JSON lines on standard input, events on standard output.

`python -m aslseg.engine`. A thread reads the requests, so that `cancel` acts at once; the work is
done in the main thread, one request after the other. Standard output carries protocol lines and
nothing else: prints go to standard error. The libraries are imported with the first request that
needs them. The process ends when its input ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import IO, Any

from aslseg import __version__
from aslseg.engine.mailbox import Mailbox
from aslseg.engine.protocol import (
    ALIVE_S,
    PROTOCOL,
    BadLine,
    Request,
    RequestError,
    parse_request,
    read_lines,
)
from aslseg.errors import AslsegError, CancelledError
from aslseg.events import Event, Monitor
from aslseg.failures import failure_of

LAST_RESORT_S = 10.0
"""Seconds that the process may live on after the end of its input."""
_NOT_BEGUN = "Stopped on request before it had begun."

logger = logging.getLogger(__name__)


class EventWriter:
    """Writes events, each whole, from whichever thread; silent when nobody reads any more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.worked_at = time.monotonic()

    def write(self, number: int, event: str, **facts: Any) -> None:
        """Write one line."""
        line = json.dumps({"id": number, "event": event, **facts})
        with self._lock, suppress(OSError, ValueError):  # the end of the input ends the process
            self._stream.write(line + "\n")
            self._stream.flush()

    def write_work(self, number: int, event: str, **facts: Any) -> None:
        """Write one line, and note that the work goes on."""
        self.worked_at = time.monotonic()
        self.write(number, event, **facts)


class RequestReader:
    """Reads requests in a thread of its own, and cancels those that are under way.

    Args:
        lines: Standard input.
        mailbox: Where requests go.
        writer: Writes the events of lines that are no request, and of requests that end here.
    """

    def __init__(
        self, lines: Iterable[str | BadLine], mailbox: Mailbox, writer: EventWriter
    ) -> None:
        self._lines = lines
        self._mailbox = mailbox
        self._writer = writer

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self._lines:
                if not self._handle(line):
                    break
        except OSError:  # the input broke, which is its end
            logger.warning("The input of the engine broke")
        finally:
            self._end_all(self._mailbox.close())
            _end_process_after(LAST_RESORT_S)

    def _handle(self, line: str | BadLine) -> bool:
        """Handle a line; False for the last one."""
        try:
            request = parse_request(line)
            if request is None:
                return True
            if request.do == "close":
                self._close(request)
                return False
            if request.do == "cancel":
                self._cancel(request)
            elif refusal := self._mailbox.put(request):
                raise RequestError(refusal, request.number)
        except RequestError as error:
            self._refuse(error, error.number)
        except Exception as error:  # the thread's edge: it has to go on reading
            self._refuse(error, 0)
        return True

    def _close(self, request: Request) -> None:
        self._end_all(self._mailbox.close())
        self._finish_at_once(request, [])

    def _cancel(self, request: Request) -> None:
        wanted = request.arguments.get("request")
        if wanted is not None and type(wanted) is not int:
            msg = "The request's 'request' cannot be used: it is the 'id' of a request, or null."
            raise RequestError(msg, request.number)
        gone, cancelled = self._mailbox.cancel(wanted)
        self._end_all(gone)
        self._finish_at_once(request, cancelled)

    def _end_all(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._writer.write(request.number, "cancelled", message=_NOT_BEGUN)

    def _finish_at_once(self, request: Request, cancelled: list[int]) -> None:
        if request.number and not self._mailbox.knows(request.number):
            facts = {"cancelled": cancelled}
            self._writer.write(request.number, "done", files={}, facts=facts)

    def _refuse(self, error: Exception, number: int) -> None:
        if self._mailbox.knows(number):  # else the refusal would be taken for that one's end
            number = 0
        self._writer.write(number, "failed", **failure_of(error, "reading a request"))


Task = Callable[[Mapping[str, Any], Monitor], dict[str, Any]]


class Worker:
    """Serves requests one after the other.

    Args:
        lines: Where requests come from.
        stream: Where events go.
        tasks: Returns the tasks by name; called with the first request.
    """

    def __init__(
        self,
        lines: Iterable[str | BadLine],
        stream: IO[str],
        tasks: Callable[[], Mapping[str, Task]],
    ) -> None:
        self._writer = EventWriter(stream)
        self._mailbox = Mailbox()
        self._reader = RequestReader(lines, self._mailbox, self._writer)
        self._load = tasks
        self._tasks: Mapping[str, Task] | None = None

    def run(self) -> None:
        """Serve until the input ends or a `close` comes."""
        facts = {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}
        self._writer.write(0, "ready", **facts)
        self._reader.start()
        threading.Thread(target=self._show_life, name="alive", daemon=True).start()
        while (request := self._mailbox.take()) is not None:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        self._writer.worked_at = time.monotonic()
        event, facts = self._result_of(request)
        self._mailbox.ended()
        self._writer.write(request.number, event, **facts)

    def _result_of(self, request: Request) -> tuple[str, dict[str, Any]]:
        monitor = Monitor(partial(self._write_event, request), request.token, detailed=True)
        try:
            monitor.check()
            return "done", self._task(request, monitor)(request.arguments, monitor)
        except CancelledError as error:
            return "cancelled", {"message": str(error)}
        except (Exception, SystemExit) as error:  # the job's edge: everything becomes words
            if isinstance(error, AslsegError):
                logger.info("Request %s failed: %s", request.do, error)
            return "failed", failure_of(error, request.do)

    def _write_event(self, request: Request, event: Event) -> None:
        values = event.to_json()
        self._writer.write_work(request.number, values.pop("event"), **values)

    def _task(self, request: Request, monitor: Monitor) -> Task:
        if self._tasks is None:
            for _ in monitor.track(["libraries"], "Loading the libraries"):
                self._tasks = self._load()
        tasks = self._tasks or {}
        if request.do not in tasks:
            msg = f"'{request.do}' is nothing that the engine can do; ask for {', '.join(tasks)}."
            raise RequestError(msg)
        return tasks[request.do]

    def _show_life(self) -> None:
        """Write `alive` events: the process lives, and for how long its work wrote no event."""
        while True:
            time.sleep(ALIVE_S)
            request = self._mailbox.at_work
            if request is not None:
                quiet_s = round(time.monotonic() - self._writer.worked_at, 1)
                self._writer.write(request.number, "alive", quiet_s=quiet_s)


def own_output() -> IO[str]:
    """Keep standard output for the protocol: from now on, prints of any kind go to standard error.

    Returns:
        The stream that protocol lines are written to.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(kept, "w", encoding="utf-8", newline="\n")


def own_input() -> IO[bytes]:
    """Keep standard input for the protocol: programs that this process starts find it empty.

    They would take lines away, or set the pipe to not block, which looks like its end.

    Returns:
        The stream that requests are read from.
    """
    kept = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return os.fdopen(kept, "rb")


def _end_process_after(seconds: float) -> None:
    """End the process after some seconds, though a step hangs."""
    timer = threading.Timer(seconds, _end_process)
    timer.daemon = True
    timer.start()


def _end_process() -> None:
    """End this process at once, with what it started if it leads a group of its own."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _tasks() -> Mapping[str, Task]:
    from aslseg.engine.tasks import Engine

    return Engine().tasks


def main() -> None:
    """Serve requests from standard input until it ends."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    lines, stream = read_lines(own_input()), own_output()
    Worker(lines, stream, _tasks).run()
    logging.shutdown()
    os._exit(0)  # every event is written; taking the libraries down can take seconds
