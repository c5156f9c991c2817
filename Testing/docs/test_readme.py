"""What the README shows exists."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import aslseg
from aslseg.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLED = r"^\| `aslseg (\w+)`"
SCRIPT = re.search(r"```python\n(.*?)```", README, re.DOTALL)


def calls() -> list[ast.Call]:
    assert SCRIPT is not None
    nodes = ast.walk(ast.parse(SCRIPT[1]))
    return [
        node
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("aslseg.")
    ]


@pytest.mark.parametrize("call", calls(), ids=lambda call: ast.unparse(call.func))
def test_each_call_of_the_python_example_fits_its_function(call: ast.Call) -> None:
    function = getattr(aslseg, ast.unparse(call.func).removeprefix("aslseg."))
    words = {word.arg: None for word in call.keywords if word.arg}
    inspect.signature(function).bind(*call.args, **words)  # raises when they do not fit


def test_the_readme_names_commands_that_there_are_and_how_many() -> None:
    named, commands = re.findall(TABLED, README, re.MULTILINE), get_command(app).commands
    assert set(named) <= set(commands)
    assert f"All {len(commands)} commands" in README


def test_the_page_of_the_commands_begins_with_a_table_of_each() -> None:
    page = (ROOT / "Docs" / "command-line.md").read_text(encoding="utf-8")
    named = re.findall(TABLED, page[: page.index("\n## ")], re.MULTILINE)
    assert sorted(named) == sorted(get_command(app).commands)


@pytest.mark.parametrize("line", re.findall(r"^aslseg (.*?)(?:\s+#.*)?$", README, re.MULTILINE))
def test_each_line_of_the_shell_example_is_understood(line: str) -> None:
    command, *rest = line.split()
    options = {word for word in rest if word.startswith("-")}
    output = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert all(option in output for option in options)


def test_the_disclaimer_stands_in_front() -> None:
    before_the_first_section = README[: README.index("\n## ")]
    assert "Not a medical device" in before_the_first_section
    assert "arterial spin" in before_the_first_section
