"""What this computer and the station on a host say to each other.

A message is an object of JSON on one line; bytes of files follow it where it says how many. The
station speaks first (`Hello`); then each question gets one answer. Both ends write and read with
the models of this file. All paths are relative to the station's folder and written with `/`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Final, Literal, Protocol, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter

from aslseg.engine.facts import Message
from aslseg.engine.protocol import MAX_LINE_BYTES

WIRE: Final = 1
CHUNK_BYTES = 1 << 18
IMAGES, PROJECTS, SESSIONS = "images", "projects", "sessions"
MOST_EVENT_BYTES = 1 << 20
"""So much of a session's events is sent at once."""


def _plain_path(text: str) -> str:
    path = PurePosixPath(text)
    parts = path.parts
    if (
        path.is_absolute()
        or not parts
        or any(part == ".." or part.startswith(".aslseg-") for part in parts)
        or re.search(r"[\0\\]", text)
    ):
        msg = f"'{text[:99]}' is no path of a file in a folder"
        raise ValueError(msg)
    return path.as_posix()


PlainPath = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_plain_path)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
Size = Annotated[int, Field(ge=0)]


class Hello(Message):
    """The first line of a station.

    Attributes:
        aslseg: Version of the library there; it has to be that of this end.
        wire: `WIRE`.
        root: The station's folder, as its own computer writes it.
    """

    aslseg: str
    wire: int
    root: str


class FileSize(Message):
    """A file and its length."""

    path: PlainPath
    size: Size


class FileDigest(Message):
    """A file and the SHA-256 of its content."""

    path: PlainPath
    sha256: Digest


class FileState(Message):
    """A file of a run on the host; another `stamp` means another content."""

    path: PlainPath
    stamp: str


class Missing(Message):
    """Ask which images, and which files of a project, are not there yet."""

    images: list[Digest]
    project: Key | None = None
    files: list[FileDigest] = Field(default_factory=list)
    do: Literal["missing"] = "missing"


class PutImage(Message):
    """Send an image, whose digest is looked at there; the files' bytes follow in their order."""

    sha256: Digest
    files: list[FileSize]
    do: Literal["put_image"] = "put_image"


class PutFile(Message):
    """Send a file of a project, which waits for `commit`; its bytes follow."""

    project: Key
    path: PlainPath
    sha256: Digest
    size: Size
    do: Literal["put_file"] = "put_file"


class Commit(Message):
    """Bring files that were sent into the project's mirror, in their order.

    Attributes:
        project: Key of the mirror.
        files: All that the mirror shall have in `folders`; what else is there goes.
        folders: Folders that are as here afterwards.
    """

    project: Key
    files: list[FileDigest]
    folders: list[PlainPath]
    do: Literal["commit"] = "commit"


class Send(Message):
    """Give a request to the engine of a session; the first one starts it.

    Attributes:
        session: Key that this end has made up.
        line: A request of `engine.protocol`.
        after: Bytes of the requests before it, so that none is given twice.
    """

    session: Key
    line: str
    after: Size
    do: Literal["send"] = "send"


class Stop(Message):
    """Let the engine of a session stop its work and end; within seconds, whatever it does."""

    session: Key
    do: Literal["stop"] = "stop"


class Follow(Message):
    """Ask for the events of a session from an offset in bytes; waits a while for the next one."""

    session: Key
    offset: Size
    wait_s: Annotated[float, Field(ge=0, le=30)]
    do: Literal["follow"] = "follow"


class ListRun(Message):
    """Ask for the files of a run in a project's mirror."""

    project: Key
    run: PlainPath
    do: Literal["list_run"] = "list_run"


class Get(Message):
    """Ask for files; each comes as a `FileBytes` with its bytes."""

    paths: list[PlainPath]
    do: Literal["get"] = "get"


class Remove(Message):
    """Delete the mirror of a project, with its runs."""

    project: Key
    do: Literal["remove"] = "remove"


Question: TypeAlias = (
    Missing | PutImage | PutFile | Commit | Send | Stop | Follow | ListRun | Get | Remove
)
QUESTIONS: TypeAdapter[Question] = TypeAdapter(Annotated[Question, Field(discriminator="do")])


class Ok(Message):
    """It is done."""

    answer: Literal["ok"] = "ok"


class Refused(Message):
    """It cannot be done; why, in words."""

    message: str
    answer: Literal["refused"] = "refused"


class Sent(Message):
    """Whether the engine has the request; it has not when it has ended before."""

    is_taken: bool
    answer: Literal["sent"] = "sent"


class Lacking(Message):
    """What is missing."""

    images: list[str]
    files: list[str]
    answer: Literal["lacking"] = "lacking"


class Events(Message):
    """Lines of a session's engine.

    Attributes:
        lines: Events of `engine.protocol`.
        offset: To ask from next time.
        is_alive: Whether the engine lives.
        log: If it does not, the last lines of what it printed.
    """

    lines: list[str]
    offset: int
    is_alive: bool
    log: list[str]
    answer: Literal["events"] = "events"


class Files(Message):
    """Files of a run, those that were changed last come last."""

    files: list[FileState]
    answer: Literal["files"] = "files"


class FileBytes(Message):
    """A file, whose bytes follow; `size` is null for one that is gone by now."""

    path: str
    size: Size | None
    sha256: str = ""
    answer: Literal["file"] = "file"


Answer: TypeAlias = Ok | Refused | Sent | Lacking | Events | Files | FileBytes
ANSWERS: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="answer")])


class Source(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""


def _nothing() -> None:
    return None


class CutOffError(Exception):
    """The other end was gone before all bytes had come."""


def write_line(stream: IO[bytes], message: Message) -> None:
    """Write a message.

    Raises:
        ValueError: When it is longer than the other end reads.
    """
    line = message.model_dump_json().encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        msg = f"a message of {len(line)} bytes is too long; send fewer files at once"
        raise ValueError(msg)
    stream.write(line)
    stream.flush()


class Body:
    """The bytes of files that follow a message.

    Args:
        source: Where they come from.
        size: How many.
        check: Called between two chunks; may raise.
    """

    def __init__(self, source: Source, size: int, check: Callable[[], None] = _nothing) -> None:
        self._source, self._check = source, check
        self.left = size

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next bytes.

        Raises:
            CutOffError: When there are fewer.
        """
        end = self.left - size
        while self.left > end:
            chunk = self._source.read(min(self.left - end, CHUNK_BYTES))
            if not chunk:
                raise CutOffError
            self.left -= len(chunk)
            self._check()
            yield chunk

    def write_to(self, path: Path, size: int) -> str:
        """Write the next bytes to a new file, and return their SHA-256."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in self.chunks(size):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def skip(self) -> None:
        """Read what is left, so that the next message can be read."""
        for _ in self.chunks(self.left):
            pass
