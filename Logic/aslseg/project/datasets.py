"""Data sets as others lay them out: folders, Medical Segmentation Decathlon, nnU-Net.

Of a folder, image and label map belong together by their names.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from aslseg.data.dicom import is_dicom_folder
from aslseg.data.images import SUFFIXES, stem_of, suffix_of
from aslseg.errors import ProjectError, short
from aslseg.project.case import CaseFiles, Split, refuse_same_ids
from aslseg.reading import read_object
from aslseg.targets import Target

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


_CHANNEL = re.compile(r"_(\d{4})$")


_DATASET = "dataset.json"


def cases_from_msd(dataset_json: Path) -> list[CaseFiles]:
    """List the cases of a Medical Segmentation Decathlon task.

    Args:
        dataset_json: Its `dataset.json`, or the folder of it.

    Returns:
        The training cases with label maps, then the test cases without.

    Raises:
        ProjectError: When the file is missing or damaged, or names files that are not there.
    """
    path = _dataset_file(dataset_json)
    values = _read_dataset(path)
    _one_channel(values.get("modality", {}), path)
    cases = [_msd_case(entry, "train", path) for entry in _entries(values, "training", path)]
    return cases + [_msd_case(entry, "test", path) for entry in values.get("test", [])]


def cases_from_nnunet(raw_folder: Path) -> list[CaseFiles]:
    """List the cases of an nnU-Net raw data set.

    Args:
        raw_folder: The folder with `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`.

    Returns:
        The training cases with label maps, then the test cases without.

    Raises:
        ProjectError: When files are missing or the data set has several channels.
    """
    path = _dataset_file(raw_folder)
    values = _read_dataset(path)
    _one_channel(values.get("channel_names", values.get("modality", {})), path)
    ending = str(values.get("file_ending", ".nii.gz"))
    if ending.lower() not in SUFFIXES:
        msg = f"{path} says that files end in '{short(ending)}'; convert them to .nii.gz first."
        raise ProjectError(msg)
    ignored = _ignored(values.get("labels"))
    train = [
        CaseFiles(name, image, label, ignored=ignored)
        for name, image, label in _nnunet_training(path, values, ending)
    ]
    if not train:
        msg = f"{path.parent / 'imagesTr'} holds no image that ends in _0000{ending}; check it."
        raise ProjectError(msg)
    test = _nnunet_images(path.parent / "imagesTs", ending)
    return train + [CaseFiles(name, image, split="test") for name, image in test]


def is_nnunet(dataset_json: Path) -> bool:
    """Tell whether a data set is laid out as nnU-Net's, and not as the Decathlon's.

    Args:
        dataset_json: Its `dataset.json`, or the folder of it.

    Raises:
        ProjectError: When the file is missing or damaged.
    """
    path = _dataset_file(dataset_json)
    has_images = any((path.parent / "imagesTr").glob("*_0000.*"))
    return has_images or isinstance(_read_dataset(path).get("dataset"), dict)


def targets_from_dataset(dataset_json: Path) -> tuple[Target, ...]:
    """Read the targets that a Decathlon or nnU-Net `dataset.json` names.

    Regions of nnU-Net (`"liver": [1, 2], "tumour": [2]`) become targets inside of each other. Plain
    labels (`"liver": 1, "tumour": 2`) do not say what lies inside of what, and none does here.

    Args:
        dataset_json: The file, or the folder of it.

    Raises:
        ProjectError: When the labels are no targets.
    """
    path = _dataset_file(dataset_json)
    labels = _read_dataset(path).get("labels", {})
    try:
        regions = _regions(labels)
        return tuple(_target(name, regions) for name in regions)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        msg = f"{path} has labels that are no targets ({short(labels)}); name the targets yourself."
        raise ProjectError(msg) from error


def _dataset_file(path: Path) -> Path:
    return path / _DATASET if path.is_dir() else path


def _read_dataset(path: Path) -> dict[str, Any]:
    return read_object(path, ProjectError, f"give the {_DATASET} of the data set")


def _one_channel(channels: Any, path: Path) -> None:
    if len(channels) > 1:
        msg = f"{path} has {len(channels)} channels per case; make a data set of one of them."
        raise ProjectError(msg)


def _entries(values: Mapping[str, Any], key: str, path: Path) -> Sequence[Any]:
    entries = values.get(key)
    if not isinstance(entries, list) or not entries:
        msg = f"{path} lists no '{key}' cases; give the {_DATASET} of the data set."
        raise ProjectError(msg)
    return entries


def _msd_case(entry: Any, split: Split, path: Path) -> CaseFiles:
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        msg = f"{path} has the case {short(entry)}, which names no image; correct it."
        raise ProjectError(msg)
    image = _there(path.parent / entry["image"], path)
    label = _there(path.parent / str(entry["label"]), path) if entry.get("label") else None
    return CaseFiles(image.name.removesuffix(suffix_of(image)), image, label, split)


def _there(file: Path, path: Path) -> Path:
    if not file.resolve().is_relative_to(path.parent.resolve()):
        msg = f"{path} names {file}, which lies outside of its folder; move it there."
        raise ProjectError(msg)
    if not file.is_file():
        msg = f"{file} does not exist though {path} calls for it; unpack the data set again."
        raise ProjectError(msg)
    return file


def _nnunet_training(
    path: Path, values: Mapping[str, Any], ending: str
) -> list[tuple[str, Path, Path]]:
    """List name, image and label map of the training cases, by `dataset` or by the folders."""
    listed = values.get("dataset")
    if not isinstance(listed, dict):
        return [
            (name, image, _there(path.parent / "labelsTr" / f"{name}{ending}", path))
            for name, image in _nnunet_images(path.parent / "imagesTr", ending)
        ]
    found = []
    for name, entry in listed.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        if not isinstance(images, list) or len(images) != 1 or not entry.get("label"):
            msg = f"{path} has the case {name!r}, which needs one image and one label; correct it."
            raise ProjectError(msg)
        image, label = (path.parent / str(file) for file in (images[0], entry["label"]))
        found.append((name, _there(image, path), _there(label, path)))
    return found


def _ignored(labels: Any) -> int | None:
    """Return the value of voxels that nobody looked at, where a data set has one."""
    value = labels.get("ignore") if isinstance(labels, dict) else None
    return value if isinstance(value, int) else None


def _nnunet_images(folder: Path, ending: str) -> list[tuple[str, Path]]:
    files = sorted(folder.glob(f"*_0000{ending}")) if folder.is_dir() else []
    return [
        (_CHANNEL.sub("", file.name.removesuffix(ending)), file)
        for file in files
        if not file.name.startswith(".")
    ]


def _regions(labels: Any) -> dict[str, frozenset[int]]:
    """Values of each target, from `{"liver": 1}`, `{"1": "liver"}` or `{"liver": [1, 2]}`."""
    regions = {}
    for key, value in labels.items():
        named = isinstance(value, str) and not value.isdigit()
        name, values = (value, key) if named else (key, value)
        numbers = frozenset(map(int, values if isinstance(values, list) else [values]))
        if numbers != {0} and name != "ignore":
            regions[str(name)] = numbers
    return regions


def _target(name: str, regions: Mapping[str, frozenset[int]]) -> Target:
    own = regions[name]
    inner = frozenset[int]().union(*(values for values in regions.values() if values < own))
    around = [other for other, values in regions.items() if own < values]
    (value,) = own - inner
    inside = min(around, key=lambda other: len(regions[other]), default=None)
    return Target(name=name, value=value, inside=inside)
