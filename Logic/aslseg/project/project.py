"""What a project is: targets, cases, and the label maps that people made.

On disk: `project.json`, and `labels/` with one label map per case. A label map there is only ever
replaced by another one that a person made, and what it replaces goes to `labels/history/`. Images
stay where they are. One writer at a time: whoever changes a project reads, changes and writes it
under its lock.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from aslseg.config import Settings
from aslseg.data.geometry import fit_labels
from aslseg.data.images import read_geometry, read_labelmap_on, read_volume, write_labelmap
from aslseg.data.volume import Geometry, Labelmap, Mask, SameSize, Volume
from aslseg.errors import ConfigError, ImageError, ProjectError, as_typed_command, short
from aslseg.project.all_or_nothing import FILES, UNFINISHED
from aslseg.project.case import (
    LABELS,
    LESIONS,
    PROJECT_FILE,
    PROJECT_REMEDY,
    Case,
    Split,
    name_key,
    nothing_counts,
    resolved_image,
)
from aslseg.project.image_digests import check_images
from aslseg.project.labels import (
    check_values,
    find_label,
    keep_history,
    load_labels,
    refuse_unclaimed,
)
from aslseg.project.lesion_lines import count_lesion_lines
from aslseg.project.lock import changing, require_folder
from aslseg.project.organ_masks import organ_of, with_masks
from aslseg.project.patients import divided_patient, refuse_divided
from aslseg.reading import contradiction_in_words, read_object
from aslseg.run_names import SCHEMA_VERSION
from aslseg.storage import atomic_path, inside, write_json_atomic
from aslseg.targets import Target, cascade_stages


class Project(Settings):
    """A folder with targets and cases. Values of this class never change; methods return new ones.

    Attributes:
        folder: Where the project is; not part of `project.json`.
        targets: Classes of all label maps.
        cases: In the order of their import.
        preset: Name of the settings that the project was made for.
        patient_salt: What PatientIDs of DICOM files are hashed with; None before the first one.
        mask_digests: SHA-256 of given organ masks that are wanted, by their place, also where the
            history alone has them by now; others are read as they are. Not part of `project.json`.
    """

    folder: Annotated[Path, Field(exclude=True)]
    schema_version: Literal[2] = SCHEMA_VERSION
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    cases: tuple[Case, ...] = ()
    preset: str | None = None
    patient_salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    mask_digests: Annotated[dict[str, str], Field(exclude=True)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Project:
        _refuse_repeated("case id", (name_key(case.id) for case in self.cases))
        labels = [case.label for case in self.cases if case.label is not None]
        _refuse_repeated("label map", (name_key(label.as_posix()) for label in labels))
        _refuse_repeated("target", (target.name for target in self.targets))
        _refuse_repeated("target value", (target.value for target in self.targets))
        return self

    @model_validator(mode="after")
    def _parents_exist(self) -> Project:
        try:
            cascade_stages(self.targets)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self

    @model_validator(mode="after")
    def _label_targets_exist(self) -> Project:
        known = {target.name for target in self.targets}
        for case in self.cases:
            strange = [name for name in case.label_targets if name not in known]
            if strange:
                msg = f"case {case.id} has a label map of '{strange[0]}', which is no target"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _masks_are_of_organs(self) -> Project:
        try:
            for name in {name for case in self.cases for name in case.masks}:
                organ_of(self.targets, name)
        except ProjectError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self

    @model_validator(mode="after")
    def _patients_are_whole(self) -> Project:
        divided = divided_patient(self.cases)
        if divided:
            raise ValueError(divided)
        return self

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Cases to train on whose label map a person made or accepted."""
        return tuple(case for case in self._of("train") if case.label is not None)

    @property
    def counted(self) -> tuple[Case, ...]:
        """The labelled cases that something is learnt from: a slice of the label map counts."""
        return tuple(case for case in self.labelled if case.label_counts)

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """Cases to train on that have no label map."""
        return tuple(case for case in self._of("train") if case.label is None)

    @property
    def validation(self) -> tuple[Case, ...]:
        """Cases that decide which network is kept."""
        return self._of("validation")

    @property
    def test(self) -> tuple[Case, ...]:
        """Cases that decide nothing."""
        return self._of("test")

    def case(self, case_id: str) -> Case:
        """Find a case by its name.

        Raises:
            ProjectError: When there is none of that name.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        msg = (
            f"{self.folder} has no case '{short(case_id)}'; choose one of those in {PROJECT_FILE}."
        )
        raise ProjectError(msg)

    def image_path(self, case: Case) -> Path:
        """Return where the image of a case is."""
        return self.folder / case.image

    def image_missing(self, case: Case) -> str:
        """Say that the image of a case is not where the project knows it; empty when it is."""
        path = resolved_image(self.folder, case)
        if os.path.exists(path):  # noqa: PTH110 - false for names that cannot be
            return ""
        say = as_typed_command("aslseg", "relocate", self.folder, path.parent, "NEW_FOLDER")
        return (
            f"{path}, the image of case {case.id}, does not exist; restore it, say where it is now "
            f"({say}), or remove the case."
        )

    def require_image(self, case: Case) -> None:
        """Make sure that the image of a case is where the project knows it.

        Raises:
            ImageError: When it is missing.
        """
        if missing := self.image_missing(case):
            raise ImageError(missing)

    def geometry(self, case: Case) -> Geometry:
        """Read where the image of a case lies, from its headers.

        Raises:
            ImageError: When it is missing, damaged or of the wrong kind.
        """
        self.require_image(case)
        return read_geometry(self.image_path(case))

    def label_path(self, case: Case) -> Path:
        """Return where the label map of a case is.

        Raises:
            ProjectError: When it has none.
            StorageError: When a link leads out of the project.
        """
        if case.label is None:
            msg = f"Case {case.id} of {self.folder} has no label map; draw one, or leave it out."
            raise ProjectError(msg)
        return inside(self.folder, case.label)

    @property
    def given_organs(self) -> tuple[str, ...]:
        """Names of the targets of which every case has a mask: they need not be learnt."""
        masks = [set(case.masks) for case in self.cases]
        return tuple(t.name for t in self.targets if masks and all(t.name in m for m in masks))

    def known_targets(self, case: Case) -> frozenset[str]:
        """Return the names of the targets that a case's label map or its masks decide."""
        every = tuple(target.name for target in self.targets)
        drawn = () if case.label is None else case.label_targets or every
        return frozenset((*drawn, *case.masks))

    def scored_targets(self, case: Case) -> frozenset[str]:
        """Return the names of the targets that a case's label map decides, and no given mask."""
        return self.known_targets(case) - set(case.masks)

    def unknown_targets(self, case: Case) -> frozenset[str]:
        """Return the names of the targets that nobody has looked for in a case."""
        return frozenset(target.name for target in self.targets) - self.known_targets(case)

    def labels_of_masks(self, case: Case) -> Labelmap:
        """Return the given masks of a case as a label map; outer ones lie below inner ones.

        Raises:
            ImageError: As `load_masks`.
        """
        geometry = self.geometry(case)
        nothing = Labelmap(np.zeros(geometry.shape, np.uint8), geometry)
        return with_masks(nothing, self.load_masks(case, geometry), self.targets, case.id)

    def load_masks(self, case: Case, geometry: Geometry | None = None) -> dict[str, Mask]:
        """Read the given organ masks of a case by target name, (D, H, W) on the grid of its image.

        Args:
            case: The case.
            geometry: Of its image; it is read when None.

        Raises:
            ImageError: When a file is missing or damaged.
            GeometryMismatchError: When one lies on other voxels than the image.
            StorageError: When a link leads out of the project.
        """
        if not case.masks:
            return {}
        geometry = geometry or self.geometry(case)
        remedy = "give the mask again, or restore the file from its history"
        otherwise = f"case {case.id}, so it is no mask of its organ; {remedy}"
        places = {name: self._mask_path(place) for name, place in case.masks.items()}
        return {
            name: read_labelmap_on(path, geometry, otherwise=otherwise).labels > 0
            for name, path in places.items()
        }

    def _mask_path(self, place: Path) -> Path:
        """Return where a mask is: in its place, or in the history where another one is wanted."""
        path, digest = inside(self.folder, place), self.mask_digests.get(place.as_posix())
        return path if digest is None else find_label(path, digest)

    def lesion_path(self, case_id: str) -> Path:
        """Return where the decisions about the lesions of a case are, which need not be there."""
        return inside(self.folder, Path(LESIONS, f"{case_id}.jsonl"))

    def lesion_lines(self) -> dict[str, int]:
        """Return how many decisions there are, taken back or not, of unlabelled training cases.

        Raises:
            ProjectError: When a file of decisions is damaged.
        """
        paths = {case.id: self.lesion_path(case.id) for case in self.unlabelled}
        return {name: count_lesion_lines(path) for name, path in paths.items() if path.exists()}

    def load_image(self, case: Case) -> Volume:
        """Read the image of a case, with its given organ masks.

        Raises:
            ImageError: When it is missing, damaged or of the wrong kind.
            ProjectError: When it is not the one that was brought in.
        """
        self.require_image(case)
        check_images(self.folder, [case])
        volume = read_volume(self.image_path(case))
        return replace(volume, given=self.load_masks(case, volume.geometry))

    def load_labels(self, case: Case, digest: str | None = None) -> Labelmap:
        """Read the label map of a case onto the grid of its image.

        A given organ mask fills in an organ that the label map has no voxel of.

        Args:
            case: The case.
            digest: SHA-256 of the file that is wanted, which may be in the history by now; what is
                there is read if none is given.

        Raises:
            ProjectError: When it has none.
            ImageError: When it is missing, damaged, or has a value of no target.
            GeometryMismatchError: When it lies elsewhere.
        """
        path = self.label_path(case)
        path = path if digest is None else find_label(path, digest)
        return self.read_labels(case, path)

    def read_labels(self, case: Case, path: Path) -> Labelmap:
        """Read a label map that was made of a case, with its given organ masks filled in.

        Raises:
            ImageError: As `load_labels`.
            GeometryMismatchError: When it lies elsewhere.
        """
        geometry = self.geometry(case)
        labelmap = load_labels(path, geometry, self.targets)
        if path.parent == self.folder / LABELS:
            refuse_unclaimed(labelmap, self.targets, case.label_targets, str(path))
        if not case.masks:
            return labelmap
        masks = self.load_masks(case, geometry)
        return with_masks(labelmap, masks, self.targets, str(path))

    def require_labels(self) -> None:
        """Make sure that there is something to train on.

        Raises:
            ProjectError: When no case to train on has a label map, all of them are empty, or no
                slice of any counts.
        """
        if not self.labelled:
            msg = f"{self.folder} has no labelled case to train on; label at least one volume."
            raise ProjectError(msg)
        if not any(self.load_labels(case).labels.any() for case in self.labelled):
            names = ", ".join(case.id for case in self.labelled)
            msg = f"No label map of {self.folder} has a labelled voxel ({names}); draw the targets."
            raise ProjectError(msg)
        if not self.counted:
            raise ProjectError(nothing_counts(self.labelled))

    def problems(self) -> list[str]:
        """List what cannot be found, one sentence each, without reading voxels."""
        found = []
        for case in self.cases:
            places = [*([case.label] if case.label else []), *case.masks.values()]
            paths = [self.folder / place for place in places]
            found += [missing] if (missing := self.image_missing(case)) else []
            found += [
                f"{path} of case {case.id} does not exist; restore it, or remove the case."
                for path in paths
                if not os.path.exists(path)  # noqa: PTH110 - false for names that cannot be
            ]
        return found

    def with_case(self, case: Case) -> Project:
        """Return the project with the case of that name replaced, or added as the last one.

        Raises:
            ProjectError: When the result would contradict itself.
        """
        known = {old.id: old for old in self.cases}
        return validated(self, cases=tuple((known | {case.id: case}).values()))

    def save_label(
        self,
        case_id: str,
        labelmap: Labelmap,
        *,
        status: Literal["labelled", "accepted"] = "labelled",
        targets: Sequence[str] = (),
        same_size: SameSize = "refuse",
    ) -> Project:
        """Keep a label map that a person made or accepted; the one before goes to the history.

        Args:
            case_id: Name of the case.
            labelmap: On the grid of the image, or overlapping it.
            status: Whether the person drew it or accepted a pseudo-label.
            targets: Names of the targets that it decides; all when empty.
            same_size: What to go by when it has the image's size and another position.

        Returns:
            The project as it is on disk now, with this label map.

        Raises:
            ImageError: When it has a value of no target, or lies elsewhere; nothing changes then.
            ProjectError: When the image is not the one that was brought in, or another program
                changes the project and does not end.
            StorageError: When the folder cannot be written; the label map before stays in place.
        """
        name = f"The label map of case {case_id}"
        with changing(open_project(self.folder).folder):
            current = open_project(self.folder)
            case = current.case(case_id)
            check_values(labelmap, current.targets, name)
            refuse_unclaimed(labelmap, current.targets, targets, name)
            check_images(current.folder, [case])
            grid = current.geometry(case)
            fitted = fit_labels(labelmap, grid, name, same_size=same_size)
            label = case.label_place
            path = inside(current.folder, label)
            facts: dict[str, Any] = {"label": label, "status": status}
            facts["label_targets"] = tuple(targets)
            if status == "accepted":  # as a whole
                facts["complete_slices"] = None
            known = case.model_copy(update=facts)
            updated = current.with_case(known)
            with replacing_project(updated):
                keep_history(path)
                write_labelmap(fitted, path)
        return updated

    def set_label_targets(self, case_id: str, names: Sequence[str]) -> Project:
        """Say which targets the label map of a case decides; of others it says nothing.

        Args:
            case_id: Name of the case.
            names: Of targets; all when empty.

        Raises:
            ProjectError: When there is no such case or target, or the case has no label map.
            ImageError: When the label map has voxels of another target; nothing changes then.
            StorageError: When the folder cannot be written.
        """

        def change(current: Project) -> Project:
            case = current.case(case_id).model_copy(update={"label_targets": tuple(names)})
            updated = current.with_case(case)
            updated.load_labels(case)
            return updated

        return change_project(self.folder, change)

    def _of(self, split: Split) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.split == split)


def open_project(folder: Path) -> Project:
    """Open a project; a change that an ended process did not finish is taken back first.

    Args:
        folder: Folder that holds `project.json`, or that file.

    Raises:
        ProjectError: When it is missing, no JSON, of another version, or contradicts itself; or as
            `changing`, with an unfinished change.
        StorageError: As `changing`, with an unfinished change.
    """
    path = folder if folder.name == PROJECT_FILE else folder / PROJECT_FILE
    require_folder(path.parent)
    if (path.parent / UNFINISHED / FILES).exists():
        with changing(path.parent):
            pass
    values = read_object(path, ProjectError, PROJECT_REMEDY)
    version = values.get("schema_version")
    if version not in (1, SCHEMA_VERSION):
        msg = (
            f"{path} has schema version {version!r:.20}, this program reads 1 and "
            f"{SCHEMA_VERSION}; open it with the version that wrote it, or update."
        )
        raise ProjectError(msg)
    today = {"schema_version": SCHEMA_VERSION, "folder": path.parent}
    try:
        return Project.model_validate({**values, **today})
    except ValidationError as error:
        raise contradiction_in_words(error, str(path)) from error


def change_project(folder: Path, change: Callable[[Project], Project]) -> Project:
    """Read a project, change it, and write it, while nobody else does.

    Args:
        folder: Of the project.
        change: From the project as it is on disk to what it shall be.

    Raises:
        ProjectError: When it cannot be opened, or another program does not end its change.
        StorageError: When the folder cannot be written.
    """
    if not (folder / PROJECT_FILE).exists():
        return open_project(folder)  # which says what is wrong
    with changing(folder):
        changed = change(open_project(folder))
        write_project(changed)
    return changed


def upgrade_project(folder: Path) -> None:
    """Write `project.json` as a file of today's schema version, if it is of an earlier one.

    Raises:
        ProjectError: As `change_project`.
        StorageError: When the folder cannot be written.
    """
    values = read_object(folder / PROJECT_FILE, ProjectError, "restore it from a copy")
    if values.get("schema_version") != SCHEMA_VERSION:
        change_project(folder, lambda current: current)


def write_project(project: Project) -> None:
    """Write `project.json`, whole or not at all; the caller holds the lock of the project.

    Raises:
        StorageError: When the folder cannot be written.
    """
    with replacing_project(project):
        pass


@contextmanager
def replacing_project(project: Project) -> Iterator[None]:
    """Write `project.json` beside its place, and put it there when the body has succeeded.

    What belongs to it is written in the body: on a full disk all of it changes, or nothing.

    Args:
        project: As it shall be; the caller holds its lock.

    Raises:
        StorageError: When the folder cannot be written.
    """
    with atomic_path(project.folder / PROJECT_FILE) as temporary:
        write_json_atomic(temporary, project.model_dump())
        yield


def validated(project: Project, **changes: Any) -> Project:
    """Return a project with changed fields, checked as if it was read from disk.

    Raises:
        ProjectError: When the result would contradict itself.
    """
    values = {name: getattr(project, name) for name in Project.model_fields}
    refuse_divided(changes.get("cases", ()))
    try:
        return Project.model_validate({**values, **changes})
    except ValidationError as error:
        raise contradiction_in_words(error, str(project.folder)) from error


def _refuse_repeated(what: str, names: Iterable[Hashable]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        msg = f"the {what} '{repeated[0]}' occurs twice"
        raise ValueError(msg)
