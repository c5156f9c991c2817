"""What can be filled between drawn slices, and in words why something cannot be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from aslseg.data.slice_numbers import slices_between, write_slices
from aslseg.data.volume import Mask

LESION_SLICES: Final = 5
LESION_MM: Final = 60.0
"""A lesion that is drawn in fewer slices, or is less wide and high, is filled better by shape."""


def why_nothing_between(slices: Collection[int], *, are_repaired: bool = False) -> str:
    """Return why nothing lies between drawn slices; empty when something does.

    Args:
        slices: Numbers of the slices, in any numbering.
        are_repaired: Whether to call them repaired, for a run predicted them before.
    """
    if slices_between(slices):
        return ""
    drawn, draw = ("repaired", "repair") if are_repaired else ("drawn", "draw")
    return (
        f"Nothing lies between the {drawn} slices ({write_slices(slices)}); {draw} another one, "
        "about 15 mm away, and leave those between them out."
    )


def why_too_small(slice_count: int, wide_mm: float) -> str:
    """Return why a network cannot fill a lesion better than its shape does; empty when it can.

    Args:
        slice_count: In how many slices it was drawn.
        wide_mm: As `across_mm` returns it.
    """
    by_shape = "fill it by shape (Segment Editor, Fill between slices)"
    if slice_count < LESION_SLICES:
        return (
            f"The lesion is drawn in too few slices ({slice_count}) to teach a network; draw it in "
            f"{LESION_SLICES} or more, about 15 mm apart, or {by_shape}."
        )
    if wide_mm < LESION_MM:
        return (
            f"The lesion is {wide_mm:.0f} mm wide or high; a network fills one of less than "
            f"{LESION_MM:.0f} mm worse than shape does: {by_shape}."
        )
    return ""


def across_mm(drawn: Mask, pixel_mm: Sequence[float]) -> float:
    """Return how wide or high something is in all drawn slices, whichever is more.

    Args:
        drawn: (N, H, W) the drawn slices; nothing is 0 mm wide.
        pixel_mm: Height and width of a pixel.
    """
    found = np.argwhere(drawn.any(axis=0))
    if not len(found):
        return 0.0
    return float(max((found.max(axis=0) - found.min(axis=0) + 1) * np.asarray(pixel_mm)))
