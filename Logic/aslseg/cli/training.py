"""The commands that train: `train`, `finetune`, and `estimate`, how long it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aslseg.cli.console import ProjectFolder, RunName, examples, finish, messages, tell
from aslseg.cli.hosts import HostOption, on_host, work_on_run
from aslseg.cli.progress import watched
from aslseg.cli.settings import PresetName, SettingsFile, SingleSettings, settings_of
from aslseg.config import RunConfig
from aslseg.errors import CancelledError, as_typed_command
from aslseg.project.run_folder import RunFolder

if TYPE_CHECKING:
    from aslseg.events import Monitor
    from aslseg.project.project import Project


def train(  # noqa: PLR0913 - one for each option of the command
    project: ProjectFolder,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped run.")] = False,
    more: Annotated[
        int | None,
        typer.Option(min=1, metavar="ROUNDS", help="Add rounds to a run, with the labels of now."),
    ] = None,
    run: RunName = None,
    preset: PresetName = None,
    config: SettingsFile = None,
    settings: SingleSettings = None,
    host: HostOption = None,
) -> None:
    """Run a method's rounds: train, make AI labels, select, repeat; then write the report.

    The setting `method` chooses aslseg, semisam, scsam, cpcsam or specialist (a baseline).

    Several graphics cards or machines: torchrun --nproc-per-node 8 -m aslseg train PROJECT.

    Ctrl-C stops at the next safe place. `--resume` goes on from there and gives the result that the
    undisturbed run would have given. `--more 1` adds a round to a finished run, which is trained
    on the labels that you corrected or accepted since then too.

    With `--host` another computer does it. Ctrl-C leaves it to go on there: `aslseg follow` shows
    it again and fetches what it has made, `aslseg stop` stops it.
    """
    from aslseg.project.project import open_project

    _check_options(preset or config or settings, more, resume=resume)
    opened = open_project(project)
    chosen = None
    if not resume and more is None:
        chosen = settings_of(opened, preset, config, settings)
    if host is not None:
        work_on_run(host, *_train_request(project, chosen, run, more), project)
        return
    with _resumable(project), watched(messages) as monitor:
        folder = _trained(opened, chosen, run, more, monitor)
    if int(os.environ.get("RANK", "0")) == 0:  # of processes that torchrun started, the first
        finish(folder)


def _train_request(
    project: Path, config: RunConfig | None, run: str | None, more: int | None
) -> tuple[str, dict[str, Any]]:
    """Return what a host is asked for, as `_trained` does it here."""
    about = {"project": str(project), "run": run}
    if config is None:
        return "resume", {**about, "rounds": more}
    return "train", {**about, "settings": config.model_dump(mode="json")}


def estimate(
    project: ProjectFolder,
    preset: PresetName = None,
    config: SettingsFile = None,
    settings: SingleSettings = None,
    host: HostOption = None,
) -> None:
    """Say how long `train` would take here or on a host, from a few steps that are tried."""
    from aslseg.project.project import open_project
    from aslseg.runs import estimate_run

    opened = open_project(project)
    chosen = settings_of(opened, preset, config, settings)
    if host is not None:
        from aslseg.engine.facts import EstimateFacts

        asked = {"project": str(project), "settings": chosen.model_dump(mode="json")}
        facts = on_host(host, "estimate", asked).facts_as(EstimateFacts)
        _tell_estimate(facts.seconds, facts.rounds, facts.steps)
        return
    with watched(messages) as monitor:
        found = estimate_run(opened, chosen, monitor)
    _tell_estimate(found.seconds, found.rounds, found.steps)


def _tell_estimate(seconds: float, rounds: int, steps: int) -> None:
    from aslseg.steps import rough_time

    time = rough_time(seconds)
    tell(f"{time[0].upper()}{time[1:]}: {rounds} rounds, {steps} steps.")


def finetune(
    project: ProjectFolder,
    run: RunName = None,
    share: Annotated[
        float | None,
        typer.Option(min=0.001, max=1.0, help="Part of their schedule that is trained."),
    ] = None,
    host: HostOption = None,
) -> None:
    """Let a finished run learn from the lesions that you decided about since, in a short round.

    Only the stages of lesions go on training; `train --more 1` trains everything.
    """
    from aslseg.project.project import open_project
    from aslseg.runs import train_on

    if host is not None:
        asked = {"project": str(project), "run": run, "share": share}
        work_on_run(host, "train_on", asked, project)
        return
    with _resumable(project), watched(messages) as monitor:
        folder = train_on(open_project(project), run, monitor, share=share)
    finish(folder)


@contextmanager
def _resumable(project: Path) -> Iterator[None]:
    """Say how a training that was stopped goes on."""
    try:
        yield
    except CancelledError as error:
        again = as_typed_command("aslseg", "train", project, "--resume")
        msg = f"{error} Go on with: {again}"
        raise CancelledError(msg) from error


def _check_options(settings: object, more: int | None, *, resume: bool) -> None:
    if resume and more is not None:
        msg = "--resume finishes a stopped run and --more adds rounds to a finished one; give one."
        raise typer.BadParameter(msg)
    if settings and (resume or more is not None):
        msg = "A run keeps the settings that it was started with; leave --preset, --config and "
        raise typer.BadParameter(msg + "--set out, or start a new run.")


def _trained(
    project: Project, config: RunConfig | None, run: str | None, more: int | None, monitor: Monitor
) -> RunFolder:
    from aslseg.project.project import open_project
    from aslseg.runs import continue_run, resume_run, start_run

    project = open_project(project.folder)  # the imports took seconds, in which it may have changed
    if more is not None:
        return continue_run(project, run, more, monitor)
    if config is None:
        return resume_run(project, run, monitor)
    return start_run(project, config, monitor, run_id=run)


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command(
        epilog=examples(
            "aslseg train my_project",
            "aslseg train my_project --preset demo --set seed=1",
            "aslseg train my_project --set method=semisam",
            "aslseg train my_project --set sam.model=none",
            "aslseg train my_project --resume",
            "aslseg train my_project --more 1",
            "aslseg train my_project --host gpu1",
        )
    )(train)
    app.command(epilog=examples("aslseg finetune my_project"))(finetune)
    app.command(
        epilog=examples(
            "aslseg estimate my_project", "aslseg estimate my_project --preset standard"
        )
    )(estimate)
