"""The slices of a volume in which a person drew organs, and those between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aslseg.data.filling_rules import across_mm, why_nothing_between
from aslseg.data.volume import Geometry, Labelmap, Mask, Volume
from aslseg.errors import ConfigError
from aslseg.targets import CascadeStage, Target, cascade_stages, is_given, region_mask


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSlices:
    """What a person drew of the organs of a volume.

    Attributes:
        targets: All targets.
        stage: The stage of the organs, which are the targets that lie in no other one.
        labels: On the axial grid; counts in the drawn slices.
        slices: Their numbers on that grid, ascending.
    """

    targets: tuple[Target, ...]
    stage: CascadeStage
    labels: Labelmap
    slices: tuple[int, ...]

    @property
    def names(self) -> str:
        """The names of the organs, for a person."""
        return ", ".join(target.name for target in self.stage.targets)

    @property
    def gaps(self) -> list[range]:
        """The slices between each two neighbours that were drawn."""
        pairs = itertools.pairwise(self.slices)
        return [range(first + 1, last) for first, last in pairs if last - first > 1]

    @property
    def span(self) -> slice:
        """All slices from the first drawn one to the last."""
        return slice(self.slices[0], self.slices[-1] + 1)

    @property
    def place_px(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First and last (row, column) in pixels of the organs in all drawn slices."""
        places = np.argwhere(self._organs.any(axis=0))
        return places.min(axis=0), places.max(axis=0)

    @property
    def across_mm(self) -> float:
        """How wide or high the organs are in all drawn slices, whichever is more."""
        return across_mm(self._organs, self.labels.geometry.spacing_mm[1:])

    @property
    def _organs(self) -> Mask:
        """All organs in the drawn slices, (N, H, W)."""
        regions = [self.region(target)[list(self.slices)] for target in self.stage.targets]
        found: Mask = np.any(regions, axis=0)
        return found

    def region(self, target: Target) -> Mask:
        """Return what is shown of a target (D, H, W), with what lies in it."""
        return region_mask(self.labels.labels, target, self.targets)

    def within(self, slab: slice) -> DrawnSlices:
        """Return the same of some neighbouring slices alone, which hold all drawn ones."""
        labels = Labelmap(self.labels.labels[slab], _geometry_of(self.labels.geometry, slab))
        return replace(self, labels=labels, slices=tuple(k - slab.start for k in self.slices))


def slab_of(volume: Volume, slab: slice) -> Volume:
    """Return some neighbouring slices of a volume, without masks that came with it."""
    return Volume(volume.voxels[slab], _geometry_of(volume.geometry, slab))


def _geometry_of(geometry: Geometry, slab: slice) -> Geometry:
    moved = np.eye(4)
    moved[2, 3] = slab.start
    shape = (slab.stop - slab.start, *geometry.shape[1:])
    return Geometry(shape, geometry.ijk_to_ras @ moved)


def drawn_slices(
    targets: tuple[Target, ...], volume: Volume, labels: Labelmap, slices: Sequence[int]
) -> DrawnSlices:
    """Return the drawn slices of a volume, where something can be learnt and filled.

    Args:
        targets: All targets.
        volume: The image.
        labels: What is shown of it, on the axial grid.
        slices: Numbers of the drawn slices on that grid.

    Raises:
        ConfigError: When nothing lies between the slices, when they show none of the organs, or
            when masks of these came with the volume.
    """
    drawn = DrawnSlices(targets, cascade_stages(targets)[0], labels, tuple(sorted({*slices})))
    found, depth = list(drawn.slices), len(labels.labels)
    if not found or found[0] < 0 or found[-1] >= depth:
        msg = f"Slices are 0 to {depth - 1}, not {found}; name those that were drawn."
        raise ConfigError(msg)
    problem = why_nothing_between(found)
    if problem:
        raise ConfigError(problem)
    shown = [target.name for target in drawn.stage.targets if drawn.region(target)[found].any()]
    given = ", ".join(name for name in shown if name in volume.given)
    if given or is_given(drawn.stage, volume.given):
        msg = f"A mask of {given or drawn.names} came with the volume; correct that mask."
        raise ConfigError(msg)
    if not shown:
        msg = f"The drawn slices show nothing of {drawn.names}; draw it in two or more of them."
        raise ConfigError(msg)
    return drawn
