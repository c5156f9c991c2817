"""What happens when Slicer imports the module: nothing heavy, nothing foreign, nothing executed.

Two of the questions that reviewers of extensions ask; the answers are in Docs/extension-review.md.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from package.cmake_lists import ROOT

MODULE = ROOT / "SlicerASLseg" / "ASLseg.py"
HOMES = (ROOT / "SlicerASLseg", ROOT / "Logic")
# The one call: the package adds the folder of our library to Python's path.
CALLS = {"make_library_importable()"}
OF_SLICER = {"slicer", "qt", "ctk", "vtk", "SimpleITK", "numpy", "scipy", "SampleData"}
HARMLESS = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
)  # fmt: skip


def at_file_scope(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import; not those for type checkers only."""
    for statement in body:
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            continue
        yield statement
        for part in (
            ("body", "orelse", "finalbody") if isinstance(statement, ast.If | ast.Try) else ()
        ):
            yield from at_file_scope(getattr(statement, part, []))


def package_of(path: Path, level: int) -> tuple[str, ...]:
    """The parts of the package that a relative import of this level starts from."""
    if level == 0:
        return ()
    home = next(folder for folder in HOMES if path.is_relative_to(folder))
    return path.relative_to(home).parts[:-level]


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports at file scope."""
    names: set[str] = set()
    for statement in at_file_scope(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            home = ".".join((*package_of(path, statement.level), statement.module or ""))
            names |= {home.strip("."), *(f"{home}.{alias.name}" for alias in statement.names)}
    return names


def file_of(name: str) -> Path | None:
    """The file of ours that a dotted name stands for."""
    for home in HOMES:
        path = home.joinpath(*name.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def reached_on_import() -> dict[Path, set[str]]:
    """Our files that are imported with the module, and what each imports at file scope."""
    found: dict[Path, set[str]] = {}
    waiting = [MODULE]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = imported(path)
            waiting += [file for file in map(file_of, found[path]) if file is not None]
    return found


def test_the_walk_follows_the_modules_imports() -> None:
    names = {path.name for path in reached_on_import()}
    assert {"ASLseg.py", "paths.py"} <= names


def test_nothing_but_what_slicer_has_is_imported_with_the_module() -> None:
    allowed = OF_SLICER | set(sys.stdlib_module_names) | {"ASLsegLib", "aslseg", "ASLseg"}
    foreign = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, names in reached_on_import().items()
        for name in names
        if name.partition(".")[0] not in allowed
    }
    assert foreign == set()


@pytest.mark.parametrize(
    "path",
    [MODULE, *sorted((ROOT / "SlicerASLseg" / "ASLsegLib").rglob("*.py"))],
    ids=lambda path: path.name,
)
def test_importing_a_file_of_the_module_only_defines_names(path: Path) -> None:
    for statement in at_file_scope(ast.parse(path.read_text(encoding="utf-8")).body):
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        known = is_docstring or ast.unparse(statement) in CALLS
        assert known or isinstance(statement, HARMLESS), ast.unparse(statement)


def test_torch_is_never_given_to_pip() -> None:
    listed = (ROOT / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert not [line for line in listed if line.startswith("torch")]
