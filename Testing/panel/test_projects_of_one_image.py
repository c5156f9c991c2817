"""Two projects with the very same image under one name have a volume node each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from test_saving import add_ct, ct_of, draw, lesion_mask, liver_mask, saved

from aslseg.errors import AslsegError
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.plan import empty_additions


@pytest.fixture
def logic(open_module: Callable[..., Any], tmp_path: Path) -> Any:
    """A logic with a project of one case, `ct`, whose volume is in the scene."""
    open_module()
    from ASLsegLib.logic.logic import Logic

    made = Logic()
    made.add_volume(add_ct("ct"), folder=tmp_path / "first")
    return made


@pytest.fixture
def second(logic: Any, tmp_path: Path) -> Path:
    """Folder of another project of the same image file and the same name."""
    project = logic.project
    image = project.image_path(project.case("ct"))
    create_project(tmp_path / "second", [CaseFiles("ct", image)])
    return tmp_path / "second"


def test_what_was_drawn_in_one_project_is_no_label_of_the_other(logic: Any, second: Path) -> None:
    first, volume = logic.project.folder, ct_of(logic)
    node = draw(volume, liver=liver_mask())
    logic.open_project(second)
    assert logic.case_node("ct") is None
    with pytest.raises(AslsegError, match="which is no case of"):
        logic.save_label(node)
    other = logic.load_case("ct")
    assert other is not volume
    logic.save_label(draw(other, liver=lesion_mask(2)))
    logic.open_project(first)
    assert logic.case_node("ct") is volume
    logic.save_label(node)
    assert np.array_equal(saved(logic.project) > 0, liver_mask())
    assert np.array_equal(saved(logic.open_project(second)) > 0, lesion_mask(2))


def test_the_volume_of_one_project_does_not_become_a_case_of_the_other(
    logic: Any, second: Path, tmp_path: Path
) -> None:
    first, volume = logic.project.folder, ct_of(logic)
    node = draw(volume, liver=liver_mask())
    logic.open_project(second)
    for make in (
        lambda: logic.add_volume(volume, "more"),
        lambda: logic.add_volume(volume, folder=tmp_path / "third"),
        lambda: logic.with_scene(empty_additions(logic.project), [volume]),
    ):
        with pytest.raises(AslsegError, match=f"ct is case ct of the project {first}"):
            make()
    with pytest.raises(AslsegError, match="no volume that could be added"):
        logic.with_scene(empty_additions(logic.project))
    assert [case.id for case in logic.project.cases] == ["ct"]
    logic.open_project(first)
    assert logic.case_node("ct") is volume
    logic.save_label(node)


def test_a_file_that_is_shown_as_a_case_of_one_project_is_added_to_another(
    logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ASLsegLib.logic import scene_cases

    first, volume = logic.project.folder, ct_of(logic)
    plan = logic.plan_project(tmp_path / "third", first / "images")
    monkeypatch.setattr(scene_cases, "own_file", lambda _: plan.cases[0].image)
    assert logic.write_plan(plan).folder == tmp_path / "third"
    logic.open_project(first)
    assert logic.case_node("ct") is volume


def test_the_final_label_of_one_project_is_not_accepted_in_the_other(
    logic: Any, second: Path
) -> None:
    logic.save_label(draw(ct_of(logic), liver=liver_mask()))
    logic.load_case("ct")
    assert logic.refined_node("ct") is not None
    logic.open_project(second)
    with pytest.raises(AslsegError, match="no finished round"):
        logic.accept("ct")
    assert logic.project.case("ct").label is None


def test_a_project_that_is_copied_has_a_node_of_its_own(logic: Any, tmp_path: Path) -> None:
    folder, volume = logic.project.folder, ct_of(logic)
    shutil.copytree(folder, tmp_path / "copy")
    logic.open_project(tmp_path / "copy")
    assert logic.load_case("ct") is not volume
    logic.open_project(folder)
    assert logic.load_case("ct") is volume


def test_a_project_that_is_moved_keeps_its_node(logic: Any, tmp_path: Path) -> None:
    folder, volume = logic.project.folder, ct_of(logic)
    node = draw(volume, liver=liver_mask())
    folder.rename(tmp_path / "moved")
    logic.open_project(tmp_path / "moved")
    assert logic.load_case("ct") is volume
    shutil.copytree(tmp_path / "moved", folder)  # another one where it was
    logic.save_label(node)
    logic.open_project(folder)
    assert logic.case_node("ct") is None


def test_a_project_that_is_opened_through_a_link_is_the_same(logic: Any, tmp_path: Path) -> None:
    volume, link = ct_of(logic), tmp_path / "link"
    link.symlink_to(logic.project.folder, target_is_directory=True)
    logic.open_project(link)
    assert logic.load_case("ct") is volume


def test_what_can_be_undone_stays_when_another_path_names_the_open_folder(
    logic: Any, tmp_path: Path
) -> None:
    logic.save_label(draw(ct_of(logic), liver=liver_mask()))
    folder, done = logic.project.folder, logic.history.done
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for other in (tmp_path / "link", Path(os.path.relpath(folder))):
        assert logic.open_project(other).folder == folder
        assert logic.history.done == done
    assert len(done) == 1
    logic.undo()
    assert logic.project.case("ct").label is None


def test_colours_of_one_project_leave_labels_of_the_other_as_they_are(
    logic: Any, second: Path
) -> None:
    for folder in (logic.project.folder, second):
        logic.open_project(folder)
        logic.load_case("ct")
        logic.save_label(draw(ct_of(logic), liver=liver_mask()))
        logic.load_case("ct")
    node = logic.refined_node("ct")
    other = next(one for one in nodes_of_labels() if one is not node)
    before = color_of_liver(other)
    plan = empty_additions(logic.project)
    rows = tuple(replace(row, color="#123456") for row in plan.targets)
    logic.write_plan(replace(plan, targets=rows))
    assert color_of_liver(node) == pytest.approx((0x12 / 255, 0x34 / 255, 0x56 / 255))
    assert color_of_liver(other) == before


def nodes_of_labels() -> list[Any]:
    from ASLsegLib.scene.segmentations import volume_of_prediction

    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if volume_of_prediction(node) is not None]


def color_of_liver(node: Any) -> tuple[float, ...]:
    return tuple(node.GetSegmentation().GetSegment("liver").GetColor())


def test_a_node_of_an_earlier_scene_says_nothing_of_its_project(logic: Any, second: Path) -> None:
    volume, first = ct_of(logic), logic.project.folder
    volume.RemoveAttribute("ASLseg.Project")
    logic.open_project(first)
    assert logic.load_case("ct") is volume
    logic.open_project(second)
    assert logic.case_node("ct") is None
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1


def test_a_decision_that_ends_in_another_project_is_none_of_that(logic: Any, second: Path) -> None:
    first, node = logic.project.folder, draw(ct_of(logic), liver=liver_mask())
    logic.open_project(second)
    logic.save_label(draw(logic.load_case("ct"), liver=lesion_mask(2)))
    logic.open_project(first)
    logic.save_label.begin(node)
    logic.open_project(second)
    while logic.background.is_busy:
        logic.poll()
    assert logic.history.done == ()
    assert np.array_equal(saved(logic.project) > 0, lesion_mask(2))
    assert np.array_equal(saved(logic.open_project(first)) > 0, liver_mask())
