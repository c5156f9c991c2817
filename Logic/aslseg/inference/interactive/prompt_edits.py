"""The prompts of SAM: a person's beside those that the run proposed."""

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
        twin = next(
            (p for p in waiting if p.positive == point.positive and _close(p.xy, point.xy)), None
        )
        if twin is None:
            return False
        waiting.remove(twin)
    return True


def _close(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(abs(a - b) <= SAME_PX for a, b in zip(first, second, strict=True))
