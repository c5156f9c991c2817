"""Runs that another computer works on: what is noted of them in their folder here.

While the note is open, the run's files come from there: nobody works on it here. When its work
has ended and all has come, the note is closed; the first work on the run here deletes it, and the
run is this computer's again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from aslseg.config import Settings
from aslseg.errors import RunError
from aslseg.reading import damage_told, read_object
from aslseg.storage import this_computer, write_json_atomic

FILE_NAME = "remote.json"


class RemoteRun(Settings):
    """Where a run is worked on.

    Attributes:
        host: Name of the computer, as ssh takes it.
        project: Key of the project's mirror there.
        session: Key of the engine's session there.
        is_open: Whether it may be at work, or something of it has not come yet.
        fetched: By path in the run's folder, the stamp of the file there that was fetched last.
        computer: That wrote the note; empty in notes of earlier versions.
        folder: Of the project there when it did.
    """

    host: Annotated[str, Field(min_length=1, max_length=255)]
    project: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    session: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    is_open: bool = True
    fetched: dict[str, str] = Field(default_factory=dict)
    computer: str = ""
    folder: str = ""


def read_remote_run(folder: Path) -> RemoteRun | None:
    """Return what is noted in the folder of a run; None for one of this computer.

    Raises:
        RunError: When the note is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    remedy = "delete it if the run shall be this computer's"
    with damage_told(path, RunError, remedy):
        return RemoteRun.model_validate(read_object(path, RunError, remedy))


def is_of_a_copy(run: Path, note: RemoteRun) -> bool:
    """Whether a note came with a copy of a project whose original is still on this computer.

    Args:
        run: Folder of the run.
        note: That lies in it.
    """
    if note.computer != this_computer() or not note.folder:
        return False
    original = Path(note.folder, "runs", run.name)
    if original.resolve() == run.resolve():
        return False
    try:
        known = read_remote_run(original)
    except RunError:
        return False
    return known is not None and known.session == note.session


def write_remote_run(folder: Path, note: RemoteRun) -> None:
    """Note where a run is worked on.

    Raises:
        StorageError: When the folder cannot be written.
    """
    write_json_atomic(folder / FILE_NAME, note.model_dump())


def claim_run(folder: Path) -> None:
    """Make a run this computer's, before it is worked on here.

    Raises:
        RunError: When another computer may be working on it.
    """
    note = read_remote_run(folder)
    if note is not None and note.is_open:
        msg = (
            f"Run '{folder.name}' was last worked on by {note.host} and may go on there; follow it "
            "to its end or stop it there (aslseg follow, aslseg stop)."
        )
        raise RunError(msg)
    (folder / FILE_NAME).unlink(missing_ok=True)


def open_remote_runs(project_folder: Path) -> dict[str, RemoteRun]:
    """Return the runs of a project that other computers may be working on, by id."""
    found = {}
    for path in sorted((project_folder / "runs").glob(f"*/{FILE_NAME}")):
        note = read_remote_run(path.parent)
        if note is not None and note.is_open:
            found[path.parent.name] = note
    return found
