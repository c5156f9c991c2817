"""Volumes that look like one patient are named, with what was found and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.data.images import write_volume
from aslseg.data.volume import Geometry, Volume
from aslseg.events import Event, Monitor, Notice, Progress
from aslseg.project import similar_bodies
from aslseg.project.case import CaseFiles
from aslseg.project.create import add_cases, create_project, select_cases
from aslseg.project.plan import Plan, with_facts
from aslseg.project.plan_bodies import look_alike
from aslseg.project.project import Project, open_project
from aslseg.project.roles import assign
from support.command_line import aslseg
from support.textured_bodies import SPACING_MM, a_body, moved
from support.tiny_project import a_patient

IDS = {"a": 0, "b": 1, "again": 0}
"""Names of volumes and the bodies that they show."""


@pytest.fixture
def files(tmp_path: Path) -> list[CaseFiles]:
    found = []
    for name, seed in IDS.items():
        voxels = moved(a_body(seed), 3.0, (1.0, 2.0, 0.0)) if name == "again" else a_body(seed)
        path = tmp_path / "data" / f"{name}.nii.gz"
        write_volume(
            Volume(
                np.rint(voxels).astype(np.int16), Geometry.axis_aligned(voxels.shape, SPACING_MM)
            ),
            path,
        )
        found.append(CaseFiles(name, path))
    return found


def notes_of(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


def made(folder: Path, files: list[CaseFiles]) -> tuple[Project, list[str]]:
    events: list[Event] = []
    project = create_project(folder, files, monitor=Monitor(events.append))
    return project, notes_of(events)


def test_a_new_project_is_told_who_looks_alike_and_what_to_do(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    project, (note,) = made(tmp_path / "p", select_cases(files, validation=["again"]))
    assert note.startswith("a (learn from) and again (check on) look like one patient: laid over")
    assert "of the smaller body overlap, and their fine structure has a correlation of 0." in note
    assert note.endswith(
        f"aslseg patients {project.folder} --patient again=a --split CASE=..., so that both are "
        "for one part."
    )


def test_volumes_that_are_said_to_be_of_one_patient_are_not_told_again(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    project, notes = made(tmp_path / "p", files)
    assert len(notes) == 1
    project = assign(project, patients={"again": "a"})
    assert similar_bodies.similar_pairs(project) == ([], [])


def test_an_added_volume_is_compared_with_those_that_are_there(
    tmp_path: Path, files: list[CaseFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, notes = made(tmp_path / "p", files[:2])
    assert notes == []
    # What is known of a and b comes from the cache: their images are not read again.
    monkeypatch.setattr(similar_bodies, "read_volume", None)
    events: list[Event] = []
    add_cases(project, files[2:], Monitor(events.append))
    assert [note.split(" look")[0] for note in notes_of(events)] == [
        "a (learn from) and again (learn from)"
    ]
    assert "comparing bodies" in {event.task for event in events if isinstance(event, Progress)}


@pytest.mark.parametrize("content", [b"", b"no array", None], ids=["empty", "foreign", "absent"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, files: list[CaseFiles], content: bytes | None
) -> None:
    project, _ = made(tmp_path / "p", files)
    kept = sorted((project.folder / similar_bodies.PLACE).iterdir())
    assert len(kept) == 3
    for path in kept:
        path.unlink() if content is None else path.write_bytes(content)
    ((match,), notes) = similar_bodies.similar_pairs(open_project(project.folder))
    assert {match.first, match.second} == {"a", "again"}
    assert notes == []
    assert all(path.stat().st_size > 10_000 for path in kept)


def test_pairs_that_matter_come_first_and_what_is_left_is_told(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    project, _ = made(tmp_path / "p", select_cases(files, test=["again"]))
    matches, notes = similar_bodies.similar_pairs(project, most=2)
    assert len(matches) == 1  # of a and b, both unlabelled for training, nothing is learnt
    assert notes == [
        "1 of 3 pairs of volumes were not compared for being of one patient; aslseg patients "
        f"{project.folder} --compare does so."
    ]


def test_what_cannot_be_compared_is_named_with_the_reason(tmp_path: Path) -> None:
    cases = [CaseFiles(name, tmp_path / f"{name}.nii.gz") for name in ("small", "other")]
    for number, case in enumerate(cases):
        write_volume(a_patient(number)[0], case.image)
    project, notes = made(tmp_path / "p", cases[:1])
    assert notes == []  # there is nothing that it could be compared with
    events: list[Event] = []
    add_cases(project, cases[1:], Monitor(events.append))
    (note,) = notes_of(events)
    assert note == (
        "Not compared with others for being of one patient: other; it shows less than 3 litres of "
        "a body."
    )


def test_a_stop_while_bodies_are_compared_leaves_the_project_and_says_so(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    events: list[Event] = []
    monitor = Monitor(events.append, interval_s=0)

    def stop(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.task == "comparing bodies":
            monitor.token.cancel()

    monitor.listener = stop
    project = create_project(tmp_path / "p", files, monitor=monitor)
    assert len(open_project(project.folder).cases) == 3
    assert notes_of(events)[-1].startswith("Looking for volumes of one patient was stopped")


def test_the_command_lists_patients_compares_and_changes(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    folder = made(tmp_path / "p", select_cases(files, validation=["again"]))[0].folder

    def shown(*words: str) -> str:
        result = CliRunner().invoke(app, ["patients", str(folder), *words])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "a (learn from) and again (check on) look like one patient" in shown("--compare")
    refused = CliRunner().invoke(app, ["patients", str(folder), "--patient", "again=a"])
    assert refused.exit_code == 1
    both = shown("--patient", "again=a", "--split", "again=train", "--compare")
    assert both.startswith("2 patients patient volumes a a (learn from), again (learn from) b b")
    assert both.endswith("No two volumes that were compared look like one patient.")
    assert CliRunner().invoke(app, ["patients", str(folder), "--split", "a"]).exit_code == 2


def test_a_plan_says_who_looks_alike_before_anything_is_written(
    tmp_path: Path, files: list[CaseFiles]
) -> None:
    plan = with_facts(Plan(tmp_path / "p", tuple(files)))
    (sentence,) = look_alike(plan)
    assert sentence.startswith("a and again look like one patient: laid over each other")
    assert sentence.endswith("give both one patient and one part.")
    first, second, third = files
    told = (first, second, replace(third, patient="a"))
    assert look_alike(replace(plan, cases=told)) == []
    words = ("init", str(tmp_path / "p"), str(first.image.parent), "--dry-run", "--compare")
    shown = aslseg(*words)
    assert "a and again look like one patient" in shown.output
    assert not (tmp_path / "p").exists()
