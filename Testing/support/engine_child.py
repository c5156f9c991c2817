"""An engine in a process of its own, which tests ask as the panel does."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any

LIBRARY = Path(__file__).resolve().parents[2] / "Logic"
FINAL = ("done", "failed", "cancelled")


class EngineChild:
    """An engine process, and its events so far.

    Args:
        arguments: Of Python; the engine's own if there are none.
    """

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *(arguments or ("-m", "aslseg.engine"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        )
        self.number = 0
        self.lines: Queue[str] = Queue()
        self.log: list[str] = []
        for stream, take in (
            (self.process.stdout, self.lines.put),
            (self.process.stderr, self.log.append),
        ):
            assert stream is not None
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()

    @staticmethod
    def _read(stream: io.TextIOBase, take: Callable[[str], None]) -> None:
        with suppress(ValueError):
            for line in stream:
                take(line)

    def send(self, do: str, **arguments: Any) -> int:
        """Send a request and return its number."""
        self.number += 1
        assert self.process.stdin is not None
        line = json.dumps({"id": self.number, "do": do, **arguments})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.number

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Return the events up to the first one that is wanted."""
        events = []
        while True:
            events.append(json.loads(self.lines.get(timeout=120)))
            if wanted(events[-1]):
                return events

    def ask(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Return the events of a request; the last one is its end."""
        number = self.send(do, **arguments)
        events = self.until(lambda e: e["id"] == number and e["event"] in FINAL)
        return [event for event in events if event["id"] == number]
