"""New cases on their way into a project: read, checked, staged beside it, and put in their place.

Images stay where they are; label maps and organ masks are staged on the grid of their image.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aslseg.data.body_match import BodyDigest, body_digest
from aslseg.data.images import digest_of_image, read_volume, stamp_of, write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Mask
from aslseg.errors import ImageError, ProjectError
from aslseg.events import Monitor
from aslseg.project.case import LABEL_SUFFIX, LABELS, Case, CaseFiles, image_place
from aslseg.project.label_origin import refuse_ai_label
from aslseg.project.labels import (
    complete_slices_of,
    load_labels,
    present_values,
    refuse_unclaimed,
)
from aslseg.project.organ_masks import (
    checked_organ_mask,
    mask_place,
    organ_of,
    read_organ_mask,
    with_masks,
)
from aslseg.project.patients import dicom_patient_of, whose
from aslseg.project.project import Project
from aslseg.project.windows import Intensities, intensities_of
from aslseg.storage import storage_errors, temporary_beside
from aslseg.targets import region_mask


@dataclass(frozen=True, slots=True)
class StagedCase:
    """A case whose files are staged.

    Attributes:
        case: As the project will know it.
        values: That occur in its label map with the given masks, 0 left out.
        stamp: Of its image, as for `image_digests.remember`.
        intensities: Of its targets; none without a label map.
        dicom_patient: PatientID of its DICOM files, or None.
        body: What tells volumes of one patient, as for `similar_bodies.keep_bodies`.
    """

    case: Case
    values: tuple[int, ...]
    stamp: str
    intensities: tuple[Intensities, ...] = ()
    dicom_patient: str | None = field(default=None, repr=False)
    body: BodyDigest | str = ""


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Make a folder beside the files of a project, which goes with all that is left in it.

    Raises:
        StorageError: When the project's folder cannot be written.
    """
    path = temporary_beside(folder / "incoming")
    with storage_errors(folder):
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def read_cases(
    project: Project, cases: Sequence[CaseFiles], staging: Path, monitor: Monitor
) -> list[StagedCase]:
    """Read and check images and label maps, and write what a project keeps to a staging folder.

    Args:
        project: That they come into.
        cases: Their files.
        staging: The staging folder.
        monitor: Told of the progress.

    Raises:
        ImageError: When one case cannot be used.
        ProjectError: When several cannot be used; it names all of them.
    """
    tracked = monitor.track(cases, "reading images")
    results = [_try_to_read(project, case, staging) for case in tracked]
    problems = [result for result in results if isinstance(result, ImageError)]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        sentences = " ".join(str(problem) for problem in problems)
        msg = f"{len(problems)} of {len(cases)} cases cannot be used: {sentences}"
        raise ProjectError(msg)
    return [result for result in results if isinstance(result, StagedCase)]


def _try_to_read(project: Project, files: CaseFiles, staging: Path) -> StagedCase | ImageError:
    try:
        return _read_one(project, files, staging)
    except ImageError as error:
        return error


def _read_one(project: Project, files: CaseFiles, staging: Path) -> StagedCase:
    volume, stamp = read_volume(files.image), stamp_of(files.image)
    case = Case(
        id=files.id,
        image=image_place(files.image, project.folder),
        split=files.split,
        image_sha256=digest_of_image(files.image),
        patient=whose(files),
    )
    masks = _staged_masks(project, files, volume.geometry, staging)
    places = {name: mask_place(organ_of(project.targets, name), files.id) for name in masks}
    case = case.model_copy(update={"masks": places})
    staged = StagedCase(case, (), stamp, (), dicom_patient_of(files), body_digest(volume))
    if files.label is None:
        return staged
    refuse_ai_label(files.label)
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
        return replace(staged, case=case.model_copy(update={"masks": {**places, **found}}))
    complete = None
    if files.ignored is not None:
        complete = complete_slices_of(
            files.label, volume.geometry, files.ignored, same_size=files.same_size
        )
    place = Path(LABELS, files.id + LABEL_SUFFIX)
    write_labelmap(labels, staging / place)
    labels = with_masks(labels, masks, project.targets, str(files.label))
    return replace(
        staged,
        case=case.model_copy(
            update={
                "label": place,
                "status": "labelled",
                "label_targets": files.label_targets,
                "complete_slices": complete,
            }
        ),
        values=tuple(int(value) for value in np.flatnonzero(present_values(labels)) if value),
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


@contextmanager
def placed(staging: Path, folder: Path) -> Iterator[None]:
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
