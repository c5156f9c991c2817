"""Children that are forked from a server which has imported everything: a moment each.

The command line runs in them as a user runs it, with its exit code and its words.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from faults.children import Ended, end_session

if os.name == "nt":
    pytest.skip("this system forks no processes", allow_module_level=True)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["faults.preload"])

Job = Callable[..., None]


@dataclass
class Started:
    """A child at work.

    Attributes:
        process: The child.
        folder: Where its words go.
        began: By the monotonic clock.
    """

    process: Any
    folder: tempfile.TemporaryDirectory[str]
    began: float

    def ended(self, limit_s: float = 120.0) -> Ended:
        """Wait for the end; after the limit the child is killed."""
        self.process.join(limit_s)
        code = self.process.exitcode
        if code is None:
            self.kill()
        seconds = time.monotonic() - self.began
        orphans = end_session(self.process.pid)
        place = Path(self.folder.name)
        texts = [(place / name).read_text(errors="replace") for name in ("out", "err")]
        peak = place / "peak"
        mib = float(peak.read_text(encoding="utf-8")) if peak.exists() else 0.0
        self.folder.cleanup()
        return Ended(code, texts[0], texts[1], seconds, mib, orphans)

    def kill(self) -> None:
        """Kill the child, as the system does when memory is short, and wait for that."""
        try:
            os.kill(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.join()


def start(context: Job, *arguments: Any, setup: Sequence[tuple[Any, ...]] = ()) -> Started:
    """Run a function of a module in a forked child.

    Args:
        context: Its `SystemExit` is the child's exit code.
        arguments: Of the function.
        setup: Functions with their arguments, called before it.
    """
    _warm_up()
    folder = tempfile.TemporaryDirectory(prefix="aslseg-child-")
    for name in ("out", "err"):  # the child may be killed before it could make them
        Path(folder.name, name).touch()
    process = _CONTEXT.Process(target=_enter, args=(folder.name, context, arguments, tuple(setup)))
    process.start()
    return Started(process, folder, time.monotonic())


def aslseg(
    *arguments: str | Path, setup: Sequence[tuple[Any, ...]] = (), limit_s: float = 120.0
) -> Ended:
    """Run the command line in a forked child, to its end."""
    return start_aslseg(*arguments, setup=setup).ended(limit_s)


def start_aslseg(*arguments: str | Path, setup: Sequence[tuple[Any, ...]] = ()) -> Started:
    """Run the command line in a forked child."""
    return start(command_line, [str(argument) for argument in arguments], setup=setup)


def command_line(arguments: Sequence[str]) -> None:
    """Be `aslseg`."""
    from aslseg.cli.main import main

    sys.argv = ["aslseg", *arguments]
    main()


@cache
def _warm_up() -> None:
    """Start the server and wait for its imports, which are not the first child's time.

    Raises:
        RuntimeError: When it has not imported what it should.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        process = _CONTEXT.Process(target=_check_imports)
        process.start()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
    process.join()
    if process.exitcode:
        msg = "the server of children could not import faults.preload"
        raise RuntimeError(msg)


def _check_imports() -> None:
    sys.exit("faults.preload" not in sys.modules)


def _enter(
    folder: str, context: Job, arguments: Sequence[Any], setup: Sequence[tuple[Any, ...]]
) -> None:
    import resource  # which not every system has

    os.setsid()
    for name, descriptor in (("out", 1), ("err", 2)):
        target = os.open(f"{folder}/{name}", os.O_WRONLY)
        os.dup2(target, descriptor)
        os.close(target)
    try:
        for function, *given in setup:
            function(*given)
        context(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with open(f"{folder}/peak", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(str(peak))
