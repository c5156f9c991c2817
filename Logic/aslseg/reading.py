"""JSON, JSON lines and CSV as they are read: bounded in size and depth, errors as sentences.

These files lie where other programs, other people and broken disks can change them. Whatever they
hold, reading gives plain values or one error that names the file and what to do.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aslseg.errors import AslsegError, ProjectError, first_finding, short

if TYPE_CHECKING:
    from pydantic import ValidationError

MOST_JSON_BYTES = 16 << 20
MOST_LINES_BYTES = 256 << 20
MOST_LINE_BYTES = 1 << 20
MOST_TABLE_BYTES = 64 << 20
MOST_DEPTH = 64

_TOO_DEEP = f"it is nested more than {MOST_DEPTH} deep"
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """Read JSON of a bounded depth; NaN and infinities become None, as they are written.

    Raises:
        ValueError: When it is no JSON, nested too deeply, or holds text that no file can.
    """
    try:
        values = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if "\\u" in text or text.count("[") + text.count("{") > MOST_DEPTH:
        _check(values)
    return values


def read_json(path: Path, error: type[AslsegError], remedy: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        error: Raised when it cannot be used.
        remedy: What to do then; it ends the sentence.

    Raises:
        AslsegError: Of the kind `error`: when it is missing, too large, or no JSON in UTF-8.
    """
    text = read_text(path, error, remedy, MOST_JSON_BYTES)
    try:
        return parse_json(text)
    except ValueError as found:
        msg = f"{path} is damaged, it is no JSON ({short(found)}); {remedy}."
        raise error(msg) from found


def read_object(path: Path, error: type[AslsegError], remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        AslsegError: As `read_json`, and when it holds something else.
    """
    values = read_json(path, error, remedy)
    if not isinstance(values, dict):
        msg = f"{path} is damaged, it holds no JSON object; {remedy}."
        raise error(msg)
    return values


@contextmanager
def damage_told(path: Path, error: type[AslsegError], remedy: str) -> Iterator[None]:
    """Say what a model finds wrong with the values of a file.

    Raises:
        AslsegError: Of the kind `error`, in place of pydantic's.
    """
    from pydantic import ValidationError  # the panel opens without it

    try:
        yield
    except ValidationError as found:
        where, what = first_finding(found)
        msg = f"{path} is damaged ('{where}': {what}); {remedy}."
        raise error(msg) from found


def contradiction_in_words(error: ValidationError, source: str) -> ProjectError:
    """Make the first finding of pydantic a sentence that names the source and the place in it."""
    where, what = first_finding(error)
    what = short(what.removeprefix("Value error, "), 300)
    place = f" at '{where}'" if where else ""
    return ProjectError(f"{source} contradicts itself{place}: {what}. Correct it and try again.")


def read_lines(
    path: Path, error: type[AslsegError], remedy: str
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Read a file of JSON objects, one a line, of which a crash may have cut off the last.

    Yields:
        Number of the line from 1, and its object; None for a line that holds none. Empty lines and
        an unfinished last line are left out. A file that is missing has no lines.

    Raises:
        AslsegError: Of the kind `error`: when the file is too large or cannot be read.
    """
    if not path.exists():
        return
    _check_size(path, error, remedy, MOST_LINES_BYTES)
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                if len(line) > MOST_LINE_BYTES:
                    msg = f"{path} is damaged, line {number} is too long; {remedy}."
                    raise error(msg)
                if line.endswith(b"\n") and line.strip():
                    yield number, _object_of(line)
    except OSError as found:
        msg = f"{path} cannot be read ({found.strerror}); {remedy}."
        raise error(msg) from found


def read_table(
    path: Path,
    columns: Collection[str],
    error: type[AslsegError],
    remedy: str,
    renamed: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """Read a CSV file with a line of names at its top.

    Args:
        path: The file.
        columns: Names that must be there.
        error: Raised when it cannot be used.
        remedy: What to do then; it ends the sentence.
        renamed: Today's names of columns by those that older files have.

    Raises:
        AslsegError: Of the kind `error`: when it is missing, too large, lacks a column, or has a
            row of another length.
    """
    text = read_text(path, error, remedy, MOST_TABLE_BYTES)
    try:
        rows = [row for row in csv.reader(text.splitlines(keepends=True), strict=True) if row]
        head = [(renamed or {}).get(name, name) for name in rows[0]] if rows else []
        missing = [name for name in columns if name not in head]
        if missing or len(set(head)) < len(head):
            what = f"the column {missing[0]!r} is missing" if missing else "a column occurs twice"
            raise ValueError(what)
        return [dict(zip(head, row, strict=True)) for row in rows[1:]]
    except (ValueError, csv.Error) as found:
        msg = f"{path} is damaged ({short(found)}); {remedy}."
        raise error(msg) from found


def read_text(path: Path, error: type[AslsegError], remedy: str, most_bytes: int) -> str:
    """Read a text file in UTF-8, with or without the mark that spreadsheets begin it with.

    Raises:
        AslsegError: Of the kind `error`: when it is missing, too large, or of another kind.
    """
    _check_size(path, error, remedy, most_bytes)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as found:
        msg = f"{path} cannot be read ({found.strerror}); {remedy}."
        raise error(msg) from found
    except UnicodeDecodeError as found:
        msg = f"{path} is damaged, it is no text in UTF-8; {remedy}."
        raise error(msg) from found


def _check_size(path: Path, error: type[AslsegError], remedy: str, most_bytes: int) -> None:
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except OSError as found:
        msg = f"{path} cannot be read ({found.strerror}); {remedy}."
        raise error(msg) from found
    if not is_file:
        msg = f"{path} is no file; {remedy}."
        raise error(msg)
    if size > most_bytes:
        msg = f"{path} is damaged, it is too large ({size >> 20} MiB); {remedy}."
        raise error(msg)


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        values = parse_json(line.decode("utf-8"))
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _check(values: Any) -> None:
    """Refuse what is nested too deeply, and NUL and half characters, which no file can hold."""
    waiting = [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ValueError(_TOO_DEEP)
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and _NO_TEXT.search(value):
            msg = "a text holds a character that no file can"
            raise ValueError(msg)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        msg = f"the number {text[:20]} is too large"
        raise ValueError(msg)
    return value
