"""The command line `aslseg`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aslseg import __version__
from aslseg.cli import benchmark as cli_benchmark
from aslseg.cli import cases as cli_cases
from aslseg.cli import filling as cli_filling
from aslseg.cli import hosts as cli_hosts
from aslseg.cli import lesions as cli_lesions
from aslseg.cli import projects as cli_projects
from aslseg.cli import runs as cli_runs
from aslseg.cli import training as cli_training
from aslseg.cli import weights as cli_weights
from aslseg.cli.console import FriendlyGroup, examples, finish, messages, tell
from aslseg.cli.progress import watched
from aslseg.errors import CancelledError, as_typed_command

WELCOME = """Label-efficient segmentation of CT: from a few labelled volumes to labels for all.

A specialist network and the Segment Anything Model (SAM) improve each other's labels.

1. [bold]aslseg demo[/] shows the whole job on made-up patients.

2. [bold]aslseg init[/] makes a project from your images and the labels that you have.

3. [bold]aslseg train[/] runs the rounds and writes label maps and report.html.

4. [bold]aslseg segment[/] segments new volumes with what was trained.

For research use; not a medical device.
"""

app = typer.Typer(
    cls=FriendlyGroup,
    help=WELCOME,
    epilog="`aslseg COMMAND --help` explains each command with examples.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        tell(f"aslseg {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options of all commands; the group reads `debug` from its parameters."""


cli_projects.register(app)
cli_cases.register(app)
cli_lesions.register(app)
cli_filling.register(app)
cli_training.register(app)
cli_runs.register(app)
cli_benchmark.register(app)
cli_hosts.register(app)
app.add_typer(cli_weights.app)


@app.command(epilog=examples("aslseg demo", "aslseg demo /tmp/aslseg-demo"))
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("demo"),
) -> None:
    """Run the whole job on made-up patients: 10 volumes, 2 of them labelled, 3 held out.

    Takes less than 10 minutes on 2 cores. SAM's weights (MobileSAM, 40 MB) are downloaded once;
    where that is impossible, the run goes on without SAM and says so. Repeating it adds a run.
    """
    from aslseg.cli.demo import LABELLED, UNLABELLED, VALIDATION, run_demo

    cases = f"{LABELLED} labelled, {UNLABELLED} unlabelled, {VALIDATION} held out"
    tell(f"ASLseg on made-up patients in {folder}: {cases}.")
    try:
        with watched(messages) as monitor:
            run = run_demo(folder, monitor)
    except CancelledError as error:
        again = as_typed_command("aslseg", "train", folder / "project", "--resume")
        msg = f"{error} Go on with: {again}"
        raise CancelledError(msg) from error
    finish(run)
    tell("")
    tell("Next: open the report above in a browser. On your own volumes:")
    tell("  aslseg init my_project IMAGES --labels LABELS --validation CASE,CASE")
    tell("  aslseg train my_project")


def main() -> None:
    """Run the command line; the exit code is 0, 1 for an error, 2 for misuse, 130 when stopped."""
    app()
