"""Data sets as others lay them out: Medical Segmentation Decathlon, nnU-Net, or a plain folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslseg.data.images import SUFFIXES, suffix_of
from aslseg.errors import ProjectError, short
from aslseg.events import Monitor
from aslseg.project.case import CaseFiles, Split, refuse_same_ids
from aslseg.project.pairing import FoundCases, left_out_in_words, pair_folder, unpaired_in_words
from aslseg.reading import read_object
from aslseg.targets import Target

logger = logging.getLogger(__name__)


def find_cases(
    source: Path,
    labels: Path | None = None,
    *,
    with_targets: bool = True,
    monitor: Monitor | None = None,
) -> FoundCases:
    """Look what a folder or a `dataset.json` holds: cases, targets, and what belongs to nothing.

    Args:
        source: Folder of images, or `dataset.json` of a Decathlon task or of nnU-Net raw data, or
            the folder of one.
        labels: Folder of label maps, where it is not that of the images; a data set names its own.
        with_targets: Whether the targets that a data set names are read, too.
        monitor: Told which folders are passed over, though images lie deep inside.

    Raises:
        ProjectError: When nothing is there, a data set is damaged, or `labels` is given beside one.
    """
    if not is_dataset(source):
        found = pair_folder(source, labels)
        if found.passed_over and monitor is not None:
            monitor.warn(found.passed_over)
        return found
    if labels is not None:
        msg = f"{source} names its label maps itself; leave the folder of label maps out."
        raise ProjectError(msg)
    cases = cases_from_nnunet(source) if is_nnunet(source) else cases_from_msd(source)
    targets = targets_from_dataset(source) if with_targets else None
    return FoundCases(tuple(cases), targets=targets)


def cases_of(source: Path, labels: Path | None = None) -> list[CaseFiles]:
    """List the cases of a folder or data set, where names leave nothing open; see `find_cases`.

    Raises:
        ProjectError: As `find_cases`, or when names do not tell what belongs together.
    """
    if is_dataset(source):
        return list(find_cases(source, labels, with_targets=False).cases)
    return cases_from_folder(source, labels)


def is_dataset(source: Path) -> bool:
    """Tell whether a source is a `dataset.json` or a folder with one."""
    return source.suffix == ".json" or (source / _DATASET).is_file()


def cases_from_folder(images: Path, labels: Path | None = None) -> list[CaseFiles]:
    """List the cases of a folder by the names of its files; see `pair_folder`.

    Args:
        images: Folder of images; without `labels`, of label maps as well.
        labels: Folder of label maps.

    Returns:
        Cases in the order of their names, numbers by their value.

    Raises:
        ProjectError: When there is no image, or names do not tell what belongs together.
    """
    found = pair_folder(images, labels)
    for problem in found.problems:
        raise ProjectError(problem.message)
    if found.unpaired and not any(case.label for case in found.cases):
        raise ProjectError(unpaired_in_words(found.unpaired[0], images))
    if found.passed_over:
        logger.warning(found.passed_over)
    for label in found.unpaired:
        logger.warning("%s belongs to no image of %s and is left out.", label, images)
    if found.left_out:
        logger.warning("%s, in %s.", left_out_in_words(found.left_out), images)
    refuse_same_ids(found.cases)
    return list(found.cases)


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
    test = _entries(values, "test", path) if values.get("test") else ()
    return cases + [_msd_case(entry, "test", path) for entry in test]


def cases_from_nnunet(raw_folder: Path) -> list[CaseFiles]:
    """List the cases of an nnU-Net raw data set.

    Args:
        raw_folder: The folder with `dataset.json`, `imagesTr`, `labelsTr` and perhaps `imagesTs`.

    Returns:
        The training cases with label maps, then the test cases without.

    Raises:
        ProjectError: When files are missing, the data set has several channels, or an image in its
            folders has another ending, so that it would be passed over.
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
    if isinstance(channels, Collection) and not isinstance(channels, str) and len(channels) > 1:
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
    """List name and file of the images in a folder, which need not be there.

    Raises:
        ProjectError: When one is of another channel than the first, or ends otherwise.
    """
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    images = [file for file in files if suffix_of(file) and not file.name.startswith(".")]
    first = f"_0000{ending}"
    others = [file for file in images if not file.name.endswith(first)]
    if others:
        channel = _CHANNEL.search(others[0].name.removesuffix(suffix_of(others[0])))
        is_channel = channel is not None and channel.group(1) != "0000"
        what = "is of another channel" if is_channel else f"does not end in {first}"
        many = f" (and {len(others) - 1} more files)" if len(others) > 1 else ""
        msg = (
            f"{others[0]}{many} {what}, though {_DATASET} says that there is one channel and that "
            f"files end in {ending}; move it away if it is no volume of the data set, or rename it."
        )
        raise ProjectError(msg)
    return [(_CHANNEL.sub("", file.name.removesuffix(ending)), file) for file in images]


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
