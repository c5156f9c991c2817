"""The test command runs each folder of tests, and CI misses none for want of a library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from package.cmake_lists import ROOT

MAKE = shutil.which("make")
SETTINGS = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
MARKERS = "not nightly"
THIS = Path(__file__).resolve()


def listed(name: str) -> list[str]:
    """The texts of a list among pytest's settings."""
    found = re.search(rf"^{name} = \[(.*?)\]", SETTINGS, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]+)"', found[1]) if found else []


def left_out(root: Path, searched: list[str]) -> list[str]:
    """Folders with test files that lie in none of the folders that are searched."""
    holders = {path.parent for path in (root / "Testing").rglob("test_*.py")}
    places = [root / name for name in searched]
    return sorted(
        folder.relative_to(root).as_posix()
        for folder in holders
        if not any(place == folder or place in folder.parents for place in places)
    )


def test_each_folder_of_tests_is_searched() -> None:
    assert left_out(ROOT, listed("testpaths")) == []


def test_a_folder_that_is_left_out_would_be_seen(tmp_path: Path) -> None:
    for name in ("logic", "faults"):
        (tmp_path / "Testing" / name).mkdir(parents=True)
        (tmp_path / "Testing" / name / "test_one.py").write_text("")
    assert left_out(tmp_path, ["Testing/logic"]) == ["Testing/faults"]
    assert left_out(tmp_path, ["Testing"]) == []


def test_nothing_but_the_nightly_tests_is_deselected() -> None:
    options = listed("addopts")
    assert options[options.index("-m") + 1] == MARKERS
    assert not [o for o in options if o.startswith(("--ignore", "--deselect", "-k"))]
    assert "norecursedirs" not in SETTINGS
    assert "collect_ignore" not in "".join(
        p.read_text(encoding="utf-8") for p in ROOT.rglob("Testing/**/conftest.py")
    )


def test_the_night_has_tests_to_run() -> None:
    files = (ROOT / "Testing").rglob("test_*.py")
    assert any("mark.nightly" in path.read_text(encoding="utf-8") for path in files if path != THIS)


def commands_of(target: str) -> str:
    """What make would run for a target."""
    if MAKE is None:
        pytest.skip("make is not installed")
    clean = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    words = [MAKE, "--no-print-directory", "-n", target, "PYTEST_ARGS="]
    return subprocess.run(
        words, cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    ).stdout


def test_make_test_names_no_folder_and_no_marker() -> None:
    (line,) = [line for line in commands_of("test").splitlines() if "/pytest " in line]
    words = line.split()
    assert not [word for word in words if word.startswith("Testing") or word in ("-m", "-k")]


def test_ci_run_is_the_readmes_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\nmake test\n" in readme
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").split("\n")
    assert "export CI=true" in lines
    assert [line for line in lines if line][-1] == 'exec make "${@:-test}"'


def run_without_qt(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a file of the panel's tests where PySide6 cannot be imported."""
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['PySide6'] = None\n")
    kept = {n: v for n, v in os.environ.items() if n not in ("CI", "SLICER_STANDIN")}
    paths = os.pathsep.join([str(folder), kept.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [*command, "Testing/panel/test_ui_file.py"],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_qt_the_tests_of_the_panel_are_skipped(tmp_path: Path) -> None:
    done = run_without_qt(tmp_path)
    assert "1 skipped" in done.stdout
    assert done.returncode in (0, 5)


@pytest.mark.parametrize("ci", ["true", "1"])
def test_without_qt_ci_fails(tmp_path: Path, ci: str) -> None:
    done = run_without_qt(tmp_path, CI=ci)
    assert done.returncode not in (0, 5)
    assert "no stand-in for Slicer" in done.stdout
    assert "it must run" in done.stdout


def test_ci_may_leave_the_panel_out_by_name(tmp_path: Path) -> None:
    done = run_without_qt(tmp_path, CI="true", SLICER_STANDIN="no")
    assert "1 skipped" in done.stdout
    assert done.returncode in (0, 5)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 2)])
def test_make_stops_in_ci_when_the_panel_cannot_be_installed(
    tmp_path: Path, ci: str, code: int
) -> None:
    if MAKE is None or sys.platform == "win32":
        pytest.skip("needs make and a shell")
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    python = binaries / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *panel*) exit 1;; esac\n')
    python.chmod(0o755)
    clean = {n: v for n, v in os.environ.items() if n not in ("CI", "PANEL", "MAKEFLAGS")}
    done = subprocess.run(
        [MAKE, "setup", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        env={**clean, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "cannot be installed here" in done.stderr
