"""What a test of a module does: open it, click, wait, and measure the event loop."""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore

from .dialogs import dialogs
from .modules import qSlicerScriptedLoadableModule

PATIENCE_S = 2.0  # how long a person waits for a button that is disabled


def open_module(path: Path) -> Any:
    """Open a scripted module as Slicer does: import, widget, setup(), enter(), shown.

    Returns:
        The Python object of the module's widget (`slicer.modules.<Name>Widget`).
    """
    manager = slicer.app.moduleManager()
    close_module(path.stem)
    module = manager.load_scripted(path)
    slicer.app.startupCompleted()
    representation = module.widgetRepresentation()
    representation.resize(480, 900)
    representation.show()
    slicer.util.selectModule(path.stem)
    slicer.app.processEvents()
    return representation.self()


def close_module(name: str) -> None:
    """Leave a module and unload it, with the packages beside its file, as at the end of Slicer."""
    module = slicer.app.moduleManager().module(name)
    if module is None:
        return
    representation = module.widgetRepresentation()
    slicer.util.selectModule("Data")
    representation.hide()
    slicer.app.moduleManager().unload(name)
    representation.deleteLater()
    slicer.app.processEvents()
    inside = str(Path(module.path).parent) + os.sep
    for loaded, code in list(sys.modules.items()):
        if (getattr(code, "__file__", None) or "").startswith(inside):
            del sys.modules[loaded]


def close_modules() -> None:
    """Close every scripted module that is open."""
    manager = slicer.app.moduleManager()
    for name in manager.modulesNames():
        if isinstance(manager.module(name), qSlicerScriptedLoadableModule):
            close_module(name)


def reload_module(name: str) -> Any:
    """Press Reload: slicer.util.reloadScriptedModule. Slicer does not call enter() afterwards."""
    slicer.util.reloadScriptedModule(name)
    slicer.app.processEvents()
    return slicer.app.moduleManager().module(name).widgetRepresentation().self()


def click(button: Any) -> None:
    """Click a button as a person does: only if it is enabled and not hidden.

    One that is disabled for a moment, as while files are read, is waited for.
    """
    end = time.monotonic() + PATIENCE_S
    while not button.enabled and time.monotonic() < end:
        run_event_loop(0.01)
    if not button.enabled:
        raise AssertionError(f"{button.name} is disabled: {button.toolTip}")
    if button.isHidden():
        raise AssertionError(f"{button.name} is hidden")
    button.click()
    slicer.app.processEvents()


def choose(combo: Any, text: str) -> None:
    """Choose the entry of a combo box whose text holds `text`."""
    found = [row for row in range(combo.count) if text.lower() in combo.itemText(row).lower()]
    if not found:
        entries = [combo.itemText(row) for row in range(combo.count)]
        raise AssertionError(f"{combo.name} has no entry '{text}' but {entries}")
    combo.setCurrentIndex(found[0])
    combo.activated(found[0])
    slicer.app.processEvents()


def choose_node(combo: Any, node: Any) -> None:
    """Choose a node in a node combo box as a person does."""
    if combo.mrmlScene() is None:
        raise AssertionError(f"{combo.name} has no scene")
    combo.setCurrentNode(node)
    if combo.currentNode() is not node:
        raise AssertionError(f"{combo.name} does not offer {node.GetName() if node else None}")
    combo.nodeActivated(node)
    slicer.app.processEvents()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """Run the event loop until a condition holds, and return its value.

    Raises:
        AssertionError: It did not hold in time.
    """
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds:g} s: {what or condition}")
        slicer.app.processEvents()
        time.sleep(0.002)
    return value


def run_event_loop(seconds: float) -> None:
    """Run the event loop for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.002)


@dataclass
class LoopBlocks:
    """How long the event loop was blocked, in ms, by the gaps between the ticks of a timer.

    Time in which other programs had the processors does not count, where the system tells it.
    `busy_ms` is what this thread computed between two ticks: without waiting for disk and threads.
    """

    gaps_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    interval_ms: int = 5

    @property
    def longest_ms(self) -> float:
        return max(self.gaps_ms, default=0.0)

    @property
    def longest_busy_ms(self) -> float:
        return max(self.busy_ms, default=0.0)


def _waited_s() -> float:
    """How long this thread was ready to run while other programs had the processors (Linux)."""
    path = Path("/proc/thread-self/schedstat")
    return int(path.read_text(encoding="utf-8").split()[1]) / 1e9 if path.exists() else 0.0


@contextmanager
def measured_event_loop() -> Iterator[LoopBlocks]:
    """Measure the blocks of the event loop while the body waits with `wait_until`."""
    blocks = LoopBlocks()
    timer = QtCore.QTimer()
    timer.setTimerType(QtCore.Qt.PreciseTimer)
    last, last_busy = time.perf_counter() - _waited_s(), time.thread_time()

    def tick() -> None:
        nonlocal last, last_busy
        now, busy = time.perf_counter() - _waited_s(), time.thread_time()
        blocks.gaps_ms.append(max(0.0, 1000 * (now - last) - blocks.interval_ms))
        blocks.busy_ms.append(1000 * (busy - last_busy))
        last, last_busy = now, busy

    timer.timeout.connect(tick)
    timer.start(blocks.interval_ms)
    try:
        yield blocks
    finally:
        tick()
        timer.stop()


class UnhandledErrors:
    """What slots and observers raised: printed and forgotten by Slicer, a failure in a test."""

    def __init__(self) -> None:
        self.seen: list[BaseException] = []

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: types.TracebackType | None
    ) -> None:
        self.seen.append(error.with_traceback(trace))
        sys.__excepthook__(kind, error, trace)

    def take(self) -> list[BaseException]:
        """Return what was raised since the last call."""
        taken, self.seen = self.seen, []
        return taken


def clean_scene() -> None:
    """Close the scene and leave no dialog, setting or override cursor of the test before."""
    slicer.mrmlScene.Clear(0)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    slicer.app.layoutManager().standin_fit()
    slicer.app.processEvents()
    slicer.app.settings().clear()
    while slicer.app.overrideCursor() is not None:
        slicer.app.restoreOverrideCursor()
    dialogs.clear()
