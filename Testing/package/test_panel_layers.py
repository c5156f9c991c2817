"""Imports within the panel run one way: scene, engine, logic, widgets; each only what is before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from package.cmake_lists import ROOT

PANEL = ROOT / "SlicerASLseg" / "ASLsegLib"
BASE = {"paths", "parameters", "requirements"}
# What a package or a file at the root may import of the others, besides itself.
MAY_IMPORT = {
    "paths": set(),
    "parameters": set(),
    "requirements": {"paths"},
    "scene": BASE,
    "sample_data": BASE | {"scene"},
    "engine": BASE | {"scene"},
    "logic": BASE | {"scene", "engine"},
    "widgets": BASE | {"sample_data", "scene", "engine", "logic"},
}


@cache
def files() -> dict[str, Path]:
    """The files of the panel by dotted name, `__init__.py` left out."""
    found = sorted(path for path in PANEL.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(PANEL).with_suffix("").parts): path for path in found}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names of the panel that a file imports: anywhere, also for types only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("ASLsegLib.") for name in names if name[:9] == "ASLsegLib")


def own_imports(name: str) -> set[str]:
    """The files of the panel that a file imports."""
    wanted = {
        one for dotted in imports_of(files()[name]) for one in (dotted, dotted[: dotted.rfind(".")])
    }
    return wanted & set(files())


@pytest.mark.parametrize("name", files())
def test_a_file_imports_only_what_its_package_may(name: str) -> None:
    package = name.split(".")[0]
    others = {one.split(".")[0] for one in own_imports(name)} - {package}
    assert not others - MAY_IMPORT[package], f"ASLsegLib.{name} imports {sorted(others)}"


def test_files_import_each_other_without_a_cycle() -> None:
    try:
        TopologicalSorter({name: own_imports(name) for name in files()}).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def test_packages_depend_on_each_other_one_way() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


@pytest.mark.parametrize("package", ["scene", "engine", "logic", "widgets"])
def test_a_package_says_what_lives_there_and_who_may_import_it(package: str) -> None:
    text = ast.get_docstring(ast.parse((PANEL / package / "__init__.py").read_text("utf-8")))
    assert text is not None
    assert len(text.split()) > 15, package


def test_no_section_imports_another_one() -> None:
    sections = {
        "advanced",
        "models",
        "project",
        "prompts",
        "results",
        "review",
        "segment",
        "status",
        "training",
    }
    for name in sections:
        others = {one.removeprefix("widgets.") for one in own_imports(f"widgets.{name}")}
        assert not others & (sections | {"panel"}), name
