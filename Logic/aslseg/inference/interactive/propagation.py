"""A lesion in three dimensions from prompts on one slice (ours).

SAM predicts the prompted slices; what it finds in a box is weighed with intensities and the box's
ellipse (`sections`). Above and below, two things make a voxel likely: that it looks like these
sections and not like what is around them, and that a lesion is about as deep as it is wide. A
random walker (`random_walker`) joins both with the sections, and stops at edges.

SAM as it was released is of no use on the slices in between (`Docs/studies/results-methods.md`), so
they are neither encoded nor predicted. Boxes and negative points on further slices correct a
lesion: their sections stay as they are and it grows from all of them. Positive points add to it,
and take nothing away (`added_points`); without a box the first one of the slice is what it begins
with: of two, SAM often finds less than of one, and of one and a negative one often nothing. So
negative points there take away what lies nearer to them than to a positive one. Sections never
leave the parent, and never enter what the label map has of other lesions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import depth_in_slice, keep_largest, label_components, within_reach
from aslseg.data.volume import Float32, Labels, Mask, Shape3, Spacing3, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.interactive.added_points import (
    AddedPoint,
    added_points,
    adds_only,
    opened_by,
    roundness_of,
)
from aslseg.inference.interactive.prompt_edits import with_mask_prompt
from aslseg.inference.interactive.random_walker import walk
from aslseg.inference.interactive.sections import (
    Appearance,
    GrowthRules,
    boxed_section,
    learn_appearance,
    ring_around,
)
from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts, box_around
from aslseg.targets import Target, region_mask, region_values

HALF = 0.5
MOST_VOXELS = 300_000
"""Beyond it a lesion grows on every second, third, ... pixel."""

EndReason: TypeAlias = Literal["edge", "appearance", "depth", "prompt"]
"""Why a lesion ends: at the volume's last slice, because nothing there looks like it, because it
would be much deeper than wide, or a person's prompts leave nothing of it."""


class SliceSam(Protocol):
    """SAM on one slice."""

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        """Return the logits (H, W) of the mask of a prompt on its slice; above 0 is inside."""


@dataclass(frozen=True, slots=True, eq=False)
class GrownSlice:
    """The section of a lesion on a slice.

    Attributes:
        slice_index: Which slice.
        mask: (H, W).
    """

    slice_index: int
    mask: Mask


@dataclass(frozen=True, slots=True)
class GrowthEnd:
    """The first slice on which there is nothing of the lesion, or the number beyond the last one.

    Attributes:
        slice_index: Which slice.
        reason: Why.
    """

    slice_index: int
    reason: EndReason


def propagate(
    sam: SliceSam,
    volume: Volume,
    prompts: Sequence[SlicePrompts],
    *,
    allowed: Mask | None = None,
    rules: GrowthRules | None = None,
    monitor: Monitor | None = None,
) -> Iterator[GrownSlice | GrowthEnd]:
    """Yield the sections of a lesion, upward from the first prompted slice and then downward.

    Args:
        sam: Predicts its sections.
        volume: The image, on its axial grid.
        prompts: Of one lesion, on that grid, at most one a slice. The first one with a box or a
            positive point is where the lesion begins.
        allowed: (D, H, W) where it may lie; None for everywhere.
        rules: What belongs to it.
        monitor: Asked whether to stop, before each slice.

    Raises:
        ConfigError: When the prompts are not those of one lesion.
        CancelledError: When asked to stop.
    """
    first = check_prompts(prompts)
    by_slice = {prompt.slice_index: prompt for prompt in prompts}
    growth = _Growth(sam, volume, by_slice, allowed, rules or GrowthRules(), monitor or Monitor())
    return growth.sections(first.slice_index)


def check_prompts(prompts: Sequence[SlicePrompts]) -> SlicePrompts:
    """Return the prompt that a lesion begins with.

    Raises:
        ConfigError: When no lesion can begin with any, two are on one slice, or they are of several
            targets.
    """
    problem = ""
    if len({prompt.target for prompt in prompts}) > 1:
        problem = "A lesion is of one target; give the prompts of one target at a time."
    elif len({prompt.slice_index for prompt in prompts}) < len(prompts):
        problem = "A lesion has one section a slice; grow lesions one after the other."
    elif not any(is_start(prompt) for prompt in prompts):
        problem = "A lesion grows from a box or a positive point; place one."
    if problem:
        raise ConfigError(problem)
    return next(prompt for prompt in prompts if is_start(prompt))


def allowed_region(
    labels: Labels, volume: Volume, prompts: Sequence[SlicePrompts], targets: Sequence[Target]
) -> Mask:
    """Return where a lesion may lie: within reach of its parent, and in nothing else that is known.

    What the label map has of the target is another lesion, unless a box holds most of its section
    or a positive point lies in it.

    Args:
        labels: (D, H, W) on the axial grid; without its parent a lesion may lie anywhere.
        volume: The image, on that grid.
        prompts: Of the lesion.
        targets: Of the label map.
    """
    target = next(one for one in targets if one.name == prompts[0].target)
    parent = next((one for one in targets if one.name == target.inside), None)
    allowed = np.ones(labels.shape, bool)
    if parent is not None and (labels == parent.value).any():
        allowed = within_reach(region_mask(labels, parent, targets), volume)
    within = region_values(target, targets)
    around = [one.value for one in targets if target.value in region_values(one, targets)]
    allowed &= np.isin(labels, [0, *within, *around])
    numbered, _ = label_components(np.isin(labels, within))
    same = {n for prompt in prompts for n in _meant(numbered[prompt.slice_index], prompt)}
    allowed &= np.isin(numbered, [0, *same])
    return allowed


def _meant(numbered: NDArray[np.int32], prompt: SlicePrompts) -> Iterator[int]:
    """Yield the numbers of the parts of a slice (H, W) that a prompt is about."""
    if prompt.box is not None:
        inside = np.bincount(numbered[prompt.box.region(numbered.shape)], minlength=1)
        whole = np.bincount(numbered.ravel(), minlength=len(inside))[: len(inside)]
        yield from (int(n) for n in np.flatnonzero(inside > whole * HALF) if n > 0)
    marked = numbered[_pixels_of(_positive(prompt), numbered.shape)]
    yield from (int(n) for n in marked if n > 0)


def is_start(prompt: SlicePrompts) -> bool:
    """Tell whether a lesion can begin with a prompt."""
    return prompt.box is not None or any(point.positive for point in prompt.points)


@dataclass
class _Growth:
    """One lesion on its way through the slices."""

    sam: SliceSam
    volume: Volume
    prompts: Mapping[int, SlicePrompts]
    allowed: Mask | None
    rules: GrowthRules
    monitor: Monitor
    found: dict[int, Mask] = field(default_factory=dict)
    pointed: set[int] = field(default_factory=set)
    """Slices whose section began with a point."""

    def sections(self, first: int) -> Iterator[GrownSlice | GrowthEnd]:
        """Yield what lies on the first slice, above it, and below it."""
        for k in [first, *(k for k, one in self.prompts.items() if one.box and k != first)]:
            self.found[k] = self._begin(self.prompts[k])
        if not self.found[first].any():
            yield GrowthEnd(first, "prompt")
            return
        yield GrownSlice(first, self.found[first])
        lesion = self._fill()
        others = [k for k in self.prompts if k not in self.found and not self._adds_only(k)]
        for k in others:
            self.found[k] = self._corrected(self.prompts[k], lesion.mask(k))
        if others:
            lesion = self._fill()
        lesion = self._with_points(lesion)
        if not np.array_equal(lesion.mask(first), self.found[first]):
            yield GrownSlice(first, lesion.mask(first))
        for step in (1, -1):
            yield from self._one_way(lesion, first, step)

    def _one_way(self, lesion: _Block, first: int, step: int) -> Iterator[GrownSlice | GrowthEnd]:
        last = lesion.last if step > 0 else lesion.first
        for k in range(first + step, last + step, step):
            self.monitor.check()
            if lesion.mask(k).any():
                yield GrownSlice(k, lesion.mask(k))
        yield GrowthEnd(last + step, self._reason_to_end(lesion, last + step))

    def _reason_to_end(self, lesion: _Block, k: int) -> EndReason:
        if not 0 <= k < len(self.volume.voxels):
            return "edge"
        if k in self.found:
            return "prompt"
        return "appearance" if lesion.start[0] <= k < lesion.stop[0] else "depth"

    def _adds_only(self, k: int) -> bool:
        prompt = self.prompts[k]
        return prompt.mask_logits is None and adds_only(prompt)

    def _with_points(self, lesion: _Block) -> _Block:
        """Return a lesion with what positive points add to it."""
        prompts = {
            k: replace(prompt, points=tuple(_positive(prompt)))
            for k, prompt in self.prompts.items()
            if self._adds_only(k) or k in self.pointed
        }
        added = added_points(
            prompts, lesion.lesion, lesion.start, self.volume.geometry.spacing_mm,
            widest_mm=max(self._diameter_mm(section) for section in self.found.values()) / 2,
            rules=self.rules,
        )  # fmt: skip
        added = [one for one in added if self._allowed(one.voxel[0])[one.voxel[1:]]]
        return self._fill(added).joined(lesion) if added else lesion

    def _begin(self, prompt: SlicePrompts) -> Mask:
        """Return the section (H, W) of a prompt, without a lesion to compare it with."""
        box, given = prompt.box, prompt
        is_pointed = box is None and prompt.mask_logits is None
        if is_pointed:  # the others add to it later
            self.pointed.add(prompt.slice_index)
            prompt = replace(prompt, points=tuple(_positive(prompt)[:1]))
        elif self._adds_only(prompt.slice_index):
            prompt = replace(prompt, points=())
        if box is None:
            prompt = with_mask_prompt(prompt, self.volume, (), is_parent=False)
        logits, allowed = self._logits(prompt), self._allowed(prompt.slice_index)
        mask = (logits > 0) & allowed
        if box is None:
            section = keep_largest(mask)
        else:
            plane_hu, ring_px = self._plane(prompt.slice_index), self._pixels(self.rules.ring_mm)
            section = boxed_section(
                plane_hu, logits, box, allowed, ring_px=ring_px, rules=self.rules
            )
        section = _follow_points(section, mask, prompt)
        return _cut_by_points(section, given) if is_pointed else section

    def _corrected(self, prompt: SlicePrompts, expected: Mask) -> Mask:
        """Return the section (H, W) of prompts on a slice that the lesion reaches, or may reach."""
        if not expected.any():
            return self._begin(prompt) if is_start(prompt) else expected
        box = _box_with(box_around(expected), prompt)
        crop = next(iter(self.prompts.values())).crop
        mask = self._logits(replace(prompt, box=box, crop=crop)) > 0
        mask &= self._allowed(prompt.slice_index)
        near = expected | _pixels_of(prompt.points, expected.shape)
        return _follow_points(_touching(mask, near), mask, prompt)

    def _logits(self, prompt: SlicePrompts) -> Float32:
        self.monitor.check()
        return self.sam.predict_logits(self.volume, prompt, self.monitor)

    def _fill(self, added: Sequence[AddedPoint] = ()) -> _Block:
        """Return the lesion between and around the sections that were found, and points."""
        self.monitor.check()
        block = self._block(added)
        looks, smooth_hu = self._learn(), self._smoothed(block.slices)
        spacing_mm = self.volume.geometry.spacing_mm
        around = roundness_of(added, block.start, block.shape, spacing_mm)
        inside, outside = self._seeds(block, added, around > 0)
        evidence = self.rules.intensity_weight * looks.evidence(smooth_hu, self.rules.most_evidence)
        evidence += self.rules.shape_weight * np.maximum(self._roundness(block), around)
        probability = _walk_coarsely(
            smooth_hu / np.float32(looks.contrast_hu), evidence, inside, outside,
            spacing_mm=spacing_mm, length_mm=self.rules.length_mm,
        )  # fmt: skip
        lesion = _touching((probability > HALF) & ~outside | inside, inside)
        return replace(block, lesion=lesion)

    def _block(self, added: Sequence[AddedPoint]) -> _Block:
        """Return the block that the lesion may fill, still empty."""
        filled = {k: section for k, section in self.found.items() if section.any()}
        height_mm, _, _ = self.volume.geometry.spacing_mm
        ends = []
        for k, section in filled.items():
            radius_mm = self._diameter_mm(section) / 2
            reach = max(1, int(self.rules.depth * radius_mm / height_mm))
            ends += [k - reach, k + reach]
        rows, columns = np.nonzero(np.logical_or.reduce(list(filled.values())))
        margin = self._reach_px() + 1
        shape = self.volume.voxels.shape
        low = (min(ends), int(rows.min()) - margin, int(columns.min()) - margin)
        high = (max(ends) + 1, int(rows.max()) + margin + 1, int(columns.max()) + margin + 1)
        extents = [one.extent(self.volume.geometry.spacing_mm) for one in added]
        start = np.min([low, *(first for first, _ in extents)], axis=0).clip(min=0)
        stop = np.max([high, *(last for _, last in extents)], axis=0).clip(max=shape)
        (k, j, i), (k1, j1, i1) = start.tolist(), stop.tolist()
        return _Block((k, j, i), (k1, j1, i1), shape[1:])

    def _seeds(self, block: _Block, added: Sequence[AddedPoint], around: Mask) -> tuple[Mask, Mask]:
        """Return where the lesion is, and where it is not, for sure; points reach `around`."""
        near = np.logical_or.reduce(list(self.found.values()))
        near = ndimage.binary_dilation(near, iterations=self._reach_px())
        inside = np.zeros(block.shape, bool)
        outside = np.empty_like(inside)
        first = block.start[0]
        in_plane = block.slices[1:]
        for k in range(first, block.stop[0]):
            reached = near[in_plane] | around[k - first]
            outside[k - first] = ~(reached & self._allowed(k)[in_plane])
        for k, section in self.found.items():
            if first <= k < block.stop[0]:
                inside[k - first] = section[in_plane]
                outside[k - first] = ~section[in_plane]
        for k in {one.voxel[0] for one in added}:
            allowed = self._allowed(k)[in_plane]
            spacing_mm = self.volume.geometry.spacing_mm
            sure, possible = opened_by(added, k, block.start, block.shape, spacing_mm)
            inside[k - first] |= sure & allowed
            outside[k - first] &= ~(possible & allowed)
        return inside, outside

    def _roundness(self, block: _Block) -> Float32:
        """Return how far (D, H, W) voxels are within what sections are cut from, from -1 to 1.

        Beyond the outermost sections that is a ball: 1 in the centre, 0 at the surface. Between two
        sections their distances are interpolated (Raya and Udupa, IEEE TMI 1990).
        """
        height_mm, row_mm, column_mm = self.volume.geometry.spacing_mm
        at = sorted(k for k, section in self.found.items() if section.any())
        radius_mm = [self._diameter_mm(self.found[k]) / 2 for k in at]
        edge_mm = row_mm, column_mm
        across = [
            1 - depth_in_slice(self.found[k][block.slices[1:]], edge_mm) / radius
            for k, radius in zip(at, radius_mm, strict=True)
        ]
        found = []
        for k in range(block.start[0], block.stop[0]):
            above = int(np.searchsorted(at, k))
            low, high = max(above - 1, 0), min(above, len(at) - 1)
            share = (k - at[low]) / (at[high] - at[low]) if low < high else 0.0
            from_centre = (1 - share) * across[low] + share * across[high]
            up = 0.0 if low < high else (k - at[low]) * height_mm / radius_mm[low]
            found.append(1 - from_centre**2 - up**2)
        return np.stack(found).clip(-1.0, 1.0).astype(np.float32)

    def _learn(self) -> Appearance:
        filled = [(k, section) for k, section in self.found.items() if section.any()]
        ring_px = self._pixels(self.rules.ring_mm)
        return learn_appearance(
            [self._plane(k) for k, _ in filled],
            [section for _, section in filled],
            [ring_around(section, self._allowed(k), ring_px) for k, section in filled],
            self.rules.least_spread_hu,
        )

    def _plane(self, k: int) -> Float32:
        """Return the smoothed intensities (H, W) of a slice."""
        whole = slice(None)
        smooth: Float32 = self._smoothed((slice(k, k + 1), whole, whole))[0]
        return smooth

    def _smoothed(self, slices: tuple[slice, ...]) -> Float32:
        sigma = [self.rules.smoothing_mm / edge for edge in self.volume.geometry.spacing_mm[1:]]
        values_hu = self.volume.voxels[slices].astype(np.float32)
        smooth: Float32 = ndimage.gaussian_filter(values_hu, (0.0, *sigma))
        return smooth

    def _allowed(self, k: int) -> Mask:
        if self.allowed is None:
            return np.ones(self.volume.voxels.shape[1:], bool)
        allowed: Mask = self.allowed[k]
        return allowed

    def _reach_px(self) -> int:
        widest_mm = max(self._diameter_mm(section) for section in self.found.values())
        return self._pixels(max(self.rules.reach_mm, self.rules.reach_share * widest_mm))

    def _diameter_mm(self, section: Mask) -> float:
        """Return the diameter of a circle of a section's area."""
        _, height_mm, width_mm = self.volume.geometry.spacing_mm
        return 2 * float(np.sqrt(np.count_nonzero(section) * height_mm * width_mm / np.pi))

    def _pixels(self, length_mm: float) -> int:
        return max(1, round(length_mm / min(self.volume.geometry.spacing_mm[1:])))


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A part of the volume, and what the lesion fills of it.

    Attributes:
        start: First voxel (k, j, i).
        stop: Voxel after the last.
        plane: (H, W) of the volume.
        lesion: (D, H, W) of the part.
    """

    start: Shape3
    stop: Shape3
    plane: tuple[int, ...]
    lesion: Mask = field(default_factory=lambda: np.zeros((0, 0, 0), bool))

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(low, high) for low, high in zip(self.start, self.stop, strict=True))

    @property
    def shape(self) -> Shape3:
        (k, j, i), (k1, j1, i1) = self.start, self.stop
        return k1 - k, j1 - j, i1 - i

    def joined(self, other: _Block) -> _Block:
        """Return it with what another block within it has of the lesion."""
        lesion = self.lesion.copy()
        inner = zip(other.slices, self.start, strict=True)
        lesion[tuple(slice(s.start - at, s.stop - at) for s, at in inner)] |= other.lesion
        return replace(self, lesion=lesion)

    @property
    def first(self) -> int:
        """The lesion's first slice."""
        return self.start[0] + int(np.flatnonzero(self.lesion.any(axis=(1, 2)))[0])

    @property
    def last(self) -> int:
        """The lesion's last slice."""
        return self.start[0] + int(np.flatnonzero(self.lesion.any(axis=(1, 2)))[-1])

    def mask(self, k: int) -> Mask:
        """Return the lesion's section (H, W) on a slice of the volume."""
        found = np.zeros(self.plane, bool)
        if self.start[0] <= k < self.stop[0]:
            found[self.slices[1:]] = self.lesion[k - self.start[0]]
        return found


def _walk_coarsely(
    values: Float32,
    evidence: Float32,
    inside: Mask,
    outside: Mask,
    *,
    spacing_mm: Spacing3,
    length_mm: float,
) -> Float32:
    """Return the probability (D, H, W) of `walk`, on fewer pixels where there are very many."""
    step = max(1, int(np.ceil(np.sqrt(values.size / MOST_VOXELS))))
    every = (slice(None), slice(None, None, step), slice(None, None, step))
    height_mm, row_mm, column_mm = spacing_mm
    found = walk(
        values[every], evidence[every], inside[every], outside[every],
        spacing_mm=(height_mm, row_mm * step, column_mm * step), length_mm=length_mm,
    )  # fmt: skip
    if step == 1:
        return found
    scale = (1.0, 1.0 / step, 1.0 / step)
    fine: Float32 = ndimage.affine_transform(
        found, scale, output_shape=values.shape, order=1, mode="nearest"
    )
    return fine


def _follow_points(section: Mask, mask: Mask, prompt: SlicePrompts) -> Mask:
    """Add the parts of SAM's mask with positive points to a section, take away negative ones."""
    section = section | _touching(mask, _pixels_of(_positive(prompt), mask.shape))
    for point in prompt.points:
        if not point.positive:
            section = section & ~_touching(section, _pixels_of([point], mask.shape))
    return section


def _cut_by_points(section: Mask, prompt: SlicePrompts) -> Mask:
    """Take away what of a section (H, W) is nearer to a negative point in it than to others."""
    negative = [point for point in prompt.points if not point.positive]
    inside = [point for point in negative if section[_pixels_of([point], section.shape)].any()]
    if not inside:
        return section
    positive = _positive(prompt)
    kept = section & (_distance_px(inside, section.shape) >= _distance_px(positive, section.shape))
    near = kept & _pixels_of(positive, section.shape)
    return _touching(kept, near) if near.any() else keep_largest(kept)


def _distance_px(points: Sequence[PointPrompt], shape: tuple[int, ...]) -> Float32:
    """Return how far (H, W) the middles of pixels are from the nearest of some points."""
    rows, columns = np.indices(shape, np.float32) + np.float32(0.5)
    away = [np.hypot(columns - x, rows - y) for x, y in (point.xy for point in points)]
    nearest: Float32 = np.minimum.reduce(away)
    return nearest


def _touching(mask: Mask, near: Mask) -> Mask:
    """Return the connected parts of a mask that share a pixel with another one."""
    numbered, count = label_components(mask)
    kept = np.zeros(count + 1, bool)
    kept[np.unique(numbered[near])] = True
    kept[0] = False
    found: Mask = kept[numbered]
    return found


def _positive(prompt: SlicePrompts) -> list[PointPrompt]:
    return [point for point in prompt.points if point.positive]


def _pixels_of(points: Iterable[PointPrompt], shape: tuple[int, ...]) -> Mask:
    """Return the pixels (H, W) of points."""
    found = np.zeros(shape, bool)
    for point in points:
        x, y = point.xy
        found[min(int(y), shape[0] - 1), min(int(x), shape[1] - 1)] = True
    return found


def _box_with(box: BoxPrompt | None, prompt: SlicePrompts) -> BoxPrompt | None:
    """Return a box widened to the positive points of a prompt."""
    marks = [point.xy for point in _positive(prompt)]
    if box is None or not marks:
        return box
    left, top, right, bottom = box.xyxy
    xs, ys = [left, right, *(x for x, _ in marks)], [top, bottom, *(y for _, y in marks)]
    return BoxPrompt((min(xs), min(ys), max(xs), max(ys)))
