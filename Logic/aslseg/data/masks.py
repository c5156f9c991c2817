"""Parts of masks, boxes around them, and the region that a target covers with what lies in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.volume import Float32, Mask, Scalar, Shape3, Spacing3, Volume, zeros


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """A block of voxels.

    Attributes:
        start: First voxel (k, j, i).
        stop: Voxel after the last (k, j, i).
    """

    start: Shape3
    stop: Shape3

    def __post_init__(self) -> None:
        """Refuse what holds no voxel or begins outside of the array."""
        if any(
            first < 0 or last <= first for first, last in zip(self.start, self.stop, strict=True)
        ):
            msg = f"A box needs 0 <= start < stop, got {self.start} to {self.stop}."
            raise ValueError(msg)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in a (D, H, W) array."""
        k, j, i = (slice(first, last) for first, last in zip(self.start, self.stop, strict=True))
        return k, j, i

    @property
    def shape(self) -> Shape3:
        """Number of voxels along (k, j, i)."""
        k, j, i = (last - first for first, last in zip(self.start, self.stop, strict=True))
        return k, j, i


def box_of(
    mask: Mask, *, margin_mm: float = 0.0, spacing_mm: Spacing3 = (1.0, 1.0, 1.0)
) -> BoundingBox | None:
    """Find the smallest box around a mask, widened by a margin within the array.

    Args:
        mask: (D, H, W).
        margin_mm: Added on each side, rounded up to whole voxels.
        spacing_mm: Voxel edge along (k, j, i).

    Returns:
        The box, or None when the mask is empty.
    """
    slices = np.atleast_1d(mask.any(axis=(1, 2)))
    if not slices.any():
        return None
    inner = mask[slices.argmax() : mask.shape[0] - slices[::-1].argmax()]
    profiles = [slices, inner.any(axis=(0, 2)), inner.any(axis=(0, 1))]
    start, stop = [], []
    for profile, edge_mm in zip(profiles, spacing_mm, strict=True):
        margin = int(np.ceil(round(margin_mm / edge_mm, 6)))
        found = np.flatnonzero(profile)
        start.append(max(int(found[0]) - margin, 0))
        stop.append(min(int(found[-1]) + 1 + margin, profile.size))
    return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def crop(array: NDArray[Scalar], box: BoundingBox) -> NDArray[Scalar]:
    """Return the part of a (D, H, W) array that the box covers, without a copy.

    Raises:
        ValueError: When the box leaves the array.
    """
    if any(last > size for last, size in zip(box.stop, array.shape, strict=True)):
        msg = f"Box {box.start} to {box.stop} leaves the array {array.shape}."
        raise ValueError(msg)
    return array[box.slices]


def uncrop(array: NDArray[Scalar], box: BoundingBox, shape: Shape3) -> NDArray[Scalar]:
    """Put a cropped (D, H, W) array back to its place.

    Args:
        array: What the box held.
        box: Where it was cut out.
        shape: Shape of the whole.

    Returns:
        A new array of `shape`, zero outside of the box; where it is large, these zeros take no
        memory.

    Raises:
        ValueError: When the array is not what the box holds.
    """
    if array.shape != box.shape:
        msg = f"Array {array.shape} is not what box {box.start} to {box.stop} holds."
        raise ValueError(msg)
    whole: NDArray[Scalar] = zeros(shape, array.dtype.type)
    crop(whole, box)[...] = array
    return whole


def label_components(mask: Mask, connectivity: int = 3) -> tuple[NDArray[np.int32], int]:
    """Number the connected parts of a mask.

    Args:
        mask: (D, H, W) or (H, W).
        connectivity: Voxels belong together that share a face (1), an edge (2) or a corner (3).
            In two dimensions an edge is a corner, and 3 means 2.

    Returns:
        int32 array of the mask's shape with the values 0 (outside) and 1..n, and n.

    Raises:
        ValueError: When the connectivity is another number.
    """
    if connectivity not in (1, 2, 3):
        msg = f"connectivity must be 1, 2 or 3, got {connectivity}."
        raise ValueError(msg)
    structure = ndimage.generate_binary_structure(mask.ndim, min(connectivity, mask.ndim))
    numbered = zeros(mask.shape, np.int32)
    count = ndimage.label(mask, structure, output=numbered)
    return numbered, int(count)


_SLICES_AT_ONCE = 16


def mask_where(condition: Callable[..., Mask], values: NDArray[Any], *others: NDArray[Any]) -> Mask:
    """Return where a condition holds, a few slices at a time: the rest takes no memory.

    Args:
        condition: Of some slices of all arrays, voxel by voxel.
        values: (D, H, W) or (H, W).
        others: Of the same shape.
    """
    mask: Mask = zeros(values.shape, np.bool_)
    for first in range(0, len(mask), _SLICES_AT_ONCE):
        part = slice(first, first + _SLICES_AT_ONCE)
        holds = condition(values[part], *(other[part] for other in others))
        if holds.any():
            mask[part] = holds
    return mask


def voxel_counts(numbers: NDArray[np.integer[Any]], least: int = 0) -> NDArray[np.int64]:
    """Count the voxels of each number, as `np.bincount` does, which copies all to eight bytes each.

    Args:
        numbers: (D, H, W) or (H, W), not negative.
        least: Length of the result, at least.
    """
    counts = np.zeros(max(least, int(numbers.max(initial=0)) + 1), np.int64)
    for first in range(0, len(numbers), _SLICES_AT_ONCE):
        part = numbers[first : first + _SLICES_AT_ONCE]
        found = np.bincount(part.ravel())
        counts[: len(found)] += found
    return counts


def parts_of(
    mask: Mask, min_area_px: int = 1, numbered: NDArray[np.int32] | None = None
) -> Iterator[Mask]:
    """Yield the connected parts of a slice, largest first.

    Args:
        mask: (H, W).
        min_area_px: Parts of fewer pixels are left out.
        numbered: (H, W) which pixels belong together, 0 for none; those that are connected in the
            slice when None.
    """
    if numbered is None:
        numbered, _ = label_components(mask)
    areas = np.bincount(numbered.ravel())
    areas[0] = 0
    for label in np.argsort(-areas, kind="stable"):
        if areas[label] >= max(min_area_px, 1):
            yield numbered == label


def keep_largest(mask: Mask, connectivity: int = 3) -> Mask:
    """Keep the part with the most voxels; of equal ones, the first in reading order.

    Args:
        mask: (D, H, W) or (H, W).
        connectivity: As for `label_components`.

    Returns:
        A new mask of the same shape.

    Raises:
        ValueError: As `label_components`.
    """
    numbered, count = label_components(mask, connectivity)
    if count == 0:
        return np.zeros(mask.shape, np.bool_)
    largest = 1 + int(np.argmax(voxel_counts(numbered)[1:]))
    return mask_where(lambda part: part == largest, numbered)


def drop_small(mask: Mask, min_voxels: int, connectivity: int = 3) -> Mask:
    """Remove the parts of a (D, H, W) mask that have fewer than `min_voxels` voxels."""
    box = box_of(mask)
    if box is None:
        return mask.copy()
    numbered, _ = label_components(crop(mask, box), connectivity)
    kept = voxel_counts(numbered) >= min_voxels
    kept[0] = False
    return uncrop(kept[numbered], box, (mask.shape[0], mask.shape[1], mask.shape[2]))


def fill_holes_2d(mask: Mask) -> Mask:
    """Fill what a mask encloses within each axial slice.

    Args:
        mask: (D, H, W).

    Returns:
        The mask with all pixels from which no path over shared edges leads out of the slice.
    """
    box = box_of(mask)
    if box is None:
        return mask.copy()
    in_plane = ndimage.generate_binary_structure(3, 1)
    in_plane[[0, 2]] = False
    filled = mask.copy()
    inside = crop(filled, box)
    for first in range(0, len(inside), _SLICES_AT_ONCE):
        part = inside[first : first + _SLICES_AT_ONCE]
        # The added frame joins everything outside of the mask, slice by slice, to one part.
        numbered, _ = ndimage.label(~np.pad(part, ((0, 0), (1, 1), (1, 1))), in_plane)
        part[...] = (numbered != numbered[:, :1, :1])[:, 1:-1, 1:-1]
    return filled


def depth_in_slice(section: Mask, pixel_mm: Sequence[float]) -> Float32:
    """Return how deep (H, W) pixels lie in a section, in mm; negative outside.

    What lies beyond the slice is outside.

    Args:
        section: (H, W), with something in it.
        pixel_mm: Height and width of a pixel.
    """
    inside = ndimage.distance_transform_edt(np.pad(section, 1), pixel_mm)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~section, pixel_mm)
    depth: Float32 = (inside - outside).astype(np.float32)
    return depth


REACH_MM = 3.0
"""How far outside of the predicted parent target a target may still lie."""


def clean_parent(mask: Mask) -> Mask:
    """Return the largest component of a mask, with its holes filled slice by slice.

    Args:
        mask: (D, H, W), on an axial grid.

    Returns:
        (D, H, W); `mask` itself where it is empty.
    """
    box = box_of(mask)
    if box is None:
        return mask
    largest = keep_largest(crop(mask, box))
    inner = box_of(largest)
    cleaned: Mask = zeros(mask.shape, np.bool_)
    if inner is not None:
        crop(cleaned, box)[inner.slices] = fill_holes_2d(crop(largest, inner))
    return cleaned


def parent_mask(volume: Volume, name: str, probability: Float32) -> Mask:
    """Return the mask of a parent target: the one that came with the volume, else the predicted.

    Args:
        volume: The image.
        name: Of the parent target.
        probability: (D, H, W) predicted, of its region.
    """
    given = volume.given.get(name)
    return clean_parent(mask_where(lambda p: p > 0.5, probability)) if given is None else given


def within_reach(organ: Mask, volume: Volume) -> Mask:
    """Return a mask widened in plane by `REACH_MM`: lesions may bulge out of their organ.

    Args:
        organ: (D, H, W).
        volume: Whose voxels these are, for their spacing in mm.

    Returns:
        (D, H, W); `organ` itself where it is empty.
    """
    spacing = min(volume.geometry.spacing_mm[1:])
    steps = min(max(1, round(REACH_MM / spacing)), sum(organ.shape[1:]))
    box = box_of(organ, margin_mm=steps)  # in voxels, as the spacing is not given
    if box is None:
        return organ
    cross = ndimage.generate_binary_structure(2, 1)[None]
    widened: Mask = ndimage.binary_dilation(crop(organ, box), cross, iterations=steps)
    return uncrop(widened, box, organ.shape)
