"""A run's `report.html`: what was reached, how it was reached, and pictures to judge it by.

The page stands alone: no network, no script, pictures inside. It can be written at any time, also
while the run goes on or after it failed.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from aslseg.project.project import Project, open_project
from aslseg.report import html
from aslseg.report.cases import case_pictures, unlabelled_pictures
from aslseg.report.curves import curve_drawings, single_values
from aslseg.report.data import RunRecord, read_run
from aslseg.report.tables import NO_SAM, by_case, headline, marked, reliability
from aslseg.storage import write_text_atomic

PACKAGES = ("aslseg", "torch", "torchvision", "monai", "segment-anything", "numpy", "SimpleITK")
WITHOUT_SAM = (
    "It was switched off, or its weights could not be had; the adaptation network refines the "
    "specialist alone."
)
PLACES = {
    "scores": "Scores",
    "cases": "Cases",
    "unlabelled": "Unlabelled",
    "curves": "Curves",
    "reliability": "Reliability",
    "settings": "Settings",
}
STATES = {
    "done": "finished",
    "running": "still running",
    "interrupted": "interrupted",
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
    path = run_folder / "report.html"
    write_text_atomic(path, html.page(f"ASLseg: {run_folder.name}", _sections(run, project)))
    return path


def _sections(run: RunRecord, project: Project) -> Iterator[str]:
    yield _head(run, project)
    yield html.section("scores", "Validation, stage by stage", [headline(run), *by_case(run)])
    yield html.section("cases", "Validation cases", list(case_pictures(run, project)))
    yield html.section("unlabelled", "Unlabelled cases", list(unlabelled_pictures(run, project)))
    yield html.section("curves", "Learning curves", list(_curves(run)))
    yield html.section("reliability", "Reliability of pseudo-labels", list(reliability(run)))
    yield html.section("settings", "Settings and versions", [_settings(run), _versions(run)])
    yield (
        "<footer>"
        + html.paragraph(
            "SlicerASLseg is for research use and is not a medical device. ASLseg is reconstructed "
            "from its publication; its authors have released no code.",
            "soft",
        )
        + "</footer>"
    )


def _head(run: RunRecord, project: Project) -> str:
    state = str(run.status.get("state", "running"))
    style = state if state in ("done", "failed") else "other"
    badge = f'<span class="badge {style}">{STATES.get(state, "unknown")}</span>'
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    counts = (
        f"{len(project.labelled)} labelled, {len(project.unlabelled)} unlabelled and "
        f"{len(project.validation)} validation volumes"
    )
    names = " and ".join(target.name for target in project.targets)
    links = "".join(f'<a href="#{place}">{name}</a>' for place, name in PLACES.items())
    parts = [
        f"<header><h1>Run {html.plain(run.folder.name)} {badge}</h1>",
        html.paragraph(f"{counts}; targets: {names}. Report of {written}.", "soft"),
        "" if run.has_sam else html.notice(f"{NO_SAM} {WITHOUT_SAM}"),
        *[html.notice(text) for text in run.notices],
        html.notice(str(run.status["message"])) if _failed(run) else "",
        f"<nav>{links}</nav></header>",
    ]
    return "".join(parts)


def _failed(run: RunRecord) -> bool:
    return run.status.get("state") == "failed" and bool(run.status.get("message"))


def _curves(run: RunRecord) -> Iterator[str]:
    drawings = curve_drawings(run.curves)
    if not drawings:
        yield html.paragraph("No curve has been recorded yet.")
    images = [html.svg_image(svg, f"Curve of {name}") for name, svg in drawings.items()]
    yield f'<div class="curves">{"".join(images)}</div>'
    values = single_values(run.curves)
    if values:
        rows = [
            html.row([html.cell(name), html.cell(stage), html.number_cell(value)])
            for name, stage, value in values
        ]
        caption = marked(run, "What was measured once.")
        yield html.table(["Measure", "Stage", "Value"], rows, caption=caption, text_columns=2)


def _settings(run: RunRecord) -> str:
    rows = [html.row([html.cell(name), html.cell(value)]) for name, value in _flat(run.config)]
    content = html.table(
        ["Setting", "Value"], rows, caption=marked(run, "From config.json."), text_columns=2
    )
    return html.details("All settings of this run", content)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", str(value)


def _versions(run: RunRecord) -> str:
    found = {"Python": platform.python_version(), "System": platform.platform(terse=True)}
    found |= {name: metadata.version(name) for name in PACKAGES if _is_installed(name)}
    recorded = run.status.get("versions")
    known = (
        found
        if not isinstance(recorded, Mapping)
        else {str(k): str(v) for k, v in recorded.items()}
    )
    source = "when this report was written" if known is found else "of this run"
    rows = [html.row([html.cell(name), html.cell(value)]) for name, value in known.items()]
    return html.table(["Software", "Version"], rows, caption=f"Versions {source}.", text_columns=2)


def _is_installed(package: str) -> bool:
    return any(metadata.distributions(name=package))
