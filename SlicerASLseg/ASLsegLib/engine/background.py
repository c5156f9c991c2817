"""Short work beside the application: files are read and written in a thread, results shown here.

The thread never touches the scene or a widget. `poll`, called by the panel's timer, hands results
over in the application's own thread. All is plain Python, signals too: Qt's own are unsafe on
Python classes in Slicer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aslseg.events import CancelToken, Event, Monitor
from aslseg.failures import as_known

logger = logging.getLogger(__name__)


class Signal:
    """Calls everybody who connected, in the order of connection, with what is emitted."""

    def __init__(self) -> None:
        self._listeners: list[Callable[..., Any]] = []

    def connect(self, listener: Callable[..., Any]) -> None:
        """Call `listener` from now on; connecting it twice changes nothing."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable[..., Any]) -> None:
        """Call `listener` no more; one that is not connected is ignored."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, *values: Any) -> None:
        """Call the listeners; those that disconnect meanwhile are called for the last time."""
        for listener in list(self._listeners):
            listener(*values)


@dataclass(frozen=True)
class Task:
    """Something to be done in the thread.

    Attributes:
        name: For messages: "saving the label map".
        work: Called in the thread.
        then: Called with the result in the application's thread.
        otherwise: Called there with what went wrong.
    """

    name: str
    work: Callable[[Monitor], Any]
    then: Callable[[Any], None]
    otherwise: Callable[[Exception], None]


class Background:
    """Does tasks one after the other in one thread.

    Attributes:
        event: Emits the events of tasks.
    """

    def __init__(self) -> None:
        self.event = Signal()
        self._waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._token = CancelToken()
        self._open = 0
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a task is waiting, under way, or not yet handed over."""
        return self._open > 0

    def start(
        self,
        name: str,
        work: Callable[[Monitor], Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None],
    ) -> None:
        """Do something as soon as the tasks before it are done."""
        self._open += 1
        self._waiting.put(Task(name, work, then, otherwise))
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="ASLseg files", daemon=True)
            self._thread.start()

    def poll(self) -> None:
        """Hand over what has been done; called by a timer."""
        while not self._ready.empty():
            self._ready.get()()

    def cancel(self) -> None:
        """Ask what is under way to stop between two steps."""
        self._token.cancel()
        self._token = CancelToken()

    def close(self) -> None:
        """Stop what is under way and end the thread; nothing is handed over any more."""
        self.cancel()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread = None

    def _serve(self) -> None:
        while (task := self._waiting.get()) is not None:
            monitor = Monitor(self._forward, self._token)
            try:
                result = task.work(monitor)
            except Exception as error:  # the thread's edge: handed to the caller
                known = as_known(error, task.name)
                if known is not error:
                    logger.error("%s", known)
                self._hand_over(task.otherwise, known)
            else:
                self._hand_over(task.then, result)

    def _forward(self, event: Event) -> None:
        self._ready.put(lambda: self.event.emit(event))

    def _hand_over(self, receiver: Callable[[Any], None], value: Any) -> None:
        def deliver() -> None:
            self._open -= 1
            receiver(value)

        self._ready.put(deliver)
