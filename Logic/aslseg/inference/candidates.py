"""Lesion candidates of a volume: connected parts of high probability, and their features.

All of it is ours. A segmentation network decides voxel by voxel; whether something is a lesion is
decided here for a connected part as a whole. Only targets that lie in a parent and hold no other
target have candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.config import CandidatesConfig, RunConfig
from aslseg.data.masks import (
    BoundingBox,
    box_of,
    crop,
    label_components,
    mask_where,
    uncrop,
    voxel_counts,
)
from aslseg.data.volume import Float32, Labels, Mask, Spacing3, Volume, zeros
from aslseg.preprocessing.intensity import organ_scale
from aslseg.targets import Target, lesion_targets

FEATURES = (
    "peak",
    "mean",
    "volume",
    "contrast",
    "fill",
    "elongation",
    "depth",
    "earlier_peak",
    "sam_overlap",
    "sam_stability",
)
"""Columns of `Candidates.features`, in this order; see there."""
MOST_CANDIDATES = 255
"""Of a target: numbers of candidates are uint8. The largest ones stay."""

ZONE_VOXELS = 8 << 20
"""In a block that zones are found in; see `_zones`."""

_SLICES_AT_ONCE = 16
_ODDS_LIMIT = 6.0
_STABLE = tuple(float(1 / (1 + np.exp(-odds))) for odds in (1.0, -1.0))
"""SAM's stability: overlap of its masks at log-odds of 1 and -1 (Kirillov et al., ICCV 2023)."""


def candidate_targets(targets: Sequence[Target], config: RunConfig) -> list[Target]:
    """Return the targets whose candidates are accepted or rejected; none if all are kept."""
    return [] if config.lesion_decision == "none" else lesion_targets(targets)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of one target on the axial grid of a volume, each (D, H, W).

    Attributes:
        specialist: Its probability.
        parent: Predicted mask of the parent target.
        earlier: Probabilities of the specialist with its earlier weights.
        sam: SAM's probability; None without SAM.
    """

    specialist: Float32
    parent: Mask
    earlier: tuple[Float32, ...] = ()
    sam: Float32 | None = None

    def cropped(self, box: BoundingBox) -> Evidence:
        """Return the part in a box."""
        return Evidence(
            crop(self.specialist, box),
            crop(self.parent, box),
            tuple(crop(values, box) for values in self.earlier),
            None if self.sam is None else crop(self.sam, box),
        )

    @property
    def proposal(self) -> Float32:
        """The largest of the specialist's probability, SAM's and the earlier mean, (D, H, W)."""
        largest: Float32 = self.specialist.copy()
        for part in _few_slices(largest):
            whole = largest[part]
            if self.earlier:
                mean = reduce(np.add, (values[part] for values in self.earlier))
                np.maximum(whole, mean / np.float32(len(self.earlier)), out=whole)
            if self.sam is not None:
                np.maximum(whole, self.sam[part], out=whole)
        return largest

    def region_above(self, threshold: float) -> BoundingBox | None:
        """Return a box outside of which the proposal is nowhere above a threshold."""
        sources = (self.specialist, *self.earlier, *(() if self.sam is None else (self.sam,)))

        def is_above(*parts: Float32) -> Mask:
            above: Mask = reduce(np.logical_or, (part > threshold for part in parts))
            return above

        return box_of(mask_where(is_above, *sources))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of one target in one volume, numbered from 1.

    Attributes:
        target: Its name.
        shape: (D, H, W) of the volume's axial grid.
        box: That the arrays lie in; None when there is no candidate.
        cores: (d, h, w) uint8, the candidate's number: each connected part of where the proposal
            has at least half of the highest probability that it has in a component of the
            threshold (full width at half maximum) is one.
        zones: (d, h, w) uint8, the number of the nearest core, within the margin.
        centres_kji: (n, 3) mean indices of the cores' voxels, on the axial grid.
        volume_ml: (n,) of the cores.
        features: (n, len(FEATURES)) float64; NaN where there is no SAM, or no earlier weights.

            `peak`, `earlier_peak`: log-odds of the specialist's highest probability in the core,
            with the last weights and on average with the earlier ones; `mean`: log-odds of its mean
            there. `volume`: natural logarithm of the core's ml. `contrast`: mean intensity of the
            core, in robust deviations from the parent's outside of all components. `fill`: volume
            of the core over that of the ellipsoid of equal second moments. `elongation`: logarithm
            of the ratio of that ellipsoid's longest and shortest axis. `depth`: logarithm of 1 mm
            plus the largest distance of the core to the parent's border. `sam_overlap`: Dice of the
            core and SAM's mask in the zone. `sam_stability`: Jaccard of SAM's masks at log-odds of
            1 and -1.
    """

    target: str
    shape: tuple[int, int, int]
    box: BoundingBox | None
    cores: Labels
    zones: Labels
    centres_kji: NDArray[np.float64]
    volume_ml: NDArray[np.float64]
    features: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.volume_ml)

    def core_map(self) -> Labels:
        """Return the cores on the whole axial grid, (D, H, W) uint8."""
        return self._whole(self.cores)

    def zone_map(self) -> Labels:
        """Return the zones on the whole axial grid, (D, H, W) uint8."""
        return self._whole(self.zones)

    def _whole(self, part: Labels) -> Labels:
        if self.box is None:
            return zeros(self.shape, np.uint8)
        return uncrop(part, self.box, self.shape)


def find_candidates(
    evidence: Evidence,
    volume: Volume,
    target: str,
    settings: CandidatesConfig,
    min_component_ml: float,
) -> Candidates:
    """Propose candidates of a target, and measure their features.

    Args:
        evidence: Of the target.
        volume: The image, on its axial grid.
        target: Name of the target.
        settings: Threshold and margin.
        min_component_ml: Candidates with a smaller core are left out.
    """
    shape, spacing_mm = volume.geometry.shape, volume.geometry.spacing_mm
    region = evidence.region_above(settings.threshold)
    if region is None:
        return _none(target, shape)
    proposed = zeros(shape, np.bool_)
    proposed[region.slices] = evidence.cropped(region).proposal > settings.threshold
    box = box_of(proposed, margin_mm=settings.margin_mm, spacing_mm=spacing_mm)
    if box is None:
        return _none(target, shape)
    inside = evidence.cropped(box)
    least = max(1, round(min_component_ml / volume.geometry.voxel_ml))
    here = crop(proposed, box)
    cores = _cores(here, inside.proposal, least)
    if not cores.any():
        return _none(target, shape)
    zones = _zones(cores, settings.margin_mm, spacing_mm)
    contrast, depth = _of_parent(evidence.parent, volume, box, here, cores > 0)
    measured = [
        _features(inside, core, zone, (contrast, depth), spacing_mm)
        for core, zone in _parts(cores, zones)
    ]
    sizes = voxel_counts(cores)[1:].astype(np.float64) * volume.geometry.voxel_ml
    numbers = np.arange(1, len(sizes) + 1)
    centres = np.array(ndimage.center_of_mass(cores > 0, cores, numbers)) + box.start
    return Candidates(target, shape, box, cores, zones, centres, sizes, np.array(measured))


def _few_slices(array: NDArray[Any]) -> Iterator[slice]:
    """Yield the slices of a volume, a few at a time."""
    for first in range(0, len(array), _SLICES_AT_ONCE):
        yield slice(first, first + _SLICES_AT_ONCE)


def _none(target: str, shape: tuple[int, int, int]) -> Candidates:
    empty = np.zeros((0, 0, 0), np.uint8)
    nothing, numbers = np.zeros((0, 3)), np.zeros(0)
    return Candidates(
        target, shape, None, empty, empty, nothing, numbers, np.zeros((0, len(FEATURES)))
    )


def _cores(proposed: Mask, proposal: Float32, least: int) -> Labels:
    """Number what lies above half of the peak of its component, largest first.

    Parts of a component that touch below half of its peak alone are candidates of their own.

    Args:
        proposed: (d, h, w) voxels above the threshold.
        proposal: (d, h, w) probability.
        least: Voxels; smaller parts are left out.
    """
    components, count = label_components(proposed)
    peaks = np.full(count + 1, -np.inf, np.float32)
    np.maximum.at(peaks, components[proposed], proposal[proposed])
    peaks[0] = np.inf
    in_core = np.empty(components.shape, np.bool_)
    for part in _few_slices(components):
        in_core[part] = proposal[part] >= peaks[components[part]] / 2
    del components
    numbered, count = label_components(in_core)
    sizes = voxel_counts(numbered, count + 1)
    order = np.argsort(-sizes[1:], kind="stable")[:MOST_CANDIDATES] + 1
    order = order[sizes[order] >= least]
    rank = np.zeros(count + 1, np.uint8)
    rank[order] = np.arange(1, len(order) + 1)
    cores: Labels = rank[numbered]
    return cores


def _zones(cores: Labels, margin_mm: float, spacing_mm: Spacing3) -> Labels:
    """Return the number of the nearest core within a margin, 0 elsewhere.

    Block after block: a nearest voxel takes 28 bytes for each voxel.
    """
    zones = np.zeros(cores.shape, np.uint8)
    reach = int(margin_mm / spacing_mm[0]) + 1
    step = max(1, ZONE_VOXELS // cores[0].size - 2 * reach)
    for first in range(0, len(cores), step):
        low = max(first - reach, 0)
        block = cores[low : first + step + reach]
        if block.any():
            found = _zones_of_block(block, margin_mm, spacing_mm)
            zones[first : first + step] = found[first - low :][:step]
    return zones


def _zones_of_block(cores: Labels, margin_mm: float, spacing_mm: Spacing3) -> Labels:
    nearest = ndimage.distance_transform_edt(
        cores == 0, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    squared = np.zeros(cores.shape)
    for axis, edge_mm in enumerate(spacing_mm):
        places = np.arange(cores.shape[axis]).reshape([-1 if n == axis else 1 for n in range(3)])
        way_mm = (nearest[axis] - places).astype(np.float64)
        way_mm *= edge_mm
        squared += np.square(way_mm, out=way_mm)
        del way_mm
    is_near = np.sqrt(squared, out=squared) <= margin_mm
    zones: Labels = np.where(is_near, cores[tuple(nearest)], np.uint8(0))
    return zones


def _of_parent(
    parent: Mask, volume: Volume, box: BoundingBox, candidates: Mask, cores: Mask
) -> tuple[Float32, Float32]:
    """Return normalised intensities in a box, and of cores the distance to the border in mm.

    The border is that of the parent; elsewhere in the box the distance is zero.
    """
    reached = parent.copy()
    reached[box.slices] = True
    both = box_of(reached, margin_mm=1.0) or box  # one voxel: the border lies in the box
    within = tuple(
        slice(part.start - first, part.stop - first)
        for part, first in zip(box.slices, both.start, strict=True)
    )
    organ = crop(parent, both)
    rest = organ.copy()
    rest[within] &= ~candidates
    voxels = crop(volume.voxels, both)
    scale = organ_scale(voxels, rest if rest.any() else organ)
    return scale.normalised(voxels[within]), _depth(
        organ, within, cores, volume.geometry.spacing_mm
    )


def _depth(organ: Mask, within: tuple[slice, ...], cores: Mask, spacing_mm: Spacing3) -> Float32:
    """Return the distance of cores in a box to the nearest voxel outside of an organ, in mm.

    As `distance_transform_edt` gives it, which would need dozens of bytes for each voxel of the
    organ: of each slice its nearest voxel in plane is asked for, and the nearest of these counts.
    """
    framed = np.pad(organ, 1, constant_values=not organ.all())  # where the scan ends is no border
    places = np.argwhere(cores) + [part.start + 1 for part in within]
    squared = np.full(len(places), np.inf)
    for k in np.flatnonzero(~framed.all(axis=(1, 2))):
        along = np.square((places[:, 0] - k) * spacing_mm[0])
        asked = np.flatnonzero(along < squared)
        if not len(asked):
            continue
        nearest = ndimage.distance_transform_edt(
            framed[k], sampling=spacing_mm[1:], return_distances=False, return_indices=True
        )
        rows, columns = places[asked, 1], places[asked, 2]
        ways = along[asked] + np.square((nearest[0, rows, columns] - rows) * spacing_mm[1])
        ways += np.square((nearest[1, rows, columns] - columns) * spacing_mm[2])
        squared[asked] = np.minimum(squared[asked], ways)
    depth = np.zeros(cores.shape, np.float32)
    depth[cores] = np.sqrt(np.where(np.isinf(squared), 0.0, squared))
    return depth


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One candidate's share of a map of numbers, in a box around its zone."""

    where: tuple[slice, slice, slice]
    mask: Mask

    def of(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values in the mask, one-dimensional."""
        return values[self.where][self.mask]


def _parts(*maps: Labels) -> Iterator[tuple[_Part, ...]]:
    """Yield core and zone of each candidate, in one box."""
    for number, where in enumerate(ndimage.find_objects(maps[-1]), start=1):
        yield tuple(_Part(where, numbers[where] == number) for numbers in maps)


def _features(
    evidence: Evidence,
    core: _Part,
    zone: _Part,
    contrast_and_depth: tuple[Float32, Float32],
    spacing_mm: Spacing3,
) -> list[float]:
    contrast, depth = contrast_and_depth
    ellipsoid_ml, ratio = _ellipsoid(core.mask, spacing_mm)
    volume_ml = int(core.mask.sum()) * float(np.prod(spacing_mm)) / 1000
    earlier = [float(core.of(values).max()) for values in evidence.earlier]
    found = {
        "peak": _odds(float(core.of(evidence.specialist).max())),
        "mean": _odds(float(core.of(evidence.specialist).mean())),
        "volume": float(np.log(volume_ml)),
        "contrast": float(core.of(contrast).mean()),
        "fill": volume_ml / ellipsoid_ml,
        "elongation": float(np.log(ratio)),
        "depth": float(np.log1p(core.of(depth).max())),
        "earlier_peak": float(np.mean([_odds(p) for p in earlier])) if earlier else np.nan,
        **_of_sam(evidence.sam, core, zone),
    }
    return [found[name] for name in FEATURES]


def _of_sam(sam: Float32 | None, core: _Part, zone: _Part) -> dict[str, float]:
    if sam is None:
        return {"sam_overlap": np.nan, "sam_stability": np.nan}
    values = sam[zone.where]
    mask = (values > 0.5) & zone.mask
    overlap = 2 * int((mask & core.mask).sum()) / (int(mask.sum()) + int(core.mask.sum()))
    strict, lenient = (int(((values > limit) & zone.mask).sum()) for limit in _STABLE)
    return {"sam_overlap": overlap, "sam_stability": strict / lenient if lenient else 0.0}


def _ellipsoid(mask: Mask, spacing_mm: Spacing3) -> tuple[float, float]:
    """Return the ml, and the ratio of axes, of the ellipsoid with the second moments of a mask.

    Those of a filled ellipsoid are a fifth of its squared half axes. Each voxel is a box, which
    adds a twelfth of its squared edges.
    """
    points_mm = np.argwhere(mask) * np.asarray(spacing_mm)
    centred = points_mm - points_mm.mean(axis=0)
    moments = centred.T @ centred / len(centred) + np.diag(np.square(spacing_mm)) / 12
    values = np.linalg.eigvalsh(moments)
    half_axes_mm = np.sqrt(5 * values)
    volume_ml = 4 / 3 * np.pi * half_axes_mm.prod() / 1000
    return float(volume_ml), float(half_axes_mm[2] / half_axes_mm[0])


def _odds(probability: float) -> float:
    limit = 1 / (1 + np.exp(_ODDS_LIMIT))
    clipped = min(max(probability, limit), 1 - limit)
    return float(np.log(clipped / (1 - clipped)))
