"""Segments of a file brought to the targets of a project: by what they are called, not by number.

Slicer numbers segments in the order in which they were drawn, so a number says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from aslseg.data.segment_names import Segment
from aslseg.data.volume import Labelmap
from aslseg.errors import ImageError
from aslseg.targets import Target

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
