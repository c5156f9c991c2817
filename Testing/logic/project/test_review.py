"""A person accepts, rejects and corrects pseudo-labels, and takes decisions back."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.images import read_labelmap, write_labelmap
from aslseg.data.volume import Labelmap
from aslseg.errors import ProjectError, RunError, StorageError
from aslseg.project.case_reports import case_reports
from aslseg.project.complete_slices import mark_slice_complete, set_complete_slices
from aslseg.project.project import Project, open_project
from aslseg.project.review import accept, correct, decisions, history, reject, undo_last
from aslseg.project.review_order import review_queue
from aslseg.project.roles import assign
from aslseg.project.run_folder import RunFolder
from aslseg.project.run_tables import REFINED, RELIABILITY_COLUMNS, write_table
from support.synthetic_run import a_finished_run
from support.tiny_project import GEOMETRY, a_tiny_project

ROWS = (
    # case, checkpoints, predictions, score, accepted, reason, accepted targets, notes
    ("c2", 0.9, 0.8, 0.85, True, "reliable", "liver;tumour", ""),
    ("c3", 0.5, 0.3, 0.40, False, "score 0.40 is below 0.50", "", ""),
    ("c4", 0.7, 0.5, 0.60, False, "beyond the 50% that round 1 accepts", "", ""),
)


def labels_with(voxels: int) -> Labelmap:
    """A liver of so many voxels in the first row of the first slice."""
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[0, 0, :voxels] = 1
    return Labelmap(labels, GEOMETRY)


def count(project: Project, case_id: str) -> int:
    """Voxels of the label map that the project names for a case."""
    return int((project.load_labels(project.case(case_id)).labels > 0).sum())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_tiny_project(tmp_path)


@pytest.fixture
def run(project: Project) -> RunFolder:
    """A run whose best round, the second, judged three cases; their labels have 12 to 14 voxels."""
    folder = a_finished_run(project.folder / "runs" / "a", best_round=2)
    rows = [dict(zip(RELIABILITY_COLUMNS, (2, *row), strict=True)) for row in ROWS]
    write_table(folder.round(2) / "reliability.csv", RELIABILITY_COLUMNS, rows)
    for number, (case, *_) in enumerate(ROWS):
        path = folder.round(2) / "predictions" / case / "refined.nii.gz"
        write_labelmap(labels_with(12 + number), path)
    return folder


def states(project: Project, run: RunFolder | None) -> dict[str, str]:
    return {report.case_id: report.state for report in case_reports(project, run)}


def test_cases_without_a_run_are_labelled_or_not(project: Project) -> None:
    found = case_reports(project, None)
    assert Counter(report.state for report in found) == {"labelled": 3, "unlabelled": 4}
    assert {report.score for report in found} == {None}


def test_the_run_says_which_labels_it_believes(project: Project, run: RunFolder) -> None:
    found = states(project, run)
    assert (found["c2"], found["c3"], found["c4"]) == ("pseudo", "needs review", "needs review")
    assert (found["c0"], found["c6"]) == ("labelled", "unlabelled")


def test_a_case_knows_whether_its_organs_were_given(project: Project) -> None:
    masks = {"c2": {"liver": Path("masks/liver.nii.gz")}, "c3": {"spleen": Path("masks/x.nii.gz")}}
    cases = (case.model_copy(update={"masks": masks.get(case.id, {})}) for case in project.cases)
    given = project.model_copy(update={"cases": tuple(cases)})
    found = {one.case_id for one in case_reports(given, None) if one.organs_given}
    assert found == {"c2"}


def test_a_label_is_as_old_as_its_own_file(project: Project, run: RunFolder) -> None:
    drawn, refined = project.label_path(project.case("c0")), run.predictions(2, "c2") / REFINED
    write_labelmap(labels_with(3), run.predictions(2, "c0") / REFINED)  # a label map counts more
    os.utime(drawn, (1000.0, 1000.0))
    os.utime(refined, (2000.0, 2000.0))
    found = {report.case_id: report.written_s for report in case_reports(project, run)}
    assert (found["c0"], found["c2"], found["c6"]) == (1000.0, 2000.0, None)


def test_what_is_least_reliable_is_reviewed_first(project: Project, run: RunFolder) -> None:
    queue = review_queue(project, run)
    assert [report.case_id for report in queue] == ["c3", "c4", "c2"]
    assert queue[0].score == 0.40
    assert queue[0].reason == "score 0.40 is below 0.50"
    assert queue[0].refined == run.round(2) / "predictions" / "c3" / "refined.nii.gz"


def test_an_accepted_pseudo_label_becomes_a_label_of_the_project(
    project: Project, run: RunFolder
) -> None:
    updated = accept(project, run, "c3")
    assert updated == open_project(project.folder)
    assert updated.case("c3").status == "accepted"
    assert [case.id for case in updated.labelled] == ["c0", "c1", "c3"]
    assert count(updated, "c3") == 13
    assert [report.case_id for report in review_queue(updated, run)] == ["c4", "c2"]
    (review,) = decisions(updated)
    assert (review.what, review.case_id, review.run, review.round) == ("accepted", "c3", "a", 2)


def test_a_corrected_label_is_a_persons(project: Project, run: RunFolder) -> None:
    updated = correct(project, "c3", labels_with(20), run)
    assert updated.case("c3").status == "labelled"
    assert states(updated, run)["c3"] == "corrected"
    assert count(updated, "c3") == 20


def test_a_label_of_which_no_slice_counts_is_not_counted_and_waits_for_a_person(
    project: Project, run: RunFolder
) -> None:
    corrected = correct(project, "c3", labels_with(20), run)
    assert [case.id for case in corrected.counted] == ["c0", "c1", "c3"]
    for case in ("c1", "c3", "c5"):  # c5 is for validation
        corrected = set_complete_slices(corrected, case, ())
    assert [case.id for case in corrected.counted] == ["c0"]
    found = states(corrected, run)
    assert [case for case, state in found.items() if state == "incomplete"] == ["c1", "c3", "c5"]
    waiting = [report.case_id for report in review_queue(corrected, run)]
    assert sorted(waiting) == ["c1", "c2", "c3", "c4"]
    marked = mark_slice_complete(corrected, "c3", 0)
    assert states(marked, run)["c3"] == "corrected"
    assert [case.id for case in marked.counted] == ["c0", "c3"]


def test_a_rejected_case_stays_unlabelled_and_leaves_the_queue(
    project: Project, run: RunFolder
) -> None:
    updated = reject(project, "c2", run)
    assert states(updated, run)["c2"] == "rejected"
    assert "c2" in [case.id for case in updated.unlabelled]
    assert [report.case_id for report in review_queue(updated, run)] == ["c3", "c4"]


def test_undoing_an_acceptance_leaves_the_case_as_it_was_and_keeps_the_label(
    project: Project, run: RunFolder
) -> None:
    accept(project, run, "c3")
    updated, undone = undo_last(project)
    assert (undone.what, undone.case_id) == ("accepted", "c3")
    assert updated == open_project(project.folder) == project
    assert not (project.folder / "labels" / "c3.nii.gz").exists()
    (kept,) = (project.folder / "labels" / "history").glob("c3-*.nii.gz")
    assert (read_labelmap(kept).labels > 0).sum() == 13


def test_undoing_a_correction_brings_the_label_of_before_back(
    project: Project, run: RunFolder
) -> None:
    before = count(project, "c0")
    assert before != 20
    correct(project, "c0", labels_with(20))
    assert count(open_project(project.folder), "c0") == 20
    updated, _ = undo_last(project)
    assert count(updated, "c0") == before
    assert updated.case("c0").status == "labelled"
    kept = [read_labelmap(p) for p in (project.folder / "labels" / "history").glob("c0-*.nii.gz")]
    assert sorted(int((labels.labels > 0).sum()) for labels in kept) == sorted([20, before])


def test_undoing_goes_back_one_decision_at_a_time_across_sessions(
    project: Project, run: RunFolder
) -> None:
    reject(project, "c2", run)
    accept(project, run, "c3")
    undo_last(open_project(project.folder))
    correct(open_project(project.folder), "c4", labels_with(20), run)
    assert [r.case_id for r in decisions(open_project(project.folder))] == ["c2", "c4"]
    assert undo_last(open_project(project.folder))[1].case_id == "c4"
    updated, last = undo_last(open_project(project.folder))
    assert (last.what, last.case_id) == ("rejected", "c2")
    assert updated == project
    with pytest.raises(ProjectError, match="no decision to take back"):
        undo_last(updated)
    whole = [(r.number, r.what, r.undoes) for r in history(updated)]
    assert whole == [
        (1, "rejected", 0),
        (2, "accepted", 0),
        (3, "undone", 2),
        (4, "corrected", 0),
        (5, "undone", 4),
        (6, "undone", 1),
    ]


def test_a_line_that_a_crash_cut_off_is_no_decision(project: Project, run: RunFolder) -> None:
    reject(project, "c2", run)
    path = project.folder / "reviews.jsonl"
    path.write_bytes(path.read_bytes() + b'{"number": 2, "wh')
    assert [r.case_id for r in decisions(project)] == ["c2"]
    accept(project, run, "c3")
    assert [(r.number, r.case_id) for r in decisions(project)] == [(1, "c2"), (2, "c3")]


def test_undoing_takes_one_decision_back_where_a_damaged_line_was_removed(
    project: Project, run: RunFolder
) -> None:
    reject(project, "c3", run)
    undo_last(project)
    accept(project, run, "c2")
    path = project.folder / "reviews.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    accept(project, run, "c3")
    undo_last(project)
    assert [(one.case_id, one.what) for one in decisions(project)] == [("c2", "accepted")]


def test_a_damaged_file_of_decisions_is_refused(project: Project, run: RunFolder) -> None:
    reject(project, "c2", run)
    path = project.folder / "reviews.jsonl"
    path.write_text("nonsense\n" + path.read_text(encoding="utf-8"))
    with pytest.raises(ProjectError, match=r"reviews\.jsonl is damaged"):
        decisions(project)


def test_what_a_person_labelled_is_neither_accepted_nor_rejected(
    project: Project, run: RunFolder
) -> None:
    with pytest.raises(ProjectError, match="correct that one instead"):
        accept(project, run, "c0")
    with pytest.raises(ProjectError, match="no AI label to reject"):
        reject(project, "c0", run)
    assert decisions(project) == ()


def test_a_prediction_never_becomes_the_truth_to_judge_by(project: Project, run: RunFolder) -> None:
    with pytest.raises(ProjectError, match="only a drawn label can do that"):
        accept(project, run, "c6")


def test_a_case_that_no_round_predicted_cannot_be_accepted(
    project: Project, run: RunFolder
) -> None:
    (run.round(2) / "predictions" / "c2" / "refined.nii.gz").unlink()
    with pytest.raises(RunError, match="no final label of case c2"):
        accept(project, run, "c2")


def test_the_round_that_is_named_is_accepted(project: Project, run: RunFolder) -> None:
    write_labelmap(labels_with(5), run.predictions(1, "c3") / "refined.nii.gz")
    updated = accept(project, run, "c3", round_number=1)
    assert count(updated, "c3") == 5
    assert [(review.what, review.round) for review in decisions(project)] == [("accepted", 1)]


def rewrite_last(project: Project, **changes: object) -> None:
    """Change the last line of the file of decisions, as somebody else might."""
    path = project.folder / "reviews.jsonl"
    *lines, last = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, json.dumps({**json.loads(last), **changes})]) + "\n")


@pytest.mark.parametrize("field", ["label_before", "kept_before"])
@pytest.mark.parametrize(
    "place", ["../data/truth0.nii.gz", "labels/../../data/truth0.nii.gz", "/etc/x", "project.json"]
)
def test_undo_writes_nothing_outside_of_the_label_maps(
    project: Project, field: str, place: str
) -> None:
    correct(project, "c0", labels_with(20))
    outside = project.folder.parent / "data" / "truth0.nii.gz"
    before = outside.read_bytes(), (project.folder / "project.json").read_bytes()
    rewrite_last(project, **{field: place})
    with pytest.raises(ProjectError, match=rf"damaged in line 1 .*{field}.* lies outside"):
        undo_last(project)
    assert (outside.read_bytes(), (project.folder / "project.json").read_bytes()) == before
    assert count(project, "c0") == 20


def test_undo_does_not_write_over_the_label_of_another_case(project: Project) -> None:
    correct(project, "c0", labels_with(20))
    before = count(project, "c1")
    rewrite_last(project, label_before="labels/c1.nii.gz")
    with pytest.raises(ProjectError, match="is the label map of case c1"):
        undo_last(project)
    assert (count(project, "c0"), count(project, "c1")) == (20, before)


def test_undo_does_not_follow_a_link_out_of_the_project(project: Project) -> None:
    correct(project, "c0", labels_with(20))
    (kept,) = (project.folder / "labels" / "history").iterdir()
    secret = project.folder.parent / "secret.nii.gz"
    kept.rename(secret)
    kept.symlink_to(secret)
    with pytest.raises(StorageError, match="lies outside of"):
        undo_last(project)
    assert count(project, "c0") == 20


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"number": "x"}, id="number"),
        pytest.param({"case_id": None}, id="case"),
        pytest.param({"what": "deleted"}, id="what"),
        pytest.param({"status_before": 3}, id="status"),
        pytest.param({"undoes": [1]}, id="undoes"),
    ],
)
def test_a_decision_with_a_value_of_another_kind_is_refused(
    project: Project, changes: dict[str, object]
) -> None:
    reject(project, "c2")
    rewrite_last(project, **changes)
    with pytest.raises(ProjectError, match=r"reviews\.jsonl is damaged in line 1"):
        decisions(project)


def test_undoing_brings_no_accepted_label_back_to_a_case_to_judge_by(
    project: Project, run: RunFolder
) -> None:
    accept(project, run, "c2")
    correct(project, "c2", labels_with(5))
    judged = assign(project, splits={"c2": "validation"})
    with pytest.raises(ProjectError, match="c2 was accepted as a network made it"):
        undo_last(judged)
    assert open_project(project.folder) == judged
    assert count(judged, "c2") == 5
    undone, _ = undo_last(assign(judged, splits={"c2": "train"}))
    assert undone.case("c2").status == "accepted"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("case,score\nc2,0.5\n", id="columns missing"),
        pytest.param(
            ",".join(RELIABILITY_COLUMNS) + "\n2,c2,x,0.8,0.85,True,r,,\n", id="no number"
        ),
        pytest.param(
            ",".join(RELIABILITY_COLUMNS) + "\n2,c2,1,0.8,0.85,maybe,r,,\n", id="no truth"
        ),
        pytest.param(",".join(RELIABILITY_COLUMNS) + "\n2,c2\n", id="a short row"),
    ],
)
def test_a_damaged_table_of_reliability_is_refused(
    project: Project, run: RunFolder, content: str
) -> None:
    (run.round(2) / "reliability.csv").write_text(content)
    with pytest.raises(RunError, match=r"reliability\.csv is damaged"):
        case_reports(project, run)


def test_a_decision_that_the_disk_does_not_take_changes_nothing(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(project, run, "c2")
    correct(project, "c2", labels_with(5))
    label = project.folder / "labels" / "c2.nii.gz"
    before, lines = label.read_bytes(), history(project)

    def refuse(*_: object) -> None:
        msg = "the disk is full"
        raise StorageError(msg)

    for name in ("write_labelmap", "write_json_atomic"):
        with monkeypatch.context() as patched:
            patched.setattr(f"aslseg.project.project.{name}", refuse)
            with pytest.raises(StorageError, match="the disk is full"):
                correct(project, "c2", labels_with(9))
            if name == "write_json_atomic":
                with pytest.raises(StorageError, match="the disk is full"):
                    reject(project, "c3")
        assert label.read_bytes() == before
        assert history(project) == lines
        assert open_project(project.folder).case("c3").status == "unlabelled"
    correct(project, "c2", labels_with(9))
    assert [line.number for line in history(project)] == [1, 2, 3]


def test_a_decision_is_on_record_before_it_takes_effect(
    project: Project, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, a process leaves a line that can be taken back, not a decision without."""
    seen: list[str] = []

    def look(*_: object) -> None:
        seen.extend(line.what for line in history(project))
        assert open_project(project.folder).case("c2").label is None

    monkeypatch.setattr("aslseg.project.project.keep_history", look)
    accept(project, run, "c2")
    assert seen == ["accepted"]
