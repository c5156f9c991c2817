"""Continuous integration runs what a developer runs: the same commands, versions and extras."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from package.cmake_lists import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def parsed(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


JOBS = {name: context for path in WORKFLOWS for name, context in parsed(path)["jobs"].items()}
STEPS = [step for context in JOBS.values() for step in context["steps"]]
COMMANDS = [line for step in STEPS for line in str(step.get("run", "")).splitlines()]


def systems() -> set[str]:
    """Operating systems of all jobs."""
    found = [
        context.get("strategy", {}).get("matrix", {}).get("os", [context["runs-on"]])
        for context in JOBS.values()
    ]
    return {name.split("-")[0] for names in found for name in names}


def test_the_tests_run_on_three_systems() -> None:
    assert systems() == {"ubuntu", "windows", "macos"}


def test_linux_runs_the_command_that_decides() -> None:
    assert [step["run"] for step in JOBS["linux"]["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_linux_runs_each_python_that_the_makefile_accepts() -> None:
    low, high = re.findall(r"\(3, (\d+)\)", MAKEFILE)
    expected = [f"3.{minor}" for minor in range(int(low), int(high) + 1)]
    assert JOBS["linux"]["strategy"]["matrix"]["python-version"] == expected


def test_the_other_systems_install_what_the_makefile_installs() -> None:
    pins = re.findall(r"^TORCH(?:VISION)? := (\S+)$", MAKEFILE, re.MULTILINE)
    extras = re.findall(r'--editable "(\S+)"', MAKEFILE)
    text = "\n".join(step.get("run", "") for step in JOBS["windows-and-macos"]["steps"])
    assert re.findall(r'"(torch\S+)"', text) == pins
    assert re.findall(r'--editable "(\S+)"', text) == extras


def targets() -> set[str]:
    """What make is asked for by all jobs."""
    nightly = JOBS["nightly"]["strategy"]["matrix"]["target"]
    return {c.split()[1] for c in COMMANDS if c.startswith("make ")} | set(nightly)


def test_each_night_the_slow_tests_and_the_full_campaigns_run() -> None:
    assert parsed(WORKFLOWS[0])[True]["schedule"]  # YAML 1.1 reads the word "on" as true
    assert "schedule" in JOBS["nightly"]["if"]
    assert JOBS["nightly"]["strategy"]["matrix"]["target"] == ["nightly", "faults"]
    assert ".ci/run ${{ matrix.target }}" in COMMANDS


def test_the_packages_are_looked_up_among_vulnerabilities() -> None:
    assert "make audit" in COMMANDS
    assert re.search(r"^audit:.*\n(?:\t.*\n)*\t@\$\(BIN\)/pip-audit", MAKEFILE, re.MULTILINE)


def test_the_panel_is_left_out_by_name_and_only_where_it_has_no_wheels() -> None:
    assert "'3.14' && 'no' || 'yes'" in JOBS["linux"]["env"]["PANEL"]


def test_the_other_systems_run_every_folder_of_tests() -> None:
    runs = "\n".join(line for line in COMMANDS if line.startswith("python -m pytest"))
    left, taken = (re.findall(pattern, runs) for pattern in (r"--ignore=(\S+)", r" (Testing\S*)"))
    assert left == taken == ["Testing/panel", "Testing/standin"]


@pytest.mark.parametrize("target", sorted(targets()))
def test_each_target_that_is_made_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("name", re.findall(r"(?:Testing|Docs)/\w+", "\n".join(COMMANDS)))
def test_each_folder_that_a_command_names_exists(name: str) -> None:
    assert (ROOT / name).is_dir()


@pytest.mark.parametrize(
    "step", [each for each in STEPS if "uses" in each], ids=lambda s: s["uses"]
)
def test_each_action_states_its_version(step: dict[str, Any]) -> None:
    assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_jobs_may_only_read_the_repository() -> None:
    assert all(parsed(path)["permissions"] == {"contents": "read"} for path in WORKFLOWS)


def test_the_extras_that_are_installed_exist() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = re.findall(r"\.\[([\w,]+)\]", "\n".join(COMMANDS))
    extras = set(facts["project"]["optional-dependencies"])
    assert wanted
    assert {extra for group in wanted for extra in group.split(",")} <= extras
