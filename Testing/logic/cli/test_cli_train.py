"""`aslseg train` starts, resumes and adds rounds, and says so when it cannot do what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import Result

from aslseg.errors import CancelledError
from aslseg.project.project import Project
from aslseg.project.run_folder import open_run
from support.command_line import aslseg
from support.tiny_project import a_tiny_project, tiny_config


def train(project: Project, *words: object) -> Result:
    given = ["train", str(project.folder), *map(str, words)]
    return aslseg(*given)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    torch.set_num_threads(1)
    return a_tiny_project(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(tiny_config(method="specialist", rounds=1).model_dump_json())
    return path


def test_more_adds_rounds_to_the_latest_run(project: Project, settings: Path) -> None:
    assert train(project, "--config", settings, "--run", "one").exit_code == 0
    first = (project.folder / "runs" / "one" / "round-01" / "round.json").read_bytes()
    result = train(project, "--more", 1)
    assert result.exit_code == 0, result.output
    run = open_run(project.folder, "one")
    assert run.rounds == [1, 2]
    assert run.status.state == "done"
    assert (run.round(1) / "round.json").read_bytes() == first
    assert "Report:" in result.output


def test_rounds_are_not_added_to_a_run_that_is_not_there(project: Project) -> None:
    result = train(project, "--more", 1)
    assert result.exit_code == 1
    assert "no run" in result.stderr.lower()


@pytest.mark.parametrize("words", [("--resume",), ("--more", 1)])
@pytest.mark.parametrize("setting", [("--set", "rounds=3"), ("--preset", "quick")])
def test_settings_of_a_run_cannot_be_changed(
    project: Project, words: tuple[object, ...], setting: tuple[str, str]
) -> None:
    result = train(project, *words, *setting)
    assert result.exit_code == 2
    assert "keeps the settings" in result.stderr


def test_resume_and_more_are_two_wishes(project: Project) -> None:
    result = train(project, "--resume", "--more", 1)
    assert result.exit_code == 2
    assert "give one" in result.stderr


def test_a_short_round_that_is_stopped_says_how_it_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        msg = "Stopped."
        raise CancelledError(msg)

    monkeypatch.setattr("aslseg.runs.train_on", stop)
    result = aslseg("finetune", project.folder)
    assert result.exit_code == 130
    assert f"Go on with: aslseg train {project.folder} --resume" in result.stderr
