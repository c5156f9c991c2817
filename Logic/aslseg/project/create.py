"""Projects: made from images and label maps, opened, and added to.

Everything is read and checked before anything is written, so a bad file leaves no trace.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from aslseg.config import RunConfig
from aslseg.data.body_match import BodyDigest, body_digest
from aslseg.data.images import read_geometry, read_volume, write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Mask
from aslseg.errors import CancelledError, ImageError, ProjectError, refuse_unknown
from aslseg.events import Monitor
from aslseg.presets import DEFAULT_PRESET, PRESETS
from aslseg.project.case import (
    LABEL_SUFFIX,
    LABELS,
    PROJECT_FILE,
    Case,
    CaseFiles,
    Split,
    Status,
    image_place,
    refuse_same_ids,
)
from aslseg.project.drawn import drawn_files, set_drawn_aside
from aslseg.project.image_digests import remember, stamp_of
from aslseg.project.labels import complete_slices_of, load_labels, refuse_unclaimed
from aslseg.project.lesions import read_lesions
from aslseg.project.organ_masks import (
    checked_organ_mask,
    mask_place,
    organ_of,
    read_organ_mask,
    with_masks,
)
from aslseg.project.patients import (
    dicom_patient_of,
    hashed_patient,
    is_hashed,
    or_of_dicom,
    repeated_patients,
    whose,
)
from aslseg.project.project import (
    LOCK,
    Project,
    change_project,
    changing,
    open_project,
    replacing_project,
    validated,
    write_project,
)
from aslseg.project.review import note_removal
from aslseg.project.run_folder import refuse_foreign_results, run_named
from aslseg.project.run_tables import REFINED
from aslseg.project.similar_bodies import MOST_PAIRS, keep_bodies, similar_pairs
from aslseg.project.similar_bodies import in_words as similar_in_words
from aslseg.project.windows import Intensities, intensities_of, window_notes
from aslseg.storage import in_words, sha256_of, storage_errors, temporary_beside
from aslseg.targets import LIVER_TARGETS, Target, region_mask

__all__ = [
    "Case",
    "CaseFiles",
    "Project",
    "Split",
    "Status",
    "add_cases",
    "change_project",
    "create_project",
    "open_project",
    "renew_image",
    "select_cases",
]

logger = logging.getLogger(__name__)


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
        raise in_words(error, str(folder)) from error

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


def renew_image(project: Project, case_id: str, *, keep: bool | None = None) -> Project:
    """Take the image that a case has now as its image, for one that was replaced on purpose.

    Args:
        project: The project.
        case_id: The case.
        keep: Whether its label map, organ masks and decisions about lesions, made on the image of
            before, count for this one too; False puts them into the history, where no training
            reads them, and decisions about the case hold no more. None where there are none.

    Raises:
        ProjectError: When there is no such case, nobody has said what shall become of these, or
            what is kept counts voxels of the image of before and this one has others.
        ImageError: When the image cannot be used, or what is kept does not lie on it.
        StorageError: When the folder cannot be written.
    """
    with changing(open_project(project.folder).folder):
        current = open_project(project.folder)
        case = current.case(case_id)
        current.require_image(case)
        path = current.image_path(case)
        volume, stamp, digest = read_volume(path), stamp_of(path), sha256_of(path)
        drawn = drawn_files(current, case)
        decided = bool(drawn) or current.lesion_path(case_id).exists()
        if digest != case.image_sha256 and decided and keep is None:
            msg = (
                f"The label map, masks or decisions of case {case_id} were made on the image of "
                "before. Look whether they fit the one that is there now, and say so: --keep, or "
                "--set-aside to put them into the history."
            )
            raise ProjectError(msg)
        if keep is False:
            facts = case.model_dump(include={"id", "image", "split", "patient"})
            case = Case.model_validate(facts)
        else:
            _refuse_other_voxels(current, case, volume.geometry)
            if case.label is not None:
                load_labels(current.label_path(case), volume.geometry, current.targets)
        updated = current.with_case(case.model_copy(update={"image_sha256": digest}))
        _refuse_twins(updated)
        with replacing_project(updated):
            if keep is False:
                set_drawn_aside(current, current.case(case_id))
                note_removal(current.folder, current.case(case_id))
        for file in drawn if keep is False else []:
            file.unlink(missing_ok=True)  # its copy is in the history
    remember(updated.folder, {case_id: [stamp, digest]})
    return updated


def _refuse_other_voxels(project: Project, case: Case, geometry: Geometry) -> None:
    """Refuse to keep what counts slices or voxels for an image that has others.

    The grid of before is that of what was drawn on it, or of the label maps that were reviewed.
    """
    lesions = read_lesions(project, case.id).decisions.values()
    if case.complete_slices is None and not lesions:
        return
    places = [
        *drawn_files(project, case),
        *(
            run_named(project.folder, one.run).predictions(one.round, case.id) / REFINED
            for one in lesions
            if one.run
        ),
    ]
    if all(read_geometry(path).matches(geometry) for path in places if path.exists()):
        return
    what = "decisions about lesions" if lesions else "complete slices"
    msg = (
        f"The {what} of case {case.id} are kept by voxels of the image of before, and the one that "
        "is there now has other voxels; put what was drawn and decided into the history "
        "(--set-aside)."
    )
    raise ProjectError(msg)


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
    with _staging(project.folder) as staging:
        arrivals = _read_all(candidate, cases, staging, monitor or Monitor())
        _refuse_empty(candidate, arrivals)
        with changing(project.folder):
            updated = _with_cases(current(), arrivals)
            _refuse_twins(updated)
            refuse_foreign_results(project.folder, [arrival.case for arrival in arrivals])
            if check is not None:
                check(updated)
            with _placed(staging, project.folder):
                write_project(updated)
    remember(project.folder, {a.case.id: [a.stamp, a.case.image_sha256] for a in arrivals})
    _warn_of_windows(updated, arrivals, monitor or Monitor())
    _warn_of_patients(updated, arrivals, monitor or Monitor())
    return updated


@dataclass(frozen=True, slots=True)
class _Arrival:
    case: Case
    has_foreground: bool
    stamp: str
    intensities: tuple[Intensities, ...] = ()
    dicom_patient: str | None = field(default=None, repr=False)
    body: BodyDigest | str = ""


def _with_cases(project: Project, arrivals: Sequence[_Arrival]) -> Project:
    """Add cases; those of one DICOM PatientID, of now and of before, are of one patient."""
    salt = project.patient_salt or secrets.token_hex(16)
    hashed = {
        arrival.case.id: hashed_patient(arrival.dicom_patient, salt)
        for arrival in arrivals
        if arrival.dicom_patient is not None
    }
    known = {case.id: case.patient for case in project.cases if is_hashed(case.patient)}
    new = tuple(_with_patient(arrival.case, {**known, **hashed}) for arrival in arrivals)
    return validated(
        project,
        cases=project.cases + new,
        patient_salt=salt if hashed else project.patient_salt,
    )


def _with_patient(case: Case, by_dicom: Mapping[str, str]) -> Case:
    return case.model_copy(update={"patient": or_of_dicom(case.id, case.patient, by_dicom)})


def _warn_of_windows(project: Project, arrivals: Sequence[_Arrival], monitor: Monitor) -> None:
    """Say which targets could not be seen in a training with the settings of the project."""
    config = PRESETS.get(project.preset or DEFAULT_PRESET, RunConfig())
    measured = [found for arrival in arrivals for found in arrival.intensities]
    for note in window_notes(measured, project.targets, config):
        monitor.warn(note)


def _warn_of_patients(project: Project, arrivals: Sequence[_Arrival], monitor: Monitor) -> None:
    """Say who is both labelled and unlabelled, and which volumes look like one patient."""
    bodies = {arrival.case.id: arrival.body for arrival in arrivals}
    keep_bodies(project, bodies)
    try:
        matches, notes = similar_pairs(project, of=bodies, most=MOST_PAIRS, monitor=monitor)
    except CancelledError:  # the cases are there by now
        again = f"aslseg patients {project.folder} --compare"
        matches, notes = [], [f"Looking for volumes of one patient was stopped; to go on: {again}"]
    found = [similar_in_words(match, project) for match in matches]
    for note in (*notes, *repeated_patients(project.cases), *found):
        monitor.warn(note)


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


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    path = temporary_beside(folder / "incoming")
    with storage_errors(folder):
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _read_all(
    project: Project, cases: Sequence[CaseFiles], staging: Path, monitor: Monitor
) -> list[_Arrival]:
    tracked = monitor.track(cases, "reading images")
    results = [_try_to_read(project, case, staging) for case in tracked]
    problems = [result for result in results if isinstance(result, ImageError)]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        sentences = " ".join(str(problem) for problem in problems)
        msg = f"{len(problems)} of {len(cases)} cases cannot be used: {sentences}"
        raise ProjectError(msg)
    return [result for result in results if isinstance(result, _Arrival)]


def _try_to_read(project: Project, files: CaseFiles, staging: Path) -> _Arrival | ImageError:
    try:
        return _read_one(project, files, staging)
    except ImageError as error:
        return error


def _read_one(project: Project, files: CaseFiles, staging: Path) -> _Arrival:
    volume, stamp = read_volume(files.image), stamp_of(files.image)
    case = Case(
        id=files.id,
        image=image_place(files.image, project.folder),
        split=files.split,
        image_sha256=sha256_of(files.image),
        patient=whose(files),
    )
    masks = _staged_masks(project, files, volume.geometry, staging)
    places = {name: mask_place(organ_of(project.targets, name), files.id) for name in masks}
    case = case.model_copy(update={"masks": places})
    arrival = _Arrival(case, False, stamp, (), dicom_patient_of(files), body_digest(volume))
    if files.label is None:
        return arrival
    labels = load_labels(
        files.label,
        volume.geometry,
        project.targets,
        same_size=files.same_size,
        ignored=files.ignored,
    )
    refuse_unclaimed(labels, project.targets, files.label_targets, str(files.label))
    if _decides_organs_alone(project, files):
        found = _staged_organs(project, files, labels, staging)
        return replace(arrival, case=case.model_copy(update={"masks": {**places, **found}}))
    complete = None
    if files.ignored is not None:
        complete = complete_slices_of(
            files.label, volume.geometry, files.ignored, same_size=files.same_size
        )
    place = Path(LABELS, files.id + LABEL_SUFFIX)
    write_labelmap(labels, staging / place)
    labels = with_masks(labels, masks, project.targets, str(files.label))
    return replace(
        arrival,
        case=case.model_copy(
            update={
                "label": place,
                "status": "labelled",
                "label_targets": files.label_targets,
                "complete_slices": complete,
            }
        ),
        has_foreground=bool(labels.labels.any()),
        intensities=tuple(intensities_of(files.id, volume, labels, project.targets)),
    )


def _decides_organs_alone(project: Project, files: CaseFiles) -> bool:
    """Return whether a label map to learn from says nothing but where organs are.

    Its organs are given then, and what lies in them is sought: as a label map it would be all that
    is ever known of the case.
    """
    organs = {target.inside for target in project.targets}
    return (
        files.split == "train" and bool(files.label_targets) and set(files.label_targets) <= organs
    )


def _staged_organs(
    project: Project, files: CaseFiles, labels: Labelmap, staging: Path
) -> dict[str, Path]:
    """Write the organs of a label map as masks to where they are staged; return their places."""
    places: dict[str, Path] = {}
    for name in files.label_targets:
        organ = organ_of(project.targets, name)
        region = region_mask(labels.labels, organ, project.targets).astype(np.uint8)
        mask = Labelmap(region, labels.geometry)
        places[name] = mask_place(organ, files.id)
        mask = checked_organ_mask(mask, labels.geometry, organ, str(files.label))
        write_labelmap(mask, staging / places[name])
    return places


def _staged_masks(
    project: Project, files: CaseFiles, geometry: Geometry, staging: Path
) -> dict[str, Mask]:
    """Write the organ masks of a case to where they are staged, and return them by target name."""
    masks: dict[str, Mask] = {}
    for name, path in files.masks.items():
        organ = organ_of(project.targets, name)
        mask = read_organ_mask(path, geometry, organ, project.targets, same_size=files.same_size)
        write_labelmap(mask, staging / mask_place(organ, files.id))
        masks[name] = mask.labels > 0
    return masks


def _refuse_empty(project: Project, arrivals: Sequence[_Arrival]) -> None:
    labelled = [a for a in arrivals if a.case.label is not None and a.case.split == "train"]
    if labelled and not project.labelled and not any(a.has_foreground for a in labelled):
        names = ", ".join(arrival.case.id for arrival in labelled)
        msg = f"No label map has a labelled voxel ({names}); draw the targets in at least one."
        raise ProjectError(msg)


def _refuse_twins(project: Project) -> None:
    """Refuse one image under two names: training and test cases could be the same."""
    seen: dict[str, Case] = {}
    for case in project.cases:
        twin = seen.setdefault(case.image_sha256 or case.id, case)
        if twin is not case:
            msg = f"Cases {twin.id} and {case.id} have the same image ({case.image}); remove one."
            raise ProjectError(msg)


@contextmanager
def _placed(staging: Path, folder: Path) -> Iterator[None]:
    """Move staged files to their place, and take them away again if the body fails."""
    placed: list[Path] = []
    made: list[Path] = []
    try:
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            place = folder / path.relative_to(staging)
            if place.exists():
                msg = f"{place} exists already; move it away, or rename the case."
                raise ProjectError(msg)
            made += [parent for parent in place.parents if not parent.exists()]
            place.parent.mkdir(parents=True, exist_ok=True)
            placed.append(path.replace(place))
        yield
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        for parent in sorted(made, reverse=True):
            with suppress(OSError):
                parent.rmdir()
        raise
