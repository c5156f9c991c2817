"""What can go wrong in a way that a user can mend.

Every message is one sentence or two: what happened (naming the file or setting), and what to do.
A programmer's mistake stays a `TypeError` or `ValueError`; these classes are for everything else.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

Entry = TypeVar("Entry")


class AslsegError(Exception):
    """Base of every error that a user can act on."""


class ImageError(AslsegError):
    """An image or label file is missing, damaged, or not what is needed."""


class GeometryMismatchError(ImageError):
    """A label map does not lie where its image lies."""


class ProjectError(AslsegError):
    """The project folder, its `project.json` or its cases contradict each other."""


class ConfigError(AslsegError):
    """A setting has a value that cannot be used."""


class WeightsError(AslsegError):
    """Network weights cannot be had, or are not the file that they claim to be."""


class DeviceError(AslsegError):
    """The computing device that was asked for is absent or too small."""


class StorageError(AslsegError):
    """A folder or disk cannot be written."""


class RunError(AslsegError):
    """A training run cannot start, go on, or be resumed."""


class CancelledError(AslsegError):
    """The user asked to stop; whatever was finished is kept."""


def entry_of(
    table: Mapping[str, Entry], name: str, problem: str, error: type[AslsegError] = ConfigError
) -> Entry:
    """Return what a table has under a name that a person gave.

    Args:
        table: All that can be chosen.
        name: What was chosen.
        problem: Begins the message, in front of the name.
        error: What is raised.

    Raises:
        AslsegError: Of the kind `error`: when the table has none of that name.
    """
    if name not in table:
        msg = f"{problem} '{short(name)}'; choose one of {', '.join(table)}."
        raise error(msg)
    return table[name]


def refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse the first of some names that is not known.

    Args:
        what: The names are of, such as `case`.
        names: As a person gave them.
        known: All that can be chosen.

    Raises:
        ProjectError: When there is nothing of a name.
    """
    for name in names:
        if name not in known:
            choices = ", ".join(sorted(known))
            msg = f"There is no {what} '{short(name)}'; choose among {choices}."
            raise ProjectError(msg)


def short(value: object, most: int = 120) -> str:
    """Return what a file says as a message can quote it: in one line, and not longer than that."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[:most]} …"


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are, as a message says them."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def as_typed_command(*words: object) -> str:
    """Return a command as it can be typed: words with spaces are in quotes, as the shell asks."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if os.name == "nt" else shlex.join(texts)


def first_finding(error: ValidationError) -> tuple[str, str]:
    """Return where pydantic found the first thing wrong, such as `a.b.0`, and what it is."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"])[:100], first["msg"]


def finding_in_line(error: ValidationError) -> str:
    """Say what pydantic found wrong in a line of a file of JSON objects."""
    where, what = first_finding(error)
    return f"'{where}': {what.removeprefix('Value error, ')}" if where else "no JSON"
