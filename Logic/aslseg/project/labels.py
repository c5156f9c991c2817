"""Label maps of a project: on the grid of their image, with values of targets only, never lost.

Segments of a file are brought to targets by what they are called, not by number: Slicer numbers
them in the order in which they were drawn, so a number says nothing.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path
from typing import NoReturn

import numpy as np

from aslseg.data.geometry import fit_labels
from aslseg.data.images import read_segments
from aslseg.data.nrrd import Segment
from aslseg.data.volume import Geometry, Labelmap, SameSize
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
        ignored: Value of voxels that nobody looked at.

    Raises:
        ImageError: When it is missing, damaged, has a value of no target, or voxels that nobody
            looked at.
        GeometryMismatchError: When it lies elsewhere.
    """
    labelmap, segments = read_segments(path)
    if ignored is not None and (labelmap.labels == ignored).any():
        msg = (
            f"{path} has voxels that nobody looked at (nnU-Net's ignore label, {ignored}), which "
            "cannot be left out of the training; finish it, or learn from other cases (--labelled)."
        )
        raise ImageError(msg)
    labelmap = labels_by_name(labelmap, segments, targets, str(path))
    check_values(labelmap, targets, str(path))
    return fit_labels(labelmap, geometry, str(path), same_size=same_size)


def find_label(path: Path, digest: str) -> Path:
    """Return where a label map of known content is: in its place, or in the history beside it.

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
        f"{path} is not the label map that the run began to learn from, and the history has no "
        "copy of that one; restore it, or start a new run."
    )
    raise ImageError(msg)


def check_values(labelmap: Labelmap, targets: Sequence[Target], name: str) -> None:
    """Refuse values that no target has.

    Raises:
        ImageError: Naming the values, and `name` for the label map.
    """
    present = np.zeros(256, np.bool_)
    for plane in labelmap.labels:
        present[plane] = True
    present[[0, *(target.value for target in targets)]] = False
    if present.any():
        values = ", ".join(str(value) for value in np.flatnonzero(present))
        known = ", ".join(f"{target.name} = {target.value}" for target in targets)
        msg = (
            f"{name} holds the value {values}, which is no target ({known}); make it one "
            "(--target NAME=VALUE), or save the label map without it if it is background."
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


_COUNTER = re.compile(r" ?\d+$")


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
    present = np.bincount(labelmap.labels.ravel(), minlength=256) > 0
    table = np.zeros(256, np.uint8)
    for segment in segments:
        if present[segment.value]:
            target = _target_of(segment, targets, name)
            if target is None and not leave_others:
                _refuse_other(segment, targets, name)
            table[segment.value] = 0 if target is None else target.value
    present[[0, *(segment.value for segment in segments)]] = False
    if present.any():
        msg = (
            f"{name} holds the value {np.flatnonzero(present)[0]}, which none of its segments has; "
            "save it again in Slicer."
        )
        raise ImageError(msg)
    return Labelmap(table[labelmap.labels], labelmap.geometry)


def _target_of(segment: Segment, targets: Sequence[Target], name: str) -> Target | None:
    written = _plain(segment.name)
    by_name = _named(written, targets) or _named(_COUNTER.sub("", written), targets)
    by_kind = _named(_plain(segment.kind), targets)
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
    return [target for target in targets if written and _plain(target.name) == written]


def _plain(text: str) -> str:
    words = _BETWEEN.sub(" ", text).strip().casefold().split(" ")
    return " ".join(_SPELLINGS.get(word, word) for word in words)


def _refuse_other(segment: Segment, targets: Sequence[Target], name: str) -> NoReturn:
    known = ", ".join(f"'{target.name}'" for target in targets)
    msg = (
        f"{name} has the segment '{segment.name}', which is no target ({known}); name it as its "
        "target in Slicer, or export a label map in which numbers count (.nii.gz)."
    )
    raise ImageError(msg)
