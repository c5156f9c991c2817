"""A project before it is made: what pairs, what is refused beside which field, what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslseg.data.volume import Geometry
from aslseg.errors import ProjectError
from aslseg.project.datasets import find_cases
from aslseg.project.plan import (
    Plan,
    empty_additions,
    patients_of,
    plan_additions,
    plan_problems,
    plan_project,
    with_facts,
    with_found,
    with_masks,
    with_target_renamed,
    write_plan,
)
from aslseg.project.target_table import TargetRow
from aslseg.targets import LIVER_TARGETS, Target
from support.small_images import GRID, write_image, write_label


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three volumes, two of them with label maps of liver and tumour."""
    for name in "abc":
        write_image(tmp_path / "ct" / f"{name}.nii.gz")
    for name in "ab":
        write_label(tmp_path / "labels" / f"{name}.nii.gz", 1, 2)
    return tmp_path


@pytest.fixture
def plan(source: Path) -> Plan:
    return plan_project(source / "project", source / "ct", source / "labels")


def with_case(plan: Plan, row: int, **changes: Any) -> Plan:
    cases = list(plan.cases)
    cases[row] = replace(cases[row], **changes)
    return replace(plan, cases=tuple(cases))


def where(plan: Plan) -> dict[tuple[str, int, str], str]:
    return {(p.place, p.row, p.column): p.message for p in plan_problems(plan)}


def test_a_plan_writes_nothing_and_then_the_project_in_one_call(plan: Plan) -> None:
    assert not plan.folder.exists()
    assert plan_problems(plan) == []
    project = write_plan(plan)
    assert [(case.id, case.label is not None) for case in project.cases] == [
        ("a", True), ("b", True), ("c", False),
    ]  # fmt: skip
    assert project.targets == LIVER_TARGETS


def test_names_roles_and_patients_of_a_plan_become_those_of_the_project(plan: Plan) -> None:
    plan = with_case(plan, 0, id="first", patient="p1")
    plan = with_case(plan, 2, split="validation", patient="p2")
    project = write_plan(plan)
    assert [(case.id, case.split, case.patient) for case in project.cases] == [
        ("first", "train", "p1"), ("b", "train", "b"), ("c", "validation", "p2"),
    ]  # fmt: skip
    assert project.label_path(project.case("first")).name == "first.nii.gz"


@pytest.mark.parametrize(
    ("row", "changes", "field", "words"),
    [
        (1, {"id": "A"}, ("case", 1, "name"), "Two cases have the name 'A'"),
        (1, {"id": "a/b"}, ("case", 1, "name"), "'a/b' cannot be a name"),
        (1, {"id": ""}, ("case", 1, "name"), "'' cannot be a name"),
        (2, {"patient": "-"}, ("case", 2, "patient"), "'-' cannot be a name"),
        (
            2,
            {"patient": "a", "split": "validation"},
            ("case", 2, "patient"),
            "who cannot be on two sides",
        ),
    ],
)
def test_what_is_typed_of_a_case_is_refused_beside_its_field(
    plan: Plan, row: int, changes: dict[str, Any], field: Any, words: str
) -> None:
    found = where(with_case(plan, row, **changes))
    assert words in found[field]
    with pytest.raises(ProjectError):
        write_plan(with_case(plan, row, **changes))
    assert not plan.folder.exists()


def test_one_label_map_is_not_that_of_two_cases(plan: Plan) -> None:
    found = where(with_case(plan, 2, label=plan.cases[0].label))
    assert {key for key in found if key[2] == "label"} == {
        ("case", 0, "label"),
        ("case", 2, "label"),
    }


def test_label_maps_without_a_volume_are_refused_until_they_are_left_out(source: Path) -> None:
    write_label(source / "labels" / "z.nii.gz", 1)
    plan = plan_project(source / "project", source / "ct", source / "labels")
    assert "z.nii.gz belongs to no image" in where(plan)["unpaired", 0, ""]
    assert plan_problems(replace(plan, unpaired=())) == []


def test_what_names_do_not_tell_is_settled_by_choosing(source: Path) -> None:
    write_label(source / "labels" / "c_gt.nii.gz", 1)
    other = write_label(source / "labels" / "c_seg.nii.gz", 1)
    plan = plan_project(source / "project", source / "ct", source / "labels")
    assert "both fit c.nii.gz" in where(plan)["case", 2, "label"]
    chosen = with_facts(with_case(plan, 2, label=other))
    assert plan_problems(chosen) == []


def test_values_without_a_target_are_refused_until_there_is_one(source: Path) -> None:
    write_label(source / "labels" / "c.nii.gz", 1, 7)
    plan = plan_project(source / "project", source / "ct", source / "labels", targets=LIVER_TARGETS)
    assert "holds the value 7" in where(plan)["case", 2, "label"]
    assert plan_problems(replace(plan, targets=(*plan.targets, TargetRow("cyst", "7")))) == []


def test_grids_that_do_not_fit_are_refused_and_may_be_settled(source: Path) -> None:
    moved = np.array(GRID.ijk_to_ras)
    moved[2, 3] += 2.0
    write_label(source / "labels" / "c.nii.gz", 1, geometry=Geometry(GRID.shape, moved))
    far = np.array(moved)
    far[2, 3] += 2000.0
    smaller = Geometry((2, 6, 6), far)
    write_image(source / "ct" / "d.nii.gz")
    write_label(source / "labels" / "d.nii.gz", 1, geometry=smaller)
    plan = plan_project(source / "project", source / "ct", source / "labels")
    found = where(plan)
    assert "the size of its image but another grid" in found["case", 2, "label"]
    assert "lies elsewhere in the patient" in found["case", 3, "label"]
    assert len(found) == 2
    assert len(where(with_case(plan, 2, same_size="voxels"))) == 1


def test_a_damaged_file_is_told_beside_its_field(source: Path) -> None:
    (source / "ct" / "b.nii.gz").write_bytes(b"no image")
    (source / "labels" / "a.nii.gz").write_bytes(b"no label")
    found = where(plan_project(source / "project", source / "ct", source / "labels"))
    assert set(found) == {("case", 0, "label"), ("case", 1, "image")}


def test_the_folder_has_to_be_a_new_one(plan: Plan, source: Path) -> None:
    made = write_plan(plan)
    assert "holds a project already" in where(plan)["folder", 0, ""]
    file = source / "file"
    file.touch()
    assert "is a file" in where(replace(plan, folder=file / "project"))["folder", 0, ""]
    assert made.folder == plan.folder


def test_files_are_read_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> Any:
        raise AssertionError

    monkeypatch.setattr("aslseg.project.file_facts.read_segments", fail)
    assert with_facts(plan).facts == plan.facts


def test_slices_of_one_patient_are_said_to_be(source: Path, plan: Plan) -> None:
    image = plan.cases[0].image
    facts = {path: replace(found, patient_id="X") for path, found in plan.facts.items()}
    facts[image] = replace(facts[image], patient_id=None)
    assert patients_of(replace(plan, facts=facts)) == ["a", "b", "b"]
    assert "X" not in repr(facts[plan.cases[1].image])


def test_cases_are_added_to_a_project_that_has_others(source: Path, plan: Plan) -> None:
    project = write_plan(plan)
    write_image(source / "ct" / "d.nii.gz")
    more = plan_additions(project, source / "ct", source / "labels")
    assert [case.id for case in more.cases] == ["d"]
    assert "Two cases have the name 'a'" in where(with_case(more, 0, id="a"))["case", 0, "name"]
    assert [case.id for case in write_plan(more).cases] == ["a", "b", "c", "d"]


def test_nothing_to_do_is_said(source: Path) -> None:
    assert where(Plan(source / "project"))["cases", 0, ""].startswith("There is no volume")


def nnunet(folder: Path, labels: dict[str, Any]) -> Path:
    write_image(folder / "imagesTr" / "x_0000.nii.gz")
    write_label(folder / "labelsTr" / "x.nii.gz", 1, 2)
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({**dataset, "numTraining": 1}))
    return folder


def test_an_nnunet_folder_brings_cases_and_targets(tmp_path: Path) -> None:
    labels = {"background": 0, "kidney": 1, "cyst": 2, "ignore": 3}
    plan = plan_project(tmp_path / "p", nnunet(tmp_path / "Dataset001", labels))
    assert plan.targets == (TargetRow("kidney", "1"), TargetRow("cyst", "2"))
    assert [(case.id, case.ignored) for case in plan.cases] == [("x", 3)]
    assert plan_problems(plan) == []


def test_regions_of_nnunet_are_targets_inside_of_each_other(tmp_path: Path) -> None:
    labels = {"background": 0, "kidney": [1, 2], "cyst": [2]}
    plan = plan_project(tmp_path / "p", nnunet(tmp_path / "Dataset001", labels))
    assert plan.targets == (TargetRow("kidney", "1"), TargetRow("cyst", "2", "kidney"))


def test_targets_that_are_given_overrule_those_that_are_found(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset001", {"background": 0, "kidney": 1, "cyst": 2})
    given = (Target(name="a", value=1), Target(name="b", value=2))
    assert [row.name for row in plan_project(tmp_path / "p", folder, targets=given).targets] == [
        "a", "b",
    ]  # fmt: skip


def test_two_sources_are_joined_and_no_volume_comes_twice(source: Path) -> None:
    plan = with_found(Plan(source / "p"), find_cases(source / "ct"))
    write_image(source / "more" / "d.nii.gz")
    plan = with_found(plan, find_cases(source / "more"))
    plan = with_found(plan, find_cases(source / "ct"))
    assert [case.id for case in plan.cases] == ["a", "b", "c", "d"]


def test_targets_of_a_project_get_other_colours_and_nothing_else(plan: Plan) -> None:
    project = write_plan(plan)
    more = empty_additions(project)
    assert where(more)["cases", 0, ""].startswith("There is no volume")
    liver, tumour = more.targets
    blue = replace(more, targets=(replace(liver, color="#0000ff"), tumour))
    assert plan_problems(blue) == []
    written = write_plan(blue)
    assert [target.color for target in written.targets] == ["#0000ff", None]
    assert written.cases == project.cases
    other = replace(more, targets=(replace(liver, value="9"), tumour))
    assert "keep name, value and parent" in where(other)["targets", 0, ""]


def test_organ_masks_are_found_checked_and_follow_their_target(source: Path, plan: Plan) -> None:
    for name in "ac":
        write_label(source / "masks" / name / "liver.nii.gz", 1)
    plan = with_facts(with_masks(plan, "liver", source / "masks"))
    assert [list(case.masks) for case in plan.cases] == [["liver"], [], ["liver"]]
    assert plan_problems(plan) == []
    organ = with_target_renamed(plan, 0, "organ")
    assert [list(case.masks) for case in organ.cases] == [["organ"], [], ["organ"]]
    assert organ.targets[1].inside == "organ"
    project = write_plan(organ)
    assert [list(case.masks) for case in project.cases] == [["organ"], [], ["organ"]]


def test_a_mask_elsewhere_or_of_no_organ_is_refused(source: Path, plan: Plan) -> None:
    far = np.array(GRID.ijk_to_ras)
    far[2, 3] += 2000.0
    write_label(source / "masks" / "a.nii.gz", 1, geometry=Geometry((2, 6, 6), far))
    elsewhere = with_facts(with_masks(plan, "liver", source / "masks"))
    assert "lies elsewhere in the patient" in where(elsewhere)["case", 0, "masks"]
    none = with_masks(plan, "tumour", source / "masks")
    assert "Masks are given of targets that contain others" in where(none)["case", 0, "masks"]
