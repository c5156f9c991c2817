"""Puts the stand-in in place of Slicer: modules, names of `slicer`, and the application object."""

from __future__ import annotations

import gc
import inspect
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import shiboken6
import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from . import mainwindow, modules
from .application import qSlicerApplication
from .python import annotations, i18n, packaging, parameternode, sampledata, scripted
from .pythonqt import qtdialogs, uiloader
from .pythonqt.present import present_all, qt_namespace
from .widgets import ctkmodule, layout, markupswidgets, qmrml, segmentwidgets, threedview, views

_WIDGET_MODULES = [
    qmrml,
    segmentwidgets,
    markupswidgets,
    views,
    threedview,
    layout,
    modules,
    mainwindow,
]


def start(folder: Path | None = None) -> Any:
    """Make the application with its modules; to be called once per process.

    Args:
        folder: Where its files go: settings, temporary files, cache. When None, in a folder that
            `stop`, or the end of the process, deletes.

    Returns:
        `slicer.app`.
    """
    own = None
    if folder is None:
        own = TemporaryDirectory(prefix="slicer-standin-", ignore_cleanup_errors=True)
        folder = Path(own.name)
    _use_private_settings(str(folder))
    _make_qt()
    _make_module("ctk", dict(ctkmodule.CLASSES))
    _remove_names_that_only_the_wheel_has()
    _register_widgets(_publish_widgets())
    _publish_python_modules()
    app = qSlicerApplication(["Slicer"])
    app.setOrganizationName("SlicerStandin")
    app.setApplicationName("Slicer")
    slicer.app = app
    app.prepare(folder)
    app._own_folder = own
    app._main_window = mainwindow.qSlicerMainWindow()
    return app


def stop(app: Any) -> None:
    """Take the windows and the views down before Python forgets things in an order of its own.

    A folder that `start` made is deleted.
    """
    for widget in QtWidgets.QApplication.topLevelWidgets():
        if shiboken6.isValid(widget):  # deleting one may take others with it
            widget.hide()
            shiboken6.delete(widget)
    app.standin_take_down()
    gc.collect()
    if app._own_folder is not None:
        app._own_folder.cleanup()


def _use_private_settings(folder: str) -> None:
    """Keep everything that QSettings stores in `folder`."""
    settings = QtCore.QSettings
    settings.setDefaultFormat(settings.Format.IniFormat)
    for scope in (settings.Scope.UserScope, settings.Scope.SystemScope):
        settings.setPath(settings.Format.IniFormat, scope, folder)


def _make_qt() -> None:
    """Make the flat module `qt`."""
    contents: dict[str, Any] = present_all()
    contents |= {cls.__name__: cls for cls in qtdialogs.REPLACED}
    contents["QDesktopServices"] = qtdialogs.QDesktopServices
    contents["QUiLoader"] = uiloader.QUiLoader
    contents["Qt"] = qt_namespace()
    _make_module("qt", contents)


def _make_module(name: str, contents: dict[str, Any]) -> None:
    module = ModuleType(name, f"The stand-in for Slicer's module {name}.")
    vars(module).update(contents)
    _register_widgets(contents)
    sys.modules[name] = module


def _register_widgets(contents: dict[str, Any]) -> None:
    """Let .ui files use the widget classes among these."""
    for name, value in contents.items():
        if isinstance(value, type) and issubclass(value, QtWidgets.QWidget):
            uiloader.registry[name] = value


def _remove_names_that_only_the_wheel_has() -> None:
    """`slicer.loadVolume` and the like exist in the wheel alone; Slicer has them in slicer.util."""
    for name in dir(slicer.util):
        shared = getattr(slicer, name, None) is getattr(slicer.util, name)
        if shared and not name.startswith("_"):
            delattr(slicer, name)


def _publish_widgets() -> dict[str, Any]:
    found = {
        name: value
        for module in _WIDGET_MODULES
        for name, value in vars(module).items()
        if inspect.isclass(value) and name.startswith(("qMRML", "qSlicer"))
    }
    vars(slicer).update(found)
    return found


def _publish_python_modules() -> None:
    _publish("slicer.ScriptedLoadableModule", scripted)
    _publish("slicer.i18n", i18n)
    _publish("slicer.packaging", packaging)
    wrapper = _publish("slicer.parameterNodeWrapper", parameternode)
    vars(wrapper).update({n: v for n, v in vars(annotations).items() if n[0].isupper()})
    sys.modules["SampleData"] = sampledata


def _publish(name: str, source: ModuleType) -> ModuleType:
    module = ModuleType(name, source.__doc__)
    own = {n: v for n, v in vars(source).items() if getattr(v, "__module__", "") == source.__name__}
    vars(module).update(own)
    sys.modules[name] = module
    setattr(slicer, name.removeprefix("slicer."), module)
    return module
