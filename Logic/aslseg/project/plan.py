"""A project before it is made: what was found, what pairs, what does not and why.

A plan is looked at and changed by a person before anything is written. `plan_problems` says what is
wrong with it, each sentence with the field that it is about; `write_plan` makes it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from aslseg.data.geometry import require_fit
from aslseg.errors import ImageError, ProjectError, short
from aslseg.events import Monitor
from aslseg.project.case import PROJECT_FILE, CaseFiles, CaseId, name_key
from aslseg.project.create import add_cases, create_project
from aslseg.project.datasets import find_cases
from aslseg.project.edit import restyle_targets
from aslseg.project.empty_labels import (
    empty_labels_in_words,
    may_be_unfinished,
    organs_left_out,
    organs_left_out_in_words,
)
from aslseg.project.file_facts import FileFacts, read_facts
from aslseg.project.labels import require_known
from aslseg.project.organ_masks import organ_of, with_organ_masks
from aslseg.project.pairing import (
    FoundCases,
    PairingProblem,
    left_out_in_words,
    unpaired_in_words,
)
from aslseg.project.patients import divided_patient
from aslseg.project.problem import Column, Problem
from aslseg.project.project import Project
from aslseg.project.target_table import (
    TargetRow,
    renamed,
    rows_of,
    suggested_targets,
    target_problems,
    targets_of,
)
from aslseg.targets import Target

_CASE_ID: TypeAdapter[str] = TypeAdapter(CaseId)
_NAMES = "use letters, digits, '-' and '_', and begin with a letter or digit"


@dataclass(frozen=True, slots=True)
class Plan:
    """A project that is to be made, or cases that are to be added to one.

    Attributes:
        folder: Of the project.
        cases: Its volumes, with label maps.
        targets: As they are typed.
        unpaired: Label maps that belong to no volume.
        pairing: What the names of files do not tell; settled when the volume has a label map or is
            left out.
        facts: What is known of the files, by path.
        project: The project that cases are added to; None for a new one.
        left_out: Files among the volumes that are named as label maps.
    """

    folder: Path
    cases: tuple[CaseFiles, ...] = ()
    targets: tuple[TargetRow, ...] = ()
    unpaired: tuple[Path, ...] = ()
    pairing: tuple[PairingProblem, ...] = ()
    facts: Mapping[Path, FileFacts] = field(default_factory=dict)
    project: Project | None = None
    left_out: tuple[Path, ...] = ()


def plan_project(
    folder: Path,
    source: Path,
    labels: Path | None = None,
    *,
    targets: Sequence[Target] | None = None,
    monitor: Monitor | None = None,
) -> Plan:
    """Find the cases of a source and read what their files say; nothing is written.

    Args:
        folder: Of the new project.
        source: As for `find_cases`.
        labels: As for `find_cases`.
        targets: Classes of the label maps; None takes those that the source or segments name.
        monitor: Told of the progress.

    Raises:
        ProjectError: When the source holds no case, or is damaged.
        CancelledError: When the monitor says so.
    """
    plan = Plan(folder, targets=rows_of(targets or ()))
    found = find_cases(source, labels, with_targets=not plan.targets, monitor=monitor)
    return with_facts(with_found(plan, found), monitor)


def plan_additions(
    project: Project, source: Path, labels: Path | None = None, *, monitor: Monitor | None = None
) -> Plan:
    """Find the cases of a source that a project does not have; nothing is written.

    Raises:
        ProjectError: When the source holds no case, or is damaged.
        CancelledError: When the monitor says so.
    """
    found = find_cases(source, labels, with_targets=False, monitor=monitor)
    return with_facts(with_found(empty_additions(project), found), monitor)


def empty_additions(project: Project) -> Plan:
    """Return a plan that adds nothing to a project yet."""
    return Plan(project.folder, targets=rows_of(project.targets), project=project)


def with_found(plan: Plan, found: FoundCases) -> Plan:
    """Add what a source holds to a plan; images that are in it, or in its project, are left out."""
    project = plan.project
    known = {case.image.resolve() for case in plan.cases}
    if project is not None:
        known |= {project.image_path(case).resolve() for case in project.cases}
    new = tuple(case for case in found.cases if case.image.resolve() not in known)
    images = {case.image for case in new}
    targets = plan.targets or rows_of(found.targets or ())
    return replace(
        plan,
        cases=plan.cases + new,
        targets=targets,
        unpaired=tuple(dict.fromkeys(plan.unpaired + found.unpaired)),
        pairing=plan.pairing + tuple(one for one in found.problems if one.image in images),
        left_out=tuple(dict.fromkeys(plan.left_out + found.left_out)),
    )


def with_masks(plan: Plan, organ: str, source: Path) -> Plan:
    """Give cases the masks of an organ that a folder holds; see `find_organ_masks`.

    Raises:
        ProjectError: When the folder holds none, or names do not tell which.
    """
    return replace(plan, cases=tuple(with_organ_masks(plan.cases, organ, source)))


def with_target_renamed(plan: Plan, row: int, name: str) -> Plan:
    """Return a plan in which a target has another name, wherever it is named."""
    before = plan.targets[row].name.strip()
    cases = tuple(
        replace(case, masks={name if key == before else key: v for key, v in case.masks.items()})
        for case in plan.cases
    )
    return replace(plan, targets=renamed(plan.targets, row, name), cases=cases)


def with_facts(plan: Plan, monitor: Monitor | None = None) -> Plan:
    """Read what is not known yet of the files of a plan; without targets, propose some.

    Raises:
        CancelledError: When the monitor says so.
    """
    facts = read_facts(plan.cases, plan.facts, monitor)
    labels = [facts[case.label] for case in plan.cases if case.label is not None]
    held = [(found.values, found.segments) for found in labels]
    return replace(plan, facts=facts, targets=plan.targets or suggested_targets(held))


def patients_of(plan: Plan) -> list[str]:
    """Return whose volume each case is: as it was said, else by its DICOM files, else its own."""
    first: dict[str, str] = {}
    found = []
    for case in plan.cases:
        facts = plan.facts.get(case.image)
        patient_id = None if facts is None else facts.patient_id
        by_dicom = case.id if patient_id is None else first.setdefault(patient_id, case.id)
        found.append(case.patient or by_dicom)
    return found


def plan_problems(plan: Plan) -> list[Problem]:
    """List what is wrong with a plan, as far as its files are known; none when it can be made."""
    found = [*_folder(plan), *_repeated_cases(plan), *_divided(plan)]
    found += [p for row, case in enumerate(plan.cases) for p in _names(row, case)]
    found += [
        Problem(
            "unpaired", f"{unpaired_in_words(path)[:-1]}, choose its volume, or leave it out.", n
        )
        for n, path in enumerate(plan.unpaired)
    ]
    unclear = {one.image: one.message for one in plan.pairing}
    found += [
        Problem("case", unclear[case.image], row, "label")
        for row, case in enumerate(plan.cases)
        if case.image in unclear and case.label is None
    ]
    wrong_targets = target_problems(plan.targets)
    targets = () if wrong_targets else targets_of(plan.targets)
    found += [p for row, case in enumerate(plan.cases) for p in _files(row, case, plan, targets)]
    found += [p for row, case in enumerate(plan.cases) for p in _masks(row, case, plan, targets)]
    return found + wrong_targets


def plan_notes(plan: Plan) -> list[str]:
    """List what a person should know of a plan that hinders nothing."""
    notes = left_out_notes(plan)
    if empty := _empty_labels(plan):
        notes.append(empty_labels_in_words(empty))
    if without := _organs_left_out(plan):
        notes.append(organs_left_out_in_words(without))
    return notes


def left_out_notes(plan: Plan) -> list[str]:
    """Say which files among the volumes are none by their names."""
    if not plan.left_out:
        return []
    return [f"{left_out_in_words(plan.left_out)}. Rename a file that is a volume."]


def _empty_labels(plan: Plan) -> list[str]:
    """List the cases whose label map is empty though something is expected in it."""
    if target_problems(plan.targets):
        return []
    targets = targets_of(plan.targets)
    facts = {case.id: plan.facts.get(case.label) for case in plan.cases if case.label is not None}
    return [
        case.id
        for case in plan.cases
        if (label := facts.get(case.id)) is not None
        and not (label.values or label.problem)
        and may_be_unfinished(targets, case.label_targets, case.masks)
    ]


def _organs_left_out(plan: Plan) -> dict[str, list[str]]:
    """List the organs that label maps lack around their lesions; named segments are seen later."""
    if target_problems(plan.targets):
        return {}
    targets, found = targets_of(plan.targets), {}
    for case in plan.cases:
        label = None if case.label is None else plan.facts.get(case.label)
        if label is not None and not (label.problem or label.segments):
            values = label.values
            found[case.id] = organs_left_out(targets, values, case.label_targets, case.masks)
    return {name: organs for name, organs in found.items() if organs}


def write_plan(plan: Plan, *, preset: str | None = None, monitor: Monitor | None = None) -> Project:
    """Make the project of a plan, or add its cases to the project that it is about.

    Args:
        plan: What shall be; all images and label maps are read again and checked.
        preset: Name of the settings that a new project is made for.
        monitor: Told of the progress.

    Raises:
        ProjectError: When something is wrong with the plan; nothing is written then.
        ImageError: When one file cannot be used; nothing is written then.
        StorageError: When the folder cannot be written; nothing is left behind.
    """
    refuse_problems(plan)
    targets = targets_of(plan.targets)
    if plan.project is not None:
        return _written_into(plan.project, plan.cases, targets, monitor)
    return create_project(plan.folder, plan.cases, targets, preset=preset, monitor=monitor)


def _written_into(
    project: Project,
    cases: Sequence[CaseFiles],
    targets: Sequence[Target],
    monitor: Monitor | None,
) -> Project:
    if cases:
        project = add_cases(project, cases, monitor)
    if tuple(targets) == project.targets:
        return project
    return restyle_targets(
        project,
        colors={target.name: target.color or "" for target in targets},
        terminologies={target.name: target.terminology or "" for target in targets},
    )


def refuse_problems(plan: Plan) -> None:
    """Refuse a plan with which something is wrong.

    Raises:
        ProjectError: With all that is wrong.
    """
    problems = plan_problems(plan)
    if problems:
        raise ProjectError(" ".join(dict.fromkeys(problem.message for problem in problems)))


def _folder(plan: Plan) -> list[Problem]:
    project = plan.project
    if project is not None and _in_labels(plan.targets) != _in_labels(rows_of(project.targets)):
        message = f"The targets of {project.folder} keep name, value and parent; put them back."
        return [Problem("targets", message)]
    if project is not None and plan.targets != rows_of(project.targets):
        return []  # other colours are enough to do
    if not plan.cases:
        message = "There is no volume; choose where the volumes are."
        return [*_place(plan), Problem("cases", message)]
    return _place(plan)


def _in_labels(rows: Sequence[TargetRow]) -> list[tuple[str, str, str]]:
    """Return what label maps and runs know of targets."""
    return [(row.name, row.value, row.inside) for row in rows]


def _place(plan: Plan) -> list[Problem]:
    """Look whether the folder of a new project can be one."""
    if plan.project is not None:
        return []
    folder = plan.folder
    above = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if (folder / PROJECT_FILE).exists():
        message = f"{folder} holds a project already; open it, or choose another folder."
    elif not above.is_dir():
        message = f"{above} is a file; choose another folder."
    elif not os.access(above, os.W_OK):
        message = (
            f"{above} cannot be written: the disk is read-only, or permission is denied; choose a "
            "folder that you may write to."
        )
    else:
        return []
    return [Problem("folder", message)]


def _names(row: int, case: CaseFiles) -> list[Problem]:
    names: dict[Column, str | None] = {"name": case.id, "patient": case.patient}
    message = "'{}' cannot be a name; " + _NAMES + "."
    return [
        Problem("case", message.format(short(name)), row, column)
        for column, name in names.items()
        if name is not None and not is_case_id(name)
    ]


def is_case_id(name: str) -> bool:
    """Tell whether a case or a patient may have a name."""
    try:
        _CASE_ID.validate_python(name)
    except ValidationError:
        return False
    return True


def _repeated_cases(plan: Plan) -> list[Problem]:
    """Refuse two cases of one name, volume or label map; also with those of the project."""
    project = plan.project
    ids = Counter(name_key(case.id) for case in plan.cases)
    ids.update(name_key(case.id) for case in (project.cases if project else ()))
    images = Counter(case.image for case in plan.cases)
    labels = Counter(case.label for case in plan.cases if case.label is not None)
    found = []
    for row, case in enumerate(plan.cases):
        if ids[name_key(case.id)] > 1:
            message = f"Two cases have the name '{short(case.id)}'; rename one, or leave it out."
            found.append(Problem("case", message, row, "name"))
        if images[case.image] > 1:
            message = f"{case.image} is the volume of two cases; leave one of them out."
            found.append(Problem("case", message, row, "image"))
        if case.label is not None and labels[case.label] > 1:
            message = f"{case.label} is the label map of two cases; choose another for one of them."
            found.append(Problem("case", message, row, "label"))
    return found


def _divided(plan: Plan) -> list[Problem]:
    """Refuse a patient with volumes to learn from and others to check on."""
    named = [
        replace(case, patient=patient)
        for case, patient in zip(plan.cases, patients_of(plan), strict=True)
    ]
    divided = divided_patient([*(plan.project.cases if plan.project else ()), *named])
    if not divided:
        return []
    remedy = "Give both the same part, leave one out, or, if they are of two patients, name these"
    message = f"{divided}. {remedy} (--patient CASE=PATIENT)."
    rows = [row for row, case in enumerate(plan.cases) if f"{case.id} (" in divided]
    return [Problem("case", message, row, "patient") for row in rows]


def _files(row: int, case: CaseFiles, plan: Plan, targets: Sequence[Target]) -> list[Problem]:
    """Look whether the files of a case can be used, and whether the label map fits."""
    image = plan.facts.get(case.image)
    label = None if case.label is None else plan.facts.get(case.label)
    found = []
    if image is not None and image.problem:
        found.append(Problem("case", image.problem, row, "image"))
    if label is None:
        return found
    if label.problem or label.ai_label:
        return [*found, Problem("case", label.problem or label.ai_label, row, "label")]
    try:
        if targets:
            _require_known(case, label, targets)
        misfit = _misfit(label, image, str(case.label), case)
    except ImageError as error:
        misfit = str(error)
    return [*found, Problem("case", misfit, row, "label")] if misfit else found


def _masks(row: int, case: CaseFiles, plan: Plan, targets: Sequence[Target]) -> list[Problem]:
    """Look whether organ masks are of targets that contain others, and fit their volume."""
    image, found = plan.facts.get(case.image), []
    for name, path in case.masks.items():
        mask = plan.facts.get(path)
        message = _mask_problem(name, path, targets)
        if not message and mask is not None:
            message = mask.problem or _misfit(mask, image, str(path), case)
        if message:
            found.append(Problem("case", message, row, "masks"))
    return found


def _mask_problem(name: str, path: Path, targets: Sequence[Target]) -> str:
    try:
        if targets:
            organ_of(targets, name)
    except ProjectError as error:
        return f"{path}: {error}"
    return ""


def _misfit(labels: FileFacts, image: FileFacts | None, name: str, case: CaseFiles) -> str:
    """Say why a label map or mask cannot be brought onto its volume; empty when it can."""
    if image is None or image.geometry is None or labels.geometry is None:
        return ""
    is_empty, same_size = not labels.values, case.same_size
    try:
        require_fit(labels.geometry, image.geometry, name, is_empty=is_empty, same_size=same_size)
    except ImageError as error:
        return str(error)
    return ""


def _require_known(case: CaseFiles, label: FileFacts, targets: Sequence[Target]) -> None:
    present = np.zeros(256, np.bool_)
    present[list(label.values)] = True
    require_known(present, label.segments, targets, str(case.label), ignored=case.ignored)
