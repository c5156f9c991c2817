"""Small lesions of the tumour, as cubes, and decisions about them."""

from __future__ import annotations

import numpy as np

from aslseg.data.masks import BoundingBox
from aslseg.project.lesion_decisions import BoxedMask, LesionDecision


def block(k: int, j: int, i: int, size: int = 2) -> BoxedMask:
    """A cube of so many voxels an edge."""
    box = BoundingBox((k, j, i), (k + size, j + size, i + size))
    return BoxedMask(box, np.ones(box.shape, np.bool_))


def accepted(mask: BoxedMask) -> LesionDecision:
    return LesionDecision("accepted", "tumour", mask, mask, "a", 1, 3)


def deleted(mask: BoxedMask) -> LesionDecision:
    return LesionDecision("deleted", "tumour", mask, None)
