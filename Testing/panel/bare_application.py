"""Opens the module in an interpreter that has only what Slicer bundles; test_bare.py runs it.

    python -S bare_application.py SETTINGS PACKAGES PROJECT

SETTINGS is a folder for settings, PACKAGES the folder of the packages that are "installed" when the
panel's Install button is pressed, PROJECT a project to open then. What happened goes to standard
output as JSON, in the last line.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from standin import core  # noqa: E402

ABSENT = (
    "torch", "torchvision", "pydantic", "monai", "filelock", "psutil", "safetensors",
    "segment_anything", "matplotlib", "typer", "rich",
)  # fmt: skip


class Bare:
    """The module, what was pressed, and what went wrong."""

    def __init__(self) -> None:
        from harness import open_module

        from standin.harness import UnhandledErrors

        self.errors = UnhandledErrors()
        sys.excepthook = self.errors
        self.widget = open_module()
        self.told: dict[str, Any] = {"pressed": []}

    @property
    def panel(self) -> Any:
        return self.widget.panel

    def press(self) -> None:
        """Press whatever is enabled, and show what comes of it."""
        from harness import press_all

        from standin.harness import run_event_loop

        self.told["pressed"] += press_all(self.panel)
        run_event_loop(0.4)  # prompts that rest are sent after this time

    def take_errors(self) -> list[str]:
        """Return the messages that were shown since the last call."""
        from standin.dialogs import dialogs

        texts = [message.text for message in dialogs.errors()]
        dialogs.messages.clear()
        return texts


def use_bare_module(bare: Bare) -> None:
    """Press everything: without anything, with a volume, after a closed scene, after a reload."""
    import slicer
    from harness import press_all, reload_module

    from aslseg.data.volume import Geometry, Volume
    from ASLsegLib.scene.volumes import add_volume
    from standin.harness import choose_node

    bare.press()
    geometry = Geometry((4, 20, 20), np.diag([-2.0, -2.0, 4.0, 1.0]))
    volume = add_volume(Volume(np.zeros(geometry.shape, np.int16), geometry), "ct")
    slicer.app.processEvents()
    choose_node(bare.panel.ui.inputVolumeSelector, volume)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    bare.press()
    undo_a_box(bare, volume)
    slicer.mrmlScene.Clear(0)
    bare.press()
    slicer.util.selectModule("Data")
    slicer.util.selectModule("ASLseg")
    bare.press()
    bare.widget = reload_module()
    bare.told["pressed"] += press_all(bare.panel)
    bare.told["errors"] = bare.take_errors()


def undo_a_box(bare: Bare, volume: Any) -> None:
    """Place a box, take it back and place it again by the buttons."""
    from ASLsegLib.scene.prompts import box_node
    from standin.harness import click, run_event_loop

    box_node(volume, "tumour", (4.0, 4.0, 9.0, 9.0), 1)
    run_event_loop(0.5)  # until it rests
    click(bare.panel.ui.undoButton)
    click(bare.panel.ui.redoButton)
    bare.told["undone"] = bare.panel.ui.undoButton.enabled


def install(bare: Bare, packages: str) -> None:
    """Press Install: the installers put the folder of packages on the path, as pip would."""
    import slicer

    from standin.dialogs import dialogs
    from standin.harness import click

    def put_there(*_: Any, **__: Any) -> Any:
        if packages not in sys.path:
            sys.path.append(packages)
        return importlib.import_module("types")  # what PyTorchUtils returns is the module torch

    extension = types.ModuleType("PyTorchUtils")
    extension.PyTorchUtilsLogic = lambda: types.SimpleNamespace(installTorch=put_there)
    sys.modules["PyTorchUtils"] = extension
    slicer.packaging.pip_install = put_there
    dialogs.answer("install", 0x400)  # Ok
    if sys.modules["ASLsegLib.requirements"]._import_name("monai") in sys.modules:
        raise AssertionError("monai was imported although it is not installed")
    click(bare.panel.ui.installButton)
    bare.told["after"] = sys.modules["ASLsegLib.widgets.section"].not_installed()


def main(settings: str, packages: str, project: str) -> None:
    """Run the steps and say what happened."""
    app = core.start(Path(settings))
    bare = Bare()
    ui = bare.panel.ui
    bare.told["found"] = [name for name in ABSENT if importlib.util.find_spec(name)]
    bare.told["label"] = ui.requirementsLabel.text
    bare.told["offers"] = ui.installButton.enabled and not ui.requirementsFrame.isHidden()
    use_bare_module(bare)
    bare.panel.ui.projectFolderEdit.currentPath = project
    install(bare, packages)
    bare.told["cases"] = bare.panel.ui.casesTable.rowCount
    bare.told["install_errors"] = bare.take_errors()
    bare.told["raised"] = [repr(error) for error in bare.errors.seen]
    from harness import close_module

    close_module()
    sys.stdout.write(json.dumps(bare.told) + "\n")
    sys.stdout.flush()
    core.stop(app)


if __name__ == "__main__":
    main(*sys.argv[1:])
