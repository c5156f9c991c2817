"""An estimate looks at the volumes, at SAM's input, and at what is done with each case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aslseg.cli.demo import LABELLED, UNLABELLED, VALIDATION
from aslseg.data.images import write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.overrides import with_overrides
from aslseg.presets import read_preset
from aslseg.project.case import CaseFiles
from aslseg.project.create import create_project
from aslseg.project.project import Project
from aslseg.training.calibration import Speed
from aslseg.training.run_plan import (
    PROMPTING_SHARE,
    CaseTimes,
    estimate_of,
    planned_steps,
    typical_speed,
)

DEMO_S = 429.0
"""Processor time of the run of `aslseg demo`, without making the project; see Docs/results.md."""


def a_project(folder: Path, slices: int = 40) -> Project:
    """Make a project as large as that of the demonstration, of plain volumes."""
    grid = Geometry.axis_aligned((slices, 160, 192), (5.0, 2.0, 2.0))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:-2, 60:120, 60:120] = 1
    labels[4:6, 70:80, 70:80] = 2
    write_labelmap(Labelmap(labels, grid), folder / "labels.nii.gz")
    files = []
    for number in range(LABELLED + UNLABELLED + VALIDATION):
        image = folder / f"phantom_{number}.nii.gz"
        write_volume(Volume(np.full(grid.shape, number, np.int16), grid), image)
        is_held_out = number >= LABELLED + UNLABELLED
        label = folder / "labels.nii.gz" if number < LABELLED or is_held_out else None
        split = "validation" if is_held_out else "train"
        files.append(CaseFiles(f"phantom_{number}", image, label, split))
    return create_project(folder / "project", files)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return a_project(tmp_path_factory.mktemp("demo"))


def test_the_demonstration_is_estimated_as_it_was_measured(project: Project) -> None:
    seconds = estimate_of(planned_steps(read_preset("demo"), project)).seconds
    assert DEMO_S / 1.5 < seconds < DEMO_S * 1.5


def test_half_of_the_slices_take_about_half_of_the_time_of_cases(
    project: Project, tmp_path: Path
) -> None:
    config, speed = read_preset("demo"), Speed(1.0, 1.0)
    few = a_project(tmp_path, 20)
    times = [CaseTimes(config, one, speed).segmenting_s(one.unlabelled) for one in (few, project)]
    assert times[1] == pytest.approx(2 * times[0])


def test_a_slice_is_encoded_once_until_the_encoder_has_changed(project: Project) -> None:
    times = CaseTimes(read_preset("demo"), project, Speed(1.0, 2.0))
    first, again = (times.sam_s(project.labelled) for _ in range(2))
    assert first - again == pytest.approx(2.0 * 40 * LABELLED)
    times.forget_embeddings()
    assert times.sam_s(project.labelled) == pytest.approx(first)


def test_a_typical_encoder_is_as_fast_as_its_input_is_small() -> None:
    config = read_preset("demo")
    larger = config.sam.model_copy(update={"input_size": 2 * config.sam.input_size})
    small = typical_speed(config).embedding_s
    assert typical_speed(config.model_copy(update={"sam": larger})).embedding_s == 4 * small
    without = config.model_copy(update={"sam": config.sam.model_copy(update={"model": "none"})})
    assert typical_speed(without).embedding_s == 0.0


def test_cross_fitted_networks_of_later_rounds_label_cases_before_they_train(
    project: Project,
) -> None:
    steps = planned_steps(read_preset("quick"), project, Speed(1.8, 0.1))
    before_s = {
        (step.round, step.task): step.before_s for step in steps if "cross-fitted" in step.task
    }
    assert before_s[1, "cross-fitted-1-liver"] == 0
    assert before_s[2, "cross-fitted-1-liver"] == before_s[2, "cross-fitted-2-liver"] > 0
    assert before_s[2, "cross-fitted-1-tumour"] == 0  # labelled once, before the first stage


def test_what_is_trained_to_compare_with_learns_from_labels_alone(project: Project) -> None:
    config = read_preset("demo").model_copy(update={"paradigm": "mean_teacher"})
    steps = planned_steps(config, project, Speed(1.8, 0.1))
    trained, compared = (
        step for step in steps if step.task == "specialist-liver" and step.round == 1
    )
    assert trained.unit_s == pytest.approx(1.8 * compared.unit_s)
    assert trained.kind != compared.kind


def test_what_semisam_asks_of_sam_is_planned(project: Project) -> None:
    config, speed = read_preset("demo"), Speed(1.8, 0.1)
    asking = with_overrides(config, {"method": "semisam", "semisam": {"gate": False}})
    alone = with_overrides(asking, {"method": "specialist"})
    clicking = with_overrides(asking, {"semisam": {"prompts": "clicks", "clicks": 3}})
    alone_s, asking_s, clicking_s = (
        next(s for s in planned_steps(one, project, speed) if s.task == "specialist-liver")
        for one in (alone, asking, clicking)
    )
    sam_s = PROMPTING_SHARE * speed.embedding_s * config.organ.batch_size
    assert asking_s.unit_s - alone_s.unit_s == pytest.approx(sam_s)
    assert clicking_s.unit_s - alone_s.unit_s == pytest.approx(3 * sam_s)
    assert asking_s.before_s - alone_s.before_s == pytest.approx(0.1 * 40 * UNLABELLED)


def test_cross_fitted_networks_do_not_ask_sam(project: Project) -> None:
    config = with_overrides(read_preset("quick"), {"method": "semisam"})
    steps = planned_steps(config, project, Speed(1.8, 0.1))
    asking, cross_fitted = (
        next(step for step in steps if step.task == task)
        for task in ("specialist-liver", "cross-fitted-1-liver")
    )
    assert cross_fitted.unit_s < asking.unit_s
