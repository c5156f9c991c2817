"""Clicks as a person would make them: where the answer is wrong, with the sign that mends it.

The rule is that of SAM-Med3D and SemiSAM: of what is missing and what is too much, the first clicks
go deep into the larger error; later ones go anywhere into what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.volume import FloatArray, Mask

DEEP_CLICKS = 2
"""How many clicks go into the middle of the larger error."""


@dataclass(frozen=True, slots=True)
class Click:
    """A pixel, and whether it belongs to what is meant.

    Attributes:
        index: (row, column), or (plane, row, column).
        positive: True for what was missed, False for what was taken in wrongly.
    """

    index: tuple[int, ...]
    positive: bool


def next_click(wanted: Mask, answer: Mask, number: int, rng: np.random.Generator) -> Click | None:
    """Simulate the next click of a person who wants a mask and was shown an answer.

    Args:
        wanted: What is meant.
        answer: What was answered so far; empty before the first click.
        number: How many clicks were made before this one.
        rng: Draws the pixel.

    Returns:
        The click, or None when nothing is wrong.
    """
    missed, invented = wanted & ~answer, answer & ~wanted
    if not (missed.any() or invented.any()):
        return None
    if number < DEEP_CLICKS:
        places = _middle_of_the_larger(missed, invented)
    else:
        places = np.argwhere(missed | invented)
    drawn = tuple(int(n) for n in places[rng.integers(len(places))])
    return Click(drawn, bool(wanted[drawn]))


def _middle_of_the_larger(missed: Mask, invented: Mask) -> NDArray[np.int64]:
    depths = [_depth(missed), _depth(invented)]
    depth = max(depths, key=lambda d: float(d.max()))
    return np.argwhere(depth > depth.max() / 2)


def _depth(mask: Mask) -> FloatArray:
    """Return each pixel's distance to what is outside of the mask; beyond the array is outside."""
    framed = np.pad(mask, 1)
    inner = tuple(slice(1, -1) for _ in mask.shape)
    depth: FloatArray = ndimage.distance_transform_edt(framed)[inner]
    return depth
