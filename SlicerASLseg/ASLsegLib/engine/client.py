"""The engine's process as the panel sees it: one request at a time, six states, no waiting.

Plain Python: the panel calls `poll` from a timer, and everything is emitted from there, in the
panel's own thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from aslseg.engine.protocol import FINAL, encode
from ASLsegLib.engine.failures import explain
from ASLsegLib.engine.process import Child, EventLine, LogLine, ProcessEnded
from ASLsegLib.engine.signal import Signal

State = Literal["idle", "starting", "running", "importing", "cancelling", "failed"]
FREE: tuple[State, ...] = ("idle", "failed")
"""States in which a request may be sent."""
GRACE_S = 2.0
"""How long the engine may take to stop by itself before its whole tree is killed."""

POLL_BUDGET_S = 0.05
SILENT_S = 15.0
"""After so long without any line from an engine at work, `silent` is emitted."""
QUIET_S = 300.0
"""After so long without progress of a living engine, `silent` is emitted too."""
_NOT_POLLED_S = 1.0


class EngineBusyError(RuntimeError):
    """A request came while another one was under way."""


class EngineClient:
    """Starts the engine when it is needed, and keeps it warm between requests.

    Args:
        python: Command of the Python to run it with.
        library: Folder that holds the package `aslseg`.
        environment: Variables of the child; those of this process when not given.

    Attributes:
        changed: Emits the new state.
        event: Emits every event of the engine, as a dictionary. A request gets exactly one of
            `done`, `failed` and `cancelled`, unless the client is closed before. The client adds
            `silent`, with a message, when the engine at work gives no sign for long, and
            `answering` when it does again.
        log: Emits what the engine writes besides, line by line.
    """

    def __init__(
        self,
        python: Sequence[str],
        library: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.changed, self.event, self.log = Signal(), Signal(), Signal()
        self._command = [*python, "-m", "aslseg.engine"]
        self._environment = _environment(library, environment)
        self._state: State = "idle"
        self._child: Child | None = None
        self._id = 0
        self._busy_with = 0
        self._pending_result: dict[str, Any] | None = None
        self._last_line_at = self._polled_at = time.monotonic()
        self._quiet_s = 0.0
        self._is_silent = False

    @property
    def state(self) -> State:
        """What the engine is doing."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None when it does not run."""
        return None if self._child is None or self._child.is_gone else self._child.pid

    def request(self, do: str, **arguments: Any) -> int:
        """Ask the engine for something, starting it if it does not run.

        Args:
            do: What is asked for, one of `aslseg.engine.requests.MODELS`.
            arguments: As the protocol says; anything that JSON can hold.

        Returns:
            Number of the request; the `id` of all its events.

        Raises:
            EngineBusyError: When another request is under way.
            RequestError: When the request is longer than the engine reads.
        """
        if self._state not in FREE:
            msg = f"The engine is {self._state}; wait for it, or cancel first."
            raise EngineBusyError(msg)
        message = {"id": self._id + 1, "do": do, **arguments}
        encode(message)  # what cannot be sent changes nothing
        starts = self._child is None or self._child.is_ending
        if self._child is None or starts:
            self._child = Child(self._command, self._environment)
        self._id += 1
        self._busy_with, self._pending_result = self._id, None
        self._last_line_at, self._quiet_s, self._is_silent = time.monotonic(), 0.0, False
        self._child.send(message)
        self._become("starting" if starts else "running")
        return self._id

    def poll(self, budget_s: float = POLL_BUDGET_S) -> None:
        """Emit what has come in; called by a timer of the panel.

        Args:
            budget_s: After this long the rest is left for the next call.
        """
        until = time.monotonic() + budget_s
        if time.monotonic() - self._polled_at > _NOT_POLLED_S:  # the silence was on this side
            self._last_line_at = time.monotonic()
        self._polled_at = time.monotonic()
        while self._child is not None and not self._child.items.empty():
            self._take(self._child.items.get())
            if time.monotonic() > until:
                return
        self._notice_silence()

    def cancel(self) -> None:
        """Ask the engine to stop; after `GRACE_S` its whole tree is killed. `poll` finishes it.

        Without a request under way nothing happens.
        """
        if self._child is None or self._state not in ("starting", "running"):
            return
        self._become("cancelling")
        self._child.send({"id": 0, "do": "cancel"})
        self._child.kill_within(GRACE_S)

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Show that results are being brought into the scene.

        Raises:
            EngineBusyError: When a request is under way.
        """
        if self._state not in FREE:
            msg = f"The engine is {self._state}; results are imported when it is done."
            raise EngineBusyError(msg)
        self._become("importing")
        try:
            yield
        finally:
            self._become("idle")

    def close(self) -> None:
        """End the engine with its whole tree, without waiting; what it was doing stays resumable.

        No event of it is emitted any more; a later request starts a fresh one.
        """
        child, self._child = self._child, None
        self._busy_with, self._pending_result = 0, None
        if child is not None:
            child.send({"id": 0, "do": "close"})
            child.end(GRACE_S)
        self._become("idle")

    def _notice_silence(self) -> None:
        """Emit `silent` once when the engine gives no sign, `answering` when it does again."""
        is_silent = self._state in ("starting", "running") and (
            time.monotonic() - self._last_line_at > SILENT_S or self._quiet_s > QUIET_S
        )
        if is_silent == self._is_silent:
            return
        self._is_silent = is_silent
        if is_silent:
            self.event.emit({"id": self._busy_with, "event": "silent", **self._about_silence()})
        elif self._busy_with:
            self.event.emit({"id": self._busy_with, "event": "answering"})

    def _about_silence(self) -> dict[str, str]:
        remedy = "Wait, or stop it; what was finished is kept, and it is started anew when needed."
        if self._quiet_s > QUIET_S:
            minutes = round(self._quiet_s / 60)
            return {
                "message": f"The engine works without any progress for {minutes} min.",
                "remedy": remedy,
            }
        return {"message": "The engine does not answer any more.", "remedy": remedy}

    def _become(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self.changed.emit(state)

    def _take(self, item: EventLine | LogLine | ProcessEnded) -> None:
        if isinstance(item, EventLine):
            self._on_event(item.event)
        elif isinstance(item, LogLine):
            self.log.emit(item.line)
        else:
            self._end(item)

    def _on_event(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self._last_line_at = time.monotonic()
        self._quiet_s = float(event.get("quiet_s") or 0.0) if kind == "alive" else 0.0
        if kind == "alive":
            return
        if kind == "ready" and self._state == "starting":
            self._become("running")
        if kind == "failed" and event.get("id") == 0:  # it could not even read our id
            event = {**event, "id": self._busy_with}
        ours = self._busy_with != 0 and event.get("id") == self._busy_with
        if kind not in FINAL:
            self.event.emit(event)
        elif not ours:  # an end of nothing must not be taken for the end of something
            self.log.emit(str(event))
        elif self._state == "cancelling":
            self._pending_result = event
            if self._child is not None:
                self._child.end(0.0)
        else:
            self._finish(event)

    def _end(self, ended: ProcessEnded) -> None:
        self._child = None
        if self._state == "cancelling":
            self._finish(self._result_of_cancel())
        elif self._busy_with:
            why = asdict(explain(ended.code, ended.stderr_tail))
            self._finish({"id": self._busy_with, "event": "failed", **why})

    def _result_of_cancel(self) -> dict[str, Any]:
        """Return the result if it came before the request to stop."""
        if self._pending_result is not None and self._pending_result["event"] == "done":
            return self._pending_result
        message = "Stopped on request."
        return {"id": self._busy_with, "event": "cancelled", "message": message}

    def _finish(self, event: dict[str, Any]) -> None:
        self._busy_with, self._pending_result = 0, None
        self._become("failed" if event["event"] == "failed" else "idle")
        self.event.emit(event)


def _environment(library: Path, given: Mapping[str, str] | None) -> dict[str, str]:
    values = dict(os.environ if given is None else given)
    known = values.get("PYTHONPATH", "")
    values["PYTHONPATH"] = os.pathsep.join([str(library), known] if known else [str(library)])
    values["PYTHONIOENCODING"] = "utf-8"
    values["PYTHONUNBUFFERED"] = "1"
    return values
