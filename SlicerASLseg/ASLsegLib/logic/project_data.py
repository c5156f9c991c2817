"""Projects as the panel and scripts handle them: everything here is work for a thread."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ASLsegLib.paths import PROJECT_FILE
from ASLsegLib.scene.volumes import write_raw

if TYPE_CHECKING:
    from aslseg.data.volume import Volume
    from aslseg.events import Monitor
    from aslseg.project.case import Case, CaseFiles
    from aslseg.project.case_reports import CaseReport
    from aslseg.project.project import Project
    from aslseg.project.run_list import RunSummary

IMAGES = "images"
_RENAME = "rename the volume (Data module) and add it again."
_LONGEST_ID_BYTES = 100  # file names have 255 bytes at most, and get endings


def date_of(report: CaseReport) -> str:
    """Return the day on which the label map of a case was written; empty without one."""
    if report.written_s is None:
        return ""
    time = datetime.fromtimestamp(report.written_s)
    is_this_year = time.year == datetime.now().year
    return _day(time) if is_this_year else f"{_day(time)} {time.year}"


def label_digest(project: Project, case_id: str) -> str:
    """Return a digest of the label map of a case on disk; empty when there is none."""
    from aslseg.storage import sha256_of

    case = project.case(case_id)
    path = None if case.label is None else project.label_path(case)
    return "" if path is None or not path.exists() else sha256_of(path)


def targets_shown(project: Project, case: Case) -> list[str]:
    """Return the names of the targets that the label map of a case shows something of."""
    from aslseg.project.labels import present_values

    present = present_values(project.load_labels(case))
    return [target.name for target in project.targets if present[target.value]]


def add_images(folder: Path, cases: Sequence[CaseFiles], monitor: Monitor) -> Project:
    """Add cases to the project in a folder, or make it with them."""
    from aslseg.project.create import add_cases, create_project
    from aslseg.project.project import open_project

    if (folder / PROJECT_FILE).exists():
        return add_cases(open_project(folder), cases, monitor)
    return create_project(folder, cases, monitor=monitor)


def add_volume(
    folder: Path,
    case_id: str,
    volume: Volume | Path,
    monitor: Monitor,
    patient: str | None = None,
) -> Project:
    """Add an image file, or a volume of the scene, which is written to the project then.

    The name of another case stands for its patient.

    Raises:
        ProjectError: When a case or a file has the name already; neither is touched.
    """
    from aslseg.project.case import CaseFiles
    from aslseg.project.patients import meant_patients

    cases = _cases_in(folder)
    _refuse_taken_case(folder, cases, case_id)
    if patient is not None:
        known = {case.id: case.patient for case in cases}
        patient = meant_patients({case_id: patient}, known)[case_id]
    if isinstance(volume, Path):
        return add_images(folder, [CaseFiles(case_id, volume, patient=patient)], monitor)
    refuse_taken_file(folder / IMAGES, case_id)
    path = folder / IMAGES / f"{case_id}.nrrd"
    write_raw(volume, path, new=True)
    try:
        return add_images(folder, [CaseFiles(case_id, path, patient=patient)], monitor)
    except Exception:
        path.unlink(missing_ok=True)  # it is the one that was written above
        raise


def _cases_in(folder: Path) -> Sequence[Case]:
    from aslseg.project.project import open_project

    return open_project(folder).cases if (folder / PROJECT_FILE).exists() else ()


def _refuse_taken_case(folder: Path, cases: Sequence[Case], case_id: str) -> None:
    from aslseg.errors import ProjectError
    from aslseg.project.case import name_key

    for case in cases:
        if name_key(case.id) == name_key(case_id):
            msg = f"{folder} has a case '{case.id}' already; {_RENAME}"
            raise ProjectError(msg)


def refuse_taken_file(images: Path, case_id: str) -> None:
    """Refuse a name that differs in case or accents only, too: on some systems it is that file."""
    from aslseg.errors import ProjectError
    from aslseg.project.case import name_key

    for path in images.iterdir() if images.is_dir() else ():
        if name_key(path.name) == name_key(f"{case_id}.nrrd"):
            msg = f"{path} is there already and is left as it is; {_RENAME}"
            raise ProjectError(msg)


def make_phantom_project(folder: Path, cases: int, labelled: int, monitor: Monitor) -> Project:
    """Make a project of made-up patients in a folder; its data lies in the folder `data` within."""
    from aslseg.project.phantom_project import create_phantom_project

    return create_phantom_project(
        folder, folder / "data", cases=cases, labelled=labelled, validation=1, monitor=monitor
    )


def good_case_id(name: str) -> str:
    """Return a name as a case id that `project.json` and all file systems take.

    Letters of every script, digits, '-' and '_' stay; the first letter is a Latin one.
    """
    composed = unicodedata.normalize("NFKC", name)
    cleaned = "".join(letter if _may_stay(letter) else "-" for letter in composed).strip("-")
    if not cleaned[:1].isascii() or not cleaned:
        cleaned = f"case-{cleaned}".strip("-")
    return cleaned.encode()[:_LONGEST_ID_BYTES].decode(errors="ignore").strip("-")


def _may_stay(letter: str) -> bool:
    return letter in "-_" or unicodedata.category(letter)[0] in "LM" or letter.isdecimal()


def run_names(project: Project, runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return what runs are called for a person, by id: the day, best round, and how good that is.

    Runs of one day have their time too. The Dice is that of the innermost target on the volumes to
    check on.
    """
    times = {run.run_id: _local_time(run.updated) for run in runs}
    days = Counter(time.date() for time in times.values() if time is not None)
    return {
        run.run_id: _run_name(project, run, _when(time, days[time.date()] > 1) if time else "")
        for run, time in zip(runs, times.values(), strict=True)
    }


def _run_name(project: Project, run: RunSummary, when: str) -> str:
    parts = [when or run.run_id, f"round {run.best_round}"]
    rows = {row["round"]: row for row in round_rows(project, run.run_id)}
    target = project.targets[-1].name
    if target in rows.get(run.best_round, {}):
        parts.append(f"{target} Dice {rows[run.best_round][target]:.2f}")
    return ", ".join(parts)


def _local_time(updated: str) -> datetime | None:
    """Return a time of `status.json` in local time; None if it is none."""
    try:
        return datetime.fromisoformat(updated).astimezone()
    except ValueError:
        return None


def _when(time: datetime, with_clock: bool) -> str:
    return f"{_day(time)} {time:%H:%M}" if with_clock else _day(time)


def _day(time: datetime) -> str:
    return f"{time.day} {time:%b}"


def round_rows(project: Project, run_id: str) -> list[dict[str, Any]]:
    """Return one row per finished round: accepted cases and mean Dice of the refined labels."""
    from aslseg.evaluation.scores import mean_dice
    from aslseg.project.run_folder import open_run
    from aslseg.project.run_tables import read_reliability, read_scores

    run = open_run(project.folder, run_id)
    rows = []
    for number in run.rounds:
        selected = read_reliability(run.round(number))
        accepted = sum(judged.accepted for judged in selected)
        scores = read_scores(run.round(number))
        means = {
            target: mean_dice(scores, source="refined", split="validation", target=target).value
            for target in dict.fromkeys(score.target for score in scores)
        }
        known = {target: value for target, value in means.items() if value == value}
        rows.append({"round": number, "accepted": accepted, "of": len(selected), **known})
    return rows
