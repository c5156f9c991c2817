"""A project of made-up patients, on which everything can be tried."""

from __future__ import annotations

from pathlib import Path

from aslseg.data.phantom.dataset import write_phantom_dataset
from aslseg.events import Monitor
from aslseg.project.create import create_project, select_cases
from aslseg.project.datasets import cases_from_folder
from aslseg.project.project import Project


def create_phantom_project(
    folder: Path,
    data: Path,
    *,
    cases: int,
    labelled: int,
    validation: int,
    monitor: Monitor | None = None,
) -> Project:
    """Make made-up patients and a project of them, with the preset `demo`.

    Args:
        folder: Of the project.
        data: Gets the images and label maps.
        cases: How many volumes.
        labelled: How many of them have a label map to learn from.
        validation: How many of them are to validate on.
        monitor: Told of the progress; can stop it.

    Raises:
        ValueError: When the numbers do not fit.
        ProjectError: When there is a project in the folder.
        StorageError: When a folder cannot be written.
        CancelledError: When asked to stop.
    """
    made = write_phantom_dataset(
        data, cases=cases, labelled=labelled, validation=validation, monitor=monitor
    )
    found = cases_from_folder(made.images, made.labels)
    chosen = select_cases(found, labelled=made.labelled, validation=made.validation)
    return create_project(folder, chosen, preset="demo", monitor=monitor)
