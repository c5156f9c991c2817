"""What files of a planned project say of themselves, read once and looked at again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aslseg.data.dicom import patient_id_of
from aslseg.data.images import read_geometry, read_segments
from aslseg.data.nrrd import Segment
from aslseg.data.volume import Geometry
from aslseg.errors import ImageError
from aslseg.events import Monitor
from aslseg.project.case import CaseFiles
from aslseg.project.label_origin import ai_label_problem
from aslseg.project.labels import present_values


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What one file says.

    Attributes:
        geometry: Where its voxels lie; None when it cannot be read.
        values: Of a label map, which values occur, 0 left out.
        segments: Of a label map, what its file calls them.
        patient_id: PatientID of DICOM slices; never written or shown.
        problem: Why it cannot be used; empty when it can.
        ai_label: Of a label map, why it is no person's; empty where it may be one.
    """

    geometry: Geometry | None = None
    values: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()
    patient_id: str | None = field(default=None, repr=False)
    problem: str = ""
    ai_label: str = ""


def read_facts(
    cases: Iterable[CaseFiles],
    known: Mapping[Path, FileFacts] | None = None,
    monitor: Monitor | None = None,
) -> dict[Path, FileFacts]:
    """Read the headers of images, and label maps whole; of these the values are kept.

    Args:
        cases: Whose files are read.
        known: What was read before, and is not read again.
        monitor: Told of the progress.

    Returns:
        By file, what is known now.

    Raises:
        CancelledError: When the monitor says so.
    """
    facts, cases = dict(known or {}), tuple(cases)
    readers = {case.image: _image_facts for case in cases}
    readers |= {case.label: _label_facts for case in cases if case.label is not None}
    readers |= {path: _label_facts for case in cases for path in case.masks.values()}
    new = [path for path in readers if path not in facts]
    for path in (monitor or Monitor()).track(new, "reading images and label maps") if new else ():
        facts[path] = _facts_of(path, readers[path])
    return facts


def _facts_of(path: Path, read: Callable[[Path], FileFacts]) -> FileFacts:
    try:
        return read(path)
    except ImageError as error:
        return FileFacts(problem=str(error))


def _image_facts(path: Path) -> FileFacts:
    patient_id = patient_id_of(path) if path.is_dir() else None
    return FileFacts(read_geometry(path), patient_id=patient_id)


def _label_facts(path: Path) -> FileFacts:
    labelmap, segments = read_segments(path)
    values = np.flatnonzero(present_values(labelmap))
    occurring = tuple(int(value) for value in values if value)
    return FileFacts(labelmap.geometry, occurring, segments, ai_label=ai_label_problem(path))
