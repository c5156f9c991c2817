"""The label maps of a project as a folder of files, with their origin and tables of measurements.

Every format has `origin.json`, `cases.csv` and `lesions.csv`. NIfTI and DICOM files may be added to
by a later export of other cases; those of the same cases are replaced, or removed where the case
has no such label map any more. An nnU-Net data set is replaced as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np

import aslseg
from aslseg.data.geometry import fit_labels
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Labelmap, Mask, Volume
from aslseg.errors import ImageError, ProjectError
from aslseg.events import Monitor
from aslseg.export import dicom_seg, nnunet
from aslseg.export.labels import CaseLabel, LabelChoice, labels_of, require_labels
from aslseg.export.origin import (
    CaseOrigin,
    Origin,
    RunOrigin,
    are_as_written,
    now,
    read_origin,
    run_origin,
    write_origin,
)
from aslseg.export.staging import (
    check_place,
    gone_files,
    require_same_images,
    require_same_project,
    staged,
)
from aslseg.export.tables import CASE_COLUMNS, CASES, LESIONS, Row, measured_rows, write_tables
from aslseg.project.complete_slices import incomplete_voxels
from aslseg.project.lesion_decisions import read_lesions
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder, finished_runs, open_run, runs_of
from aslseg.project.run_tables import EXTERNAL, read_table
from aslseg.storage import sha256_of, visible_files
from aslseg.targets import undecided_mask

Format: TypeAlias = Literal["nifti", "nnunet", "dicom_seg", "tables"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote.

    Attributes:
        folder: Where to.
        label_maps: How many of each origin (`MadeBy`) were measured.
        notes: Sentences about what was left out.
        written: Cases whose label map was written as a file.
    """

    folder: Path
    label_maps: Mapping[str, int]
    notes: tuple[str, ...]
    written: tuple[str, ...]


@dataclass
class _Export:
    """An export under way: what is fixed, and what its cases have given so far.

    Attributes:
        project: Whose label maps.
        format: Of the files.
        staging: Where they are written.
        runs: That label maps come from, by name.
        digests: SHA-256 of each label map, by case.
        origins: Of label maps so far, by case.
        written: Cases whose label map was written as a file.
        cases: Rows of the table of cases so far.
        lesions: Rows of the table of lesions so far.
        ct: Cases of an nnU-Net data set whose image is CT so far.
    """

    project: Project
    format: Format
    staging: Path
    runs: Mapping[str, RunOrigin]
    digests: Mapping[str, str]
    origins: dict[str, CaseOrigin] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    cases: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    ct: list[str] = field(default_factory=list)

    @property
    def channel(self) -> str:
        """What nnU-Net is told of the images."""
        return nnunet.CT if self.ct else nnunet.OTHER


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        format: Of the label maps: `nifti` writes `<case>.nii.gz` on the grid of each image, with
            the project's values; `nnunet` a raw data set; `dicom_seg` writes `<case>.seg.dcm` of
            images that are DICOM folders, without segments of targets that a label map says nothing
            of; `tables` none.
        labels: Whose label maps.
        cases: Names of cases; all when None.
        run: Whose predictions `all` takes; of each case the latest run with one of it when None.
        replace: Whether files that this program did not write, or wrote of other images under the
            same names, may be replaced, and an nnU-Net data set with cases of another project.
    """

    format: Format = "nifti"
    labels: LabelChoice = "accepted"
    cases: tuple[str, ...] | None = None
    run: str | None = None
    replace: bool = False


def export_project(
    project: Project,
    folder: Path,
    options: ExportOptions | None = None,
    *,
    monitor: Monitor | None = None,
) -> ExportSummary:
    """Write the label maps of a project with their origin, whole or not at all.

    An nnU-Net data set has images too: cases with a label map become `imagesTr` and `labelsTr`,
    test cases and those without become `imagesTs`. Of cases that are not to train on, only people's
    label maps are taken. Values of targets are made consecutive, as nnU-Net asks; voxels of
    predictions that are in doubt get its ignore label.

    Args:
        project: What to export.
        folder: Where to; for nnU-Net usually named `Dataset001_Name`.
        options: What, and how.
        monitor: Gets progress; can stop it, and nothing is left behind then.

    Raises:
        ProjectError: When no case has a label map, none of the images is DICOM for `dicom_seg`, a
            name is no case, or nnU-Net keeps the name of a target for itself.
        RunError: When there is no such run.
        ImageError: When a file cannot be read.
        FilesThereError: When files are in the way that this program did not write, or that are of
            other images, or an nnU-Net data set there has cases that the project does not have.
        StorageError: When the folder cannot be written, or has label maps of other targets.
        CancelledError: When asked to stop.
    """
    options = options or ExportOptions()
    is_whole = options.format == "nnunet"
    monitor = monitor or Monitor()
    current, found, digests = _snapshot(project, options)
    names = [name for label in found for name in _files_of(current, label, options.format)]
    if options.format == "dicom_seg" and not names:
        raise ProjectError(_NO_DICOM)
    if is_whole:
        nnunet.refuse_reserved(current.targets)
    tables = [CASES, LESIONS, *[nnunet.DESCRIPTION] * is_whole]
    before = check_place(
        current, folder, options.format, [*names, *tables], replace=options.replace
    )
    if not options.replace:
        images = {label.case.id: label.case.image_sha256 or "" for label in found}
        require_same_images(folder, before, images)
        if is_whole:
            require_same_project(folder, before, current)
    with staged(folder, before) as staging:
        export = _Export(current, options.format, staging, _runs_of(current, found), digests)
        for label in monitor.track(found, "Exporting"):
            _export_case(export, label)
        _finish(export, folder, None if is_whole else before)
    made = Counter[str](origin.made_by for origin in export.origins.values())
    notes = _notes(export, found, options)
    after = read_origin(folder)
    notes += _gone_notes(folder, gone_files(before, after), options.format)
    notes += _stranger_notes(current, after)
    return ExportSummary(folder, dict(made), tuple(notes), tuple(export.written))


def _predictors(project: Project, options: ExportOptions) -> Iterable[RunFolder]:
    """Return the runs whose predictions are taken, those that are preferred first."""
    if options.run is not None:
        return [open_run(project.folder, options.run)]
    if options.labels != "all":
        return []
    return finished_runs(project.folder, external=True)


def _snapshot(
    project: Project, options: ExportOptions
) -> tuple[Project, list[CaseLabel], dict[str, str]]:
    """Return the project, its label maps and their digests as they are at one moment.

    It is read until it has not changed meanwhile, without its lock: it may be on a read-only disk.
    """
    before: tuple[list[CaseLabel], dict[str, str]] | None = None
    while True:
        current = open_project(project.folder)
        predictors = _predictors(current, options)
        found = labels_of(current, options.labels, predictors, options.cases)
        paths = {one.case.id: one.path for one in found if one.path is not None}
        digests = {name: sha256_of(path) for name, path in paths.items() if path.is_file()}
        if (found, digests) == before:
            break
        before = (found, digests)
    require_labels(found, options.labels)
    lost = next((path for name, path in paths.items() if name not in digests), None)
    if lost is not None:
        msg = f"{lost} does not exist; restore it, or leave its case out."
        raise ImageError(msg)
    return current, found, digests


def _runs_of(project: Project, found: Sequence[CaseLabel]) -> dict[str, RunOrigin]:
    """Describe the runs that are still there of those that label maps come from."""
    rounds: dict[str, set[int]] = {}
    for label in found:
        if label.path is not None and label.run:
            rounds.setdefault(label.run, set()).add(label.round)
    there = {run.run_id: run for run in runs_of(project.folder)}
    return {name: run_origin(there[name], rounds[name]) for name in rounds if name in there}


def _files_of(project: Project, label: CaseLabel, format_name: Format) -> list[str]:
    """Return the files that an export writes of a case, relative to its folder."""
    if format_name == "nnunet":
        is_train = _is_for_training(label)
        image = nnunet.image_name(label.case, is_train=is_train)
        return [image, nnunet.label_name(label.case)] if is_train else [image]
    if label.path is None or format_name == "tables":
        return []
    if format_name == "nifti":
        return [f"{label.case.id}.nii.gz"]
    is_dicom = dicom_seg.comes_from_dicom(project.image_path(label.case))
    return [label.case.id + dicom_seg.ENDING] if is_dicom else []


def _is_for_training(label: CaseLabel) -> bool:
    """Whether nnU-Net trains on a case: predictions stay out of what it would validate on."""
    of_person = label.path is not None and label.made_by != "ai"
    return label.case.split != "test" and (
        of_person or (label.path is not None and label.case.split == "train")
    )


def _export_case(export: _Export, label: CaseLabel) -> None:
    """Write the files of a case, measure its label map, and note where it comes from."""
    case = label.case
    facts = {
        "case": case.id,
        "split": case.split,
        "state": label.state,
        "made_by": label.made_by or "",
        "run": label.run,
        "round": label.round or "",
    }
    files = _files_of(export.project, label, export.format)
    labelmap = None
    if label.path is None:
        export.cases.append({name: facts[name] for name in CASE_COLUMNS})
    if label.path is None and not files:
        return
    image = export.project.load_image(case)
    if export.format == "nnunet" and image.is_ct:
        export.ct.append(case.id)
    if label.path is not None:
        labelmap = _labelmap(export, label)
        decisions = tuple(read_lesions(export.project, case.id).decisions.values())
        row, lesions = measured_rows(
            labelmap,
            image,
            export.project.targets,
            facts,
            decisions,
            unknown=_unknown(export, label),
        )
        export.cases.append(row)
        export.lesions += lesions
    ignored = _write(export, label, image, labelmap) if files else 0
    if label.made_by is not None:
        export.origins[case.id] = CaseOrigin(
            made_by=label.made_by,
            run=label.run,
            round=label.round,
            decided=label.decided,
            split=case.split,
            image_sha256=case.image_sha256 or "",
            label_sha256=export.digests[case.id],
            unknown_targets=tuple(sorted(_unknown(export, label))),
            complete_slices=_complete_slices(label),
            ignored_voxels=ignored,
            files=tuple(files),
        )


def _labelmap(export: _Export, label: CaseLabel) -> Labelmap:
    """Return the label map of a case; a prediction has its lesions as they were decided about."""
    if label.made_by == "ai" and label.path is not None:
        found = export.project.read_labels(label.case, label.path)
        lesions = read_lesions(export.project, label.case.id)
        return lesions.applied_to(found, export.project.targets)
    return export.project.load_labels(label.case, export.digests[label.case.id])


def _write(export: _Export, label: CaseLabel, image: Volume, labelmap: Labelmap | None) -> int:
    """Write the files of a case; return how many voxels are ignored."""
    if export.format == "nnunet":
        return _write_nnunet(export, label, image, labelmap)
    case, project = label.case, export.project
    if labelmap is None or label.made_by is None:
        return 0
    export.written.append(case.id)
    if export.format == "nifti":
        write_labelmap(labelmap, export.staging / f"{case.id}.nii.gz")
        return 0
    unknown = _unknown(export, label)
    dicom_seg.write_dicom_seg(
        labelmap,
        project.image_path(case),
        [target for target in project.targets if target.name not in unknown],
        export.staging / (case.id + dicom_seg.ENDING),
        made_by=label.made_by,
        algorithm=_algorithm(export, label.run),
    )
    return 0


def _algorithm(export: _Export, run: str) -> str:
    """Return the name of what predicted: a method of ours, or the other model."""
    method = export.runs[run].method if run in export.runs else ""
    return run if method == EXTERNAL else f"{dicom_seg.OURS} {method}".strip()


def _write_nnunet(
    export: _Export, label: CaseLabel, image: Volume, labelmap: Labelmap | None
) -> int:
    is_train = _is_for_training(label)
    image_path = export.staging / nnunet.image_name(label.case, is_train=is_train)
    write_volume(image, image_path)  # anew: headers of files can hold names of patients
    if labelmap is None or not is_train:
        return 0
    export.written.append(label.case.id)
    path = export.staging / nnunet.label_name(label.case)
    ignored = undecided_mask(labelmap.labels, _unknown(export, label), export.project.targets)
    ignored |= _doubtful(label, image)
    incomplete = incomplete_voxels(label.case, image.geometry)
    if incomplete is not None and label.made_by != "ai":
        ignored |= incomplete
    nnunet.write_labels(labelmap, export.project.targets, path, ignored)
    return int(ignored.sum())


def _unknown(export: _Export, label: CaseLabel) -> frozenset[str]:
    """Return the names of targets that a label map says nothing of."""
    return label.unknown if label.made_by == "ai" else export.project.unknown_targets(label.case)


def _complete_slices(label: CaseLabel) -> tuple[int, ...] | None:
    """Return the slices that a person's label map is complete in; None where all of it counts."""
    return None if label.made_by == "ai" else label.case.complete_slices


def _doubtful(label: CaseLabel, image: Volume) -> Mask:
    """Return the voxels of a prediction that are in doubt; none of a person's label map."""
    if label.doubtful is None:
        return np.zeros(image.geometry.shape, np.bool_)
    doubtful = fit_labels(read_labelmap(label.doubtful), image.geometry, str(label.doubtful))
    return doubtful.labels > 0


def _finish(export: _Export, folder: Path, before: Origin | None) -> None:
    """Write tables and origin; what an earlier export wrote of cases not asked for is taken over.

    Of cases that are asked for and have no label map now, nothing is taken over: their files go.
    """
    staging, targets = export.staging, export.project.targets
    if export.format == "nnunet":
        trained = [
            name for name in export.origins if (staging / f"labelsTr/{name}.nii.gz").exists()
        ]
        has_ignored = any(origin.ignored_voxels for origin in export.origins.values())
        nnunet.write_description(
            staging, targets, len(trained), export.channel, has_ignored=has_ignored
        )
    exported = {row["case"] for row in export.cases}
    earlier = {} if before is None else before.cases
    others = {name: origin for name, origin in earlier.items() if name not in exported}
    if before is not None and others:
        export.cases += _earlier_rows(folder / CASES, before, others)
        export.lesions += _earlier_rows(folder / LESIONS, before, others)
    write_tables(staging, targets, export.cases, export.lesions)
    files = {
        path.relative_to(staging).as_posix(): sha256_of(path) for path in visible_files(staging)
    }
    kept = {name for origin in others.values() for name in origin.files}
    write_origin(
        staging,
        Origin(
            format=export.format,
            aslseg=aslseg.__version__,
            written=now(),
            targets=targets,
            runs={**({} if before is None else before.runs), **export.runs},
            cases={**others, **export.origins},
            files={**{name: before.files[name] for name in sorted(kept)}, **files}
            if before is not None
            else files,
        ),
    )


def _earlier_rows(path: Path, before: Origin, cases: Collection[str]) -> list[Row]:
    """Return the rows of some cases in a table that an earlier export wrote and nobody changed."""
    if not are_as_written(path.parent, [path.name], before.files):
        return []
    return [dict(row) for row in read_table(path) if row["case"] in cases]


def _notes(
    export: _Export,
    found: Sequence[CaseLabel],
    options: ExportOptions,
) -> list[str]:
    """Say what was left out, and why, and where predictions come from if not of one run."""
    notes = []
    takes_predictions = options.labels == "all"
    if takes_predictions and not any(_predictors(export.project, options)):
        notes.append("No run has a finished round, so there are no predictions.")
    counts = Counter(one.run for one in found if one.made_by == "ai")
    if len(counts) > 1:
        each = ", ".join(f"{run} ({count})" for run, count in counts.items())
        notes.append(f"Predictions are of the latest run with one of each case: {each}.")
    if options.run is not None and not takes_predictions:
        notes.append(f"Nothing of run '{options.run}' is taken: predictions were not asked for.")
    if options.format == "nnunet" and export.channel != nnunet.CT:
        notes.append("Images have no values below 0, so nnU-Net is not told that they are CT.")
    absent = [one for one in found if one.path is None]
    rejected = [one.case.id for one in absent if takes_predictions and one.state == "rejected"]
    if rejected:
        notes.append(f"Left out, for their predictions were rejected: {', '.join(rejected)}.")
    without = [one.case.id for one in absent if one.case.id not in rejected]
    if without:
        notes.append(f"Without a label map of those asked for: {', '.join(without)}.")
    sparse = [one.case.id for one in found if one.path and one.case.complete_slices is not None]
    if sparse:
        notes.append(f"Measured though some slices are not complete: {', '.join(sparse)}.")
    unwritten = [name for name in export.origins if name not in export.written]
    if unwritten and options.format != "tables":
        notes.append(
            f"Measured, but not written, for {_WHY_NOT[options.format]}: {', '.join(unwritten)}."
        )
    return notes


def _gone_notes(folder: Path, gone: Sequence[str], format_name: Format) -> list[str]:
    """Say which files of an earlier export are not of this one: those removed and those kept."""
    kept = [name for name in gone if (folder / name).exists()]
    removed = [name for name in gone if name not in kept]
    notes = []
    if removed and format_name != "nnunet":  # which is said to be replaced as a whole
        notes.append(
            "Removed, for an earlier export wrote them and their cases have no such label map now: "
            f"{', '.join(removed)}."
        )
    if kept:
        notes.append(
            f"Kept, for they were changed since an earlier export wrote them: {', '.join(kept)}. "
            "Origin and tables say nothing of them; move them away if they are not wanted."
        )
    return notes


def _stranger_notes(project: Project, origin: Origin | None) -> list[str]:
    """Say which cases of earlier exports, which stay in a folder, the project does not have now."""
    known = {case.id for case in project.cases}
    strange = [name for name in (() if origin is None else origin.cases) if name not in known]
    if not strange:
        return []
    return [
        "Kept of earlier exports, also in the tables, though the project has no case of the name "
        f"now: {', '.join(strange)}. If they were renamed or removed, export to a new folder."
    ]


_NO_DICOM = (
    "None of the cases with a label map has an image that is a folder of DICOM slices, so there is "
    "no study that a DICOM segmentation could belong to; export nifti, or make the project of the "
    "DICOM folders."
)
_WHY_NOT = {
    "dicom_seg": "their images are no DICOM folders",
    "nnunet": "nnU-Net does not train on them",
}
