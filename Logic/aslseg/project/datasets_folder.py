"""Which image and which label map of a folder belong together."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aslseg.data.dicom import is_dicom_folder
from aslseg.data.images import stem_of, suffix_of
from aslseg.errors import ProjectError
from aslseg.project.case import CaseFiles, refuse_same_ids

logger = logging.getLogger(__name__)

_IMAGE = "image|images|img|volume|vol|scan|ct|mr|mri"
_LABEL = "label|labels|labelmap|seg|segmentation|mask|gt|truth|annotation"
_IMAGE_END = re.compile(rf"(?:_0000|[-_. ](?:{_IMAGE}))$", re.IGNORECASE)
_IMAGE_START = re.compile(rf"^(?:{_IMAGE})[-_. ]", re.IGNORECASE)
_LABEL_END = re.compile(rf"[-_. ](?:{_LABEL})$", re.IGNORECASE)
_LABEL_START = re.compile(rf"^(?:{_LABEL})(?:[-_. ]|$)", re.IGNORECASE)
_OTHER_CHANNEL = re.compile(r"_000[1-9]$")
_NOT_IN_NAMES = re.compile(r"[^\w.-]+|^[^\w]+|\.+$", re.ASCII)


def cases_from_folder(images: Path, labels: Path | None = None) -> list[CaseFiles]:
    """List the cases of a folder by the names of its files.

    These belong together: `a` with `a`, `a_0000` with `a`, `volume-7` with `segmentation-7`,
    `a_image` with `a_label` or `a_seg`, and the only image with the only label map. A folder in
    the folder is one case: DICOM slices, or an image and its label map.

    Args:
        images: Folder of images; without `labels`, of label maps as well.
        labels: Folder of label maps.

    Returns:
        Cases in the order of their names, numbers by their value.

    Raises:
        ProjectError: When there is no image, or names do not tell what belongs together.
    """
    for folder in (images, labels or images):
        if not folder.is_dir():
            msg = f"{folder} is no folder; give a folder of images or label maps."
            raise ProjectError(msg)
    files = _images_in(images)
    if labels is not None:
        cases = _paired(files, _images_in(labels), images)
    else:
        own = [path for path in files if not _is_label(path)]
        cases = _paired(own, [path for path in files if _is_label(path)], images)
        cases += _nested_cases(images)
    if not cases:
        msg = f"{images} holds no image; give the folder with the NIfTI, NRRD or DICOM files."
        raise ProjectError(msg)
    cases = _apart(cases)
    refuse_same_ids(cases)
    return sorted(cases, key=lambda case: _natural(case.id))


def _apart(cases: Sequence[CaseFiles]) -> list[CaseFiles]:
    """Name images by their whole names where a shorter one fits several: p1_ct and p1_mr."""
    short = Counter(case.id.lower() for case in cases)
    return [
        replace(case, id=_as_name(stem_of(case.image)))
        if short[case.id.lower()] > 1 and case.id == _case_id(case.image)
        else case
        for case in cases
    ]


def _images_in(folder: Path) -> list[Path]:
    """List image files and folders of DICOM slices; the folder itself if it holds slices."""
    if is_dicom_folder(folder):
        return [folder]
    return [path for path in _visible(folder) if suffix_of(path) or _is_dicom_case(path)]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_dicom_case(path: Path) -> bool:
    return path.is_dir() and is_dicom_folder(path)


def _is_label(path: Path) -> bool:
    stem = stem_of(path)
    return path.is_file() and bool(_LABEL_END.search(stem) or _LABEL_START.search(stem))


def _nested_cases(folder: Path) -> list[CaseFiles]:
    """Take each folder that holds an image as one case of the folder's name."""
    found = []
    for inner in (path for path in _visible(folder) if path.is_dir() and not is_dicom_folder(path)):
        files = [path for path in _visible(inner) if suffix_of(path)]
        own = [path for path in files if not _is_label(path)]
        cases = _paired(own, [path for path in files if _is_label(path)], inner)
        if len(cases) > 1:
            msg = f"{inner} holds several images; give the folders of images and labels apart."
            raise ProjectError(msg)
        found += [replace(case, id=_as_name(inner.name)) for case in cases]
    return found


def _paired(images: Sequence[Path], labels: Sequence[Path], folder: Path) -> list[CaseFiles]:
    _refuse_channels(images)
    if len(images) == len(labels) == 1:
        return [CaseFiles(_case_id(images[0]), images[0], labels[0])]
    cases = [CaseFiles(_case_id(path), path, _label_of(path, labels)) for path in images]
    used = [case.label for case in cases if case.label is not None]
    for label in used:
        if used.count(label) > 1:
            msg = f"{label} fits several images of {folder} by its name; rename it like its image."
            raise ProjectError(msg)
    if labels and images and not used:
        msg = f"{labels[0]} belongs to no image of {folder} by its name; rename it like its image."
        raise ProjectError(msg)
    for label in set(labels) - set(used):
        logger.warning("%s belongs to no image of %s and is left out.", label, folder)
    return cases


def _refuse_channels(images: Sequence[Path]) -> None:
    stems = {stem_of(path) for path in images}
    for path in images:
        stem = stem_of(path)
        if _OTHER_CHANNEL.search(stem) and f"{stem[:-5]}_0000" in stems:
            msg = f"{path} is another channel of a case; leave one channel per case in the folder."
            raise ProjectError(msg)


def _label_of(image: Path, labels: Sequence[Path]) -> Path | None:
    """Find the label map of an image: of its very name, else of what the name means."""
    name, key = stem_of(image).removesuffix("_0000"), _image_key(image)
    same = [path for path in labels if stem_of(path) == name]
    same = same or [path for path in labels if _label_key(path) == key]
    if len(same) > 1:
        msg = f"{same[0]} and {same[1].name} both fit {image.name} by their names; rename one."
        raise ProjectError(msg)
    return same[0] if same else None


def _image_key(path: Path) -> str:
    return _IMAGE_START.sub("", _IMAGE_END.sub("", stem_of(path))).lower()


def _label_key(path: Path) -> str:
    return _IMAGE_START.sub("", _LABEL_START.sub("", _LABEL_END.sub("", stem_of(path)))).lower()


def _case_id(path: Path) -> str:
    return _as_name(_IMAGE_END.sub("", stem_of(path)))


def _as_name(text: str) -> str:
    """Return a text as a name of ASCII letters; a digest stands for letters that it cannot hold."""
    name = _NOT_IN_NAMES.sub("_", text) or "case"
    if text.isascii():
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name.strip('_') or 'case'}-{digest[:8]}"


def _natural(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
