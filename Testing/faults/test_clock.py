"""A clock that goes backwards, or stands still, changes no result and loses nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aslseg.project import open_project
from aslseg.review import history
from aslseg.runfolder import open_run
from faults import hooks, warm
from faults.campaigns import Campaign, count, draws
from faults.checks import assert_calm, assert_no_leftovers, human_labels
from faults.decisions import decide_all, told
from faults.small import Template, a_template, config_without_sam, results_of

pytestmark = pytest.mark.slow

SETUP = ((hooks.save_often,), (hooks.without_report,))
DAY_S = 24 * 3600.0
RUN_LIMIT_S = 120.0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A project with a finished run `a`."""
    made = a_template(tmp_path_factory.mktemp("clock") / "template", config_without_sam())
    project = made.folder / "project"
    ended = warm.aslseg("train", project, "--run", "a", "--config", made.config, setup=SETUP)
    assert_calm(ended, codes=(0,), limit_s=RUN_LIMIT_S)
    return made


def test_training_while_the_clock_goes_back(
    campaign: Campaign, template: Template, tmp_path: Path
) -> None:
    draw = draws("clock")
    whole = results_of(template.folder / "project")
    for number in range(count(short=2, full=10)):
        back, after = draw.choice([60.0, DAY_S, 400 * DAY_S]), draw.randint(0, 400)
        with campaign.case(f"{back:.0f} s back after {after} readings"):
            project = template.copy(tmp_path / str(number))
            _put_into_the_future(project / "runs" / "a")
            turned = (hooks.turn_clock_back, back, after)
            ended = warm.aslseg(
                *("train", project, "--run", "b", "--config", template.config),
                setup=[*SETUP, turned],
            )
            assert_calm(ended, codes=(0,), limit_s=RUN_LIMIT_S)
            assert results_of(project, "b") == whole
            assert open_run(project).run_id == "b", "the latest run is not the one made last"
            assert_no_leftovers(project)


def _put_into_the_future(folder: Path) -> None:
    """Let files be of tomorrow, as they are after the clock was put right."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() + DAY_S, time.time() + DAY_S))


def test_decisions_while_the_clock_goes_back_or_stands(
    campaign: Campaign, template: Template, tmp_path: Path
) -> None:
    """All label maps are in the history, and undo takes back what was decided last."""
    steps = ("accept", "correct", "save", "correct", "save", "undo", "correct", "undo", "undo")
    plain = _decided(template.copy(tmp_path / "plain"), steps, [])
    clocks = {
        "stands": [(hooks.stop_clock,)],
        **{f"back after {n}": [(hooks.turn_clock_back, DAY_S, n)] for n in range(3)},
    }
    for name, setup in clocks.items():
        with campaign.case(name):
            assert _decided(template.copy(tmp_path / name), steps, setup) == plain


def _decided(
    project: Path, steps: tuple[str, ...], setup: list[tuple[object, ...]]
) -> tuple[object, ...]:
    """Take decisions in one child; return contents that exist, the last state, and the lines."""
    ended = warm.start(decide_all, project, steps, setup=setup).ended()
    assert_calm(ended, codes=(0,))
    contents = sorted(set(human_labels(project).values()))
    lines = [(line.what, line.undoes) for line in history(open_project(project))]
    return contents, told(project), lines
