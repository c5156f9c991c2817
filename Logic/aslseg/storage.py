"""Files that are either whole or absent.

Everything is written beside its place and renamed onto it, so that a crash, a full disk or a
cancelled run never leaves half a file, and a file that was there stays until the new one is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from aslseg.errors import StorageError

_CHUNK_BYTES = 1 << 20
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
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        msg = f"Cannot write {path}: {remedy}."
        raise StorageError(msg) from error


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
    temporary = _beside(path)
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
        temporary = _beside(path)
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
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def copy_atomic(source: Path, path: Path) -> None:
    """Copy a file, whole or not at all.

    Raises:
        StorageError: When the place cannot be written.
    """
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def sha256_of(path: Path) -> str:
    """Digest of a file, or of all files of a folder with their names, as 64 hexadecimal digits.

    Hidden files of a folder do not count.
    """
    digest = hashlib.sha256()
    for file in _visible_files(path) if path.is_dir() else [path]:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _beside(path: Path) -> Path:
    stem, dot, suffixes = path.name.partition(".")
    return path.with_name(f".{stem[:80]}-{secrets.token_hex(4)}{dot}{suffixes}")


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _visible_files(folder: Path) -> list[Path]:
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    visible = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return [folder / name for name in sorted(visible, key=Path.as_posix)]


def _plain(obj: Any) -> Any:
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if isinstance(obj, (np.generic, np.ndarray)):
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj.as_posix() if isinstance(obj, Path) else obj
