"""A growing lesion in the slices and pixels of the volume's file; it grows on the axial grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from aslseg.data.geometry import fit_labels
from aslseg.data.orientation import axial_labelmap, axial_to_slices, axial_volume
from aslseg.data.volume import Geometry, Labelmap, Volume
from aslseg.events import Monitor
from aslseg.inference.interactive.propagation import (
    GrownSlice,
    GrowthEnd,
    SliceSam,
    allowed_region,
    check_prompts,
    propagate,
)
from aslseg.prompts import SlicePrompts, turned_prompts
from aslseg.targets import LIVER_TARGETS, Target


def grow_lesion(
    sam: SliceSam,
    volume: Volume,
    prompts: Sequence[SlicePrompts],
    *,
    stored: Geometry | None = None,
    targets: Sequence[Target] = LIVER_TARGETS,
    labels: Labelmap | None = None,
    monitor: Monitor | None = None,
) -> Iterator[GrownSlice | GrowthEnd]:
    """Yield a lesion in three dimensions from prompts on one or more slices.

    Args:
        sam: Such as a `VolumeSamPredictor`.
        volume: The image, or its axial volume if `stored` is given.
        prompts: Of one lesion, on the slice grid, at most one a slice; see `propagate`.
        stored: Geometry of the image; that of `volume` when None.
        targets: Of the label map.
        labels: What there is: the lesion stays in its parent and out of other lesions.
        monitor: Asked whether to stop, before each slice.

    Returns:
        Sections and ends on the slice grid, as soon as they are there.

    Raises:
        ConfigError: When no lesion can begin with the prompts, or they are not of one.
        ImageError: When the label map does not lie on the image.
        CancelledError: When asked to stop.
    """
    check_prompts(prompts)
    stored = stored or volume.geometry
    axial, turn = axial_volume(volume), axial_to_slices(stored)
    shape = axial.geometry.shape
    given = turned_prompts(prompts, turn.inverse, turn.shape(shape))
    allowed = None
    if labels is not None:
        known = axial_labelmap(fit_labels(labels, stored, "the label map")).labels
        allowed = allowed_region(known, axial, given, targets)
    in_plane = replace(turn, mirrored=(False, *turn.mirrored[1:]))

    def turned(found: GrownSlice | GrowthEnd) -> GrownSlice | GrowthEnd:
        k = turn.index(found.slice_index, shape[0])
        if isinstance(found, GrowthEnd):
            return replace(found, slice_index=k)
        return replace(found, slice_index=k, mask=in_plane.array(found.mask[None])[0])

    growth = propagate(sam, axial, given, allowed=allowed, monitor=monitor)
    return (turned(found) for found in growth)
