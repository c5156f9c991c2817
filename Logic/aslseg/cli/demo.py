"""The demonstration: made-up patients, SAM's real weights, and the whole loop."""

from __future__ import annotations

from pathlib import Path

from aslseg.config import RunConfig, SamConfig
from aslseg.errors import WeightsError
from aslseg.events import Monitor
from aslseg.presets import read_preset
from aslseg.project.case import PROJECT_FILE
from aslseg.project.phantom_project import create_phantom_project
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.runs import start_run
from aslseg.sam.weights import get_weights

LABELLED, UNLABELLED, VALIDATION = 2, 5, 3
"""Phantoms of the demonstration."""


def demo_project(folder: Path, monitor: Monitor) -> Project:
    """Make the project of the demonstration, or open the one that is there.

    Args:
        folder: Gets `data/` with the phantoms and `project/`.
        monitor: Told of the progress.

    Raises:
        StorageError: When the folder cannot be written.
        CancelledError: When asked to stop.
    """
    project = folder / "project"
    if (project / PROJECT_FILE).exists():
        return open_project(project)
    return create_phantom_project(
        project,
        folder / "data",
        cases=LABELLED + UNLABELLED + VALIDATION,
        labelled=LABELLED,
        validation=VALIDATION,
        monitor=monitor,
    )


def demo_config(monitor: Monitor) -> RunConfig:
    """Return the settings of the demonstration; without SAM when its weights cannot be had."""
    config = read_preset("demo")
    try:
        get_weights(config.sam.model, monitor)
    except WeightsError as error:
        monitor.warn(f"This run goes on WITHOUT SAM. {error}")
        return config.model_copy(update={"sam": SamConfig(model="none")})
    return config


def run_demo(folder: Path, monitor: Monitor) -> RunFolder:
    """Run ASLseg on phantoms of which two are labelled.

    Returns:
        The folder of a new run.

    Raises:
        StorageError: When the folder cannot be written.
        CancelledError: When asked to stop; the run can be resumed.
    """
    project = demo_project(folder, monitor)
    return start_run(project, demo_config(monitor), monitor)
