"""The lines of the engine's protocol, for both ends: version, bounds, reading and writing.

Requests and events are JSON objects, one a line. Nothing here needs a third-party package, so the
panel can use it before the requirements are installed. The fields of requests are in `requests`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from aslseg.errors import AslsegError
from aslseg.events import CancelToken

PROTOCOL = 1
FINAL = ("done", "failed", "cancelled")
"""Events that end a request; each request gets exactly one of them."""
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_WAITING = 1000
"""So many requests may wait for their turn."""
ALIVE_S = 2.0
"""Seconds between the `alive` events of a request that is worked on."""

_MAX_ID = 2**53
_ID = re.compile(r'\s*\{\s*"id"\s*:\s*(\d{1,15})\s*[,}]')
_SHOWN = 200
_LONGEST_WORD = 40


class RequestError(AslsegError):
    """A request cannot be understood; the message names what is wrong with it.

    Attributes:
        number: The request's `id` as far as it can be read, else 0.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was read from a line.

    Attributes:
        number: Its `id`, which all its events repeat.
        do: Its name.
        arguments: All other fields, not checked.
        token: Cancelled when the request is.
    """

    number: int
    do: str
    arguments: Mapping[str, Any]
    token: CancelToken = field(default_factory=CancelToken, compare=False)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no text or too long.

    Attributes:
        text: What could be read of it.
        reason: What is wrong, to follow "This line".
    """

    text: str
    reason: str


def read_lines(stream: IO[bytes], limit: int = MAX_LINE_BYTES) -> Iterator[str | BadLine]:
    """Yield the lines of a stream of bytes, whatever they hold, in bounded memory."""
    while raw := stream.readline(limit + 1):
        if len(raw) > limit:
            yield BadLine(_start_of(raw), f"is longer than {limit} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(limit)
            continue
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError:
            yield BadLine(_start_of(raw), "is no text in UTF-8")


def parse_request(line: str | BadLine) -> Request | None:
    """Read a line; None when it is empty.

    Raises:
        RequestError: When it is no request; nothing of it was obeyed.
    """
    if isinstance(line, BadLine):
        msg = f"This line {line.reason}: {line.text}; send one object of JSON a line."
        raise RequestError(msg, _number_in(line.text))
    text = line.strip()
    if not text:
        return None
    try:
        values = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = f'This line is no request: {text[:_SHOWN]}; send an object with "id" and "do".'
        raise RequestError(msg, _number_in(text)) from error
    return _request_of(values, text)


def _request_of(values: Any, text: str) -> Request:
    if not isinstance(values, dict):
        msg = f'This line is no request: {text[:_SHOWN]}; send an object with "id" and "do".'
        raise RequestError(msg)
    number, do = values.pop("id", 0), values.pop("do", None)
    if type(number) is not int or not 0 <= number < _MAX_ID:
        msg = f"This line is no request: {text[:_SHOWN]}; its 'id' has to be a whole number."
        raise RequestError(msg)
    if not isinstance(do, str) or not 0 < len(do) <= _LONGEST_WORD:
        msg = f"This line is no request: {text[:_SHOWN]}; its 'do' has to be a word."
        raise RequestError(msg, number)
    if number == 0 and do not in ("cancel", "close"):
        msg = f"This line is no request: {text[:_SHOWN]}; it needs an 'id' above 0."
        raise RequestError(msg)
    return Request(number, do, values)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line.

    Raises:
        TypeError: When it holds something that JSON cannot.
        ValueError: When it holds a number that is not finite.
        RequestError: When the line is longer than the other end reads.
    """
    line = json.dumps(message, allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        msg = (
            f"The request is too long for the engine ({len(line)} of at most {MAX_LINE_BYTES} "
            "bytes); ask about fewer prompts at once."
        )
        raise RequestError(msg)
    return line


def _start_of(raw: bytes) -> str:
    return raw[:_SHOWN].decode("utf-8", "replace")


def _number_in(text: str) -> int:
    """Return the id that a broken line begins with, else 0."""
    found = _ID.match(text)
    return int(found.group(1)) if found else 0


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)
