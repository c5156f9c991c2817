"""Requests of the engine's protocol, served by the engine of a host.

What a request names is sent there, its events are passed on as they come, and what it makes is
fetched. `link` gives it to the host and follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aslseg import run_names
from aslseg.engine.facts import Message, RunFacts
from aslseg.engine.protocol import (
    MODELS,
    Done,
    Estimate,
    FollowRun,
    ImageRequest,
    RequestError,
    Resume,
    Segment,
    Train,
    TrainOn,
    check_request,
)
from aslseg.engine.settings import config_of
from aslseg.errors import RunError, as_typed_command
from aslseg.events import Monitor
from aslseg.project.project import Project, open_project
from aslseg.project.remote_run import (
    RemoteRun,
    claim_run,
    open_remote_runs,
    read_remote_run,
    write_remote_run,
)
from aslseg.project.run_folder import (
    RunFolder,
    latest_finished,
    new_run_id,
    open_run,
    run_named,
    runs_of,
)
from aslseg.project.running import locked
from aslseg.remote.connection import Connection
from aslseg.remote.fetching import fetch_run
from aslseg.remote.hosts import Host
from aslseg.remote.link import HostSession, Link, Work
from aslseg.remote.mirror import Digests, key_of, send_images, send_project, send_run
from aslseg.remote.wire import PROJECTS, Files, ListRun, Ok, Remove
from aslseg.storage import this_computer

DRAWN_FILES = ("labels", "lesion")
"""Fields of requests about an image that name what a person drew."""


class RemoteEngine:
    """Serves requests with the engine of a host; one at a time.

    Args:
        host: The computer.
        is_left: Asked while waiting: whether nobody follows any more. A training then goes on at
            the host; one that is cancelled is stopped there.
    """

    def __init__(self, host: Host, is_left: Callable[[], bool] = lambda: False) -> None:
        self.host = host
        self._link = Link(host, is_left)
        self._digests = Digests()
        self._session: HostSession | None = None
        """The engine that keeps networks and the last volume in memory."""

    @property
    def tasks(self) -> dict[str, Callable[[Mapping[str, Any], Monitor], Done]]:
        """What can be asked for, by name, as the engine of this computer has it."""
        known: dict[str, Callable[[Any, Monitor], Done]] = {
            "train": self.train,
            "resume": self.resume,
            "train_on": self.train_on,
            "follow_run": self.follow_run,
            "estimate": self.estimate,
            "segment": partial(self._predict, "segment"),
            "refine": partial(self._predict, "refine"),
            "grow": partial(self._predict, "grow"),
            "fill_between": partial(self._predict, "fill_between"),
            "describe": partial(self._about_host, "describe"),
            "download": partial(self._about_host, "download"),
            "remove": partial(self._about_host, "remove"),
        }
        for do in MODELS:
            known.setdefault(do, partial(self._refuse, do))
        return {do: partial(self._serve, do, task) for do, task in known.items()}

    def close(self) -> None:
        """End the engine that predicts, and the connection; trainings go on at the host."""
        if self._session is not None:
            self._link.stop(self._session)
        self._session = None
        self._link.drop()

    # -- trainings

    def train(self, request: Train, monitor: Monitor) -> Done:
        """Start a run at the host, and follow it to its end.

        Raises:
            RunError: When there is a run of that name, or it is none of a folder.
            ProjectError: When the project has no labels to learn from.
            HostError: When the host cannot be reached.
            FailedError: When it failed there.
            CancelledError: When it was cancelled; `LeftError` when it goes on.
        """
        project = open_project(Path(request.project))
        project.require_labels()
        config = config_of(request.settings, project.preset)
        run = run_named(project.folder, request.run or new_run_id(config.method))
        if (run.path / run_names.CONFIG).exists():
            msg = f"There is a run '{run.run_id}' already; resume it or give another name."
            raise RunError(msg)
        return self._work_on_run("train", request, project, run, monitor)

    def resume(self, request: Resume, monitor: Monitor) -> Done:
        """Go on with a run at the host; one that may be at work there is followed."""
        project = open_project(Path(request.project))
        run = open_run(project.folder, request.run)
        note = read_remote_run(run.path)
        if note is not None and note.is_open:
            return self.follow_run(FollowRun(project=request.project, run=run.run_id), monitor)
        return self._work_on_run("resume", request, project, run, monitor)

    def train_on(self, request: TrainOn, monitor: Monitor) -> Done:
        """Let a run learn from decisions about lesions at the host."""
        project = open_project(Path(request.project))
        run = open_run(project.folder, request.run)
        return self._work_on_run("train_on", request, project, run, monitor)

    def follow_run(self, request: FollowRun, monitor: Monitor) -> Done:
        """Follow a run that the host works on to its end, and fetch what it has made.

        Raises:
            RunError: When the host works on none, or not on that one.
        """
        project = open_project(Path(request.project))
        notes = open_remote_runs(project.folder)
        ours = [run_id for run_id, note in notes.items() if note.host == self.host.name]
        run_id = request.run or (ours[-1] if ours else "")
        if run_id not in ours:
            which = f"run '{run_id}'" if run_id else "any run"
            others = ", ".join(f"{name} by {note.host}" for name, note in notes.items()) or "none"
            msg = (
                f"{self.host.name} does not work on {which} of {project.folder} (worked on: "
                f"{others}); name another one, or resume it."
            )
            raise RunError(msg)
        run = run_named(project.folder, run_id)
        with locked(run):
            return self._followed(project, run, notes[run_id])

    def remove_project(self, folder: Path, monitor: Monitor) -> None:
        """Delete at the host what is there of a project: images, labels, runs.

        Runs that were fetched stay here, and are this computer's from then on.

        Raises:
            RunError: When a run may be at work there.
            StorageError: When the host works on it.
        """
        self._link.begin(monitor)
        runs = [(run, read_remote_run(run.path)) for run in runs_of(folder)]
        ours = [(run, note) for run, note in runs if note and note.host == self.host.name]
        key = key_of(folder, self.host.name)
        for run, _ in ours:
            claim_run(run.path)
        self._link.do(lambda connection: connection.ask(Remove(project=key), Ok))

    # -- what is answered sooner

    def estimate(self, request: Estimate, monitor: Monitor) -> Done:
        """Estimate how long a run would take at the host."""
        project = open_project(Path(request.project))
        project.require_labels()

        def fields(connection: Connection) -> dict[str, Any]:
            key = send_project(connection, project, self._digests, monitor)
            return {**request.model_dump(), "project": _mirror(connection, key)}

        return self._answered("estimate", fields)

    def _predict(self, do: str, request: ImageRequest, monitor: Monitor) -> Done:
        """Ask about a volume; files come to their place.

        Raises:
            RunError: When that needs a run, and there is none.
        """
        project = None if request.project is None else open_project(Path(request.project))
        run = _run_of(project, request.run)
        if run is None and do == "segment":
            msg = f"{request.project or 'The request'} has no finished run yet; train first."
            raise RunError(msg)
        drawn = [getattr(request, name, None) for name in DRAWN_FILES]
        files = [request.image, *request.organs.values(), *filter(None, drawn)]

        def fields(connection: Connection) -> dict[str, Any]:
            sent = send_images(connection, map(Path, files), self._digests, monitor)
            there = {name: f"{connection.root}/{sent[Path(name)]}" for name in files}
            changes: dict[str, Any] = {
                "image": there[request.image],
                "organs": {name: there[path] for name, path in request.organs.items()},
                "run": None if run is None else run.run_id,
            }
            if project is not None and run is not None:
                key = send_run(connection, project, run, self._digests, monitor)
                changes["project"] = _mirror(connection, key)
            elif project is not None:  # or a run that the mirror alone has would predict
                targets = [target.model_dump() for target in project.targets]
                changes |= {"project": None, "targets": targets}
            for name, file in zip(DRAWN_FILES, drawn, strict=True):
                changes |= {} if file is None else {name: there[file]}
            return {**request.model_dump(), **changes}

        output = Path(request.output) if isinstance(request, Segment) else None
        return self._answered(do, fields, output)

    def _about_host(self, do: str, request: Message, _: Monitor) -> Done:
        """Ask the host about itself: its device, its weights of SAM."""
        return self._answered(do, lambda _: request.model_dump())

    # -- within

    def _serve(
        self,
        do: str,
        task: Callable[[Any, Monitor], Done],
        arguments: Mapping[str, Any],
        monitor: Monitor,
    ) -> Done:
        request = check_request(do, arguments)
        self._link.begin(monitor)
        return task(request, monitor)

    def _refuse(self, do: str, _: Message, __: Monitor) -> Done:
        msg = f"'{do}' is not done by a host; ask the engine of this computer in place of it."
        raise RequestError(msg)

    def _answered(
        self,
        do: str,
        fields: Callable[[Connection], dict[str, Any]],
        output: Path | None = None,
    ) -> Done:
        """Ask the engine that keeps networks in memory, and wait for its answer."""

        def send(connection: Connection) -> HostSession:
            values = fields(connection)
            while True:
                session = self._session = self._session or HostSession()
                if output is not None:
                    values["output"] = f"{connection.root}/{session.output}"
                if self._link.send(connection, session, do, values):
                    return session
                self._session = None  # it has ended, after nobody had asked for long

        session = self._link.do(send)
        try:
            return self._link.finish(Work(session, output=output))
        finally:
            if self._link.was_told_to_stop:
                self._session = None

    def _work_on_run(
        self,
        do: str,
        request: Train | Resume | TrainOn,
        project: Project,
        run: RunFolder,
        monitor: Monitor,
    ) -> Done:
        """Let an engine of its own work on a run, and follow it to its end."""
        session = HostSession()
        with locked(run):
            note = self._free_to_send(run)
            is_there = self._link.do(lambda connection: _is_there(connection, project, run))
            if do == "train" and is_there:
                clean = as_typed_command("aslseg", "hosts", "clean", self.host.name, project.folder)
                msg = (
                    f"{self.host.name} has a run '{run.run_id}' that is not here, maybe of another "
                    f"project that was in {project.folder}; give another name, or delete what is "
                    f"there: {clean}"
                )
                raise RunError(msg)
            if not is_there:
                claim_run(run.path)  # it goes there as it is here
                note = None

            def send(connection: Connection) -> RemoteRun:
                ours = None if do == "train" else run
                key = send_project(connection, project, self._digests, monitor, ours)
                begun = RemoteRun(
                    host=self.host.name,
                    project=key,
                    session=session.key,
                    computer=this_computer(),
                    folder=str(project.folder.resolve()),
                )
                begun = begun.model_copy(update={"fetched": note.fetched if note else {}})
                write_remote_run(run.path, begun)  # first: what has begun is found again
                changes = {"project": _mirror(connection, key), "run": run.run_id}
                values = {**request.model_dump(), **changes}
                if not self._link.send(connection, session, do, values):
                    look = as_typed_command("aslseg", "follow", project.folder, "--run", run.run_id)
                    msg = (
                        f"The connection to {self.host.name} was lost while the engine there was "
                        f"started, and run '{run.run_id}' may have begun or not. Look for it there "
                        f"({look}); if it has not, resume it."
                    )
                    raise RunError(msg)
                return begun

            return self._followed(project, run, self._link.do(send))

    def _free_to_send(self, run: RunFolder) -> RemoteRun | None:
        """Return what is noted of a run of this host; make sure that nobody works on it.

        Raises:
            RunError: When this host or another one may do so.
        """
        note = read_remote_run(run.path)
        if note is not None and note.is_open:
            msg = f"Run '{run.run_id}' is worked on by {note.host}; follow it to its end first."
            raise RunError(msg)
        return note if note is not None and note.host == self.host.name else None

    def _followed(self, project: Project, run: RunFolder, note: RemoteRun) -> Done:
        """Follow a run whose lock is held here."""
        self._link.expect_work()
        known = [note]

        def keep(connection: Connection, is_over: bool) -> None:
            known[0] = fetch_run(connection, project.folder, run.run_id, known[0], is_over=is_over)
            if is_over:  # its memory is free for others then
                self._link.stop(HostSession(note.session))

        def work(connection: Connection) -> Work:
            places = {_mirror(connection, note.project): project.folder}
            return Work(HostSession(note.session, number=1), places, keep=keep)

        done = self._link.finish(self._link.do(work))
        done.facts_as(RunFacts)
        return done


def _mirror(connection: Connection, key: str) -> str:
    return f"{connection.root}/{PROJECTS}/{key}"


def _is_there(connection: Connection, project: Project, run: RunFolder) -> bool:
    """Whether the host has files of a run."""
    key = key_of(project.folder, connection.host.name)
    return bool(connection.ask(ListRun(project=key, run=run.run_id), Files).files)


def _run_of(project: Project | None, name: str | None) -> RunFolder | None:
    """Return the run that predicts: the one that is named, else the latest finished one."""
    if project is None:
        return None
    return latest_finished(project.folder) if name is None else open_run(project.folder, name)
