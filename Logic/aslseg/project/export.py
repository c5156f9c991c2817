"""A project as an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Labelmap
from aslseg.errors import ImageError, ProjectError
from aslseg.project.case import Case
from aslseg.project.project import Project, changing, open_project
from aslseg.storage import atomic_folder, sweep, write_json_atomic
from aslseg.targets import Target

_ENDING = ".nii.gz"


def export_nnunet(
    project: Project,
    folder: Path,
    *,
    labels: Mapping[str, Path] | None = None,
    channel: str = "CT",
) -> Path:
    """Write a project as an nnU-Net raw data set, whole or not at all.

    Cases with a label map become `imagesTr` and `labelsTr`, test cases and those without become
    `imagesTs`. Values of the targets are made consecutive, as nnU-Net asks.

    Args:
        project: What to export.
        folder: New or empty, usually named `Dataset001_Name`.
        labels: Label maps by case id, such as pseudo-labels; human ones where a case is not named.
        channel: Name of the image channel; nnU-Net normalises by HU when it is "CT".

    Returns:
        `folder`.

    Raises:
        ProjectError: When no case has a label map, or `labels` names an unknown case.
        ImageError: When a file cannot be read.
        StorageError: When the folder holds files or cannot be written; nothing is left behind.
    """
    sweep(folder.parent)
    try:
        return _export(project, folder, labels or {}, channel)
    except ImageError:
        with changing(project.folder):  # a label map may have been taken back meanwhile
            now = open_project(project.folder)
        if [case.label for case in now.cases] == [case.label for case in project.cases]:
            raise
    return _export(now, folder, labels or {}, channel)


def _export(project: Project, folder: Path, labels: Mapping[str, Path], channel: str) -> Path:
    label_of = _label_paths(project, labels)
    with atomic_folder(folder) as temporary:
        for case in project.cases:
            is_train = case.id in label_of
            images = temporary / ("imagesTr" if is_train else "imagesTs")
            # Written anew, never copied: headers of images can hold names of patients.
            write_volume(project.load_image(case), images / f"{case.id}_0000{_ENDING}")
            if is_train:
                labelmap = _consecutive(project, case, label_of[case.id])
                write_labelmap(labelmap, temporary / "labelsTr" / (case.id + _ENDING))
        write_json_atomic(
            temporary / "dataset.json", _description(project.targets, channel, len(label_of))
        )
    return folder


def _label_paths(project: Project, labels: Mapping[str, Path]) -> dict[str, Path]:
    given = {project.case(name).id: path for name, path in labels.items()}
    found = {
        case.id: given[case.id] if case.id in given else project.label_path(case)
        for case in project.cases
        if case.split != "test" and (case.id in given or case.label is not None)
    }
    if not found:
        msg = f"{project.folder} has no label map to export; label a volume, or train first."
        raise ProjectError(msg)
    return found


def _consecutive(project: Project, case: Case, path: Path) -> Labelmap:
    labelmap = project.read_labels(case, path)
    table = np.zeros(256, np.uint8)
    for value, target in enumerate(project.targets, start=1):
        table[target.value] = value
    return Labelmap(table[labelmap.labels], labelmap.geometry)


def _description(targets: Sequence[Target], channel: str, number: int) -> dict[str, object]:
    names = [target.name for target in targets]
    return {
        "channel_names": {"0": channel},
        "labels": {"background": 0, **{name: value for value, name in enumerate(names, start=1)}},
        "numTraining": number,
        "file_ending": _ENDING,
    }
