"""JSON files that others may have touched, and in words what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aslseg.errors import ProjectError


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ProjectError: When it is missing or something else; `remedy` ends the sentence.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); {remedy}."
        raise ProjectError(msg) from error
    except ValueError as error:  # broken JSON or broken UTF-8
        msg = f"{path} is damaged, it is no JSON ({error}); restore it from a copy, or {remedy}."
        raise ProjectError(msg) from error
    if not isinstance(values, dict):
        msg = f"{path} is not a description of a data set; {remedy}."
        raise ProjectError(msg)
    return values


def in_words(error: ValidationError, source: str) -> ProjectError:
    """Make the first finding of pydantic a sentence that names the source and the place in it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    place = f" at '{where}'" if where else ""
    return ProjectError(f"{source} contradicts itself{place}: {what}. Correct it and try again.")
