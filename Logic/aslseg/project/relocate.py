"""Images that were moved: where they are now is written into the project, if they are the same."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aslseg.data.images import stamp_of
from aslseg.errors import ImageError, ProjectError
from aslseg.events import Monitor
from aslseg.project.case import Case, image_place, located_image, resolved_image
from aslseg.project.image_digests import digest_of, remember
from aslseg.project.project import Project, change_project, open_project, validated


@dataclass(frozen=True, slots=True)
class Relocation:
    """An image that is somewhere else now.

    Attributes:
        case_id: Name of the case.
        before: Where it was.
        now: Where it is.
    """

    case_id: str
    before: Path
    now: Path


def relocate_images(
    project: Project, old: Path, new: Path, monitor: Monitor | None = None
) -> tuple[Project, list[Relocation]]:
    """Say where the images of a folder are now; all of them or none, and no file is touched.

    Args:
        project: The project.
        old: Folder that they were in, at any depth, which need not be there; or one image.
        new: The folder that they are in now, under the names of before; or that image.
        monitor: Told of the progress; each image is read.

    Returns:
        The project as it is on disk now, and what was changed.

    Raises:
        ProjectError: When the project has no image in `old`, or one is not in `new` as it was
            brought into the project; nothing changes then.
        StorageError: When the folder cannot be written.
        CancelledError: When the monitor says so; nothing changes then.
    """
    current = open_project(project.folder)
    meant = _relocations(current, old, new)
    cases = [current.case(one.case_id) for one in meant]
    found = {
        one.case_id: _try_to_check(one.now, current.case(one.case_id))
        for one in (monitor or Monitor()).track(meant, "checking images")
    }
    problems = [str(one) for one in found.values() if isinstance(one, ImageError)]
    if problems:
        msg = (
            f"{len(problems)} of {len(meant)} images are not in {new} as they were brought in, and "
            f"nothing was changed: {' '.join(problems)}"
        )
        raise ProjectError(msg)
    updated = change_project(current.folder, lambda now: _relocated(now, meant, cases))
    remember(updated.folder, {case.id: [found[case.id], case.image_sha256] for case in cases})
    return updated, meant


def _relocations(project: Project, old: Path, new: Path) -> list[Relocation]:
    places = {case.id: resolved_image(project.folder, case) for case in project.cases}
    as_typed = Path(os.path.abspath(old))  # noqa: PTH100 - with links
    for folder in (as_typed, located_image(old), old.resolve()):
        found = [
            Relocation(name, place, located_image(new / place.relative_to(folder)))
            for name, place in places.items()
            if place.is_relative_to(folder)
        ]
        if found:
            return found
    folders = ", ".join(sorted({str(place.parent) for place in places.values()})) or "nowhere"
    msg = f"{project.folder} has no image in {old}; its images are in {folders}."
    raise ProjectError(msg)


def _try_to_check(path: Path, case: Case) -> str | ImageError:
    try:
        return _checked(path, case)
    except ImageError as error:
        return error


def _checked(path: Path, case: Case) -> str:
    """Return the stamp of an image that is the one that was brought in."""
    if not path.exists():
        msg = f"{path}, the image of case {case.id}, does not exist."
        raise ImageError(msg)
    if case.image_sha256 is None:
        msg = f"What case {case.id} was brought in with is not known; compare {path} yourself."
        raise ImageError(msg)
    stamp = stamp_of(path)
    if digest_of(path) != case.image_sha256:
        msg = f"{path} has another content than the image of case {case.id}."
        raise ImageError(msg)
    return stamp


def _relocated(project: Project, meant: list[Relocation], checked: list[Case]) -> Project:
    places: Mapping[str, Path] = {one.case_id: one.now for one in meant}
    for case in checked:
        now = project.case(case.id)
        if (now.image, now.image_sha256) != (case.image, case.image_sha256):
            msg = f"The image of case {case.id} was changed meanwhile; look at it and try again."
            raise ProjectError(msg)
    cases = tuple(
        case.model_copy(update={"image": image_place(places[case.id], project.folder)})
        if case.id in places
        else case
        for case in project.cases
    )
    return validated(project, cases=cases)
