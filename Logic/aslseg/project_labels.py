"""Label maps of a project: on the grid of their image, with values of targets only, never lost."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from aslseg.config import Target
from aslseg.errors import ImageError
from aslseg.geometry import fit_labels
from aslseg.images import read_labelmap
from aslseg.project_case import HISTORY, LABEL_SUFFIX
from aslseg.storage import copy_atomic
from aslseg.volume import Geometry, Labelmap


def load_labels(path: Path, geometry: Geometry, targets: Sequence[Target]) -> Labelmap:
    """Read a label map onto the grid of its image.

    Raises:
        ImageError: When it is missing, damaged, or has a value of no target.
        GeometryMismatchError: When it lies elsewhere.
    """
    labelmap = read_labelmap(path)
    check_values(labelmap, targets, str(path))
    return fit_labels(labelmap, geometry, str(path))


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
        msg = f"{name} holds the value {values}, which is no target ({known}); add or erase it."
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
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    kept = folder / f"{stem}-{now}{LABEL_SUFFIX}"
    copy_atomic(path, kept)
    return kept
