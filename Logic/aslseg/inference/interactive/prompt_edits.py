"""What SAM is asked with when a person has a say: given prompts beside the proposed ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aslseg.prompts import BoxPrompt, PointPrompt, SlicePrompts

SliceTarget = tuple[int, str]
"""A slice (k) and the name of a target."""

SAME_PX = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class SlicePromptState:
    """The prompts of one slice and target.

    Attributes:
        kept: Proposed ones that still count.
        own: A person's.
        dropped: Proposed ones that a person moved or removed.
    """

    kept: tuple[SlicePrompts, ...] = ()
    own: tuple[SlicePrompts, ...] = ()
    dropped: tuple[SlicePrompts, ...] = ()

    @property
    def is_edited(self) -> bool:
        """Whether a person changed anything here."""
        return bool(self.own or self.dropped)

    @property
    def in_force(self) -> tuple[SlicePrompts, ...]:
        """All that SAM is asked with."""
        return self.kept + self.own

    def says_the_same(self, other: SlicePromptState) -> bool:
        """Whether both ask the same."""
        return (
            same_prompts(self.kept, other.kept)
            and same_prompts(self.own, other.own)
            and same_prompts(self.dropped, other.dropped)
        )


def merge(
    proposed: Sequence[SlicePrompts],
    given: Sequence[SlicePrompts],
    edited_slices: Iterable[int] = (),
) -> dict[SliceTarget, SlicePromptState]:
    """Let a person's prompts take the place of the proposed ones where they speak.

    A given prompt that equals a proposed one is the proposed one, so that handing back what was
    proposed changes nothing.

    Args:
        proposed: By the run.
        given: By the person. They replace all that was proposed in their slice for their target.
        edited_slices: Slices in which the given prompts are all that counts: a target without a
            given prompt there is not asked about.
    """
    own, automatic = by_slice_target(given), by_slice_target(proposed)
    alone = set(edited_slices)
    result: dict[SliceTarget, SlicePromptState] = {}
    for place in sorted(own.keys() | automatic.keys()):
        before = automatic.get(place, ())
        if place in own or place[0] in alone:
            result[place] = _replaced(before, own.get(place, ()))
        else:
            result[place] = SlicePromptState(kept=before)
    return result


def by_slice_target(prompts: Iterable[SlicePrompts]) -> dict[SliceTarget, tuple[SlicePrompts, ...]]:
    """Sort prompts by slice and target, in the order given."""
    found: dict[SliceTarget, tuple[SlicePrompts, ...]] = {}
    for prompt in prompts:
        place = (prompt.slice_index, prompt.target)
        found[place] = (*found.get(place, ()), prompt)
    return found


def same_prompts(first: Sequence[SlicePrompts], second: Sequence[SlicePrompts]) -> bool:
    """Tell whether two lists of prompts say the same, in the same order."""
    return len(first) == len(second) and all(
        _same(a, b) for a, b in zip(first, second, strict=True)
    )


def problem_of(
    prompt: SlicePrompts, shape: tuple[int, int, int], targets: Mapping[str, object]
) -> str:
    """Say why a prompt cannot be answered on a volume of a shape (D, H, W); empty when it can."""
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
    kept = tuple(b for b in before if any(_same(b, g) for g in given))
    own = tuple(g for g in given if not any(_same(b, g) for b in before))
    dropped = tuple(b for b in before if not any(b is k for k in kept))
    return SlicePromptState(kept, own, dropped)


def _same(first: SlicePrompts, second: SlicePrompts) -> bool:
    same_place = (first.slice_index, first.target) == (second.slice_index, second.target)
    return (
        same_place
        and _same_box(first.box, second.box)
        and _same_points(first.points, second.points)
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
        twin = next(
            (p for p in waiting if p.positive == point.positive and _close(p.xy, point.xy)), None
        )
        if twin is None:
            return False
        waiting.remove(twin)
    return True


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(abs(a - b) <= SAME_PX for a, b in zip(first, second, strict=True))
