"""Organs that are given: not trained where every case has one, used as they are, never counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from aslseg.config import RunConfig, SamConfig
from aslseg.data.images import read_labelmap, read_volume, write_labelmap
from aslseg.data.volume import Labelmap, Volume
from aslseg.errors import ImageError, RunError
from aslseg.inference.ensemble import Segmentation
from aslseg.inference.interactive.session import Session, models_of_ensemble
from aslseg.inference.loading import load_ensemble
from aslseg.inference.postprocessing import labels_from
from aslseg.project.create import create_project, select_cases
from aslseg.project.given_masks import set_organ_masks
from aslseg.project.organ_masks import volume_with_organs
from aslseg.project.project import Project, open_project
from aslseg.project.run_folder import RunFolder
from aslseg.runs import continue_run, start_run
from aslseg.targets import LIVER_TARGETS
from support.tiny_project import (
    ADAPTATION,
    GEOMETRY,
    LABELLED,
    TEST,
    UNLABELLED,
    VALIDATION,
    a_patient,
    tiny_config,
    write_patients,
)
from support.whole_runs import rows_of, use_small_sam

WITH_SAM = tiny_config(
    rounds=1,
    adaptation=ADAPTATION.model_copy(update={"versions": 1, "iterations": 4}),
    sam=SamConfig(model="vit_t", input_size=128, iterations=4, batch_size=2, versions=1),
)
ALL = (*LABELLED, *UNLABELLED, *VALIDATION, *TEST)


def a_mask_of(number: int) -> np.ndarray:
    """Return a liver with a spot beside it, which cleaning would take away."""
    mask = a_patient(number)[1].labels > 0
    mask[1, 1:3, 1:3] = True
    return mask


def a_project(root: Path, having: tuple[str, ...] = ALL) -> Project:
    """Make the tiny project with lesions alone as labels, and livers given for some cases."""
    cases = select_cases(
        write_patients(root / "data"), labelled=LABELLED, validation=VALIDATION, test=TEST
    )
    for case in cases:
        if case.label is not None and case.id in having:
            drawn = read_labelmap(case.label)
            lesions = np.where(drawn.labels == 2, drawn.labels, 0)
            write_labelmap(Labelmap(lesions, drawn.geometry), case.label)
    project = create_project(root / "project", cases)
    masks = {n: Labelmap(a_mask_of(int(n[1])).astype(np.uint8), GEOMETRY) for n in having}
    return set_organ_masks(project, "liver", masks)


def run_on(project: Project, config: RunConfig) -> RunFolder:
    torch.set_num_threads(1)
    return start_run(project, config, run_id="a")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Return a run of ASLseg with SAM where every case has a liver."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_small_sam(monkeypatch)
        return run_on(a_project(tmp_path_factory.mktemp("given")), WITH_SAM)


@pytest.fixture
def small_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_sam(monkeypatch)


def segmented(run: RunFolder, volume: Volume) -> Segmentation:
    return load_ensemble(run).segment(volume)


def test_the_stage_of_a_given_organ_is_not_trained_and_the_log_says_so(run: RunFolder) -> None:
    names = {path.name for path in run.round(1).rglob("*.safetensors")}
    assert "specialist-tumour.safetensors" in names
    assert not any("liver" in name for name in names)
    events = (run.path / "events.jsonl").read_text(encoding="utf-8")
    assert "Every case has a mask of liver: it is not trained" in events


def test_every_result_holds_the_given_organ_unchanged(run: RunFolder) -> None:
    for name in ALL:
        labels = read_labelmap(run.path / "labels" / f"{name}.nii.gz").labels
        assert (labels[a_mask_of(int(name[1]))] > 0).all()
        assert not (labels[~a_mask_of(int(name[1]))] == 1).any()


def test_a_given_organ_is_scored_nowhere(run: RunFolder) -> None:
    assert {row["target"] for row in rows_of(run.round(1) / "metrics.csv")} == {"tumour"}
    assert {row["target"] for row in rows_of(run.round(1) / "cross_validation.csv")} == {"tumour"}


def test_given_organs_are_accepted_beyond_the_share(run: RunFolder) -> None:
    for row in rows_of(run.round(1) / "reliability.csv"):
        assert "its liver is not used" not in row["reason"]


@pytest.mark.usefixtures("small_sam")
def test_a_new_volume_needs_the_organ_that_was_not_learnt(run: RunFolder, tmp_path: Path) -> None:
    project = open_project(run.path.parents[1])
    image = read_volume(project.image_path(project.case("c6")))
    with pytest.raises(ImageError, match=r"given masks of liver.*--organ liver=FILE"):
        segmented(run, image)
    write_labelmap(Labelmap(a_mask_of(6).astype(np.uint8), GEOMETRY), tmp_path / "liver.nii.gz")
    given = volume_with_organs(image, {"liver": tmp_path / "liver.nii.gz"}, project.targets)
    found = segmented(run, given)
    assert (found.refined.labels[a_mask_of(6)] > 0).all()
    assert found.sam is not None
    assert (found.sam.labels[a_mask_of(6)] > 0).all()
    assert not any(prompt.target == "liver" for prompt in found.prompts)


@pytest.mark.usefixtures("small_sam")
def test_a_session_keeps_the_given_organ_on_every_slice(run: RunFolder, tmp_path: Path) -> None:
    project = open_project(run.path.parents[1])
    volume = project.load_image(project.case("c6"))
    session = Session(volume, models_of_ensemble(load_ensemble(run), tmp_path))
    whole = session.refine((), None)
    assert whole.refined is not None
    for k in (1, 6):
        found = session.refine((), k)
        assert found.refined is not None
        assert np.array_equal(found.refined.labels[0] > 0, whole.refined.labels[k] > 0)


def test_more_rounds_ask_for_the_mask_of_a_case_that_has_lost_it(tmp_path: Path) -> None:
    project = a_project(tmp_path)
    run_on(project, tiny_config(method="specialist", rounds=1))
    fewer = set_organ_masks(project, "liver", {"c3": None})
    with pytest.raises(RunError, match=r"does not learn liver.*c3 has none"):
        continue_run(fewer, "a")


def test_where_some_have_an_organ_it_is_learnt_and_theirs_is_kept(tmp_path: Path) -> None:
    project = a_project(tmp_path, having=("c0", "c2", "c3"))
    run = run_on(project, tiny_config(method="specialist", rounds=1))
    assert (run.round(1) / "specialist-liver.safetensors").exists()
    labels = read_labelmap(run.path / "labels" / "c2.nii.gz").labels
    assert (labels[a_mask_of(2)] > 0).all()
    predicted = read_labelmap(run.path / "labels" / "c4.nii.gz").labels
    assert (predicted > 0).any()
    scored = {row["target"] for row in rows_of(run.round(1) / "metrics.csv")}
    assert scored == {"liver", "tumour"}  # c5 has none


def test_a_given_mask_is_not_cleaned(tmp_path: Path) -> None:
    volume = Volume(a_patient(0)[0].voxels, GEOMETRY, {"liver": a_mask_of(0)})
    nothing = {t.name: np.zeros(GEOMETRY.shape, np.float32) for t in LIVER_TARGETS}
    found = labels_from(nothing, LIVER_TARGETS, volume, 0.0)
    assert np.array_equal(found.labels > 0, a_mask_of(0))
    with pytest.raises(ValueError, match="one shape"):
        Volume(volume.voxels, GEOMETRY, {"liver": np.zeros((1, 1, 1), np.bool_)})
