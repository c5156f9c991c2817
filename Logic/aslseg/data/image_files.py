"""The files that an image consists of, and the digest that it is known by.

A file alone and a DICOM folder have the digest of `storage.sha256_of`; a header with its voxels in
another file has the digest of both, for headers of different patients are often the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from aslseg.data.image_header import Header
from aslseg.data.images import read_header, suffix_of
from aslseg.storage import sha256_of, visible_files

_MAY_BE_APART = (".mhd", ".nhdr", ".nrrd", ".mha")


def files_of_image(path: Path) -> list[Path]:
    """Return the files of an image: its own, and that of its voxels where it is another one.

    Of a DICOM folder, these are all its files that are not hidden.

    Raises:
        ImageError: When a header cannot be read, or the file of its voxels is absent.
    """
    if path.is_dir():
        return visible_files(path)
    if suffix_of(path) not in _MAY_BE_APART:
        return [path]
    header: Header = read_header(path)
    return [path] if header.data == path else [path, header.data]


def digest_of_image(path: Path) -> str:
    """Return the digest of an image.

    Raises:
        ImageError: As `files_of_image`.
        OSError: When a file cannot be read.
    """
    return sha256_of(path) if path.is_dir() else digest_of_all(files_of_image(path))


def digest_of_all(files: Iterable[Path]) -> str:
    """Return the digest of one file, or of several whatever their names.

    Raises:
        OSError: When one cannot be read.
    """
    found = sorted(sha256_of(file) for file in files if file.is_file())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
