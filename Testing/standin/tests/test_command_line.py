"""`python Testing/standin` starts the application, runs code, and says whether it went well."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
MODULE = """
    from slicer.ScriptedLoadableModule import ScriptedLoadableModule


    class Probe(ScriptedLoadableModule):
        def __init__(self, parent):
            super().__init__(parent)
            self.parent.title = "A probe"
"""
CASE = """
    import unittest


    class ProbeCase(unittest.TestCase):
        def test_it(self):
            self.assertEqual({left}, 2)
"""


PLACE = "import slicer; open(slicer.app.temporaryPath + '/scratch', 'w').close()"
WITHOUT_STOP = f"""
    import sys

    sys.path.insert(0, {str(HOME.parent)!r})
    from standin.core import start, stop

    app = start()
    {PLACE}
"""


def run(*arguments: object, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Start the stand-in; `temporary` is the system's folder for temporary files."""
    return python(HOME, *arguments, temporary=temporary)


def python(*arguments: object, temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    places = {} if temporary is None else dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    command = [sys.executable, *map(str, arguments)]
    environment = {**os.environ, **places}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_modules_of_the_named_folders_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "Probe.py").write_text(textwrap.dedent(MODULE))
    code = "print(slicer.modules.probe.title, slicer.util.mainWindow())"
    options = ("--testing", "--no-main-window", "--additional-module-paths", tmp_path)
    done = run(*options, "--python-code", code)
    assert (done.returncode, done.stdout) == (0, "A probe None\n"), done.stderr


@pytest.mark.parametrize(
    "code",
    ["1 / 0", "import qt; b = qt.QPushButton(); b.clicked.connect(lambda: 1 / 0); b.click()"],
    ids=["in the code", "in a slot"],
)
def test_what_raises_is_shown_and_is_a_failure(code: str) -> None:
    done = run("--python-code", code)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("case", "code"),
    [(CASE.format(left=2), 0), (CASE.format(left=3), 1), ("", 1)],
    ids=["passes", "fails", "has no test"],
)
def test_cases_run_as_by_slicers_own_runner(tmp_path: Path, case: str, code: int) -> None:
    (tmp_path / "ProbeCase.py").write_text(textwrap.dedent(case))
    script = f"import slicer.testing; slicer.testing.runUnitTest([{str(tmp_path)!r}], 'ProbeCase')"
    assert run("--testing", "--python-code", script).returncode == code


def test_an_unknown_option_is_refused() -> None:
    done = run("--python-cod", "1")
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr


@pytest.mark.parametrize("ending", ["", "stop(app)", "sys.exit(3)"])
def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path: Path, ending: str) -> None:
    script = textwrap.dedent(WITHOUT_STOP) + ending
    done = python("-c", script, temporary=tmp_path)
    assert done.returncode == (3 if "exit" in ending else 0), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_by_the_command(tmp_path: Path) -> None:
    done = run("--no-main-window", "--python-code", PLACE, temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
