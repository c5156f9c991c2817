"""Each command that a message, a docstring or an example of the code names is understood."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from aslseg.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
VALUE = "x"
"""Stands for what is filled in."""
BEYOND = re.compile(r"[`;()\[\]\n]|, |\.( |$)")
"""What ends a command within a sentence."""


def word_of(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else VALUE


def texts_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "as_typed_command":
            yield " ".join(word_of(argument) for argument in node.args)
        elif isinstance(node, ast.JoinedStr):
            parts = [n.value if isinstance(n, ast.Constant) else VALUE for n in node.values]
            yield "".join(map(str, parts))
            for filled in node.values:
                yield from texts_of(filled)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        else:
            yield from texts_of(node)


def commands_of(text: str, names: set[str]) -> Iterator[str]:
    if text.startswith("aslseg "):  # an example
        text = text.split("\n")[0]
        yield text if text.split()[1] in names else ""
        return
    for found in re.finditer(r"\baslseg ([a-z]+)\b", text):
        if found[1] in names:
            yield BEYOND.split(text[found.start() :], maxsplit=1)[0].strip()


def named_commands() -> dict[str, str]:
    """Return each command, with the first file that names it."""
    group: Any = typer.main.get_command(app)
    found: dict[str, str] = {}
    paths = [*ROOT.glob("Logic/aslseg/**/*.py"), *ROOT.glob("SlicerASLseg/**/*.py")]
    for path in sorted(paths):
        for text in texts_of(ast.parse(path.read_text(encoding="utf-8"))):
            for line in filter(None, commands_of(text, set(group.commands))):
                found.setdefault(line, path.relative_to(ROOT).as_posix())
    return found


NAMED = named_commands()


def test_commands_are_found_in_messages() -> None:
    assert NAMED["aslseg follow x --run x"] == "Logic/aslseg/remote/tasks.py"
    assert NAMED["aslseg train x --resume"] == "Logic/aslseg/cli/main.py"
    assert NAMED["aslseg renew x x"] == "Logic/aslseg/project/image_digests.py"


@pytest.mark.parametrize("line", NAMED)
def test_each_command_of_a_message_is_understood(line: str) -> None:
    """Words that have to be given may be left out, as where a command is only mentioned."""
    command: Any
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        return
    try:
        command.make_context(line, words)
    except typer.BadParameter.__mro__[1] as error:  # what is wrong about the use of a command
        if type(error).__name__ not in {"MissingParameter", "BadOptionUsage"}:
            pytest.fail(f"{NAMED[line]} names '{line}': {error}")
