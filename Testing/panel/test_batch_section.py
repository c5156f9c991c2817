"""Labels are taken home, and folders of new volumes segmented, by the panel's own buttons."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import wait_for_files

from aslseg.data.images import read_labelmap, read_volume, write_labelmap
from aslseg.data.volume import Labelmap
from standin.harness import choose, click, run_event_loop, wait_until


@pytest.fixture
def widget(open_module: Callable[..., Any], trained: Path) -> Any:
    """The panel with a project open and the Results section unfolded."""
    widget = open_module()
    ui, logic = widget.panel.ui, widget.logic
    ui.casesSection.collapsed = ui.resultsSection.collapsed = False
    ui.projectFolderEdit.currentPath = str(trained)
    click(ui.openProjectButton)
    wait_for_files(logic)
    assert logic.project is not None
    return widget


def done(widget: Any) -> None:
    wait_until(lambda: not widget.logic.batch.is_busy, 120.0, "the export is done")
    run_event_loop(0.1)


def yes() -> Any:
    import qt

    return qt.QMessageBox.Yes


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_cases_are_exported_and_nothing_is_replaced_unasked(
    widget: Any, tmp_path: Path, dialogs: Any
) -> None:
    import qt

    ui, out = widget.panel.ui, tmp_path / "out"
    assert ui.exportCasesButton.toolTip == "Choose the folder to export to."
    ui.exportFolderEdit.currentPath = str(out)
    choose(ui.exportLabelsSelector, "All, with AI labels")
    click(ui.exportCasesButton)
    assert ui.batchStopButton.visible
    done(widget)
    ids = {case.id for case in widget.logic.project.cases}
    assert set(rows(out / "cases.csv")) == ids
    assert ui.batchLabel.text.startswith(f"{len(list(out.glob('*.nii.gz')))} labels exported (")
    assert ui.batchBar.isHidden()
    first = ui.exportCasesTable.item(0, 0).text()
    (out / f"{first}.nii.gz").write_text("mine")
    ui.exportCasesTable.selectRow(0)
    dialogs.answer("ASLseg", qt.QMessageBox.No)
    click(ui.exportCasesButton)
    done(widget)
    assert (out / f"{first}.nii.gz").read_text() == "mine"
    dialogs.answer("ASLseg", yes())
    click(ui.exportCasesButton)
    done(widget)
    assert ui.batchLabel.text.startswith("1 labels exported (")
    assert (out / f"{first}.nii.gz").read_bytes() != b"mine"


def test_cases_that_are_chosen_to_be_exported_stay_so_when_the_list_changes(
    panel: Any, project: Path
) -> None:
    logic, table = panel.logic, panel.ui.exportCasesTable
    logic.open_project(project)
    names = [case.id for case in logic.project.cases]

    def chosen() -> list[str]:
        run_event_loop(0.1)
        return sorted(item.text() for item in table.selectedItems())

    for row in (1, 2):
        table.item(row, 0).setSelected(True)
    assert chosen() == names[1:]
    logic.rename_case(names[2], "last")
    assert chosen() == sorted([names[1], "last"])
    logic.remove_cases(names[0])
    assert chosen() == sorted([names[1], "last"])
    logic.remove_cases("last")
    assert chosen() == [names[1]]


def test_leave_to_replace_is_for_the_folder_and_the_project_that_were_asked_about(
    widget: Any, project: Path, tmp_path: Path, dialogs: Any
) -> None:
    import qt

    ui, logic = widget.panel.ui, widget.logic
    first, other = tmp_path / "first", tmp_path / "other"
    for folder in (first, other):
        folder.mkdir()
        (folder / "cases.csv").write_text("mine")
    ui.exportFolderEdit.currentPath = str(first)
    dialogs.answer("Replace what is there?", yes())
    click(ui.exportCasesButton)
    ui.exportFolderEdit.currentPath = str(other)  # while the engine starts
    choose(ui.exportFormatSelector, "nnU-Net")
    choose(ui.exportLabelsSelector, "All, with AI labels")
    done(widget)
    assert (other / "cases.csv").read_text() == "mine"
    assert set(rows(first / "cases.csv")) == {case.id for case in logic.project.cases}
    assert not (first / "dataset.json").exists()
    assert {row["made_by"] for row in rows(first / "cases.csv").values()} <= {"given", ""}

    def open_other(_dialog: Any) -> Any:
        logic.open_project(project)
        return qt.QMessageBox.Yes

    dialogs.answer("Replace what is there?", open_other)
    choose(ui.exportFormatSelector, "NIfTI")
    click(ui.exportCasesButton)
    done(widget)
    assert (other / "cases.csv").read_text() == "mine"
    dialogs.take("Another project was opened meanwhile; nothing is replaced. Start again.")


def test_leave_to_replace_label_maps_is_for_the_folders_that_were_asked_about(
    widget: Any, trained: Path, tmp_path: Path, dialogs: Any
) -> None:
    ui = widget.panel.ui
    images = sorted((trained.parent / "data").glob("ct*.nii.gz"))[:2]
    folders = [tmp_path / name for name in ("new", "later", "labels", "others")]
    new, later, labels, others = folders
    for folder in folders:
        folder.mkdir()
    shutil.copy(images[0], new / "patient.nii.gz")
    shutil.copy(images[1], later / "patient.nii.gz")
    for folder in (labels, others):
        (folder / "patient.nii.gz").write_text("mine")
    ui.newVolumesEdit.currentPath, ui.newLabelsEdit.currentPath = str(new), str(labels)
    dialogs.answer("Replace what is there?", yes())
    click(ui.segmentFolderButton)
    ui.newVolumesEdit.currentPath, ui.newLabelsEdit.currentPath = str(later), str(others)
    done(widget)
    assert ui.batchLabel.text.startswith("1 volumes segmented")
    assert (others / "patient.nii.gz").read_text() == "mine"
    read_labelmap(labels / "patient.nii.gz")


def test_a_folder_is_segmented_with_the_chosen_run(
    widget: Any, trained: Path, tmp_path: Path
) -> None:
    ui, new = widget.panel.ui, tmp_path / "new"
    new.mkdir()
    image = sorted((trained.parent / "data").glob("ct*.nii.gz"))[0]
    shutil.copy(image, new / "patient.nii.gz")
    (new / "broken.nii.gz").write_bytes(b"no image")
    ui.newVolumesEdit.currentPath = str(new)
    assert ui.segmentFolderButton.toolTip == "Choose the folder for label maps."
    ui.newLabelsEdit.currentPath = str(tmp_path / "labels")
    click(ui.segmentFolderButton)
    done(widget)
    first, reason = ui.batchLabel.text.splitlines()
    assert first == "1 volumes segmented, 0 were done already."
    assert reason.startswith("Not segmented: broken: ")
    assert rows(tmp_path / "labels" / "cases.csv")["patient"]["state"] == "segmented"
    assert {case.id for case in widget.logic.project.cases}.isdisjoint({"patient", "broken"})
    click(ui.segmentFolderButton)
    done(widget)
    assert ui.batchLabel.text.startswith("0 volumes segmented, 1 were done already.")

    volume = read_volume(image)
    liver = np.zeros(volume.geometry.shape, np.uint8)
    liver[2:5, 3:20, 4:22] = 1
    write_labelmap(Labelmap(liver, volume.geometry), tmp_path / "masks" / "patient.nii.gz")
    ui.newOrgansEdit.currentPath = str(tmp_path / "masks")
    click(ui.segmentFolderButton)
    done(widget)
    assert ui.batchLabel.text.startswith("1 volumes segmented, 0 were done already.")
    found = read_labelmap(tmp_path / "labels" / "patient.nii.gz").labels
    np.testing.assert_array_equal(found > 0, liver > 0)
