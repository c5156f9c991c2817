"""Names that DICOM knows and colours that Slicer's users know, for targets."""

from __future__ import annotations

import colorsys
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from ASLsegLib.paths import resource

_SYNONYMS = {"tumor": "tumour", "lesion": "tumour", "cancer": "tumour"}


@dataclass(frozen=True)
class Style:
    """How a target is shown and named in DICOM.

    Attributes:
        color: Red, green and blue in [0, 1].
        terminology: Slicer's terminology entry; empty when we know no code for the target.
    """

    color: tuple[float, float, float]
    terminology: str = ""


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


@cache
def _known() -> dict[str, dict[str, Any]]:
    text = resource("terminology", "ASLseg.json").read_text(encoding="utf-8")
    entries: dict[str, dict[str, Any]] = json.loads(text)
    return entries
