"""The module in an interpreter that has only what Slicer bundles: it opens and explains itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUNDLED = ("numpy", "scipy", "SimpleITK", "requests", "pydicom", "packaging")
STAND_IN = ("vtk", "slicer-core", "PySide6-Essentials", "shiboken6")


def link_packages(names: tuple[str, ...], folder: Path) -> None:
    """Make a folder of packages that holds some of those that are installed here."""
    for name in names:
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            place = folder / top
            if not place.exists():
                place.symlink_to(Path(str(metadata.distribution(name).locate_file(top))))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What happened in a child process with a folder of packages of its own."""
    folder = tmp_path_factory.mktemp("bare")
    packages = folder / "packages"
    packages.mkdir()
    link_packages(BUNDLED + STAND_IN, packages)
    project = folder / "project"
    make_project(project)
    command = [
        sys.executable, "-S", str(HERE / "bare_application.py"), str(folder / "settings"),
        sysconfig.get_path("purelib"), str(project),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    environment.pop("ASLSEG_TRAINED", None)
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def make_project(folder: Path) -> None:
    """Make a project of three small phantoms, one of them labelled."""
    from aslseg.data.images import write_labelmap, write_volume
    from aslseg.data.phantom.dataset import make_phantom
    from aslseg.project.create import create_project
    from aslseg.project.datasets import cases_from_folder

    data = folder.with_name("data")
    for number in range(3):
        volume, labels = make_phantom(number, (8, 40, 48), (20.0, 8.0, 8.0))
        write_volume(volume, data / "images" / f"p{number}.nii.gz")
        if number == 0:
            write_labelmap(labels, data / "labels" / "p0.nii.gz")
    create_project(folder, cases_from_folder(data / "images", data / "labels"))


def test_the_module_opens_and_offers_to_install_what_is_missing(bare: dict[str, Any]) -> None:
    assert bare["found"] == []
    for name in ("torch", "pydantic", "monai", "filelock", "psutil", "safetensors"):
        assert name in bare["label"]
    assert bare["offers"]


def test_every_enabled_button_can_be_pressed(bare: dict[str, Any]) -> None:
    assert {"installButton", "addDicomButton", "addPositiveButton", "addBoxButton"} <= set(
        bare["pressed"]
    )
    assert bare["undone"]
    assert bare["raised"] == []


def test_the_only_message_is_that_the_extension_pytorch_is_not_there(bare: dict[str, Any]) -> None:
    assert bare["errors"]
    assert all(text.startswith("The extension PyTorch is not") for text in bare["errors"])


def test_what_is_installed_is_used_without_a_restart(bare: dict[str, Any]) -> None:
    assert bare["after"] == ""
    assert bare["cases"] == 3
    assert bare["install_errors"] == []
