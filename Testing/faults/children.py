"""Child processes watched to their end: exit code, words, time, memory, what outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import psutil

LOGIC = Path(__file__).resolve().parents[2] / "Logic"
TESTING = LOGIC.parent / "Testing"


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code; negative for a signal; None when it was still running at the time limit.
        out: What it wrote on stdout.
        err: What it wrote on stderr.
        seconds: That it took.
        peak_mib: The most memory that it held, MiB.
        orphans: Processes of its session that outlived it by more than a second (ended since).
    """

    code: int | None
    out: str
    err: str
    seconds: float
    peak_mib: float
    orphans: tuple[str, ...] = ()


def environment(**changes: str) -> dict[str, str]:
    """Return an environment in which a child imports this checkout's library, on one thread."""
    paths = os.pathsep.join([str(LOGIC), str(TESTING)])
    quiet = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "QT_QPA_PLATFORM": "offscreen"}
    return {**os.environ, **quiet, "PYTHONPATH": paths, "PYTHONUTF8": "1", **changes}


def run_child(
    arguments: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    limit_s: float = 120.0,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run this Python with arguments (`-m`, `aslseg`, ...) in a session of its own, to its end.

    Args:
        arguments: Of the interpreter.
        stdin: What the child reads.
        limit_s: After which it is killed.
        folder: Where it runs.
        env: Its environment; `environment()` if not given.
    """
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=dict(env or environment()),
        start_new_session=True,
    )
    watched = PeakMemory(child.pid)
    try:
        out, err = child.communicate(stdin, timeout=limit_s)
        code: int | None = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        code = None
    seconds = time.monotonic() - began
    return Ended(
        code,
        out.decode(errors="replace"),
        err.decode(errors="replace"),
        seconds,
        watched.stop(),
        end_session(child.pid),
    )


def end_session(session: int) -> tuple[str, ...]:
    """Name the processes of a session that are there for longer than a second, and end them."""
    limit = time.monotonic() + 1.0
    while (left := _members(session)) and time.monotonic() < limit:
        time.sleep(0.05)
    names = []
    for process in left:
        with suppress(psutil.Error):
            names.append(" ".join(process.cmdline())[:200])
            process.kill()
    return tuple(names)


def _members(session: int) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _belongs(process, session)]


def _belongs(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False


class PeakMemory:
    """Follows the most resident memory that a process held, as the kernel counts it."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak, self._ended = pid, 0.0, Event()
        self._thread = Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(0.05):
            self._peak = max(self._peak, _high_water_mib(self._pid))

    def stop(self) -> float:
        """Return the peak in MiB; where the system does not tell it, 0."""
        self._ended.set()
        self._thread.join()
        return self._peak


def _high_water_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
