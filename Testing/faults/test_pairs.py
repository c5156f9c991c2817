"""Two programs work on one project at once, in every pairing: both are done, or one says no."""

from __future__ import annotations

import json
import shutil
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813

from aslseg.project.project import open_project
from aslseg.project.review import history
from faults import hooks, warm
from faults.campaigns import Campaign, count, is_full
from faults.checks import (
    assert_all_readable,
    assert_calm,
    assert_lock_is_free,
    assert_no_leftovers,
    human_labels,
)
from faults.children import Ended
from faults.decisions import decide, told
from faults.small import Template, a_patient, a_template, config_without_sam

pytestmark = pytest.mark.slow

SETUP = ((hooks.without_report,),)
RUN_LIMIT_S = 180.0
WORK = ("train", "save", "accept", "undo", "export")
FIRST, SECOND = ("c2", "c4")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A project with a finished run, and two decisions that can be taken back."""
    folder = tmp_path_factory.mktemp("pairs") / "template"
    made = a_template(folder, config_without_sam(), patients=7)
    project = made.folder / "project"
    ended = warm.aslseg("train", project, "--run", "a", "--config", made.config, setup=SETUP)
    assert_calm(ended, codes=(0,), limit_s=RUN_LIMIT_S)
    decide("accept", project, "c5")
    decide("correct", project, "c6")
    return made


@pytest.mark.parametrize("same", [False, True], ids=["two cases", "one case"])
def test_pairs(campaign: Campaign, template: Template, tmp_path: Path, same: bool) -> None:
    # Trainings take their time; beside them one case is what two programs meet at.
    work = WORK if same or is_full() else WORK[1:]
    for first, second in combinations_with_replacement(work, 2):
        for number in range(count(short=1, full=4)):
            with campaign.case(f"{first} and {second}, {number}"):
                place = tmp_path / f"{first}-{second}-{number}"
                project = template.copy(place)
                labels = human_labels(project)
                names = (FIRST, FIRST if same else SECOND)
                ended = _both(template, place, (first, second), names, same=same)
                _judge(project, labels, ((first, names[0]), (second, names[1])), ended)
                if not same:
                    assert [end.code for end in ended] == [0, 0], [end.err for end in ended]
            shutil.rmtree(place, ignore_errors=True)


def _both(
    template: Template, place: Path, work: tuple[str, str], names: tuple[str, str], *, same: bool
) -> list[Ended]:
    """Start two children, let them begin at once, and wait for both."""
    project, begin = place / "project", place / "begin"
    children = []
    for number, (what, case_id) in enumerate(zip(work, names, strict=True)):
        setup = [*SETUP, (hooks.wait_for, begin)]
        if what == "train":
            run = "b" if same else f"b{number}"
            arguments = ["train", project, "--run", run, "--config", template.config]
        elif what == "export":
            arguments = ["export", project, place / f"out{'' if same else number}"]
        else:
            children.append(warm.start(decide, what, project, case_id, setup=setup))
            continue
        children.append(warm.start_aslseg(*arguments, setup=setup))
    begin.touch()
    return [child.ended(RUN_LIMIT_S) for child in children]


def _judge(
    project: Path,
    labels: dict[str, bytes],
    work: tuple[tuple[str, str], ...],
    ended: list[Ended],
) -> None:
    for end, (what, _) in zip(ended, work, strict=True):
        assert_calm(end, codes=(0, 1), limit_s=RUN_LIMIT_S if what == "train" else 60.0)
    assert any(end.code == 0 for end in ended), [end.err for end in ended]
    assert_all_readable(project.parent)
    assert_no_leftovers(project.parent)
    for lock in project.rglob("*lock*"):
        assert_lock_is_free(lock)
    assert set(labels.values()) <= set(human_labels(project).values()), "a label is gone"
    done = [pair for pair, end in zip(work, ended, strict=True) if end.code == 0]
    _judge_cases(project, done)
    _judge_decisions(project, [what for what, _ in done])


def _judge_cases(project: Path, done: list[tuple[str, str]]) -> None:
    """What was saved is named by the project, and is what was given."""
    taken = [what for what, _ in done]
    for what, case_id in done:
        if what not in ("save", "accept") or ("undo" in taken and what == "accept"):
            continue
        status, label = told(project, case_id)
        assert status in ("labelled", "accepted"), f"{what} of {case_id} is lost: {status}"
        assert label is not None
        assert (project / label).exists()
        if what == "save" and "accept" not in taken:
            found = sitk.GetArrayFromImage(sitk.ReadImage(str(project / label)))
            assert (found == a_patient(int(case_id[1:]))[1].labels).all()
    names = {
        case["id"]
        for case in json.loads((project / "project.json").read_text(encoding="utf-8"))["cases"]
    }
    assert names == {f"c{number}" for number in range(7)}


def _judge_decisions(project: Path, done: list[str]) -> None:
    """Every decision has its line, each line its number, and nothing is taken back twice."""
    lines = history(open_project(project))
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert len(lines) == 2 + done.count("accept") + done.count("undo")
    undone = [line.undoes for line in lines if line.undoes]
    assert len(set(undone)) == len(undone) == done.count("undo")
