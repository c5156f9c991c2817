"""Series of Slicer's DICOM database become cases in the dialog of a new project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import slicer
from harness import wait_for_files

from aslseg.errors import AslsegError
from standin.harness import click
from support.dicom_slices import write_slice

ROOT_UID = "1.2.826.0.1.3680043.2.1125"
ANNA, BERT = "ANNA0815", "BERT4711"


def write_series(folder: Path, number: int, patient_id: str, *, modality: str = "CT") -> str:
    """Write a series of three slices, and return its UID."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = f"{ROOT_UID}.{number}"
    for k in range(3):
        image = sitk.GetImageFromArray(np.full((4, 6), 10 * number + k, np.int16))
        tags = {
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0020": "20260102",
            "0008|0060": modality,
            "0008|103e": f"phase {number}",
            "0010|0010": f"Name^{patient_id}",
            "0010|0020": patient_id,
            "0020|000d": f"{ROOT_UID}.9{patient_id[4:]}",
            "0020|000e": uid,
            "0020|0011": str(number),
            "0020|0013": str(k),
            "0020|0032": f"0\\0\\{5 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        write_slice(folder / f"{number}-{k}.dcm", image, tags)
    return uid


class Chooser:
    """Who lists series in the dialog, and chooses some."""

    def __init__(self, widget: Any, tmp_path: Path) -> None:
        self.panel, self.logic = widget.panel, widget.logic
        name = "NewProjectDialog"
        self.section = next(s for s in self.panel.sections if type(s).__name__ == name)
        click(self.panel.ui.newProjectButton)
        self.ui = self.section.ui
        self.ui.folderEdit.currentPath = str(tmp_path / "project")

    def rest(self) -> None:
        wait_for_files(self.logic)

    def listed(self) -> list[list[str]]:
        table = self.ui.dicomTable
        return [
            [table.item(row, n).text() for n in range(4)]
            for row in range(table.rowCount)
            if not table.isRowHidden(row)
        ]

    def choose(self, *rows: int) -> None:
        table = self.ui.dicomTable
        table.clearSelection()
        for row in rows:
            for column in range(4):
                table.item(row, column).setSelected(True)
        slicer.app.processEvents()

    def add(self, *rows: int) -> None:
        self.choose(*rows)
        click(self.ui.dicomAddButton)
        self.rest()


@pytest.fixture
def database(application: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty database in place of the application's."""
    made = type(application.dicomDatabase())()
    monkeypatch.setattr(application, "_dicom", made)
    return made


@pytest.fixture
def chooser(open_module: Callable[..., Any], database: Any, tmp_path: Path) -> Chooser:
    """The dialog, and a database of four series of two patients and a segmentation."""
    for number, patient_id in enumerate((ANNA, ANNA, BERT), start=1):
        write_series(tmp_path / "dicom" / str(number), number, patient_id)
    write_series(tmp_path / "dicom" / "1", 4, ANNA, modality="MR")  # beside the CT
    write_series(tmp_path / "dicom" / "5", 5, BERT, modality="SEG")
    database.standin_import(tmp_path / "dicom")
    return Chooser(open_module(), tmp_path)


def test_chosen_series_become_cases_and_one_patient_id_one_patient(
    chooser: Chooser, tmp_path: Path
) -> None:
    ui = chooser.ui
    assert ui.dicomBox.isHidden()
    click(ui.dicomButton)
    assert chooser.listed() == [
        [f"Name^{who}", "20260102", f"{n}: phase {n}", kind]
        for n, who, kind in ((1, ANNA, "CT"), (2, ANNA, "CT"), (4, ANNA, "MR"), (3, BERT, "CT"))
    ]
    assert not ui.dicomAddButton.enabled
    ui.dicomFilterEdit.text = "bert PHASE"
    assert [row[2] for row in chooser.listed()] == ["3: phase 3"]
    chooser.choose(0, 3)
    assert chooser.section._dicom.chosen == [f"{ROOT_UID}.3"]  # what is hidden is not chosen
    ui.dicomFilterEdit.text = ""
    chooser.add(0, 1, 3)
    chooser.add(1)  # it is there already
    plan = chooser.section.plan
    assert [(case.id, case.image.name) for case in plan.cases] == [
        ("ct-1", "1"), ("ct-2", "2"), ("ct-3", "3"),
    ]  # fmt: skip
    assert [ui.casesTable.item(n, 5).text() for n in range(3)] == ["ct-1", "ct-1", "ct-3"]
    click(ui.createButton)
    chooser.rest()
    project = chooser.logic.project
    first, second, third = (case.patient for case in project.cases)
    assert (first == second, first == third, first.startswith("dicom-")) == (True, False, True)
    written = b"".join(p.read_bytes() for p in project.folder.rglob("*") if p.is_file())
    assert ANNA.encode() not in written
    assert project.load_image(project.cases[2]).voxels[:, 0, 0].tolist() == [30, 31, 32]


def test_a_series_that_would_be_read_as_another_one_is_refused_with_a_remedy(
    chooser: Chooser, tmp_path: Path
) -> None:
    click(chooser.ui.dicomButton)
    chooser.add(2)
    said = chooser.ui.sourceProblemLabel.text
    assert "its CT series with 3 slices would be read in place of the MR series" in said
    assert "load it with the DICOM module" in said
    for path in (tmp_path / "dicom" / "2").glob("*-2.dcm"):
        path.unlink()
    chooser.add(1)
    assert "2-2.dcm is not there any more; import it again" in chooser.ui.sourceProblemLabel.text
    assert chooser.section.plan.cases == ()


def test_an_empty_or_closed_database_says_what_to_do(
    open_module: Callable[..., Any], database: Any, tmp_path: Path
) -> None:
    chooser = Chooser(open_module(), tmp_path)
    click(chooser.ui.dicomButton)
    assert "holds no images; import some" in chooser.ui.sourceProblemLabel.text
    click(chooser.ui.dicomButton)
    assert chooser.ui.dicomBox.isHidden()
    database.isOpen = False
    click(chooser.ui.dicomButton)
    assert "DICOM database is not open" in chooser.ui.sourceProblemLabel.text
    click(chooser.ui.dicomImportButton)
    assert slicer.util.selectedModule() == "DICOM"


def test_scripts_plan_projects_of_series(chooser: Chooser, tmp_path: Path) -> None:
    logic = chooser.logic
    uids = [one.uid for one in logic.dicom_series() if one.modality == "CT"]
    plan = logic.plan_dicom(tmp_path / "other", uids[:2])
    assert [case.id for case in plan.cases] == ["ct-1", "ct-2"]
    write_series(tmp_path / "dicom" / "6", 3, BERT)
    slicer.app.dicomDatabase().standin_import(tmp_path / "dicom" / "6")
    with pytest.raises(AslsegError, match="several folders"):
        logic.plan_dicom(tmp_path / "other", uids[2:])
