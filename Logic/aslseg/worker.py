"""The engine process: requests as JSON lines on standard input, events on standard output.

`python -m aslseg.worker`. A thread reads the requests, so that `cancel` is heard at once; the work
is done in the main thread, one request after the other. Standard output carries protocol lines and
nothing else: whatever prints goes to standard error. What a request needs is imported when it
comes, so the process is ready within a moment.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import IO, Any

from aslseg import __version__
from aslseg.errors import CancelledError
from aslseg.events import CancelToken, Event, Monitor
from aslseg.worker_errors import failure_of

PROTOCOL = 1
LAST_RESORT_S = 10.0
"""How long the process may live on after nobody listens any more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """A line that asked for something.

    Attributes:
        number: Its `id`, given back with all its events.
        do: What is wanted.
        arguments: Everything else.
        token: Cancelled when the request is.
    """

    number: int
    do: str
    arguments: Mapping[str, Any]
    token: CancelToken = field(default_factory=CancelToken)


class Speaker:
    """Writes events, each whole, from whichever thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, number: int, event: str, **facts: Any) -> None:
        """Write one line."""
        line = json.dumps({"id": number, "event": event, **facts})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class Listener:
    """Reads requests in a thread of its own, and cancels those that are under way.

    Args:
        lines: Standard input.
        speaker: Told of lines that are no request.
    """

    def __init__(self, lines: IO[str], speaker: Speaker) -> None:
        self.requests: SimpleQueue[Request | None] = SimpleQueue()
        self._lines = lines
        self._speaker = speaker
        self._waiting: dict[int, Request] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._listen, name="requests", daemon=True).start()

    def answered(self, request: Request) -> None:
        """Forget a request that has ended."""
        with self._lock:
            self._waiting.pop(request.number, None)

    def _listen(self) -> None:
        for line in self._lines:
            if not self._obey(line.strip()):
                break
        self._cancel(None)
        self.requests.put(None)
        _end_process_after(LAST_RESORT_S)

    def _obey(self, line: str) -> bool:
        """Act on a line; False for the last one."""
        if not line:
            return True
        try:
            values = json.loads(line)
            request = Request(int(values.pop("id", 0)), str(values.pop("do")), values)
        except (ValueError, AttributeError, KeyError, TypeError):
            self._refuse(line)
            return True
        if request.do == "cancel":
            self._cancel(request.arguments.get("request"))
        elif request.do != "close":
            with self._lock:
                self._waiting[request.number] = request
            self.requests.put(request)
        return request.do != "close"

    def _refuse(self, line: str) -> None:
        message = f"This line is no request: {line[:200]}"
        remedy = 'Send an object with "id" and "do".'
        self._speaker.say(0, "failed", message=message, remedy=remedy, kind="request")

    def _cancel(self, number: int | None) -> None:
        with self._lock:
            for request in self._waiting.values():
                if number is None or request.number == number:
                    request.token.cancel()


Task = Callable[[Mapping[str, Any], Monitor], dict[str, Any]]


class Worker:
    """Answers requests one after the other.

    Args:
        lines: Where requests come from.
        stream: Where events go.
        tasks: Gives what can be done, by name, when it is first needed.
    """

    def __init__(
        self, lines: IO[str], stream: IO[str], tasks: Callable[[], Mapping[str, Task]]
    ) -> None:
        self._speaker = Speaker(stream)
        self._listener = Listener(lines, self._speaker)
        self._load = tasks
        self._tasks: Mapping[str, Task] | None = None

    def run(self) -> None:
        """Answer until the input ends or says `close`."""
        self._listener.start()
        facts = {"version": __version__, "protocol": PROTOCOL, "pid": os.getpid()}
        self._speaker.say(0, "ready", **facts)
        while (request := self._listener.requests.get()) is not None:
            self._answer(request)
            self._listener.answered(request)

    def _answer(self, request: Request) -> None:
        tell = partial(self._tell, request)
        monitor = Monitor(tell, request.token, detailed=True)
        try:
            monitor.check()
            result = self._task(request, monitor)(request.arguments, monitor)
        except CancelledError as error:
            self._speaker.say(request.number, "cancelled", message=str(error))
        except (Exception, SystemExit) as error:  # the job's edge: everything becomes words
            logger.exception("Request %s failed", request.do)
            self._speaker.say(request.number, "failed", **failure_of(error))
        else:
            self._speaker.say(request.number, "done", **result)

    def _tell(self, request: Request, event: Event) -> None:
        values = event.to_json()
        self._speaker.say(request.number, values.pop("event"), **values)

    def _task(self, request: Request, monitor: Monitor) -> Task:
        if self._tasks is None:
            for _ in monitor.track(["libraries"], "Loading the libraries"):
                self._tasks = self._load()
        tasks = self._tasks or {}
        if request.do not in tasks:
            msg = f"'{request.do}' is nothing that the engine can do; ask for {', '.join(tasks)}."
            raise ValueError(msg)
        return tasks[request.do]


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


def _end_process_after(seconds: float) -> None:
    """End the process though a step hangs: nobody is left who could ask for that."""
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


def _tasks() -> Mapping[str, Task]:
    from aslseg.worker_tasks import Engine

    return Engine().tasks


def main() -> None:
    """Serve whoever started this process."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    stream = own_output()
    Worker(sys.stdin, stream, _tasks).run()


if __name__ == "__main__":
    main()
