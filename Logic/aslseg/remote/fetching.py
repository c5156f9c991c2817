"""How the folder of a run comes from a host: files that have changed there, and nothing else.

Only files within `runs/<id>/` are written here. Files come in the order in which they were written
there, so that those that mark something as done come after what they mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from aslseg import run_names
from aslseg.project.case import RUNS
from aslseg.project.remote_run import FILE_NAME as NOTE
from aslseg.project.remote_run import RemoteRun, write_remote_run
from aslseg.project.run_folder import RunFolder, make_latest
from aslseg.remote.connection import Connection
from aslseg.remote.wire import PROJECTS, Files, ListRun
from aslseg.storage import inside

_STAYS = (run_names.LOCK, run_names.ORDER, NOTE)
_AT_THE_END = (run_names.EVENTS, run_names.LOG, run_names.REPORT)
_WEIGHTS, _UNFINISHED = ".safetensors", ".training.safetensors"
_AT_ONCE = 64
"""So many files are asked for at once."""


def fetch_run(
    connection: Connection, project_folder: Path, run_id: str, note: RemoteRun, *, is_over: bool
) -> RemoteRun:
    """Fetch what has changed of a run, and delete what was fetched and is gone there.

    Nothing is deleted where the host has nothing of the run any more: it has lost its folder.

    Weights of a round come when the round is done; what nothing but a training there needs (images
    and masks made for it, networks of folds, states that it goes on from) stays there.

    Args:
        connection: To the run's host.
        project_folder: Of the project here.
        run_id: Name of the run.
        note: What is known of it; the new one is written beside the files.
        is_over: Whether the work there has ended: logs come too, and the note is closed.

    Returns:
        The new note.

    Raises:
        ConnectionLostError: When the connection is gone; what has come is noted.
        StorageError: When a file cannot be written here.
    """
    folder = inside(project_folder, Path(RUNS, run_id))
    there = connection.ask(ListRun(project=note.project, run=run_id), Files).files
    stamps = {state.path: state.stamp for state in there}
    wanted = [
        state.path
        for state in there
        if note.fetched.get(state.path) != state.stamp and _is_wanted(state.path, stamps, is_over)
    ]
    fetched = dict(note.fetched)
    try:
        for start in range(0, len(wanted), _AT_ONCE):
            names = wanted[start : start + _AT_ONCE]
            for name in _fetch(connection, note, folder, names):
                fetched[name] = stamps[name]
                if name == run_names.CONFIG:
                    make_latest(RunFolder(folder))  # of the runs here; the host knows fewer
        for name in [name for name in fetched if name not in stamps] if there else ():
            inside(folder, Path(name)).unlink(missing_ok=True)
            del fetched[name]
    finally:
        note = note.model_copy(update={"fetched": fetched})
        write_remote_run(folder, note)
    if is_over:
        note = note.model_copy(update={"is_open": False})
        write_remote_run(folder, note)
    return note


def _fetch(
    connection: Connection, note: RemoteRun, folder: Path, names: list[str]
) -> Iterator[str]:
    """Fetch files of a run's folder, and yield the name of each when it is there."""
    there = f"{PROJECTS}/{note.project}/{RUNS}/{folder.name}"
    for path in connection.fetch(
        [(f"{there}/{name}", inside(folder, Path(name))) for name in names]
    ):
        yield path.removeprefix(f"{there}/")


def _is_wanted(name: str, there: Iterable[str], is_over: bool) -> bool:
    path = PurePosixPath(name)
    if path.name in _STAYS or run_names.lies_in(path, run_names.FOR_TRAINING):
        return False
    if name in _AT_THE_END:
        return is_over
    if name.endswith(_WEIGHTS):
        return not name.endswith(_UNFINISHED) and f"{path.parts[0]}/{run_names.ROUND}" in there
    return True
