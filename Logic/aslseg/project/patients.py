"""Which volumes are of one patient, and what that forbids.

A network that is trained on a patient knows that patient's anatomy and lesions: another volume of
the patient, of another phase or date, says nothing of how it does on others.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aslseg.data.dicom import patient_id_of
from aslseg.errors import ProjectError, listed, refuse_unknown, short
from aslseg.project.case import Case, CaseFiles, Split, name_key
from aslseg.reading import read_table

logger = logging.getLogger(__name__)

IN_WORDS: dict[Split, str] = {
    "train": "learn from",
    "validation": "check on",
    "test": "test at the end",
}
"""What a case is used to, as the panel says it."""
HASH_ROUNDS = 100_000
"""Of PBKDF2: PatientIDs are short, and must not be found by trying all of them."""
_MOST_NAMED = 6
_HASHED = re.compile(r"dicom-[0-9a-f]{16}")


def divided_patient(cases: Iterable[Case | CaseFiles]) -> str | None:
    """Say which patient has volumes in two splits, None when nobody has.

    Returns:
        A sentence without its full stop.
    """
    seen: dict[str, Case | CaseFiles] = {}
    for case in cases:
        other = seen.setdefault(whose(case), case)
        if other.split != case.split:
            return (
                f"{other.id} ({IN_WORDS[other.split]}) and {case.id} ({IN_WORDS[case.split]}) are "
                f"volumes of one patient ('{whose(case)}'), who cannot be on two sides"
            )
    return None


def refuse_divided(cases: Iterable[Case | CaseFiles]) -> None:
    """Refuse a patient with volumes in two splits.

    Raises:
        ProjectError: Naming two of the volumes, and what can be done.
    """
    divided = divided_patient(cases)
    if divided:
        msg = (
            f"{divided}. Give both the same part, leave one out, or, if they are of two patients, "
            "name these (--patient CASE=PATIENT)."
        )
        raise ProjectError(msg)


def repeated_patients(cases: Sequence[Case]) -> list[str]:
    """Say which unlabelled training volumes are of patients who are labelled; one sentence each."""
    labelled: dict[str, Case] = {}
    for case in cases:
        if case.split == "train" and case.label is not None:
            labelled.setdefault(case.patient, case)
    return [
        f"{case.id} has no label and is of the same patient as {labelled[case.patient].id}, which "
        "has one: it is trained on, but how well it is segmented says little of other patients."
        for case in cases
        if case.split == "train" and case.label is None and case.patient in labelled
    ]


def alike_patients(cases: Iterable[Case]) -> list[str]:
    """Say which patients count as two and may be one, as `name_key` compares names.

    Returns:
        A sentence for each pair.
    """
    known: dict[str, Case] = {}
    alike: dict[str, str] = {}
    for case in cases:
        other = known.setdefault(name_key(case.patient), case)
        if other.patient != case.patient:
            alike[case.patient] = (
                f"The patients '{other.patient}' (of {other.id}) and '{case.patient}' (of "
                f"{case.id}) count as two, though their names differ in case or accents alone: one "
                "may be learnt from and the other checked on. If they are one, give both one name "
                f"(--patient {case.id}={other.patient})."
            )
    return list(alike.values())


def whose(case: Case | CaseFiles) -> str:
    """Return the patient of a case, as far as is known without its image."""
    return case.patient or case.id


def with_dicom_patients(cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
    """Name DICOM cases of one PatientID by the first of them; those that have a patient stay.

    Raises:
        ImageError: When a folder holds no readable series.
    """
    first: dict[str, str] = {}
    by_dicom: dict[str, str] = {}
    for case in cases:
        known = dicom_patient_of(case)
        if known is not None:
            by_dicom[case.id] = first.setdefault(known, case.id)
    return tuple(
        replace(case, patient=or_of_dicom(case.id, case.patient, by_dicom)) for case in cases
    )


def or_of_dicom(case_id: str, patient: str | None, by_dicom: Mapping[str, str]) -> str | None:
    """Return the patient of a case, or that of DICOM files: its own, or those of a case it names.

    Args:
        case_id: Id of the case.
        patient: Whose it is said to be; the name of another case stands for its patient.
        by_dicom: Patient of each case whose patient is that of its DICOM files, by its id.
    """
    return by_dicom.get(case_id) or by_dicom.get(patient or "") or patient


def dicom_patient_of(case: CaseFiles) -> str | None:
    """Read the PatientID of a case that is a DICOM folder and has no patient yet; never write it.

    Raises:
        ImageError: When the folder holds no readable series.
    """
    if case.patient is not None or not case.image.is_dir():
        return None
    return patient_id_of(case.image)


def hashed_patient(patient_id: str, salt: str) -> str:
    """Return a name that tells patients of a project apart and says nothing of who they are.

    Args:
        patient_id: Of `dicom_patient_of`.
        salt: Of the project, in hexadecimal digits.
    """
    digest = hashlib.pbkdf2_hmac(
        "sha256", patient_id.encode("utf-8", "surrogateescape"), bytes.fromhex(salt), HASH_ROUNDS
    )
    return f"dicom-{digest.hex()[:16]}"


def is_hashed(patient: str) -> bool:
    """Tell whether a patient is known by a PatientID, as `hashed_patient` names them."""
    return _HASHED.fullmatch(patient) is not None


def with_patients(
    cases: Sequence[CaseFiles], patients: Mapping[str, str] | None = None, source: str | None = None
) -> list[CaseFiles]:
    """Say whose volumes cases are; a warning names those of which `source` says nothing.

    Args:
        cases: What there is.
        patients: Patient of single cases, by the case's name; they overrule `source`. The name of
            another case stands for its patient.
        source: A CSV file with columns `case` and `patient`, or a regular expression whose first
            group, found in each case's name, is the patient.

    Raises:
        ProjectError: When there is no such case, a name does not match, or the source is damaged.
    """
    by_source = _named_by(source, [case.id for case in cases])
    refuse_unknown("case", [*by_source, *(patients or {})], {case.id for case in cases})
    found = [replace(case, patient=by_source.get(case.id, case.patient)) for case in cases]
    unnamed = [one.id for one in found if not (one.patient or one.id in (patients or {}))]
    if source is not None and unnamed:
        logger.warning(
            "%s names no patient of %s: each counts as a patient of its own, but for those of one "
            "PatientID in DICOM files.",
            source,
            listed(unnamed, _MOST_NAMED),
        )
    meant = meant_patients(patients or {}, {case.id: whose(case) for case in found})
    return [replace(case, patient=meant.get(case.id, case.patient)) for case in found]


def meant_patients(named: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Return the patients that are meant, where the name of another case means its patient.

    Args:
        named: What a person said, by case id.
        known: Patient of each case as it was before, by its id.
    """
    return {
        case: name if name == case else named.get(name, known.get(name, name))
        for case, name in named.items()
    }


def _named_by(source: str | None, names: Sequence[str]) -> dict[str, str]:
    if source is None:
        return {}
    if source.lower().endswith(".csv"):
        return _named_in_table(Path(source))
    try:
        pattern = re.compile(source)
    except re.error as error:
        msg = f"'{short(source)}' is no regular expression ({error}); correct it, or give a .csv."
        raise ProjectError(msg) from error
    if pattern.groups < 1:
        msg = f"'{short(source)}' has no group; put the patient's part of names in brackets: (...)."
        raise ProjectError(msg)
    matches = {name: pattern.search(name) for name in names}
    absent = [name for name, match in matches.items() if match is None or not match.group(1)]
    if absent:
        msg = f"'{short(source)}' finds no patient in the name {absent[0]}; let it match all names."
        raise ProjectError(msg)
    return {name: match.group(1) for name, match in matches.items() if match is not None}


def _named_in_table(path: Path) -> dict[str, str]:
    remedy = "give a CSV file with columns 'case' and 'patient', parted by a comma"
    rows = read_table(path, ("case", "patient"), ProjectError, remedy)
    named: dict[str, str] = {}
    for row in rows:
        case, patient = row["case"].strip(), row["patient"].strip()
        if patient and named.setdefault(case, patient) != patient:
            msg = (
                f"{path} gives case {short(case)} to two patients, {short(named[case])} and "
                f"{short(patient)}; leave one of them."
            )
            raise ProjectError(msg)
    return named
