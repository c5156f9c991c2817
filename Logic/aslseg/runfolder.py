"""A run on disk: settings, state, events, rounds; enough to look at it, stop it and resume it."""

from __future__ import annotations

import csv
import json
import logging
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aslseg.config import RunConfig
from aslseg.config_json import read_config
from aslseg.errors import CancelledError, RunError
from aslseg.events import Event, Monitor, Progress
from aslseg.storage import atomic_path, write_json_atomic

logger = logging.getLogger(__name__)

METRIC_COLUMNS = (
    "round", "stage", "split", "case", "target", "dice", "jaccard", "hd95_mm", "assd_mm",
    "volume_ml", "lesions_true", "lesions_found", "false_positives",
)  # fmt: skip
RELIABILITY_COLUMNS = (
    "round", "case", "checkpoint_agreement", "voice_agreement", "score", "accepted", "reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: `<project>/runs/<id>`.
    """

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config(self) -> RunConfig:
        """The settings that the run was started with."""
        return read_config(self.path / "config.json")

    @property
    def status(self) -> dict[str, Any]:
        """What `status.json` says; `{}` before the first word."""
        path = self.path / "status.json"
        if not path.exists():
            return {}
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def round(self, number: int) -> Path:
        """Return the folder of a round, counted from 1."""
        return self.path / f"round-{number:02d}"

    @property
    def rounds(self) -> list[int]:
        """Numbers of the rounds whose metrics are complete."""
        done = self.path.glob("round-*/metrics.csv")
        return sorted(int(path.parent.name.removeprefix("round-")) for path in done)

    @property
    def legs(self) -> tuple[int, ...]:
        """Rounds in which what is trained once is trained anew, for the labels had changed."""
        return tuple(self.status.get("legs", (1,)))

    def first_folder(self, number: int) -> Path:
        """Return the folder of what is trained once and used in a round: SAM, adaptation."""
        return self.round(max(leg for leg in self.legs if leg <= number))

    def number_of(self, round_folder: Path) -> int:
        """Return the number of a round from its folder."""
        return int(round_folder.name.removeprefix("round-"))

    def finish(self, number: int, validation: float) -> None:
        """Note that a round is complete: from now on it is read, never done again."""
        write_json_atomic(self.round(number) / "round.json", {"validation": validation})

    def validation_of(self, number: int) -> float | None:
        """Return the validation Dice of a finished round (NaN without cases); None of others."""
        path = self.round(number) / "round.json"
        if not path.exists():
            return None
        value = json.loads(path.read_text(encoding="utf-8"))["validation"]
        return math.nan if value is None else float(value)

    def write_status(self, **facts: Any) -> None:
        """Change some facts of `status.json`."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json_atomic(self.path / "status.json", {**self.status, **facts, "updated": now})


def new_run_id(method: str) -> str:
    """Return a name that no run has yet: method, time, and some chance."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    return f"{method}-{stamp}-{secrets.token_hex(2)}"


def create_run(project_folder: Path, config: RunConfig, run_id: str | None = None) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        RunError: When there is a run of that name.
        StorageError: When the project folder cannot be written.
    """
    name = run_id or new_run_id(config.method)
    folder = RunFolder(project_folder / "runs" / name)
    if (folder.path / "config.json").exists():
        msg = f"There is a run '{name}' already; resume it or give another name."
        raise RunError(msg)
    write_json_atomic(folder.path / "config.json", config.model_dump(mode="json"))
    return folder


def open_run(project_folder: Path, run_id: str | None = None) -> RunFolder:
    """Open a run by name, or the latest one.

    Raises:
        RunError: When there is no such run.
    """
    if run_id is not None:
        folder = RunFolder(project_folder / "runs" / run_id)
        if (folder.path / "config.json").exists():
            return folder
    found = sorted(
        (project_folder / "runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime
    )
    if run_id is not None or not found:
        known = ", ".join(path.parent.name for path in found) or "none"
        msg = f"{project_folder} has no run '{run_id or 'at all'}' (known: {known}); train first."
        raise RunError(msg)
    return RunFolder(found[-1].parent)


@dataclass
class Recorder:
    """Writes a run's events to its folder and passes them on.

    Attributes:
        folder: Of the run.
        monitor: Who listens besides.
    """

    folder: RunFolder
    monitor: Monitor
    _last_status: float = field(default=0.0, init=False)

    def attached(self) -> Monitor:
        """Return a monitor that records; its cancel token is the listener's own."""
        return Monitor(self._hear, self.monitor.token, self.monitor.round)

    def _hear(self, event: Event) -> None:
        with (self.folder.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json()) + "\n")
        if isinstance(event, Progress):
            self.folder.write_status(
                stage=event.stage,
                round=event.round,
                step=event.step,
                of=event.of,
                seconds_left=event.seconds_left,
            )
        self.monitor.listener(event)


@contextmanager
def running(folder: RunFolder, monitor: Monitor, **facts: Any) -> Iterator[Monitor]:
    """Hold the run's lock and keep its status true, however the work ends.

    Raises:
        RunError: When another process works on the run.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        msg = f"Run '{folder.run_id}' is being worked on by another process; wait or stop that one."
        raise RunError(msg) from error
    log = logging.FileHandler(folder.path / "log.txt", encoding="utf-8")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    library = logging.getLogger("aslseg")
    library.addHandler(log)
    library.setLevel(min(library.level or logging.INFO, logging.INFO))
    try:
        folder.write_status(state="running", message="", **facts)
        yield Recorder(folder, monitor).attached()
        folder.write_status(state="done", seconds_left=0)
    except CancelledError as error:
        folder.write_status(state="cancelled", message=str(error))
        raise
    except BaseException as error:
        logger.exception("The run ended early")
        folder.write_status(state="failed", message=str(error) or type(error).__name__)
        raise
    finally:
        library.removeHandler(log)
        log.close()
        lock.release()


def write_table(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_path(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file that `write_table` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
