"""Series of Slicer's DICOM database as cases of a plan.

The library reads a folder of slices itself, and takes the series in it that it would take for the
command line. So a series can be a case where it has a folder of its own, or is the one that would
be taken; others have to be loaded into the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from ASLsegLib.scene.volumes import SceneError

if TYPE_CHECKING:
    from aslseg.project.plan import Plan

LOAD_IT = "load it with the DICOM module, and add it from the scene"


@dataclass(frozen=True)
class DicomSeries:
    """A series of images, as the database names it: for the eyes of who chooses, and for no file.

    Attributes:
        uid: Series Instance UID.
        patient: Name of the patient.
        study: Date and description of the study.
        series: Number and description of the series.
        modality: CT, MR and so on.
    """

    uid: str
    patient: str
    study: str
    series: str
    modality: str


@dataclass(frozen=True)
class SeriesPlace:
    """Where the slices of a series are.

    Attributes:
        uid: Series Instance UID.
        modality: CT, MR and so on.
        folders: All that hold some of them.
    """

    uid: str
    modality: str
    folders: tuple[Path, ...]


def list_series() -> list[DicomSeries]:
    """List the series of images in Slicer's DICOM database, patient by patient.

    Raises:
        SceneError: When there is no database, or no image in it.
    """
    from aslseg.data.dicom import NOT_IMAGES

    database = slicer.app.dicomDatabase()
    _require_open(database)
    found = []
    for patient in database.patients():
        name = database.nameForPatient(patient)
        for study in database.studiesForPatient(patient):
            date = database.fieldForStudy("StudyDate", study)
            about = f"{date} {database.descriptionForStudy(study)}".strip()
            for uid in database.seriesForStudy(study):
                modality = database.fieldForSeries("Modality", uid)
                number = database.fieldForSeries("SeriesNumber", uid)
                text = f"{number}: {database.descriptionForSeries(uid)}".strip(": ")
                if modality not in NOT_IMAGES:
                    found.append(DicomSeries(uid, name, about, text, modality))
    if not found:
        msg = "Slicer's DICOM database holds no images; import some with the DICOM module."
        raise SceneError(msg)
    return found


def places_of(uids: Sequence[str]) -> list[SeriesPlace]:
    """Look up where the slices of series are.

    Raises:
        SceneError: When there is no database, or slices are gone.
    """
    database = slicer.app.dicomDatabase()
    _require_open(database)
    found = []
    for uid in uids:
        files = [Path(name) for name in database.filesForSeries(uid)]
        gone = next((path for path in files if not path.exists()), None)
        if gone is not None or not files:
            what = "A series" if gone is None else str(gone)
            msg = f"{what} is not there any more; import it again with the DICOM module."
            raise SceneError(msg)
        folders = tuple(dict.fromkeys(path.parent for path in files))
        found.append(SeriesPlace(uid, database.fieldForSeries("Modality", uid), folders))
    return found


def with_series(plan: Plan, places: Sequence[SeriesPlace]) -> Plan:
    """Add series to a plan; those that are in it already are left out.

    Cases are named by modality and a number: descriptions often hold names of patients.

    Raises:
        SceneError: When a folder's slices would be read as another series.
        ImageError: When a file is damaged.
    """
    from aslseg.project.case import CaseFiles, name_key
    from aslseg.project.pairing import FoundCases
    from aslseg.project.plan import with_found

    for place in places:
        _require_own_folder(place)
    project_cases = () if plan.project is None else plan.project.cases
    taken = {name_key(case.id) for case in plan.cases}
    taken |= {name_key(case.id) for case in project_cases}
    known = {case.image.resolve() for case in plan.cases}
    new = [place for place in places if place.folders[0].resolve() not in known]
    names = _names([place.modality for place in new], taken)
    cases = (CaseFiles(name, place.folders[0]) for name, place in zip(names, new, strict=True))
    return with_found(plan, FoundCases(tuple(cases)))


def _names(modalities: Sequence[str], taken: set[str]) -> Iterator[str]:
    """Yield a name for each modality that no case has."""
    for modality in modalities:
        plain = "".join(letter for letter in modality.lower() if letter.isalnum()) or "series"
        free = (name for n in count(1) if (name := f"{plain}-{n}") not in taken)
        taken.add(name := next(free))
        yield name


def _require_own_folder(place: SeriesPlace) -> None:
    from aslseg.data.dicom import series_of

    if len(place.folders) > 1:
        where = " and ".join(map(str, place.folders[:2]))
        msg = f"The slices of one {place.modality} series lie in several folders ({where}): "
        raise SceneError(msg + f"{LOAD_IT}.")
    folder = place.folders[0]
    read = series_of(folder)[0]
    if read.uid != place.uid:
        msg = (
            f"{folder} holds several series, and its {read} would be read in place of the "
            f"{place.modality} series that was chosen: {LOAD_IT}."
        )
        raise SceneError(msg)


def _require_open(database: Any) -> None:
    if database is None or not database.isOpen:
        msg = (
            "Slicer's DICOM database is not open; open the DICOM module once, and choose it there."
        )
        raise SceneError(msg)
