"""A case as a part of an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap, Mask
from aslseg.errors import ProjectError
from aslseg.project.case import Case
from aslseg.storage import write_json_atomic
from aslseg.targets import Target, numbered_labels

ENDING = ".nii.gz"
DESCRIPTION = "dataset.json"
CT, OTHER = "CT", "image"
"""Names of the channel: nnU-Net normalises `CT` alike in all images, others each by itself."""


BACKGROUND, IGNORE = "background", "ignore"
"""Names of labels that have a meaning of their own for nnU-Net."""


def refuse_reserved(targets: Sequence[Target]) -> None:
    """Refuse targets whose names nnU-Net takes for what is none.

    Raises:
        ProjectError: Naming the first one.
    """
    for target in targets:
        if target.name in (BACKGROUND, IGNORE):
            msg = (
                f"nnU-Net keeps the name '{target.name}' for voxels of no target, and the target "
                "of that name would not be trained; make the project anew with another name of it "
                "(--target), or export another format (--format nifti)."
            )
            raise ProjectError(msg)


def image_name(case: Case, *, is_train: bool) -> str:
    """Return where the image of a case is in the data set."""
    return f"{'imagesTr' if is_train else 'imagesTs'}/{case.id}_0000{ENDING}"


def label_name(case: Case) -> str:
    """Return where the label map of a case is in the data set."""
    return f"labelsTr/{case.id}{ENDING}"


def write_labels(labelmap: Labelmap, targets: Sequence[Target], path: Path, ignored: Mask) -> None:
    """Write a label map with consecutive values of the targets, as nnU-Net asks.

    Args:
        labelmap: With the project's values.
        targets: All targets, in the order of the values that they get, from 1.
        path: Where to.
        ignored: (D, H, W) voxels that get the value of nnU-Net's ignore label, which is the one
            after the targets'.
    """
    labels = numbered_labels(labelmap.labels, targets)
    labels[ignored] = len(targets) + 1
    write_labelmap(Labelmap(labels, labelmap.geometry), path)


def write_description(
    folder: Path, targets: Sequence[Target], number: int, channel: str, *, has_ignored: bool
) -> None:
    """Write `dataset.json`.

    Args:
        folder: Of the data set.
        targets: All targets.
        number: Of cases to train on.
        channel: What images are: `CT` or `OTHER`.
        has_ignored: Whether a label map has ignored voxels; nnU-Net then leaves them out of loss
            and scores.
    """
    names = [BACKGROUND, *(target.name for target in targets)]
    labels = {name: value for value, name in enumerate([*names, *[IGNORE] * has_ignored])}
    description = {
        "channel_names": {"0": channel},
        "labels": labels,
        "numTraining": number,
        "file_ending": ENDING,
    }
    write_json_atomic(folder / DESCRIPTION, description)
