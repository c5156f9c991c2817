"""The end of the wire on the host: keeps images, mirrors of projects and sessions, in one folder.

`python -m aslseg.remote serve` reads questions from its input and answers on its output; it ends
with its input. Engines that it starts are processes of their own and go on.

The folder holds `images/<digest>/`, `projects/<key>/` (a project as the library knows it, whose
images are those) and `sessions/<key>/` (see `engine.session`).

What takes long to import is imported when it is needed, so that a connection is made soon.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from pydantic import ValidationError

from aslseg import __version__
from aslseg.engine import session
from aslseg.engine.protocol import MAX_LINE_BYTES
from aslseg.errors import AslsegError, StorageError, finding_in_line
from aslseg.leftovers import sweep
from aslseg.project.case import PROJECT_FILE
from aslseg.reading import read_object
from aslseg.remote.wire import (
    IMAGES,
    MOST_EVENT_BYTES,
    PROJECTS,
    QUESTIONS,
    SESSIONS,
    WIRE,
    Body,
    Commit,
    CutOffError,
    Events,
    FileBytes,
    FileDigest,
    Files,
    FileState,
    Follow,
    Get,
    Hello,
    Lacking,
    ListRun,
    Missing,
    Ok,
    PutFile,
    PutImage,
    Refused,
    Remove,
    Send,
    Sent,
    Stop,
    write_line,
)
from aslseg.storage import atomic_folder, inside, sha256_of, storage_errors

DEFAULT_FOLDER = "aslseg-remote"
RUNS = "runs"
WAITING = ".arriving"
"""Folder of a mirror with files that were sent and not yet committed."""
KEPT_S = 30 * 24 * 3600.0
"""Images of no project, and sessions, are deleted when they were not used for so long."""
_LOOK_EVERY_S = 0.02
_LOOK_FOR_LIFE_EVERY_S = 0.5
_LOG_LINES = 40
CLOSE = b'{"id": 0, "do": "close"}\n'
_START_S = 60.0
_SENDING = "sending.lock"
"""In the folder of a session: held while it is given a request."""


class Station:
    """Answers the questions of one client.

    Args:
        root: Its folder; made if need be.
        source: Where questions come from.
        sink: Where answers go.
    """

    def __init__(self, root: Path, source: IO[bytes], sink: IO[bytes]) -> None:
        self._root = root.resolve()
        self._source, self._sink = source, sink
        with storage_errors(root):
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._engines: dict[str, subprocess.Popen[bytes]] = {}
        self._digests: dict[Path, tuple[tuple[int, int], str]] = {}

    def run(self) -> None:
        """Say hello, and answer until the input ends."""
        self._tidy()
        write_line(self._sink, Hello(aslseg=__version__, wire=WIRE, root=str(self._root)))
        with suppress(CutOffError, BrokenPipeError):
            while line := self._source.readline(MAX_LINE_BYTES):
                self._answer(line)

    def _answer(self, line: bytes) -> None:
        try:
            question: Any = QUESTIONS.validate_json(line)
        except ValidationError as error:
            # Bytes of files may follow, and nobody knows how many.
            msg = f"The host does not understand this end ({finding_in_line(error)})."
            write_line(self._sink, Refused(message=msg))
            raise CutOffError from error
        answers: dict[str, Callable[[Any], Any]] = {
            "missing": self._missing,
            "put_image": self._put_image,
            "put_file": self._put_file,
            "commit": self._commit,
            "send": self._send,
            "stop": self._stop,
            "follow": self._follow,
            "list_run": self._list_run,
            "get": self._get,
            "remove": self._remove,
        }
        try:
            answer = answers[question.do](question)
        except AslsegError as error:
            answer = Refused(message=str(error))
        except OSError as error:
            answer = Refused(message=f"The host cannot read or write a file: {error}.")
        if answer is not None:
            write_line(self._sink, answer)

    # -- what is there

    def _missing(self, question: Missing) -> Lacking:
        images = []
        for digest in question.images:
            folder = self._root / IMAGES / digest
            if folder.is_dir():
                os.utime(folder)
            else:
                images.append(digest)
        files = []
        if question.project is not None:
            mirror = self._mirror(question.project)
            files = [file.path for file in question.files if not self._has(mirror, file)]
        return Lacking(images=images, files=files)

    def _has(self, mirror: Path, file: FileDigest) -> bool:
        places = (inside(mirror, Path(file.path)), mirror / WAITING / file.path)
        return any(self._digest(place) == file.sha256 for place in places)

    def _digest(self, path: Path) -> str:
        """Return the digest of a file, taken again where its size or time is another; or ''."""
        try:
            facts = path.stat()
        except OSError:
            return ""
        stamp = (facts.st_size, facts.st_mtime_ns)
        if self._digests.get(path, ((), ""))[0] != stamp:
            self._digests[path] = (stamp, sha256_of(path))
        return self._digests[path][1]

    def _mirror(self, key: str) -> Path:
        return self._root / PROJECTS / key

    # -- what is sent here

    def _put_image(self, question: PutImage) -> Ok | Refused:
        from aslseg.remote.images import digest_of_files

        folder = self._root / IMAGES / question.sha256
        body = Body(self._source, sum(file.size for file in question.files))
        try:
            if not folder.is_dir():  # else another client was faster
                with atomic_folder(folder) as temporary:
                    for file in question.files:
                        path = inside(temporary, Path(file.path))
                        path.parent.mkdir(parents=True, exist_ok=True)
                        body.write_to(path, file.size)
                    if digest_of_files(temporary) != question.sha256:
                        msg = "An image has changed while it was sent; try again."
                        raise StorageError(msg)
        except (AslsegError, OSError) as error:
            body.skip()
            return Refused(message=str(error))
        body.skip()
        return Ok()

    def _put_file(self, question: PutFile) -> Ok | Refused:
        path = inside(self._mirror(question.project), Path(WAITING, question.path))
        body = Body(self._source, question.size)
        try:
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                digest = body.write_to(path, question.size)
        except AslsegError as error:
            body.skip()
            path.unlink(missing_ok=True)
            return Refused(message=str(error))
        if digest != question.sha256:
            path.unlink(missing_ok=True)
            return Refused(message=f"{question.path} has changed while it was sent; try again.")
        return Ok()

    def _commit(self, question: Commit) -> Ok:
        from aslseg.project.lock import changing

        mirror = self._mirror(question.project)
        mirror.mkdir(parents=True, exist_ok=True)
        with changing(mirror):
            for name in {folder for folder in question.folders if folder.startswith(f"{RUNS}/")}:
                _refuse_at_work(mirror / name)
            for file in question.files:
                arrived, path = mirror / WAITING / file.path, inside(mirror, Path(file.path))
                if arrived.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    arrived.replace(path)
                if self._digest(path) != file.sha256:
                    msg = f"{file.path} was not sent, or changed meanwhile; try again."
                    raise StorageError(msg)
            wanted = {mirror / file.path for file in question.files}
            for name in question.folders:
                for path in [path for path in (mirror / name).rglob("*") if path.is_file()]:
                    if path not in wanted and path.name != session.LOCK:
                        path.unlink(missing_ok=True)
        shutil.rmtree(mirror / WAITING, ignore_errors=True)
        return Ok()

    # -- work

    def _send(self, question: Send) -> Sent:
        folder = self._root / SESSIONS / question.session
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The station of a connection that is lost may still be at it: it starts the engine.
            with FileLock(folder / _SENDING, timeout=2 * _START_S):
                return Sent(is_taken=self._takes(question, folder))

    def _takes(self, question: Send, folder: Path) -> bool:
        """Give a request to an engine, which is started by the first one; whether it has it."""
        requests, line = folder / session.REQUESTS, question.line.encode() + b"\n"
        size = requests.stat().st_size if requests.exists() else 0
        if size == question.after + len(line):  # its answer was lost with a connection
            return True
        if size != question.after:
            return False
        if size == 0 and not session.is_alive(folder):
            self._start(question.session, folder)
        if not self._lives(question.session, folder):
            return False
        with requests.open("ab") as file:
            file.write(line)
        return True

    def _stop(self, question: Stop) -> Ok:
        folder = self._root / SESSIONS / question.session
        if folder.is_dir():
            with storage_errors(folder), (folder / session.REQUESTS).open("ab") as file:
                file.write(CLOSE)
        return Ok()

    def _start(self, key: str, folder: Path) -> None:
        """Start an engine, and wait until one lives.

        The station of a lost connection may have started another one that is not there yet, or
        none: of two engines the later one finds the session served, and ends.

        Raises:
            StorageError: When it ends before, or takes too long.
        """
        (folder / session.CONTACT).touch()
        with (folder / session.LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "aslseg.engine", "--session", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._engines[key] = process
        until = time.monotonic() + _START_S
        while not session.is_alive(folder):
            if process.poll() is not None or time.monotonic() > until:
                last = " ".join(_log_of(folder)[-1:])
                msg = f"The engine on the host could not be started ({last or 'no reason given'})."
                raise StorageError(msg)
            time.sleep(_LOOK_EVERY_S)

    def _follow(self, question: Follow) -> Events:
        folder = self._root / SESSIONS / question.session
        until = time.monotonic() + question.wait_s
        if folder.is_dir():
            (folder / session.CONTACT).touch()
        lives = True
        looked_at = float("-inf")
        while True:
            text = _read_from(folder / session.EVENTS, question.offset)
            now = time.monotonic()
            if text or not lives or now > until:
                break
            if now - looked_at > _LOOK_FOR_LIFE_EVERY_S:
                looked_at = now
                lives = self._lives(question.session, folder)
            if lives:  # else its last lines may have come meanwhile
                time.sleep(_LOOK_EVERY_S)
        log = [] if lives else _log_of(folder)
        lines = text.decode("utf-8", "replace").splitlines()
        return Events(lines=lines, offset=question.offset + len(text), is_alive=lives, log=log)

    def _lives(self, key: str, folder: Path) -> bool:
        ours = self._engines.get(key)
        is_there = ours is not None and ours.poll() is None
        return is_there or (folder.is_dir() and session.is_alive(folder))

    # -- what goes back

    def _list_run(self, question: ListRun) -> Files:
        folder = inside(self._mirror(question.project), Path(RUNS, question.run))
        found = []
        for path in folder.rglob("*"):
            name = path.relative_to(folder)
            if any(part.startswith(".") for part in name.parts) or path.is_symlink():
                continue
            with suppress(FileNotFoundError):
                facts = path.stat()
                if path.is_file():
                    stamp = f"{facts.st_size} {facts.st_mtime_ns}"
                    state = FileState(path=name.as_posix(), stamp=stamp)
                    found.append((facts.st_mtime_ns, state.path, state))
        return Files(files=[state for *_, state in sorted(found, key=lambda one: one[:2])])

    def _get(self, question: Get) -> None:
        for name in question.paths:
            try:
                file = inside(self._root, Path(name)).open("rb")
            except FileNotFoundError:
                write_line(self._sink, FileBytes(path=name, size=None))
                continue
            with file:  # another file may take its name meanwhile; this one stays as it is
                size = os.fstat(file.fileno()).st_size
                digest = hashlib.sha256()
                for chunk in Body(file, size).chunks(size):
                    digest.update(chunk)
                write_line(self._sink, FileBytes(path=name, size=size, sha256=digest.hexdigest()))
                file.seek(0)
                for chunk in Body(file, size).chunks(size):
                    self._sink.write(chunk)
            self._sink.flush()

    # -- what goes away

    def _remove(self, question: Remove) -> Ok:
        mirror = self._mirror(question.project)
        for folder in (mirror / RUNS).glob("*"):
            _refuse_at_work(folder)
        own = _images_of(mirror)
        shutil.rmtree(mirror, ignore_errors=True)
        for digest in own - self._images_in_use():
            shutil.rmtree(self._root / IMAGES / digest, ignore_errors=True)
        return Ok()

    def _tidy(self) -> None:
        """Delete what ended processes left, and what nobody has used for long."""
        used: set[str] = set()
        with suppress(AslsegError):  # a mirror that cannot be read: then all images stay
            used = self._images_in_use()
            for folder in _old_folders(self._root / IMAGES):
                if folder.name not in used:
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in _old_folders(self._root / SESSIONS):
            if not session.is_alive(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _images_in_use(self) -> set[str]:
        mirrors = (self._root / PROJECTS).glob("*")
        return {digest for mirror in mirrors for digest in _images_of(mirror)}


def _old_folders(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    sweep(place)
    return [path for path in place.glob("*") if time.time() - path.stat().st_mtime > KEPT_S]


def _images_of(mirror: Path) -> set[str]:
    """Return the digests of the images of a mirror's cases."""
    path = mirror / PROJECT_FILE
    if not path.exists():
        return set()
    cases = read_object(path, StorageError, "remove the project there")["cases"]
    return {Path(case["image"]).parts[-2] for case in cases}


def _read_from(path: Path, offset: int) -> bytes:
    """Return whole lines from an offset, not too many."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read(MOST_EVENT_BYTES)
            if b"\n" not in text:  # of one long line
                text += file.readline()
    except FileNotFoundError:
        return b""
    return text[: text.rfind(b"\n") + 1]


def _log_of(folder: Path) -> list[str]:
    try:
        text = (folder / session.LOG).read_text("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]


def _refuse_at_work(folder: Path) -> None:
    from aslseg.project.run_folder import RunFolder

    if RunFolder(folder).state == "running":
        msg = f"Run '{folder.name}' is being worked on at the host; wait, or stop it first."
        raise StorageError(msg)
