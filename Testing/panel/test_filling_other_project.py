"""Another project is opened while the engine fills: what comes is the first project's alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from harness import (
    read_labels,
    read_mask,
    start_filling,
    wait_for_engine,
    wait_for_files,
    write_mask,
)
from lesion_reviewer import Reviewer
from test_filling_faults import use_filling_engine
from test_lesion_filling import DRAWN as LESION_SLICES
from test_lesion_filling import draw as draw_lesion

from aslseg.data.images import write_volume
from aslseg.data.volume import Geometry, Volume
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.targets import LIVER_TARGETS, Target
from standin.harness import choose_node, run_event_loop

SHAPE = (10, 40, 40)
DRAWN, BETWEEN = [1, 4, 8], [2, 3, 5, 6, 7]
ORGANS = (Target(name="anterior", value=1), Target(name="posterior", value=2))
SWAPPED = (Target(name="posterior", value=1), Target(name="anterior", value=2))
CASE = "hippocampus"


def halves() -> dict[str, np.ndarray]:
    """Return the two parts of a tube that lies askew."""
    k, j, i = np.indices(SHAPE)
    tube = (i - 20) ** 2 + (j - 15 - k) ** 2 < 100
    return {"anterior": tube & (i < 20), "posterior": tube & (i >= 20)}


def a_project(folder: Path, targets: tuple[Target, ...]) -> Path:
    """Make a project of one case, whose name is the same in all of them."""
    geometry = Geometry(SHAPE, np.diag([-2.0, -2.0, 4.0, 1.0]))
    voxels = np.full(SHAPE, -50, np.int16)
    for value, mask in zip((60, 150), halves().values(), strict=True):
        voxels[mask] = value
    voxels[0, 0, 0] = len(folder.name)  # else the same volume would be the case of both
    image = folder.with_name(f"{folder.name}-images") / f"{CASE}.nii.gz"
    write_volume(Volume(voxels, geometry), image)
    create_project(folder, [CaseFiles(CASE, image)], targets)
    return folder


class Rater:
    """A person who draws in cases of two projects."""

    def __init__(self, widget: Any) -> None:
        self.panel, self.logic, self.ui = widget.panel, widget.logic, widget.panel.ui
        self.ui.casesSection.collapsed = False

    def open(self, folder: Path) -> Any:
        """Open a project, and return the volume node of its case."""
        self.logic.open_project(folder)
        self.panel.case_chosen.emit(CASE)
        wait_for_files(self.logic)
        return self.logic.case_node(CASE)

    def draw(self, volume: Any) -> Any:
        """Draw both parts in some slices of a new segmentation, and choose it."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for name, mask in halves().items():
            node.GetSegmentation().AddEmptySegment(name, name)
            drawn = np.zeros(SHAPE, bool)
            drawn[DRAWN] = mask[DRAWN]
            write_mask(node, name, drawn, volume)
        choose_node(self.ui.labelSegmentationSelector, node)
        run_event_loop(0.3)
        return node


def held(node: Any, volume: Any) -> tuple[dict[str, np.ndarray], list[dict[str, str]]]:
    """Return what a segmentation holds and says of itself."""
    from ASLsegLib.scene.provenance import all_tags

    segments = [node.GetSegmentation().GetSegment(name) for name in halves()]
    masks = {name: read_mask(node, name, volume).copy() for name in halves()}
    return masks, [all_tags(segment) for segment in segments]


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_same(one: Any, other: Any) -> None:
    for name, mask in one[0].items():
        np.testing.assert_array_equal(mask, other[0][name])
    assert one[1] == other[1]


@pytest.fixture
def rater(open_module: Callable[..., Any]) -> Rater:
    return Rater(open_module())


@pytest.mark.parametrize(
    "engine", ["stand-in", pytest.param("real", marks=(pytest.mark.slow, pytest.mark.nightly))]
)
def test_two_organs_are_filled_in_their_project_while_another_one_is_open(
    rater: Rater, tmp_path: Path, engine: str
) -> None:
    logic, ui = rater.logic, rater.ui
    folders = [a_project(tmp_path / "first", ORGANS), a_project(tmp_path / "second", SWAPPED)]
    volume = rater.open(folders[0])
    node = rater.draw(volume)
    before = held(node, volume)
    go = use_filling_engine(logic, tmp_path) if engine == "stand-in" else tmp_path / "go"
    start_filling(logic, ui.fillLabelButton)
    other_volume = rater.open(folders[1])
    assert other_volume is not volume
    other = rater.draw(other_volume)
    before_there = held(other, other_volume)
    on_disk = [files_in(folder) for folder in folders]
    go.touch()
    wait_for_engine(logic, 0.5)
    now, (_, tags) = held(node, volume)[0], held(node, volume)
    for name, mask in before[0].items():
        np.testing.assert_array_equal(now[name][DRAWN], mask[DRAWN])
        assert now[name][BETWEEN].any(axis=(1, 2)).all(), name
        assert not now[name][BETWEEN][:, :, 20:].any() or name == "posterior"
    assert not (now["anterior"] & now["posterior"]).any()
    assert all(tag["ASLseg.Repaired"] == "1 4 8" for tag in tags)
    assert_same(held(other, other_volume), before_there)
    assert [files_in(folder) for folder in folders] == on_disk
    assert logic.project.folder == folders[1]
    assert not ui.filledLabel.text
    assert ui.labelSegmentationSelector.currentNode() is other
    assert logic.undo() == "fill anterior and posterior between slices 1 and 8"
    assert_same(held(node, volume), before)
    assert_same(held(other, other_volume), before_there)


def test_what_was_filled_for_one_project_is_not_said_in_another(
    rater: Rater, tmp_path: Path
) -> None:
    """The segmentation stays the chosen one, but its organs are no targets here."""
    volume = rater.open(a_project(tmp_path / "first", ORGANS))
    node = rater.draw(volume)
    go = use_filling_engine(rater.logic, tmp_path)
    start_filling(rater.logic, rater.ui.fillLabelButton)
    rater.logic.open_project(a_project(tmp_path / "second", LIVER_TARGETS))
    go.touch()
    wait_for_engine(rater.logic, 0.5)
    assert rater.ui.labelSegmentationSelector.currentNode() is node
    assert held(node, volume)[0]["anterior"][BETWEEN].any()
    assert not rater.ui.filledLabel.text


def test_a_lesion_that_is_filled_stays_as_it_was_drawn_once_another_project_is_open(
    reviewer: Reviewer, tmp_path: Path, dialogs: Any
) -> None:
    logic, ui = reviewer.logic, reviewer.ui
    draw_lesion(reviewer, *LESION_SLICES)
    shown, decided = reviewer.shown, files_in(logic.project.folder / "lesions")
    node, targets = logic.refined_node("c2"), logic.targets()
    volume, first = logic.case_node("c2"), logic.project.folder
    go = use_filling_engine(logic, tmp_path)
    ui.lesionTable.selectRow(0)
    run_event_loop(0.3)
    start_filling(logic, ui.lesionFillButton)
    second = a_project(tmp_path / "second", LIVER_TARGETS)
    logic.open_project(second)
    on_disk = files_in(second)
    go.touch()
    wait_for_engine(logic, 0.5)
    dialogs.take("The lesion was changed while it was filled, or another one was looked at")
    np.testing.assert_array_equal(read_labels(node, volume, targets), shown)
    assert files_in(first / "lesions") == decided
    assert files_in(second) == on_disk
    assert not logic.is_drawing
    assert not logic.to_undo.startswith("fill ")
