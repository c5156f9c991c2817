"""Label-efficient CT segmentation: a specialist network and SAM improve each other's labels.

The names below are the library's front door; each is loaded when it is first used, so importing
`aslseg` costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aslseg.batch import segment_folder
    from aslseg.config import RunConfig
    from aslseg.data.images import read_labelmap, read_volume, write_labelmap
    from aslseg.errors import CancelledError
    from aslseg.evaluation.scores import evaluate_folder
    from aslseg.events import CancelToken, Event, Monitor, Progress
    from aslseg.export.project import ExportOptions, export_project
    from aslseg.inference.interactive.growth import grow_lesion
    from aslseg.inference.loading import load_ensemble, segment_volume
    from aslseg.presets import read_preset
    from aslseg.project.create import create_project, select_cases
    from aslseg.project.datasets import (
        cases_from_folder,
        cases_from_msd,
        cases_from_nnunet,
        targets_from_dataset,
    )
    from aslseg.project.external_labels import add_external_labels
    from aslseg.project.organ_masks import with_organ_masks
    from aslseg.project.patients import with_patients
    from aslseg.project.plan import plan_problems, plan_project, write_plan
    from aslseg.project.project import Project, open_project
    from aslseg.project.run_folder import open_run
    from aslseg.report.report import write_report
    from aslseg.runs import continue_run, resume_run, start_run, train_on
    from aslseg.targets import Target

__version__ = "0.1.0"

_HOMES = {
    "CancelToken": "events",
    "CancelledError": "errors",
    "Event": "events",
    "ExportOptions": "export.project",
    "Monitor": "events",
    "Progress": "events",
    "Project": "project.project",
    "RunConfig": "config",
    "Target": "targets",
    "add_external_labels": "project.external_labels",
    "cases_from_folder": "project.datasets",
    "cases_from_msd": "project.datasets",
    "cases_from_nnunet": "project.datasets",
    "continue_run": "runs",
    "create_project": "project.create",
    "evaluate_folder": "evaluation.scores",
    "export_project": "export.project",
    "grow_lesion": "inference.interactive.growth",
    "load_ensemble": "inference.loading",
    "open_project": "project.project",
    "open_run": "project.run_folder",
    "plan_problems": "project.plan",
    "plan_project": "project.plan",
    "read_labelmap": "data.images",
    "read_preset": "presets",
    "read_volume": "data.images",
    "resume_run": "runs",
    "segment_folder": "batch",
    "segment_volume": "inference.loading",
    "select_cases": "project.create",
    "start_run": "runs",
    "targets_from_dataset": "project.datasets",
    "train_on": "runs",
    "with_organ_masks": "project.organ_masks",
    "with_patients": "project.patients",
    "write_labelmap": "data.images",
    "write_plan": "project.plan",
    "write_report": "report.report",
}

__all__ = [
    "CancelToken",
    "CancelledError",
    "Event",
    "ExportOptions",
    "Monitor",
    "Progress",
    "Project",
    "RunConfig",
    "Target",
    "add_external_labels",
    "cases_from_folder",
    "cases_from_msd",
    "cases_from_nnunet",
    "continue_run",
    "create_project",
    "evaluate_folder",
    "export_project",
    "grow_lesion",
    "load_ensemble",
    "open_project",
    "open_run",
    "plan_problems",
    "plan_project",
    "read_labelmap",
    "read_preset",
    "read_volume",
    "resume_run",
    "segment_folder",
    "segment_volume",
    "select_cases",
    "start_run",
    "targets_from_dataset",
    "train_on",
    "with_organ_masks",
    "with_patients",
    "write_labelmap",
    "write_plan",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOMES:
        msg = f"module 'aslseg' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(import_module(f"aslseg.{_HOMES[name]}"), name)
