"""Work on another computer: `aslseg hosts`, `follow` and `stop`, and the option `--host`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.cli.console import (
    ProjectFolder,
    RunName,
    examples,
    finish,
    messages,
    say,
    show_table,
    tell,
)
from aslseg.cli.progress import watched
from aslseg.errors import CancelledError, RunError, as_typed_command
from aslseg.project.remote_run import RemoteRun, open_remote_runs
from aslseg.project.run_folder import run_named

if TYPE_CHECKING:
    from aslseg.engine.protocol import Done

app = typer.Typer(
    name="hosts",
    help="Computers that ssh reaches without a password, and that train or segment with a GPU.",
    epilog=examples("aslseg hosts add gpu1 --python venv/bin/python", "aslseg hosts check gpu1"),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
HostName = Annotated[str, typer.Argument(help="As for ssh: gpu1, user@gpu1.example.org.")]
HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Work on another computer, which ssh reaches (aslseg hosts)."),
]
LEAVING = b"\nLeaving; the work goes on there. Press Ctrl-C again to end at once.\n"


@app.command(epilog=examples("aslseg hosts add gpu1 --python venv/bin/python --folder /scratch/me"))
def add(
    name: HostName,
    python: Annotated[
        str,
        typer.Option(
            help="Command of the Python there that has aslseg, relative to the home folder."
        ),
    ] = "python3",
    folder: Annotated[
        str, typer.Option(help="Where images and runs are kept there; default: ~/aslseg-remote.")
    ] = "",
) -> None:
    """Remember a host, so that the panel lists it and its Python need not be named again."""
    from aslseg.remote.hosts import host_of, remember_host

    remember_host(host_of(name, python, folder))
    tell(f"{name} is remembered. Try it: aslseg hosts check {name}")


@app.command("list", epilog=examples("aslseg hosts list"))
def list_() -> None:
    """List the hosts that are remembered."""
    from aslseg.remote.hosts import known_hosts

    rows = [[host.name, " ".join(host.python), host.folder] for host in known_hosts().values()]
    show_table("Hosts", ["Name", "Python", "Folder"], rows, words=3)


@app.command(epilog=examples("aslseg hosts check gpu1"))
def check(name: HostName) -> None:
    """Connect to a host, and say what it would compute with."""
    from aslseg.engine.facts import ComputerFacts

    facts = on_host(name, "describe", {"device": "auto"}).facts_as(ComputerFacts)
    if facts.device.problem:
        say(facts.device.problem, style="yellow")
    tell(f"{name} answers, with this version of aslseg. Device: {facts.device.name}.")
    here = [one.name for one in facts.weights if one.path is not None and not one.problem]
    tell(f"Weights of SAM there: {', '.join(here) or 'none'}.")


@app.command(epilog=examples("aslseg hosts forget gpu1"))
def forget(name: HostName) -> None:
    """Remember a host no more; nothing is deleted there."""
    from aslseg.remote.hosts import forget_host

    forget_host(name)


@app.command(epilog=examples("aslseg hosts clean gpu1 my_project"))
def clean(name: HostName, project: ProjectFolder) -> None:
    """Delete at a host all that is there of a project; what was fetched of its runs stays here."""
    from aslseg.remote.hosts import host_named
    from aslseg.remote.tasks import RemoteEngine

    engine = RemoteEngine(host_named(name))
    try:
        with watched(messages) as monitor:
            engine.remove_project(project, monitor)
    finally:
        engine.close()
    tell(f"{name} has nothing of {project} any more.")


def follow(project: ProjectFolder, run: RunName = None) -> None:
    """Follow a run that another computer works on to its end, and fetch what it makes.

    Ctrl-C leaves it to go on there.
    """
    run_id, note = _open_run(project, run)
    work_on_run(note.host, "follow_run", {"project": str(project), "run": run_id}, project)


def stop(project: ProjectFolder, run: RunName = None) -> None:
    """Stop a run that another computer works on, and fetch what it has made.

    `aslseg train PROJECT --resume --host NAME` goes on with it there.
    """
    run_id, note = _open_run(project, run)
    try:
        on_host(note.host, "follow_run", {"project": str(project), "run": run_id}, stops=True)
    except CancelledError as error:
        tell(f"{run_id}: {error}")
        return
    tell(f"{run_id} had ended already; its results are here now.")


def work_on_run(host: str, do: str, arguments: Mapping[str, Any], project: Path) -> None:
    """Let a host work on a run, follow it, and show its scores.

    Raises:
        CancelledError: When it is left to go on there.
    """
    from aslseg.engine.facts import RunFacts
    from aslseg.remote.link import LeftError

    try:
        done = on_host(host, do, arguments)
    except LeftError as error:
        follow, stop = (as_typed_command("aslseg", act, project) for act in ("follow", "stop"))
        msg = f"{error} Follow it: {follow}; stop it: {stop}"
        raise CancelledError(msg) from error
    finish(run_named(project, done.facts_as(RunFacts).run))


def on_host(name: str, do: str, arguments: Mapping[str, Any], *, stops: bool = False) -> Done:
    """Serve a request by a host, with its progress shown.

    Args:
        name: Of the host.
        do: Name of the request.
        arguments: Of the request.
        stops: Whether what is at work there is stopped instead of followed.

    Raises:
        LeftError: When Ctrl-C was pressed; what is at work goes on there.
        AslsegError: When it fails.
    """
    from aslseg.events import CancelToken, Monitor
    from aslseg.remote.hosts import host_named
    from aslseg.remote.tasks import RemoteEngine

    with watched(messages, LEAVING) as shown:
        engine = RemoteEngine(host_named(name), lambda: shown.token.is_cancelled)
        token = CancelToken()
        if stops:
            token.cancel()
        try:
            return engine.tasks[do](arguments, Monitor(shown.listener, token))
        finally:
            engine.close()


def _open_run(project: Path, run: str | None) -> tuple[str, RemoteRun]:
    """Return the run that another computer works on, and what is noted of it.

    Raises:
        RunError: When there is none.
    """
    found = open_remote_runs(project)
    run_id = run or next(reversed(found), "")
    if run_id not in found:
        known = ", ".join(f"{name} by {note.host}" for name, note in found.items()) or "none"
        msg = f"No other computer works on {run or 'a run'} of {project} (known: {known})."
        raise RunError(msg)
    return run_id, found[run_id]


def register(to: typer.Typer) -> None:
    """Add the commands of this file."""
    to.add_typer(app)
    to.command(epilog=examples("aslseg follow my_project"))(follow)
    to.command(epilog=examples("aslseg stop my_project"))(stop)
