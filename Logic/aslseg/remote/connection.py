"""A connection to the station of a host: the system's ssh, questions and answers, and its errors.

ssh is asked for nothing that it would have to ask a person (`BatchMode`): keys, their agent and
the settings of `~/.ssh/config` are the system's affair.
"""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from aslseg import __version__
from aslseg.engine.facts import Message
from aslseg.engine.protocol import MAX_LINE_BYTES
from aslseg.errors import StorageError, short
from aslseg.remote.hosts import Host, HostError
from aslseg.remote.wire import (
    ANSWERS,
    CHUNK_BYTES,
    WIRE,
    Answer,
    Body,
    CutOffError,
    FileBytes,
    Get,
    Hello,
    Refused,
    write_line,
)
from aslseg.storage import atomic_path

HELLO_S = 60.0
"""So long ssh and the imports of the station may take."""
_LOOK_EVERY_S = 0.1
_MOST_GREETINGS = 1000
"""Lines that a shell may print before the station speaks."""
_STDERR_LINES = 30
_GONE_S = 5.0

Kind = TypeVar("Kind", bound=Message)


class ConnectionLostError(Exception):
    """The connection is gone; a new one may work."""


class _Incoming:
    """Bytes of a pipe that a thread reads, so that waiting for them can be given up."""

    def __init__(self, stream: IO[bytes], check: Callable[[], None]) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(maxsize=16)
        self._kept = b""
        self._is_over = False
        self.check = check
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            while chunk := stream.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
                self._chunks.put(chunk)
        self._chunks.put(b"")

    def read(self, size: int) -> bytes:
        """Return some bytes, at most so many; none at the end."""
        if not self._kept and not self._take():
            return b""
        found, self._kept = self._kept[:size], self._kept[size:]
        return found

    def readline(self, patience_s: float | None = None) -> bytes:
        """Return a line; nothing at the end, or when it has not come in time."""
        while b"\n" not in self._kept and len(self._kept) <= MAX_LINE_BYTES:
            if not self._take(patience_s):
                return b""
        end = self._kept.find(b"\n") + 1
        line, self._kept = self._kept[:end], self._kept[end:]
        return line

    def _take(self, patience_s: float | None = None) -> bool:
        waited = 0.0
        while not self._is_over and (patience_s is None or waited < patience_s):
            self.check()
            with suppress(queue.Empty):
                chunk = self._chunks.get(timeout=_LOOK_EVERY_S)
                self._is_over = not chunk
                self._kept += chunk
                return bool(chunk)
            waited += _LOOK_EVERY_S
        return False


class Connection:
    """A connection to a host's station.

    Args:
        host: Where to.
        check: Called while waiting; may raise to give up.

    Attributes:
        host: Where to.
        root: The station's folder, as its computer writes it.

    Raises:
        HostError: When the host cannot be reached, or has no aslseg of this version.
    """

    def __init__(self, host: Host, check: Callable[[], None]) -> None:
        self.host = host
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        try:
            self._process = subprocess.Popen(
                host.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **_by_itself(),
            )
        except OSError as error:
            msg = (
                f"The program '{host.command[0]}' cannot be started ({error.strerror}); install "
                "OpenSSH's client (an optional feature of Windows)."
            )
            raise HostError(msg) from error
        assert self._process.stdin is not None
        self._sink = self._process.stdin
        self._source = _Incoming(_given(self._process.stdout), check)
        self._logger = threading.Thread(target=self._read_log, daemon=True)
        self._logger.start()
        try:
            self.root = self._hello().root
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connection; engines of the host go on."""
        with suppress(OSError):
            self._sink.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GONE_S)

    def ask(
        self, question: Message, kind: type[Kind], files: Iterable[tuple[Path, int]] = ()
    ) -> Kind:
        """Ask, and return the answer.

        Args:
            question: Of `wire`.
            kind: What the answer is.
            files: Whose bytes follow the question: paths and sizes.

        Raises:
            ConnectionLostError: When the connection is gone.
            StorageError: When the host refuses; or when a file has become shorter.
        """
        try:
            write_line(self._sink, question)
            for path, size in files:
                self._send(path, size)
            self._sink.flush()
        except (OSError, ValueError) as error:
            raise ConnectionLostError from error
        return self._expect(kind)

    def fetch(self, wanted: Sequence[tuple[str, Path]]) -> Iterator[str]:
        """Fetch files, each whole or not at all; those that are gone on the host are left out.

        Args:
            wanted: Paths in the station's folder, and where they go.

        Yields:
            The path of each file when it is there.

        Raises:
            ConnectionLostError: When the connection is gone.
            StorageError: When a file cannot be written here, or arrives damaged.
        """
        if not wanted:
            return
        try:
            write_line(self._sink, Get(paths=[name for name, _ in wanted]))
        except (OSError, ValueError) as error:
            raise ConnectionLostError from error
        for name, path in wanted:
            facts = self._expect(FileBytes)
            if facts.size is not None:
                self._take(facts.size, facts.sha256, path)
                yield name

    def _take(self, size: int, digest: str, path: Path) -> None:
        try:
            with atomic_path(path) as temporary:
                body = Body(self._source, size, self._source.check)
                if body.write_to(temporary, size) != digest:
                    msg = f"{path.name} has arrived damaged; try again."
                    raise StorageError(msg)
        except CutOffError as error:
            raise ConnectionLostError from error

    def _send(self, path: Path, size: int) -> None:
        with path.open("rb") as file:
            try:
                for chunk in Body(file, size, self._source.check).chunks(size):
                    self._sink.write(chunk)
            except CutOffError as error:
                self.close()
                msg = f"{path} has become shorter while it was sent; try again."
                raise StorageError(msg) from error

    def _expect(self, kind: type[Kind]) -> Kind:
        line = self._source.readline()
        if not line:
            raise ConnectionLostError
        try:
            answer: Answer = ANSWERS.validate_json(line)
        except ValidationError as error:
            msg = f"{self.host.name} answers what is not understood here; update aslseg there."
            raise HostError(msg) from error
        if isinstance(answer, Refused):
            msg = f"{self.host.name}: {answer.message}"
            raise StorageError(msg)
        if not isinstance(answer, kind):
            msg = f"{self.host.name} answers another question than was asked; connect again."
            raise HostError(msg)
        return answer

    def _hello(self) -> Hello:
        for line in self._greetings():
            if line.startswith(b'{"aslseg"'):
                with suppress(ValidationError):
                    hello = Hello.model_validate_json(line)
                    self._require_same(hello)
                    return hello
        self._logger.join(_GONE_S if self._process.poll() is not None else 0.2)
        raise _explained(self.host, list(self._stderr))

    def _greetings(self) -> Iterator[bytes]:
        for _ in range(_MOST_GREETINGS):
            line = self._source.readline(HELLO_S)
            if not line:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(1.0)
                return
            yield line

    def _require_same(self, hello: Hello) -> None:
        if (hello.aslseg, hello.wire) != (__version__, WIRE):
            msg = (
                f"{self.host.name} has aslseg {hello.aslseg} and this computer {__version__}; "
                "install the same version on both."
            )
            raise HostError(msg)

    def _read_log(self) -> None:
        stream = _given(self._process.stderr)
        with suppress(OSError, ValueError):
            while line := stream.readline(1000):
                if text := line.decode("utf-8", "replace").strip():
                    self._stderr.append(text)
                    sys.stderr.write(f"{self.host.name}: {text}\n")


def _by_itself() -> dict[str, Any]:
    """Return what keeps Ctrl-C in a terminal, and a window on Windows, from the process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _given(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        msg = "the process has no such pipe"
        raise ValueError(msg)
    return stream


def _explained(host: Host, lines: Sequence[str]) -> HostError:
    """Say why a connection could not be made, from what ssh or the host's shell printed."""
    text = "\n".join(lines)
    for pattern, is_lasting, sentence in _REASONS:
        if re.search(pattern, text):
            python = " ".join(host.python)
            return HostError(sentence.format(host=host.name, python=python), is_lasting=is_lasting)
    last = short(lines[-1], 300) if lines else "it gave no reason"
    msg = f"No connection to {host.name} ({last}); try 'ssh {host.name}' in a terminal."
    return HostError(msg, is_lasting=False)


_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        True,
        "The key of {host} is another one than before: somebody may listen in, or the computer "
        "was set up anew; ask who looks after it, then remove the old key with 'ssh-keygen -R'.",
    ),
    (
        "Host key verification failed|host key is known",
        True,
        "The key of {host} is not known on this computer; run 'ssh {host}' once in a terminal, "
        "and compare the fingerprint that it shows before you accept it.",
    ),
    (
        r"Permission denied \(",  # of ssh; that of a file ends with it
        True,
        "{host} refuses this computer's key; put your public key there (ssh-copy-id {host}), or "
        "load the key into the agent (ssh-add).",
    ),
    (
        "Could not resolve hostname",
        False,
        "There is no computer of the name {host}; check the name and the network (VPN).",
    ),
    (
        "Connection refused|Connection timed out|timed out|No route to host|unreachable",
        False,
        "{host} does not answer; check that it runs, and the network (VPN).",
    ),
    (
        r"No module named aslseg\.remote|No module named '?aslseg\.",
        True,
        "{host} has another version of aslseg than this computer; install the same on both.",
    ),
    (
        "No module named '?aslseg'?",
        True,
        "The Python '{python}' of {host} has no aslseg; install it there (pip install), or name "
        "another Python of that computer.",
    ),
    (
        "No module named",
        True,
        "A Python package is missing on {host}; install aslseg there with all that it needs.",
    ),
    (
        "command not found|No such file or directory|not found",
        True,
        "{host} has no program '{python}'; name the Python that has aslseg there, with its path.",
    ),
)
