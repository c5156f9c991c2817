"""What a positive point adds to a lesion (ours).

A person clicks into the middle of what is missing: the lesion reaches about as far around the point
as the point lies away from what has grown without it. A point is a seed of the lesion and evidence
around it, and neither takes anything away: of a random walker with more seeds inside, fewer outside
and more evidence, no probability falls. SAM has no part in it, for its mask of a point is often
smaller than what is there already, or the whole organ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aslseg.data.volume import Float32, Mask, Shape3, Spacing3
from aslseg.inference.interactive.sections import GrowthRules
from aslseg.prompts import SlicePrompts

SURE = 0.5
"""Part of its radius around a point that is the lesion's, on the point's slice."""


@dataclass(frozen=True, slots=True)
class AddedPoint:
    """A positive point that lies outside of what has grown without it.

    Attributes:
        voxel: Index (k, j, i).
        radius_mm: How far the lesion may reach around it.
    """

    voxel: tuple[int, int, int]
    radius_mm: float

    def extent(self, spacing_mm: Spacing3) -> tuple[list[int], list[int]]:
        """Return the first voxel (k, j, i) that it reaches, and the one after the last."""
        reach = [int(np.ceil(self.radius_mm / edge)) for edge in spacing_mm]
        pairs = list(zip(self.voxel, reach, strict=True))
        return [at - far for at, far in pairs], [at + far + 1 for at, far in pairs]


def adds_only(prompt: SlicePrompts) -> bool:
    """Tell whether the points of a slice, of which there are some, all lie in the lesion."""
    return bool(prompt.points) and all(point.positive for point in prompt.points)


def added_points(
    prompts: Mapping[int, SlicePrompts],
    lesion: Mask,
    start: Shape3,
    spacing_mm: Spacing3,
    *,
    widest_mm: float,
    rules: GrowthRules,
) -> list[AddedPoint]:
    """Return the points that add something.

    Args:
        prompts: By slice, whose points are all positive.
        lesion: (D, H, W) of a part of the volume, not empty: what has grown without them.
        start: Index (k, j, i) of its first voxel.
        spacing_mm: Voxel edge along (k, j, i).
        widest_mm: Radius of the widest section: a point reaches no further.
        rules: A point reaches `reach_mm` at least.
    """
    edges = np.asarray(spacing_mm)
    filled = np.argwhere(lesion) + np.asarray(start)
    found = []
    for k, prompt in prompts.items():
        for x, y in (point.xy for point in prompt.points):
            voxel = (k, int(y), int(x))
            away_mm = float(np.sqrt((((filled - voxel) * edges) ** 2).sum(axis=1).min()))
            if away_mm > 0:
                radius_mm = max(min(away_mm, widest_mm), rules.reach_mm)
                found.append(AddedPoint(voxel, radius_mm))
    return found


def roundness_of(
    points: Sequence[AddedPoint], start: Shape3, shape: Shape3, spacing_mm: Spacing3
) -> Float32:
    """Return how far (D, H, W) voxels are within the balls around points, from -1 to 1.

    It is 1 in a centre, 0 at a surface, and -1 far away or without points.

    Args:
        points: In voxels of the volume.
        start: Index (k, j, i) of the first voxel that is wanted.
        shape: How many are.
        spacing_mm: Voxel edge along (k, j, i).
    """
    found = np.full(shape, -1.0, np.float32)
    places = np.ogrid[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    for point in points:
        away2 = sum(
            ((place - at) * edge / point.radius_mm) ** 2
            for place, at, edge in zip(places, point.voxel, spacing_mm, strict=True)
        )
        np.maximum(found, 1 - away2, out=found, casting="same_kind")
    return found


def opened_by(
    points: Sequence[AddedPoint], k: int, start: Shape3, shape: Shape3, spacing_mm: Spacing3
) -> tuple[Mask, Mask]:
    """Return what (H, W) of a slice is the lesion's for sure by its points, and what may be."""
    own = [point for point in points if point.voxel[0] == k]
    _, height, width = shape
    within = roundness_of(own, (k, *start[1:]), (1, height, width), spacing_mm)[0]
    sure: Mask = within > 1 - SURE**2
    return sure, within > 0
