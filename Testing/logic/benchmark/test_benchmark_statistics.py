"""The unit is the patient, tests are corrected, and no test promises more than it can."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aslseg.benchmark.endpoints import measured
from aslseg.benchmark.statistics import (
    Estimate,
    Key,
    estimate,
    gain,
    holm,
    over_patients,
    pooled_f1,
    signed_rank_p,
)
from aslseg.benchmark.tables import with_interval

PATIENTS = {"a": "a", "b": "b", "b2": "b", "c": "c"}


def values(*given: tuple[str, str, float]) -> dict[Key, float]:
    return {(draw, 2, 0, case): value for draw, case, value in given}


def test_draws_and_volumes_of_a_patient_are_averaged_first() -> None:
    found = over_patients(
        values(("A", "a", 0.5), ("B", "a", 0.7), ("A", "b", 0.2), ("A", "b2", 0.6)), PATIENTS
    )
    assert found == {"a": pytest.approx(0.6), "b": pytest.approx(0.4)}


def test_values_that_are_no_numbers_are_left_out() -> None:
    found = over_patients(values(("A", "a", math.nan), ("A", "b", 0.2)), PATIENTS)
    assert found == {"b": 0.2}


def test_an_interval_holds_the_mean_and_lies_within_the_sample() -> None:
    sample = {str(n): n / 10 for n in range(11)}
    found = estimate(sample)
    assert found.value == pytest.approx(0.5)
    assert 0.0 < found.low < 0.5 < found.high < 1.0
    # Of eleven values with an sd of 0.316: 1.96 * 0.316 / sqrt(11) = 0.187 to each side.
    assert found.low == pytest.approx(0.5 - 0.187, abs=0.03)
    assert found.high == pytest.approx(0.5 + 0.187, abs=0.03)
    assert estimate(sample) == found  # the resamples are those of a fixed seed


def test_one_patient_has_no_interval_and_none_no_value() -> None:
    assert estimate({"a": 0.5}).patients == 1
    assert math.isnan(estimate({"a": 0.5}).low)
    assert math.isnan(estimate({}).value)


def test_f1_is_pooled_over_patients() -> None:
    # 3 found, 1 missed, 2 false: 6 / 9.
    found = pooled_f1({"a": (3, 0, 0), "b": (0, 1, 2)})
    assert found.value == pytest.approx(6 / 9)
    assert (found.low, found.high) == (0.0, 1.0)  # both resamples of one patient alone
    assert math.isnan(pooled_f1({"a": (0, 0, 0)}).value)


BASE = values(("A", "a", 0.5), ("B", "a", 0.6), ("A", "b", 0.7), ("A", "c", 0.4))
BETTER = {key: value + 0.1 for key, value in BASE.items()}


def test_a_gain_is_measured_in_the_same_draw_and_case() -> None:
    found = gain(BETTER, {**BASE, ("Z", 2, 0, "a"): 9.0}, PATIENTS)
    assert found is not None
    assert found.difference.value == pytest.approx(0.1)
    assert (found.difference.patients, found.wins) == (3, 3)
    assert found.p == pytest.approx(0.25)  # 2 of the 2^3 signs of ranks are as extreme
    assert gain(BETTER, {}, PATIENTS) is None


def test_a_row_that_changes_nothing_has_no_p() -> None:
    found = gain(BASE, BASE, PATIENTS)
    assert found is not None
    assert found.wins == 0
    assert math.isnan(found.p)
    assert math.isnan(signed_rank_p([0.0, 1e-9]))


def test_holm_steps_down() -> None:
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 (but no less than before), 0.6 x 1.
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = holm([0.02, math.nan])
    assert corrected[0] == 0.02
    assert math.isnan(corrected[1])


def a_row(case: str, draw: str = "A", dice: float = 0.5, **lesions: tuple[float, ...]) -> Any:
    matches = {"true_ml": (), "found_with": (), "false_with": (), **lesions}
    return {
        "draw": draw, "labelled": 2, "seed": 0, "case": case, "patient": PATIENTS[case],
        "dice": dice, "true_ml": sum(matches["true_ml"]), "volume_ml": 3.0, "lesions": matches,
    }  # fmt: skip


ROWS = [
    a_row("a", true_ml=(1.0,), found_with=(0.9,), false_with=(0.4,)),
    a_row("b", true_ml=(2.0,), found_with=(0.6,), dice=0.7),
    a_row("c", false_with=(0.5,), dice=0.0),
]


def test_the_threshold_of_a_patient_is_the_best_one_of_all_others() -> None:
    """For a: 0.6 of b and c. For b: 0.9 of a and c. For c: 0.6 of a and b."""
    found = measured(ROWS, "f1")
    assert found.estimate.value == pytest.approx(2 / 3)  # 1 found, 1 missed, none false
    by_case = {case: value for (*_, case), value in found.values.items()}
    assert (by_case["a"], by_case["b"]) == (1.0, 0.0)
    assert math.isnan(by_case["c"])  # nothing to find and nothing invented


def test_a_threshold_is_of_one_draw() -> None:
    """In draw B one case is alone: nobody else says where to cut, and nothing is kept."""
    found = measured([*ROWS, a_row("a", "B", true_ml=(1.0,), found_with=(0.9,))], "f1")
    assert found.values["B", 2, 0, "a"] == 0.0
    assert found.values["A", 2, 0, "a"] == 1.0


def test_sensitivity_is_averaged_over_experiments() -> None:
    again = [a_row("a", "B", true_ml=(1.0,), found_with=(0.0,))]
    assert measured(ROWS, "sensitivity_1").estimate.value == 1.0
    assert measured(ROWS, "sensitivity_0.5").estimate.value == 1.0  # above 0.4, one of three
    assert measured([*ROWS, *again], "sensitivity_1").estimate.value == 0.5


def test_dice_is_of_cases_with_lesions_and_false_volume_of_those_without() -> None:
    assert measured(ROWS, "dice").estimate.value == pytest.approx(0.4)
    assert measured(ROWS, "dice_with_lesion").estimate.value == pytest.approx(0.6)
    assert (
        measured(ROWS, "false_ml_without").estimate
        == measured(ROWS[2:], "false_ml_without").estimate
    )
    assert measured(ROWS, "false_ml_without").estimate.value == 3.0


def test_intervals_are_written_as_far_as_they_are_known() -> None:
    assert with_interval(Estimate(0.5, 0.4, 0.6, 3)) == "0.500 [0.400, 0.600]"
    assert with_interval(Estimate(0.05, -0.1, 0.2, 3), sign="+") == "+0.050 [-0.100, +0.200]"
    assert with_interval(Estimate(0.5, math.nan, math.nan, 1)) == "0.500"
    assert with_interval(estimate({})) == "-"
