"""A project of schema version 1, made by commit c707233, is read and gone on with.

`schema_1/project.zip` holds two labelled cases, an accepted one (c2), one without label (c3) and
one for validation (c4). Its run finished round 1, was asked for another round after c2 was
accepted, and was stopped in it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg import run_names, schema_1
from aslseg.cli.main import app
from aslseg.config import read_run_config
from aslseg.data.images import read_labelmap
from aslseg.errors import ProjectError
from aslseg.inference.loading import load_ensemble
from aslseg.project.project import Project, open_project
from aslseg.project.review import accept, reject, undo_last
from aslseg.project.review_order import review_queue
from aslseg.project.run_folder import RunFolder, open_run, runs_of
from aslseg.project.run_tables import read_reliability, read_scores
from aslseg.report.data import read_run
from aslseg.report.report import write_report
from aslseg.runs import resume_run

ZIP = Path(__file__).parent / "schema_1" / "project.zip"
OLD = ("voices", "voices.json", "voice_agreement", "emptied", "legs", "learnt", "since", "view")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(tmp_path)
    return open_project(tmp_path)


@pytest.fixture
def run(project: Project) -> RunFolder:
    return open_run(project.folder, "first")


def version_of(project: Project) -> int:
    return int(
        json.loads((project.folder / "project.json").read_text(encoding="utf-8"))["schema_version"]
    )


def old_names(run: RunFolder) -> set[str]:
    """Names of version 1 that occur in the run's files and folders."""
    found = {path.name for path in run.path.rglob("*") if path.name in OLD}
    for path in run.path.rglob("*.json"):
        found |= {name for name in OLD if f'"{name}"' in path.read_text(encoding="utf-8")}
    for path in run.path.glob("round-*/*.csv"):
        found |= {"stage", *OLD} & set(path.read_text(encoding="utf-8").splitlines()[0].split(","))
    return found


def test_its_curves_are_about_tasks_and_predictions(run: RunFolder) -> None:
    about = {(point.name, point.line) for point in read_run(run.path).curves}
    assert ("loss", "specialist-liver") in about
    assert {line for name, line in about if name == "validation dice liver"} == {
        "specialist",
        "refined",
    }
    old = {"event": "metric", "name": "loss", "value": 1.0, "step": 0}
    assert schema_1.renamed_metric({**old, "stage": "sam"}) == {**old, "source": "sam"}
    assert schema_1.renamed_metric({**old, "stage": "sam-liver"}) == {**old, "task": "sam-liver"}


def test_it_is_opened_and_listed_as_it_is(project: Project, run: RunFolder) -> None:
    assert [case.id for case in project.labelled] == ["c0", "c1", "c2"]
    assert [found.run_id for found in runs_of(project.folder)] == ["first"]
    assert (run.state, run.rounds, run.retrained_rounds) == ("cancelled", [1], (1, 2))
    assert (run.status.patience_start, len(run.status.label_digests)) == (2, 3)
    assert run.status.task == "Segmenting for comparison"
    assert run.config.organ.roi.pixel_mm == 3.0
    assert version_of(project) == 1


def test_settings_that_were_renamed_since_version_2_are_read(run: RunFolder) -> None:
    path = run.path / "config.json"
    for old in ("voices", "predictions", "context_slices"):
        path.write_text(json.dumps({"adaptation": {old: 2}}), encoding="utf-8")
        assert read_run_config(path).adaptation.context_slices == 2


def test_its_tables_are_read(run: RunFolder) -> None:
    scores = read_scores(run.round(1))
    assert [(s.source, s.target) for s in scores] == [
        (source, target) for source in ("specialist", "refined") for target in ("liver", "tumour")
    ]
    assert [(r.case, r.prediction_agreement) for r in read_reliability(run.round(1))] == [
        ("c2", 0.9936), ("c3", 0.9936),
    ]  # fmt: skip


def test_it_is_reviewed(project: Project, run: RunFolder) -> None:
    (waiting,) = review_queue(project, run)
    assert (waiting.case_id, waiting.state, waiting.score) == ("c3", "needs review", 0.8967)
    assert waiting.refined == run.path / "round-01" / "voices" / "c3" / "refined.nii.gz"
    accept(project, run, "c3")
    assert version_of(project) == run_names.SCHEMA_VERSION
    assert [case.id for case in open_project(project.folder).labelled] == ["c0", "c1", "c2", "c3"]
    assert undo_last(project)[1].what == "accepted"
    assert undo_last(project)[1].case_id == "c2"


def test_a_decision_upgrades_the_project_alone(project: Project, run: RunFolder) -> None:
    reject(project, "c3")
    assert version_of(project) == run_names.SCHEMA_VERSION
    assert (run.path / "round-01" / "voices" / "c3" / "voices.json").exists()


def test_it_is_reported(project: Project, run: RunFolder) -> None:
    text = write_report(run.path).read_text(encoding="utf-8")
    assert text.count("<figure>") == 3
    assert "organ.roi.pixel_mm" in text
    assert "organ.view" not in text
    assert version_of(project) == 1


def test_its_networks_segment(project: Project, run: RunFolder, tmp_path: Path) -> None:
    case = project.case("c3")
    refined = load_ensemble(run).segment(project.load_image(case)).refined.labels
    saved = read_labelmap(run.predictions(1, "c3") / "refined.nii.gz").labels
    assert np.mean(refined != saved) < 0.01
    image = project.image_path(case)
    result = CliRunner().invoke(
        app, ["segment", str(run.path), str(image), "-o", str(tmp_path / "out"), "--voices"]
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "ct3.nii.gz", "ct3.specialist.nii.gz", "cases.csv", "lesions.csv", "origin.json",
    }  # fmt: skip
    assert version_of(project) == 1


def test_it_is_resumed_in_the_names_of_today(project: Project, run: RunFolder) -> None:
    resume_run(project, "first")
    assert version_of(project) == run.status.schema_version == run_names.SCHEMA_VERSION
    assert (run.state, run.rounds, run.retrained_rounds) == ("done", [1, 2], (1, 2))
    assert old_names(run) == set()
    assert [s.source for s in read_scores(run.round(1))][::2] == ["specialist", "refined"]
    assert {path.name for path in run.predictions(1, "c3").iterdir()} == {
        "specialist.nii.gz", "refined.nii.gz", "prompts.json", "prediction.json",
    }  # fmt: skip
    assert run.predictions(2, "c3").parent.name == "predictions"


def test_an_upgrade_that_was_interrupted_is_finished(run: RunFolder) -> None:
    scores, config = read_scores(run.round(1)), run.config
    (run.path / "round-01" / "voices").rename(run.path / "round-01" / "predictions")
    assert len(read_scores(run.round(1))) == 4
    schema_1.upgrade_run(run.path)
    schema_1.upgrade_run(run.path)
    assert old_names(run) <= {"legs", "learnt", "since"}  # status.json is written by the run
    assert (read_scores(run.round(1)), run.config) == (scores, config)
    assert read_run_config(run.path / "config.json") == config


def test_a_program_of_before_refuses_a_project_of_today(project: Project) -> None:
    path = project.folder / "project.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 3')
    )
    with pytest.raises(ProjectError, match="has schema version 3, this program reads 1 and 2"):
        open_project(project.folder)
