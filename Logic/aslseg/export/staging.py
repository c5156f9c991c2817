"""A folder that gets its files all at once, and loses none that this program did not write."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aslseg.errors import StorageError
from aslseg.export.origin import FilesThereError, Origin, foreign_files, read_origin
from aslseg.leftovers import sweep
from aslseg.project.case import OWN_FILES, OWN_FOLDERS
from aslseg.project.label_origin import ORIGIN
from aslseg.project.project import Project
from aslseg.storage import storage_errors, temporary_beside, visible_files
from aslseg.targets import Target, as_typed


def check_place(
    project: Project, folder: Path, format_name: str, names: Collection[str], *, replace: bool
) -> Origin | None:
    """Make sure that files may be written to a folder.

    Args:
        project: Whose own files are never replaced, whatever `replace` says.
        folder: Where to.
        format_name: Of the label maps that come.
        names: Of all files that will be written, relative to the folder.
        replace: Whether files that this program did not write may be replaced.

    Returns:
        What an earlier export to the folder wrote; None where there was none.

    Raises:
        FilesThereError: When files are in the way that this program did not write.
        StorageError: When the folder is none, is the project's own, would lose images of the
            project, or has an export of another format or of other targets.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; choose a folder."
        raise StorageError(msg)
    require_not_own(project, folder, names)
    before = read_origin(folder)
    if before is not None and before.format != format_name:
        msg = (
            f"{folder} holds label maps that were exported as {before.format}; choose another "
            f"folder for {format_name}."
        )
        raise StorageError(msg)
    if before is not None:
        _refuse_other_targets(folder, before, project.targets)
    foreign = foreign_files(folder, names, {} if before is None else before.files)
    if foreign and not replace:
        many = f" and {len(foreign) - 1} more files are" if len(foreign) > 1 else " is"
        msg = (
            f"{folder / foreign[0]}{many} there already, and not as this program wrote it; choose "
            "another folder, or let it be replaced (--force)."
        )
        raise FilesThereError(msg)
    return before


def require_same_images(folder: Path, before: Origin | None, images: Mapping[str, str]) -> None:
    """Make sure that what a folder has of some cases is of the images that they have here.

    Args:
        folder: Where to.
        before: What an earlier export to the folder wrote; None where there was none.
        images: Digests of the images by case; an empty one is not known.

    Raises:
        FilesThereError: When a case of the same name has another image there.
    """
    earlier = {} if before is None else before.cases
    others = [
        name
        for name in images
        if name in earlier and images[name] and earlier[name].image_sha256 not in ("", images[name])
    ]
    if others:
        msg = (
            f"{folder} holds label maps of other images under the same names: {', '.join(others)}. "
            "Choose another folder; or, if these images were replaced on purpose, let what was "
            "written of them be replaced (--force)."
        )
        raise FilesThereError(msg)


def require_same_project(folder: Path, before: Origin | None, project: Project) -> None:
    """Make sure that a folder which is replaced as a whole has label maps of this project alone.

    Cases are known by their images, whatever they are called.

    Args:
        folder: Where to.
        before: What an earlier export to the folder wrote; None where there was none.
        project: Whose export comes in its place.

    Raises:
        FilesThereError: When a case there has an image that no case of the project has.
    """
    earlier = {} if before is None else before.cases
    names = {case.id for case in project.cases}
    images = {case.image_sha256 for case in project.cases}
    others = [
        name
        for name, origin in earlier.items()
        if (origin.image_sha256 not in images if origin.image_sha256 else name not in names)
    ]
    if others:
        msg = (
            f"{folder} holds cases whose images this project does not have, and they would be "
            f"deleted: {', '.join(others)}. Choose another folder; or, if they were removed or "
            "their images replaced on purpose, let what is there be replaced (--force)."
        )
        raise FilesThereError(msg)


def require_not_own(project: Project, folder: Path, names: Collection[str]) -> None:
    """Make sure that files which come to a folder replace none of a project's, nor its images.

    Args:
        project: The project.
        folder: Where to.
        names: Of all files that will be written, relative to the folder.

    Raises:
        StorageError: When the folder is the project's own, or images of it would be lost.
    """
    _refuse_own_place(project, folder)
    _refuse_images(project, folder, names)


def require_free_file(project: Project, path: Path) -> None:
    """Make sure that one file replaces none of a project's, nor its images.

    Beside `project.json` it has a place.

    Args:
        project: The project.
        path: Of the file that will be written.

    Raises:
        StorageError: When it is where the project keeps its own files, or an image would be lost.
    """
    if path.parent.resolve() != project.folder.resolve():
        _refuse_own_place(project, path.parent)
    elif path.name.casefold() in OWN_FILES:
        msg = f"{path} is where the project keeps its own files; choose another name."
        raise StorageError(msg)
    _refuse_images(project, path.parent, [path.name])


def _refuse_other_targets(folder: Path, before: Origin, targets: Iterable[Target]) -> None:
    """Refuse to give the values of label maps that are there another meaning."""
    there = {as_typed(one.name, one.value, one.inside) for one in before.targets}
    if there != {as_typed(one.name, one.value, one.inside) for one in targets}:
        msg = (
            f"{folder} holds label maps of other targets ({', '.join(sorted(there))}); choose "
            "another folder."
        )
        raise StorageError(msg)


def _refuse_own_place(project: Project, folder: Path) -> None:
    """Refuse the folders of a project in which it keeps label maps, masks, decisions and runs."""
    home, place = project.folder.resolve(), folder.resolve()
    inside = place.relative_to(home).parts if place.is_relative_to(home) else None
    if inside is not None and (not inside or inside[0] in OWN_FOLDERS):
        msg = f"{folder} is where the project keeps its own files; choose another folder."
        raise StorageError(msg)


def _refuse_images(project: Project, folder: Path, names: Collection[str]) -> None:
    """Refuse to put files in the place of images, or among the slices of one."""
    written = (folder, *(folder / name for name in names))
    there = {_file_number(path): path for path in written if path.exists()}
    for case in project.cases if there else ():
        image = project.image_path(case)
        if image.exists() and _file_number(image) in there:
            msg = (
                f"{there[_file_number(image)]} is the image of case {case.id}, which is never "
                "replaced or added to; choose another folder."
            )
            raise StorageError(msg)


def _file_number(path: Path) -> tuple[int, int]:
    """Return what tells a file from all others, whatever it is called."""
    found = path.stat()
    return found.st_dev, found.st_ino


@contextmanager
def staged(folder: Path, before: Origin | None) -> Iterator[Path]:
    """Give an empty folder to fill, whose files then take their places in another one.

    Args:
        folder: Where they go. `origin.json` comes last.
        before: What an earlier export to it wrote; of that goes away what the new origin does not
            name, unless it was changed since.

    Yields:
        A hidden folder beside `folder`, for files and their origin; it is deleted whatever happens.

    Raises:
        StorageError: When the place cannot be written.
    """
    place = folder.resolve()  # of a link, the folder that it leads to, perhaps on another disk
    sweep(place.parent)
    staging = temporary_beside(place)
    with storage_errors(folder):
        staging.mkdir(parents=True)
        try:
            yield staging
            _publish(staging, place, before)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def gone_files(before: Origin | None, after: Origin | None) -> list[str]:
    """List the files of an earlier export that a later one to its folder says nothing of."""
    if before is None:
        return []
    return [name for name in before.files if after is None or name not in after.files]


def _publish(staging: Path, folder: Path, before: Origin | None) -> None:
    names = [path.relative_to(staging).as_posix() for path in visible_files(staging)]
    if not folder.exists() or not any(folder.iterdir()):
        if folder.exists():
            folder.rmdir()
        staging.replace(folder)
        return
    gone = gone_files(before, read_origin(staging))
    changed = foreign_files(folder, gone, {} if before is None else before.files)
    for name in (name for name in names if name != ORIGIN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(folder / name)
    for name in gone:
        if name not in changed:
            (folder / name).unlink(missing_ok=True)
    if ORIGIN in names:
        (staging / ORIGIN).replace(folder / ORIGIN)
