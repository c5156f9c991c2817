"""Cases of an open project: listed with their patients, renamed, removed; targets recoloured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import wait_for_files
from test_new_project import Person, write_image, write_label

from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import AslsegError
from aslseg.project.relocate import relocate_images
from standin.harness import click


@pytest.fixture
def person(open_module: Callable[..., Any], tmp_path: Path) -> Person:
    """A person with an open project of three cases."""
    from aslseg.project.plan import plan_project, write_plan

    for name in "abc":
        write_image(tmp_path / "ct" / f"{name}.nii.gz")
    write_label(tmp_path / "labels" / "a.nii.gz", 1, 2)
    write_plan(plan_project(tmp_path / "project", tmp_path / "ct", tmp_path / "labels"))
    person = Person(open_module().panel)
    person.logic.open_project(tmp_path / "project")
    slicer.app.processEvents()
    return person


def choose_case(person: Person, case_id: str) -> None:
    table = person.panel.ui.casesTable
    rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == case_id]
    table.selectRow(rows[0])
    slicer.app.processEvents()


def column(person: Person, title: str) -> list[str]:
    table = person.panel.ui.casesTable
    titles = [table.horizontalHeaderItem(n).text() for n in range(table.columnCount)]
    return [table.item(row, titles.index(title)).text() for row in range(table.rowCount)]


def test_the_table_says_whose_volumes_cases_are(person: Person, dialogs: Any) -> None:
    assert column(person, "Patient") == ["a", "b", "c"]
    choose_case(person, "c")
    dialogs.answer("Whose volume c is", "b")
    click(person.panel.ui.patientButton)
    assert column(person, "Patient") == ["a", "b", "b"]


def test_a_case_is_renamed_and_its_volume_in_the_scene_is_still_it(
    person: Person, dialogs: Any
) -> None:
    volume = person.logic.load_case("a")
    choose_case(person, "a")
    dialogs.answer("New name of a", "first")
    click(person.panel.ui.renameCaseButton)
    assert column(person, "Case") == ["first", "b", "c"]
    assert person.logic.case_node("first") is volume


def test_only_the_name_of_a_case_changes_when_it_is_renamed(person: Person) -> None:
    from ASLsegLib.scene.case_nodes import is_intact, shown_label

    logic = person.logic
    volume = logic.load_case("a")
    label, node = shown_label(volume), logic.refined_node("a")
    logic.rename_case("a", "first")
    assert label
    assert shown_label(volume) == label
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume) + 1)
    logic.rename_case("first", "last")
    assert logic.case_node("last") is volume
    assert not is_intact(volume)
    with pytest.raises(AslsegError, match="are not those of case last any more"):
        logic.save_label(node)


def test_a_name_that_is_taken_is_told(person: Person, dialogs: Any) -> None:
    choose_case(person, "a")
    dialogs.answer("New name of a", "b")
    click(person.panel.ui.renameCaseButton)
    slicer.app.processEvents()
    dialogs.take("has a case 'b' already")
    assert column(person, "Case") == ["a", "b", "c"]


def test_a_case_is_removed_only_after_a_yes(person: Person, dialogs: Any) -> None:
    import qt

    volume = person.logic.load_case("a")
    for answer, left in ((qt.QMessageBox.No, ["a", "b", "c"]), (qt.QMessageBox.Yes, ["b", "c"])):
        choose_case(person, "a")
        dialogs.answer("Take a out of the project", answer)
        click(person.panel.ui.removeCaseButton)
        assert column(person, "Case") == left
    kept = person.logic.project.folder / "labels" / "history"
    assert len(list(kept.glob("a-*.nii.gz"))) == 1
    assert volume.GetAttribute("ASLseg.Case") is None


def test_slices_of_a_case_that_is_gone_or_renamed_hold_no_undo_up(person: Person) -> None:
    from aslseg.project.edit import remove_cases

    logic = person.logic
    logic.mark_slice_complete("a", 1)
    logic.rename_case("a", "first")
    assert logic.to_undo == ""
    logic.mark_slice_complete("first", 2)
    remove_cases(logic.project, ("first",))  # by another program
    with pytest.raises(AslsegError, match="complete was changed elsewhere; look again"):
        logic.undo()
    assert logic.to_undo == ""


def test_a_moved_image_is_told_with_the_command_that_says_where_it_is(
    person: Person, tmp_path: Path, dialogs: Any
) -> None:
    (tmp_path / "ct").rename(tmp_path / "moved")
    choose_case(person, "b")
    click(person.panel.ui.loadCaseButton)
    wait_for_files(person.logic)
    dialogs.take(f"aslseg relocate {tmp_path / 'project'} {tmp_path / 'ct'} NEW_FOLDER")
    relocate_images(person.logic.project, tmp_path / "ct", tmp_path / "moved")
    click(person.panel.ui.loadCaseButton)
    wait_for_files(person.logic)
    assert person.logic.case_node("b") is not None


def test_an_acceptance_that_is_redone_is_that_of_the_round_that_was_accepted(
    person: Person,
) -> None:
    from aslseg.config import RunConfig
    from aslseg.project.review import decisions
    from aslseg.project.run_folder import create_run
    from aslseg.project.run_tables import REFINED

    logic = person.logic
    case = logic.project.case("b")
    geometry = logic.project.geometry(case)
    run = create_run(logic.project.folder, RunConfig(), "one")
    for number in (1, 2):
        labels = np.zeros(geometry.shape, np.uint8)
        labels[number] = 1
        write_labelmap(Labelmap(labels, geometry), run.predictions(number, "b") / REFINED)
    run.write_status(best_round=1, state="done")
    logic.open_project(logic.project.folder)
    logic.accept("b")
    logic.undo_decision()
    run.write_status(best_round=2)
    logic.history.redo()
    label = logic.project.load_labels(logic.project.case("b")).labels
    assert (label[1].all(), label[2].any()) == (True, False)
    assert decisions(logic.project)[-1].round == 1


def test_targets_get_other_colours_also_where_they_are_shown(person: Person, dialogs: Any) -> None:
    person.logic.load_case("a")
    click(person.panel.ui.addCasesButton)
    person.choose_row(person.ui.targetsTable, 0)
    assert not person.ui.removeTargetButton.enabled
    dialogs.answer("colour", "#0000ff")
    click(person.ui.colorButton)
    click(person.ui.createButton)
    wait_for_files(person.logic)
    assert person.logic.project.targets[0].color == "#0000ff"
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    segments = [node.GetSegmentation() for node in nodes]
    shown = [one.GetSegment(one.GetSegmentIdBySegmentName("liver")) for one in segments]
    assert [segment.GetColor() for segment in shown if segment] == [(0.0, 0.0, 1.0)]


def test_what_is_labelled_in_a_case_is_said_and_the_rest_is_unknown(
    person: Person, dialogs: Any
) -> None:
    ui, logic = person.panel.ui, person.logic
    ui.casesSection.collapsed = False
    choose_case(person, "b")
    assert ui.labelTargetsButton.toolTip == "The case has no label yet."
    choose_case(person, "a")
    dialogs.answer("What is labelled in a (liver, tumour)", "liver, spleen")
    click(ui.labelTargetsButton)
    slicer.app.processEvents()
    dialogs.take("spleen")
    assert logic.project.case("a").label_targets == ()
    labels = logic.project.load_labels(logic.project.case("a"))
    liver = np.where(labels.labels == 1, labels.labels, 0).astype(labels.labels.dtype)
    logic.updated(logic.project.save_label("a", replace(labels, labels=liver)))
    dialogs.answer("What is labelled in a (liver, tumour)", " liver,")
    click(ui.labelTargetsButton)
    assert logic.project.case("a").label_targets == ("liver",)
    dialogs.answer("What is labelled in a (liver, tumour)", " , ")  # as empty: nothing is changed
    click(ui.labelTargetsButton)
    assert logic.project.case("a").label_targets == ("liver",)
    dialogs.answer("What is labelled in a (liver, tumour)", "tumour, liver")
    click(ui.labelTargetsButton)
    assert logic.project.case("a").label_targets == ()  # all


def test_a_case_that_another_program_removed_is_listed_no_more_and_named(
    person: Person, dialogs: Any
) -> None:
    from aslseg.project.edit import remove_cases

    volume, ui = person.logic.load_case("b"), person.panel.ui
    choose_case(person, "a")
    remove_cases(person.logic.project, ["b"])
    choose_case(person, "c")
    assert column(person, "Case") == ["a", "c"]
    dialogs.take("Case b was removed or renamed by another program: it is listed no more")
    choose_case(person, "c")
    assert ui.loadCaseButton.enabled
    assert volume.GetAttribute("ASLseg.Case") is None
    slicer.util.selectModule("Data")
    remove_cases(person.logic.project, ["c"])
    slicer.util.selectModule("ASLseg")
    slicer.app.processEvents()
    assert column(person, "Case") == ["a"]
    dialogs.take("Case c was removed or renamed")


def test_what_the_panel_itself_has_changed_is_no_change_of_others(person: Person) -> None:
    told: list[Any] = []
    choose_case(person, "a")
    person.logic.set_patient("c", "b")
    person.logic.project_changed.connect(lambda: told.append(person.logic.project))
    choose_case(person, "b")
    choose_case(person, "c")
    assert told == []
