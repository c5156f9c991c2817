"""The wheel has the whole library, and works in an environment that has nothing else of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from package.cmake_lists import ROOT
from support.tiny_project import a_tiny_project, tiny_config

pytest.importorskip("build", reason="the package 'build' is not installed")

NEEDS_NETWORK = pytest.mark.skipif(
    "ASLSEG_NETWORK" not in os.environ,
    reason="downloads packages: set ASLSEG_NETWORK=1 to run it",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive, by the setuptools that is there or a fresh one."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder)]
    if "ASLSEG_NETWORK" not in os.environ:
        setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
        if int(setuptools.__version__.split(".")[0]) < 77:
            pytest.skip("setuptools is older than 77")
        command.append("--no-isolation")
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_each_file_of_the_library_and_no_other(wheel: Path) -> None:
    home = ROOT / "Logic"
    kept = {
        path
        for ending in ("py", "typed", "j2", "css")
        for path in home.glob(f"aslseg/**/*.{ending}")
    }
    expected = {path.relative_to(home).as_posix() for path in kept}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected


@pytest.mark.slow
def test_the_wheel_states_version_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        parts = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist()}
    facts = message_from_bytes(parts["METADATA"])
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {facts['Version']}\n" in citation
    assert facts["License-Expression"] == "Apache-2.0"
    assert parts["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert "aslseg = aslseg.cli.main:main" in parts["entry_points.txt"].decode()


def pinned_versions() -> list[str]:
    """The versions of torch and torchvision that the Makefile installs."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.findall(r"^TORCH(?:VISION)? := (\S+)$", text, re.MULTILINE)


@pytest.mark.slow
@NEEDS_NETWORK
def test_the_wheel_trains_and_segments_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "ASLSEG_CACHE": str(tmp_path / "cache")}

    def run(*words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "empty")
    tools = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin")
    torch, torchvision = pinned_versions()
    run(tools / "python", "-m", "pip", "install", torch)
    run(tools / "python", "-m", "pip", "install", "--no-deps", torchvision)
    run(tools / "python", "-m", "pip", "install", wheel)

    home = run(tools / "python", "-c", "import aslseg; print(aslseg.__file__)")
    assert Path(home).is_relative_to(tmp_path)
    a_tiny_project(tmp_path)
    settings = tmp_path / "settings.json"
    settings.write_text(tiny_config(rounds=1).model_dump_json(), encoding="utf-8")
    run(tools / "aslseg", "train", "project", "--config", settings)
    run(tools / "aslseg", "segment", "project", tmp_path / "data" / "ct6.nii.gz", "-o", "labels")
    assert list((tmp_path / "labels").glob("*ct6*"))
