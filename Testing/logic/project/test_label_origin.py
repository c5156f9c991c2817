"""AI label maps that nobody has looked at are no person's: they are refused as labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from aslseg.errors import ImageError
from aslseg.export.project import ExportOptions, export_project
from aslseg.project.create import create_project
from aslseg.project.datasets import cases_from_folder
from aslseg.project.label_origin import ORIGIN, ai_label_problem
from aslseg.project.plan import plan_additions, plan_problems, plan_project, write_plan
from aslseg.project.project import Project
from aslseg.storage import write_json_atomic, write_text_atomic
from support.small_images import write_image, write_label
from support.synthetic_run import a_finished_run


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Case a has a label of a person, case b a prediction."""
    for name in "ab":
        write_image(tmp_path / "ct" / f"{name}.nii.gz")
    write_label(tmp_path / "seg" / "a.nii.gz", 1, 2)
    made = create_project(tmp_path / "p", cases_from_folder(tmp_path / "ct", tmp_path / "seg"))
    run = a_finished_run(made.folder / "runs" / "first")
    write_label(run.predictions(1, "b") / "refined.nii.gz", 1, 2)
    return made


@pytest.fixture
def exported(project: Project, tmp_path: Path) -> Path:
    export_project(project, tmp_path / "out", ExportOptions(labels="all"))
    return tmp_path / "out"


def test_an_exported_prediction_is_no_label(exported: Path, tmp_path: Path) -> None:
    plan = plan_project(tmp_path / "q", tmp_path / "ct", exported)
    (problem,) = plan_problems(plan)
    assert (problem.row, problem.column) == (1, "label")
    assert "b.nii.gz is an AI label map (run first, round 1)" in problem.message
    assert f"aslseg labels PROJECT {exported} --origin NAME" in problem.message


def test_cases_are_not_added_with_predictions(
    exported: Path, project: Project, tmp_path: Path
) -> None:
    write_image(tmp_path / "other" / "z.nii.gz")
    other = create_project(tmp_path / "q", cases_from_folder(tmp_path / "other"))
    (problem,) = plan_problems(plan_additions(other, tmp_path / "ct", exported))
    assert "is an AI label map" in problem.message


def test_scripts_are_refused_predictions_too(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"b\.nii\.gz is an AI label map"):
        create_project(tmp_path / "q", cases_from_folder(tmp_path / "ct", exported))
    assert not (tmp_path / "q").exists()


def test_a_link_to_a_prediction_is_no_label(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b.nii.gz").symlink_to(exported / "b.nii.gz")
    assert "is an AI label map" in ai_label_problem(tmp_path / "linked" / "b.nii.gz")


def test_a_prediction_that_a_person_corrected_since_is_a_label(
    exported: Path, tmp_path: Path
) -> None:
    write_label(exported / "b.nii.gz", 2, 1)
    plan = plan_project(tmp_path / "q", tmp_path / "ct", exported)
    assert plan_problems(plan) == []
    assert write_plan(plan).case("b").label is not None


def test_a_prediction_in_an_nnunet_data_set_is_no_label(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "Dataset001"
    export_project(project, out, ExportOptions(format="nnunet", labels="all"))
    problems = plan_problems(plan_project(tmp_path / "q", out))
    assert ["b.nii.gz is an AI" in problem.message for problem in problems] == [True]


def test_the_refined_label_maps_of_a_run_are_no_labels(project: Project, tmp_path: Path) -> None:
    labels = project.folder / "runs" / "first" / "labels"
    for name in "ab":
        write_label(labels / f"{name}.nii.gz", 1, 2)
    write_json_atomic(labels / ORIGIN, {"a": "human", "b": "refined, round 1"})
    assert ai_label_problem(labels / "a.nii.gz") == ""
    assert "(run first, refined, round 1)" in ai_label_problem(labels / "b.nii.gz")


@pytest.mark.parametrize("text", ["[]", "{}", '{"kind": "another", "b": 3}'])
def test_an_origin_of_another_program_says_nothing(tmp_path: Path, text: str) -> None:
    write_text_atomic(tmp_path / ORIGIN, text)
    assert ai_label_problem(write_label(tmp_path / "b.nii.gz", 1)) == ""


@pytest.mark.parametrize("text", ["{", '{"kind": "aslseg labels", "cases": 3}'])
def test_a_damaged_origin_is_told(tmp_path: Path, text: str) -> None:
    write_text_atomic(tmp_path / ORIGIN, text)
    label = write_label(tmp_path / "b.nii.gz", 1)
    with pytest.raises(ImageError, match=r"origin\.json .*; restore it"):
        ai_label_problem(label)
