"""Projects: made from images and label maps, and added to.

Everything is read and checked before anything is written, so a bad file leaves no trace.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from aslseg.config import RunConfig
from aslseg.errors import CancelledError, ProjectError, as_typed_command, refuse_unknown
from aslseg.events import Monitor
from aslseg.presets import DEFAULT_PRESET, PRESETS
from aslseg.project.case import (
    PROJECT_FILE,
    Case,
    CaseFiles,
    Split,
    refuse_same_ids,
)
from aslseg.project.empty_labels import (
    empty_labels_in_words,
    may_be_unfinished,
    organs_left_out,
    organs_left_out_in_words,
)
from aslseg.project.image_digests import remember
from aslseg.project.lock import LOCK, changing
from aslseg.project.patients import (
    alike_patients,
    hashed_patient,
    is_hashed,
    or_of_dicom,
    repeated_patients,
    whose,
)
from aslseg.project.project import Project, open_project, validated, write_project
from aslseg.project.run_folder import refuse_foreign_results
from aslseg.project.similar_bodies import MOST_PAIRS, keep_bodies, similar_pairs
from aslseg.project.similar_bodies import in_words as similar_in_words
from aslseg.project.staged_cases import StagedCase, placed, read_cases, staging_folder
from aslseg.project.windows import window_notes
from aslseg.reading import contradiction_in_words
from aslseg.targets import LIVER_TARGETS, Target


def select_cases(
    cases: Sequence[CaseFiles],
    *,
    labelled: Collection[str] | None = None,
    validation: Collection[str] | None = None,
    test: Collection[str] | None = None,
) -> list[CaseFiles]:
    """Assign cases to training, validation and test.

    Args:
        cases: What there is.
        labelled: Cases whose label map is trained on; that of every other case to train on is
            left out here, so that no project file ever names it. None keeps all.
        validation: Cases to decide by. None keeps the split as it is.
        test: Cases for the end. None keeps the split as it is.

    Raises:
        ProjectError: When a name is unknown or has two parts to play, two cases have one name, or a
            label map is missing.
    """
    refuse_same_ids(cases)
    known = {case.id: case for case in cases}
    splits: list[tuple[str, Split]] = [(name, "validation") for name in validation or ()]
    splits += [(name, "test") for name in test or ()]
    _check_choice(known, labelled or (), [name for name, _ in splits])
    for name, split in splits:
        known[name] = replace(known[name], split=split)
    if labelled is not None:
        for name, case in known.items():
            if case.split == "train" and name not in labelled:
                known[name] = replace(case, label=None)
    return list(known.values())


def with_label_targets(
    cases: Sequence[CaseFiles], names: Collection[str], of: Collection[str] | None = None
) -> list[CaseFiles]:
    """Return cases whose label maps decide some targets alone, and say nothing of the others.

    Args:
        cases: What there is.
        names: Of the targets.
        of: Ids of the cases that are meant; all when None.

    Raises:
        ProjectError: When there is no such case.
    """
    refuse_unknown("case", of or (), [case.id for case in cases])
    return [
        replace(case, label_targets=tuple(names)) if of is None or case.id in of else case
        for case in cases
    ]


def create_project(
    folder: Path,
    cases: Sequence[CaseFiles],
    targets: Sequence[Target] = LIVER_TARGETS,
    *,
    preset: str | None = None,
    monitor: Monitor | None = None,
) -> Project:
    """Make a project: label maps are copied onto their image's grid, images stay where they are.

    Args:
        folder: A new folder, or one without a project.
        cases: Images and label maps.
        targets: Classes of the label maps.
        preset: Name of the settings that the project is made for.
        monitor: Told of the progress, for every image is read.

    Raises:
        ProjectError: When there is a project already, ids repeat, or files cannot be used.
        ImageError: When one file cannot be used.
        StorageError: When the folder cannot be written. In every case nothing is left behind.
    """
    _refuse_project(folder)
    try:
        project = Project(folder=folder, targets=tuple(targets), preset=preset)
    except ValidationError as error:
        raise contradiction_in_words(error, str(folder)) from error

    def as_new() -> Project:
        _refuse_project(folder)
        return project

    is_new = not folder.exists()
    try:
        return _with_added(project, cases, monitor, as_new)
    except BaseException:
        with suppress(OSError):
            if not (folder / PROJECT_FILE).exists():
                (folder / LOCK).unlink(missing_ok=True)
            if is_new:
                folder.rmdir()  # only an empty one goes
        raise


def add_cases(
    project: Project,
    cases: Sequence[CaseFiles],
    monitor: Monitor | None = None,
    *,
    check: Callable[[Project], object] | None = None,
) -> Project:
    """Add cases to a project, all of them or none, and save it.

    Args:
        project: The project.
        cases: To be added.
        monitor: Told of the progress.
        check: Called with the project as it would be; what it raises leaves the project as it is.

    Raises:
        ProjectError: When ids repeat or files cannot be used.
        ImageError: When one file cannot be used.
        StorageError: When the folder cannot be written. In every case the project stays as it is.
    """
    return _with_added(project, cases, monitor, lambda: open_project(project.folder), check)


def _refuse_project(folder: Path) -> None:
    if (folder / PROJECT_FILE).exists():
        msg = f"{folder} holds a project already; open it, or choose another folder."
        raise ProjectError(msg)


def _with_added(
    project: Project,
    cases: Sequence[CaseFiles],
    monitor: Monitor | None,
    current: Callable[[], Project],
    check: Callable[[Project], object] | None = None,
) -> Project:
    candidate = _with_names(project, cases)
    with staging_folder(project.folder) as staging:
        staged = read_cases(candidate, cases, staging, monitor or Monitor())
        _refuse_empty(candidate, staged)
        _warn_of_empty(candidate, staged, monitor or Monitor())
        with changing(project.folder):
            updated = _with_cases(current(), staged)
            refuse_same_images(updated)
            refuse_foreign_results(project.folder, [one.case for one in staged])
            if check is not None:
                check(updated)
            with placed(staging, project.folder):
                write_project(updated)
    remember(project.folder, {a.case.id: [a.stamp, a.case.image_sha256] for a in staged})
    _warn_of_windows(updated, staged, monitor or Monitor())
    _warn_of_patients(updated, staged, monitor or Monitor())
    return updated


def _with_cases(project: Project, staged: Sequence[StagedCase]) -> Project:
    """Add cases; those of one DICOM PatientID, of now and of before, are of one patient."""
    salt = project.patient_salt or secrets.token_hex(16)
    hashed = {
        one.case.id: hashed_patient(one.dicom_patient, salt)
        for one in staged
        if one.dicom_patient is not None
    }
    known = {case.id: case.patient for case in project.cases if is_hashed(case.patient)}
    new = tuple(_with_patient(one.case, {**known, **hashed}) for one in staged)
    return validated(
        project,
        cases=project.cases + new,
        patient_salt=salt if hashed else project.patient_salt,
    )


def _with_patient(case: Case, by_dicom: Mapping[str, str]) -> Case:
    return case.model_copy(update={"patient": or_of_dicom(case.id, case.patient, by_dicom)})


def _warn_of_windows(project: Project, staged: Sequence[StagedCase], monitor: Monitor) -> None:
    """Say which targets could not be seen in a training with the settings of the project."""
    config = PRESETS.get(project.preset or DEFAULT_PRESET, RunConfig())
    measured = [found for one in staged for found in one.intensities]
    for note in window_notes(measured, project.targets, config):
        monitor.warn(note)


def _warn_of_patients(project: Project, staged: Sequence[StagedCase], monitor: Monitor) -> None:
    """Say who is both labelled and unlabelled, and which names or volumes may be of one patient."""
    bodies = {one.case.id: one.body for one in staged}
    keep_bodies(project, bodies)
    try:
        matches, notes = similar_pairs(project, of=bodies, most=MOST_PAIRS, monitor=monitor)
    except CancelledError:  # the cases are there by now
        again = as_typed_command("aslseg", "patients", project.folder, "--compare")
        matches, notes = [], [f"Looking for volumes of one patient was stopped; to go on: {again}"]
    found = [similar_in_words(match, project) for match in matches]
    said = (*repeated_patients(project.cases), *alike_patients(project.cases))
    for note in (*notes, *said, *found):
        monitor.warn(note)


def _check_choice(
    known: dict[str, CaseFiles], labelled: Collection[str], others: Sequence[str]
) -> None:
    names = [*labelled, *others]
    refuse_unknown("case", names, known)
    for name in names:
        if names.count(name) > 1:
            msg = f"Case '{name}' is named twice; it is either labelled, validation or test."
            raise ProjectError(msg)
    for name in labelled:
        if known[name].label is None:
            msg = f"Case '{name}' shall be labelled but has no label map; name another one."
            raise ProjectError(msg)


def _with_names(project: Project, cases: Sequence[CaseFiles]) -> Project:
    """Check names and repetitions before any image is read."""
    refuse_same_ids([*(CaseFiles(c.id, project.image_path(c)) for c in project.cases), *cases])
    try:
        new = tuple(
            Case(
                id=case.id,
                image=case.image,
                split=case.split,
                patient=whose(case),
                label_targets=case.label_targets,
            )
            for case in cases
        )
    except ValidationError as error:
        names = ", ".join(f"'{name}'" for case in cases for name in {case.id, whose(case)})
        msg = f"A name among {names} cannot be a file name; use letters, digits, '-' and '_'."
        raise ProjectError(msg) from error
    return validated(project, cases=project.cases + new)


def _refuse_empty(project: Project, staged: Sequence[StagedCase]) -> None:
    labelled = [a for a in staged if a.case.label is not None and a.case.split == "train"]
    if labelled and not project.labelled and not any(a.values for a in labelled):
        names = ", ".join(one.case.id for one in labelled)
        msg = f"No label map has a labelled voxel ({names}); draw the targets in at least one."
        raise ProjectError(msg)


def _warn_of_empty(project: Project, staged: Sequence[StagedCase], monitor: Monitor) -> None:
    """Say which label maps are empty, or have no organ, though the case is expected to have it."""
    empty, without = [], {}
    for one in (one for one in staged if one.case.label is not None):
        label_targets, masks = one.case.label_targets, one.case.masks
        if not one.values and may_be_unfinished(project.targets, label_targets, masks):
            empty.append(one.case.id)
        if organs := organs_left_out(project.targets, one.values, label_targets, masks):
            without[one.case.id] = organs
    if empty:
        monitor.warn(empty_labels_in_words(empty))
    if without:
        monitor.warn(organs_left_out_in_words(without))


def refuse_same_images(project: Project) -> None:
    """Refuse one image under two names: training and test cases could be the same.

    Raises:
        ProjectError: When two cases have the same image.
    """
    seen: dict[str, Case] = {}
    for case in project.cases:
        other = seen.setdefault(case.image_sha256 or case.id, case)
        if other is not case:
            msg = f"Cases {other.id} and {case.id} have the same image ({case.image}); remove one."
            raise ProjectError(msg)
