"""Label maps of a project: on the grid of their image, with values of targets only, never lost.

Segments of a file are brought to targets by what they are called, not by number: Slicer numbers
them in the order in which they were drawn, so a number says nothing.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from aslseg.data.geometry import fit_labels
from aslseg.data.images import read_segments
from aslseg.data.nrrd import Segment
from aslseg.data.orientation import to_axial
from aslseg.data.volume import Geometry, Labelmap, Mask, SameSize
from aslseg.errors import ImageError
from aslseg.project.case import HISTORY, LABEL_SUFFIX
from aslseg.storage import copy_atomic, sha256_of
from aslseg.targets import Target


def load_labels(
    path: Path,
    geometry: Geometry,
    targets: Sequence[Target],
    *,
    same_size: SameSize = "refuse",
    ignored: int | None = None,
) -> Labelmap:
    """Read a label map onto the grid of its image.

    Args:
        path: The label map; segments of a `.seg.nrrd` file count by their names.
        geometry: The grid of the image.
        targets: Classes that it may have.
        same_size: What to go by when it has the image's size and another position.
        ignored: Value of voxels that nobody looked at; they become background here.

    Raises:
        ImageError: When it is missing, damaged, or has a value of no target.
        GeometryMismatchError: When it lies elsewhere.
    """
    labelmap, segments = read_segments(path)
    require_known(present_values(labelmap), segments, targets, str(path), ignored=ignored)
    if ignored is not None:
        labels = np.where(labelmap.labels == ignored, np.uint8(0), labelmap.labels)
        labelmap = Labelmap(labels, labelmap.geometry)
    labelmap = labels_by_name(labelmap, segments, targets, str(path))
    return fit_labels(labelmap, geometry, str(path), same_size=same_size)


def unseen_voxels(
    path: Path, geometry: Geometry, ignored: int, *, same_size: SameSize = "refuse"
) -> Mask | None:
    """Return which voxels of an image nobody looked at, (D, H, W); None where all were.

    Arguments and errors are those of `load_labels`.
    """
    labelmap, _ = read_segments(path)
    unseen = labelmap.labels == ignored
    if not unseen.any():
        return None
    found = Labelmap(unseen.astype(np.uint8), labelmap.geometry)
    return fit_labels(found, geometry, str(path), same_size=same_size).labels > 0


def complete_slices_of(
    path: Path, geometry: Geometry, ignored: int, *, same_size: SameSize = "refuse"
) -> tuple[int, ...] | None:
    """Return the axial slices of an image in which no voxel has the value of those not looked at.

    Args:
        path: The label map.
        geometry: The grid of the image.
        ignored: That value, nnU-Net's ignore label.
        same_size: What to go by when it has the image's size and another position.

    Returns:
        Numbers as the image's file has them; None where all voxels were looked at.

    Raises:
        ImageError: When each slice has such voxels.
    """
    unseen = unseen_voxels(path, geometry, ignored, same_size=same_size)
    if unseen is None:
        return None
    axis = to_axial(geometry).axes[0]
    others = tuple(n for n in range(3) if n != axis)
    complete = np.flatnonzero(~unseen.any(axis=others))
    if not len(complete):
        msg = (
            f"Each slice of {path} has voxels that nobody looked at (nnU-Net's ignore label, "
            f"{ignored}); only whole slices can be learnt from: finish some, or leave the case out."
        )
        raise ImageError(msg)
    return tuple(complete.tolist())


def require_known(
    present: NDArray[np.bool_],
    segments: Sequence[Segment],
    targets: Sequence[Target],
    name: str,
    *,
    ignored: int | None = None,
) -> None:
    """Make sure that every value of a label map means a target.

    Args:
        present: (256,) bool, which values occur.
        segments: What the file calls them; none for a file that names nothing.
        targets: Classes that it may have.
        name: What messages call the file.
        ignored: Value of voxels that nobody looked at.

    Raises:
        ImageError: When a value or segment is no target.
    """
    if ignored is not None:
        present = present.copy()
        present[ignored] = False
    if segments:
        values_by_name(present, segments, targets, name)
    else:
        check_present(present, targets, name)


def find_label(path: Path, digest: str) -> Path:
    """Return where a label map or mask of known content is: in its place, or in its history.

    Args:
        path: Its place.
        digest: SHA-256 of the file.

    Raises:
        ImageError: When it is nowhere.
    """
    stem = path.name.removesuffix(LABEL_SUFFIX)
    kept = sorted((path.parent / HISTORY).glob(f"{stem}-*{LABEL_SUFFIX}"), reverse=True)
    for copy in (path, *kept):
        if copy.exists() and sha256_of(copy) == digest:
            return copy
    msg = (
        f"{path} is not the file that this began with, and the history has no copy of that one; "
        "restore it, or begin anew: with a new run, where one was to learn from it."
    )
    raise ImageError(msg)


def check_values(labelmap: Labelmap, targets: Sequence[Target], name: str) -> None:
    """Refuse values that no target has.

    Raises:
        ImageError: Naming the values, and `name` for the label map.
    """
    check_present(present_values(labelmap), targets, name)


def present_values(labelmap: Labelmap) -> NDArray[np.bool_]:
    """Return which of the values 0 to 255 occur in a label map, (256,) bool."""
    present = np.zeros(256, np.bool_)
    for plane in labelmap.labels:
        present[plane] = True
    return present


def check_present(present: NDArray[np.bool_], targets: Sequence[Target], name: str) -> None:
    """Refuse values that no target has.

    Args:
        present: (256,) bool, which values occur.
        targets: That have values.
        name: What messages call the label map.

    Raises:
        ImageError: Naming the values, and `name` for the label map.
    """
    strange = present.copy()
    strange[[0, *(target.value for target in targets)]] = False
    if strange.any():
        values = ", ".join(str(value) for value in np.flatnonzero(strange))
        known = ", ".join(f"{target.name} = {target.value}" for target in targets)
        msg = (
            f"{name} holds the value {values}, which is no target ({known}); make it one "
            "(--target NAME=VALUE), or save the label map without it if it is background."
        )
        raise ImageError(msg)


def refuse_unclaimed(
    labelmap: Labelmap, targets: Sequence[Target], claimed: Collection[str], name: str
) -> None:
    """Refuse values of targets that a label map is not said to decide.

    Args:
        labelmap: With values of targets only.
        targets: All targets.
        claimed: Names of those that it decides; all when empty.
        name: What the message calls the label map.

    Raises:
        ImageError: Naming the first of these targets.
    """
    for target in targets if claimed else ():
        if target.name not in claimed and (labelmap.labels == target.value).any():
            msg = (
                f"{name} has voxels of {target.name} though it is said to decide "
                f"{', '.join(claimed)} alone; name {target.name} as well (--labels-of), or save "
                "the label map without it."
            )
            raise ImageError(msg)


def keep_history(path: Path) -> Path | None:
    """Copy a label map that will be replaced to the history beside it, under the time of now.

    Returns:
        The copy, which may be an older one of the same content; None when there is nothing to keep.
    """
    if not path.exists():
        return None
    stem = path.name.removesuffix(LABEL_SUFFIX)
    folder = path.parent / HISTORY
    copies = sorted(folder.glob(f"{stem}-*{LABEL_SUFFIX}"))
    if copies and filecmp.cmp(path, copies[-1], shallow=False):
        return copies[-1]
    kept = _new_name(folder, stem)
    copy_atomic(path, kept)
    return kept


def _new_name(folder: Path, stem: str) -> Path:
    """Return a name that no copy has: a coarse clock, or one put back, tells a time twice."""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    names = chain([f"{stem}-{now}"], (f"{stem}-{now}-{number}" for number in count(1)))
    return next(path for name in names if not (path := folder / (name + LABEL_SUFFIX)).exists())


_BETWEEN = re.compile(r"[\s_-]+")


COUNTER = re.compile(r" ?\d+$")
"""Ends the name of one of several segments of a target, as `plain_name` gives it."""


_SPELLINGS = {"tumor": "tumour", "tumors": "tumours"}


def labels_by_name(
    labelmap: Labelmap,
    segments: Sequence[Segment],
    targets: Sequence[Target],
    name: str,
    *,
    leave_others: bool = False,
) -> Labelmap:
    """Give the voxels of each segment the value of the target that has its name.

    A name counts however it is written ("Liver", "tumor", "tumour 2"); a name that is no target's
    leaves the decision to the terminology. Several segments may belong to one target.

    Args:
        labelmap: With the values of the file.
        segments: What the file calls them; none for a file that names nothing.
        targets: Classes of the result.
        name: What messages call the file.
        leave_others: Whether segments of no target become background, as for scoring some targets.

    Returns:
        Labels with the values of targets, or `labelmap` as it is when there are no segments.

    Raises:
        ImageError: When a segment that is not empty belongs to no target or to two, or a voxel to
            no segment.
    """
    if not segments:
        return labelmap
    present = present_values(labelmap)
    table = values_by_name(present, segments, targets, name, leave_others=leave_others)
    return Labelmap(table[labelmap.labels], labelmap.geometry)


def values_by_name(
    present: NDArray[np.bool_],
    segments: Sequence[Segment],
    targets: Sequence[Target],
    name: str,
    *,
    leave_others: bool = False,
) -> NDArray[np.uint8]:
    """Return the value of a target for each value of a file that names its segments.

    Args:
        present: (256,) bool, which values occur in the file.
        segments: As for `labels_by_name`, at least one.
        targets: As there.
        name: As there.
        leave_others: As there.

    Returns:
        (256,) uint8, by the value in the file.

    Raises:
        ImageError: As there.
    """
    table = np.zeros(256, np.uint8)
    for segment in segments:
        if present[segment.value]:
            target = _target_of(segment, targets, name)
            if target is None and not leave_others:
                _refuse_other(segment, targets, name)
            table[segment.value] = 0 if target is None else target.value
    strange = present.copy()
    strange[[0, *(segment.value for segment in segments)]] = False
    if strange.any():
        msg = (
            f"{name} holds the value {np.flatnonzero(strange)[0]}, which none of its segments has; "
            "save it again in Slicer."
        )
        raise ImageError(msg)
    return table


def _target_of(segment: Segment, targets: Sequence[Target], name: str) -> Target | None:
    written = plain_name(segment.name)
    by_name = _named(written, targets) or _named(COUNTER.sub("", written), targets)
    by_kind = _named(plain_name(segment.kind), targets)
    found = by_name or by_kind
    if len({target.name for target in (*by_name, *by_kind)}) > 1:
        both = " and ".join(sorted({target.name for target in (*by_name, *by_kind)}))
        msg = (
            f"{name}: the segment '{segment.name}' (terminology '{segment.kind}') may be {both}; "
            "rename it or change its terminology in Slicer."
        )
        raise ImageError(msg)
    return found[0] if found else None


def _named(written: str, targets: Sequence[Target]) -> list[Target]:
    return [target for target in targets if written and plain_name(target.name) == written]


def plain_name(text: str) -> str:
    """Return a name as names are compared: however it is written, one spelling."""
    words = _BETWEEN.sub(" ", text).strip().casefold().split(" ")
    return " ".join(_SPELLINGS.get(word, word) for word in words)


def _refuse_other(segment: Segment, targets: Sequence[Target], name: str) -> NoReturn:
    known = ", ".join(f"'{target.name}'" for target in targets)
    msg = (
        f"{name} has the segment '{segment.name}', which is no target ({known}); name it as its "
        "target in Slicer, or export a label map in which numbers count (.nii.gz)."
    )
    raise ImageError(msg)
