"""The engine process: requests as JSON lines on standard input, events on standard output.

`python -m aslseg.engine`. A thread reads the requests, so that `cancel` acts at once; the work is
done in the main thread, one request after the other. Standard output carries protocol lines and
nothing else: prints go to standard error. The libraries are imported with the first request that
needs them. The process ends when its input ends.
"""

from __future__ import annotations

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
from aslseg.engine.facts import CancelFacts
from aslseg.engine.protocol import (
    ALIVE_S,
    MAX_WAITING,
    Alive,
    BadLine,
    Done,
    EngineEvent,
    Ready,
    Request,
    RequestError,
    event_line,
    parse_request,
    read_lines,
)
from aslseg.errors import AslsegError, CancelledError
from aslseg.events import Cancelled, Monitor
from aslseg.failures import failure_of
from aslseg.imports import MONAI_EXTRAS, without_imports

LAST_RESORT_S = 10.0
"""Seconds that the process may live on after the end of its input."""
_NOT_BEGUN = Cancelled("Stopped on request before it had begun.")

logger = logging.getLogger(__name__)


class RequestQueue:
    """Hands requests from the thread that reads them to the one that works.

    Each request that was taken in leaves exactly once: by `take`, or as a result of `cancel` or
    `close`.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Request] = {}
        self._at_work: Request | None = None
        self._is_closed = False
        self._changed = threading.Condition()

    @property
    def at_work(self) -> Request | None:
        """The request that was taken and has not ended yet."""
        return self._at_work

    def knows(self, number: int) -> bool:
        """Tell whether a request of this number waits or is worked on."""
        with self._changed:
            return self._is_known(number)

    def put(self, request: Request) -> str:
        """Take in a request; return why it is refused, else an empty text."""
        with self._changed:
            if self._is_known(request.number):
                return f"Request {request.number} is under way already; give each its own 'id'."
            if len(self._waiting) >= MAX_WAITING:
                return f"{MAX_WAITING} requests are waiting; send more when some are answered."
            self._waiting[request.number] = request
            self._changed.notify()
            return ""

    def take(self) -> Request | None:
        """Wait for the next request; None when there will be no more."""
        with self._changed:
            self._at_work = None
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            self._at_work = self._waiting.pop(next(iter(self._waiting)))
            return self._at_work

    def ended(self) -> None:
        """Forget the request that is worked on; call before its last event is written."""
        with self._changed:
            self._at_work = None

    def cancel(self, number: int | None = None) -> tuple[list[Request], list[int]]:
        """Cancel one request, or all.

        Returns:
            Those that had not begun, which are gone now; and the numbers of all that are cancelled.
        """
        with self._changed:
            wanted = [n for n in self._waiting if number in (None, n)]
            gone = [self._waiting.pop(n) for n in wanted]
            if self._at_work is not None and number in (None, self._at_work.number):
                self._at_work.token.cancel()
                wanted.append(self._at_work.number)
            return gone, wanted

    def close(self) -> list[Request]:
        """Cancel all and take in no more; return those that had not begun."""
        gone, _ = self.cancel()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        return gone

    def _is_known(self, number: int) -> bool:
        return number in self._waiting or (
            self._at_work is not None and self._at_work.number == number
        )


class EventWriter:
    """Writes events, each whole, from whichever thread; silent when nobody reads any more."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.worked_at = time.monotonic()

    def write(self, number: int, event: EngineEvent) -> None:
        """Write an event of a request as one line."""
        line = event_line(number, event)
        with self._lock, suppress(OSError, ValueError):  # the end of the input ends the process
            self._stream.write(line + "\n")
            self._stream.flush()

    def write_work(self, number: int, event: EngineEvent) -> None:
        """Write an event of the work itself, and note that it goes on."""
        self.worked_at = time.monotonic()
        self.write(number, event)


class RequestReader:
    """Reads requests in a thread of its own, and cancels those that are under way.

    Args:
        lines: Standard input.
        queue: Where requests go.
        writer: Writes the events of lines that are no request, and of requests that end here.
    """

    def __init__(
        self, lines: Iterable[str | BadLine], queue: RequestQueue, writer: EventWriter
    ) -> None:
        self._lines = lines
        self._queue = queue
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
            self._end_all(self._queue.close())
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
            elif refusal := self._queue.put(request):
                raise RequestError(refusal, request.number)
        except RequestError as error:
            self._refuse(error, error.number)
        except Exception as error:  # the thread's edge: it has to go on reading
            self._refuse(error, 0)
        return True

    def _close(self, request: Request) -> None:
        self._end_all(self._queue.close())
        self._finish_at_once(request, [])

    def _cancel(self, request: Request) -> None:
        wanted = request.arguments.get("request")
        if wanted is not None and type(wanted) is not int:
            msg = "The request's 'request' cannot be used: it is the 'id' of a request, or null."
            raise RequestError(msg, request.number)
        gone, cancelled = self._queue.cancel(wanted)
        self._end_all(gone)
        self._finish_at_once(request, cancelled)

    def _end_all(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._writer.write(request.number, _NOT_BEGUN)

    def _finish_at_once(self, request: Request, cancelled: list[int]) -> None:
        if request.number and not self._queue.knows(request.number):
            self._writer.write(request.number, Done(facts=CancelFacts(cancelled=cancelled)))

    def _refuse(self, error: Exception, number: int) -> None:
        if self._queue.knows(number):  # else the refusal would be taken for that one's end
            number = 0
        self._writer.write(number, failure_of(error, "reading a request"))


Task = Callable[[Mapping[str, Any], Monitor], Done]


class Server:
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
        self._queue = RequestQueue()
        self._reader = RequestReader(lines, self._queue, self._writer)
        self._load = tasks
        self._tasks: Mapping[str, Task] | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether a request is worked on."""
        return self._queue.at_work is not None

    def run(self) -> None:
        """Serve until the input ends or a `close` comes."""
        self._writer.write(0, Ready(version=__version__, pid=os.getpid()))
        self._reader.start()
        threading.Thread(target=self._show_life, name="alive", daemon=True).start()
        while (request := self._queue.take()) is not None:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        self._writer.worked_at = time.monotonic()
        event = self._result_of(request)
        self._queue.ended()
        self._writer.write(request.number, event)

    def _result_of(self, request: Request) -> EngineEvent:
        write = partial(self._writer.write_work, request.number)
        monitor = Monitor(write, request.token, detailed=True)
        try:
            monitor.check()
            return self._task(request, monitor)(request.arguments, monitor)
        except CancelledError as error:
            return Cancelled(str(error))
        except (Exception, SystemExit) as error:  # the job's edge: everything becomes words
            if isinstance(error, AslsegError):
                logger.info("Request %s failed: %s", request.do, error)
            return failure_of(error, request.do)

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
            request = self._queue.at_work
            if request is not None:
                quiet_s = round(time.monotonic() - self._writer.worked_at, 1)
                self._writer.write(request.number, Alive(quiet_s=quiet_s))


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


def load_tasks() -> Mapping[str, Task]:
    """Return what the engine can do; imports the libraries."""
    with without_imports(*MONAI_EXTRAS):
        from aslseg.engine.tasks import Engine

    return Engine().tasks


def main() -> None:
    """Serve requests from standard input until it ends."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    lines, stream = read_lines(own_input()), own_output()
    Server(lines, stream, load_tasks).run()
    logging.shutdown()
    os._exit(0)  # every event is written; taking the libraries down can take seconds
