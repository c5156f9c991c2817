"""Which target a segment shows, by its name: several segments may show parts of one target."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NEW = re.compile(r"\s*\(new\)$")
_NUMBER = re.compile(r"[\s_\-.#(]*\d+\)?$")
NEW_SUFFIX = " (new)"
"""Ends the name of a segment that was put beside one that a person edited."""


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


def _key(name: str) -> str:
    words = unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split()
    return " ".join(words).replace("tumor", "tumour")
