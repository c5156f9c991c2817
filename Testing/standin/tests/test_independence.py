"""The stand-in needs nothing of this repository but its own folder."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
SOURCES = sorted(HOME.rglob("*.py"))
PLAYED = {"slicer", "qt", "ctk", "vtk", "SampleData"}
LIBRARIES = {"PySide6", "shiboken6", "numpy", "packaging", "pydicom", "pytest", "standin"}


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module))
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(HOME).as_posix())
def test_a_file_imports_pythons_own_qts_slicers_and_its_neighbours_alone(path: Path) -> None:
    assert _imported(path) - set(sys.stdlib_module_names) - PLAYED - LIBRARIES == set()


def test_a_copy_elsewhere_runs(tmp_path: Path) -> None:
    shutil.copytree(HOME, tmp_path / "standin", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import standin; print(standin.__file__, slicer.app.majorVersion)"
    done = subprocess.run(
        [sys.executable, tmp_path / "standin", "--python-code", code],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "standin" / "__init__.py"), "5"]
