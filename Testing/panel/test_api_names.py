"""Every name of Slicer, Qt, ctk and MRML that the module uses exists; see `standin.api`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from standin.api.check import SourceCheck, Table, mrml_names, ui_findings, ui_widgets

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "SlicerASLseg").rglob("*.py"))
UI_FILES = sorted((ROOT / "Resources" / "UI").glob("*.ui"))


@pytest.fixture(scope="module")
def table() -> Table:
    table = Table.read()
    table.contents["modules"].append("aslseg")
    return table


def _own_names() -> set[str]:
    """Return what the module and the library define or import with a capital first letter."""
    found: set[str] = set()
    for path in [*SOURCES, *(ROOT / "Logic").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


@pytest.fixture(scope="module")
def widgets() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in UI_FILES:
        found |= ui_widgets(path)
    return found


@pytest.fixture(scope="module")
def check(table: Table, widgets: dict[str, str]) -> SourceCheck:
    return SourceCheck(table, widgets, mrml_names() | _own_names())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_module_uses_only_names_that_exist(path: Path, check: SourceCheck) -> None:
    found = check.findings(path.read_text(encoding="utf-8"), path.name)
    assert [f"{each.path}:{each.line}: {each.what}" for each in found] == []


@pytest.mark.parametrize("path", UI_FILES, ids=lambda path: path.name)
def test_ui_files_use_only_names_that_exist(path: Path, table: Table) -> None:
    assert ui_findings(path, table) == []
