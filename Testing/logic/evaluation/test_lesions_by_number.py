"""Lesions of a case are decided about by number, without the panel."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg import storage
from aslseg.cli.main import app
from aslseg.data.images import write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError, StorageError
from aslseg.evaluation import lesions_by_number
from aslseg.evaluation.lesions_by_number import decide_lesions, finish_lesions, numbered_lesions
from aslseg.project import lesion_decisions
from aslseg.project.external_labels import add_external_labels
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion, read_lesions
from aslseg.project.project import Project, open_project
from aslseg.project.review import decisions, draw, undo_last
from aslseg.project.roles import assign
from aslseg.project.run_folder import RunFolder
from support.project_states import states_between
from support.tiny_project import GEOMETRY, a_tiny_project

LABELS = np.zeros(GEOMETRY.shape, np.uint8)
LABELS[1:9, 5:30, 5:30] = 1
LABELS[2, 8:11, 8:11] = 2  # 9 voxels
LABELS[5:7, 15:19, 15:19] = 2  # 32 voxels


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


@pytest.fixture
def run(project: Project, tmp_path: Path) -> RunFolder:
    (tmp_path / "out").mkdir()
    write_labelmap(Labelmap(LABELS, GEOMETRY), tmp_path / "out" / "c2.nii.gz")
    return add_external_labels(project, "nnU-Net", tmp_path / "out")


def states(project: Project, run: RunFolder) -> list[str]:
    return [row.state for row in numbered_lesions(project, run, "c2")[0].values()]


def test_numbers_stay_while_lesions_are_decided(project: Project, run: RunFolder) -> None:
    rows, _ = numbered_lesions(project, run, "c2")
    assert [row.voxels.voxels for row in rows.values()] == [9, 32]
    decide_lesions(project, run, "c2", round_number=1, accept=[2])
    assert states(project, run) == ["undecided", "accepted"]
    decide_lesions(project, run, "c2", round_number=1, delete=[1])
    assert states(project, run) == ["deleted", "accepted"]
    decide_lesions(project, run, "c2", round_number=1, undo=[1], delete=[2])
    assert states(project, run) == ["undecided", "deleted"]


def test_added_lesions_come_last_and_go(project: Project, run: RunFolder) -> None:
    mask = np.zeros(GEOMETRY.shape, np.bool_)
    mask[1, 25:28, 25:28] = True
    added = LesionDecision("added", "tumour", None, boxed(mask), "nnU-Net", 1)
    put_lesion(project, "c2", added)
    assert states(project, run) == ["undecided", "undecided", "added"]
    decide_lesions(project, run, "c2", round_number=1, accept=[3])
    assert states(project, run)[2] == "added"
    decide_lesions(project, run, "c2", round_number=1, delete=[3])
    assert len(states(project, run)) == 2
    put_lesion(project, "c2", added)
    assert 3 not in numbered_lesions(project, run, "c2")[0]  # as somebody may have read it
    with pytest.raises(ProjectError, match="3 is none of them"):
        decide_lesions(project, run, "c2", round_number=1, accept=[3])


def test_numbers_of_no_lesion_change_nothing(project: Project, run: RunFolder) -> None:
    for numbers in ({"accept": [1, 3]}, {"accept": [1], "delete": [1]}):
        with pytest.raises(ProjectError, match="each to be decided about once"):
            decide_lesions(project, run, "c2", round_number=1, **numbers)
    assert states(project, run) == ["undecided", "undecided"]


def test_the_command_decides_and_finishes(project: Project, run: RunFolder) -> None:
    words = ["lesions", str(project.folder), "c2"]
    listed = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert "2 lesions of c2; decide about them with --run nnU-Net/1" in listed.output
    words += ["--run", "nnU-Net/1"]
    assert CliRunner().invoke(app, [*words, "--accept", "1"]).exit_code == 0
    done = CliRunner().invoke(app, [*words, "--delete", "2", "--done"])
    assert done.exit_code == 0, done.output
    now = open_project(project.folder)
    labels = now.load_labels(now.case("c2")).labels
    assert np.count_nonzero(labels == 2) == 9
    assert CliRunner().invoke(app, [*words, "--accept", "one"]).exit_code == 2


def test_where_done_is_refused_nothing_is_decided(project: Project, run: RunFolder) -> None:
    """One lesion is left undecided; then the case has a label of its own; then it is to test."""
    words = ["lesions", str(project.folder), "c2", "--run", "nnU-Net/1"]
    file = project.lesion_path("c2")

    def refused(*numbers: str) -> str:
        before = file.read_bytes() if file.exists() else b""
        result = CliRunner().invoke(app, [*words, *numbers, "--done"], env={"COLUMNS": "200"})
        assert result.exit_code == 1, result.output
        assert (file.read_bytes() if file.exists() else b"") == before
        return " ".join(result.output.split())

    assert "1 lesions of case c2 are undecided" in refused("--accept", "1")
    assert states(project, run) == ["undecided", "undecided"]
    drawn = Labelmap(np.minimum(LABELS, 1), GEOMETRY)
    draw(project, "c2", drawn)
    assert "was drawn or may have been corrected" in refused("--accept", "1,2")
    undo_last(project)
    decide_lesions(project, run, "c2", round_number=1, accept=[1])
    assert "1 lesions of case c2 are undecided" in refused("--undo", "1", "--delete", "2")
    assign(open_project(project.folder), splits={"c2": "test"})
    assert "Case c2 is there to judge by (test)" in refused("--delete", "2")
    assert states(project, run) == ["accepted", "undecided"]
    assert open_project(project.folder).case("c2").label is None


def failing_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the disk be full at a write to the file of decisions, counted from 1."""
    fsync, count = storage.os.fsync, itertools.count(1)

    def full(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name == "c2.jsonl" and next(count) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(storage.os, "fsync", full)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files by their descriptors")
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_where_the_disk_is_full_between_decisions_none_is_kept(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch, number: int, done: bool
) -> None:
    words = ["lesions", str(project.folder), "c2", "--run", "nnU-Net/1"]
    words += ["--accept", "1", "--delete", "2", *(["--done"] if done else [])]
    with monkeypatch.context() as patch:
        failing_write(patch, number)
        refused = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    if refused.exit_code == 0:  # all decisions are one write
        assert (number, states(project, run)) == (2, ["accepted", "deleted"])
        return
    assert "the disk is full" in " ".join(refused.output.split())
    assert states(project, run) == ["undecided", "undecided"]
    assert open_project(project.folder).case("c2").label is None
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 0, again.output
    assert states(project, run) == ["accepted", "deleted"]


@pytest.mark.parametrize("where", ["write_labelmap", "replacing_project"])
def test_where_the_label_cannot_be_written_no_decision_is_kept(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from aslseg.project import project as module

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    decide_lesions(project, run, "c2", round_number=1, accept=[1])
    before = project.lesion_path("c2").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(module, where, full)
        with pytest.raises((StorageError, OSError)):
            finish_lesions(project, run, "c2", round_number=1, delete=[2])
    assert project.lesion_path("c2").read_bytes() == before
    assert decisions(open_project(project.folder)) == ()
    finish_lesions(project, run, "c2", round_number=1, delete=[2])
    assert open_project(project.folder).case("c2").label is not None


def told(folder: Path) -> tuple[object, ...]:
    """Return what a project says of case c2, and the label map that it has."""
    now = open_project(folder)
    case = now.case("c2")
    label = None if case.label is None else now.load_labels(case).labels.tobytes()
    made = [one.what for one in decisions(now)]
    kept = {n: one.what for n, one in read_lesions(now, "c2").decisions.items()}
    return case.model_dump(), label, made, kept


@pytest.mark.parametrize("again", [False, True])
def test_done_that_is_killed_has_decisions_and_label_or_neither(
    project: Project, run: RunFolder, again: bool
) -> None:
    if again:
        finish_lesions(project, run, "c2", round_number=1, accept=[1, 2])
        words = {"delete": [1]}
    else:
        decide_lesions(project, run, "c2", round_number=1, accept=[1])
        words = {"delete": [2]}
    before = told(project.folder)
    states = states_between(
        project.folder, lambda: finish_lesions(project, run, "c2", round_number=1, **words)
    )
    after = told(project.folder)
    found = [told(state) for state in states]
    assert [one == after for one in found] == sorted(one == after for one in found)
    assert [one for one in found if one not in (before, after)] == []
    assert (found[0], found[-1]) == (before, after)


@pytest.mark.parametrize("done", [False, True])
def test_where_the_outline_of_a_later_lesion_is_too_long_none_is_decided(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    read = lesions_by_number.read_review

    def with_noise(*shown: Any, **settings: Any) -> Any:
        rows, known = read(*shown, **settings)
        noise = boxed(np.random.default_rng(0).random((8, 25, 25)) > 0.5, (1, 5, 5))
        return [
            replace(row, voxels=noise) if row.found.voxels == 32 else row for row in rows
        ], known

    monkeypatch.setattr(lesions_by_number, "read_review", with_noise)
    monkeypatch.setattr(lesion_decisions, "MOST_LINE_BYTES", lesion_decisions._SPACES_BYTES + 1000)
    words = ["lesions", str(project.folder), "c2", "--run", "nnU-Net/1", "--accept", "1,2"]
    refused = CliRunner().invoke(app, [*words, *(["--done"] if done else [])])
    assert refused.exit_code == 1
    assert "too long to be kept" in " ".join(refused.output.split())
    assert read_lesions(project, "c2").decisions == {}


def test_where_the_label_is_damaged_done_decides_nothing(project: Project, run: RunFolder) -> None:
    (run.predictions(1, "c2") / "refined.nii.gz").write_bytes(b"no label map")
    words = ["lesions", str(project.folder), "c2", "--run", "nnU-Net/1", "--accept", "1,2"]
    assert CliRunner().invoke(app, [*words, "--done"]).exit_code == 1
    assert read_lesions(project, "c2").decisions == {}


def test_numbers_are_those_of_a_round_that_is_named(project: Project, run: RunFolder) -> None:
    """Round 2 ends after the list was read: it lacks the first lesion, and number 1 is another."""
    words, wide = ["lesions", str(project.folder), "c2"], {"COLUMNS": "200"}
    later = LABELS.copy()
    later[2] = np.minimum(later[2], 1)
    write_labelmap(Labelmap(later, GEOMETRY), run.predictions(2, "c2") / "refined.nii.gz")
    run.write_status(best_round=2)
    for unsaid in ([], ["--run", "nnU-Net"], ["--run", "nnU-Net/"], ["--run", "nnU-Net/0"]):
        for decision in (["--accept", "1"], ["--done"]):
            refused = CliRunner().invoke(app, [*words, *unsaid, *decision], env=wide)
            assert refused.exit_code == 2, unsaid
            assert "which list this is about" in refused.output
    assert read_lesions(project, "c2").decisions == {}
    read = CliRunner().invoke(app, [*words, "--run", "nnU-Net/1", "--accept", "1"], env=wide)
    assert read.exit_code == 0, read.output
    (decision,) = read_lesions(project, "c2").decisions.values()
    assert decision.final is not None
    assert (decision.round, decision.final.voxels) == (1, 9)


def test_what_is_saved_is_of_the_round_that_is_listed_though_another_one_is_best_by_then(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2, which ends while the lesions of round 1 are read, shows a liver without any."""
    later = Labelmap(np.minimum(LABELS, 1), GEOMETRY)
    write_labelmap(later, run.predictions(2, "c2") / "refined.nii.gz")
    read = lesions_by_number.read_review

    def meanwhile(*shown: Any, **settings: Any) -> Any:
        found = read(*shown, **settings)
        run.write_status(best_round=2)
        return found

    monkeypatch.setattr(lesions_by_number, "read_review", meanwhile)
    words = [
        "lesions",
        str(project.folder),
        "c2",
        "--run",
        "nnU-Net/1",
        "--accept",
        "1,2",
        "--done",
    ]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "2 lesions of c2; decide about them with --run nnU-Net/1" in done.output
    now = open_project(project.folder)
    assert np.array_equal(now.load_labels(now.case("c2")).labels, LABELS)
    assert {one.round for one in read_lesions(now, "c2").decisions.values()} == {1}
    assert [review.round for review in decisions(now)] == [1]
