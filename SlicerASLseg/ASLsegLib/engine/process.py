"""A child process with its threads: its lines and its end come out of one queue.

Nothing here waits in the caller's thread: starting, writing, reading and killing each have a thread
of their own.
"""

from __future__ import annotations

import atexit
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from aslseg.engine.protocol import MAX_LINE_BYTES, encode

STDERR_TAIL_LINES = 40
JOIN_S = 2.0
MAX_LOG_LINE = 10_000
"""A longer line of the log is parted, so that no program that prints without end fills memory."""
_QUITTING_S = 1.0


@dataclass(frozen=True)
class EventLine:
    """A line of the protocol."""

    event: dict[str, Any]


@dataclass(frozen=True)
class LogLine:
    """Any other line, of standard output or standard error."""

    line: str


@dataclass(frozen=True)
class ProcessEnded:
    """The last item of the queue: the process is gone and all its lines came before.

    Attributes:
        code: Exit code; None when it could not be started.
        stderr_tail: The last lines of standard error.
    """

    code: int | None
    stderr_tail: tuple[str, ...]


class Child:
    """Starts a command in a process group of its own.

    Args:
        command: What to run.
        environment: All its environment variables.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.items: queue.SimpleQueue[EventLine | LogLine | ProcessEnded] = queue.SimpleQueue()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr_tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._launched = threading.Event()
        self._exited = threading.Event()
        self._gone = threading.Event()
        self._killing = threading.Lock()
        _children.add(self)
        _thread(self._live, list(command), dict(environment))

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended; its last lines may still be in `items`."""
        return self._gone.is_set()

    @property
    def is_ending(self) -> bool:
        """Whether the process has ended, though its last lines may still be read."""
        return self._exited.is_set() or self._gone.is_set()

    @property
    def pid(self) -> int | None:
        """Process id; None until it is started."""
        return None if self._process is None else self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Write a line to its standard input, soon.

        Raises:
            RequestError: When the line is longer than the engine reads.
            TypeError: When the message holds something that JSON cannot.
            ValueError: When it holds a number that is not finite.
        """
        self._outgoing.put(encode(message))

    def end(self, grace_s: float) -> None:
        """Let it end, and kill the whole tree if it is not gone in time; returns at once."""
        self.close_input()
        self.kill_within(grace_s)

    def close_input(self) -> None:
        """Close its standard input, which a worker takes as the request to end."""
        self._outgoing.put(None)

    def kill_within(self, grace_s: float) -> None:
        """Kill the whole tree if it is not gone in time; returns at once."""
        _thread(self._kill_after, grace_s)

    def wait(self, timeout_s: float) -> bool:
        """Wait in this thread until it is gone; return whether it is."""
        return self._gone.wait(timeout_s)

    def kill(self) -> None:
        """Kill the whole tree in this thread."""
        process = self._process
        with self._killing:  # two at once would each find half of the tree
            if process is not None and not self._gone.is_set():
                kill_tree(process.pid)

    def _kill_after(self, grace_s: float) -> None:
        self._launched.wait()
        if not self._gone.wait(grace_s):
            self.kill()

    def _live(self, command: list[str], environment: dict[str, str]) -> None:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                **_own_group(),
            )
        except (OSError, ValueError) as error:
            self._gone.set()
            self._launched.set()
            self.items.put(ProcessEnded(None, (str(error),)))
            return
        self._process = process
        self._launched.set()
        readers = [_thread(self._read, process.stdout), _thread(self._read_log, process.stderr)]
        writer = _thread(self._write, process.stdin)
        code = _wait_and_clear(process)
        self._exited.set()
        self._outgoing.put(None)
        for thread in (*readers, writer):
            thread.join(JOIN_S)
        self._gone.set()
        self.items.put(ProcessEnded(code, tuple(self._stderr_tail)))

    def _read(self, stream: IO[bytes]) -> None:
        while raw := stream.readline(MAX_LINE_BYTES):
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            event = _event_in(line)
            self.items.put(LogLine(line) if event is None else EventLine(event))

    def _read_log(self, stream: IO[bytes]) -> None:
        while raw := stream.readline(MAX_LOG_LINE):
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            self._stderr_tail.append(line)
            self.items.put(LogLine(line))

    def _write(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):  # it died; its end is reported elsewhere
            while (line := self._outgoing.get()) is not None:
                stream.write(line)
                stream.flush()
        with suppress(OSError, ValueError):
            stream.close()


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, at once."""
    try:
        import psutil
    except ImportError:
        _kill_without_psutil(pid)
        return
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process.kill()
    _kill_group(pid)


def _kill_without_psutil(pid: int) -> None:
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False)
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _wait_and_clear(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end, and kill what the process left running in its group.

    The group is killed before the process is reaped: until then its number is no one else's.
    """
    if hasattr(os, "waitid"):
        with suppress(ChildProcessError):  # somebody else reaps the application's children
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            _kill_group(process.pid)
    return process.wait()


def _own_group() -> dict[str, Any]:
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags}
    return {"start_new_session": True}


def _event_in(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_event = isinstance(values, dict) and isinstance(values.get("event"), str)
    return values if is_event else None


def _thread(target: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


_children: weakref.WeakSet[Child] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Leave no child behind when the application quits; no thread can be started any more."""
    alive = [child for child in _children if not child.is_gone]
    for child in alive:
        child.close_input()
    deadline = time.monotonic() + _QUITTING_S
    for child in alive:
        if not child.wait(max(0.0, deadline - time.monotonic())):
            child.kill()
