"""A lesion in three dimensions from prompts on one slice (ours).

SAM goes up and down from the prompted slice. On each slice it is asked with the box of the section
before, and of its mask counts what looks like the lesion, or is next to that: what is nearer to the
intensities inside of the prompted section than to those around it. The lesion ends where SAM is
unsure of its mask, where the section changes too much, or where it does not look like the lesion
any more (`GrowthRules`). The mask of the section before is no good as a prompt: as it was released,
SAM follows it too far.

Prompts on further slices correct it. They are met on the way: they stay whatever the rules say,
and what lies beyond them grows from them. Sections never leave the parent, and never enter what the
label map has of other lesions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import keep_largest, label_components, within_reach
from aslseg.data.volume import Float32, Labels, Mask, Volume
from aslseg.errors import ConfigError
from aslseg.events import Monitor
from aslseg.inference.interactive.prompt_edits import SMOOTHING_PX, with_mask_prompt
from aslseg.prompts import BoxPrompt, SlicePrompts, box_around
from aslseg.targets import Target, region_mask, region_values

HALF = 0.5
"""Likeness of a pixel that is neither more like the inside than like the outside."""

EndReason: TypeAlias = Literal["edge", "appearance", "size", "position", "score", "prompt"]
"""Why a lesion ends: at the volume's last slice, because nothing there looks like it, its section
changes size or place too much, SAM is unsure, or a person's prompts leave nothing of it."""


class SliceSam(Protocol):
    """SAM on one slice."""

    def predict_logits(
        self, volume: Volume, prompt: SlicePrompts, monitor: Monitor | None = None
    ) -> Float32:
        """Return the logits (H, W) of the mask of a prompt on its slice; above 0 is inside."""


@dataclass(frozen=True, slots=True)
class GrowthRules:
    """When a lesion ends, and how far from the section before the next one is looked for.

    Attributes:
        reach_mm: In plane, from the section before.
        box_margin_px: Added on each side of the box of the section before.
        least_contrast_hu: With less between inside and outside, appearance decides nothing.
        ring_mm: Width of the ring around the prompted section that counts as outside.
        least_stability: Least share of the mask at logit -1 that is left at logit 1 (the stability
            score of Segment Anything, Kirillov et al., arXiv 2304.02643, with an offset of 1).
        most_growth: A section is at most so many times as large as the one before.
        least_overlap: Least part of the smaller of two neighbouring sections that both share.
        least_likeness: Least mean likeness of a section: 0 is like outside, 1 like inside.
        most_likeness: Beyond this a pixel, or the mean of a section, is unlike the lesion too.
        least_area_px: A section has at least so many pixels.
    """

    reach_mm: float = 4.0
    box_margin_px: float = 0.0
    least_contrast_hu: float = 8.0
    ring_mm: float = 8.0
    least_stability: float = 0.7
    most_growth: float = 1.4
    least_overlap: float = 0.5
    least_likeness: float = 0.4
    most_likeness: float = 1.5
    least_area_px: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class GrownSlice:
    """The section of a lesion on a slice.

    Attributes:
        slice_index: Which slice.
        mask: (H, W).
        stability: Of SAM's mask, from 0 to 1.
        is_prompted: Whether a person prompted this slice.
    """

    slice_index: int
    mask: Mask
    stability: float
    is_prompted: bool


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

    A slice that grows again from a later prompt is yielded again; the last one counts.

    Args:
        sam: Predicts its sections.
        volume: The image, on its axial grid.
        prompts: Of one lesion, on that grid, at most one a slice. The first one with a box or a
            positive point is where the lesion begins.
        allowed: (D, H, W) where it may lie; None for everywhere.
        rules: When it ends.
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
    positive = replace(prompt, points=tuple(p for p in prompt.points if p.positive))
    yield from (int(n) for n in numbered[_pixels_of(positive, numbered.shape)] if n > 0)


def is_start(prompt: SlicePrompts) -> bool:
    """Tell whether a lesion can begin with a prompt."""
    return prompt.box is not None or any(point.positive for point in prompt.points)


@dataclass(frozen=True, slots=True)
class Appearance:
    """Intensities inside of a section and around it.

    Attributes:
        inside_hu: Median of the section.
        outside_hu: Median of the ring around it.
        is_distinct: Whether they differ enough to tell one from the other.
    """

    inside_hu: float
    outside_hu: float
    is_distinct: bool

    def likeness(self, values_hu: Float32) -> Float32:
        """Return how alike pixels are: 0 as outside, 1 as inside; 1 where both are one."""
        if not self.is_distinct:
            return np.ones_like(values_hu)
        contrast_hu = self.inside_hu - self.outside_hu
        return (values_hu - np.float32(self.outside_hu)) / np.float32(contrast_hu)


def learn_appearance(
    values_hu: Float32, section: Mask, allowed: Mask, ring_px: int, least_contrast_hu: float
) -> Appearance:
    """Learn how a section differs from the ring around it.

    Args:
        values_hu: (H, W), smoothed.
        section: (H, W), not empty.
        allowed: (H, W) where outside is looked for.
        ring_px: Width of the ring, which begins one pixel away.
        least_contrast_hu: Of two distinct intensities.
    """
    core = ndimage.binary_erosion(section)
    near = ndimage.binary_dilation(section)
    ring = ndimage.binary_dilation(near, iterations=ring_px) & ~near & allowed
    inside = float(np.median(values_hu[core if core.any() else section]))
    outside = float(np.median(values_hu[ring])) if ring.any() else inside
    return Appearance(inside, outside, abs(inside - outside) >= least_contrast_hu)


@dataclass
class _Growth:
    """One lesion on its way through the slices."""

    sam: SliceSam
    volume: Volume
    prompts: Mapping[int, SlicePrompts]
    allowed: Mask | None
    rules: GrowthRules
    monitor: Monitor
    appearance: Appearance = field(init=False)

    def sections(self, first: int) -> Iterator[GrownSlice | GrowthEnd]:
        """Yield what lies on the first slice, above it, and below it."""
        self.monitor.check()
        start = self._begin(self.prompts[first])
        if not start.mask.any():
            yield GrowthEnd(first, "prompt")
            return
        self.appearance = self._learn(start)
        yield start
        for step in (1, -1):
            yield from self._one_way(start, step)

    def _one_way(self, start: GrownSlice, step: int) -> Iterator[GrownSlice | GrowthEnd]:
        first, beyond = start.slice_index, len(self.volume.voxels) if step > 0 else -1
        met = sorted(
            (k for k in self.prompts if (k - first) * step > 0), key=lambda k: abs(k - first)
        )
        last = start
        for k in met:
            last, reason = yield from self._walk(last, step, k)
            if reason is not None and not is_start(self.prompts[k]):
                continue  # it says what is no lesion, where there is none
            found = self._prompted(self.prompts[k], None if reason else last)
            if not found.mask.any():
                yield GrowthEnd(k, "prompt")
                return
            yield found
            if reason is not None:  # a person says that it goes on: back to where it seemed to end
                yield from self._walk(found, -step, last.slice_index)
            last = found
        last, reason = yield from self._walk(last, step, beyond)
        yield GrowthEnd(last.slice_index + step, reason or "edge")

    def _walk(
        self, section: GrownSlice, step: int, until: int
    ) -> Generator[GrownSlice, None, tuple[GrownSlice, EndReason | None]]:
        """Yield sections up to a slice, without it; return the last one and why it ended before."""
        for k in range(section.slice_index + step, until, step):
            self.monitor.check()
            found = self._next(section, k)
            if not isinstance(found, GrownSlice):
                return section, found
            yield found
            section = found
        return section, None

    def _next(self, before: GrownSlice, k: int) -> GrownSlice | EndReason:
        prior = self._prior(before.mask, k)
        if np.count_nonzero(prior) < self.rules.least_area_px:
            return "appearance"
        found = self._ask(self._prompt_for(before.mask, k), prior)
        found = replace(found, mask=found.mask & ndimage.binary_dilation(prior))
        return self._reason_to_end(before, found) or found

    def _begin(self, prompt: SlicePrompts) -> GrownSlice:
        """Return the section of the first prompt, without a section to compare it with."""
        if prompt.box is None:
            prompt = with_mask_prompt(prompt, self.volume, (), is_parent=False)
        return self._ask(prompt, None, is_prompted=True)

    def _prompted(self, prompt: SlicePrompts, before: GrownSlice | None) -> GrownSlice:
        """Return the section of a further prompt; points alone correct what grows there."""
        self.monitor.check()
        k = prompt.slice_index
        if prompt.box is not None or before is None:
            return self._begin(prompt)
        expected = self._prompt_for(before.mask, k)
        box = _box_with(expected.box, prompt)
        near = self._prior(before.mask, k) | _pixels_of(prompt, before.mask.shape)
        return self._ask(replace(expected, box=box, points=prompt.points), near, is_prompted=True)

    def _prompt_for(self, before: Mask, k: int) -> SlicePrompts:
        first = next(iter(self.prompts.values()))
        box = box_around(before, self.rules.box_margin_px)
        return SlicePrompts(k, first.target, box=box, crop=first.crop)

    def _ask(
        self, prompt: SlicePrompts, near: Mask | None, *, is_prompted: bool = False
    ) -> GrownSlice:
        """Return what SAM finds, as far as it touches what lies near; or its largest part."""
        logits = self.sam.predict_logits(self.volume, prompt, self.monitor)
        mask = logits > 0
        k = prompt.slice_index
        if self.allowed is not None:
            mask &= self.allowed[k]
        mask = keep_largest(mask) if near is None else _touching(mask, near)
        for point in prompt.points:
            if not point.positive:
                mask &= ~_touching(mask, _pixels_of(replace(prompt, points=(point,)), mask.shape))
        return GrownSlice(k, mask, stability_of(logits), is_prompted)

    def _prior(self, before: Mask, k: int) -> Mask:
        """Return what looks like the lesion on a slice near the section before."""
        near = ndimage.binary_dilation(before, iterations=self._pixels(self.rules.reach_mm))
        if self.allowed is not None:
            near &= self.allowed[k]
        if not self.appearance.is_distinct:
            shared: Mask = before & near
            return shared
        likeness = self.appearance.likeness(self._smoothed(k))
        alike = near & (likeness > HALF) & (likeness < self.rules.most_likeness)
        opened = ndimage.binary_opening(alike)
        return _touching(opened if (opened & before).any() else alike, before)

    def _reason_to_end(self, before: GrownSlice, found: GrownSlice) -> EndReason | None:
        area, area_before = np.count_nonzero(found.mask), np.count_nonzero(before.mask)
        if area < self.rules.least_area_px or found.stability < self.rules.least_stability:
            return "score"
        if area > self.rules.most_growth * area_before:
            return "size"
        common = np.count_nonzero(found.mask & before.mask)
        if common < self.rules.least_overlap * min(area, area_before):
            return "position"
        likeness = self.appearance.likeness(self._smoothed(found.slice_index))[found.mask].mean()
        is_alike = self.rules.least_likeness <= likeness <= self.rules.most_likeness
        return None if is_alike else "appearance"

    def _learn(self, section: GrownSlice) -> Appearance:
        k = section.slice_index
        everywhere = np.ones_like(section.mask)
        return learn_appearance(
            self._smoothed(k),
            section.mask,
            everywhere if self.allowed is None else self.allowed[k],
            self._pixels(self.rules.ring_mm),
            self.rules.least_contrast_hu,
        )

    def _smoothed(self, k: int) -> Float32:
        plane = self.volume.voxels[k].astype(np.float32)
        smooth: Float32 = ndimage.gaussian_filter(plane, SMOOTHING_PX)
        return smooth

    def _pixels(self, length_mm: float) -> int:
        return max(1, round(length_mm / min(self.volume.geometry.spacing_mm[1:])))


def stability_of(logits: Float32) -> float:
    """Return the part of a mask at logit -1 that is left at logit 1."""
    wide = np.count_nonzero(logits > -1)
    return np.count_nonzero(logits > 1) / wide if wide else 0.0


def _touching(mask: Mask, near: Mask) -> Mask:
    """Return the connected parts of a mask (H, W) that share a pixel with another one."""
    numbered, count = label_components(mask)
    kept = np.zeros(count + 1, bool)
    kept[np.unique(numbered[near])] = True
    kept[0] = False
    found: Mask = kept[numbered]
    return found


def _pixels_of(prompt: SlicePrompts, shape: tuple[int, ...]) -> Mask:
    """Return the pixels (H, W) of a prompt's points."""
    found = np.zeros(shape, bool)
    for point in prompt.points:
        x, y = point.xy
        found[min(int(y), shape[0] - 1), min(int(x), shape[1] - 1)] = True
    return found


def _box_with(box: BoxPrompt | None, prompt: SlicePrompts) -> BoxPrompt | None:
    """Return a box widened to the positive points of a prompt."""
    marks = [point.xy for point in prompt.points if point.positive]
    if box is None or not marks:
        return box
    left, top, right, bottom = box.xyxy
    xs, ys = [left, right, *(x for x, _ in marks)], [top, bottom, *(y for _, y in marks)]
    return BoxPrompt((min(xs), min(ys), max(xs), max(ys)))
