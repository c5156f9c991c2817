"""The cases of a benchmark, and projects that show some of their labels and hide all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aslseg.data.geometry import resample_labels
from aslseg.data.images import read_geometry, read_volume, write_labelmap, write_volume
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry, Labelmap, Mask, Shape3, Volume
from aslseg.errors import ProjectError
from aslseg.events import Monitor
from aslseg.preprocessing.roi import resample
from aslseg.project.case import PROJECT_FILE, CaseFiles
from aslseg.project.create import create_project, select_cases
from aslseg.project.label_origin import refuse_ai_label
from aslseg.project.labels import load_labels, unseen_voxels
from aslseg.project.patients import refuse_divided, whose, with_dicom_patients
from aslseg.project.project import Project, open_project
from aslseg.targets import LIVER_TARGETS, Target

HIGHEST = 100.0
"""Of intensities that are brought to a common range; the lowest is 0."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How images are copied before anything else is done with them.

    Attributes:
        spacing_mm: Least voxel edges along (k, j, i) of the axial grid; None leaves them.
        percentiles: Intensities of an image that become 0 and 100, what is beyond is cut off; None
            leaves them. For images without a scale of their own, such as MR.
    """

    spacing_mm: tuple[float, float, float] | None = None
    percentiles: tuple[float, float] | None = None


AS_GIVEN = Grid()
"""No copies: images stay as they are."""


@dataclass(frozen=True, slots=True)
class BenchmarkData:
    """Cases with their label maps, their parts, and draws of labels.

    Attributes:
        cases: Training cases, in the order in which unlabelled ones are taken, and held-out ones.
        held_out: Ids of the cases that are scored; they are in no project.
        draws: By name, ids of training cases in the order in which they are labelled.
        targets: Classes of the label maps.
    """

    cases: tuple[CaseFiles, ...]
    held_out: tuple[str, ...]
    draws: Mapping[str, tuple[str, ...]]
    targets: tuple[Target, ...] = LIVER_TARGETS

    @classmethod
    def checked(
        cls,
        cases: Sequence[CaseFiles],
        held_out: Sequence[str],
        draws: Mapping[str, Sequence[str]],
        targets: Sequence[Target],
    ) -> BenchmarkData:
        """Return the data, once it is sure that every case can play its part.

        Raises:
            ProjectError: When a name is unknown, a label map is missing, or a patient is held out
                and trained on.
            ImageError: When a label map is an AI's that nobody has looked at.
        """
        cases = with_dicom_patients(cases)
        for order in draws.values():
            refuse_divided(select_cases(cases, labelled=order, test=held_out))
        for case in cases:
            if case.id in held_out:
                _given(case)
            if case.label is not None:
                refuse_ai_label(case.label)
        orders = {name: tuple(order) for name, order in draws.items()}
        return cls(tuple(cases), tuple(held_out), orders, tuple(targets))

    @property
    def patients(self) -> dict[str, str]:
        """Patient of each case, by its id."""
        return {case.id: whose(case) for case in self.cases}

    @property
    def training(self) -> tuple[CaseFiles, ...]:
        """All cases for training."""
        return tuple(case for case in self.cases if case.id not in self.held_out)

    def shown(self, draw: str, labelled: int) -> tuple[str, ...]:
        """Return the cases whose labels are shown: one of each of the first patients of a draw.

        Args:
            draw: Its name; not used where all labels are shown.
            labelled: How many; 0 shows those of all training cases.

        Raises:
            ProjectError: When the draw has fewer patients.
        """
        if labelled == 0:
            return tuple(case.id for case in self.training if case.label is not None)
        first: dict[str, str] = {}
        for name in self.draws[draw]:
            first.setdefault(self.patients[name], name)
        if len(first) < labelled:
            msg = (
                f"Only {len(first)} patients of draw '{draw}' have a label map to train on; "
                f"{labelled} cannot be shown."
            )
            raise ProjectError(msg)
        return tuple(first.values())[:labelled]

    def used(
        self, draw: str, labelled: int, most_unlabelled: int | None = None
    ) -> tuple[CaseFiles, ...]:
        """Return the cases of a project: labels that are not shown are taken off.

        Further volumes of patients whose labels are shown are left out.

        Args:
            draw: Its name.
            labelled: As of `shown`.
            most_unlabelled: At most so many unlabelled cases, the first; None for all.
        """
        shown = self.shown(draw, labelled)
        patients = {self.patients[name] for name in shown}
        others = [c for c in self.training if self.patients[c.id] not in patients and labelled]
        hidden = [replace(case, label=None) for case in others[:most_unlabelled]]
        return (*(case for case in self.training if case.id in shown), *hidden)

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

    def unseen(self, case_id: str) -> Mask | None:
        """Return which voxels of a held-out case nobody looked at, as `truth` lies; None for none.

        Returns:
            (D, H, W), as the image's file has its voxels.

        Raises:
            ImageError: As `truth`.
        """
        case = next(case for case in self.cases if case.id == case_id)
        return _unseen(case, _given(case), read_geometry(case.image))

    def to_json(self) -> dict[str, Any]:
        """Return what tells one benchmark's data from another's; draws can be added."""
        shared = {name: patient for name, patient in self.patients.items() if patient != name}
        ignored = {case.id: case.ignored for case in self.cases if case.ignored is not None}
        return {
            "cases": {case.id: case.image.name for case in self.cases},
            "held_out": list(self.held_out),
            "targets": [target.model_dump() for target in self.targets],
            **({"patients": shared} if shared else {}),
            **({"ignored": ignored} if ignored else {}),
        }


def _unseen(case: CaseFiles, label: Path, geometry: Geometry) -> Mask | None:
    if case.ignored is None:
        return None
    return unseen_voxels(label, geometry, case.ignored, same_size=case.same_size)


def _given(case: CaseFiles) -> Path:
    if case.label is None:
        msg = f"Case '{case.id}' shall be scored but has no label map; hold out another one."
        raise ProjectError(msg)
    return case.label


def project_showing(
    data: BenchmarkData, folder: Path, draw: str, labelled: int, most_unlabelled: int | None = None
) -> Project:
    """Open the project that shows some labels, made when it is first needed.

    Held-out cases are not in it: neither their label maps nor their images.

    Args:
        data: Cases.
        folder: Of the project.
        draw: Its name.
        labelled: How many labels are shown; 0 shows those of all training cases.
        most_unlabelled: At most so many unlabelled cases; None for all.

    Raises:
        ProjectError: When there are fewer labels than that.
        ImageError: When a file cannot be used.
    """
    if (folder / PROJECT_FILE).exists():
        return open_project(folder)
    return create_project(folder, data.used(draw, labelled, most_unlabelled), data.targets)


def on_grid(
    data: BenchmarkData, folder: Path, grid: Grid, monitor: Monitor | None = None
) -> BenchmarkData:
    """Return the cases as copies, written to a folder.

    Copies that are there already are not made again. Label maps of held-out cases are not copied.

    Args:
        data: Cases as they were given.
        folder: Where the copies go: `images` and, apart from them, `labels`.
        grid: What is done with them.
        monitor: Told of the progress.

    Raises:
        ImageError: When a file cannot be read.
        StorageError: When the folder cannot be written.
    """
    if grid == AS_GIVEN:
        return data
    tracked = (monitor or Monitor()).track(data.cases, "Copying images")
    cases = tuple(_copied_case(case, data, folder, grid) for case in tracked)
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


def _copied_case(case: CaseFiles, data: BenchmarkData, folder: Path, grid: Grid) -> CaseFiles:
    name = f"{case.id}.nii.gz"
    image, label = folder / "images" / name, folder / "labels" / name
    given = None if case.id in data.held_out else case.label
    made = replace(case, image=image, label=None if given is None else label)
    if image.exists():  # written last
        return made
    stored = read_volume(case.image)
    turn = to_axial(stored.geometry)
    volume, back = turn.volume(stored), turn.inverse
    geometry = volume.geometry
    if grid.spacing_mm is not None:
        geometry = coarser(geometry, grid.spacing_mm)
    if given is not None:
        labels = load_labels(
            given, stored.geometry, data.targets, same_size=case.same_size, ignored=case.ignored
        )
        unseen = _unseen(case, given, stored.geometry)
        if unseen is not None and case.ignored is not None:
            labels.labels[unseen] = case.ignored
        write_labelmap(back.labelmap(resample_labels(labels, geometry)), label)
    voxels = _copied_voxels(volume, geometry, grid)
    write_volume(back.volume(Volume(voxels, geometry)), image)
    return made


def _copied_voxels(volume: Volume, geometry: Geometry, grid: Grid) -> NDArray[Any]:
    voxels: NDArray[Any] = resample(volume.voxels, geometry.shape, "linear")
    if grid.percentiles is not None:
        low, high = np.percentile(volume.voxels, grid.percentiles)
        scaled = (voxels - low) / max(float(high - low), 1e-6) * HIGHEST
        clipped: NDArray[Any] = np.clip(scaled, 0.0, HIGHEST).astype(np.float32)
        return clipped
    if np.issubdtype(volume.voxels.dtype, np.integer):
        voxels = np.rint(voxels).astype(volume.voxels.dtype)
    return voxels
