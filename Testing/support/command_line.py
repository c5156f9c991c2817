"""The command line in this process, as tests call it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from aslseg.cli.main import app


def aslseg(*words: object) -> Result:
    """Run the command line; wide, so that no sentence is broken."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
