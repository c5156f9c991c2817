"""Lesions of a label map against what was decided about them: lacking, back again, and grown."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.volume import Labels
from aslseg.project.lesion_decisions import BoxedMask, CaseLesions, LesionDecision
from aslseg.project.shown_lesions import as_decided, shown_otherwise
from aslseg.targets import LIVER_TARGETS
from support.lesion_blocks import accepted, block, deleted
from support.tiny_project import GEOMETRY

FIRST, SECOND, THIRD = (2, 2, 2), (2, 10, 10), (6, 20, 20)


def liver_with(*lesions: BoxedMask) -> Labels:
    labels = np.ones(GEOMETRY.shape, np.uint8)
    labels[:, :, 0] = 0
    for mask in lesions:
        mask.write(labels, 2)
    return labels


@pytest.fixture
def predicted() -> Labels:
    """Three lesions, of which the last one is not decided about."""
    return liver_with(block(*FIRST), block(*SECOND), block(*THIRD))


@pytest.fixture
def lesions() -> CaseLesions:
    return CaseLesions("c2", {400: deleted(block(*FIRST)), 7: accepted(block(*SECOND))})


def test_lesions_that_a_label_map_has_otherwise_than_decided_are_told() -> None:
    labels = np.ones(GEOMETRY.shape, np.uint8)
    for mask in (block(2, 2, 2), block(2, 10, 10)):
        mask.write(labels, 2)
    edit = LesionDecision("edited", "tumour", block(2, 10, 10), block(2, 10, 11))
    unknown = LesionDecision("added", "cyst", None, block(6, 6, 6))  # no target any more
    decisions = {1: deleted(block(2, 2, 2)), 2: edit, 3: accepted(block(2, 10, 11)), 4: unknown}
    lesions = CaseLesions("c2", decisions)
    assert shown_otherwise(lesions, labels, LIVER_TARGETS) == [1, 2, 3]
    block(2, 2, 2).write(labels, 1)
    assert shown_otherwise(lesions, labels, LIVER_TARGETS) == [2, 3]
    block(2, 10, 10).write(labels, 1)
    block(2, 10, 11).write(labels, 2)
    block(8, 20, 20).write(labels, 2)  # which nobody decided about
    assert shown_otherwise(lesions, labels, LIVER_TARGETS) == []


def test_what_was_added_to_a_decided_lesion_is_told_and_goes(
    predicted: Labels, lesions: CaseLesions
) -> None:
    drawn = lesions.apply(predicted, LIVER_TARGETS)
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == []
    block(4, 10, 10).write(drawn, 2)  # the accepted one reaches two slices further
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == [7]
    block(1, 1, 0, 4).write(drawn, 2)  # the deleted one is back, larger, and out of the liver
    before = drawn.copy()
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == [400, 7]
    goal = as_decided(lesions, drawn, LIVER_TARGETS, predicted)
    np.testing.assert_array_equal(goal, lesions.apply(predicted, LIVER_TARGETS))
    np.testing.assert_array_equal(drawn, before)


def test_what_was_added_elsewhere_contradicts_no_decision(
    predicted: Labels, lesions: CaseLesions
) -> None:
    drawn = lesions.apply(predicted, LIVER_TARGETS)
    block(8, 30, 30).write(drawn, 2)  # a lesion that was missed
    block(8, 20, 20).write(drawn, 2)  # more of one that nobody has decided about
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == []
    np.testing.assert_array_equal(as_decided(lesions, drawn, LIVER_TARGETS, predicted), drawn)


def test_what_was_added_between_two_lesions_is_of_the_nearest() -> None:
    predicted = liver_with(block(2, 10, 10), block(2, 10, 20))
    lesions = CaseLesions("c2", {1: accepted(block(2, 10, 10))})
    drawn = predicted.copy()
    drawn[2, 10, 14:20] = 2  # on to the undecided one, and not as far as the other
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == []
    drawn[2, 10, 12:14] = 2
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, predicted) == [1]


def test_a_later_run_that_finds_more_of_a_lesion_adds_nothing_to_it(lesions: CaseLesions) -> None:
    larger = liver_with(block(2, 10, 10, 3))
    drawn = lesions.apply(larger, LIVER_TARGETS)
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS, larger) == []


def test_without_the_prediction_nothing_is_known_of_additions(
    predicted: Labels, lesions: CaseLesions
) -> None:
    drawn = lesions.apply(predicted, LIVER_TARGETS)
    block(4, 10, 10).write(drawn, 2)
    assert shown_otherwise(lesions, drawn, LIVER_TARGETS) == []
    np.testing.assert_array_equal(as_decided(lesions, drawn, LIVER_TARGETS), drawn)
