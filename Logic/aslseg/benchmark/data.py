"""The cases of a benchmark, and projects that show some of their labels and hide all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.data.geometry import resample_labels
from aslseg.data.images import read_geometry, read_volume, write_labelmap, write_volume
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry, Labelmap, Shape3, Volume
from aslseg.errors import ProjectError
from aslseg.events import Monitor
from aslseg.preprocessing.roi import resample
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.labels import load_labels
from aslseg.project.patients import refuse_divided, with_dicom_patients
from aslseg.project.project import FILE_NAME, Project, open_project
from aslseg.targets import LIVER_TARGETS, Target


@dataclass(frozen=True, slots=True)
class BenchmarkData:
    """Cases with their label maps, and their split.

    Attributes:
        cases: Training cases and held-out ones.
        held_out: Ids of the cases that are scored; nothing is trained on them or chosen by them.
        order: Ids of training cases; n labelled volumes are the first of the first n patients.
        targets: Classes of the label maps.
    """

    cases: tuple[CaseFiles, ...]
    held_out: tuple[str, ...]
    order: tuple[str, ...]
    targets: tuple[Target, ...] = LIVER_TARGETS

    @property
    def training_labels(self) -> tuple[str, ...]:
        """Ids of all training cases that have a label map."""
        known = [case.id for case in self.cases if case.label and case.id not in self.held_out]
        return (*self.order, *(name for name in known if name not in self.order))

    @property
    def patients(self) -> dict[str, str]:
        """Patient of each case, by its id."""
        return {case.id: case.patient or case.id for case in self.cases}

    def shown(self, labelled: int | None) -> tuple[str, ...]:
        """Return one training case of each of the first patients, or all that have a label map."""
        if labelled is None:
            return self.training_labels
        first: dict[str, str] = {}
        for name in self.training_labels:
            first.setdefault(self.patients[name], name)
        return tuple(first.values())[:labelled]

    def used(self, shown: Sequence[str]) -> tuple[CaseFiles, ...]:
        """Return the cases without further volumes of the patients whose labels are shown."""
        patients = {self.patients[name] for name in shown}
        return tuple(
            case
            for case in self.cases
            if case.id in shown or self.patients[case.id] not in patients
        )

    def truth(self, case_id: str) -> Labelmap:
        """Read the label map of a held-out case, on the grid of its image.

        Raises:
            ImageError: When it cannot be read or does not lie on the image.
        """
        case = next(case for case in self.cases if case.id == case_id)
        return load_labels(
            _given(case),
            read_geometry(case.image),
            self.targets,
            same_size=case.same_size,
            ignored=case.ignored,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what tells one benchmark's data from another's."""
        shared = {name: patient for name, patient in self.patients.items() if patient != name}
        return {
            "cases": {case.id: case.image.name for case in self.cases},
            "held_out": list(self.held_out),
            "order": list(self.training_labels),
            "targets": [target.model_dump() for target in self.targets],
            **({"patients": shared} if shared else {}),
        }


def choose_data(
    cases: Sequence[CaseFiles],
    held_out: Sequence[str],
    order: Sequence[str] = (),
    targets: Sequence[Target] = LIVER_TARGETS,
) -> BenchmarkData:
    """Divide cases into training and held-out ones, and check that this can be done.

    Args:
        cases: Images with the label maps that there are.
        held_out: Names of the cases to score.
        order: Names of the training cases in the order in which they are labelled; those that are
            not named follow in the order of `cases`.
        targets: Classes of the label maps.

    Raises:
        ProjectError: When a name is unknown or has two parts to play, a label map is missing, or a
            patient is held out and trained on.
    """
    if not held_out:
        msg = "No case is held out; name those that the methods are scored on."
        raise ProjectError(msg)
    cases = with_dicom_patients(cases)
    refuse_divided(select_cases(cases, labelled=order, test=held_out))
    for case in cases:
        if case.id in held_out:
            _given(case)
    data = BenchmarkData(tuple(cases), tuple(held_out), tuple(order), tuple(targets))
    return replace(data, order=data.training_labels)


def _given(case: CaseFiles) -> Path:
    if case.label is None:
        msg = f"Case '{case.id}' shall be scored but has no label map; hold out another one."
        raise ProjectError(msg)
    return case.label


def project_showing(data: BenchmarkData, folder: Path, labelled: int | None) -> Project:
    """Open the project that shows some labels, made when it is first needed.

    Held-out cases are its test cases, without their label maps.

    Args:
        data: Cases.
        folder: Of the project.
        labelled: How many labels are shown; None shows those of all training cases.

    Raises:
        ProjectError: When there are fewer labels than that.
        ImageError: When a file cannot be used.
    """
    if (folder / FILE_NAME).exists():
        return open_project(folder)
    shown = data.shown(labelled)
    if labelled is not None and len(shown) < labelled:
        msg = (
            f"Only {len(shown)} patients have a label map to train on; {labelled} cannot be shown."
        )
        raise ProjectError(msg)
    used = data.cases if labelled is None else data.used(shown)
    chosen = select_cases(used, labelled=shown, test=data.held_out)
    hidden = [replace(case, label=None) if case.split == "test" else case for case in chosen]
    return create_project(folder, hidden, data.targets)


def on_grid(
    data: BenchmarkData,
    folder: Path,
    spacing_mm: tuple[float, float, float] | None,
    monitor: Monitor | None = None,
) -> BenchmarkData:
    """Return the cases with voxels of no less than a size, written to a folder.

    Copies that are there already are not made again. Label maps of held-out cases are not copied.

    Args:
        data: Cases as they were given.
        folder: Where the copies go: `images` and, apart from them, `labels`.
        spacing_mm: Least voxel edges along (k, j, i) of the axial grid; None leaves the cases as
            they are.
        monitor: Told of the progress.

    Raises:
        ImageError: When a file cannot be read.
        StorageError: When the folder cannot be written.
    """
    if spacing_mm is None:
        return data
    tracked = (monitor or Monitor()).track(data.cases, "Making coarser copies")
    cases = tuple(_coarser_case(case, data, folder, spacing_mm) for case in tracked)
    return replace(data, cases=cases)


def coarser(geometry: Geometry, spacing_mm: tuple[float, float, float]) -> Geometry:
    """Return a grid over the same extent whose voxels have no less than these edges.

    Args:
        geometry: The grid to start from; axes that are coarser already stay.
        spacing_mm: Along (k, j, i).
    """
    pairs = zip(geometry.shape, geometry.spacing_mm, spacing_mm, strict=True)
    depth, height, width = (max(1, int(n * min(old / new, 1.0))) for n, old, new in pairs)
    shape: Shape3 = (depth, height, width)
    factors = [old / new for old, new in zip(geometry.shape[::-1], shape[::-1], strict=True)]
    step = np.diag([*factors, 1.0])
    step[:3, 3] = [(factor - 1) / 2 for factor in factors]
    return Geometry(shape, geometry.ijk_to_ras @ step)


def _coarser_case(
    case: CaseFiles, data: BenchmarkData, folder: Path, spacing_mm: tuple[float, float, float]
) -> CaseFiles:
    name = f"{case.id}.nii.gz"
    image, label = folder / "images" / name, folder / "labels" / name
    given = None if case.id in data.held_out else case.label
    made = replace(case, image=image, label=None if given is None else label)
    if image.exists():  # written last
        return made
    stored = read_volume(case.image)
    turn = to_axial(stored.geometry)
    volume, back = turn.volume(stored), turn.inverse
    grid = coarser(volume.geometry, spacing_mm)
    if given is not None:
        labels = load_labels(
            given, stored.geometry, data.targets, same_size=case.same_size, ignored=case.ignored
        )
        write_labelmap(back.labelmap(resample_labels(labels, grid)), label)
    voxels = resample(volume.voxels, grid.shape, "linear")
    if np.issubdtype(volume.voxels.dtype, np.integer):
        voxels = np.rint(voxels).astype(volume.voxels.dtype)
    write_volume(back.volume(Volume(voxels, grid)), image)
    return made
