"""What a host needs for a request: images by their digests, and a mirror of the project.

Only what is missing there is sent. A project goes there, and nothing of it comes back but the
folders of runs (see `fetching`): labels and decisions of people are this computer's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aslseg import run_names
from aslseg.data.images import digest_of_image, stamp_of
from aslseg.errors import AslsegError
from aslseg.events import Monitor
from aslseg.project.case import HISTORY, LABELS, LESIONS, MASKS, PROJECT_FILE, REVIEWS, RUNS
from aslseg.project.image_digests import check_images
from aslseg.project.project import Project
from aslseg.project.remote_run import FILE_NAME as NOTE
from aslseg.project.remote_run import is_of_a_copy, read_remote_run
from aslseg.project.run_folder import RunFolder, runs_of
from aslseg.remote.connection import Connection
from aslseg.remote.images import name_of_image, sent_files
from aslseg.remote.wire import (
    IMAGES,
    Commit,
    FileDigest,
    FileSize,
    Lacking,
    Missing,
    Ok,
    PutFile,
    PutImage,
)
from aslseg.storage import sha256_of, this_computer, visible_files, write_json_atomic

_FOLDERS = (LABELS, MASKS, LESIONS)
_OF_WORK = (run_names.LOCK, run_names.ORDER, NOTE)
_NOT_FOR_PREDICTIONS = (
    run_names.PREDICTIONS,
    run_names.PSEUDO,
    run_names.LABELS,
    run_names.START,
    *run_names.FOR_TRAINING,
)


@dataclass
class Digests:
    """Digests of files and images, taken again when a file has changed."""

    known: dict[tuple[str, Path], tuple[str, str]] = field(default_factory=dict)

    def image(self, path: Path) -> str:
        """Return the digest of an image.

        Raises:
            ImageError: When it cannot be read.
        """
        return self._of("image", path, digest_of_image)

    def file(self, path: Path) -> str:
        """Return the SHA-256 of a file.

        Raises:
            ImageError: When it cannot be read.
        """
        return self._of("file", path, sha256_of)

    def _of(self, kind: str, path: Path, take: Callable[[Path], str]) -> str:
        stamp = stamp_of(path)
        if self.known.get((kind, path), ("", ""))[0] != stamp:
            self.known[kind, path] = stamp, take(path)
        return self.known[kind, path][1]


def key_of(project_folder: Path, host: str) -> str:
    """Return the key of a project's mirror on a host.

    A project that was moved keeps the mirror that holds its runs; a copy gets one of its own.
    """
    for run in runs_of(project_folder):
        with suppress(AslsegError):
            note = read_remote_run(run.path)
            if note is not None and note.host == host and not is_of_a_copy(run.path, note):
                return note.project
    text = f"{this_computer()} {project_folder.resolve()}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def send_images(
    connection: Connection, images: Iterable[Path], digests: Digests, monitor: Monitor
) -> dict[Path, str]:
    """Send images that a host does not have yet.

    Returns:
        For each image, its path in the station's folder.

    Raises:
        ImageError: When one is missing or cannot be read.
        StorageError: When the host cannot take it.
        ConnectionLostError: When the connection is gone.
    """
    found = {path: digests.image(path) for path in images}
    asked = Missing(images=list(dict.fromkeys(found.values())))
    lacking = set(connection.ask(asked, Lacking).images) if found else set()
    missing = {digest: path for path, digest in found.items() if digest in lacking}
    if missing:
        task = f"sending images to {connection.host.name}"
        for digest, path in monitor.track(list(missing.items()), task):
            _send_image(connection, path, digest)
    return {path: f"{IMAGES}/{digest}/{name_of_image(path)}" for path, digest in found.items()}


def send_project(
    connection: Connection,
    project: Project,
    digests: Digests,
    monitor: Monitor,
    run: RunFolder | None = None,
) -> str:
    """Send all of a project that a training needs: images, labels, decisions.

    Args:
        connection: To the host.
        project: As it is here.
        digests: Of files that were looked at before.
        monitor: Told of the progress.
        run: To go on with, if it is this computer's; its folder is sent.

    Returns:
        Key of the mirror.

    Raises:
        ImageError: When an image is missing.
        ProjectError: When one is not that which was brought in.
        StorageError: When the host cannot take it.
        ConnectionLostError: When the connection is gone.
    """
    for case in project.cases:
        project.require_image(case)
    check_images(project.folder, project.cases, monitor)
    images = [project.image_path(case) for case in project.cases]
    places = send_images(connection, images, digests, monitor)
    external = [known for known in runs_of(project.folder) if known.is_external]
    runs = external if run is None or not _is_ours(run, connection) else [*external, run]
    files = [*_label_files(project.folder), *(path for one in runs for path in _files_of(one))]
    folders = [*_FOLDERS, *(f"{RUNS}/{one.run_id}" for one in runs)]
    return _send_files(connection, project, places, files, folders, digests, monitor)


def send_run(
    connection: Connection,
    project: Project,
    run: RunFolder,
    digests: Digests,
    monitor: Monitor,
) -> str:
    """Send what predictions with a run need: the project's targets, settings and weights.

    Raises:
        StorageError: When the host cannot take it.
        ConnectionLostError: When the connection is gone.
    """
    files: list[Path] = []
    if _is_ours(run, connection):
        files = _files_of(run, _NOT_FOR_PREDICTIONS)
    return _send_files(connection, project, {}, files, [], digests, monitor)


def _send_image(connection: Connection, path: Path, digest: str) -> None:
    files = sent_files(path)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    question = PutImage(
        sha256=digest, files=[FileSize(path=name, size=size) for name, size in sizes.items()]
    )
    connection.ask(question, Ok, [(file, sizes[name]) for name, file in files.items()])


def _send_files(
    connection: Connection,
    project: Project,
    places: dict[Path, str],
    files: Sequence[Path],
    folders: list[str],
    digests: Digests,
    monitor: Monitor,
) -> str:
    key = key_of(project.folder, connection.host.name)
    with tempfile.TemporaryDirectory(prefix="aslseg-") as folder:
        text = Path(folder, PROJECT_FILE)
        write_json_atomic(text, _mirrored(project, places).model_dump())
        paths = {path.relative_to(project.folder).as_posix(): path for path in files}
        paths[PROJECT_FILE] = text  # last: it names the others
        known = [
            FileDigest(path=name, sha256=sha256_of(path) if path is text else digests.file(path))
            for name, path in paths.items()
        ]
        lacking = connection.ask(Missing(images=[], project=key, files=known), Lacking).files
        wanted = [file for file in known if file.path in set(lacking)]
        if wanted:
            task = f"sending the project to {connection.host.name}"
            for file in monitor.track(wanted, task):
                _send_file(connection, key, file, paths[file.path])
        if wanted or folders:
            connection.ask(Commit(project=key, files=known, folders=folders), Ok)
    return key


def _send_file(connection: Connection, key: str, file: FileDigest, path: Path) -> None:
    size = path.stat().st_size
    question = PutFile(project=key, path=file.path, sha256=file.sha256, size=size)
    connection.ask(question, Ok, [(path, size)])


def _mirrored(project: Project, places: dict[Path, str]) -> Project:
    """Return the project as the mirror has it: images are those of the station's folder."""
    cases = []
    for case in project.cases:
        path = project.image_path(case)
        unsent = f"{IMAGES}/{case.image_sha256 or '0' * 64}/{name_of_image(path)}"
        place = Path("..", "..", places.get(path, unsent))
        cases.append(case.model_copy(update={"image": place}))
    return project.model_copy(update={"cases": tuple(cases)})


def _is_ours(run: RunFolder, connection: Connection) -> bool:
    """Whether the files of a run are here, and not on that host as well and newer."""
    note = read_remote_run(run.path)
    is_there = note is not None and note.host == connection.host.name
    return note is None or not is_there or is_of_a_copy(run.path, note)


def _label_files(folder: Path) -> list[Path]:
    """Return labels, masks and decisions; what they replaced comes first."""
    found = [path for name in _FOLDERS for path in visible_files(folder / name)]
    found.sort(key=lambda path: HISTORY not in path.relative_to(folder).parts)
    reviews = folder / REVIEWS
    return [*found, *([reviews] if reviews.exists() else [])]


def _files_of(run: RunFolder, without: Collection[str] = run_names.SCRATCH) -> list[Path]:
    return [
        path
        for path in visible_files(run.path)
        if path.name not in _OF_WORK and not run_names.lies_in(path.relative_to(run.path), without)
    ]
