"""Cases and targets of a project that is there: renamed, removed, recoloured; no file is lost."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from aslseg.errors import ProjectError, refuse_unknown, short
from aslseg.project.case import LABEL_SUFFIX, LABELS, Case, name_key
from aslseg.project.drawn import keep_drawn, setting_aside
from aslseg.project.lock import changing
from aslseg.project.project import (
    Project,
    change_project,
    open_project,
    replacing_project,
    validated,
    write_project,
)
from aslseg.project.remote_run import open_remote_runs
from aslseg.project.review import history
from aslseg.project.run_folder import RunFolder, refuse_foreign_results, runs_of
from aslseg.project.run_tables import round_number
from aslseg.storage import copy_atomic, storage_errors
from aslseg.targets import Target


@dataclass(frozen=True, slots=True)
class Removal:
    """A case that was removed.

    Attributes:
        case_id: Its name.
        image: Its image, which stays where it is.
        label: Where its label map is kept now; None when it had none.
    """

    case_id: str
    image: Path
    label: Path | None


def rename_case(project: Project, case_id: str, name: str) -> Project:
    """Give a case another name; its label map gets that name too.

    Args:
        project: The project.
        case_id: The name of now.
        name: The new one; where the case is a patient of its own, that is renamed as well.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such case, the name is taken or cannot be a file name, or a
            run or a decision knows the case by its name of now; nothing changes then.
        StorageError: When the folder cannot be written; nothing changes then.
    """
    with changing(open_project(project.folder).folder):
        current = open_project(project.folder)
        case = current.case(case_id)
        updated = with_renamed(current, case_id, name)
        renamed = updated.case(name)
        if case.label is None or renamed.label == case.label:
            write_project(updated)
        else:
            _move_label(current.label_path(case), updated.label_path(renamed), updated)
    return updated


def with_renamed(project: Project, case_id: str, name: str) -> Project:
    """Return the project that `rename_case` would save.

    Raises:
        ProjectError: As `rename_case`.
    """
    case = project.case(case_id)
    _refuse_known(project, case)
    renamed = _renamed(project, case, name)
    refuse_foreign_results(project.folder, [renamed])
    if renamed.label not in (None, case.label):
        _refuse_taken(project, case, renamed.label_place)
    return validated(project, cases=tuple(renamed if c is case else c for c in project.cases))


def remove_cases(project: Project, case_ids: Collection[str]) -> tuple[Project, list[Removal]]:
    """Take cases out of a project; all of them or none, and no file of a person is deleted.

    Images stay where they are, label maps and organ masks go to the history beside them, results
    of runs stay in their runs.

    Returns:
        The project as it is on disk now, and what became of the files.

    Raises:
        ProjectError: When there is no such case, or a run is being worked on; nothing changes then.
        StorageError: When a label map or mask cannot be read, or the folder cannot be written; the
            cases and all decisions about them stay then.
    """
    with changing(open_project(project.folder).folder):
        current = open_project(project.folder)
        updated = without_cases(current, case_ids)
        gone = [current.case(name) for name in dict.fromkeys(case_ids)]
        removals = [_kept(current, case) for case in gone]
        with setting_aside(current, gone):
            write_project(updated)
    return updated, removals


def without_cases(project: Project, case_ids: Collection[str]) -> Project:
    """Return the project that `remove_cases` would save.

    Raises:
        ProjectError: As `remove_cases`.
    """
    gone = [project.case(name) for name in case_ids]
    _refuse_running(project)
    return validated(project, cases=tuple(case for case in project.cases if case not in gone))


def restyle_targets(
    project: Project,
    *,
    colors: Mapping[str, str] | None = None,
    terminologies: Mapping[str, str] | None = None,
) -> Project:
    """Set how targets are shown and what they are called in DICOM.

    Args:
        project: The project.
        colors: `#rrggbb` by the name of a target; empty leaves it to the viewer again.
        terminologies: Terminology entry by the name of a target; empty as for colours.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such target, or a colour is none; nothing changes then.
        StorageError: When the folder cannot be written.
    """
    given, entries = colors or {}, terminologies or {}
    return change_project(project.folder, lambda current: restyled(current, given, entries))


def restyled(
    project: Project, colors: Mapping[str, str], terminologies: Mapping[str, str]
) -> Project:
    """Return the project that `restyle_targets` would save.

    Raises:
        ProjectError: As `restyle_targets`.
    """
    known = {target.name for target in project.targets}
    refuse_unknown("target", (*colors, *terminologies), known)
    targets = tuple(_styled(target, colors, terminologies) for target in project.targets)
    return validated(project, targets=targets)


def _styled(target: Target, colors: Mapping[str, str], terminologies: Mapping[str, str]) -> Target:
    values = {
        "color": colors.get(target.name, target.color or "").lower() or None,
        "terminology": terminologies.get(target.name, target.terminology or "") or None,
    }
    try:
        return Target.model_validate({**target.model_dump(), **values})
    except ValueError as error:
        msg = f"'{short(values['color'])}' is no colour of {target.name}; write it as #rrggbb."
        raise ProjectError(msg) from error


def _renamed(project: Project, case: Case, name: str) -> Case:
    others = {name_key(other.id) for other in project.cases if other is not case}
    if name_key(name) in others:
        msg = f"{project.folder} has a case '{short(name)}' already; choose another name."
        raise ProjectError(msg)
    own = case.patient == case.id and not any(
        other.patient == case.id for other in project.cases if other is not case
    )
    values = {
        "id": name,
        "label": None if case.label is None else Path(LABELS, name + LABEL_SUFFIX),
        "patient": name if own else case.patient,
    }
    try:
        return Case.model_validate({**case.model_dump(), **values})
    except ValueError as error:
        msg = f"'{short(name)}' cannot be the name of a case; use letters, digits, '-' and '_'."
        raise ProjectError(msg) from error


def _move_label(old: Path, new: Path, updated: Project) -> None:
    """Give a label map another place with the project that names it there.

    Whenever this is broken off, the label map is where `project.json` says.
    """
    is_same = new.exists() and os.path.samestat(old.lstat(), new.lstat())
    with replacing_project(updated):
        if not is_same:
            copy_atomic(old, new)
    with storage_errors(old):
        if is_same:  # on a disk on which both names are one
            old.rename(new)
        else:
            old.unlink(missing_ok=True)


def _refuse_taken(project: Project, case: Case, label: Path) -> None:
    """Refuse a place that has a file for the label map of a case that is renamed.

    A file that the project moves away before may be there, and one that no case has and that is the
    same label map: a renaming that was broken off left it.
    """
    path = project.folder / label
    if not path.exists():
        return
    taken = {other.label for other in project.cases}
    given_up = {other.label for other in open_project(project.folder).cases} - taken
    is_own = label not in taken and _are_equal(project.folder / case.label_place, path)
    if label not in given_up and not is_own:
        msg = f"{path} exists already; move it away, or choose another name."
        raise ProjectError(msg)


def _are_equal(path: Path, other: Path) -> bool:
    """Tell whether two files are there and have the same content."""
    try:
        return filecmp.cmp(path, other, shallow=False)
    except OSError:
        return False


def _refuse_known(project: Project, case: Case) -> None:
    """Refuse to rename what runs and decisions know by its name."""
    knowing = [f"run {run.run_id}" for run in runs_of(project.folder) if _knows(run, case)]
    knowing += [f"run {name}" for name in _elsewhere(project)]
    decided = any(review.case_id == case.id for review in history(project))
    if decided or project.lesion_path(case.id).exists():
        knowing.append("a decision of a person")
    if knowing:
        msg = (
            f"Case {case.id} keeps its name: {', '.join(knowing)} knows it by that. Rename cases "
            "before the first training, or delete the runs that are not needed any more."
        )
        raise ProjectError(msg)


def _knows(run: RunFolder, case: Case) -> bool:
    """Tell whether a run may hold something under the name of a case."""
    if run.state != "done":
        return True  # it may have begun with any case
    label = run.path / LABELS / f"{case.id}{LABEL_SUFFIX}"
    numbers = map(round_number, run.path.glob("round-*"))
    return label.exists() or any(run.predictions(number, case.id).exists() for number in numbers)


def _refuse_running(project: Project) -> None:
    working = [run.run_id for run in runs_of(project.folder) if run.state == "running"]
    working += _elsewhere(project)
    if working:
        msg = f"Run {working[0]} is being worked on; wait for its end, or stop it first."
        raise ProjectError(msg)


def _elsewhere(project: Project) -> list[str]:
    """Return the runs that other computers may be working on, with their hosts."""
    runs = open_remote_runs(project.folder)
    return [f"{name} of {note.host}" for name, note in runs.items()]


def _kept(project: Project, case: Case) -> Removal:
    """Copy what was drawn of a case to the history."""
    copies = keep_drawn(project, case)
    return Removal(case.id, project.image_path(case), copies[0] if case.label else None)
