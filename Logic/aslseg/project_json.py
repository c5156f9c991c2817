"""In words what is wrong with a project or a data set."""

from __future__ import annotations

from pydantic import ValidationError

from aslseg.errors import ProjectError, short


def in_words(error: ValidationError, source: str) -> ProjectError:
    """Make the first finding of pydantic a sentence that names the source and the place in it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:100]
    what = short(first["msg"].removeprefix("Value error, "), 300)
    place = f" at '{where}'" if where else ""
    return ProjectError(f"{source} contradicts itself{place}: {what}. Correct it and try again.")
