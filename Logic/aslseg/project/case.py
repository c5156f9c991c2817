"""A volume of a project, on its way in and when it is there."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from aslseg.config import Settings
from aslseg.data.volume import SameSize
from aslseg.errors import ProjectError

LABELS = "labels"
LESIONS = "lesions"
MASKS = "masks"
RUNS = "runs"
HISTORY = "history"
CACHE = "cache"
"""Anything in it may be deleted."""
EMBEDDINGS = "embeddings"
"""Folder of a cache: SAM's embeddings, and predictions of whole volumes."""
LABEL_SUFFIX = ".nii.gz"
PROJECT_FILE = "project.json"
PROJECT_REMEDY = "give the folder of a project, create one, or restore the file from a copy"
REVIEWS = "reviews.jsonl"
OWN_FILES = (PROJECT_FILE, REVIEWS)
"""Of a project, beside its folders."""
OWN_FOLDERS = (LABELS, LESIONS, MASKS, RUNS, CACHE)
"""Of a project, in which nothing but what it writes itself has a place."""
MOST_LETTERS, MOST_LETTERS_OF_NAME = 4000, 255

Split: TypeAlias = Literal["train", "validation", "test"]
Status: TypeAlias = Literal["unlabelled", "labelled", "pseudo", "accepted", "rejected"]
CaseId = Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_](?:[\w.-]*[\w-])?$")]


def _in_folder(folder: str, path: Any) -> Any:
    """Refuse what is no file in a folder; what links lead to is looked at when it is used."""
    parts = PurePosixPath(str(path).replace("\\", "/")).parts
    if path is not None and (
        parts[:1] != (folder,) or ".." in parts or len(parts) < 2 or parts[1] == HISTORY
    ):
        allowed = f"the folder {folder}/ of the project, or in its history"
        msg = f"'{str(path)[:100]}' lies outside of {allowed}"
        raise ValueError(msg)
    return path if path is None else Path(*parts)


def _possible(path: Path) -> Path:
    if len(str(path)) > MOST_LETTERS or any(
        len(part) > MOST_LETTERS_OF_NAME for part in path.parts
    ):
        msg = f"'{str(path)[:100]} ...' is too long for a path"
        raise ValueError(msg)
    return path


ImagePath = Annotated[Path, AfterValidator(_possible)]
LabelPath = Annotated[Path, BeforeValidator(partial(_in_folder, LABELS)), AfterValidator(_possible)]
MaskPath = Annotated[Path, BeforeValidator(partial(_in_folder, MASKS)), AfterValidator(_possible)]


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """An image to be brought into a project, with its label map if there is one.

    Attributes:
        id: Name of the case, good as a file name.
        image: Image file, or folder of DICOM slices.
        label: Label map, or None.
        split: What the case is for.
        same_size: What to go by when the label map has the image's size and another position.
        ignored: Value of the voxels of the label map that nobody looked at, or None.
        patient: Whose volume it is; None takes the PatientID of DICOM slices, else the case's name.
        masks: Files of given organ masks, by target name (see `organ_masks`).
        label_targets: Names of the targets that the label map decides; all when empty.
    """

    id: str
    image: Path
    label: Path | None = None
    split: Split = "train"
    same_size: SameSize = "refuse"
    ignored: int | None = None
    patient: str | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    label_targets: tuple[str, ...] = ()


class Case(Settings):
    """One volume of a project.

    Attributes:
        id: Name of the case, good as a file name.
        image: Image file or DICOM folder, relative to the project folder unless on another drive.
        label: Label map in `labels/`, made by a person, or None.
        split: Trained on, chosen by, or never looked at before the end.
        status: Where its label comes from, or what became of the pseudo-label.
        image_sha256: Digest of the image when it was brought in (`digest_of_image`).
        patient: Whose volume it is; the case's own name where nothing else is known.
        masks: Given masks of organs, in `masks/`, by target name; they are not predicted.
        label_targets: Names of the targets that the label map decides; all when empty. Of others it
            says nothing: they are neither learnt nor scored, and never taken for background.
        complete_slices: Axial slices, as the file numbers them, in which everything is labelled;
            only these are learnt from and scored. None: all are.
    """

    id: CaseId
    image: ImagePath
    label: LabelPath | None = None
    split: Split = "train"
    status: Status = "unlabelled"
    image_sha256: str | None = None
    patient: CaseId = ""  # replaced by the case's name
    masks: dict[str, MaskPath] = Field(default_factory=dict)
    label_targets: tuple[str, ...] = ()
    complete_slices: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_patient(cls, values: Any) -> Any:
        """Take a volume without a patient, as those of older projects are, for one of its own."""
        if isinstance(values, dict) and values.get("patient") is None:
            return {**values, "patient": values.get("id")}
        return values

    @property
    def label_scope(self) -> str:
        """What the label map decides, to compare with later; empty where it decides all."""
        slices = [] if self.complete_slices is None else [f"slices {self.complete_slices}"]
        return "; ".join([*self.label_targets, *slices])

    @property
    def label_counts(self) -> bool:
        """Whether it has a label map of which anything counts: all of it, or some slice."""
        return self.label is not None and self.complete_slices != ()

    @property
    def label_place(self) -> Path:
        """Where its label map is, or is put, relative to the project folder."""
        return self.label or Path(LABELS, self.id + LABEL_SUFFIX)

    def scoped(self, scope: str) -> Case:
        """Return the case with a label map that decides what a `label_scope` says."""
        names = scope.split("; ") if scope else []
        slices = names.pop() if names and names[-1].startswith("slices (") else None
        complete = None if slices is None else tuple(int(n) for n in re.findall(r"\d+", slices))
        facts = {"label_targets": tuple(names), "complete_slices": complete}
        return self.model_copy(update=facts)

    @model_validator(mode="after")
    def _label_fits_status(self) -> Case:
        if self.label is None and self.status in ("labelled", "accepted"):
            msg = f"case {self.id} is {self.status} but names no label map"
            raise ValueError(msg)
        return self


def located_image(image: Path) -> Path:
    """Return the whole path of an image file under the name that it is read by.

    Links are followed in its folders alone: what a linked file leads to may have no ending that
    says what it is, and the voxels of a header lie beside its name. Of a folder all are followed.
    """
    return image.resolve() if image.is_dir() else image.parent.resolve() / image.name


def image_place(image: Path, folder: Path) -> Path:
    """Return an image as a case names it: relative to the project's folder, where it can be."""
    image = located_image(image)
    try:
        return Path(os.path.relpath(image, folder.resolve()))
    except ValueError:  # another drive
        return image


def resolved_image(folder: Path, case: Case) -> Path:
    """Return the whole path of an image, which need not be there, as a person would write it."""
    return Path(os.path.normpath(folder.resolve() / case.image))


def name_key(name: str) -> str:
    """Return what names have in common that are one file on some systems.

    They may differ in case, and in whether an accent is a character of its own.
    """
    return unicodedata.normalize("NFC", name).lower()


def refuse_same_ids(cases: Sequence[CaseFiles]) -> None:
    """Refuse two images under one name, as `name_key` compares them.

    Raises:
        ProjectError: Naming both files.
    """
    seen: dict[str, CaseFiles] = {}
    for case in cases:
        other = seen.setdefault(name_key(case.id), case)
        if other is not case:
            msg = (
                f"{other.image} and {case.image} both give the case name '{case.id}'; rename one "
                "of them, or leave it out."
            )
            raise ProjectError(msg)


def nothing_counts(cases: Iterable[Case]) -> str:
    """Say of which cases no slice of the label map counts; empty where there is none."""
    names = ", ".join(case.id for case in cases if case.label and not case.label_counts)
    if not names:
        return ""
    return (
        f"No slice of the label map counts: {names}. Nothing is learnt from it; mark a slice as "
        "complete, or let the whole label map count."
    )
