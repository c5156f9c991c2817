"""Lesions of a slice in which a person changes prompts: what they touch is left to SAM."""

from __future__ import annotations

import numpy as np
import pytest

from aslseg.data.volume import Float32, Mask
from aslseg.inference.interactive.predictions import decided_slice
from aslseg.inference.interactive.prompt_edits import SlicePromptState
from aslseg.inference.lesion_stage import OUTLINED, CandidateEffect
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts

SHAPE = (3, 20, 20)
K = 1
ONE, OTHER = (slice(2, 8), slice(2, 8)), (slice(12, 18), slice(12, 18))


def cores() -> Mask:
    mask = np.zeros(SHAPE, np.bool_)
    mask[K][ONE] = mask[K][OTHER] = True
    return mask


def refined() -> Float32:
    """The middle of both cores alone."""
    plane = np.zeros(SHAPE[1:], np.float32)
    plane[4:6, 4:6] = plane[14:16, 14:16] = 0.9
    return plane


def decided(state: SlicePromptState) -> Float32:
    effect = CandidateEffect(np.ones(SHAPE, np.bool_), cores())
    return decided_slice(refined(), K, effect, state, None)


def prompt(
    *, box: tuple[float, ...] | None = None, point: PointPrompt | None = None
) -> SlicePrompts:
    of_box = None if box is None else BoxPrompt(box)
    return SlicePrompts(K, "tumour", box=of_box, points=() if point is None else (point,))


def test_without_edits_all_of_the_cores_is_lesion() -> None:
    plane = decided(SlicePromptState())
    assert (plane[cores()[K]] >= np.float32(OUTLINED)).all()
    assert plane[4, 4] == np.float32(0.9)


@pytest.mark.parametrize(
    "state",
    [
        SlicePromptState(user=(prompt(point=PointPrompt((7.0, 7.0), positive=False)),)),
        SlicePromptState(user=(prompt(box=(0.0, 0.0, 4.0, 4.0)),)),
        SlicePromptState(removed=(prompt(box=(1.0, 1.0, 9.0, 9.0)),)),
    ],
    ids=["a point", "a box", "one that was removed"],
)
def test_a_core_that_a_changed_prompt_touches_is_left_to_sam(state: SlicePromptState) -> None:
    plane = decided(state)
    np.testing.assert_array_equal(plane[ONE], refined()[ONE])
    assert (plane[OTHER] >= np.float32(OUTLINED)).all()
