"""What tests of the panel do beyond `standin.harness`: our module, its labels, all its buttons."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from standin import harness
from standin.dialogs import dialogs

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "SlicerASLseg" / "ASLseg.py"
LEFT_OUT = ("demoButton", "downloadButton", "startButton")
"""Buttons that `press_all` should not press: a long wait, the network."""


def open_module() -> Any:
    """Open our module as Slicer does, and return its widget."""
    return harness.open_module(MODULE)


def close_module() -> None:
    """Leave our module and unload it."""
    harness.close_module(MODULE.stem)


def reload_module() -> Any:
    """Press Reload, and return the module's new widget."""
    return harness.reload_module(MODULE.stem)


def close_project(logic: Any) -> None:
    """Let no project be open."""
    logic.project = None
    logic.project_changed.emit()


def wait_for_files(logic: Any, settle_s: float = 0.1) -> None:
    """Wait until files are read in the background, and what they hold is shown."""
    harness.wait_until(lambda: not logic.background.is_busy, 60.0, "files are read")
    harness.run_event_loop(settle_s)


def wait_for_engine(logic: Any, settle_s: float = 0.1) -> None:
    """Wait until files are read and the engine has answered, and what came is shown.

    A training goes on meanwhile.
    """
    harness.wait_until(
        lambda: not (logic.engine.is_busy or logic.background.is_busy), 120.0, "the engine rests"
    )
    harness.run_event_loop(settle_s)


def use_brief_engine(logic: Any) -> None:
    """Use an engine whose networks learn drawn slices in a fifth of their steps."""
    script = Path(__file__).with_name("brief_engine.py")
    logic.engine._python = [sys.executable, str(script)]


def start_filling(logic: Any, button: Any) -> None:
    """Press a button that fills between drawn slices, and wait until the engine learns these."""
    events: list[Any] = []
    logic.engine.event.connect(events.append)
    harness.click(button)
    learning = "Learning the drawn slices"
    harness.wait_until(
        lambda: any(getattr(event, "task", "") == learning for event in events), 60.0, "it learns"
    )


def write_labels(volume: Any, labels: Any, targets: Any, provenance: Any, **policy: Any) -> Any:
    """Show a label map (D, H, W) as a prediction about a volume; see `write_prediction`."""
    from ASLsegLib.scene.segmentations import write_prediction
    from ASLsegLib.scene.segments import parts_of

    return write_prediction(volume, parts_of(labels, targets), targets, provenance, **policy)


def read_labels(node: Any, volume: Any, targets: Any) -> Any:
    """Return what a segmentation shows of the targets, (D, H, W) on a volume's grid."""
    from ASLsegLib.scene.shown_labels import shown_labels

    return shown_labels(node, volume, targets, may_leave_out=lambda *_: True).labels


def read_mask(node: Any, segment_id: str, volume: Any) -> Any:
    """Return a segment as a mask, (D, H, W) bool on the grid of a volume."""
    from ASLsegLib.scene.segments import read_part
    from ASLsegLib.scene.volumes import geometry_of

    mask = np.zeros(geometry_of(volume).shape, bool)
    part = read_part(node, segment_id, volume)
    if part is not None:
        mask[part.place] = part.values
    return mask


def write_mask(node: Any, segment_id: str, mask: Any, volume: Any) -> None:
    """Let a segment hold a mask, (D, H, W) bool on the grid of a volume."""
    from ASLsegLib.scene.segments import part_of, write_part

    write_part(node, segment_id, part_of(mask), volume)


def remove_prompts(volume: Any) -> None:
    """Remove all prompts about a volume; those that were proposed count again."""
    from ASLsegLib.scene.prompts import prompt_nodes, remove_prompt

    for node in prompt_nodes(volume):
        remove_prompt(node)
    volume.RemoveAttribute("ASLseg.SlicesTakenOver")


def put_under(node: Any, matrix: Any) -> Any:
    """Put a node under a linear transform, a (4, 4) array; return the transform's node."""
    from ASLsegLib.scene.volumes import as_matrix

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    transform.SetMatrixTransformToParent(as_matrix(np.asarray(matrix, float)))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def shift_up(shift_mm: float) -> np.ndarray:
    """Return the matrix (4, 4) that moves up."""
    matrix = np.eye(4)
    matrix[2, 3] = shift_mm
    return matrix


def show_slice_of(volume: Any, slice_index: int) -> None:
    """Let the slice views show the middle of an axial slice of a volume."""
    from ASLsegLib.scene.volumes import slice_geometry_of

    geometry = slice_geometry_of(volume)
    _, rows, columns = geometry.shape
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2, slice_index, 1.0])
    position = geometry.ijk_to_ras @ middle
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByCentering(*position[:3].tolist())


def press(panel: Any, keys: str) -> None:
    """Press keys such as "Ctrl+Z" in Slicer's main window, by events of a keyboard."""
    from PySide6 import QtGui, QtTest

    window = slicer.util.mainWindow() or panel.widget.window()
    window.show()
    window.activateWindow()
    window.setFocus()
    slicer.app.processEvents()
    QtTest.QTest.keySequence(window, QtGui.QKeySequence(keys))
    harness.run_event_loop(0.1)


def press_all(panel: Any, except_for: Sequence[str] = ()) -> list[str]:
    """Press every button and box that is enabled, also those that become so meanwhile.

    Questions are cancelled. Returns the names of what was pressed.
    """
    import qt

    pressed: list[str] = []
    dialogs.cancels_others = True
    for name, widget in vars(panel.ui).items():
        if name.endswith("Section"):
            widget.collapsed = False
    kinds = (qt.QPushButton, qt.QToolButton, qt.QCheckBox, qt.QComboBox)
    while True:
        widgets = [w for w in vars(panel.ui).values() if isinstance(w, kinds)]
        ready = [w for w in widgets if w.name not in pressed and w.name not in except_for]
        ready = [w for w in ready if w.isEnabledTo(panel.widget) and not w.isHidden()]
        if not ready:
            dialogs.cancels_others = False
            return pressed
        for widget in ready:
            pressed.append(widget.name)
            if isinstance(widget, qt.QComboBox):
                for row in range(widget.count):
                    widget.setCurrentIndex(row)
                    widget.activated(row)
            elif widget.enabled:
                widget.click()
            slicer.app.processEvents()
            slicer.util.selectModule(MODULE.stem)  # one of the buttons leaves for another module
