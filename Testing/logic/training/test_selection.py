"""Which cases are believed, in which order, and why not."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.config import ReliabilityConfig
from aslseg.data.volume import Geometry, Labelmap, Mask
from aslseg.inference.ensemble import Segmentation
from aslseg.targets import LIVER_TARGETS
from aslseg.training.selection import (
    Decision,
    Reliability,
    agreement,
    checkpoint_agreement,
    reliability_of,
    select,
    targets_empty_in_one,
)

SETTINGS = ReliabilityConfig(first_share=0.5, growth=0.25, min_score=0.5)


def a_mask(*columns: int) -> Mask:
    mask = np.zeros((1, 2, 8), bool)
    mask[:, :, list(columns)] = True
    return mask


def scored(**scores: float) -> list[Reliability]:
    return [Reliability(name, score, score) for name, score in scores.items()]


def accepted(decisions: list[Decision]) -> list[str]:
    return [d.reliability.case_id for d in decisions if d.accepted]


def test_agreement_is_the_mean_dice_over_targets() -> None:
    first = {"liver": a_mask(0, 1, 2, 3), "tumour": a_mask(1)}
    second = {"liver": a_mask(2, 3, 4, 5), "tumour": a_mask(1)}
    assert agreement(first, first) == 1.0
    assert agreement(first, second) == pytest.approx((0.5 + 1.0) / 2)


def test_two_predictions_that_find_nothing_agree() -> None:
    assert agreement({"tumour": a_mask()}, {"tumour": a_mask()}) == 1.0


def test_checkpoint_agreement_is_the_mean_over_earlier_checkpoints() -> None:
    last = {"liver": a_mask(0, 1)}
    earlier = [{"liver": a_mask(2, 3)}, {"liver": a_mask(1, 2)}, {"liver": a_mask(0, 1)}]
    assert checkpoint_agreement(earlier, last) == pytest.approx((0.0 + 0.5 + 1.0) / 3)
    assert checkpoint_agreement([], last) == 1.0


def test_the_score_is_the_mean_of_both_agreements() -> None:
    assert Reliability("a", 0.5, 0.9).score == pytest.approx(0.7)


def test_a_target_is_empty_in_one_when_the_other_alone_finds_it() -> None:
    first = {"liver": a_mask(1), "tumour": a_mask(2), "cyst": a_mask(), "vessel": a_mask()}
    second = {"liver": a_mask(5), "tumour": a_mask(), "cyst": a_mask(3), "vessel": a_mask()}
    assert targets_empty_in_one(first, second) == ("tumour", "cyst")
    assert targets_empty_in_one(second, first) == ("tumour", "cyst")


@pytest.mark.parametrize(
    ("round_number", "expected"),
    [
        pytest.param(1, ["d", "b"], id="round 1: one half"),
        pytest.param(2, ["d", "b", "c"], id="round 2: three quarters"),
        pytest.param(3, ["d", "b", "c", "a"], id="round 3: all"),
        pytest.param(9, ["d", "b", "c", "a"], id="never more than all"),
    ],
)
def test_the_accepted_share_grows_over_the_rounds(round_number: int, expected: list[str]) -> None:
    cases = scored(a=0.6, b=0.8, c=0.7, d=0.9)
    assert accepted(select(cases, SETTINGS, round_number)) == expected


@pytest.mark.parametrize(("count", "places"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_share_is_rounded_down_to_whole_cases(count: int, places: int) -> None:
    cases = [Reliability(f"case{n}", 0.9, 0.9) for n in range(count)]
    assert len(accepted(select(cases, SETTINGS, 1))) == places


def test_a_share_that_floating_point_shortens_is_not_rounded_down_too_far() -> None:
    settings = ReliabilityConfig(first_share=0.1, growth=0.1, min_score=0.0)
    cases = [Reliability(f"case{n}", 0.9, 0.9) for n in range(10)]
    assert len(accepted(select(cases, settings, 3))) == 3  # 0.1 + 0.1 * 2 is 0.30000000000000004
    assert len(accepted(select(cases, settings, 7))) == 7  # 0.1 + 0.1 * 6 is 0.7000000000000001


def test_decisions_come_in_order_of_score_and_then_of_name() -> None:
    decisions = select(scored(b=0.7, c=0.9, a=0.7), SETTINGS, 1)
    assert [d.reliability.case_id for d in decisions] == ["c", "a", "b"]


def test_a_case_below_the_least_score_is_never_accepted() -> None:
    decisions = select(scored(a=0.49, b=0.5, c=0.3), SETTINGS, 9)
    assert accepted(decisions) == ["b"]
    assert decisions[1].reason == "score 0.49 is below 0.50"


def test_a_case_that_is_empty_in_one_prediction_is_never_accepted_and_is_not_counted() -> None:
    best = Reliability("best", 1.0, 0.98, ("tumour",))
    decisions = select([best, *scored(a=0.9, b=0.8, c=0.7)], SETTINGS, 1)
    assert accepted(decisions) == ["a", "b"]
    assert decisions[0].reason == "one prediction has tumour and the other has none"


def test_a_case_in_which_nothing_is_found_is_never_accepted_and_takes_no_place() -> None:
    nothing = Reliability("nothing", 1.0, 1.0, is_empty=True)
    decisions = select([nothing, *scored(a=0.9, b=0.8, c=0.7)], SETTINGS, 1)
    assert accepted(decisions) == ["a", "b"]
    assert decisions[0].reason == "no target is found"


def labels_with(*values: int) -> Labelmap:
    """Return a label map with one column of each value."""
    labels = np.zeros((1, 2, 8), np.uint8)
    for column, value in enumerate(values):
        labels[:, :, column] = value
    return Labelmap(labels, Geometry.axis_aligned(labels.shape))


@pytest.mark.parametrize(
    ("specialist", "refined", "empty_in_one", "is_empty"),
    [
        pytest.param((1, 2), (1, 2), (), False, id="both find both"),
        pytest.param((1, 1), (1, 1), (), False, id="no tumour is no silence"),
        pytest.param((1, 2), (1, 1), ("tumour",), False, id="tumour deleted"),
        pytest.param((), (), (), True, id="nothing at all"),
        pytest.param((1,), (), ("liver",), True, id="everything deleted"),
    ],
)
def test_the_reliability_of_a_case_is_that_of_its_label_maps(
    specialist: tuple[int, ...],
    refined: tuple[int, ...],
    empty_in_one: tuple[str, ...],
    is_empty: bool,
) -> None:
    last = labels_with(*specialist)
    segmentation = Segmentation(last, None, labels_with(*refined), (), {})
    judged = reliability_of("a", segmentation, [last, labels_with()], LIVER_TARGETS)
    assert (judged.empty_in_one, judged.is_empty) == (empty_in_one, is_empty)
    if specialist == refined:
        assert judged.prediction_agreement == 1.0


def test_every_decision_has_a_reason() -> None:
    reasons = [d.reason for d in select(scored(a=0.9, b=0.8, c=0.2, d=0.7), SETTINGS, 1)]
    assert reasons == [
        "reliable",
        "reliable",
        "beyond the 50% that round 1 accepts",
        "score 0.20 is below 0.50",
    ]


def test_no_case_gives_no_decision() -> None:
    assert select([], SETTINGS, 1) == []
