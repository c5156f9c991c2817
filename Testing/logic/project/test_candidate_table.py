"""The candidates of a case on disk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from aslseg.data.volume import Geometry, Labelmap
from aslseg.errors import RunError
from aslseg.project.candidate_table import (
    CANDIDATE_COLUMNS,
    CandidateRow,
    candidates_of_round,
    read_candidate_map,
    read_candidates,
    write_candidates,
)

ROWS = [
    CandidateRow(
        "a", "tumour", 1, (3.5, 2.0, 1.0), (-7.0, -4.0, 4.0), 1.25, 0.875, 0.5, True, {"peak": 2.5}
    ),
    CandidateRow(
        "a", "tumour", 2, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.25, 0.125, 0.5, False,
        {"peak": math.nan},
    ),
]  # fmt: skip
NUMBERS = Labelmap(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), Geometry.axis_aligned((2, 2, 2)))


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "predictions" / "a"
    write_candidates(folder, ROWS, NUMBERS, ["peak"])
    read = read_candidates(folder)
    assert read[0] == ROWS[0]
    assert math.isnan(read[1].features["peak"])
    assert (read[1].number, read[1].accepted) == (2, False)
    head = (folder / "candidates.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == ",".join([*CANDIDATE_COLUMNS, "peak"])
    numbers = read_candidate_map(folder, NUMBERS.geometry)
    assert numbers is not None
    np.testing.assert_array_equal(numbers.labels, NUMBERS.labels)
    assert candidates_of_round(tmp_path)[0] == ROWS[0]


def test_where_nothing_was_decided_there_are_none(tmp_path: Path) -> None:
    assert read_candidates(tmp_path) == []
    assert read_candidate_map(tmp_path, NUMBERS.geometry) is None
    assert candidates_of_round(tmp_path) == []


@pytest.mark.parametrize(("old", "new"), [("0.8750", "much"), ("True", "maybe"), ("tumour,1", "")])
def test_a_damaged_table_is_refused(tmp_path: Path, old: str, new: str) -> None:
    write_candidates(tmp_path, ROWS, NUMBERS, ["peak"])
    path = tmp_path / "candidates.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RunError, match=r"candidates\.csv"):
        read_candidates(tmp_path)
