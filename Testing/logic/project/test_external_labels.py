"""Labels of another model: read, named by their origin, reviewed, and no person's before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aslseg.cli.main import app
from aslseg.data.images import read_labelmap, write_labelmap, write_volume
from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import ImageError, ProjectError, RunError
from aslseg.evaluation.lesions_by_number import decide_lesions, numbered_lesions
from aslseg.events import Event, Monitor, Notice
from aslseg.export.project import ExportOptions, export_project
from aslseg.project.case import CaseFiles
from aslseg.project.case_reports import case_reports
from aslseg.project.create import add_cases
from aslseg.project.edit import remove_cases
from aslseg.project.external_labels import (
    add_external_labels,
    copy_for_training,
    read_external,
    unknown_targets,
)
from aslseg.project.lesion_decisions import LesionDecision, boxed, put_lesion
from aslseg.project.lesion_labels import finish_case
from aslseg.project.overview import case_overviews
from aslseg.project.project import Project, open_project
from aslseg.project.renew_image import renew_image
from aslseg.project.review import accept, correct, decisions, reject
from aslseg.project.run_folder import (
    RunFolder,
    create_run,
    latest_finished,
    open_run,
    runs_of,
)
from aslseg.project.run_list import list_runs
from support.tiny_project import GEOMETRY, a_patient, a_tiny_project, tiny_config

LIVER = np.zeros(GEOMETRY.shape, np.bool_)
LIVER[2:8, 5:20, 5:20] = True
LESION = np.zeros(GEOMETRY.shape, np.bool_)
LESION[4, 8:11, 8:11] = True
BOTH = LIVER * np.uint8(1) + LESION * np.uint8(1)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


def written(path: Path, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelmap(Labelmap(labels.astype(np.uint8), GEOMETRY), path)
    return path


def refined(project: Project, origin: str, case_id: str) -> np.ndarray:
    path = open_run(project.folder, origin).predictions(1, case_id) / "refined.nii.gz"
    return read_labelmap(path).labels


def test_labels_are_reviewed_and_nobodys_before_a_person_accepts(
    project: Project, tmp_path: Path
) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    written(tmp_path / "out" / "c0.nii.gz", BOTH)  # a person has labelled this one
    run = add_external_labels(project, "nnU-Net", tmp_path / "out")
    assert list(read_external(run).cases) == ["c2"]
    now = open_project(project.folder)
    assert now.case("c2").label is None
    report = next(one for one in case_reports(now, run) if one.case_id == "c2")
    assert (report.state, report.reason) == (
        "needs review",
        "label of nnU-Net, nobody has looked at it",
    )
    accepted = accept(now, run, "c2")
    assert accepted.case("c2").status == "accepted"
    assert decisions(accepted)[-1].run == "nnU-Net"
    assert np.array_equal(accepted.load_labels(accepted.case("c2")).labels, BOTH)


def test_labels_of_another_image_are_no_ones_of_a_case_of_the_same_name(
    project: Project, tmp_path: Path
) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    add_external_labels(project, "nnU-Net", tmp_path / "out")
    remove_cases(project, ["c2"])
    write_volume(a_patient(21)[0], tmp_path / "new.nii.gz")
    with pytest.raises(ProjectError, match="'nnU-Net' has results of another image under the name"):
        add_cases(open_project(project.folder), [CaseFiles("c2", tmp_path / "new.nii.gz")])


def test_label_maps_without_a_voxel_of_any_target_are_named(
    project: Project, tmp_path: Path
) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    written(tmp_path / "out" / "c3.nii.gz", np.zeros(GEOMETRY.shape))
    told: list[Event] = []
    add_external_labels(project, "nnU-Net", tmp_path / "out", monitor=Monitor(told.append))
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert "Labels of nnU-Net have no voxel of any target in c3: they" in notice.message


def test_files_of_no_case_are_named(project: Project, tmp_path: Path) -> None:
    for name in ("c2", "c0", "zz9"):
        written(tmp_path / "out" / f"{name}.nii.gz", BOTH)
    told: list[Event] = []
    add_external_labels(project, "nnU-Net", tmp_path / "out", monitor=Monitor(told.append))
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert "no case without a label has their name: c0.nii.gz, zz9.nii.gz." in notice.message


def test_labels_of_the_image_of_before_are_shown_reviewed_and_exported_no_more(
    project: Project, tmp_path: Path
) -> None:
    for case_id in ("c2", "c3"):
        written(tmp_path / "out" / f"{case_id}.nii.gz", BOTH)
    run = add_external_labels(project, "nnU-Net", tmp_path / "out")
    write_volume(a_patient(21)[0], project.image_path(project.case("c2")))
    renewed = renew_image(project, "c2")
    reports = {one.case_id: one for one in case_reports(renewed, run)}
    assert (reports["c2"].state, reports["c2"].refined) == ("unlabelled", None)
    assert reports["c3"].refined is not None
    rows = {row.report.case_id: row for row in case_overviews(renewed, run)}
    assert (rows["c2"].predictions, rows["c2"].turn) == (None, 0)
    for use in (
        lambda: accept(renewed, run, "c2"),
        lambda: finish_case(renewed, run, "c2"),
        lambda: numbered_lesions(renewed, run, "c2"),
    ):
        with pytest.raises(RunError, match="labels of another image of case c2 than it has now"):
            use()
    assert list(copy_for_training(renewed, "nnU-Net", tmp_path / "start")) == ["c3"]
    export_project(renewed, tmp_path / "export", ExportOptions(labels="all"))
    assert not (tmp_path / "export" / "c2.nii.gz").exists()
    assert (tmp_path / "export" / "c3.nii.gz").exists()
    written(tmp_path / "again" / "c2.nii.gz", BOTH)
    run = add_external_labels(renewed, "nnU-Net", tmp_path / "again")
    assert accept(renewed, run, "c2").case("c2").label is not None


def test_masks_of_each_target_become_one_label_map(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c3" / "liver.nii.gz", LIVER)
    written(tmp_path / "out" / "c3" / "liver_lesions.nii.gz", LESION)
    written(tmp_path / "out" / "c3" / "spleen.nii.gz", ~LIVER)
    names = {"liver": "liver", "tumour": "liver_lesions"}
    add_external_labels(project, "TotalSegmentator", tmp_path / "out", called=names)
    assert np.array_equal(refined(project, "TotalSegmentator", "c3"), BOTH)


def test_values_of_the_other_model_are_told(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c2.nii.gz", LIVER * np.uint8(5) + LESION * np.uint8(2))
    with pytest.raises(ImageError, match="no target"):
        add_external_labels(project, "other", tmp_path / "out")
    run = add_external_labels(project, "other", tmp_path / "out", called={"tumour": "7"})
    assert np.array_equal(refined(project, "other", "c2") == 2, LESION)
    assert unknown_targets(project, run, "c2") == {"liver"}
    with pytest.raises(ImageError, match="names no segments"):
        add_external_labels(project, "other", tmp_path / "out", called={"tumour": "lesion"})


def test_a_value_that_no_label_map_has_is_refused(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    written(tmp_path / "out" / "c3.nii.gz", LIVER)
    called = {"liver": "1", "tumour": "7"}
    with pytest.raises(ImageError, match="voxel of 7, which tumour is said to be; values are 1, 2"):
        add_external_labels(project, "other", tmp_path / "out", called=called)
    assert not runs_of(project.folder)
    with pytest.raises(ProjectError, match="called alike"):
        add_external_labels(
            project, "other", tmp_path / "out", called={"liver": "1", "tumour": "01"}
        )
    run = add_external_labels(
        project, "other", tmp_path / "out", called={"liver": "1", "tumour": "2"}
    )
    assert unknown_targets(project, run, "c3") == frozenset(), "the organ has no tumour"


def test_it_is_told_how_much_of_a_label_map_is_left_on_its_image(
    project: Project, tmp_path: Path
) -> None:
    moved = GEOMETRY.ijk_to_ras.copy()
    moved[0, 3] += 20
    aside = Geometry((11, *GEOMETRY.shape[1:]), moved)
    (tmp_path / "out").mkdir()
    write_labelmap(Labelmap(BOTH[:11], aside), tmp_path / "out" / "c2.nii.gz")
    told: list[Event] = []
    add_external_labels(project, "other", tmp_path / "out", monitor=Monitor(told.append))
    (notice,) = [event for event in told if isinstance(event, Notice)]
    assert "label 1 keeps 67 % of its volume; label 2 keeps 33 %" in notice.message


def test_what_the_model_does_not_know_stays_unknown(project: Project, tmp_path: Path) -> None:
    for case_id in ("c2", "c3", "c4"):
        written(tmp_path / "out" / case_id / "liver.nii.gz", LIVER)
    run = add_external_labels(project, "organs", tmp_path / "out")
    assert accept(project, run, "c2").case("c2").label_targets == ("liver",)
    drawn = Labelmap(BOTH, GEOMETRY)
    assert correct(project, "c3", drawn, run).case("c3").label_targets == ()
    assert finish_case(project, run, "c4").case("c4").label_targets == ("liver", "tumour")


def test_a_finished_case_decides_its_lesions_by_the_write_that_keeps_its_label(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    written(tmp_path / "out" / "c4" / "liver.nii.gz", LIVER)
    run = add_external_labels(project, "organs", tmp_path / "out")
    monkeypatch.setattr(Project, "set_label_targets", killed)  # a write that might never come
    finish_case(project, run, "c4")
    assert open_project(project.folder).case("c4").label_targets == ("liver", "tumour")


def test_lesions_are_decided_as_those_of_a_run(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    run = add_external_labels(project, "nnU-Net", tmp_path / "out")
    with pytest.raises(ProjectError, match="1 lesions of case c2 are undecided"):
        finish_case(project, run, "c2")
    lesion = boxed(LESION)
    put_lesion(project, "c2", LesionDecision("deleted", "tumour", lesion, None, "nnU-Net", 1))
    done = finish_case(project, run, "c2")
    assert np.array_equal(done.load_labels(done.case("c2")).labels, LIVER)


def test_a_later_folder_adds_to_the_labels_of_an_origin(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "first" / "c2.nii.gz", BOTH)
    written(tmp_path / "second" / "c3.nii.gz", LIVER)
    for name in ("first", "second"):
        run = add_external_labels(project, "nnU-Net", tmp_path / name)
    assert set(read_external(run).cases) == {"c2", "c3"}
    assert [one.case_id for one in case_reports(project, run) if one.refined] == ["c2", "c3"]


def test_other_labels_of_a_case_leave_the_list_and_decisions_of_before(
    project: Project, tmp_path: Path
) -> None:
    second, lower = np.zeros((2, *GEOMETRY.shape), np.bool_)
    second[6, 12:16, 12:16], lower[2, 6:8, 6:8] = True, True
    told: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.message)

    def taken(name: str, labels: np.ndarray) -> RunFolder:
        written(tmp_path / name / "c2.nii.gz", labels)
        return add_external_labels(project, "mC", tmp_path / name, monitor=Monitor(listen))

    written(tmp_path / "A" / "c3.nii.gz", LIVER)
    run = taken("A", BOTH + second * np.uint8(1))
    seen, _ = numbered_lesions(project, run, "c2", round_number=1)
    assert [one.found.voxels for one in seen.values() if one.found] == [9, 16]
    decide_lesions(project, run, "c2", round_number=1, accept=[1])
    assert (taken("A", BOTH + second * np.uint8(1)).best_round, told) == (1, [])
    assert taken("B", BOTH + (second | lower) * np.uint8(1)).best_round == 2
    (note,) = told
    assert "Other labels of mC than before came for c2. They are round 2" in note
    decide_lesions(project, run, "c2", round_number=1, delete=[2])
    rows, _ = numbered_lesions(project, run, "c2")
    assert [(one.found.voxels, one.state) for one in rows.values() if one.found] == [
        (4, "undecided"),
        (9, "accepted"),
        (16, "deleted"),
    ]
    assert [one.case_id for one in case_reports(project, run) if one.refined] == ["c2", "c3"]
    learnt = copy_for_training(open_project(project.folder), "mC", tmp_path / "start")
    assert set(learnt) == {"c2", "c3"}
    begun = read_labelmap(tmp_path / "start" / "c2.nii.gz").labels
    assert np.array_equal(begun == 2, LESION | second | lower)


def test_no_round_keeps_labels_of_the_image_of_before(project: Project, tmp_path: Path) -> None:
    for labels in (LIVER, BOTH):
        written(tmp_path / "out" / "c2.nii.gz", labels)
        run = add_external_labels(project, "mC", tmp_path / "out")
    assert run.best_round == 2
    write_volume(a_patient(21)[0], project.image_path(project.case("c2")))
    renewed = renew_image(project, "c2")
    run = add_external_labels(renewed, "mC", tmp_path / "out")
    assert len(numbered_lesions(renewed, run, "c2")[0]) == 1
    with pytest.raises(RunError, match="no final label"):
        numbered_lesions(renewed, run, "c2", round_number=1)


def test_an_origin_is_no_run_that_segments_or_trains_on(project: Project, tmp_path: Path) -> None:
    from aslseg.inference.loading import load_ensemble
    from aslseg.runs import continue_run, resume_run, train_on

    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    create_run(project.folder, tiny_config(), "trained")
    with pytest.raises(RunError, match="trained run 'trained'"):
        add_external_labels(project, "trained", tmp_path / "out")
    run = add_external_labels(project, "nnU-Net", tmp_path / "out")
    for act in (resume_run, continue_run, train_on):
        with pytest.raises(RunError, match="label maps of another model"):
            act(project, "nnU-Net")
    with pytest.raises(RunError, match="label maps of another model"):
        load_ensemble(run)
    assert open_run(project.folder).run_id == "trained"
    assert latest_finished(project.folder) is None
    assert [one.is_usable for one in list_runs(project.folder)] == [False, False]


def test_an_export_names_the_origin(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c2" / "liver.nii.gz", LIVER)
    add_external_labels(project, "organs", tmp_path / "out")
    export_project(project, tmp_path / "home", ExportOptions(labels="all"))
    origin = json.loads((tmp_path / "home" / "origin.json").read_text())
    found = origin["cases"]["c2"]
    assert (found["made_by"], found["run"], found["unknown_targets"]) == (
        "ai",
        "organs",
        ["tumour"],
    )
    assert origin["runs"]["organs"]["weights"] == {}
    assert origin["runs"]["organs"]["settings"]["origin"] == "organs"


def test_later_labels_of_one_case_leave_those_of_the_others(
    project: Project, tmp_path: Path
) -> None:
    """The list of lesions, and an export over what it wrote before, go by the case."""
    for case_id in ("c2", "c3"):
        written(tmp_path / "out" / f"{case_id}.nii.gz", BOTH)
    add_external_labels(project, "both", tmp_path / "out")
    home, options = tmp_path / "home", ExportOptions(labels="all")
    export_project(project, home, options)
    written(tmp_path / "later" / "c3.nii.gz", LIVER)
    add_external_labels(project, "later", tmp_path / "later")
    done = export_project(project, home, options)
    made = json.loads((home / "origin.json").read_text())["cases"]
    assert {name: made[name]["run"] for name in ("c2", "c3")} == {"c2": "both", "c3": "later"}
    assert (read_labelmap(home / "c2.nii.gz").labels == BOTH).all()
    assert (read_labelmap(home / "c3.nii.gz").labels == LIVER).all()
    assert any("both (1), later (1)" in note for note in done.notes)
    for case_id, head in (("c2", "1 lesions of c2"), ("c3", "0 lesions of c3")):
        words = ["lesions", str(project.folder), case_id]
        listed = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert head in listed.output, listed.output
    named = export_project(project, tmp_path / "named", ExportOptions(labels="all", run="later"))
    assert "c2.nii.gz" not in {path.name for path in (tmp_path / "named").iterdir()}
    assert any("Without a label map" in note and "c2" in note for note in named.notes)


def test_training_begins_with_what_the_model_decides(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    written(tmp_path / "out" / "c3" / "tumour.nii.gz", LESION)
    written(tmp_path / "out" / "c4.nii.gz", BOTH)
    add_external_labels(project, "mixed", tmp_path / "out")
    now = reject(project, "c4")
    learnt = copy_for_training(now, "mixed", tmp_path / "start")
    assert learnt == {"c2": ["liver", "tumour"]}
    assert (tmp_path / "start" / "c2.nii.gz").exists()
    assert not (tmp_path / "start" / "c4.nii.gz").exists()
    with pytest.raises(RunError, match="no labels of 'absent'"):
        copy_for_training(now, "absent", tmp_path / "start")


def test_names_that_fit_no_case_are_refused(project: Project, tmp_path: Path) -> None:
    written(tmp_path / "out" / "someone.nii.gz", BOTH)
    with pytest.raises(ProjectError, match="no label map that is named as a case"):
        add_external_labels(project, "nnU-Net", tmp_path / "out")
    with pytest.raises(ProjectError, match="'lung' is no target"):
        add_external_labels(project, "nnU-Net", tmp_path / "out", called={"lung": "1"})
    alike = {"liver": "1", "tumour": "1"}
    with pytest.raises(ProjectError, match="Two targets are called alike"):
        add_external_labels(project, "nnU-Net", tmp_path / "out", called=alike)


def test_only_a_run_that_asks_for_them_learns_from_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg.context import RunContext
    from aslseg.methods import METHODS
    from aslseg.runs import start_run
    from aslseg.training.rounds import Round, RoundOutcome

    rounds: list[Round] = []

    def run_round(context: RunContext, this: Round) -> RoundOutcome:
        rounds.append(this)
        return RoundOutcome({}, {}, float("nan"))

    monkeypatch.setitem(METHODS, "specialist", run_round)
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    add_external_labels(project, "nnU-Net", tmp_path / "out")
    for name in ("", "nnU-Net"):
        config = tiny_config(method="specialist", rounds=1, start_labels=name)
        start_run(project, config, run_id=f"run{name}")
    written(tmp_path / "out" / "c2.nii.gz", LIVER)
    add_external_labels(project, "nnU-Net", tmp_path / "out")  # too late for the run
    without, begun = (this.pseudo for this in rounds)
    assert without == {}
    assert begun["c2"].targets == {"liver", "tumour"}
    assert np.array_equal(read_labelmap(begun["c2"].labels).labels, BOTH)


def test_a_run_that_shall_begin_from_unknown_labels_is_not_made(
    project: Project, tmp_path: Path
) -> None:
    from aslseg import runs

    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    add_external_labels(project, "nnU-Net", tmp_path / "out")
    config = tiny_config(method="specialist", rounds=1, start_labels="nobody")
    with pytest.raises(RunError, match=r"no labels of 'nobody' \(known: nnU-Net\); add them"):
        runs.start_run(project, config, run_id="a")
    assert [run.run_id for run in runs_of(project.folder)] == ["nnU-Net"]
    assert not (project.folder / "runs" / "a").exists()


def test_a_run_begins_from_labels_that_were_added_after_it_was_refused_for_want_of_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aslseg import runs

    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(
        runs, "_rounds", lambda context, _: begun.append(runs._start_labels(context.folder)) or 1
    )
    monkeypatch.setattr(runs, "_write_results", lambda *_: None)
    config = tiny_config(method="specialist", rounds=1, start_labels="nnU-Net")
    create_run(project.folder, config, "a")  # as earlier versions did before they refused it
    with pytest.raises(RunError, match="add them first"):
        runs.resume_run(project, "a")
    written(tmp_path / "out" / "c2.nii.gz", BOTH)
    add_external_labels(project, "nnU-Net", tmp_path / "out")
    runs.resume_run(open_project(project.folder), "a")
    assert [list(labels) for labels in begun] == [["c2"]]
