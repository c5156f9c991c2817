"""Every method runs through the same doors, and leaves the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.config import CpcSamConfig, RunConfig, SamConfig, ScSamConfig, SemiSamConfig
from aslseg.data.images import read_labelmap
from aslseg.errors import ConfigError
from aslseg.inference.loading import LOADERS
from aslseg.methods import METHODS, training_of
from aslseg.project.run_folder import open_run
from aslseg.project.run_tables import METRIC_COLUMNS, RELIABILITY_COLUMNS
from support.tiny_project import (
    SPECIALIST,
    TEST,
    UNLABELLED,
    VALIDATION,
    a_tiny_project,
    tiny_config,
)
from support.walk import entered_files
from support.whole_runs import rows_of

STAGE = SPECIALIST.model_copy(update={"iterations": 3, "batch_size": 2, "patch_size": 40})


def a_config() -> RunConfig:
    """Return settings that every method can run with; the method is chosen on the command line."""
    few = {"iterations": 2, "versions": 1}
    return tiny_config(
        rounds=2,
        patience=2,
        crossfit_share=0.0,
        organ=STAGE,
        lesion=STAGE,
        sam=SamConfig(model="vit_t", input_size=128, batch_size=2, **few),
        adaptation=tiny_config().adaptation.model_copy(update=few),
        semisam=SemiSamConfig(clicks=2),
        scsam=ScSamConfig(input_size=128, gate=False),
        cpcsam=CpcSamConfig(input_size=128),
    )


def aslseg(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_a_method_goes_from_the_command_line_to_label_maps_and_report(
    method: str, tmp_path: Path
) -> None:
    project = a_tiny_project(tmp_path).folder
    settings = tmp_path / "settings.json"
    settings.write_text(a_config().model_dump_json())

    aslseg("train", project, "--config", settings, "--set", f"method={method}")

    run = open_run(project)
    assert run.config.method == run.status.method == method
    assert run.status.state == "done"
    assert (run.path / "report.html").stat().st_size > 1000
    for number in (1, 2):
        scores = rows_of(run.round(number) / "metrics.csv")
        reliability = rows_of(run.round(number) / "reliability.csv")
        assert tuple(scores[0]) == METRIC_COLUMNS
        assert tuple(reliability[0]) == RELIABILITY_COLUMNS
        assert {"specialist", "refined"} <= {row["source"] for row in scores}
        assert {row["case"] for row in reliability} == set(UNLABELLED)
    for name in (*UNLABELLED, *VALIDATION, *TEST):
        assert (run.path / "labels" / f"{name}.nii.gz").exists()

    with entered_files() as entered:
        aslseg("segment", project, tmp_path / "data" / "ct6.nii.gz", "-o", tmp_path / "out")
    assert "aslseg/inference/loading.py" in entered
    assert not [name for name in entered if name.startswith("aslseg/training/")]
    found = read_labelmap(tmp_path / "out" / "ct6.nii.gz")
    np.testing.assert_array_equal(
        found.labels, read_labelmap(run.path / "labels" / "c6.nii.gz").labels
    )


def test_every_method_that_is_trained_can_be_loaded() -> None:
    assert METHODS.keys() == LOADERS.keys()


def test_an_unknown_method_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="aslseg, cpcsam, scsam, semisam, specialist"):
        training_of("magic")
