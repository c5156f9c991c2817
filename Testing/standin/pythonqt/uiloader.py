"""QUiLoader that makes the classes of the stand-in, as Slicer's makes its own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import cache
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from .base import Property, StandinWidget
from .present import present

registry: dict[str, type] = {}


class UnknownWidgetError(RuntimeError):
    """A .ui file names a class that the stand-in does not know."""


class QUiLoader(present(QtUiTools.QUiLoader)):  # type: ignore[misc]
    """Loads a .ui file."""

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        cls = registry.get(class_name)
        if cls is None:
            raise UnknownWidgetError(f"the stand-in has no widget class {class_name} ({name})")
        widget = cls(parent) if parent is not None else cls()
        widget.setObjectName(name)
        return widget

    def createLayout(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        layout = present(getattr(QtWidgets, class_name))()
        layout.setObjectName(name)
        if isinstance(parent, QtWidgets.QWidget) and parent.layout() is None:
            parent.setLayout(layout)
        return layout

    def load(self, file: Any, parent: Any = None) -> Any:
        form, connections, flags = _divided(bytes(file.readAll().data()))
        buffer = QtCore.QBuffer()
        buffer.setData(QtCore.QByteArray(form))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        for child in (widget, *widget.findChildren(QtCore.QObject)):
            if isinstance(child, StandinWidget):
                child.take_over_properties()
        named = {child.objectName: child for child in widget.findChildren(QtWidgets.QWidget)}
        named[widget.objectName] = widget
        for name, prop, value in flags:
            setattr(named[name], prop, value)
        for sender, signal, receiver, slot in connections:
            named[sender].connect(signal, named[receiver], slot)
        return widget


_Connection = tuple[str, str, str, str]
_Flag = tuple[str, str, int]


@cache
def _divided(form: bytes) -> tuple[bytes, list[_Connection], list[_Flag]]:
    """Return a form without what Qt cannot read, and that: connections and values of enums."""
    root = ET.fromstring(form)
    _check_classes(root)
    connections, flags = _take_connections(root), _take_flags(root)
    return ET.tostring(root), connections, flags


def _check_classes(root: ET.Element) -> None:
    used = {str(element.get("class")) for element in root.iter("widget")}
    unknown = sorted(used - set(registry))
    if unknown:
        raise UnknownWidgetError(f"the stand-in has no widget class {', '.join(unknown)}")


def _own(class_name: str | None) -> bool:
    found = registry.get(class_name or "")
    return found is not None and issubclass(found, StandinWidget)


def _take_connections(root: ET.Element) -> list[_Connection]:
    """Take out the connections of which Qt does not know the signal or the slot."""
    classes = {w.get("name"): w.get("class") for w in root.iter("widget")}
    parent, taken = root.find("connections"), []
    for connection in list(parent) if parent is not None else []:
        ends = (connection.findtext("sender"), connection.findtext("receiver"))
        if any(_own(classes.get(end)) for end in ends):
            parent.remove(connection)  # type: ignore[union-attr]
            tags = ("sender", "signal", "receiver", "slot")
            taken.append(tuple(str(connection.findtext(tag)) for tag in tags))
    return taken  # type: ignore[return-value]


def _take_flags(root: ET.Element) -> list[_Flag]:
    """Take out enum values of the stand-in's classes, which Qt cannot read, as integers."""
    taken = []
    for widget in (widget for widget in root.iter("widget") if _own(widget.get("class"))):
        cls = registry[str(widget.get("class"))]
        for prop in widget.findall("property"):
            text = prop.findtext("set") or prop.findtext("enum")
            if text is not None and isinstance(vars(cls).get(str(prop.get("name"))), Property):
                names = [part.strip().rpartition("::")[2] for part in text.split("|")]
                value = sum(int(getattr(cls, name)) for name in names)
                taken.append((str(widget.get("name")), str(prop.get("name")), value))
                widget.remove(prop)
    return taken
