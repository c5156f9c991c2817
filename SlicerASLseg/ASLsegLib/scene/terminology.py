"""Names of targets: which segments show one, and its name in DICOM and colour in Slicer."""

from __future__ import annotations

import colorsys
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import vtk

from ASLsegLib.paths import resource

if TYPE_CHECKING:
    from aslseg.targets import Target

_SYNONYMS = {"tumor": "tumour", "lesion": "tumour", "cancer": "tumour"}
_NEW = re.compile(r"\s*\(new\)$")
_NUMBER = re.compile(r"[\s_\-.#(]*\d+\)?$")
NEW_SUFFIX = " (new)"
"""Ends the name of a segment that was put beside one that a person edited."""


@dataclass(frozen=True)
class Style:
    """How a target is shown and named in DICOM.

    Attributes:
        color: Red, green and blue in [0, 1].
        terminology: Slicer's terminology entry; empty when we know no code for the target.
    """

    color: tuple[float, float, float]
    terminology: str = ""


def style_of_target(target: Target) -> Style:
    """Return how a target is shown: as its project says, else as `style_of` knows it."""
    usual = style_of(target.name, target.value)
    color = usual.color if target.color is None else parts_of_color(target.color)
    return Style(color, target.terminology or usual.terminology)


def parts_of_color(color: str) -> tuple[float, float, float]:
    """Return red, green and blue in [0, 1] of a colour written as `#rrggbb`."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def as_color(parts: Sequence[float]) -> str:
    """Return red, green and blue in [0, 1] as `#rrggbb`."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def terminology_of(segment: Any) -> str:
    """Return the terminology entry of a segment; empty without one."""
    text = vtk.reference("")
    return str(text) if segment.GetTag(segment.GetTerminologyEntryTagName(), text) else ""


def add_segment(node: Any, segment_id: str, name: str, style: Style) -> str:
    """Add an empty segment that is shown and named as a style says, and return its id."""
    segmentation = node.GetSegmentation()
    segment_id = str(segmentation.AddEmptySegment(segment_id, name, style.color))
    if style.terminology:
        segment = segmentation.GetSegment(segment_id)
        segment.SetTag(segment.GetTerminologyEntryTagName(), style.terminology)
    return segment_id


def known_terminologies() -> tuple[str, ...]:
    """Return the terminology entries that targets can be given by name."""
    return tuple(str(entry["terminology"]) for entry in _known().values())


def style_of(target: str, value: int = 1) -> Style:
    """Return the style of a target; a target that we do not know gets a colour of its own.

    Args:
        target: Its name in the project.
        value: Its value in label maps, from which an unknown target's colour is made.
    """
    name = target.strip().lower()
    entry = _known().get(_SYNONYMS.get(name, name))
    if entry is None:
        return Style(colorsys.hsv_to_rgb(value * 0.618 % 1.0, 0.6, 0.9))
    red, green, blue = (part / 255 for part in entry["color"])
    return Style((red, green, blue), entry["terminology"])


def target_named(name: str, targets: Sequence[str]) -> str | None:
    """Return the target that a segment of this name shows, or None.

    Case, blanks and underscores do not matter, nor does American spelling; "tumour 2" and
    "tumour_(2)" are parts of the target "tumour" unless a target has the whole name.
    """
    by_key = {_key(target): target for target in targets}
    whole = _key(name)
    return by_key.get(whole) or by_key.get(_NUMBER.sub("", whole))


def is_newer_result(name: str) -> bool:
    """Tell whether a segment was put beside one that a person edited."""
    return _NEW.search(name) is not None


def without_new(name: str) -> str:
    """Return the name of a segment without the mark of a newer result."""
    return _NEW.sub("", name)


@cache
def _known() -> dict[str, dict[str, Any]]:
    text = resource("terminology", "ASLseg.json").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = json.loads(text)
    return entries


def _key(name: str) -> str:
    words = unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split()
    return " ".join(words).replace("tumor", "tumour")
