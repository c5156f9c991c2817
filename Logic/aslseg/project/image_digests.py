"""Whether the images of a project are still those that were brought in.

An image is known by the digest in `project.json`, which is that of all its files. Digests take
long, so that of an image whose files have the sizes and times of the last look is not taken again;
`cache/images.json` remembers them, and may be deleted at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aslseg.data.images import digest_of_image, stamp_of
from aslseg.errors import AslsegError, ImageError, ProjectError, as_typed_command
from aslseg.events import Monitor
from aslseg.project.case import CACHE, Case
from aslseg.reading import read_object
from aslseg.storage import write_json_atomic

logger = logging.getLogger(__name__)

PLACE = Path(CACHE, "images.json")


def check_images(folder: Path, cases: Iterable[Case], monitor: Monitor | None = None) -> None:
    """Make sure that images are those that were brought into the project.

    Args:
        folder: Of the project.
        cases: Whose images are meant; of those without a digest nothing is known.
        monitor: Told of the progress.

    Raises:
        ProjectError: When the content of one is another; images that are missing are left out.
        ImageError: When one cannot be read.
    """
    known, seen = _known(folder), {}
    new = [case for case in cases if _is_new(folder, case, known)]
    for case in (monitor or Monitor()).track(new, "checking images") if new else ():
        path = folder / case.image
        stamp = stamp_of(path)
        if digest_of(path) != case.image_sha256:
            msg = (
                f"{path}, the image of case {case.id}, is not the one that was brought in: its "
                "content has changed. Restore the file; or, if it was replaced on purpose, look at "
                "the case's label map and say so: "
                + as_typed_command("aslseg", "renew", folder, case.id)
            )
            raise ProjectError(msg)
        seen[case.id] = [stamp, case.image_sha256]
    if seen:
        remember(folder, seen)


def remember(folder: Path, seen: Mapping[str, list[Any]]) -> None:
    """Keep stamps and digests by case id; where they cannot be kept, digests are taken again."""
    try:
        write_json_atomic(folder / PLACE, {**_known(folder), **seen})
    except AslsegError as error:
        logger.info("The digests of images are not remembered: %s", error)


def _known(folder: Path) -> dict[str, Any]:
    if not (folder / PLACE).exists():
        return {}
    try:
        return read_object(folder / PLACE, ProjectError, "delete it")
    except ProjectError as error:
        logger.info("Digests of images are taken again: %s", error)
        return {}


def _is_new(folder: Path, case: Case, known: Mapping[str, Any]) -> bool:
    path = folder / case.image
    if case.image_sha256 is None or not path.exists():
        return False
    return bool(known.get(case.id) != [stamp_of(path), case.image_sha256])


def digest_of(path: Path) -> str:
    """Return the digest of an image.

    Raises:
        ImageError: When it cannot be read.
    """
    try:
        return digest_of_image(path)
    except OSError as error:
        msg = f"{path} cannot be read ({error.strerror}); restore it, or check its permissions."
        raise ImageError(msg) from error
