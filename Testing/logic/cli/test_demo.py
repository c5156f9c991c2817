"""The demonstration makes its project once, and goes on without SAM when it must, saying so."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aslseg.cli import demo
from aslseg.cli.main import app
from aslseg.data.phantom.dataset import make_phantom
from aslseg.errors import CancelledError, WeightsError
from aslseg.events import Event, Monitor, Notice
from aslseg.project.project import Project


@pytest.fixture
def a_demo_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project of the demonstration on a grid so coarse that it is made in a moment."""
    coarse = partial(make_phantom, shape=(10, 32, 38), spacing_mm=(16.0, 10.0, 10.0))
    monkeypatch.setattr("aslseg.data.phantom.dataset.make_phantom", coarse)
    return demo.demo_project(tmp_path, Monitor())


def test_two_of_ten_volumes_are_labelled_and_three_held_out(a_demo_project: Project) -> None:
    numbers = [
        len(cases)
        for cases in (a_demo_project.labelled, a_demo_project.unlabelled, a_demo_project.validation)
    ]
    assert numbers == [2, 5, 3]


def test_the_command_says_how_many_volumes_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        msg = "Stopped."
        raise CancelledError(msg)

    monkeypatch.setattr("aslseg.cli.demo.run_demo", stop)
    said = CliRunner().invoke(app, ["demo", str(tmp_path)], env={"COLUMNS": "300"}).output
    assert "2 labelled, 5 unlabelled, 3 held out" in said
    said = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "300"}).output
    assert "10 volumes, 2 of them labelled, 3 held out" in said


def test_the_project_names_no_label_of_an_unlabelled_case(a_demo_project: Project) -> None:
    text = (a_demo_project.folder / "project.json").read_text(encoding="utf-8")
    assert "truth" not in text
    names = {path.name[:10] for path in (a_demo_project.folder / "labels").iterdir()}
    assert not names & {case.id for case in a_demo_project.unlabelled}
    hidden = {path.name[:10] for path in (a_demo_project.folder.parent / "data/truth").iterdir()}
    assert hidden == {case.id for case in a_demo_project.unlabelled}


def test_a_second_demonstration_uses_the_project_that_is_there(
    a_demo_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("aslseg.cli.demo.create_phantom_project")
    again = demo.demo_project(a_demo_project.folder.parent, Monitor())
    assert again.cases == a_demo_project.cases


def test_with_weights_the_preset_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aslseg.cli.demo.get_weights", lambda *_: Path("mobile_sam.pt"))
    config = demo.demo_config(Monitor())
    assert (config.preset, config.sam.model) == ("demo", "vit_t")


def test_without_weights_the_run_goes_on_without_sam_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        msg = "No mobile_sam weights."
        raise WeightsError(msg)

    received: list[Event] = []
    monkeypatch.setattr("aslseg.cli.demo.get_weights", fail)
    config = demo.demo_config(Monitor(received.append))
    assert config.sam.model == "none"
    assert received == [Notice("This run goes on WITHOUT SAM. No mobile_sam weights.")]
