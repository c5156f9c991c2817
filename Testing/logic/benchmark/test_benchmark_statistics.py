"""Means are over seeds, differences over pairs, and no test promises more than it can."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aslseg.benchmark.statistics import gain, over_seeds, signed_rank_p
from aslseg.benchmark.tables import with_sd
from aslseg.evaluation.scores import mean_of


def scores(values: dict[tuple[int, str], float], labelled: int = 1) -> list[dict[str, Any]]:
    """Make scores from Dice by (seed, case)."""
    return [
        {"labelled": labelled, "seed": seed, "case": case, "dice": dice, "hd95_mm": None}
        for (seed, case), dice in values.items()
    ]


BASE = {(0, "a"): 0.5, (0, "b"): 0.7, (1, "a"): 0.6, (1, "b"): 0.6, (2, "a"): 0.4, (2, "b"): 0.6}
BETTER = {key: value + (0.1 if key[1] == "a" else 0.3) for key, value in BASE.items()}


def test_the_deviation_is_that_of_the_seeds_means() -> None:
    # Seeds: (0.5 + 0.7) / 2 = 0.6, 0.6 and 0.5, which are 1/30, 1/30 and -2/30 from 17/30.
    mean = over_seeds(scores(BASE))
    assert mean.value == pytest.approx(17 / 30)
    assert mean.sd == pytest.approx(math.sqrt((1 / 900 + 1 / 900 + 4 / 900) / 2))
    assert mean.count == 3


def test_one_seed_has_no_deviation() -> None:
    mean = over_seeds(scores({(0, "a"): 0.5, (0, "b"): 0.7}))
    assert mean.value == pytest.approx(0.6)
    assert math.isnan(mean.sd)
    assert with_sd(mean) == "0.600"


def test_scores_without_a_value_are_left_out_of_the_mean() -> None:
    rows = scores({(0, "a"): 0.5, (0, "b"): 0.7})
    rows[0]["hd95_mm"] = 12.0
    assert over_seeds(rows, "hd95_mm").value == 12.0
    assert over_seeds(rows[1:], "hd95_mm").count == 0


def test_a_gain_is_measured_on_the_same_case_and_seed() -> None:
    found = gain(scores(BETTER), scores(BASE))
    assert found is not None
    assert found.over_seeds.value == pytest.approx(0.2)
    assert found.over_seeds.sd == pytest.approx(0.0, abs=1e-12)
    assert (found.pairs, found.wins, found.cases) == (6, 6, 2)


def test_cases_as_units_cannot_reach_a_small_p_that_pairs_reach() -> None:
    found = gain(scores(BETTER), scores(BASE))
    assert found is not None
    assert found.p_cases == pytest.approx(0.5)  # 2 of the 2^2 signs are as extreme
    assert found.p_pairs < 0.05


def test_pairs_that_only_one_method_has_do_not_count() -> None:
    found = gain(scores({(0, "a"): 0.9, (5, "a"): 0.1}), scores(BASE))
    assert found is not None
    assert found.pairs == 1
    assert found.over_seeds.value == pytest.approx(0.4)
    assert gain(scores({(9, "z"): 0.9}), scores(BASE)) is None


def test_volumes_of_different_numbers_of_labels_are_different_pairs() -> None:
    both = scores(BETTER, 1) + scores(BETTER, 2)
    found = gain(both, scores(BASE, 1) + scores(BASE, 2))
    assert found is not None
    assert (found.pairs, found.cases, found.over_seeds.count) == (12, 2, 6)


def test_the_signed_rank_test_has_its_exact_value() -> None:
    assert signed_rank_p([0.1, 0.2, 0.3, 0.4]) == pytest.approx(2 / 2**4)
    # Ranks 1, 2, 3 with -1: as extreme are W- of 0 and 1: 2 x 2 of 2^3 signs.
    assert signed_rank_p([-0.1, 0.2, 0.3]) == pytest.approx(4 / 8)


def test_nothing_can_be_said_where_nothing_differs() -> None:
    assert math.isnan(signed_rank_p([0.0, 0.0, 0.0]))
    assert with_sd(mean_of([])) == "-"
