"""`aslseg fill` fills an organ between slices that a person drew, and replaces nothing unasked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import Result

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.evaluation.metrics import dice
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.project import Project, open_project
from aslseg.runs import start_run
from support.command_line import aslseg
from support.few_steps import learn_in_few_steps
from support.tiny_project import a_patient, a_tiny_project, tiny_config

CASE = "c6"
_, TRUTH = a_patient(6)


def fill(project: Project, *words: object) -> Result:
    given = ["fill", str(project.folder), *map(str, words)]
    return aslseg(*given)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    torch.set_num_threads(1)
    project = a_tiny_project(tmp_path_factory.mktemp("fill"))
    start_run(project, tiny_config(rounds=1), run_id="a")
    return open_project(project.folder)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    labels = np.zeros(TRUTH.labels.shape, np.uint8)
    labels[[2, 6, 10]] = TRUTH.labels[[2, 6, 10]]
    write_labelmap(Labelmap(labels, TRUTH.geometry), tmp_path / "drawn.nii.gz")
    return tmp_path / "drawn.nii.gz"


def test_slices_between_are_filled_into_a_file_that_is_new(project: Project, drawn: Path) -> None:
    filled = drawn.parent / "filled.nrrd"
    words = (CASE, "--labels", drawn, "--slices", "2,6, 10", "-o", filled)
    result = fill(project, *words)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{filled}\n"
    found, before = read_labelmap(filled), read_labelmap(drawn)
    assert found.geometry.matches(TRUTH.geometry)
    kept = [0, 1, 2, 6, 10, 11]
    np.testing.assert_array_equal(found.labels[kept], before.labels[kept])
    assert all(found.labels[k].any() for k in (3, 4, 5, 7, 8, 9))
    stamp = filled.stat().st_mtime_ns
    result = fill(project, *words)
    assert result.exit_code == 1
    assert "is there already; choose another name, or replace it with --force." in result.stderr
    assert filled.stat().st_mtime_ns == stamp
    assert fill(project, *words, "--force", "--run", "a").exit_code == 0
    assert filled.stat().st_mtime_ns != stamp
    assert project.case(CASE).label is None


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("data/ct6.nii.gz", "is the image of case c6, which is never replaced"),
        ("data/ct0.nii.gz", "is the image of case c0, which is never replaced"),
        ("project/labels/c0.nii.gz", "is where the project keeps its own files"),
        ("project/runs/a/c6.nii.gz", "is where the project keeps its own files"),
    ],
)
def test_no_image_and_no_label_of_a_project_is_replaced(
    project: Project, drawn: Path, output: str, reason: str
) -> None:
    path = project.folder.parent / output
    before = path.read_bytes() if path.exists() else None
    result = fill(project, CASE, "--labels", drawn, "--slices", "2,6", "-o", path, "--force")
    assert result.exit_code == 1
    assert reason in result.stderr
    assert (path.read_bytes() if path.exists() else None) == before


def test_what_was_drawn_is_never_replaced(project: Project, drawn: Path) -> None:
    before = drawn.read_bytes()
    result = fill(project, CASE, "--labels", drawn, "--slices", "2,6", "-o", drawn, "--force")
    assert result.exit_code == 1
    assert "is what you drew and is never replaced" in result.stderr
    assert drawn.read_bytes() == before


@pytest.mark.parametrize(
    ("slices", "output", "reason"),
    [
        ("all", "f.nii.gz", "'all' are not two slices or more"),
        ("4", "f.nii.gz", "'4' are not two slices or more"),
        ("4,x", "f.nii.gz", "'4,x' are no slices"),
        ("4,8", "f.png", "is no name of a label map"),
    ],
)
def test_misuse_is_told(
    project: Project, drawn: Path, slices: str, output: str, reason: str
) -> None:
    words = ("--labels", drawn, "--slices", slices, "-o", drawn.parent / output)
    result = fill(project, CASE, *words)
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("slices", "run", "reason"),
    [
        ("4,5", "a", "Nothing lies between the drawn slices (4, 5)"),
        ("4,12", "a", "There is no slice 12; the volume has 0 to 11."),
        ("2,6", "b", "b"),
    ],
)
def test_what_cannot_be_filled_is_told(
    project: Project, drawn: Path, slices: str, run: str, reason: str
) -> None:
    filled = drawn.parent / "filled.nii.gz"
    words = ("--labels", drawn, "--slices", slices, "-o", filled, "--run", run)
    result = fill(project, CASE, *words)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert not filled.exists()


def test_a_run_is_of_no_use_where_a_lesion_is_filled(project: Project, drawn: Path) -> None:
    words = ("--labels", drawn, "--slices", "2,6", "-o", drawn.parent / "filled.nii.gz")
    result = fill(project, CASE, *words, "--target", "tumour", "--run", "a")
    assert result.exit_code == 2
    assert "leave --run out" in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_before_any_training_a_new_network_fills_and_that_is_said(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_in_few_steps(monkeypatch)
    project = a_tiny_project(tmp_path / "new")
    filled = tmp_path / "filled.nii.gz"
    result = fill(project, CASE, "--labels", drawn, "--slices", "2,6,10", "-o", filled)
    assert result.exit_code == 0, result.output
    assert (
        "No finished run has a network that could: a new one has learnt your slices"
        in result.stderr
    )
    found = read_labelmap(filled).labels > 0
    for k in (3, 4, 5, 7, 8, 9):
        assert dice(found[k], TRUTH.labels[k] > 0) > 0.9


@pytest.mark.slow
def test_a_lesion_is_filled_where_its_target_is_named(
    project: Project, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn_in_few_steps(monkeypatch)
    monkeypatch.setattr("aslseg.data.filling_rules.LESION_MM", 20.0)
    labels = np.zeros(TRUTH.labels.shape, np.uint8)
    labels[2:11:2][TRUTH.labels[2:11:2] > 0] = 2
    write_labelmap(Labelmap(labels, TRUTH.geometry), drawn)
    filled = drawn.parent / "filled.nii.gz"
    words = (CASE, "--labels", drawn, "--slices", "2,4,6,8,10", "-o", filled)
    result = fill(project, *words, "--target", "tumour")
    assert result.exit_code == 0, result.output
    found = read_labelmap(filled).labels
    for k in (3, 5, 7, 9):
        assert dice(found[k] == 2, TRUTH.labels[k] > 0) > 0.9
    result = fill(project, *words, "--target", "liver", "--force")
    assert result.exit_code == 1
    assert "'liver' lies inside no other target; name one that does (tumour)." in result.stderr


def test_an_organ_whose_mask_was_given_is_refused(project: Project, drawn: Path) -> None:
    given = set_organ_masks(project, "liver", {CASE: drawn})
    words = ("--labels", drawn, "--slices", "2,6", "-o", drawn.parent / "filled.nii.gz")
    result = fill(given, CASE, *words)
    assert result.exit_code == 1
    assert "A mask of liver came with the volume; correct that mask." in result.stderr
