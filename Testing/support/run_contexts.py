"""What a run begins with, for tests of what is trained in it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from aslseg.config import RunConfig
from aslseg.context import RunContext
from aslseg.events import Event, Monitor
from aslseg.project.project import Project
from aslseg.project.run_folder import create_run


def a_run_context(
    project: Project,
    config: RunConfig,
    run_id: str | None = None,
    *,
    listener: Callable[[Event], None] | None = None,
) -> RunContext:
    """Make a run of a project and return its context, on the CPU."""
    monitor = Monitor() if listener is None else Monitor(listener)
    run = create_run(project.folder, config, run_id)
    return RunContext(project, config, run, torch.device("cpu"), monitor)
