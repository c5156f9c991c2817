"""The engine's process with its threads: its lines and its end come out of one queue.

Nothing here waits in the caller's thread: starting, writing, reading and killing each have a thread
of their own. `explain` says in words why a process ended.
"""

from __future__ import annotations

import atexit
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

from aslseg.failures import OUT_OF_GPU_MEMORY, OUT_OF_MEMORY, Failure, package_missing

STDERR_TAIL_LINES = 40
JOIN_S = 2.0
MAX_LOG_LINE = 10_000
"""A longer line of the log is parted, so that no program that prints without end fills memory."""
_QUITTING_S = 1.0
_KILLED_CODES = (-9, 137)
_CRASHED_CODES = (-11, -6, -7, -4, 139, 134, 0xC0000005, 0xC0000409, -1073741819, -1073740791)


@dataclass(frozen=True)
class OutputLine:
    """A line of standard output."""

    text: str


@dataclass(frozen=True)
class LogLine:
    """A line of standard error."""

    text: str


@dataclass(frozen=True)
class ProcessEnded:
    """The last item of the queue: the process is gone and all its lines came before.

    Attributes:
        code: Exit code; None when it could not be started.
        stderr_tail: The last lines of standard error.
    """

    code: int | None
    stderr_tail: tuple[str, ...]


Item: TypeAlias = OutputLine | LogLine | ProcessEnded


class EngineProcess:
    """Starts a command in a process group of its own.

    Args:
        command: What to run.
        environment: All its environment variables.
        most_line_bytes: Longer lines of standard output are parted.

    Attributes:
        items: Lines and the end of the process, in order.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], most_line_bytes: int
    ) -> None:
        self.items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._most_line_bytes = most_line_bytes
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr_tail: deque[str] = deque(maxlen=STDERR_TAIL_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._launched = threading.Event()
        self._exited = threading.Event()
        self._gone = threading.Event()
        self._killing = threading.Lock()
        _processes.add(self)
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

    def send(self, line: bytes) -> None:
        """Write a line to its standard input, soon."""
        self._outgoing.put(line)

    def end(self, grace_s: float) -> None:
        """Let it end, and kill the whole tree if it is not gone in time; returns at once."""
        self.close_input()
        self.kill_within(grace_s)

    def close_input(self) -> None:
        """Close its standard input, which an engine takes as the request to end."""
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
        while raw := stream.readline(self._most_line_bytes):
            self.items.put(OutputLine(raw.decode("utf-8", "replace").rstrip("\r\n")))

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


def _thread(target: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


_processes: weakref.WeakSet[EngineProcess] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Leave no process behind when the application quits; no thread can be started any more."""
    alive = [process for process in _processes if not process.is_gone]
    for process in alive:
        process.close_input()
    deadline = time.monotonic() + _QUITTING_S
    for process in alive:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.kill()


def explain(code: int | None, stderr_tail: Sequence[str]) -> Failure:
    """Say why a process ended before its request was served.

    Args:
        code: Its exit code as `subprocess` gives it; None when it never started.
        stderr_tail: The last lines of its standard error.
    """
    text = "\n".join(stderr_tail)
    if code is None:
        return Failure(
            f"The engine could not be started: {_last(stderr_tail)}.",
            "Check the Python of this application, or reinstall the extension.",
            "start",
        )
    for pattern, failure in () if code in _KILLED_CODES else _PATTERNS:
        found = re.search(pattern, text)
        if found is not None:
            return failure(found)
    return _by_code(code, stderr_tail)


def _broken_package(found: re.Match[str]) -> Failure:
    return Failure(
        f"A Python package cannot be loaded: {found.group(1).strip()}.",
        "Install the requirements again and restart the application.",
        "package",
    )


_PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], Failure]], ...] = (
    (
        r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        lambda _: OUT_OF_GPU_MEMORY,
    ),
    (
        r"MemoryError|DefaultCPUAllocator: (?:not enough|can't allocate) memory|bad_alloc",
        lambda _: OUT_OF_MEMORY,
    ),
    (r"No module named '?([\w.]+)'?", lambda found: package_missing(found.group(1))),
    (
        r"(?:ImportError|OSError): (.*(?:DLL|shared object|dylib|undefined symbol).*)",
        _broken_package,
    ),
    (  # Slicer's launcher of Python ends with code 1 then, whatever has happened
        r"exit abnormally - Report the problem",
        lambda _: Failure(
            "The engine was killed by the system, or crashed; most often memory ran out.",
            "Close other programs, crop the volume, or choose a smaller SAM; then resume. If that "
            "does not help, choose the CPU as device or reinstall PyTorch.",
            "killed",
        ),
    ),
)


def _by_code(code: int, stderr_tail: Sequence[str]) -> Failure:
    if code in _KILLED_CODES:
        return Failure(
            "The engine was killed by the system, probably because memory ran out.",
            "Close other programs, crop the volume, or choose a smaller SAM; then resume.",
            "memory",
        )
    if code in _CRASHED_CODES:
        return Failure(
            f"The engine crashed (code {code}).",
            "Try again; if it happens again, choose the CPU as device or reinstall PyTorch.",
            "crash",
        )
    reported = f" Its last message: {_last(stderr_tail)}" if stderr_tail else ""
    return Failure(
        f"The engine ended unexpectedly (code {code}).{reported}",
        "Try again; the log says more.",
        "ended",
    )


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
