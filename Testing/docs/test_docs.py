"""What the documents name exists: files, modules, functions, settings, commands."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import aslseg
from aslseg.cli.main import app
from aslseg.cli.settings import changed
from aslseg.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "Logic" / "aslseg"
DOCS = sorted((ROOT / "Docs").rglob("*.md"))
LINKING = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "Testing").rglob("README.md")), *DOCS]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def found(pattern: str) -> list[Any]:
    """What the groups of a pattern find in the documents, as test parameters."""
    return [
        pytest.param(*match.groups(), id=f"{path.name}: {' '.join(match.groups())}")
        for path in DOCS
        for match in re.finditer(pattern, text_of(path))
    ]


def links() -> list[Any]:
    return [
        pytest.param(path, link, id=f"{path.name}: {link}")
        for path in LINKING
        for link in dict.fromkeys(re.findall(r"\]\(([^)\s]+)\)", text_of(path)))
        if not re.match(r"[a-z]+:", link)
    ]


FUNCTIONS = found(r"`(\w+)`(?: and `\w+`)? in\s+`(Logic/[\w/]+\.py)`")


def anchors(text: str) -> set[str]:
    """Names that headings get on the web, for those without odd characters."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(("path", "link"), links())
def test_each_relative_link_leads_somewhere(path: Path, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    assert target.exists()
    assert not anchor or anchor in anchors(text_of(target))


def test_the_index_has_each_page_once() -> None:
    index = ROOT / "Docs" / "README.md"
    listed = re.findall(r"^\| \[[\w.-]+\]\(([\w./-]+)\)", text_of(index), re.MULTILINE)
    assert sorted(index.parent / name for name in listed) == [one for one in DOCS if one != index]


@pytest.mark.parametrize("name", found(r"\b((?:Logic|Testing)/[\w./-]*\w)"))
def test_each_path_that_is_named_exists(name: str) -> None:
    assert (ROOT / name).exists()


def test_each_page_that_code_names_exists() -> None:
    files = [
        path
        for home in ("Logic", "SlicerASLseg", "Testing")
        for path in (ROOT / home).rglob("*.py")
    ]
    named = {name for path in files for name in re.findall(r"\bDocs/[\w./-]*\.\w+", text_of(path))}
    assert "Docs/methods.md" in named
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("name", found(r"(?<![/\w])(aslseg(?:\.(?!py\b)[a-z_]\w*)+)"))
def test_each_dotted_name_is_a_module_or_lies_in_one(name: str) -> None:
    home, _, last = name.rpartition(".")
    assert find_spec(home) is not None
    if home == "aslseg" and hasattr(aslseg, last):
        return
    assert find_spec(name) is not None


@pytest.mark.parametrize(("name", "path"), FUNCTIONS)
def test_each_function_is_where_it_is_said_to_be(name: str, path: str) -> None:
    tree = ast.parse(text_of(ROOT / path))
    kinds = (ast.FunctionDef, ast.ClassDef)
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("path", "name"), found(r"`(Testing/[\w/]+\.py)::(\w+)`"))
def test_each_test_that_is_named_exists(path: str, name: str) -> None:
    assert f"def {name}(" in text_of(ROOT / path)


def test_the_design_names_each_package_and_no_other() -> None:
    text = text_of(ROOT / "Docs" / "design.md")
    for home in (LIBRARY, ROOT / "SlicerASLseg" / "ASLsegLib"):
        packages = {path.parent.name for path in home.glob("*/__init__.py")}
        tree = re.search(r"```\n(.*?)```", text, re.DOTALL)
        assert tree is not None
        named = set(re.findall(r"\b(\w+)/", tree[1]))
        assert packages <= named


@pytest.mark.parametrize(
    "path", re.findall(r"`([\w/]+\.py)`", text_of(ROOT / "Docs" / "design.md"))
)
def test_each_file_on_the_way_through_the_code_exists(path: str) -> None:
    homes = (LIBRARY, ROOT / "SlicerASLseg", ROOT / "SlicerASLseg" / "ASLsegLib", ROOT)
    interactive = LIBRARY / "inference" / "interactive"
    assert any((home / path).is_file() for home in (*homes, interactive)), path


SCRIPTS = blocks(text_of(ROOT / "Docs" / "python.md"), "python")


@pytest.mark.parametrize("source", SCRIPTS, ids=range(len(SCRIPTS)))
def test_the_python_examples_compile_and_import_what_there_is(source: str) -> None:
    tree = compile(source, "Docs/python.md", "exec", ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("aslseg"):
            module = import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("source", SCRIPTS, ids=range(len(SCRIPTS)))
def test_the_calls_of_the_python_examples_fit_their_functions(source: str) -> None:
    tree = ast.parse(source)
    imported = {
        alias.name: getattr(import_module(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aslseg")
        for alias in node.names
    }
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = imported.get(ast.unparse(call.func))
        if function is not None:
            words = {word.arg: None for word in call.keywords if word.arg}
            inspect.signature(function).bind(*call.args, **words)  # raises when they do not fit


@pytest.mark.parametrize("source", SCRIPTS, ids=range(len(SCRIPTS)))
def test_what_the_front_door_has_is_imported_from_there(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("aslseg"):
            names = {alias.name for alias in node.names}
            stable = names & set(aslseg.__all__)
            assert stable == (names if node.module == "aslseg" else set())


@pytest.mark.parametrize("name", aslseg.__all__)
def test_each_name_of_the_front_door_is_loaded(name: str) -> None:
    assert getattr(aslseg, name).__name__ == name


def test_the_python_page_names_the_whole_front_door() -> None:
    page = text_of(ROOT / "Docs" / "python.md")
    assert [name for name in aslseg.__all__ if not re.search(rf"\b{name}\b", page)] == []


COMMANDS = [
    line
    for block in blocks(text_of(ROOT / "Docs" / "command-line.md"))
    for line in block.splitlines()
    if line.startswith("aslseg ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_is_understood(line: str) -> None:
    command: Any
    command, words = typer.main.get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context(line, words)  # raises on misuse
    assert isinstance(changed(RunConfig(), context.params.get("settings") or []), RunConfig)


def test_each_command_has_a_section() -> None:
    page = text_of(ROOT / "Docs" / "command-line.md")
    group: Any = typer.main.get_command(app)
    assert set(re.findall(r"^## aslseg (\w+)$", page, re.MULTILINE)) == set(group.commands)
