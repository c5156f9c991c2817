"""What cases of a project are for and whose they are, changed for all volumes of a patient."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pydantic import ValidationError

from aslseg.project.case import Case, Split
from aslseg.project.project import Project, change_project, validated
from aslseg.storage import in_words


def set_split(project: Project, case_ids: Collection[str], split: Split) -> Project:
    """Set what cases are for, and save the project.

    Args:
        project: The project.
        case_ids: All volumes of a patient, or none.
        split: What they are for from now on.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such case, or a patient would have volumes in two splits.
        StorageError: When the folder cannot be written.
    """
    return _change(project, {name: {"split": split} for name in case_ids})


def set_patients(project: Project, patients: Mapping[str, str]) -> Project:
    """Set whose volumes cases are, and save the project.

    Args:
        project: The project.
        patients: By case id.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such case, or a patient would have volumes in two splits.
        StorageError: When the folder cannot be written.
    """
    return _change(project, {name: {"patient": patient} for name, patient in patients.items()})


def volumes_of_same_patient(project: Project, case_id: str) -> tuple[str, ...]:
    """Return the ids of all volumes of a case's patient, the case among them.

    Raises:
        ProjectError: When there is no such case.
    """
    patient = project.case(case_id).patient
    return tuple(case.id for case in project.cases if case.patient == patient)


def _change(project: Project, changes: Mapping[str, Mapping[str, str]]) -> Project:
    def change(current: Project) -> Project:
        changed = {name: _changed(current.case(name), values) for name, values in changes.items()}
        return validated(current, cases=tuple(changed.get(c.id, c) for c in current.cases))

    return change_project(project.folder, change)


def _changed(case: Case, values: Mapping[str, str]) -> Case:
    try:
        return Case.model_validate({**case.model_dump(), **values})
    except ValidationError as error:
        raise in_words(error, f"Case {case.id}") from error
