"""Killed at any moment, a command leaves old or new files, and the next start ends as ever.

Moments are drawn in time, among all calls that change the folder, and around every kind of rename.
"""

from __future__ import annotations

import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aslseg.project.project import open_project
from aslseg.project.review import decisions
from aslseg.project.run_folder import RunFolder
from faults import hooks, warm
from faults.campaigns import Campaign, count, draws
from faults.checks import (
    assert_all_readable,
    assert_calm,
    assert_labels_kept,
    assert_lock_is_free,
    assert_no_leftovers,
    human_labels,
)
from faults.children import Ended
from faults.decisions import decide, told
from faults.small import Template, a_template, config_without_sam, results_of
from support.whole_runs import contents

pytestmark = pytest.mark.slow

SETUP = ((hooks.use_small_sam,), (hooks.save_often,), (hooks.without_report,))
RUN_LIMIT_S = 120.0  # of a whole training, on a machine that does other things too


@dataclass(frozen=True)
class Moment:
    """When a child is killed.

    Attributes:
        share: Part of the undisturbed time that it is given; None when a call decides.
        setup: Hook that kills it at a call, in the folder.
    """

    name: str
    share: float | None = None
    hook: tuple[Any, ...] = ()

    def setup(self, folder: Path) -> list[tuple[Any, ...]]:
        """Return the hook, laid into a folder."""
        return [(self.hook[0], folder, *self.hook[1:])] if self.hook else []


def moments(calls: Sequence[str], draw: random.Random, number: int) -> list[Moment]:
    """Draw moments: two fifths in time, the others at calls and around renames."""
    renamed = sorted({_pattern(line) for line in calls if line.startswith("rename ")})
    found = []
    for index in range(number):
        if index % 5 in (0, 3):
            share = draw.random()
            found.append(Moment(f"after {share:.3f} of the time", share))
        elif index % 5 == 1:
            call = draw.randint(1, len(calls))
            found.append(Moment(f"at call {call}", hook=(hooks.kill_at_call, call)))
        else:
            path, after = draw.choice(renamed), draw.random() < 0.5
            name = f"{'after' if after else 'before'} the rename to {path}"
            found.append(Moment(name, hook=(hooks.kill_at_rename, path, after)))
    return found


def _pattern(line: str) -> str:
    return re.sub(r"-[0-9a-f]{8}\b", "-*", line.removeprefix("rename "))


@dataclass(frozen=True)
class Undisturbed:
    """What a command does when it is left alone."""

    calls: list[str]
    seconds: float
    results: dict[str, object]


def killed(
    arguments: Sequence[str | Path], folder: Path, moment: Moment, whole: Undisturbed
) -> Ended:
    """Run a command and kill it at a moment, unless it ends before."""
    child = warm.start_aslseg(*arguments, setup=[*SETUP, *moment.setup(folder)])
    if moment.share is not None:
        time.sleep(moment.share * whole.seconds)
        child.kill()
    ended = child.ended(RUN_LIMIT_S)
    assert ended.code in (-9, 0), f"exit code {ended.code}\n{ended.err[-2000:]}"
    assert not ended.orphans, ended.orphans
    return ended


def undisturbed(
    arguments: Sequence[str | Path], folder: Path, calls: Path
) -> tuple[list[str], float]:
    """Run a command to its end; return its calls and the time it took."""
    ended = warm.aslseg(*arguments, setup=[*SETUP, (hooks.list_calls, folder, calls)])
    assert_calm(ended, codes=(0,), limit_s=RUN_LIMIT_S)
    return calls.read_text(encoding="utf-8").splitlines(), ended.seconds


def train(project: Path, *more: str) -> list[str | Path]:
    return ["train", project, "--run", "a", *more]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return a_template(tmp_path_factory.mktemp("kill") / "template")


@pytest.fixture(scope="module")
def trained(template: Template) -> Template:
    """The project with a finished run."""
    place = template.folder.with_name("trained")
    template.copy(place)
    ended = warm.aslseg(
        *train(place / "project", "--config", str(template.config)), setup=list(SETUP)
    )
    assert_calm(ended, codes=(0,), limit_s=RUN_LIMIT_S)
    return Template(place)


KNOWN = tuple(  # moments that once left something behind
    Moment(f"after the rename to {path}", hook=(hooks.kill_at_rename, path, True))
    for path in (
        "runs/a/round-01/crossfit/without-group-1/specialist-tumour.safetensors",
        "runs/a/round-02/specialist-tumour.safetensors",
    )
)


def test_train(campaign: Campaign, template: Template, tmp_path: Path) -> None:
    """Every fourth moment falls into a run with SAM, which takes twice as long."""
    without = template.folder / "without-sam.json"
    without.write_text(config_without_sam().model_dump_json())
    draw, number = draws("kill train"), count(short=3, full=100)
    shares = {template.config: number // 4, without: number - number // 4}
    labels = human_labels(template.folder / "project")
    images = contents(template.folder / "data")
    for config, share in shares.items():
        anew = ["--config", str(config)]
        alone = template.copy(tmp_path / f"{config.stem}-alone")
        calls, seconds = undisturbed(train(alone, *anew), alone, tmp_path / f"{config.stem}-calls")
        whole = Undisturbed(calls, seconds, dict(results_of(alone)))
        chosen = [*moments(calls, draw, share), *(KNOWN if config is without else ())]
        for index, moment in enumerate(chosen):
            place = tmp_path / f"{config.stem}-{index}"
            with campaign.case(f"{config.stem}, {moment.name}"):
                project = template.copy(place)
                ended = killed(train(project, *anew), project, moment, whole)
                _is_sound(project, labels)
                if ended.code == -9:
                    _resumed(project, anew, whole, draw.random() < 0.25, draw.random())
                assert contents(place / "data") == images
                found = results_of(project)
                assert found.keys() == whole.results.keys(), found.keys() ^ whole.results.keys()
                assert found == whole.results
                assert_no_leftovers(place)
                assert RunFolder(project / "runs" / "a").status.state == "done"
            shutil.rmtree(place, ignore_errors=True)


def _is_sound(project: Path, labels: dict[str, bytes]) -> None:
    assert human_labels(project) == labels
    assert_all_readable(project)
    assert_lock_is_free(project / "runs" / "a" / "lock")


def _resumed(
    project: Path, anew: Sequence[str], whole: Undisturbed, twice: bool, share: float
) -> None:
    """Go on with a run that was killed; with `twice`, it is killed once more on the way."""
    labels = human_labels(project)
    if twice:
        killed(_next(project, anew), project, Moment("again", share / 2), whole)
        _is_sound(project, labels)
    assert_calm(
        warm.aslseg(*_next(project, anew), setup=list(SETUP)), codes=(0,), limit_s=RUN_LIMIT_S
    )
    _is_sound(project, labels)


def _next(project: Path, anew: Sequence[str]) -> list[str | Path]:
    begun = (project / "runs" / "a" / "config.json").exists()
    return train(project, "--resume") if begun else train(project, *anew)


def test_segment_and_export(campaign: Campaign, trained: Template, tmp_path: Path) -> None:
    images = sorted((trained.folder / "data").glob("ct*.nii.gz"))[:2]
    commands: dict[str, list[str | Path]] = {
        "segment": ["segment", trained.folder / "project", *images, "--voices", "-o"],
        "export": ["export", trained.folder / "project", "--labels", "all"],
    }
    wholes = {}
    for name, command in commands.items():
        alone = tmp_path / f"{name}-alone"
        calls, seconds = undisturbed(
            [*command, alone / "out"], tmp_path, tmp_path / f"{name}-calls"
        )
        wholes[name] = Undisturbed(calls, seconds, dict(contents(alone / "out")))
    draw = draws("kill segment and export")
    before = contents(trained.folder)
    number = count(short=4, full=50)
    for name, command in commands.items():
        for index, moment in enumerate(moments(wholes[name].calls, draw, number // 2)):
            out = tmp_path / f"{name}-{index}"
            with campaign.case(f"{name} {moment.name}"):
                killed([*command, out / "out"], tmp_path, _at(moment, name, index), wholes[name])
                assert_all_readable(out)
                assert _of_the_trained(trained, before) == []
                again = ["--force"] if name == "segment" else []
                if name == "segment" or not (out / "out").exists():
                    assert_calm(
                        warm.aslseg(*command, out / "out", *again, setup=list(SETUP)),
                        codes=(0,),
                        limit_s=RUN_LIMIT_S,
                    )
                assert _without_times(contents(out / "out")) == _without_times(wholes[name].results)
                assert_no_leftovers(out)
                assert_no_leftovers(trained.folder)


def _without_times(found: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the file that says when the others were written."""
    return {name: content for name, content in found.items() if name != "origin.json"}


def _at(moment: Moment, name: str, index: int) -> Moment:
    """Aim a rename of the undisturbed folder at that of a case."""
    if not moment.hook or moment.hook[0] is not hooks.kill_at_rename:
        return moment
    _, path, after = moment.hook
    aimed = path.replace(f"{name}-alone/", f"{name}-{index}/")
    return Moment(moment.name, hook=(hooks.kill_at_rename, aimed, after))


def _of_the_trained(trained: Template, before: dict[str, bytes]) -> list[str]:
    """Name what is gone or other in the project that was read; its cache may grow."""
    now = contents(trained.folder)
    return [name for name, data in before.items() if now.get(name) != data]


def test_labels_are_kept_at_every_call_of_a_decision(
    campaign: Campaign, trained: Template, tmp_path: Path
) -> None:
    """Every call that accept, correct, reject and undo make is tried, not some of them."""
    for what in ("accept", "correct", "reject", "undo"):
        alone = trained.copy(tmp_path / what)
        calls = tmp_path / f"{what}-calls"
        prepared = _prepared(what, alone)
        assert_calm(
            warm.start(decide, what, alone, setup=[(hooks.list_calls, alone, calls)]).ended(),
            codes=(0,),
        )
        new = told(alone)
        number = len(calls.read_text(encoding="utf-8").splitlines())
        for call in _some(range(1, number + 1), count(short=3, full=number)):
            with campaign.case(f"{what} at call {call}"):
                project = trained.copy(tmp_path / f"{what}-{call}")
                assert _prepared(what, project) == prepared
                old, labels = told(project), human_labels(project)
                ended = warm.start(
                    decide, what, project, setup=[(hooks.kill_at_call, project, call)]
                ).ended()
                assert ended.code == -9, ended.err
                _nothing_lost(project, labels)
                if what in ("accept", "reject"):
                    assert_labels_kept(project, labels)
                assert_all_readable(project)
                _repeated(project, what, old, new)
                assert_no_leftovers(project)


def _prepared(what: str, project: Path) -> list[str]:
    """Bring a project to where a decision makes a difference."""
    if what in ("correct", "undo"):
        decide("accept", project)
    return sorted(human_labels(project))


def _nothing_lost(project: Path, labels: dict[str, bytes]) -> None:
    """Every content of before is there, under its name or in the history."""
    now = set(human_labels(project).values())
    assert set(labels.values()) <= now


def _repeated(project: Path, what: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> None:
    """The state is that of before or after, and the decision can be taken again or is taken."""
    found = told(project)
    assert found in (old, new), found
    if found == new and what != "undo":
        line = decisions(open_project(project))[-1]
        assert line.what.startswith(what), "a decision without a line cannot be taken back"
    again = warm.start(decide, what, project).ended()
    assert_calm(again, codes=(0, 1))
    assert again.code == 0 or found == new, again.err
    if what != "undo":
        assert told(project) == new


def _some(numbers: Sequence[int], number: int) -> list[int]:
    """Return some numbers, first and last among them."""
    if number >= len(numbers):
        return list(numbers)
    last = len(numbers) - 1
    return sorted({numbers[round(index * last / (number - 1))] for index in range(number)})
