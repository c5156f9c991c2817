"""Organ masks as cases of a project get and lose them: all that are given at once, or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aslseg.data.images import stamp_of, write_labelmap
from aslseg.data.volume import Labelmap, SameSize
from aslseg.errors import ProjectError
from aslseg.events import Monitor
from aslseg.project.all_or_nothing import all_or_nothing
from aslseg.project.case import PROJECT_FILE, Case, name_key
from aslseg.project.image_digests import check_images
from aslseg.project.labels import keep_history
from aslseg.project.lock import changing
from aslseg.project.organ_masks import (
    another_mask,
    checked_organ_mask,
    is_other_mask,
    mask_place,
    organ_of,
    read_organ_mask,
)
from aslseg.project.project import Project, open_project, write_project
from aslseg.storage import inside, scratch, storage_errors, temporary_beside
from aslseg.targets import Target


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to become of the mask of a case.

    Attributes:
        case_id: Of the case.
        seen: What the change was checked against (see `_seen`).
        staged: File of the new mask, on the grid of the image; None takes the mask away.
    """

    case_id: str
    seen: tuple[object, ...]
    staged: Path | None


def set_organ_masks(
    project: Project,
    name: str,
    masks: Mapping[str, Labelmap | Path | None],
    *,
    replaceable: Collection[str] = (),
    same_size: SameSize = "refuse",
    monitor: Monitor | None = None,
) -> Project:
    """Keep masks of an organ that need not be predicted; those of before go to the history.

    All masks are read and checked before the first is kept.

    Args:
        project: The project.
        name: Of a target that contains others.
        masks: By case id, a file as for `read_organ_mask`, or 0 and 1 on the grid of the image or
            overlapping it; None takes the mask of a case away. Other cases stay as they are.
        replaceable: Cases whose mask may be replaced by another one; a person may have drawn it.
        same_size: What to go by when a mask has the image's size and another position.
        monitor: Told of the progress; can stop it until the first mask is kept.

    Returns:
        The project as it is on disk now.

    Raises:
        ProjectError: When there is no such case, nothing lies in that target, a case has another
            mask, which must not be replaced, or was changed by another program meanwhile. As with
            each of these errors, nothing has changed then.
        ImageError: When a mask is empty.
        GeometryMismatchError: When a mask lies elsewhere.
        StorageError: When the folder cannot be written.
        CancelledError: When asked to stop.
    """
    current = open_project(project.folder)
    organ, steps = organ_of(current.targets, name), monitor or Monitor()
    changes: list[_Change] = []
    others: list[str] = []
    with scratch(temporary_beside(project.folder / "masks")) as staging:
        for case_id, mask in steps.track(masks.items(), f"Reading masks of {name}"):
            case = current.case(case_id)
            seen, staged = _seen(current, case, name), None
            if mask is not None:
                checked = _checked(current, case, organ, mask, same_size)
                if _has_other(current, case, name, checked) and case_id not in replaceable:
                    others.append(case_id)
                    continue
                staged = staging / f"{len(changes)}.nii.gz"
                write_labelmap(checked, staged)
            changes.append(_Change(case_id, seen, staged))
        if others:
            raise ProjectError(another_mask(name, others))
        with changing(project.folder):
            return _kept(open_project(project.folder), organ, changes)


def other_organ_masks(
    project: Project,
    name: str,
    masks: Mapping[str, Labelmap | Path],
    *,
    same_size: SameSize = "refuse",
    monitor: Monitor | None = None,
) -> list[str]:
    """Read masks of an organ, and return the cases that have another one than is given.

    Arguments and errors are those of `set_organ_masks`; nothing is changed. With the cases that it
    returns as `replaceable`, all of these masks can be kept.
    """
    organ, steps = organ_of(project.targets, name), monitor or Monitor()
    others: list[str] = []
    for case_id, mask in steps.track(masks.items(), f"Comparing masks of {name}"):
        case = project.case(case_id)
        checked = _checked(project, case, organ, mask, same_size)
        if _has_other(project, case, name, checked):
            others.append(case_id)
    return others


def _kept(project: Project, organ: Target, changes: Sequence[_Change]) -> Project:
    """Put staged masks in their places and write the project; the caller holds its lock.

    The history has copies of all masks that are replaced or taken away.
    """
    updated = project
    places: dict[Path, Path] = {}
    gone: list[Path] = []
    for change in changes:
        case = updated.case(change.case_id)
        if _seen(project, case, organ.name) != change.seen:
            msg = (
                f"Case {case.id} was changed by another program meanwhile; no mask of {organ.name} "
                "has changed. Try again."
            )
            raise ProjectError(msg)
        masks = {other: kept for other, kept in case.masks.items() if other != organ.name}
        if change.staged is not None:
            place = case.masks.get(organ.name) or _free_place(updated, organ, case.id)
            places[change.staged] = masks[organ.name] = place
        elif organ.name in case.masks:
            gone.append(case.masks[organ.name])
        updated = updated.with_case(case.model_copy(update={"masks": masks}))
    changed = [*places.values(), *gone]
    for place in changed:
        keep_history(inside(project.folder, place))
    with (
        all_or_nothing(project.folder, [Path(PROJECT_FILE), *changed]),
        storage_errors(project.folder),
    ):
        for staged, place in places.items():
            path = inside(project.folder, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
        for place in gone:
            inside(project.folder, place).unlink(missing_ok=True)
        write_project(updated)
    return updated


def _seen(project: Project, case: Case, name: str) -> tuple[object, ...]:
    """Return what the mask of an organ of a case is checked against: its image, and its mask."""
    place = case.masks.get(name)
    path = None if place is None else inside(project.folder, place)
    stamp = stamp_of(path) if path is not None and path.exists() else None
    return (case.image, case.image_sha256, place, stamp)


def _has_other(project: Project, case: Case, name: str, mask: Labelmap) -> bool:
    """Tell whether a case has another mask of an organ, on the same grid."""
    place = case.masks.get(name)
    return place is not None and is_other_mask(inside(project.folder, place), mask)


def _free_place(project: Project, organ: Target, case_id: str) -> Path:
    """Return a place for a mask: a case that was renamed keeps the one of its old name."""
    place = mask_place(organ, case_id)
    taken = {name_key(str(mask)) for case in project.cases for mask in case.masks.values()}
    while name_key(str(place)) in taken:
        place = place.with_name(f"_{place.name}")
    return place


def _checked(
    project: Project, case: Case, organ: Target, mask: Labelmap | Path, same_size: SameSize
) -> Labelmap:
    """Return a mask as 0 and 1 on the grid of the image of a case."""
    check_images(project.folder, [case])
    grid = project.geometry(case)
    if isinstance(mask, Path):
        return read_organ_mask(mask, grid, organ, project.targets, same_size=same_size)
    what = f"The mask of {organ.name} of case {case.id}"
    return checked_organ_mask(mask, grid, organ, what, same_size=same_size)
