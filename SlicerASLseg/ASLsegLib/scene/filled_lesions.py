"""In which axial slices a lesion was drawn before it was filled between them.

The segment of its target has a tag for that, a part for each lesion: the number of the lesion, the
slices that were drawn, and digests of its slices as they were before it was filled, and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ASLsegLib.scene.provenance import FILLED, set_tags, tag
from ASLsegLib.scene.repaired_slices import (
    differing,
    digest_words,
    read_digests,
    read_numbers,
    slice_words,
)

_BETWEEN_LESIONS, _BETWEEN_FIELDS = ";", ":"
_FIELDS = 4


@dataclass(frozen=True)
class LesionFill:
    """What is known of a filling of a lesion.

    Attributes:
        slices: Numbers of the slices that were drawn.
        before: Digests of the lesion's slices as it was, see `slice_digests`.
        after: As it was filled.
    """

    slices: frozenset[int]
    before: Mapping[int, str]
    after: Mapping[int, str]


def note_fill(segment: Any, number: int, fill: LesionFill) -> None:
    """Note the last filling of a lesion.

    Args:
        segment: Of the lesion's target.
        number: Of the lesion, see `ReviewedLesion`.
        fill: The filling.
    """
    fields = slice_words(fill.slices), digest_words(fill.before), digest_words(fill.after)
    noted = {**_noted(segment), str(number): _BETWEEN_FIELDS.join(fields)}
    texts = [f"{name}{_BETWEEN_FIELDS}{text}" for name, text in noted.items()]
    set_tags(segment, {FILLED: _BETWEEN_LESIONS.join(texts)})


def fill_of(segment: Any, number: int) -> LesionFill | None:
    """Return the last filling of a lesion; None for none, or what cannot be read."""
    fields = _noted(segment).get(str(number), "").split(_BETWEEN_FIELDS)
    if len(fields) != _FIELDS - 1:
        return None
    slices, before, after = fields
    return LesionFill(frozenset(read_numbers(slices)), read_digests(before), read_digests(after))


def drawn_slices_of_lesion(
    now: Mapping[int, str], found: Mapping[int, str], last: LesionFill | None
) -> list[int]:
    """Return the numbers of the slices in which a person drew a lesion, ascending.

    Args:
        now: Digests of the lesion's slices.
        found: As a run found it; empty for an added one.
        last: Its last filling, if any.
    """
    if last is None:
        return sorted(differing(now, found))
    drawn_since = differing(now, last.before) & differing(now, last.after)
    return sorted(drawn_since | (last.slices & differing(now, found)))


def _noted(segment: Any) -> dict[str, str]:
    """Return what a tag says of each lesion, by its number."""
    parts = (one.partition(_BETWEEN_FIELDS) for one in tag(segment, FILLED).split(_BETWEEN_LESIONS))
    return {number: text for number, _, text in parts if text}
