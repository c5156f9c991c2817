"""The place of a patch in its volume: what lies under each of its pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aslseg.augment import Placement, located_pixels
from aslseg.views import View


@dataclass(frozen=True, slots=True)
class Place:
    """Where a patch was cut.

    Attributes:
        case: Number of the case among those of the batch source.
        placement: Centre, turn and scale in the pixels of the case's view.
        slice_index: Of the view, for a patch of one slice; None for a block.
        mirrored: Axes (-1 columns, -2 rows) that the patch was mirrored along afterwards.
    """

    case: int
    placement: Placement
    slice_index: int | None = None
    mirrored: tuple[int, ...] = ()


def slices_under(place: Place, view: View, edge: int) -> list[int | None]:
    """Return the volume's slice that each plane of a patch lies on.

    Returns:
        One number for a patch of one slice, `edge` numbers for a block; None outside of the volume.
    """
    if place.slice_index is None:
        steps = torch.arange(edge, dtype=torch.float32) - (edge - 1) / 2
        planes = steps * place.placement.scale + place.placement.centre[0]
    else:
        planes = torch.tensor([float(place.slice_index)])
    found = [math.floor(float(k) + 0.5) for k in _to_volume(planes, view, 0)]
    return [k if 0 <= k < view.volume_shape[0] else None for k in found]


def pixels_under(place: Place, view: View, edge: int) -> Tensor:
    """Return the point (x, y) of the volume's slice under each pixel of a patch.

    Returns:
        (edge, edge, 2) in pixels of the slice; centres of pixels are at half numbers.
    """
    flat = Placement(place.placement.centre[-2:], place.placement.angle, place.placement.scale)
    rows, columns = located_pixels(flat, edge)
    points = torch.stack([_to_volume(columns, view, 2), _to_volume(rows, view, 1)], -1) + 0.5
    return points.flip([axis + 2 for axis in place.mirrored])


def _to_volume(index: Tensor, view: View, axis: int) -> Tensor:
    """Map indices along an axis of a view to those of its volume (both at voxel centres)."""
    part = view.box.slices[axis]
    scale = float(part.stop - part.start) / view.image.shape[axis]
    return torch.add((index + 0.5) * scale, part.start - 0.5)
