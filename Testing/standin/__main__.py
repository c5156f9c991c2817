"""Starts the stand-in with as much of Slicer's command line as tests of a module need.

    python Testing/standin --testing --no-main-window \\
        --additional-module-paths FOLDER --python-code "print(slicer.modules.mymodule.title)"
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import unittest
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any


def arguments(words: list[str]) -> argparse.Namespace:
    """Understand the command line; what the stand-in does not have anyway is accepted."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("--no-splash", "--testing", "--no-main-window", "--disable-cli-modules"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--additional-module-paths", nargs="+", type=Path, default=[])
    parser.add_argument("--python-code", default="")
    return parser.parse_args(words)


def run_unit_test(paths: str | list[str], name: str) -> None:
    """Slicer's `slicer.testing.runUnitTest`: all cases of a file that is found on these paths.

    Raises:
        Exception: A test failed.
    """
    sys.path.extend([paths] if isinstance(paths, str) else paths)
    suite = unittest.TestLoader().loadTestsFromName(name)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if not result.wasSuccessful() or not result.testsRun:
        raise Exception(f"{name} failed")


def start(options: argparse.Namespace, settings: Path) -> Any:
    """Start the application, and load the modules of the folders that were named."""
    from standin import core

    app = core.start(settings)
    import slicer

    slicer.testing = ModuleType("slicer.testing")
    slicer.testing.runUnitTest = run_unit_test
    sys.modules["slicer.testing"] = slicer.testing
    app._testing = options.testing
    if options.no_main_window:
        app._main_window.objectName = ""
        app._main_window.deleteLater()
        app.processEvents()
    for folder in options.additional_module_paths:
        for path in sorted(folder.resolve().glob("*.py")):
            app.moduleManager().load_scripted(path)
    app.startupCompleted()
    return app


def note(failures: list[str], kind: type[BaseException], error: Any, trace: Any) -> None:
    """Show and remember an error that a slot or an observer raised: Qt and VTK go on after it."""
    traceback.print_exception(kind, error, trace)
    failures.append(str(error))


def main(words: list[str]) -> int:
    """Start, run the code, and say whether it went well."""
    options = arguments(words)
    failures: list[str] = []
    sys.excepthook = partial(note, failures)
    with tempfile.TemporaryDirectory() as folder:
        app = start(options, Path(folder))
        import slicer

        try:
            exec(options.python_code, {"__name__": "__main__", "slicer": slicer})
        except Exception:  # as in Slicer: whatever the code raised is shown, and is a failure
            traceback.print_exc()
            return 1
        for name in list(app.moduleManager().modulesNames()):
            app.moduleManager().unload(name)
    return 1 if failures else 0


if __name__ == "__main__":
    # Of `python Testing/standin` Python would find the files here as top-level modules.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Qt's and VTK's objects die in no particular order otherwise
