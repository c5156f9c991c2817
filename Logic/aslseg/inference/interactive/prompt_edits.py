"""The prompts of SAM: a person's beside those that the run proposed, and mask prompts for them.

SAM is tuned on prompts that come with a mask; without one it often predicts the whole organ for a
click in a lesion. So a person's prompt gets a mask too (ours): what the specialist proposed within
the box, or the pixels around a click that look like it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from aslseg.data.masks import label_components
from aslseg.data.volume import Mask, Volume
from aslseg.prompts import XY, BoxPrompt, PointPrompt, SlicePrompts, box_around, mask_to_logits

SliceTarget = tuple[int, str]
"""A slice (k) and the name of a target."""


SAME_PX = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class SlicePromptState:
    """The prompts of one slice and target.

    Attributes:
        proposed: The run's, as far as they still count.
        user: A person's.
        removed: The run's that a person moved or removed.
    """

    proposed: tuple[SlicePrompts, ...] = ()
    user: tuple[SlicePrompts, ...] = ()
    removed: tuple[SlicePrompts, ...] = ()

    @property
    def is_edited(self) -> bool:
        """Whether a person changed anything here."""
        return bool(self.user or self.removed)

    @property
    def in_force(self) -> tuple[SlicePrompts, ...]:
        """All that SAM is given."""
        return self.proposed + self.user

    def matches(self, other: SlicePromptState) -> bool:
        """Whether both have the same prompts."""
        return (
            same_prompts(self.proposed, other.proposed)
            and same_prompts(self.user, other.user)
            and same_prompts(self.removed, other.removed)
        )


def merge(
    proposed: Sequence[SlicePrompts],
    given: Sequence[SlicePrompts],
    edited_slices: Iterable[int] = (),
) -> dict[SliceTarget, SlicePromptState]:
    """Return the prompts of each slice and target: a person's, or else the proposed ones.

    A given prompt that equals a proposed one is the proposed one, so that handing back what was
    proposed changes nothing.

    Args:
        proposed: By the run.
        given: By the person. They replace all that was proposed in their slice for their target.
        edited_slices: Slices in which the given prompts are all that counts: a target without a
            given prompt there has none.
    """
    user, automatic = by_slice_target(given), by_slice_target(proposed)
    alone = set(edited_slices)
    result: dict[SliceTarget, SlicePromptState] = {}
    for key in sorted(user.keys() | automatic.keys()):
        before = automatic.get(key, ())
        if key in user or key[0] in alone:
            result[key] = _replaced(before, user.get(key, ()))
        else:
            result[key] = SlicePromptState(proposed=before)
    return result


def by_slice_target(prompts: Iterable[SlicePrompts]) -> dict[SliceTarget, tuple[SlicePrompts, ...]]:
    """Sort prompts by slice and target, in the order given."""
    found: dict[SliceTarget, tuple[SlicePrompts, ...]] = {}
    for prompt in prompts:
        key = (prompt.slice_index, prompt.target)
        found[key] = (*found.get(key, ()), prompt)
    return found


def same_prompts(first: Sequence[SlicePrompts], second: Sequence[SlicePrompts]) -> bool:
    """Tell whether two lists hold the same prompts, in the same order."""
    return len(first) == len(second) and all(
        _same(a, b) for a, b in zip(first, second, strict=True)
    )


def problem_of(
    prompt: SlicePrompts, shape: tuple[int, int, int], targets: Mapping[str, object]
) -> str:
    """Return why a prompt cannot be used on a volume of a shape (D, H, W); empty when it can."""
    depth, height, width = shape
    if prompt.target not in targets:
        known = ", ".join(targets)
        return f"A prompt asks for '{prompt.target}', which is no target; choose one of {known}."
    if not 0 <= prompt.slice_index < depth:
        return f"A prompt lies on slice {prompt.slice_index}, the volume has 0 to {depth - 1}."
    corners = [p.xy for p in prompt.points]
    if prompt.box is not None:
        left, top, right, bottom = prompt.box.xyxy
        corners += [((left + right) / 2, (top + bottom) / 2)]
    if any(not (0 <= x <= width and 0 <= y <= height) for x, y in corners):
        return f"A prompt on slice {prompt.slice_index} lies outside of the image; move it inside."
    return ""


def _replaced(before: Sequence[SlicePrompts], given: Sequence[SlicePrompts]) -> SlicePromptState:
    proposed = tuple(b for b in before if any(_same(b, g) for g in given))
    user = tuple(g for g in given if not any(_same(b, g) for b in before))
    removed = tuple(b for b in before if not any(b is p for p in proposed))
    return SlicePromptState(proposed, user, removed)


def _same(first: SlicePrompts, second: SlicePrompts) -> bool:
    is_same = (first.slice_index, first.target) == (second.slice_index, second.target)
    return (
        is_same and _same_box(first.box, second.box) and _same_points(first.points, second.points)
    )


def _same_box(first: BoxPrompt | None, second: BoxPrompt | None) -> bool:
    if first is None or second is None:
        return first is second
    return _close(first.xyxy, second.xyxy)


def _same_points(first: Sequence[PointPrompt], second: Sequence[PointPrompt]) -> bool:
    if len(first) != len(second):
        return False
    waiting = list(second)
    for point in first:
        equal = next(
            (p for p in waiting if p.positive == point.positive and _close(p.xy, point.xy)), None
        )
        if equal is None:
            return False
        waiting.remove(equal)
    return True


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(abs(a - b) <= SAME_PX for a, b in zip(first, second, strict=True))


SMOOTHING_PX = 1.0


SEED_MM = 3.0


REACH_MM = 25.0


ALIKE_HU = 20.0


MARGIN_PX = 2.0


def with_mask_prompt(
    prompt: SlicePrompts,
    volume: Volume,
    proposed: Sequence[SlicePrompts],
    *,
    is_parent: bool,
) -> SlicePrompts:
    """Return a person's prompt with a mask, and with a box where there was none.

    Args:
        prompt: Of a person.
        volume: The image.
        proposed: The run's prompts of the same slice and target.
        is_parent: Whether other targets lie inside of this one. An organ is not grown from a click:
            it looks like its neighbours.
    """
    clicked = any(point.positive for point in prompt.points)
    mask = _proposed_mask(prompt, proposed, volume.geometry.shape[1:])
    if not is_parent and (clicked or not mask.any()):
        mask = _grown_mask(prompt, volume)
    for point in prompt.points:
        if not point.positive:
            mask &= ~look_alikes(volume, prompt.slice_index, point.xy)
    if not mask.any():
        return prompt
    box = prompt.box or box_around(mask, MARGIN_PX)
    return replace(prompt, box=box, mask_logits=mask_to_logits(mask))


def look_alikes(volume: Volume, k: int, xy: XY) -> Mask:
    """Return the pixels (H, W) that look like a point and are connected with it.

    Args:
        volume: The image.
        k: Number of the slice.
        xy: The point, in pixels of the slice.
    """
    smooth = ndimage.gaussian_filter(volume.voxels[k].astype(np.float32), SMOOTHING_PX)
    distance = _distance_mm(volume, xy)
    seed = distance <= max(SEED_MM, distance.min())
    alike = (np.abs(smooth - smooth[seed].mean()) <= ALIKE_HU) & (distance <= REACH_MM)
    opened: Mask = ndimage.binary_opening(alike) | seed
    numbered, _ = label_components(opened)
    found: Mask = numbered == numbered[np.unravel_index(int(np.argmin(distance)), distance.shape)]
    return found


def _proposed_mask(
    prompt: SlicePrompts, proposed: Sequence[SlicePrompts], shape: tuple[int, ...]
) -> Mask:
    mask = np.zeros(shape, bool)
    if prompt.box is not None:
        for one in proposed:
            if one.mask_logits is not None:
                mask |= one.mask_logits > 0
        mask &= prompt.box.region(shape)
    return mask


def _grown_mask(prompt: SlicePrompts, volume: Volume) -> Mask:
    shape = volume.geometry.shape[1:]
    seeds: list[XY] = [point.xy for point in prompt.points if point.positive]
    if prompt.box is not None and not seeds:
        left, top, right, bottom = prompt.box.xyxy
        seeds = [((left + right) / 2, (top + bottom) / 2)]
    mask = np.zeros(shape, bool)
    for xy in seeds:
        mask |= look_alikes(volume, prompt.slice_index, xy)
    return mask if prompt.box is None else mask & prompt.box.region(shape)


def _distance_mm(volume: Volume, xy: XY) -> NDArray[np.float64]:
    rows, columns = np.indices(volume.geometry.shape[1:])
    _, row_mm, column_mm = volume.geometry.spacing_mm
    distance: NDArray[np.float64] = np.hypot(
        (rows + 0.5 - xy[1]) * row_mm, (columns + 0.5 - xy[0]) * column_mm
    )
    return distance
