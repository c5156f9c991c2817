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
    from aslseg.evaluation.scores import evaluate_folder
    from aslseg.export.project import export_project
    from aslseg.inference.interactive.growth import grow_lesion
    from aslseg.inference.loading import load_ensemble, segment_volume
    from aslseg.presets import read_preset
    from aslseg.project.create import create_project, select_cases
    from aslseg.project.datasets import cases_from_folder
    from aslseg.project.external_labels import add_external_labels
    from aslseg.project.plan import plan_problems, plan_project, write_plan
    from aslseg.project.project import Project, open_project
    from aslseg.report.report import write_report
    from aslseg.runs import continue_run, resume_run, start_run, train_on
    from aslseg.targets import Target

__version__ = "0.1.0"

_HOMES = {
    "RunConfig": "config",
    "Target": "targets",
    "add_external_labels": "project.external_labels",
    "evaluate_folder": "evaluation.scores",
    "cases_from_folder": "project.datasets",
    "export_project": "export.project",
    "read_labelmap": "data.images",
    "read_volume": "data.images",
    "write_labelmap": "data.images",
    "read_preset": "presets",
    "Project": "project.project",
    "create_project": "project.create",
    "open_project": "project.project",
    "plan_problems": "project.plan",
    "plan_project": "project.plan",
    "select_cases": "project.create",
    "write_plan": "project.plan",
    "write_report": "report.report",
    "continue_run": "runs",
    "grow_lesion": "inference.interactive.growth",
    "load_ensemble": "inference.loading",
    "resume_run": "runs",
    "segment_folder": "batch",
    "segment_volume": "inference.loading",
    "start_run": "runs",
    "train_on": "runs",
}

__all__ = [
    "Project",
    "RunConfig",
    "Target",
    "add_external_labels",
    "cases_from_folder",
    "continue_run",
    "create_project",
    "evaluate_folder",
    "export_project",
    "grow_lesion",
    "load_ensemble",
    "open_project",
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
    "train_on",
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
