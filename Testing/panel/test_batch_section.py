"""Labels are taken home, and folders of new volumes segmented, by the panel's own buttons."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import read_mask, wait_for_files, write_mask
from test_saving import draw

from aslseg.data.images import read_labelmap, read_volume, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import AslsegError
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


def test_all_cases_are_not_exported_where_the_chosen_ones_are_gone(
    panel: Any, project: Path, tmp_path: Path
) -> None:
    logic, ui = panel.logic, panel.ui
    logic.open_project(project)
    names = [case.id for case in logic.project.cases]
    ui.exportFolderEdit.currentPath = str(tmp_path / "out")
    ui.exportCasesTable.item(2, 0).setSelected(True)
    logic.remove_cases(names[2])
    run_event_loop(0.1)
    assert not ui.exportCasesButton.enabled
    assert "choose others, or all" in ui.exportCasesButton.toolTip
    ui.exportCasesTable.selectAll()
    run_event_loop(0.1)
    assert ui.exportCasesButton.enabled


def test_cases_that_were_chosen_of_one_project_are_not_chosen_of_another(
    panel: Any, project: Path, tmp_path: Path
) -> None:
    table = panel.ui.exportCasesTable
    panel.logic.open_project(project)
    table.item(1, 0).setSelected(True)
    run_event_loop(0.1)
    assert table.selectedItems()
    shutil.copytree(project, tmp_path / "other")
    panel.logic.open_project(tmp_path / "other")
    run_event_loop(0.1)
    assert table.rowCount
    assert not table.selectedItems()


def test_cases_with_unsaved_drawing_are_named_before_they_are_exported_or_learnt(
    panel: Any, project: Path, tmp_path: Path, dialogs: Any
) -> None:
    import qt

    logic, ui, out = panel.logic, panel.ui, tmp_path / "out"
    logic.open_project(project)
    volume = logic.load_case("p0")
    node = logic.refined_node("p0")
    liver = node.GetSegmentation().GetSegmentIdBySegmentName("liver")
    mask = read_mask(node, liver, volume)
    mask[0, 5:20, 5:20] = True
    write_mask(node, liver, mask, volume)
    ui.trainSection.collapsed = ui.resultsSection.collapsed = False
    ui.exportFolderEdit.currentPath = str(out)
    run_event_loop(0.1)
    for button in (ui.startButton, ui.exportCasesButton):
        dialogs.answer("What you drew or prompted in p0 is not saved", qt.QMessageBox.No)
        click(button)
        assert not any(client.is_busy for client in (logic.trainer, logic.batch))
    assert not out.exists()
    for begin in (logic.train, logic.resume, logic.train_on, lambda: logic.export_project(out)):
        with pytest.raises(AslsegError, match=r"in p0 is not saved.*say that it may be missing"):
            begin()
    dialogs.answer("What you drew or prompted in p0 is not saved", yes())
    click(ui.exportCasesButton)
    wait_until(lambda: not logic.batch.is_busy, 120.0, "the export is done")
    assert not read_labelmap(out / "p0.nii.gz").labels[0].any()
    logic.save_label(node)
    logic.export_project(out)
    assert read_labelmap(out / "p0.nii.gz").labels[0].any()


def test_a_first_label_that_was_not_saved_is_named_too(
    panel: Any, project: Path, tmp_path: Path
) -> None:
    logic = panel.logic
    logic.open_project(project)
    case_id = logic.project.unlabelled[0].id
    volume = logic.load_case(case_id)
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    node = draw(volume, liver=mask, tumour=mask)
    logic.export_project(tmp_path / "empty")
    mask[2:4, 5:20, 5:20] = True
    write_mask(node, node.GetSegmentation().GetSegmentIdBySegmentName("liver"), mask, volume)
    others = [case.id for case in logic.project.cases if case.id != case_id]
    logic.export_project(tmp_path / "others", cases=others)
    with pytest.raises(AslsegError, match=f"in {case_id} is not saved"):
        logic.export_project(tmp_path / "all")
    logic.save_label(node)
    logic.export_project(tmp_path / "all")
    assert (tmp_path / "all" / f"{case_id}.nii.gz").exists()


def test_folders_that_do_not_say_where_they_begin_are_refused(widget: Any, tmp_path: Path) -> None:
    ui = widget.panel.ui
    edits = [ui.exportFolderEdit, ui.newVolumesEdit, ui.newLabelsEdit, ui.newOrgansEdit]
    buttons = [ui.exportCasesButton, *[ui.segmentFolderButton] * 3]
    for edit in edits:
        edit.currentPath = str(tmp_path)
    for edit, button in zip(edits, buttons, strict=True):
        run_event_loop(0.1)
        assert button.enabled
        for typed in ("out", "./out", "../out"):
            edit.currentPath = typed
            run_event_loop(0.1)
            assert not button.enabled
            assert f"'{typed}' does not say where it begins" in button.toolTip
        edit.currentPath = "~/out"


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
