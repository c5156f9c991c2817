"""Images as both ends know them: by the digest of their content, in a folder of that name.

A DICOM folder and a file alone have the digest that `project.json` has of them (`sha256_of`); a
header with its voxels in another file has the digest of both.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from aslseg.data.image_header import Header
from aslseg.data.images import read_header, suffix_of
from aslseg.storage import sha256_of, visible_files

NAME = "image"
_MAY_BE_APART = (".mhd", ".nhdr", ".nrrd", ".mha")


def files_of_image(path: Path) -> dict[str, Path]:
    """Return the files of an image by the names that they have on a host.

    The image's own name is not among them; files that a header or a DICOM folder holds keep theirs.

    Raises:
        ImageError: When a header cannot be read, or the file of its voxels is absent.
    """
    if path.is_dir():
        return {f"{NAME}/{file.relative_to(path).as_posix()}": file for file in visible_files(path)}
    suffix = suffix_of(path)
    files = {f"{NAME}{suffix}": path}
    if suffix in _MAY_BE_APART:
        header: Header = read_header(path)
        if header.data != path:
            files[header.data.relative_to(path.parent).as_posix()] = header.data
    return files


def name_of_image(path: Path) -> str:
    """Return the name that an image has in its folder on a host."""
    return NAME if path.is_dir() else f"{NAME}{suffix_of(path)}"


def digest_of_files(folder: Path) -> str:
    """Return the digest of an image in its folder on a host."""
    whole = folder / NAME
    if whole.is_dir():
        return sha256_of(whole)
    return digest_of_all(list(folder.rglob("*")))


def digest_of_image(path: Path) -> str:
    """Return the digest of an image where it is.

    Raises:
        ImageError: As `files_of_image`.
    """
    return sha256_of(path) if path.is_dir() else digest_of_all(list(files_of_image(path).values()))


def digest_of_all(files: list[Path]) -> str:
    """Return the digest of one file, or of several whatever their names."""
    found = sorted(sha256_of(file) for file in files if file.is_file())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
