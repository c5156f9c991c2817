"""Further rounds of a run: whole ones and short ones, and those that were stopped."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from aslseg.config import RunConfig
from aslseg.errors import RunError
from aslseg.project.more_rounds import lengthen
from aslseg.project.run_folder import RunFolder, create_run
from aslseg.project.run_status import LearntData
from aslseg.runs import _LoopState

LEARNT = LearntData(label_digests={"a": "1"})
DECIDED = replace(LEARNT, lesion_lines={"c": 2})
LABELLED = replace(DECIDED, label_digests={"a": "1", "b": "9"})
SHARE = 0.1


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run without retraining, of which one round is finished."""
    made = create_run(tmp_path, RunConfig(rounds=1, retrain=False), "r")
    made.write_status(retrained_rounds=[1], **asdict(LEARNT))
    made.finish(1, math.nan)
    return made


def begin(run: RunFolder, number: int) -> Path:
    run.round(number).mkdir(parents=True)
    begun = run.round(number) / "specialist-tumour.safetensors"
    begun.touch()
    return begun


def test_without_new_decisions_there_is_no_short_round(run: RunFolder) -> None:
    with pytest.raises(RunError, match="Nothing was decided since"):
        lengthen(run, 1, LEARNT, SHARE)


def test_a_short_round_that_was_stopped_is_to_be_resumed(run: RunFolder) -> None:
    lengthen(run, 1, DECIDED, SHARE)
    begun = begin(run, 2)
    with pytest.raises(RunError, match="was stopped; resume it"):
        lengthen(run, 1, DECIDED, SHARE)
    assert begun.exists()
    assert run.short_rounds == (2,)


def test_a_whole_round_in_place_of_a_short_one_that_was_stopped_trains_all(run: RunFolder) -> None:
    lengthen(run, 1, DECIDED, SHARE)
    begun = begin(run, 2)
    lengthen(run, 1, DECIDED, None)
    assert not begun.exists()
    assert run.short_rounds == ()
    assert run.taught_rounds == (2,)
    assert run.first_folder(2) == run.round(1)  # no label map has changed


@pytest.mark.parametrize("then", [DECIDED, LABELLED])
def test_a_label_that_came_before_or_after_a_stopped_short_round_is_learnt_by_all(
    run: RunFolder, then: LearntData
) -> None:
    lengthen(run, 1, LABELLED if then is DECIDED else DECIDED, SHARE)
    begin(run, 2)
    lengthen(run, 1, LABELLED, None)
    assert run.retrained_rounds == (1, 2)
    assert run.first_folder(2) == run.round(2)


def test_labels_of_a_finished_short_round_are_learnt_by_all_in_the_next_whole_one(
    run: RunFolder,
) -> None:
    lengthen(run, 1, LABELLED, SHARE)
    run.finish(2, math.nan)
    assert run.first_folder(2) == run.round(1)
    lengthen(run, 1, LABELLED, None)
    assert run.retrained_rounds == (1, 3)
    run.finish(3, math.nan)
    lengthen(run, 1, LABELLED, None)
    assert run.retrained_rounds == (1, 3)


def test_a_short_round_in_place_of_a_whole_one_that_was_stopped_goes_on_from_round_1(
    run: RunFolder,
) -> None:
    lengthen(run, 1, replace(LEARNT, label_digests={"a": "2"}), None)
    assert run.retrained_rounds == (1, 2)
    begin(run, 2)
    lengthen(run, 1, replace(DECIDED, label_digests={"a": "2"}), SHARE)
    (run.round(1) / "specialist-tumour.safetensors").touch()
    assert run.before(run.round(2) / "specialist-tumour.safetensors") is not None
    run.finish(2, math.nan)
    lengthen(run, 1, replace(DECIDED, label_digests={"a": "2"}), None)
    assert run.retrained_rounds == (1, 3)


def test_rounds_after_a_short_one_are_compared_with_each_other() -> None:
    so_far = _LoopState()
    best = []
    for number, score in enumerate((0.5, math.nan, 0.4, 0.6, 0.55), start=1):
        so_far.take(number, score)
        best.append(so_far.best)
    assert best == [1, 2, 3, 4, 4]
