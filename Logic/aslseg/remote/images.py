"""Images as both ends know them: by the digest of their content, in a folder of that name.

It is the digest that `project.json` has of them (`digest_of_image`).
"""

from __future__ import annotations

from pathlib import Path

from aslseg.data.images import digest_of_all, files_of_image, suffix_of
from aslseg.storage import sha256_of

NAME = "image"


def sent_files(path: Path) -> dict[str, Path]:
    """Return the files of an image by the names that they have on a host.

    The image's own name is not among them; files that a header or a DICOM folder holds keep theirs.

    Raises:
        ImageError: When a header cannot be read, or the file of its voxels is absent.
    """
    files = files_of_image(path)
    if path.is_dir():
        return {f"{NAME}/{file.relative_to(path).as_posix()}": file for file in files}
    own, *others = files
    return {
        name_of_image(path): own,
        **{file.relative_to(path.parent).as_posix(): file for file in others},
    }


def name_of_image(path: Path) -> str:
    """Return the name that an image has in its folder on a host."""
    return NAME if path.is_dir() else f"{NAME}{suffix_of(path)}"


def digest_of_files(folder: Path) -> str:
    """Return the digest of an image in its folder on a host."""
    whole = folder / NAME
    if whole.is_dir():
        return sha256_of(whole)
    return digest_of_all(file for file in folder.rglob("*") if file.is_file())
