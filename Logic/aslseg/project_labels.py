"""Label maps of a project: on the grid of their image, with values of targets only, never lost."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path

import numpy as np

from aslseg.config import Target
from aslseg.errors import ImageError
from aslseg.geometry import fit_labels
from aslseg.images import read_segments
from aslseg.project_case import HISTORY, LABEL_SUFFIX
from aslseg.project_segments import labels_by_name
from aslseg.storage import copy_atomic, sha256_of
from aslseg.volume import Geometry, Labelmap, SameSize


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
    for place in (path, *kept):
        if place.exists() and sha256_of(place) == digest:
            return place
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
