"""The extension, configured, built and installed by CMake on the stand-in for Slicer's macros."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from package.cmake_lists import LISTS, ROOT
from standin.availability import skip_or_fail, what_is_missing

LAUNCHER = ROOT / "Testing" / "standin"
CMAKE = shutil.which("cmake")
MODULES = Path("lib") / "Slicer-5.12" / "qt-scripted-modules"
PLACES = {"SlicerASLseg": ".", "Logic": "Logic", "Resources": "Resources"}


@pytest.fixture(scope="module", autouse=True)
def _cmake() -> None:
    if CMAKE is None:
        skip_or_fail("cmake is not installed")


def run(*command: str | Path, folder: Path | None = None) -> str:
    """What a command prints; a failure is a failure of the test, with its words."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configure(build: Path) -> None:
    run(
        "cmake", "-S", ROOT, "-B", build,
        f"-DSlicer_DIR={ROOT / 'Testing' / 'package' / 'cmake'}",
        f"-DPython3_EXECUTABLE={sys.executable}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    configure(folder)
    run("cmake", "--build", folder)
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package lies after installation, beside nothing else of this repository."""
    folder = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", build, "--prefix", folder)
    return folder / MODULES


def packaged_files() -> dict[str, Path]:
    """All files that belong into the package: their place in it, and where they are kept."""
    return {
        (Path(PLACES[files.folder]) / name).as_posix(): ROOT / files.folder / name
        for files in LISTS
        if files.folder in PLACES
        for name in files.expected()
    }


def test_the_installed_folder_has_each_file_of_the_extension_and_no_other(installed: Path) -> None:
    paths = {path for path in installed.rglob("*") if path.is_file()}
    files = {path.relative_to(installed).as_posix() for path in paths if path.suffix != ".pyc"}
    assert files == set(packaged_files())


def test_installed_files_are_those_of_the_checkout(installed: Path) -> None:
    for name, kept in packaged_files().items():
        assert (installed / name).read_bytes() == kept.read_bytes(), name


def test_each_installed_script_is_byte_compiled(installed: Path) -> None:
    tag = sys.implementation.cache_tag
    for path in installed.rglob("*.py"):
        assert (path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc").is_file(), path


def test_slicer_finds_one_module_in_the_installed_folder(installed: Path) -> None:
    assert [path.name for path in installed.glob("*.py")] == ["ASLseg.py"]


def test_library_and_resources_are_found_from_the_installed_folder(installed: Path) -> None:
    script = (
        "import sys; sys.path = [p for p in sys.path if 'Logic' not in p]\n"
        f"sys.path.insert(0, {str(installed)!r})\n"
        "from ASLsegLib import paths\n"
        "paths.make_library_importable(); import aslseg\n"
        "print(aslseg.__file__); print(paths.resource('Icons', 'ASLseg.png'))"
    )
    library, icon = run(sys.executable, "-S", "-c", script, folder=installed).split()
    assert Path(library) == installed / "Logic" / "aslseg" / "__init__.py"
    assert Path(icon) == installed / "Resources" / "Icons" / "ASLseg.png"


def in_slicer() -> list[str]:
    """What Slicer's build of the extension would run, by the names of ctest."""
    cases = [f"py_{name}" for name in LISTS[-1].expected()]
    return ["py_ASLseg", "py_nomainwindow_qSlicerASLsegModuleGenericTest", *cases]


def test_ctest_knows_the_module_its_generic_test_and_our_cases(build: Path) -> None:
    listing = run("ctest", "-N", folder=build)
    assert set(re.findall(r"Test\s+#\d+: (\S+)", listing)) == set(in_slicer())


@pytest.fixture(scope="module")
def _stand_in() -> None:
    """Stop where the stand-in for Slicer cannot be had."""
    if reason := what_is_missing():
        skip_or_fail(reason)


@pytest.mark.slow
@pytest.mark.usefixtures("_stand_in")
@pytest.mark.parametrize("name", [name for name in in_slicer() if "Loop" not in name])
def test_cases_for_slicer_pass_on_the_stand_in(build: Path, name: str) -> None:
    run("ctest", "-R", f"^{name}$", "--output-on-failure", "--no-tests=error", folder=build)


@pytest.mark.slow
@pytest.mark.usefixtures("_stand_in")
def test_the_installed_module_trains_on_phantoms_and_segments_one(installed: Path) -> None:
    cases = ROOT / "Testing" / "slicer" / "Python"
    run(
        sys.executable, LAUNCHER, "--testing", "--no-main-window",
        "--additional-module-paths", installed, "--python-code",
        f"import slicer.testing; slicer.testing.runUnitTest([{str(cases)!r}], 'ASLsegLoopTest')",
        folder=installed,
    )  # fmt: skip


def test_the_package_for_the_extensions_manager_has_the_same_files(build: Path) -> None:
    run("cpack", folder=build)
    (archive,) = build.glob("*-ASLseg.tar.gz")
    with tarfile.open(archive) as package:
        names = {member.name.partition("/")[2] for member in package if member.isfile()}
    sources = {name for name in names if not name.endswith((".pyc", ".s4ext"))}
    assert sources == {f"{MODULES.as_posix()}/{name}" for name in packaged_files()}
    assert "share/Slicer-5.12/ASLseg.s4ext" in names


def test_a_script_that_is_listed_but_missing_stops_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16.3)\nproject(Broken NONE)\n"
        + "".join(
            f'set(EXTENSION_{name} "x")\n'
            for name in (
                "HOMEPAGE",
                "CONTRIBUTORS",
                "DESCRIPTION",
                "ICONURL",
                "SCREENSHOTURLS",
                "DEPENDS",
            )
        )
        + "find_package(Slicer REQUIRED)\ninclude(${Slicer_USE_FILE})\n"
        "slicerMacroBuildScriptedModule(NAME Broken SCRIPTS absent.py)\n",
        encoding="utf-8",
    )
    stand_in = f"-DSlicer_DIR={ROOT / 'Testing' / 'package' / 'cmake'}"
    command = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), stand_in]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nonexistent file or directory 'absent.py'" in " ".join(done.stderr.split())
