"""The speed of a computer is measured once for its settings, and an estimate made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aslseg.config import SamConfig
from aslseg.errors import ProjectError
from aslseg.presets import read_preset
from aslseg.project.project import Project
from aslseg.runs import estimate_run
from aslseg.sam import precision
from aslseg.targets import LIVER_TARGETS, cascade_stages
from aslseg.training import calibration
from aslseg.training.calibration import Speed, speed_of
from aslseg.training.run_plan import PlannedStep, estimate_of, planned_steps
from support.sam_doubles import a_small_sam
from support.tiny_project import a_tiny_project, tiny_config

CPU = torch.device("cpu")
STAGE = cascade_stages(LIVER_TARGETS)[0]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What was measured, instead of measuring it, with an empty cache."""
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    seen: list[str] = []

    def measure(config: object, *_: object) -> Speed:
        seen.append(type(config).__name__)
        return Speed(2.0, 0.25)

    monkeypatch.setattr(calibration, "measure_speed", measure)
    return seen


def test_the_speed_is_measured_with_the_settings_of_the_run() -> None:
    speed = calibration.measure_speed(tiny_config(), STAGE, CPU)
    assert speed.training_s > 0
    assert speed.embedding_s == 0.0  # these settings have no SAM


def test_measuring_sam_tries_no_precision_with_its_random_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "mixed_precision", lambda _: True)
    seen: list[torch.dtype] = []

    def embed(sam: nn.Module, slices01: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append(dtype)
        return slices01

    monkeypatch.setattr(calibration, "embed_slices", embed)
    monkeypatch.setattr(calibration, "build_sam", lambda *_, **__: a_small_sam())
    for wish in ("auto", "float32"):
        sam = SamConfig(model="vit_t", input_size=128, precision=wish)
        calibration.measure_speed(tiny_config(sam=sam), STAGE, CPU)
    assert seen == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert not (tmp_path / "cache").exists()


def test_it_is_measured_once_for_the_same_settings(measured: list[str]) -> None:
    config = tiny_config()
    assert speed_of(config, STAGE, CPU) == speed_of(config, STAGE, CPU) == Speed(2.0, 0.25)
    assert len(measured) == 1
    speed_of(config.model_copy(update={"sam": SamConfig(model="vit_t")}), STAGE, CPU)
    assert len(measured) == 2
    exact = SamConfig(model="vit_t", precision="float32")
    speed_of(config.model_copy(update={"sam": exact}), STAGE, CPU)
    assert len(measured) == 3


def test_what_is_damaged_in_the_cache_is_measured_again(measured: list[str]) -> None:
    config = tiny_config()
    speed_of(config, STAGE, CPU)
    for path in calibration.cache_folder().glob("speed-*.json"):
        path.write_text("{", encoding="utf-8")
    speed_of(config, STAGE, CPU)
    assert len(measured) == 2


def test_an_estimate_is_the_sum_of_its_steps() -> None:
    steps = [PlannedStep(1, "a", "a", 10, 2.0), PlannedStep(2, "b", "b", 4, 0.5)]
    found = estimate_of(steps)
    assert (found.rounds, found.steps, found.seconds) == (2, 2, 22.0)


def test_more_rounds_and_slower_computers_take_longer(tmp_path: Path) -> None:
    project, config = a_tiny_project(tmp_path), read_preset("quick")

    def seconds(rounds: int, speed: Speed) -> float:
        changed = config.model_copy(update={"rounds": rounds})
        return estimate_of(planned_steps(changed, project, speed)).seconds

    assert seconds(2, Speed(1.0, 0.1)) < seconds(3, Speed(1.0, 0.1))
    assert seconds(2, Speed(2.0, 0.2)) == pytest.approx(2 * seconds(2, Speed(1.0, 0.1)))


def test_a_run_is_estimated_without_being_started(tmp_path: Path, measured: list[str]) -> None:
    project: Project = a_tiny_project(tmp_path)
    found = estimate_run(project, tiny_config())
    assert found.rounds == 2
    assert found.seconds > 0
    assert not (project.folder / "runs").exists()


def test_without_a_label_there_is_nothing_to_estimate(tmp_path: Path) -> None:
    project = a_tiny_project(tmp_path)
    unlabelled = [case.model_copy(update={"label": None}) for case in project.cases]
    with pytest.raises(ProjectError, match="label"):
        estimate_run(project.model_copy(update={"cases": tuple(unlabelled)}), tiny_config())
