"""Which targets of which cases are accepted, in which order, and why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aslseg.config import CandidatesConfig, ReliabilityConfig
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.inference.candidates import Evidence, find_candidates
from aslseg.inference.ensemble import Segmentation
from aslseg.inference.lesion_stage import ClassifiedCandidates
from aslseg.targets import LIVER_TARGETS
from aslseg.training.selection import (
    RELIABLE,
    Decision,
    Reliability,
    TargetReliability,
    agreement,
    doubtful_labels,
    reliability_of,
    select,
)

SETTINGS = ReliabilityConfig(first_share=0.5, growth=0.25, min_score=0.5)
LIVER = LIVER_TARGETS[:1]


def a_mask(*columns: int) -> Mask:
    mask = np.zeros((1, 2, 8), bool)
    mask[:, :, list(columns)] = True
    return mask


def a_score(value: float, **facts: bool) -> TargetReliability:
    return TargetReliability(value, value, **facts)


def scored(**scores: float) -> list[Reliability]:
    return [Reliability(name, {"liver": a_score(score)}) for name, score in scores.items()]


def with_tumour(name: str, liver: float, tumour: TargetReliability) -> Reliability:
    return Reliability(name, {"liver": a_score(liver), "tumour": tumour})


def accepted(decisions: list[Decision], target: str = "liver") -> list[str]:
    return [d.reliability.case_id for d in decisions if target in d.accepted]


def test_two_predictions_that_find_nothing_are_no_agreement() -> None:
    assert agreement(a_mask(), a_mask()) is None
    assert agreement(a_mask(1), a_mask()) == 0.0
    assert agreement(a_mask(1, 2), a_mask(2, 3)) == 0.5


def test_a_score_is_the_mean_of_what_is_known() -> None:
    assert TargetReliability(0.5, 0.9).score == pytest.approx(0.7)
    assert TargetReliability(0.5, None).score == 0.5
    assert TargetReliability(None, None).score is None
    case = with_tumour("a", 0.9, TargetReliability(None, 0.5))
    assert (case.checkpoint_agreement, case.prediction_agreement) == (0.9, pytest.approx(0.7))
    assert case.score == pytest.approx((0.9 + 0.5) / 2)


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
    assert accepted(select(cases, SETTINGS, round_number, LIVER)) == expected


@pytest.mark.parametrize(("count", "places"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_share_is_rounded_down_to_whole_cases(count: int, places: int) -> None:
    cases = scored(**{f"case{n}": 0.9 for n in range(count)})
    assert len(accepted(select(cases, SETTINGS, 1, LIVER))) == places


def test_a_share_that_floating_point_shortens_is_not_rounded_down_too_far() -> None:
    settings = ReliabilityConfig(first_share=0.1, growth=0.1, min_score=0.0)
    cases = scored(**{f"case{n}": 0.9 for n in range(10)})
    assert len(accepted(select(cases, settings, 3, LIVER))) == 3  # 0.30000000000000004
    assert len(accepted(select(cases, settings, 7, LIVER))) == 7  # 0.7000000000000001


def test_decisions_come_in_order_of_score_and_then_of_name() -> None:
    decisions = select(scored(b=0.7, c=0.9, a=0.7), SETTINGS, 1, LIVER)
    assert [d.reliability.case_id for d in decisions] == ["c", "a", "b"]


def test_a_score_below_the_least_is_never_accepted() -> None:
    decisions = select(scored(a=0.49, b=0.5, c=0.3), SETTINGS, 9, LIVER)
    assert accepted(decisions) == ["b"]
    assert decisions[1].reason == "networks disagree (reliability 0.49, below 0.50)"


@pytest.mark.parametrize(
    ("tumour", "reason"),
    [
        pytest.param(
            a_score(0.99, empty_in_one=True),
            "one network finds it, the other does not",
            id="in one",
        ),
        pytest.param(
            TargetReliability(None, None, is_empty=True), "no network finds it", id="in none"
        ),
    ],
)
def test_a_lesion_that_is_not_found_is_no_label_and_takes_no_place_but_the_liver_is(
    tumour: TargetReliability, reason: str
) -> None:
    cases = [
        with_tumour("best", 0.99, tumour),
        *(with_tumour(name, 0.9, a_score(0.8)) for name in "abc"),
    ]
    decisions = select(cases, SETTINGS, 1, LIVER_TARGETS)
    assert accepted(decisions) == ["best", "a"]
    assert accepted(decisions, "tumour") == ["a"]
    by_case = {d.reliability.case_id: d for d in decisions}
    assert by_case["best"].reasons == {"liver": RELIABLE, "tumour": reason}
    assert by_case["best"].reason == f"liver: networks agree; tumour: {reason}"
    assert by_case["b"].reasons["tumour"] == "its liver is not used"


def test_a_case_that_a_person_rejected_is_not_accepted() -> None:
    decisions = select(scored(a=0.9, b=0.8, c=0.7), SETTINGS, 1, LIVER, {"a"})
    assert accepted(decisions) == ["b"]
    assert decisions[0].reason == "rejected by a person"


def test_every_decision_has_a_reason() -> None:
    reasons = [d.reason for d in select(scored(a=0.9, b=0.8, c=0.2, d=0.7), SETTINGS, 1, LIVER)]
    assert reasons == [
        "networks agree",
        "networks agree",
        "not needed this round",
        "networks disagree (reliability 0.20, below 0.50)",
    ]


def test_no_case_gives_no_decision() -> None:
    assert select([], SETTINGS, 1, LIVER_TARGETS) == []


# --- From label maps --------------------------------------------------------------------------


def labels_with(*values: int) -> Labelmap:
    """Return a label map with one column of each value."""
    labels = np.zeros((1, 2, 8), np.uint8)
    for column, value in enumerate(values):
        labels[:, :, column] = value
    return Labelmap(labels, Geometry.axis_aligned(labels.shape))


def predicted(specialist: Labelmap, refined: Labelmap) -> Segmentation:
    return Segmentation(specialist, None, refined, (), {})


@pytest.mark.parametrize(
    ("specialist", "refined", "expected"),
    [
        pytest.param((1, 2), (1, 2), TargetReliability(0.5, 1.0), id="both find it"),
        pytest.param(
            (1, 1), (1, 1), TargetReliability(None, None, is_empty=True), id="both find none"
        ),
        pytest.param(
            (1, 2),
            (1, 1),
            TargetReliability(0.5, 0.0, empty_in_one=True, is_empty=True),
            id="deleted",
        ),
    ],
)
def test_the_reliability_of_a_target_is_that_of_its_regions(
    specialist: tuple[int, ...], refined: tuple[int, ...], expected: TargetReliability
) -> None:
    last = labels_with(*specialist)
    earlier = [last, labels_with(1, 1)]  # the same, and one without a tumour
    segmentation = predicted(last, labels_with(*refined))
    reliability = reliability_of("a", segmentation, earlier, LIVER_TARGETS)
    assert reliability.targets["tumour"] == expected


def test_a_method_with_one_prediction_has_the_checkpoints_alone() -> None:
    last = labels_with(1, 2)
    segmentation = replace(predicted(last, last), specialist_alone=True)
    reliability = reliability_of("a", segmentation, [labels_with(1, 1, 1, 2)], LIVER_TARGETS)
    assert reliability.targets["liver"] == TargetReliability(2 * 2 / 6, None)
    assert reliability.targets["tumour"] == TargetReliability(0.0, None)


def a_classified_segmentation() -> tuple[Segmentation, Labelmap]:
    """Return one accepted and two rejected lesions, and the labels of an earlier checkpoint.

    Columns 2 and 3 are accepted, 10 is clearly rejected, 18 is rejected near the threshold. The
    specialist has all of them, and column 25 of the liver, which the refined label has not.
    """
    shape = (1, 4, 30)
    geometry = Geometry.axis_aligned(shape, (1.0, 1.0, 1.0))
    probability = np.zeros(shape, np.float32)
    specialist = np.ones(shape, np.uint8)
    specialist[..., 26:] = 0
    for column in (2, 3, 10, 18):
        probability[:, 1:3, column] = 0.9
        specialist[:, 1:3, column] = 2
    candidates = find_candidates(
        Evidence(probability, np.ones(shape, bool)),
        Volume(np.random.default_rng(0).normal(size=shape), geometry),
        "tumour",
        CandidatesConfig(margin_mm=1.0),
        0.0,
    )
    column_of = candidates.centres_kji[:, 2].round()
    odds = {2.0: 0.9, 10.0: 0.05, 18.0: 0.4}
    reliability = ClassifiedCandidates(
        candidates, np.array([odds[float(c)] for c in column_of]), 0.5
    )
    refined = specialist.copy()
    refined[..., 25] = 0
    refined[:, 1:3, [10, 18]] = 1
    refined[:, 1, 2] = 1  # the accepted one is smaller
    segmentation = Segmentation(
        Labelmap(specialist, geometry),
        None,
        Labelmap(refined, geometry),
        (),
        {},
        candidates={"tumour": reliability},
    )
    before = specialist.copy()
    before[before == 2] = 1
    before[:, 1:3, [3, 10]] = 2
    return segmentation, Labelmap(before, geometry)


def test_lesions_are_compared_around_those_that_were_accepted() -> None:
    segmentation, before = a_classified_segmentation()
    tumour = reliability_of("a", segmentation, [before], LIVER_TARGETS).targets["tumour"]
    assert tumour.checkpoint_agreement == pytest.approx(2 * 2 / (2 + 4))  # one column of two
    assert tumour.prediction_agreement == pytest.approx(2 * 3 / (4 + 3))


def test_doubtful_is_what_is_disputed_or_near_the_threshold() -> None:
    segmentation, before = a_classified_segmentation()
    doubtful = doubtful_labels(segmentation, [before], LIVER_TARGETS, 1.0).labels[0]
    assert (doubtful[:, 25] == 1).all()  # whether it is liver
    assert doubtful[1, 2] == 2  # whether the accepted one reaches so far
    assert doubtful[2, 2] == 0
    assert not doubtful[:, 9:12].any()  # clearly none
    assert (doubtful[1:3, 17:20] == 2).all()  # the candidate near the threshold, with its margin
    assert not doubtful_labels(segmentation, [before], LIVER_TARGETS, 0.0).labels[0, :, 18].any()


def test_with_one_prediction_the_latest_checkpoint_disputes() -> None:
    last, before = labels_with(1, 1, 2, 0), labels_with(1, 1, 1, 1)
    segmentation = replace(predicted(last, last), specialist_alone=True)
    early = labels_with()
    doubtful = doubtful_labels(segmentation, [early, before], LIVER_TARGETS, 1.0)
    assert doubtful.labels[0, 0].tolist() == [0, 0, 2, 1, 0, 0, 0, 0]
    assert not doubtful_labels(segmentation, [], LIVER_TARGETS, 1.0).labels.any()
