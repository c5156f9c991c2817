"""Files that are either whole or absent.

Everything is written beside its place and renamed onto it, so that a crash, a full disk or a
cancelled run never leaves half a file, and a file that was there stays until the new one is whole.
What a killed process left half written `leftovers` deletes at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.errors import StorageError

TEMPORARY = ".aslseg-"
"""How the names of files that are not finished begin."""


_CHUNK_BYTES = 1 << 20


_LEAST_FREE = 1 << 16


_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space and try again",
    errno.EDQUOT: "your disk quota is used up; free some space and try again",
    errno.EFBIG: "the file is too large for this disk; choose another folder",
    errno.EROFS: "the disk is read-only; choose a folder that can be written",
    errno.EACCES: "permission is denied; choose a folder that you may write to",
    errno.EPERM: "permission is denied; choose a folder that you may write to",
    errno.ENOTDIR: "a part of this path is a file; choose another folder",
    errno.EEXIST: "a file has the name of the folder; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EIO: "the disk reports an error; check it or choose another folder",
}


def cache_folder() -> Path:
    """Return where this library keeps what it can get or make again."""
    chosen = os.environ.get("ASLSEG_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "aslseg"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing `path` into a sentence.

    Raises:
        StorageError: When the body fails because of the disk or of permissions.
        FileNotFoundError: When the body reads a file that is absent.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> StorageError:
    """Say in a sentence why `path` could not be written.

    Args:
        path: What should be written.
        error: Of the system, or what a library made of it.
    """
    remedy = _REMEDIES.get(_number_of(error))
    if remedy is None:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        full = _REMEDIES[errno.ENOSPC]
        remedy = full if _is_full(path) else f"{reason}; check the disk, or choose another folder"
    return StorageError(f"Cannot write {path}: {remedy}.")


def _number_of(error: Exception) -> int:
    """Return the system's number of an error, 0 if a library has kept it to itself."""
    if isinstance(error, OSError):
        return error.errno or 0
    return next((number for number in _REMEDIES if os.strerror(number) in str(error)), 0)


def _is_full(path: Path) -> bool:
    """Whether the disk of a path, or of the folder above it that is there, has no room left."""
    for folder in (path, *path.parents):
        if folder.exists():
            return shutil.disk_usage(folder).free < _LEAST_FREE
    return False


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, and not a file, is why something could not be done."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Give a folder for files that are needed meanwhile; what an ended process left goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; it takes the place of `path` if the body succeeds.

    Args:
        path: Where the file shall be; folders above it are made.

    Yields:
        A hidden path in the same folder, with the same suffixes.

    Raises:
        StorageError: When the place cannot be written; `path` is then as it was before.
    """
    temporary = temporary_beside(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to fill; it takes the place of `path` if the body succeeds.

    Args:
        path: Where the folder shall be; it must be absent or empty.

    Yields:
        An empty, hidden folder with the same parent.

    Raises:
        StorageError: When the place is taken or cannot be written; nothing is left there then.
    """
    with storage_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            msg = f"{path} holds files already; choose an empty or a new folder."
            raise StorageError(msg)
        temporary = temporary_beside(path)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.exists():
                path.rmdir()
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all.

    Raises:
        StorageError: When the place cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json_atomic(path: Path, obj: object) -> None:
    """Write an object as indented JSON, whole or not at all.

    Paths become strings with forward slashes, numpy scalars and arrays become numbers and lists,
    and what is not finite becomes null, for JSON has no word for it.

    Raises:
        StorageError: When the place cannot be written.
        TypeError: When the object has no JSON form.
    """
    text = json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def append_lines(path: Path, *objs: object, after: int | None = None) -> int:
    """Append objects to a file of JSON objects, one a line, and wait until they are on disk.

    What follows the last whole line is of a line that a crash cut off, and goes. The caller sees to
    it that nobody else writes.

    Args:
        path: The file.
        objs: One a line.
        after: After how many lines of the file; those beyond go. After all of them when None.

    Returns:
        How many bytes the file had without the lines.

    Raises:
        StorageError: When the folder cannot be written; the file is as it was then.
    """
    lines = "".join(f"{json.dumps(plain(obj))}\n" for obj in objs).encode()
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole = sum(map(len, whole_lines(file.read())[:after]))
            file.truncate(whole)
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(whole)
                raise
    return whole


def whole_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file with their ends, without one that a crash cut off."""
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def copy_atomic(source: Path, path: Path) -> None:
    """Copy a file, whole or not at all.

    Raises:
        StorageError: When the source cannot be read, or the place cannot be written.
    """
    try:
        stream = source.open("rb")
    except OSError as error:
        msg = f"{source} cannot be read ({error.strerror}); restore it, or check its permissions."
        raise StorageError(msg) from error
    with stream, atomic_path(path) as temporary, temporary.open("wb") as copy:
        shutil.copyfileobj(stream, copy, _CHUNK_BYTES)


def inside(folder: Path, name: Path) -> Path:
    """Return a path in a folder, whose files may have been written by anybody.

    Args:
        folder: Where the path has to be.
        name: Relative to `folder`.

    Raises:
        StorageError: When it lies elsewhere, links followed.
    """
    path = folder / name
    try:
        real = path.resolve()
        is_inside = real.is_relative_to(folder.resolve()) and real != folder.resolve()
    except (OSError, ValueError, RuntimeError):  # a loop of links, a name that cannot be
        is_inside = False
    if not is_inside:
        msg = f"{path} lies outside of {folder}; put the file itself there instead of a link."
        raise StorageError(msg)
    return path


def sha256_of(path: Path) -> str:
    """Digest of a file, or of all files of a folder with their names, as 64 hexadecimal digits.

    Hidden files of a folder do not count.
    """
    digest = hashlib.sha256()
    for file in visible_files(path) if path.is_dir() else [path]:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def temporary_beside(path: Path) -> Path:
    """Return a new hidden name beside `path`, which says what process writes there."""
    stem, ending = path.name.partition(".")[0][:60], "".join(path.suffixes[-2:])
    owner = f"{this_computer()}-{os.getpid()}-{this_process(os.getpid())}"
    return path.with_name(f"{TEMPORARY}{owner}-{secrets.token_hex(4)}-{stem}{ending}")


@cache
def this_computer() -> str:
    """Return 8 hexadecimal digits that other computers with the same disk do not have.

    Containers count as computers of their own: they number their processes apart.
    """
    facts = platform.node()
    with suppress(OSError):
        facts += os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path of a file
    with suppress(OSError):
        facts += Path("/etc/machine-id").read_text(encoding="ascii", errors="replace")
    return hashlib.sha256(facts.encode()).hexdigest()[:8]


@cache
def this_process(pid: int) -> str:
    """Return 8 hexadecimal digits that no other process has, whose number may be the same."""
    return secrets.token_hex(4) if pid else ""


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def visible_files(folder: Path) -> list[Path]:
    """Return all files of a folder and its folders in a fixed order, without hidden ones."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    visible = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return [folder / name for name in sorted(visible, key=Path.as_posix)]


def plain(obj: Any) -> Any:
    """Return an object as JSON can hold it; what is not finite becomes None."""
    if isinstance(obj, Mapping):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [plain(value) for value in obj]
    if isinstance(obj, (np.generic, np.ndarray)):
        return plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj.as_posix() if isinstance(obj, Path) else obj
