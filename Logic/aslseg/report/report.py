"""A run's `report.html`: what was reached, how it was reached, and pictures to judge it by.

The page stands alone: no network, no script, pictures inside. It can be written at any time, also
while the run goes on or after it failed.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from aslseg import run_names
from aslseg.project.project import Project, open_project
from aslseg.report import tables
from aslseg.report.cases import unlabelled_pictures, validation_pictures
from aslseg.report.curves import curve_drawings, single_values
from aslseg.report.data import RunRecord, kept_round, read_run
from aslseg.report.overview import overview_table
from aslseg.storage import write_text_atomic

PACKAGES = ("aslseg", "torch", "torchvision", "monai", "segment-anything", "numpy", "SimpleITK")
WITHOUT_SAM = (
    "It was switched off, or its weights could not be had; the adaptation network refines the "
    "specialist alone."
)
SECTIONS = {
    "overview": "All cases",
    "scores": "Scores",
    "cases": "Validation",
    "unlabelled": "Unlabelled",
    "curves": "Curves",
    "reliability": "Reliability",
    "settings": "Settings",
}
STATES = {
    "new": "not begun",
    "done": "finished",
    "running": "still running",
    "interrupted": "interrupted",
    "elsewhere": "worked on by another computer",
    "cancelled": "stopped",
    "failed": "failed",
}


def write_report(run_folder: Path) -> Path:
    """Write the report of a run.

    Args:
        run_folder: `runs/<id>` inside a project folder.

    Returns:
        Path of `report.html` in the run folder.

    Raises:
        RunError: When the folder holds no run, or its tables are damaged.
        ProjectError: When the project around it cannot be opened.
        StorageError: When the report cannot be written.
    """
    run = read_run(run_folder)
    project = open_project(run_folder.parent.parent)
    path = run_folder / run_names.REPORT
    write_text_atomic(path, _template().render(_parts(run, project)))
    return path


def _template() -> Template:
    # The name ends in .j2, so escaping is switched on by hand.
    loader = PackageLoader("aslseg.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html.j2")


def _parts(run: RunRecord, project: Project) -> dict[str, Any]:
    """Return what the template lays out, by the names it uses."""
    return {
        "title": f"ASLseg: {run.folder.name}",
        "run": run,
        "state": _state(run),
        "summary": _summary(project),
        "notices": _notices(run),
        "sections": SECTIONS,
        "marked": partial(tables.marked, run),
        "headline": tables.headline(run),
        "kept": kept_round(run),
        "by_case": tables.by_case(run),
        "validation": validation_pictures(run, project),
        "unlabelled": unlabelled_pictures(run, project),
        "curves": {name: _address(svg) for name, svg in curve_drawings(run.curves).items()},
        "single_values": tables.measured_once(run, single_values(run.curves)),
        "reliability": tables.reliability(run),
        "overview": overview_table(run, project),
        "settings": tables.pairs(
            ("Setting", "Value"), dict(_flat(run.config)), tables.marked(run, "From config.json.")
        ),
        "versions": _versions(run),
    }


def _state(run: RunRecord) -> dict[str, str]:
    style = run.state if run.state in ("done", "failed") else "other"
    return {"style": style, "text": STATES.get(run.state, "unknown")}


def _summary(project: Project) -> str:
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    names = " and ".join(target.name for target in project.targets)
    return (
        f"{len(project.counted)} labelled, {len(project.unlabelled)} unlabelled and "
        f"{len(project.validation)} validation volumes; targets: {names}. Report of {written}."
    )


def _notices(run: RunRecord) -> list[str]:
    failed = run.state == "failed" and run.status.message
    return [
        *([] if run.has_sam else [f"{tables.NO_SAM} {WITHOUT_SAM}"]),
        *run.notices,
        *([failed] if failed else []),
    ]


def _address(svg: str) -> str:
    """Return a drawing as the address of an image inside of the page."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(value)


def _versions(run: RunRecord) -> tables.Table:
    found = {"Python": platform.python_version(), "System": platform.platform(terse=True)}
    found |= {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    return tables.pairs(("Software", "Version"), found, "Versions when this report was written.")


def _is_installed(package: str) -> bool:
    return any(metadata.distributions(name=package))
