"""What is decided is what is shown: buttons, tables and questions of the panel."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer
from harness import show_slice_of, wait_for_files

from aslseg.storage import append_lines
from standin.harness import choose, choose_node, click, run_event_loop

TINY = (4, 10, 12)


class Person:
    """A person in front of the panel with a project open."""

    def __init__(self, widget: Any, folder: Path) -> None:
        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        for name in ("cases", "review", "results"):
            getattr(self.ui, f"{name}Section").collapsed = False
        self.ui.projectFolderEdit.currentPath = str(folder)
        click(self.ui.openProjectButton)
        self.rest()

    def rest(self) -> None:
        wait_for_files(self.logic)

    def press(self, button: Any) -> None:
        click(button)
        self.rest()

    def names(self, table: str = "reviewTable") -> list[str]:
        rows = getattr(self.ui, table)
        return [rows.item(row, 0).text() for row in range(rows.rowCount)]

    def choose(self, case_id: str, table: str = "reviewTable") -> None:
        getattr(self.ui, table).selectRow(self.names(table).index(case_id))
        run_event_loop(0.05)

    def chosen(self, table: str = "reviewTable") -> str:
        rows = getattr(self.ui, table)
        return rows.item(rows.currentRow(), 0).text() if rows.currentRow() >= 0 else ""

    def load(self, case_id: str) -> Any:
        self.choose(case_id, "casesTable")
        self.press(self.ui.loadCaseButton)
        return self.logic.case_node(case_id)

    def saved(self, case_id: str) -> Any:
        return self.logic.project.load_labels(self.logic.project.case(case_id)).labels


@pytest.fixture
def person(open_module: Callable[..., Any], trained: Path) -> Person:
    return Person(open_module(), trained)


def yes() -> Any:
    import qt

    return qt.QMessageBox.Yes


def no() -> Any:
    import qt

    return qt.QMessageBox.No


def draw(volume: Any, name: str, mask: Any) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = node.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, volume)
    return node


def box_in(volume: Any) -> Any:
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    mask[2:5, 5:15, 5:15] = True
    return mask


# Review.


def test_a_decision_is_about_the_case_that_is_shown(person: Person) -> None:
    ui = person.ui
    assert not ui.rejectButton.enabled
    person.press(ui.nextButton)
    first, second = person.names()[:2]
    assert person.chosen() == first
    assert ui.caseGroup.title == f"Whole case: {first}"
    person.choose(second)
    for button in (ui.acceptButton, ui.rejectButton, ui.correctButton):
        assert not button.enabled
        assert button.toolTip == f"Load {second} first: double-click its row."


def test_after_a_decision_the_case_that_is_shown_stays_chosen(person: Person) -> None:
    ui, logic = person.ui, person.logic
    person.press(ui.nextButton)
    first, second = person.names()[:2]
    person.press(ui.acceptButton)
    assert person.names()[0] == second  # the decided one goes to the end
    assert person.chosen() == first
    assert not ui.rejectButton.enabled
    assert "has a label" in ui.rejectButton.toolTip
    assert person.panel.volume is logic.case_node(first)
    person.press(ui.nextButton)
    assert person.chosen() == second
    assert person.panel.volume is logic.case_node(second)
    person.press(ui.rejectButton)
    assert logic.project.case(second).status == "rejected"
    assert logic.project.case(first).status == "accepted"


def write_candidates_of(person: Person, expected_ml: dict[str, float]) -> None:
    """Let a run have judged one candidate in each case, which is surely a lesion."""
    from aslseg.project import candidate_table as tables

    run = person.logic.state.run
    for case_id, volume_ml in expected_ml.items():
        folder = run.predictions(run.best_round, case_id)
        project = person.logic.project
        geometry = project.geometry(project.case(case_id))
        numbers = tables.read_candidate_map(folder, geometry)
        nowhere = (0.0, 0.0, 0.0)
        row = tables.CandidateRow(
            case_id, "tumour", 1, nowhere, nowhere, volume_ml, 1.0, 0.5, accepted=True
        )
        tables.write_candidates(folder, [row], numbers, ())
    person.press(person.ui.openProjectButton)


def test_the_time_that_is_left_is_told_at_the_pace_of_the_person(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.project import review, review_pace

    large, small = person.names()
    write_candidates_of(person, {small: 0.0, large: 2 * review_pace.CASE_ML})
    assert person.names() == [small, large]
    person.logic.reject(small)
    assert "your pace" not in person.ui.reviewLabel.text
    monkeypatch.setattr(review_pace, "CASES_OF_A_PACE", 1)
    path = person.logic.project.folder / review.REVIEWS
    rejected = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    drawn = {"number": 1, "what": "labelled", "case_id": person.logic.project.labelled[0].id}
    path.unlink()
    append_lines(path, {**drawn, "time": "2026-11-20T09:00:00+00:00"})
    append_lines(path, {**rejected, "number": 2, "time": "2026-11-20T09:04:00+00:00"})
    person.press(person.ui.openProjectButton)
    pace = "about 12 min at your pace"  # for it is three times a case without lesions
    assert person.ui.reviewLabel.text.endswith(f"cases have no decision yet: {pace}.")
    assert pace in person.ui.nextStepLabel.text


def test_the_case_with_the_least_lesion_volume_comes_first_or_the_most_doubtful(
    person: Person,
) -> None:
    names = person.names()
    assert len(names) > 1
    write_candidates_of(person, {name: 2.5 * (n + 1) for n, name in enumerate(reversed(names))})
    assert person.names() == names[::-1]
    table = person.ui.reviewTable
    shown = [table.item(row, 1).text() for row in range(table.rowCount)]
    assert shown == [f"{2.5 * (n + 1):.1f}" for n in range(len(names))]
    click(person.ui.doubtfulFirstBox)
    person.rest()
    doubt = {one.case_id: (one.state == "pseudo", one.score) for one in person.logic.case_reports()}
    assert person.names() == sorted(names, key=doubt.__getitem__)
    turns = {row.report.case_id: row.turn for row in person.logic.case_overviews(wait=False)}
    assert [turns[name] for name in person.names()] == [n + 1 for n in range(len(names))]
    with pytest.raises(ValueError, match="least, doubtful, not random"):
        person.logic.order_review("random")


def test_cases_unlike_the_labelled_ones_are_named_and_come_first_of_equal_rank(
    person: Person,
) -> None:
    from aslseg.project.run_tables import RELIABILITY_COLUMNS, read_table, write_table
    from aslseg.run_names import RELIABILITY

    assert "Unlike" not in person.ui.reviewLabel.text
    write_candidates_of(person, dict.fromkeys(person.names(), 2.0))
    last = person.names()[-1]
    run = person.logic.state.run
    path = run.round(run.best_round) / RELIABILITY
    rows = read_table(path)
    for row in rows:
        row["notes"] = "its liver is darker" if row["case"] == last else ""
    write_table(path, RELIABILITY_COLUMNS, rows)
    person.press(person.ui.openProjectButton)
    unlike = f"Unlike the labelled cases, so more likely wrong: {last}."
    assert person.ui.reviewLabel.text.splitlines()[1] == unlike
    assert person.names()[0] == last
    person.press(person.ui.nextButton)
    assert person.panel.volume is person.logic.case_node(last)
    person.press(person.ui.rejectButton)
    assert "Unlike" not in person.ui.reviewLabel.text


def test_what_a_run_found_in_another_image_is_neither_listed_nor_shown(person: Person) -> None:
    from ASLsegLib.scene.segmentations import find_prediction

    first, second = person.names()[:2]
    run = person.logic.state.run
    run.write_status(images={**run.images, first: "0" * 64})
    person.press(person.ui.openProjectButton)
    assert first not in person.names()
    assert find_prediction(person.load(first), "refined") is None
    assert f"{first}, which is shown, is not in this list" in person.ui.acceptButton.toolTip
    assert find_prediction(person.load(second), "refined") is not None


def test_a_case_that_was_loaded_elsewhere_is_the_one_that_is_decided_about(person: Person) -> None:
    first, second = person.names()[:2]
    assert person.ui.acceptButton.toolTip.startswith("Choose a case, or press Next.")
    person.load(first)
    assert person.chosen() == first
    assert person.ui.acceptButton.enabled
    person.choose(second)
    assert not person.ui.acceptButton.enabled
    person.ui.reviewTable.setCurrentCell(-1, -1)
    person.panel.update()
    assert person.ui.acceptButton.toolTip.startswith(f"Choose the row of {first}, which is shown")


def test_next_goes_on_from_the_case_that_is_shown_wherever_it_was_opened(person: Person) -> None:
    first, second = person.names()[:2]
    person.press(person.ui.nextButton)
    assert person.chosen() == first
    person.load(second)
    person.press(person.ui.previousButton)
    assert person.logic.case_node(first) is person.panel.volume
    person.load(first)
    person.choose(first)
    person.press(person.ui.nextButton)
    assert person.logic.case_node(second) is person.panel.volume


def test_next_does_not_begin_anew_after_a_case_of_the_dashboard(person: Person) -> None:
    first, second = person.names()[:2]
    person.panel.case_chosen.emit(first)
    person.rest()
    person.press(person.ui.nextButton)
    assert person.panel.volume is person.logic.case_node(second)


def test_next_says_where_no_case_without_a_decision_follows(person: Person) -> None:
    ui = person.ui
    first, second = person.names()
    person.load(second)
    person.press(ui.nextButton)
    assert person.panel.volume is person.logic.case_node(second)
    assert f"No case after {second} waits for a decision." in ui.reviewLabel.text
    person.press(ui.previousButton)
    assert "waits for a decision" not in ui.reviewLabel.text
    person.press(ui.previousButton)
    assert f"No case before {first} waits for a decision." in ui.reviewLabel.text
    person.press(ui.rejectButton)
    assert "waits for a decision" not in ui.reviewLabel.text
    person.press(ui.nextButton)
    person.press(ui.nextButton)
    assert f"{second} is the last case without a decision." in ui.reviewLabel.text


def test_a_volume_that_was_added_and_segmented_stays_until_its_label_is_saved(
    person: Person,
) -> None:
    from ASLsegLib.scene.provenance import Provenance
    from ASLsegLib.scene.segmentations import write_prediction
    from ASLsegLib.scene.segments import part_of
    from ASLsegLib.scene.volumes import add_volume

    logic, ui = person.logic, person.ui
    person.load(person.names()[0])
    volume = add_volume(logic.project.load_image(logic.project.case("c0")), "added")
    logic.add_volume(volume, "added")
    choose_node(ui.inputVolumeSelector, volume)
    parts = dict.fromkeys((one.name for one in logic.targets()), part_of(box_in(volume)))
    made = Provenance("refined", "aslseg", logic.runs()[0].run_id, 1)
    node = write_prediction(volume, parts, logic.targets(), made)  # as Segment shows it
    person.press(ui.nextButton)
    run_event_loop(0.1)
    assert person.panel.volume not in (volume, None)
    assert slicer.mrmlScene.IsNodePresent(node)
    assert logic.case_node("added") is volume
    node.GetDisplayNode().SetVisibility(True)
    logic.save_label(node)
    assert logic.release_case("added")


def test_undo_names_what_it_takes_back(person: Person) -> None:
    person.press(person.ui.nextButton)
    first = person.chosen()
    person.press(person.ui.acceptButton)
    assert person.ui.undoButton.text == f"Undo: {first}: accepted"
    person.press(person.ui.undoButton)
    assert person.ui.undoButton.text == "Undo"
    assert person.logic.project.case(first).label is None


def test_undo_goes_on_after_a_decision_made_elsewhere(person: Person, dialogs: Any) -> None:
    from aslseg.project.review import reject

    ui = person.ui
    person.press(ui.nextButton)
    first, second = person.names()[:2]
    person.press(ui.acceptButton)
    reject(person.logic.project, second)
    person.press(ui.undoButton)
    dialogs.take(f"another one by now ({second}: rejected); look again")
    assert ui.undoButton.text == f"Undo: {second}: rejected"
    assert person.logic.project.case(second).status == "rejected"
    for name in (second, first):
        person.press(ui.undoButton)
        assert person.logic.project.case(name).status == "unlabelled"


def test_undo_goes_on_after_a_case_was_removed(person: Person, dialogs: Any) -> None:
    ui, logic = person.ui, person.logic
    first, second = person.names()[:2]
    logic.reject(second)
    person.load(first)
    person.press(ui.acceptButton)
    logic.remove_cases(first)
    person.rest()
    person.press(ui.undoButton)
    dialogs.take(f"another one by now ({second}: rejected); look again")
    person.press(ui.undoButton)
    assert logic.project.case(second).status == "unlabelled"


def test_another_project_leaves_no_case_to_decide_about(
    person: Person, tmp_path: Path, open_module: Any
) -> None:
    import shutil

    person.press(person.ui.nextButton)
    shown = person.chosen()
    other = tmp_path / "other"
    shutil.copytree(person.logic.project.folder, other)
    project = json.loads((other / "project.json").read_text(encoding="utf-8"))
    for case in project["cases"]:
        case["image_sha256"] = "0" * 64  # other patients under the same names
        case["image"] = str((person.logic.project.folder / case["image"]).resolve())
    (other / "project.json").write_text(json.dumps(project))
    for path in other.glob("runs/*/status.json"):  # whose cases its runs have seen
        status = json.loads(path.read_text(encoding="utf-8"))
        status["images"] = {case["id"]: "0" * 64 for case in project["cases"]}
        path.write_text(json.dumps(status), encoding="utf-8")
    person.logic.open_project(other)
    run_event_loop(0.1)
    person.choose(shown)
    assert not person.ui.acceptButton.enabled
    assert not person.ui.rejectButton.enabled
    assert not person.ui.saveLabelButton.enabled


def test_accepting_over_a_label_asks_once_something_was_drawn(person: Person, dialogs: Any) -> None:
    from harness import read_mask, write_mask

    person.press(person.ui.nextButton)
    case_id, volume = person.chosen(), person.panel.volume
    person.press(person.ui.acceptButton)
    person.press(person.ui.acceptButton)
    dialogs.take(f"Case {case_id} is accepted already: what is shown is its label.")
    assert person.logic.project.case(case_id).status == "accepted"
    first = person.saved(case_id)
    node = person.logic.predictions(volume)["refined"]
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)
    dialogs.answer(f"Case {case_id} has a label already", no())
    person.press(person.ui.acceptButton)
    assert np.array_equal(person.saved(case_id), first)
    dialogs.answer(f"Case {case_id} has a label already", yes())
    person.press(person.ui.acceptButton)
    assert (person.saved(case_id)[0, :3, :3] == 1).all()
    person.press(person.ui.undoButton)
    assert np.array_equal(person.saved(case_id), first)


# Labels of cases.


def test_the_button_names_the_case_that_gets_the_label(person: Person, dialogs: Any) -> None:
    ui = person.ui
    volume = person.load("c2")
    mask = box_in(volume)
    choose_node(ui.labelSegmentationSelector, draw(volume, "liver", mask))
    person.choose("c3", "casesTable")
    assert ui.saveLabelButton.text == "Save as label of c2"
    dialogs.answer("drawn has no segment of tumour. Save a label without any tumour?", no())
    person.press(ui.saveLabelButton)
    assert person.logic.project.case("c2").label is None
    dialogs.answer("drawn has no segment of tumour. Save a label without any tumour?", yes())
    person.press(ui.saveLabelButton)
    assert np.array_equal(person.saved("c2") == 1, mask)
    assert person.logic.project.case("c3").label is None


def test_a_label_of_a_person_is_replaced_only_when_that_is_allowed(
    person: Person, dialogs: Any
) -> None:
    volume = person.load("c0")
    before = person.saved("c0")
    choose_node(person.ui.labelSegmentationSelector, draw(volume, "liver", box_in(volume)))
    assert (before == 2).any()
    gone = "Save a label without any tumour? tumour of the label that the case has would be gone."
    dialogs.answer(gone, no())
    person.press(person.ui.saveLabelButton)
    assert np.array_equal(person.saved("c0"), before)
    dialogs.answer(gone, yes())
    dialogs.answer("Case c0 has a label already. Replace it", no())
    person.press(person.ui.saveLabelButton)
    assert np.array_equal(person.saved("c0"), before)
    dialogs.answer(gone, yes())
    dialogs.answer("Case c0 has a label already. Replace it", yes())
    person.press(person.ui.saveLabelButton)
    assert np.array_equal(person.saved("c0") == 1, box_in(volume))
    person.press(person.ui.undoButton)
    assert np.array_equal(person.saved("c0"), before)


def test_a_label_that_was_changed_since_it_was_shown_is_asked_about(
    person: Person, dialogs: Any
) -> None:
    volume = person.load("c0")
    labels = person.logic.project.load_labels(person.logic.project.case("c0"))
    theirs = type(labels)(np.minimum(labels.labels, 1), labels.geometry)
    person.logic.project.save_label("c0", theirs)  # by another program
    choose_node(person.ui.labelSegmentationSelector, draw(volume, "liver", box_in(volume)))
    dialogs.answer("was changed since you loaded the case", no())
    person.press(person.ui.saveLabelButton)
    assert np.array_equal(person.saved("c0"), theirs.labels)


def test_a_segmentation_is_saved_only_once_it_was_seen(person: Person, dialogs: Any) -> None:
    volume, ui = person.load("c2"), person.ui
    node = draw(volume, "liver", box_in(volume))
    node.GetSegmentation().AddEmptySegment("", "tumour")
    shown = [
        box for box in ("Specialist", "Sam", "Refined") if getattr(ui, f"show{box}Box").checked
    ]
    choose_node(ui.labelSegmentationSelector, node)
    for hide in (
        lambda display: display.SetVisibility(False),
        lambda display: display.SetSegmentVisibility(
            node.GetSegmentation().GetNthSegmentID(0), False
        ),
    ):
        hide(node.GetDisplayNode())
        person.press(ui.saveLabelButton)
        dialogs.take("so nothing was saved. It is shown now: look at it, and press again")
        assert person.logic.project.case("c2").label is None
        assert node.GetDisplayNode().GetVisibility()
    assert shown == [
        box for box in ("Specialist", "Sam", "Refined") if getattr(ui, f"show{box}Box").checked
    ]
    person.press(ui.saveLabelButton)
    assert np.array_equal(person.saved("c2") == 1, box_in(volume))


def test_a_prediction_that_is_hidden_is_not_saved_unseen(person: Person, dialogs: Any) -> None:
    volume, ui = person.load("c2"), person.ui
    node = person.logic.predictions(volume)["specialist"]
    ui.showSpecialistBox.checked = False
    choose_node(ui.labelSegmentationSelector, node)
    person.press(ui.saveLabelButton)
    dialogs.take("so nothing was saved. It is shown now")
    assert person.logic.project.case("c2").label is None
    assert ui.showSpecialistBox.checked
    assert node.GetDisplayNode().GetVisibility()


def test_a_segmentation_of_no_case_cannot_be_saved(person: Person) -> None:
    from aslseg.data.volume import Geometry, Volume
    from ASLsegLib.scene.volumes import add_volume

    volume = add_volume(Volume(np.zeros(TINY, np.int16), Geometry.axis_aligned(TINY)), "stranger")
    choose_node(person.ui.labelSegmentationSelector, draw(volume, "liver", np.ones(TINY, bool)))
    run_event_loop(0.1)
    assert not person.ui.saveLabelButton.enabled
    assert "was not drawn on a case of this project" in person.ui.saveLabelButton.toolTip


def test_segments_without_a_target_are_named_in_a_question(person: Person, dialogs: Any) -> None:
    volume = person.load("c2")
    node = draw(volume, "liver", box_in(volume))
    extra = node.GetSegmentation().AddEmptySegment("", "<b>cyst</b>")
    slicer.util.updateSegmentBinaryLabelmapFromArray(
        box_in(volume).astype(np.uint8), node, extra, volume
    )
    choose_node(person.ui.labelSegmentationSelector, node)
    dialogs.answer("'&lt;b&gt;cyst&lt;/b&gt;' makes no target", no())
    person.press(person.ui.saveLabelButton)
    assert person.logic.project.case("c2").label is None


# What cases are for.


def splits(person: Person, *case_ids: str) -> list[str]:
    return [person.logic.project.case(case_id).split for case_id in case_ids]


def test_all_volumes_of_a_patient_are_for_one_part_and_that_is_asked(
    person: Person, dialogs: Any
) -> None:
    person.logic.set_patient("c3", "c2")
    person.choose("c2", "casesTable")
    dialogs.answer("c2, c3 are of one patient, so all of them have to be used alike", no())
    use_for(person, "check on")
    assert splits(person, "c2", "c3") == ["train", "train"]
    assert person.ui.splitBox.currentText == "learn from"
    dialogs.answer("use them to check on?", yes())
    use_for(person, "check on")
    assert splits(person, "c2", "c3") == ["validation", "validation"]
    person.choose("c0", "casesTable")
    use_for(person, "test at the end")  # nobody else's volume: nothing is asked
    assert splits(person, "c0") == ["test"]


def use_for(person: Person, text: str) -> None:
    choose(person.ui.splitBox, text)
    person.rest()


def test_a_script_may_not_divide_a_patient(person: Person) -> None:
    from aslseg.errors import ProjectError

    person.logic.set_patient("c3", "c2")
    with pytest.raises(ProjectError, match=r"c2 \(test at the end\) and c3 \(learn from\)"):
        person.logic.set_split("c2", "test")
    assert person.logic.same_patient("c2") == ("c2", "c3")
    person.logic.set_split("c2", "test", whole_patient=True)
    assert splits(person, "c2", "c3") == ["test", "test"]
    with pytest.raises(ProjectError, match=r"c0 \(learn from\) and c2 \(test at the end\)"):
        person.logic.set_patient("c0", "c3")


# Lesions.


def test_the_lesion_table_belongs_to_the_segmentation_that_is_chosen(
    person: Person, dialogs: Any, tmp_path: Path
) -> None:
    ui = person.ui
    first = person.logic.predictions(person.load("c0"))["refined"]
    choose_node(ui.resultSelector, first)
    person.press(ui.measureButton)
    assert person.names("lesionsTable") == ["tumour"]
    dialogs.answer("Save", str(tmp_path / "lesions.csv"))
    click(ui.csvButton)
    rows = list(csv.DictReader((tmp_path / "lesions.csv").open()))
    assert [(row["case"], row["target"]) for row in rows] == [("c0", "tumour")]
    second = person.logic.predictions(person.load("c2"))["refined"]
    choose_node(ui.resultSelector, second)
    run_event_loop(0.1)
    assert person.names("lesionsTable") == []
    assert not ui.csvButton.enabled


def test_a_segmentation_without_a_lesion_is_said_to_have_none(person: Person) -> None:
    ui = person.ui
    choose_node(ui.resultSelector, person.logic.predictions(person.load("c0"))["refined"])
    measured: list[Callable[[list[Any]], None]] = []
    person.logic.lesions = SimpleNamespace(begin=lambda _, *, then, **__: measured.append(then))
    person.press(ui.measureButton)
    measured[0]([])
    assert person.names("lesionsTable") == ["none found"]
    assert "no lesion was found" in ui.copyButton.toolTip
    choose_node(ui.resultSelector, person.logic.predictions(person.load("c2"))["refined"])
    run_event_loop(0.1)
    assert person.names("lesionsTable") == []
    assert ui.copyButton.toolTip == "Measure first."


def press_return_in(table: Any) -> None:
    from PySide6 import QtGui

    returns = QtGui.QKeySequence("Return")
    found = [one for one in table.findChildren(QtGui.QShortcut) if one.key == returns]
    assert len(found) == 1
    found[0].activated()
    run_event_loop(0.05)


def test_return_goes_to_the_lesion_that_is_chosen_alone(person: Person) -> None:
    from ASLsegLib.scene.slice_views import current_slice

    table = person.ui.lesionsTable
    volume = person.load("c0")
    choose_node(person.ui.resultSelector, person.logic.predictions(volume)["refined"])
    show_slice_of(volume, 0)
    assert (table.rowCount, table.currentRow()) == (0, -1)
    press_return_in(table)  # an error that is shown fails the test
    person.press(person.ui.measureButton)
    assert (person.names("lesionsTable"), table.currentRow()) == (["tumour"], -1)
    press_return_in(table)
    assert current_slice(volume) == 0
    table.selectRow(0)
    press_return_in(table)
    assert current_slice(volume) != 0


def test_an_edit_takes_the_lesion_table_away(person: Person) -> None:
    from harness import write_mask

    volume = person.load("c0")
    node = person.logic.predictions(volume)["refined"]
    choose_node(person.ui.resultSelector, node)
    person.press(person.ui.measureButton)
    assert person.names("lesionsTable") == ["tumour"]
    click(person.ui.show3dButton)
    assert person.names("lesionsTable") == ["tumour"]  # a surface is no edit
    write_mask(node, "tumour", box_in(volume), volume)
    run_event_loop(0.1)
    assert person.names("lesionsTable") == []


def test_another_name_of_a_segment_takes_the_lesion_table_away(person: Person) -> None:
    node = person.logic.predictions(person.load("c0"))["refined"]
    choose_node(person.ui.resultSelector, node)
    person.press(person.ui.measureButton)
    segments = [node.GetSegmentation().GetSegment(name) for name in ("liver", "tumour")]
    segments[1].SetColor(0.1, 0.2, 0.3)
    run_event_loop(0.1)
    assert person.names("lesionsTable") == ["tumour"]
    for segment, name in zip(segments, ("tumour", "liver"), strict=True):
        segment.SetName(name)
    run_event_loop(0.1)
    assert person.names("lesionsTable") == []
    assert not person.ui.csvButton.enabled


def test_lesions_that_come_late_do_not_fill_the_table_of_another_case(person: Person) -> None:
    first = person.logic.predictions(person.load("c0"))["refined"]
    second = person.logic.predictions(person.load("c2"))["refined"]
    choose_node(person.ui.resultSelector, first)
    click(person.ui.measureButton)
    choose_node(person.ui.resultSelector, second)
    person.rest()
    assert person.names("lesionsTable") == []


# Texts of files.


def test_texts_of_files_are_shown_letter_by_letter(person: Person, dialogs: Any) -> None:
    from ASLsegLib.widgets.section import as_plain, fill_table

    assert as_plain("beyond the 50% of round 1") == "beyond the 50% of round 1"
    assert as_plain("<img src=x>\na & b") == "<span>&lt;img src=x&gt;<br>a &amp; b</span>"
    fill_table(person.ui.roundsTable, ["a"], [["<img src=x>"]])
    assert person.ui.roundsTable.item(0, 0).toolTip() == "<span>&lt;img src=x&gt;</span>"
    person.panel.show_error("<a href='x'>look</a>")
    run_event_loop(0.1)
    dialogs.take("<span>&lt;a href='x'&gt;look&lt;/a&gt;</span>")


def test_labels_of_the_panel_take_no_markup_from_files(person: Person) -> None:
    import qt

    for name in ("statusLabel", "casesSummaryLabel", "samLabel", "promptsStatusLabel"):
        assert getattr(person.ui, name).textFormat == qt.Qt.PlainText, name


# The last net.


def test_what_nobody_foresaw_becomes_one_sentence_and_a_traceback_in_the_log(
    person: Person, dialogs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fall() -> None:
        raise ZeroDivisionError("one line\nand another")

    person.panel.attempt(fall)
    run_event_loop(0.1)
    shown = dialogs.take("not foreseen").text
    assert "(ZeroDivisionError: one line and another)" in shown
    assert "log" in shown
    assert any(record.exc_info for record in caplog.records)


def test_a_section_that_falls_again_and_again_says_so_once(
    person: Person, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.widgets.results import ResultsSection

    def fall() -> None:
        raise KeyError("broken")

    section = next(one for one in person.panel.sections if isinstance(one, ResultsSection))
    monkeypatch.setattr(section, "tick", fall, raising=False)
    monkeypatch.setattr(section, "update", fall)
    run_event_loop(0.3)
    person.panel.update()
    run_event_loop(0.1)
    dialogs.take("KeyError")
    assert dialogs.errors() == []
    assert person.ui.statusLabel.text == "Ready."  # the other sections go on


# Work per change.


@pytest.mark.parametrize("count", [1, 3])
def test_placed_points_cause_one_update_and_read_nothing_from_disk(
    person: Person, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    from aslseg.project import review, run_list
    from ASLsegLib.scene.prompts import POSITIVE, add_point

    volume = person.load("c2")
    person.panel.parameters.followEdits = False
    run_event_loop(0.2)
    done: list[str] = []

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (done.append(name), real(*a, **k))[1])

    counted(person.panel.sections[0], "update")
    counted(run_list, "list_runs")
    counted(review, "history")
    for number in range(count):
        add_point(volume, "liver", (10.5 + number, 9.5), 6, POSITIVE)
    run_event_loop(0.3)
    assert done == ["update"]


def let_specialist_differ(folder: Path, case_id: str) -> None:
    """Let the specialist of the run have found other voxels than what refined its label."""
    from aslseg.data.images import read_labelmap, write_labelmap
    from aslseg.data.volume import Labelmap
    from aslseg.project.run_folder import open_run

    run = open_run(folder)
    path = run.predictions(run.best_round, case_id) / "specialist.nii.gz"
    found = read_labelmap(path)
    labels = found.labels.copy()
    labels[0, :3, :3] = 1 - labels[0, :3, :3].clip(0, 1)
    write_labelmap(Labelmap(labels, found.geometry), path)


def test_disagreement_is_shown_of_cases_that_were_loaded(person: Person, trained: Path) -> None:
    from ASLsegLib.scene.disagreement import find_overlay

    def foreground() -> Any:
        composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
        return slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID() or "")

    first, second = person.names()[:2]
    for case_id in (first, second):
        let_specialist_differ(trained, case_id)
    box = person.ui.showDisagreementBox
    assert not box.enabled
    volume = person.load(first)
    assert find_overlay(volume) is None
    click(box)
    labels = [
        person.logic.labelmap_of(node, volume).labels
        for source, node in person.logic.predictions(volume).items()
        if source != "prompts"
    ]
    apart = np.any([one != labels[0] for one in labels], axis=0)
    assert apart.any()
    overlay = find_overlay(volume)
    assert foreground() is overlay
    assert np.array_equal(slicer.util.arrayFromVolume(overlay), np.where(apart, 100, 0))
    other = person.load(second)
    assert foreground() is find_overlay(other)
    click(box)
    assert foreground() is None
    person.load(first)
    assert foreground() is None


def test_the_disagreement_of_labels_follows_what_is_drawn(person: Person) -> None:
    from harness import read_mask, write_mask

    from ASLsegLib.scene.disagreement import find_overlay

    volume = person.load(person.names()[0])
    box = person.ui.showDisagreementBox
    click(box)
    click(box)
    node = person.logic.predictions(volume)["refined"]
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)
    click(box)
    assert (slicer.util.arrayFromVolume(find_overlay(volume))[0, :3, :3] == 100).all()
