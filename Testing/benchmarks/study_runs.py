"""What the studies share: a run that is finished, begun, or gone on with; and its progress."""

from __future__ import annotations

import time
from functools import partial

from aslseg.config import RunConfig
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.runs import resume_run, start_run


def finished_run(
    project: Project, config: RunConfig, run_id: str, *, timed: bool = False
) -> RunFolder:
    monitor = Monitor(listener=partial(print_timed, _Since()) if timed else print_event)
    if (project.folder / "runs" / run_id / "config.json").exists():
        if open_run(project.folder, run_id).status.state == "done":
            return open_run(project.folder, run_id)
        return resume_run(project, run_id, monitor)
    return start_run(project, config, monitor, run_id)


def print_event(event: Event) -> None:
    if isinstance(event, Notice):
        print(event.message)
    if isinstance(event, Progress) and event.step == event.of:
        print(f"round {event.round}: {event.task} ({event.of})", flush=True)


class _Since:
    """Processor seconds and seconds by the clock since it was asked last."""

    def __init__(self) -> None:
        self._last = time.process_time(), time.time()

    def take(self) -> tuple[float, float]:
        before, self._last = self._last, (time.process_time(), time.time())
        return self._last[0] - before[0], self._last[1] - before[1]


def print_timed(since: _Since, event: Event) -> None:
    """Print what has ended, after the processor seconds and seconds that it took."""
    if isinstance(event, Progress) and event.step == event.of:
        spent_s, passed_s = since.take()
        print(f"{spent_s:8.1f} {passed_s:8.1f} ", end="")
    print_event(event)
