"""Makes the modules `qt` and `ctk` and fills the loader's list of widget classes."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtWidgets

from . import ctkmodule, qtdialogs, uiloader
from .pythonqt import present_all, qt_namespace


def make_qt() -> ModuleType:
    """Return the flat module `qt`."""
    contents: dict[str, Any] = present_all()
    contents |= {cls.__name__: cls for cls in qtdialogs.REPLACED}
    contents["QDesktopServices"] = qtdialogs.QDesktopServices
    contents["QUiLoader"] = uiloader.QUiLoader
    contents["Qt"] = qt_namespace()
    return _module("qt", contents)


def make_ctk() -> ModuleType:
    """Return the module `ctk`."""
    return _module("ctk", dict(ctkmodule.CLASSES))


def _module(name: str, contents: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, f"The stand-in for Slicer's module {name}.")
    vars(module).update(contents)
    register_widgets(contents)
    sys.modules[name] = module
    return module


def register_widgets(contents: dict[str, Any]) -> None:
    """Let .ui files use the widget classes among these."""
    for name, value in contents.items():
        if isinstance(value, type) and issubclass(value, QtWidgets.QWidget):
            uiloader.registry[name] = value


def use_private_settings(folder: str) -> None:
    """Keep everything that QSettings stores in `folder`."""
    settings = QtCore.QSettings
    settings.setDefaultFormat(settings.Format.IniFormat)
    for scope in (settings.Scope.UserScope, settings.Scope.SystemScope):
        settings.setPath(settings.Format.IniFormat, scope, folder)
