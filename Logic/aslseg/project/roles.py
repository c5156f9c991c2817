"""What cases of a project are for and whose they are, changed at once for all of a patient."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from aslseg.errors import ProjectError
from aslseg.project.case import Case
from aslseg.project.patients import meant_patients
from aslseg.project.project import Project, change_project, validated
from aslseg.reading import contradiction_in_words


def assign(
    project: Project,
    *,
    patients: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
) -> Project:
    """Set whose volumes cases are and what they are for, and save the project.

    Args:
        project: The project.
        patients: Patient by case id; the id of another case stands for its patient.
        splits: `train`, `validation` or `test` by case id; all volumes of a patient have one.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such case or split, a patient would have volumes in two
            splits, or one would be judged by a label that a network made; nothing changes then.
        StorageError: When the folder cannot be written.
    """
    given, parts = patients or {}, splits or {}
    return change_project(project.folder, lambda current: assigned(current, given, parts))


def assigned(project: Project, patients: Mapping[str, str], splits: Mapping[str, str]) -> Project:
    """Return the project that `assign` would save.

    Raises:
        ProjectError: As `assign`.
    """
    for name in (*patients, *splits):
        refuse_to_judge_by(project.case(name), splits.get(name))
    meant = meant_patients(patients, {case.id: case.patient for case in project.cases})
    cases = tuple(_changed(case, meant, splits) for case in project.cases)
    return validated(project, cases=cases)


def volumes_of_same_patient(project: Project, case_id: str) -> tuple[str, ...]:
    """Return the ids of all volumes of a case's patient, the case among them.

    Raises:
        ProjectError: When there is no such case.
    """
    patient = project.case(case_id).patient
    return tuple(case.id for case in project.cases if case.patient == patient)


def refuse_to_judge_by(case: Case, split: str | None) -> None:
    """Refuse to judge by a label that a person only accepted.

    Args:
        case: With its label.
        split: What it shall be for; None: what it was for.

    Raises:
        ProjectError: When that is to validate or to test, and its label was accepted.
    """
    if case.status == "accepted" and split in ("validation", "test"):
        msg = (
            f"The label of case {case.id} was accepted as a network made it, and would flatter "
            "networks that are judged by it; draw or correct it first, or keep the case to train "
            "on."
        )
        raise ProjectError(msg)


def refuse_prediction(case: Case) -> None:
    """Refuse what a network made as the label of a case that networks are judged by.

    Raises:
        ProjectError: When the case validates or tests.
    """
    if case.split != "train":
        msg = (
            f"Case {case.id} is there to judge by ({case.split}); only a drawn label can do that. "
            "Draw or correct its label map, or make it a case to train on."
        )
        raise ProjectError(msg)


def _changed(case: Case, patients: Mapping[str, str], splits: Mapping[str, str]) -> Case:
    values = {
        "patient": patients.get(case.id, case.patient),
        "split": splits.get(case.id, case.split),
    }
    try:
        return Case.model_validate({**case.model_dump(), **values})
    except ValidationError as error:
        raise contradiction_in_words(error, f"Case {case.id}") from error
