"""What the studies share: a run that is finished, begun, or gone on with; and its progress."""

from __future__ import annotations

from aslseg.config import RunConfig
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.project.project import Project
from aslseg.project.run_folder import RunFolder, open_run
from aslseg.runs import resume_run, start_run


def finished_run(project: Project, config: RunConfig, run_id: str) -> RunFolder:
    monitor = Monitor(listener=print_event)
    if (project.folder / "runs" / run_id / "config.json").exists():
        if open_run(project.folder, run_id).status.get("state") == "done":
            return open_run(project.folder, run_id)
        return resume_run(project, run_id, monitor)
    return start_run(project, config, monitor, run_id)


def print_event(event: Event) -> None:
    if isinstance(event, Notice):
        print(event.message)
    if isinstance(event, Progress) and event.step == event.of:
        print(f"round {event.round}: {event.task} ({event.of})", flush=True)
