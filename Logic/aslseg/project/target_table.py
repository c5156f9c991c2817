"""Targets as a table that a person fills in: what is typed, what is wrong with it, proposals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from aslseg.data.nrrd import Segment
from aslseg.errors import ConfigError, ProjectError, refuse_unknown, short
from aslseg.project.labels import COUNTER, plain_name
from aslseg.project.problem import Column, Problem
from aslseg.targets import LIVER_TARGETS, Target, cascade_stages

_NUMBERED = re.compile(r"segment( \d+)?")
_ALLOWED = "use letters, digits, blanks, '-', '_' and '.', 64 at most"


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A target as it is typed; nothing of it is checked yet.

    Attributes:
        name: Its name.
        value: Its value in label maps.
        inside: Name of the target that contains it; empty for none.
        color: As `#rrggbb`; empty leaves it to the viewer.
        terminology: Terminology entry of Slicer; empty leaves it to the viewer.
    """

    name: str = ""
    value: str = ""
    inside: str = ""
    color: str = ""
    terminology: str = ""


def rows_of(targets: Iterable[Target]) -> tuple[TargetRow, ...]:
    """Return targets as rows of a table."""
    return tuple(
        TargetRow(
            target.name,
            str(target.value),
            target.inside or "",
            target.color or "",
            target.terminology or "",
        )
        for target in targets
    )


def styled_rows(
    rows: Sequence[TargetRow], colors: Mapping[str, str], terminologies: Mapping[str, str]
) -> tuple[TargetRow, ...]:
    """Return rows with other colours and terminology entries, by the names of targets.

    Raises:
        ProjectError: When there is no such target.
    """
    refuse_unknown("target", (*colors, *terminologies), [row.name for row in rows])
    return tuple(
        replace(
            row,
            color=colors.get(row.name, row.color),
            terminology=terminologies.get(row.name, row.terminology),
        )
        for row in rows
    )


def targets_of(rows: Sequence[TargetRow]) -> tuple[Target, ...]:
    """Return the targets that a table names.

    Raises:
        ProjectError: When a row is none, or rows contradict each other; the first reason.
    """
    for problem in target_problems(rows):
        raise ProjectError(problem.message)
    return tuple(_target(row) for row in rows)


def target_problems(rows: Sequence[TargetRow]) -> list[Problem]:
    """List what is wrong with a table of targets; nothing when `targets_of` can read it."""
    if not rows:
        return [Problem("targets", "There is no target; name at least one class to segment.")]
    found = [problem for number, row in enumerate(rows) for problem in _of_row(number, row)]
    found += _repeated("name", [row.name.strip() for row in rows])
    found += _repeated("value", [_number(row.value) for row in rows])
    found += _parents(rows)
    if not found:
        try:
            cascade_stages([_target(row) for row in rows])
        except ConfigError as error:
            found.append(Problem("targets", str(error)))
    return found


def suggested_targets(
    labels: Iterable[tuple[Sequence[int], Sequence[Segment]]],
) -> tuple[TargetRow, ...]:
    """Propose targets for what label maps hold.

    Segments bring names, colours and terminology. Values that no file names are taken for liver (1)
    and tumour (2), as in LiTS; where there are others, each gets a row that waits for its name.

    Args:
        labels: Of each label map, the values that occur and the segments that its file names.
    """
    by_name: dict[str, Segment] = {}
    values: set[int] = set()
    for present, segments in labels:
        values.update(present if not segments else ())
        for segment in segments:
            if segment.value in present:
                by_name.setdefault(_common_name(segment), segment)
    if by_name:
        return tuple(
            TargetRow(name, str(number), "", segment.color, segment.terminology)
            for number, (name, segment) in enumerate(by_name.items(), start=1)
        )
    unnamed = values - {target.value for target in LIVER_TARGETS}
    if not unnamed:
        return rows_of(LIVER_TARGETS)
    return tuple(TargetRow(value=str(value)) for value in sorted(values))


def renamed(rows: Sequence[TargetRow], row: int, name: str) -> tuple[TargetRow, ...]:
    """Return a table in which one target has another name, also where others lie inside of it."""
    before = rows[row].name.strip()
    return tuple(
        replace(other, name=name)
        if number == row
        else replace(other, inside=name)
        if before and other.inside.strip() == before
        else other
        for number, other in enumerate(rows)
    )


def _common_name(segment: Segment) -> str:
    """Return what several segments of one target are called: its name without a number."""
    plain = plain_name(segment.name)
    if _NUMBERED.fullmatch(plain) and segment.kind:
        return plain_name(segment.kind)
    return COUNTER.sub("", plain) or plain


def _of_row(number: int, row: TargetRow) -> list[Problem]:
    if not row.name.strip():
        what = f" of value {row.value.strip()}" if row.value.strip() else ""
        message = f"The target{what} has no name; name it (--target NAME=VALUE), or remove it."
        return [Problem("target", message, number, "name")]
    try:
        _target(row)
    except ValidationError as error:
        return [_in_words(number, row, str(finding["loc"][0])) for finding in error.errors()]
    return []


def _in_words(number: int, row: TargetRow, column: str) -> Problem:
    name, value = short(row.name.strip()), short(row.value.strip())
    columns: dict[str, tuple[Column, str]] = {
        "name": ("name", f"'{name}' cannot be the name of a target; {_ALLOWED}."),
        "value": (
            "value",
            f"'{value}' cannot be the value of {name}; give a whole number from 1 to 255.",
        ),
        "color": ("color", f"'{short(row.color)}' is no colour of {name}; write it as #rrggbb."),
    }
    what = f"The terminology of {name} is too long; choose another."
    column_name, message = columns.get(column, ("terminology", what))
    return Problem("target", message, number, column_name)


def _repeated(column: Column, values: Sequence[str | int | None]) -> list[Problem]:
    count: Counter[str | int | None] = Counter(values)
    return [
        Problem(
            "target",
            f"Two targets have the {column} {value}; give one of them another.",
            number,
            column,
        )
        for number, value in enumerate(values)
        if value not in ("", None) and count[value] > 1
    ]


def _parents(rows: Sequence[TargetRow]) -> list[Problem]:
    names = {row.name.strip() for row in rows}
    found = []
    for number, row in enumerate(rows):
        name, inside = row.name.strip(), row.inside.strip()
        if inside and inside == name:
            message = f"{name} cannot lie inside itself; choose another target or none."
            found.append(Problem("target", message, number, "inside"))
        elif inside and inside not in names:
            message = f"{name} lies inside {short(inside)}, which is no target; choose one or none."
            found.append(Problem("target", message, number, "inside"))
    return found


def _number(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _target(row: TargetRow) -> Target:
    return Target(
        name=row.name.strip(),
        value=_number(row.value) or 0,
        inside=row.inside.strip() or None,
        color=row.color.strip().lower() or None,
        terminology=row.terminology.strip() or None,
    )
