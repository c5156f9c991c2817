"""The panel, clicked through with the real engine in its child process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import wait_for_engine
from trained import LABELLED, UNLABELLED, overrides_of, small_settings

from aslseg.events import Notice, Progress
from standin.harness import (
    choose,
    choose_node,
    click,
    measured_event_loop,
    run_event_loop,
    wait_until,
)

SOON_S = 600.0


class Clicks:
    """A person in front of the panel."""

    def __init__(self, widget: Any) -> None:
        self.widget, self.panel, self.logic = widget, widget.panel, widget.logic
        self.ui = widget.panel.ui
        for name in ("cases", "review", "results", "advanced"):
            getattr(self.ui, f"{name}Section").collapsed = False

    def open_project(self, folder: Path) -> None:
        self.ui.projectFolderEdit.currentPath = str(folder)
        click(self.ui.openProjectButton)
        assert self.logic.project is not None

    def choose_case(self, case_id: str, table: str = "casesTable") -> None:
        rows = getattr(self.ui, table)
        found = [r for r in range(rows.rowCount) if rows.item(r, 0).text() == case_id]
        rows.selectRow(found[0])
        slicer.app.processEvents()

    def load_case(self, case_id: str) -> Any:
        self.choose_case(case_id)
        click(self.ui.loadCaseButton)
        wait_until(lambda: self.logic.case_node(case_id), 30.0, "the case is loaded")
        self.rest()
        return self.logic.case_node(case_id)

    def rest(self) -> None:
        wait_for_engine(self.logic)

    def texts(self, table: str, column: int) -> list[str]:
        rows = getattr(self.ui, table)
        return [rows.item(r, column).text() for r in range(rows.rowCount)]


@pytest.fixture
def person(open_module: Any) -> Clicks:
    return Clicks(open_module())


@pytest.fixture
def at_project(person: Clicks, trained: Path) -> Clicks:
    person.open_project(trained)
    return person


@pytest.fixture
def no_training_settings(monkeypatch: pytest.MonkeyPatch, sam: str) -> None:
    """Let the panel start runs that take seconds; what it sends is otherwise its own."""
    import sys

    def small(parameters: Any) -> dict[str, Any]:
        changes = overrides_of(small_settings(sam, parameters.rounds, iterations=200))
        return {**changes, "method": parameters.method, "seed": parameters.seed}

    monkeypatch.setattr(sys.modules["ASLsegLib.parameters"], "settings_changes", small)


def test_the_panel_opens_and_says_why_each_button_rests(person: Clicks) -> None:
    assert "arterial spin labelling" in person.ui.introLabel.text
    assert person.ui.segmentButton.enabled is False
    assert person.ui.segmentButton.toolTip == "Choose a volume."
    assert person.ui.startButton.toolTip == "Open a project first."
    assert person.ui.statusLabel.text == "Ready."


def test_warnings_of_a_training_and_of_new_images_are_shown_until_the_next(person: Clicks) -> None:
    panel = person.panel
    panel._on_training_event(Notice("organ.view.window_hu hides <it>."))
    assert "organ.view.window_hu hides &lt;it&gt;." in person.ui.trainingLabel.text
    panel.logic.background.event.emit(Notice("sam.window_hu hides it."))
    assert person.ui.statusLabel.text == "Ready. sam.window_hu hides it."
    panel.logic.background.event.emit(Progress("reading", 1, 1))
    panel.update()
    assert person.ui.statusLabel.text == "Ready."


def test_a_project_shows_its_cases_and_what_is_known_of_them(at_project: Clicks) -> None:
    assert at_project.texts("casesTable", 0) == ["c0", "c2", "c3", "c5"]
    names, shown = (at_project.texts("casesTable", column) for column in (0, 1))
    states = dict(zip(names, shown, strict=True))
    assert states["c0"] == states["c5"] == "labelled"
    assert {states["c2"], states["c3"]} <= {"AI label (used)", "AI label (check)"}
    assert all(0 <= float(s) <= 1 for s in at_project.texts("casesTable", 3) if s)
    assert at_project.ui.labelledShareLabel.text.startswith("1 of 3 cases")


def test_segmenting_shows_four_nodes_and_never_blocks_the_application(
    at_project: Clicks, sam: str
) -> None:
    volume = at_project.load_case("c2")
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        slicer.mrmlScene.RemoveNode(node)
    run_event_loop(0.1)
    click(at_project.ui.segmentButton)
    with measured_event_loop() as blocks:
        wait_until(lambda: at_project.logic.engine.state in ("importing", "idle"), SOON_S)
    assert blocks.longest_ms < 100
    at_project.rest()
    names = {n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")}
    expected = {"c2 - specialist", "c2 - final label", "c2 - prompts"}
    assert names == (expected | {"c2 - SAM"} if sam != "none" else expected)
    refined = at_project.logic.predictions(volume)["refined"]
    labels = at_project.logic.labelmap_of(refined).labels
    truth = np.abs(slicer.util.arrayFromVolume(volume) - 100) < 40
    assert (labels[truth] > 0).mean() > 0.8
    segment = refined.GetSegmentation().GetSegment("liver")
    assert segment.GetTerminology()
    assert at_project.ui.showRefinedBox.enabled
    assert at_project.ui.resultSelector.currentNode() is refined


@pytest.mark.parametrize("by", ["selector", "table"])
def test_an_answer_about_another_volume_than_the_chosen_one_is_shown_when_that_is_chosen(
    at_project: Clicks, by: str
) -> None:
    ui, logic = at_project.ui, at_project.logic
    volumes = {case: at_project.load_case(case) for case in ("c3", "c2")}

    def choose_volume(case: str) -> None:
        if by == "table":
            at_project.choose_case(case)
            click(ui.loadCaseButton)
        else:
            choose_node(ui.inputVolumeSelector, volumes[case])
        wait_until(lambda: at_project.panel.volume is volumes[case], 30.0)
        run_event_loop(0.1)

    def shown(case: str) -> dict[str, bool]:
        found = logic.predictions(volumes[case])
        return {
            source: bool(node.GetDisplayNode().GetVisibility()) for source, node in found.items()
        }

    for node in logic.predictions(volumes["c2"]).values():
        slicer.mrmlScene.RemoveNode(node)
    label = logic.predictions(volumes["c3"])["refined"]
    selectors = ui.labelSegmentationSelector, ui.resultSelector
    for selector in selectors:
        choose_node(selector, label)
    assert at_project.panel.volume is volumes["c2"]
    click(ui.segmentButton)
    choose_volume("c3")
    assert logic.engine.is_busy
    before = shown("c3")
    at_project.rest()
    assert [selector.currentNode() for selector in selectors] == [label, label]
    assert "refined" in shown("c2")
    assert not any(shown("c2").values())
    assert shown("c3") == before
    choose_volume("c2")
    boxes = {source: getattr(ui, f"show{source.title()}Box").checked for source in shown("c2")}
    assert shown("c2") == boxes
    assert boxes["refined"]


def test_a_late_answer_that_fails_halfway_leaves_nothing_of_it_visible(
    at_project: Clicks, dialogs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.engine import results

    ui, logic = at_project.ui, at_project.logic
    other, volume = (at_project.load_case(case) for case in ("c3", "c2"))
    for node in logic.predictions(volume).values():
        slicer.mrmlScene.RemoveNode(node)
    write = results.write_prediction

    def write_and_fail(
        about: Any, parts: Any, targets: Any, origin: Any, *more: Any, **undo: Any
    ) -> Any:
        node = write(about, parts, targets, origin, *more, **undo)
        if origin.source == "refined":
            raise ValueError("the memory is full")
        return node

    monkeypatch.setattr(results, "write_prediction", write_and_fail)
    click(ui.segmentButton)
    choose_node(ui.inputVolumeSelector, other)
    wait_until(lambda: at_project.panel.volume is other, 30.0)
    assert logic.engine.is_busy
    at_project.rest()
    dialogs.take("the memory is full")
    made = logic.predictions(volume)
    assert "refined" in made
    assert [source for source, node in made.items() if node.GetDisplayNode().GetVisibility()] == []
    choose_node(ui.inputVolumeSelector, volume)
    run_event_loop(0.3)
    assert made["refined"].GetDisplayNode().GetVisibility()


def test_hiding_a_prediction_hides_its_node(at_project: Clicks) -> None:
    volume = at_project.load_case("c2")
    refined = at_project.logic.predictions(volume)["refined"]
    assert refined.GetDisplayNode().GetVisibility()
    click(at_project.ui.showRefinedBox)
    assert not refined.GetDisplayNode().GetVisibility()
    assert at_project.panel.parameters.showRefined is False


@pytest.mark.usefixtures("needs_sam")
def test_a_moved_prompt_changes_the_labels_of_its_slice_alone(at_project: Clicks) -> None:
    from harness import show_slice_of

    from ASLsegLib.scene.prompts import POSITIVE, add_point

    volume = at_project.load_case("c2")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    click(at_project.ui.segmentButton)
    at_project.rest()
    before = at_project.logic.labelmap_of(at_project.logic.predictions(volume)["sam"]).labels
    show_slice_of(volume, 6)
    click(at_project.ui.editPromptsButton)
    at_project.rest()
    add_point(volume, "tumour", (12.5, 28.5), 6, POSITIVE)
    slicer.app.processEvents()
    wait_until(lambda: at_project.logic.engine.is_busy, 5.0, "SAM predicts again")
    at_project.rest()
    after = at_project.logic.labelmap_of(at_project.logic.predictions(volume)["sam"]).labels
    assert not np.array_equal(after[6], before[6])
    others = [k for k in range(12) if k != 6]
    assert np.array_equal(after[others], before[others])
    assert at_project.ui.promptsStatusLabel.text.startswith("Updated slice 6")


@pytest.mark.usefixtures("needs_sam")
def test_without_a_run_sam_alone_follows_a_click(person: Clicks) -> None:
    from harness import show_slice_of

    from ASLsegLib.scene.prompts import POSITIVE, add_point
    from ASLsegLib.scene.volumes import add_volume
    from support.tiny_project import a_patient

    volume = add_volume(a_patient(2)[0], "free")
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    run_event_loop(0.1)
    assert person.panel.volume is volume
    assert "trained run" in person.ui.segmentButton.toolTip
    show_slice_of(volume, 6)
    add_point(volume, "liver", (20.5, 19.5), 6, POSITIVE)
    slicer.app.processEvents()
    wait_until(lambda: person.logic.engine.is_busy, 5.0, "SAM predicts")
    person.rest()
    node = person.logic.predictions(volume)["sam"]
    assert person.logic.labelmap_of(node).labels[6].any()
    assert "SAM alone" in person.ui.promptsStatusLabel.text
    assert node.GetDisplayNode().GetVisibility()
    click(person.ui.showSamBox)  # who hides it has seen it
    add_point(volume, "liver", (20.5, 24.5), 6, POSITIVE)
    slicer.app.processEvents()
    wait_until(lambda: person.logic.engine.is_busy, 5.0, "SAM predicts")
    person.rest()
    assert not node.GetDisplayNode().GetVisibility()


def test_a_run_starts_stops_and_is_resumed(at_project: Clicks, no_training_settings: None) -> None:
    ui, logic = at_project.ui, at_project.logic
    ui.trainSection.collapsed = False
    ui.seedBox.value, ui.roundsBox.value = 7, 1
    before = {run.run_id for run in logic.runs()}
    click(ui.startButton)
    assert ui.startButton.toolTip == "A training is under way."
    with measured_event_loop() as blocks:
        wait_until(lambda: "specialist" in ui.trainingLabel.text, SOON_S, "the specialist trains")
        wait_until(lambda: ui.progressBar.value > 0, SOON_S, "the bar moves")
    assert blocks.longest_ms < 100
    click(ui.stopButton)
    wait_until(lambda: logic.trainer.state == "idle", 5.0, "the tree is gone within seconds")
    run = next(r for r in logic.runs() if r.run_id not in before)
    assert (run.state, run.rounds) == ("cancelled", ())
    wait_until(lambda: ui.resumeButton.enabled, 5.0, "the run can be resumed")
    click(ui.resumeButton)
    wait_until(lambda: not logic.trainer.is_busy, SOON_S, "the run is finished")
    run = next(r for r in logic.runs() if r.run_id not in before)
    assert (run.state, run.rounds) == ("done", (1,))
    assert at_project.texts("roundsTable", 0) == ["1"]
    click(ui.curvesButton)
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert [c.GetName() for c in charts] == ["ASLseg training"]
    assert charts[0].GetNumberOfPlotSeriesNodes() >= 1


def test_review_accepts_corrects_rejects_and_takes_back(at_project: Clicks) -> None:
    ui, logic = at_project.ui, at_project.logic
    click(ui.nextButton)
    wait_until(lambda: logic.case_node(at_project.texts("reviewTable", 0)[0]), 30.0)
    at_project.rest()
    first = at_project.texts("reviewTable", 0)[0]
    click(ui.acceptButton)
    at_project.rest()
    assert logic.project.case(first).status == "accepted"
    assert len(logic.project.labelled) == 2
    click(ui.undoButton)
    assert logic.project.case(first).label is None
    assert logic.project.case(first).status == "unlabelled"
    at_project.choose_case(first, "reviewTable")
    click(ui.rejectButton)
    assert logic.project.case(first).status == "rejected"
    click(ui.undoButton)
    assert ui.undoButton.toolTip == "There is nothing to undo."


def test_what_a_person_corrected_becomes_the_label(at_project: Clicks) -> None:
    from harness import read_mask, write_mask

    logic = at_project.logic
    volume = at_project.load_case("c3")
    node = logic.predictions(volume)["refined"]
    mask = read_mask(node, "liver", volume)
    mask[0, :3, :3] = True
    write_mask(node, "liver", mask, volume)
    at_project.choose_case("c3", "reviewTable")
    click(at_project.ui.acceptButton)
    at_project.rest()
    label = logic.project.load_labels(logic.project.case("c3")).labels
    assert logic.project.case("c3").status == "labelled"
    assert (label[0, :3, :3] == 1).all()


def test_correcting_opens_the_segment_editor_with_the_refined_label(at_project: Clicks) -> None:
    volume = at_project.load_case("c3")
    at_project.choose_case("c3", "reviewTable")
    click(at_project.ui.correctButton)
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is at_project.logic.predictions(volume)["refined"]
    assert editor.sourceVolumeNode() is volume


def test_lesions_are_measured_copied_and_saved(
    at_project: Clicks, tmp_path: Path, dialogs: Any
) -> None:
    import qt

    volume = at_project.load_case(LABELLED)
    node = at_project.logic.predictions(volume)["refined"]
    choose_node(at_project.ui.resultSelector, node)
    click(at_project.ui.measureButton)
    at_project.rest()
    labels = at_project.logic.project.load_labels(at_project.logic.project.case(LABELLED))
    volume_ml = (labels.labels == 2).sum() * 16.0 / 1000.0  # voxels of 4 x 2 x 2 mm
    assert at_project.texts("lesionsTable", 0) == ["tumour"]
    assert at_project.texts("lesionsTable", 2) == [f"{volume_ml:.2f}"]
    run_event_loop(0.1)
    assert at_project.ui.statusLabel.text == "Ready."
    assert at_project.ui.progressBar.isHidden()
    click(at_project.ui.copyButton)
    assert qt.QApplication.clipboard().text().startswith("case\ttarget\tnumber\tvolume_ml")
    path = tmp_path / "lesions.csv"
    dialogs.answer("Save", str(path))
    click(at_project.ui.csvButton)
    assert path.read_text(encoding="utf-8").splitlines()[1].startswith(f"{LABELLED},tumour,1,")


def test_the_3d_button_says_whether_the_chosen_segmentation_is_shown(at_project: Clicks) -> None:
    predictions = at_project.logic.predictions(at_project.load_case("c2"))
    choose_node(at_project.ui.resultSelector, predictions["refined"])
    click(at_project.ui.show3dButton)
    choose_node(at_project.ui.resultSelector, predictions["specialist"])
    assert not at_project.ui.show3dButton.checked
    choose_node(at_project.ui.resultSelector, predictions["refined"])
    assert at_project.ui.show3dButton.checked
    click(at_project.ui.show3dButton)
    assert not predictions["refined"].GetSegmentation().ContainsRepresentation("Closed surface")


def test_prompts_are_drawn_in_the_plane_of_the_slices_alone(at_project: Clicks) -> None:
    volume = at_project.load_case("c2")
    click(at_project.ui.segmentButton)
    at_project.rest()
    display = at_project.logic.predictions(volume)["prompts"].GetDisplayNode()
    assert display.GetNumberOfViewNodeIDs() == 1
    assert display.GetNthViewNodeID(0) == "vtkMRMLSliceNodeRed"


def test_the_same_panel_comes_back_with_the_scene(
    at_project: Clicks, trained: Path, tmp_path: Path, open_module: Any
) -> None:
    volume = at_project.load_case("c2")
    labels = at_project.logic.labelmap_of(at_project.logic.predictions(volume)["refined"]).labels
    at_project.ui.roundsBox.value = 5
    choose(at_project.ui.methodBox, "semisam")
    click(at_project.ui.wholeVolumeBox)
    path = tmp_path / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert at_project.panel.volume is None
    slicer.util.loadScene(str(path))
    slicer.app.processEvents()
    ui, logic = at_project.ui, at_project.logic
    assert (ui.roundsBox.value, ui.methodBox.currentText) == (5, "SemiSAM")
    assert ui.wholeVolumeBox.checked
    back = at_project.panel.volume
    assert back.GetName() == "c2"
    node = logic.predictions(back)["refined"]
    assert np.array_equal(logic.labelmap_of(node).labels, labels)
    assert not logic.project or logic.project.folder == trained
    from ASLsegLib.scene.segmentations import is_as_written

    assert is_as_written(node, back)


def test_removing_the_volume_while_it_is_segmented_stops_the_engine(at_project: Clicks) -> None:
    volume = at_project.load_case(UNLABELLED[0])
    click(at_project.ui.segmentButton)
    run_event_loop(0.2)
    slicer.mrmlScene.RemoveNode(volume)
    at_project.rest()
    assert at_project.logic.engine.state == "idle"
    assert not at_project.ui.progressBar.isVisible()


def test_removing_the_volume_of_before_stops_nothing_else(
    panel: Any, ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logic, engine, stopped = panel.logic, panel.logic.engine, []
    monkeypatch.setattr(engine, "start", lambda _: None)
    monkeypatch.setattr(engine, "cancel", lambda: stopped.append(engine.state))
    logic.segment.begin(ct)
    logic.download.begin("vit_t")
    monkeypatch.setattr(engine, "state", type(engine.state).RUNNING)
    slicer.mrmlScene.RemoveNode(ct)
    run_event_loop(0.2)
    assert stopped == []


def test_closing_the_scene_while_segmenting_leaves_nothing_behind(at_project: Clicks) -> None:
    at_project.load_case(UNLABELLED[0])
    click(at_project.ui.segmentButton)
    run_event_loop(0.2)
    slicer.mrmlScene.Clear(0)
    run_event_loop(0.5)
    assert at_project.logic.engine.state == "idle"
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert at_project.panel.parameters is not None


def test_without_torch_the_panel_explains_itself(
    open_module: Any, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    import importlib.metadata

    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "torchvision"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    person = Clicks(open_module())
    assert person.ui.requirementsFrame.isHidden() is False
    assert "torch, torchvision" in person.ui.requirementsLabel.text
    person.open_project(trained)
    person.load_case("c2")
    assert "Install what is missing" in person.ui.segmentButton.toolTip
    assert "Install what is missing" in person.ui.startButton.toolTip
