"""Slicer's DICOM database, in memory: what is asked of it when series are listed and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6 import QtCore

from .pythonqt.base import Property, mark_offered
from .pythonqt.present import present

_Object = present(QtCore.QObject)
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")


class ctkDICOMDatabase(_Object):  # type: ignore[misc,valid-type]
    """Patients have numbers as texts, studies and series their UIDs; lists come as tuples."""

    isOpen = Property(True)

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[str, list[tuple[str, Any]]] = {}

    def standin_import(self, folder: Path) -> None:
        """Take the DICOM files of a folder in, where they are (not part of Slicer's database)."""
        import pydicom

        for path in sorted(folder.rglob("*")):
            if path.is_file():
                header = pydicom.dcmread(path, stop_before_pixels=True)
                self._files.setdefault(str(header.SeriesInstanceUID), []).append(
                    (str(path), header)
                )

    def patients(self) -> tuple[str, ...]:
        return tuple(str(n + 1) for n in range(len(self._people())))

    def studiesForPatient(self, patientUID: str) -> tuple[str, ...]:
        person = self._people()[int(patientUID) - 1]
        headers = (one for one in self._headers() if _person(one) == person)
        return tuple(dict.fromkeys(_text(one, "StudyInstanceUID") for one in headers))

    def seriesForStudy(self, studyUID: str) -> tuple[str, ...]:
        headers = [one for one in self._headers() if _text(one, "StudyInstanceUID") == studyUID]
        headers.sort(key=lambda one: int(_text(one, "SeriesNumber") or 0))
        return tuple(_text(one, "SeriesInstanceUID") for one in headers)

    def filesForSeries(self, seriesUID: str, hits: int = -1) -> tuple[str, ...]:
        paths = [path for path, _ in self._files.get(seriesUID, [])]
        return tuple(paths if hits < 0 else paths[:hits])

    def nameForPatient(self, patientUID: str) -> str:
        return self._people()[int(patientUID) - 1][1]

    def descriptionForStudy(self, studyUID: str) -> str:
        return self.fieldForStudy("StudyDescription", studyUID)

    def descriptionForSeries(self, seriesUID: str) -> str:
        return self.fieldForSeries("SeriesDescription", seriesUID)

    def fieldForStudy(self, field: str, studyInstanceUID: str) -> str:
        headers = self._headers()
        found = (h for h in headers if _text(h, "StudyInstanceUID") == studyInstanceUID)
        return _text(next(found, None), field)

    def fieldForSeries(self, field: str, seriesInstanceUID: str) -> str:
        files = self._files.get(seriesInstanceUID)
        return _text(files[0][1], field) if files else ""

    def _headers(self) -> list[Any]:
        return [files[0][1] for files in self._files.values()]

    def _people(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(_person(header) for header in self._headers()))


mark_offered(ctkDICOMDatabase)


def _person(header: Any) -> tuple[str, ...]:
    return tuple(_text(header, name) for name in _PATIENT)


def _text(header: Any, name: str) -> str:
    return str(getattr(header, name, "") or "")
