"""Which case comes next: by the expected volume of lesions, or by doubt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import RunError
from aslseg.project.candidate_table import CANDIDATES, CandidateRow, write_candidates
from aslseg.project.case_reports import CaseReport, CaseState, expected_lesions_ml
from aslseg.project.review_order import waiting
from aslseg.project.run_folder import RunFolder
from support.synthetic_run import a_finished_run

GRID = Geometry.axis_aligned((3, 4, 5), (1.0, 1.0, 1.0))


def report(
    case: str, score: float, lesion_ml: float | None, state: CaseState = "needs review"
) -> CaseReport:
    return CaseReport(case, "train", state, score=score, lesion_ml=lesion_ml)


REPORTS = [
    report("large", 0.2, 90.0),
    report("none", 0.8, 0.0, "pseudo"),
    report("small", 0.9, 3.5),
    report("done", 0.1, 0.1, "accepted"),
]


def names(reports: list[CaseReport]) -> list[str]:
    return [one.case_id for one in reports]


def test_the_case_with_the_least_expected_volume_comes_first() -> None:
    assert names(waiting(REPORTS)) == ["none", "small", "large"]


def test_in_the_other_order_what_is_believed_comes_last() -> None:
    assert names(waiting(REPORTS, "doubtful")) == ["large", "small", "none"]


def test_without_candidates_doubt_decides_and_such_cases_come_last() -> None:
    unknown = [report("sure", 0.9, None), report("doubtful", 0.3, None)]
    assert names(waiting(unknown)) == ["doubtful", "sure"]
    assert names(waiting([*unknown, report("known", 0.9, 500.0)])) == ["known", "doubtful", "sure"]


@pytest.mark.parametrize("ml", [None, 0.0], ids=["no candidates judged", "no lesion expected"])
def test_a_case_unlike_the_labelled_ones_comes_before_others_of_equal_rank(
    ml: float | None,
) -> None:
    cases = [report("doubtful", 0.3, ml), replace(report("unlike", 0.9, ml, "pseudo"), notes="d")]
    assert names(waiting(cases)) == ["unlike", "doubtful"]
    assert names(waiting([replace(one, notes="") for one in cases])) == ["doubtful", "unlike"]


def test_a_case_unlike_the_labelled_ones_is_most_doubtful_whatever_its_volume() -> None:
    unlike = replace(report("unlike", 0.9, 50.0, "pseudo"), notes="its liver is darker")
    assert names(waiting([*REPORTS, unlike], "doubtful")) == ["unlike", "large", "small", "none"]
    assert names(waiting([*REPORTS, unlike])) == ["none", "small", "unlike", "large"]


def candidate(volume_ml: float, probability: float) -> CandidateRow:
    accepted = probability > 0.5
    return CandidateRow(
        "c", "tumour", 1, (0, 0, 0), (0, 0, 0), volume_ml, probability, 0.5, accepted
    )


def judge(run: RunFolder, number: int, case: str, *rows: CandidateRow) -> Path:
    folder = run.predictions(number, case)
    folder.mkdir(parents=True)
    nothing = Labelmap(np.zeros(GRID.shape, np.uint8), GRID)
    write_candidates(folder, rows, nothing, ())
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return a_finished_run(tmp_path / "a", best_round=2)


def test_all_candidates_count_by_their_probability_in_the_last_round_that_judged_them(
    run: RunFolder,
) -> None:
    judge(run, 1, "both", candidate(100.0, 1.0))
    judge(run, 2, "both", candidate(10.0, 0.75), candidate(4.0, 0.25))
    judge(run, 1, "decided before", candidate(2.0, 0.5))
    judge(run, 2, "nothing found")
    judge(run, 3, "after the best round", candidate(1.0, 1.0))
    run.predictions(2, "not judged").mkdir()
    expected = {"both": 8.5, "decided before": 1.0, "nothing found": 0.0}
    assert expected_lesions_ml(run) == expected
    assert expected_lesions_ml(None) == {}


def test_a_damaged_table_is_said_to_be_so(run: RunFolder) -> None:
    table = judge(run, 2, "c", candidate(1.0, 0.5)) / CANDIDATES
    table.write_text(table.read_text(encoding="utf-8").replace("0.5000", "half"), encoding="utf-8")
    with pytest.raises(RunError, match=r"candidates\.csv is damaged"):
        expected_lesions_ml(run)
