"""Whether a label map is an AI's that nobody has looked at, as `origin.json` beside it says.

Exports, folders of segmented volumes and the label maps of a run have such a file. Where it knows
the content of a label map, one that has another was corrected since, and is a person's.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from aslseg.data.images import stamp_of, stem_of
from aslseg.errors import ImageError, as_typed_command
from aslseg.reading import damage_told, read_json
from aslseg.storage import sha256_of

ORIGIN = "origin.json"
KIND: Literal["aslseg labels"] = "aslseg labels"
REFINED_IN_RUN = "refined, round"


class _CaseSaid(BaseModel):
    """What is read of the origin of a case; see `export.origin.CaseOrigin`."""

    made_by: str
    run: str = ""
    round: int = 0
    files: tuple[str, ...] = ()


class _Said(BaseModel):
    """What is read of the origin of a folder; see `export.origin.Origin`."""

    cases: dict[str, _CaseSaid]
    files: dict[str, str]


def ai_label_problem(label: Path) -> str:
    """Say why a label map is no person's, and the remedy; nothing where it may be one.

    Args:
        label: File of the label map.

    Raises:
        ImageError: When `origin.json` beside it is damaged.
    """
    for path in dict.fromkeys((label, label.resolve())):
        for folder in (path.parent, path.parent.parent):
            made_by = _made_by_ai(folder / ORIGIN, path)
            if made_by:
                review = as_typed_command(
                    "aslseg", "labels", "PROJECT", path.parent, "--origin", "NAME"
                )
                return (
                    f"{label} is an AI label map ({made_by}) that nobody has looked at, as "
                    f"{folder / ORIGIN} says; it is no label to learn from or to check on. Leave "
                    f"it out, and take it for review once there is a project: {review}. If a "
                    "person has corrected it, move it to a folder without that file."
                )
    return ""


def refuse_ai_label(label: Path) -> None:
    """Refuse a label map that an AI made and nobody has looked at.

    Raises:
        ImageError: When it is one, or `origin.json` beside it is damaged.
    """
    problem = ai_label_problem(label)
    if problem:
        raise ImageError(problem)


def _made_by_ai(origin: Path, label: Path) -> str:
    """Say which AI an origin names for a label map; nothing where it names none."""
    if not origin.is_file():
        return ""
    said = _read(origin, stamp_of(origin))
    if isinstance(said, _Said):
        return _of_export(said, origin.parent, label)
    made_by = said.get(stem_of(label)) if origin.parent == label.parent else None
    is_refined = isinstance(made_by, str) and made_by.startswith(REFINED_IN_RUN)
    return f"run {origin.parent.parent.name}, {made_by}" if is_refined else ""


@lru_cache(maxsize=4)
def _read(origin: Path, _stamp: str) -> _Said | dict[str, Any]:
    """Read an origin once for all label maps beside it; empty where it is another program's."""
    remedy = "restore it; or, if it is another program's, move it to another folder"
    said = read_json(origin, ImageError, remedy)
    if not isinstance(said, dict):
        return {}
    if said.get("kind") != KIND:
        return said
    with damage_told(origin, ImageError, remedy):
        return _Said.model_validate(said)


def _of_export(said: _Said, folder: Path, label: Path) -> str:
    """Look in the origin of an export or of segmented volumes; the content has to be as it says."""
    name = label.relative_to(folder).as_posix()
    for case in said.cases.values():
        if case.made_by == "ai" and name in case.files:
            is_unchanged = said.files.get(name) == sha256_of(label)
            return f"run {case.run}, round {case.round}" if is_unchanged else ""
    return ""
